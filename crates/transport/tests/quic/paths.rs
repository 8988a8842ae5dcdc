//! Sessions that outlive the path they began on.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use x0x_core::{PeerAddr, Protocol};
use x0x_identity::testing::key;
use x0x_transport::{
    InboundEvent, Node, PathKind, SessionConfig, Transport,
    link::Engine,
    quic::{QuicConfig, QuicEngine},
    testing::{TokioClock, hello},
};

use crate::support::{Proxy, address, engine, id, until, within};

fn node(n: u64) -> (Node, std::net::SocketAddr) {
    let engine = engine(n);
    let at = address(&engine);
    let mut config = SessionConfig::default();
    config.path_check_interval = Duration::from_millis(20);
    config.path_silence = Duration::from_millis(100);
    (Node::start(engine, config, hello(n, 0), Arc::new(TokioClock::new())), at)
}

#[tokio::test]
async fn a_session_outlives_its_path_without_a_lost_message() {
    let ((a, _), (b, b_at)) = (node(1), node(2));
    let proxy = Proxy::new(b_at).await;
    let mut inbox = b.inbound(Protocol::Direct).expect("free");
    let to = PeerAddr::known(id(2), [proxy.address]);
    let before = within("connect", a.connect(to)).await.expect("connects");
    assert_eq!(before.remote_address, proxy.address);
    until("the acceptor has it", || b.session(id(1)).is_some()).await;

    let message = |n: u32| Bytes::from([&n.to_be_bytes()[..], &[7; 4000]].concat());
    let mut proxy = Some(proxy);
    for n in 0..400 {
        if n == 100 {
            drop(proxy.take());
        }
        within("send", a.send(id(2), Protocol::Direct, message(n))).await.expect("in session");
    }
    let mut next = 0;
    while next < 400 {
        match within("message", inbox.recv()).await.expect("b is up") {
            InboundEvent::Message { message: got, .. } => {
                assert_eq!(got, message(next));
                next += 1;
            }
            event => assert!(matches!(event, InboundEvent::Up(_)), "{event:?}"),
        }
    }
    let after = a.session(id(2)).expect("still up");
    assert_eq!((after.generation, after.remote_address), (before.generation, b_at));
    assert!(a.metrics().paths_changed.value() >= 1);
    // The acceptor sees the dialler where it really is.
    within("pong", b.ping(id(1))).await.expect("in session");
    tokio::join!(a.shutdown(), b.shutdown());
}

#[tokio::test]
async fn both_ends_of_a_link_derive_the_same_flow_and_only_the_dialler_has_paths() {
    let (a, b) = (engine(1), engine(2));
    let (dialled, accepted) = crate::support::connect(&a, &b).await;
    let flows = [&dialled, &accepted].map(|link| link.flow_keys().expect("has probes").flow());
    assert_eq!(flows[0], flows[1]);
    let (again, _accepted) = crate::support::connect(&a, &b).await;
    assert_ne!(again.flow_keys().expect("has probes").flow(), flows[0]);

    let elsewhere = "127.0.0.9:9".parse().expect("an address");
    assert!(!accepted.add_path(elsewhere) && !accepted.use_path(elsewhere));
    assert!(!dialled.use_path(elsewhere), "nobody has shown that the peer is there");
    assert!(dialled.add_path(elsewhere) && dialled.use_path(elsewhere));
    assert_eq!(dialled.remote_address(), elsewhere);
    assert!(dialled.use_path(address(&b)), "back");
    assert_eq!(dialled.remote_address(), address(&b));
}

/// Whatever comes to the port: QUIC goes on.
#[tokio::test]
async fn forged_probes_are_counted_and_not_answered() {
    let (a, _) = node(1);
    let (b, b_at) = node(2);
    within("connect", a.connect(PeerAddr::known(id(2), [b_at]))).await.expect("connects");
    let hostile = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("binds");
    let mut packet = [0; 64];
    packet[..5].copy_from_slice(b"1x0xp");
    for n in 0..500_u32 {
        packet[5..9].copy_from_slice(&n.to_be_bytes());
        hostile.send_to(&packet, b_at).await.expect("sent");
        hostile.send_to(&packet[..n as usize % 64], b_at).await.expect("sent");
    }
    let metrics = b.metrics().probes.clone();
    until("count", || metrics.refused_unknown_flow.value() > 0).await;
    within("ping", b.ping(id(1))).await.expect("in session");
    assert_eq!(metrics.sent.value(), 0);
    assert!(hostile.try_recv(&mut [0; 100]).is_err(), "nothing came back");
    tokio::join!(a.shutdown(), b.shutdown());
}

#[tokio::test]
async fn a_peer_without_a_known_address_is_found_with_help() {
    let ((a, _), (b, _), (helper, at)) = (node(1), node(2), node(3));
    for node in [&a, &b] {
        let to = PeerAddr::known(id(3), [at]);
        within("connect", node.connect(to)).await.expect("connects");
    }
    until("both are known", || helper.sessions().len() == 2).await;
    let found = within("connect", a.connect(PeerAddr::known(id(2), []))).await.expect("found");
    assert!(b.local_addresses().contains(&found.remote_address));
    assert_eq!(helper.metrics().punches.forwarded.value(), 1);
    tokio::join!(a.shutdown(), b.shutdown(), helper.shutdown());
}

/// Real sockets without an address family in common, and a machine that has both.
#[tokio::test]
async fn two_that_cannot_reach_each_other_are_relayed_over_real_sockets() {
    let bound = |n, bind: &str| {
        let config = QuicConfig::new(bind.parse().expect("an address"), key(n));
        QuicEngine::bind(config).ok()
    };
    // Machines without IPv6 have nothing to try here.
    let (Some(b), Some(relay)) = (bound(2, "[::1]:0"), bound(3, "[::]:0")) else { return };
    let started = |n, engine| {
        let clock = Arc::new(TokioClock::new());
        Node::start(engine, SessionConfig::default(), hello(n, 0), clock)
    };
    let relay_at = relay.local_addresses();
    let (a, b, relay) = (started(1, engine(1)), started(2, b), started(3, relay));
    let mut inbox = b.inbound(Protocol::Direct).expect("free");
    for node in [&a, &b] {
        let to = PeerAddr::known(id(3), relay_at.clone());
        within("connect", node.connect(to)).await.expect("one of the families");
    }
    until("both are known", || relay.sessions().len() == 2).await;
    let session = within("connect", a.connect(PeerAddr::known(id(2), []))).await;
    assert_eq!(session.expect("relayed").path, PathKind::Relayed { via: id(3) });
    let message = |n: u32| Bytes::from([&n.to_be_bytes()[..], &[7; 4000]].concat());
    let send = async {
        for n in 0..100 {
            within("send", a.send(id(2), Protocol::Direct, message(n))).await.expect("in session");
        }
    };
    let receive = async {
        let mut next = 0;
        while next < 100 {
            if let Some(InboundEvent::Message { peer, message: got }) =
                within("message", inbox.recv()).await
            {
                assert_eq!((peer, got), (id(1), message(next)));
                next += 1;
            }
        }
    };
    tokio::join!(send, receive);
    assert!(relay.metrics().relay.forwarded_bytes.value() > 400_000);
    tokio::join!(a.shutdown(), b.shutdown(), relay.shutdown());
}
