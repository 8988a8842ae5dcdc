//! Handshakes that succeed, and dials that end before one begins.

use std::time::Duration;

use x0x_transport::{
    error::DialError,
    link::Engine,
    quic::{BindError, QuicEngine},
};

use crate::support::{
    Proxy, address, config, confirm, connect, connect_at, engine, id, until, within,
};

#[tokio::test]
async fn hybrid_and_pure_machines_reach_each_other() {
    for (dialler_pure, acceptor_pure) in
        [(false, false), (true, true), (true, false), (false, true)]
    {
        let mut configs = (config(1), config(2));
        configs.0.pure_pq = dialler_pure;
        configs.1.pure_pq = acceptor_pure;
        let dialler = QuicEngine::bind(configs.0).expect("binds");
        let acceptor = QuicEngine::bind(configs.1).expect("binds");
        let (dialled, accepted) = connect(&dialler, &acceptor).await;
        assert_eq!((dialled.peer(), accepted.peer()), (id(2), id(1)));
        assert_eq!(dialled.remote_address(), address(&acceptor));
        assert_eq!(accepted.remote_address(), address(&dialler));
        assert!(dialled.rtt() > Duration::ZERO);
        assert_eq!(dialler.metrics().links_dialled.value(), 1);
        assert_eq!(acceptor.metrics().links_accepted.value(), 1);
    }
}

#[tokio::test]
async fn a_bare_address_tells_who_lives_there() {
    let (dialler, acceptor) = (engine(1), engine(2));
    let link = within("dial", dialler.dial(address(&acceptor), None)).await.expect("dial succeeds");
    assert_eq!(link.peer(), id(2));
}

#[tokio::test]
async fn ipv4_and_ipv6_share_a_wildcard_socket() {
    let mut both = config(2);
    both.bind = "[::]:0".parse().expect("an address");
    let Ok(acceptor) = QuicEngine::bind(both) else {
        eprintln!("no IPv6 on this machine: nothing to test");
        return;
    };
    let dialler = engine(1);
    let port = address(&acceptor).port();
    let v4 = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    assert!(acceptor.local_addresses().contains(&v4));
    let (dialled, accepted) = connect_at(&dialler, &acceptor, v4).await;
    assert_eq!((dialled.peer(), accepted.peer()), (id(2), id(1)));
    // The IPv4 peer of a socket of both families appears with its plain address.
    assert_eq!(accepted.remote_address(), address(&dialler));
}

#[tokio::test]
async fn a_resumed_handshake_is_short_and_still_proves_both_ids() {
    let (dialler, acceptor) = (engine(1), engine(2));
    let proxy = Proxy::new(address(&acceptor)).await;
    let (dialled, accepted) = connect_at(&dialler, &acceptor, proxy.address).await;
    confirm(&*accepted, &*dialled).await;
    drop((dialled, accepted));
    let full: usize = proxy.take_seen().to_client.iter().sum();

    let proxy = Proxy::new(address(&acceptor)).await;
    let link = within("dial", dialler.dial(proxy.address, Some(id(2)))).await.expect("dial again");
    let resumed: usize = proxy.take_seen().to_client.iter().sum();
    let accepted = within("accept", acceptor.accept()).await.expect("engine is open");
    assert_eq!((link.peer(), accepted.peer()), (id(2), id(1)));
    assert!(resumed < 4000 && full > 7000, "no resumption: {resumed} after {full} bytes");

    // State of one peer is never offered to another at the same place.
    let error = within("dial", dialler.dial(proxy.address, Some(id(3)))).await.expect_err("not 3");
    assert_eq!(error, DialError::PeerMisbehaved("proved another identity"));
}

#[tokio::test]
async fn an_unexpected_peer_is_refused_before_any_stream() {
    let (dialler, acceptor) = (engine(1), engine(2));
    let dial = dialler.dial(address(&acceptor), Some(id(3)));
    let error = within("dial", dial).await.expect_err("the acceptor is not 3");
    assert_eq!(error, DialError::PeerMisbehaved("proved another identity"));
    assert_eq!(dialler.metrics().failed_wrong_peer.value(), 1);

    let metrics = acceptor.metrics();
    until("count", || metrics.failed_refused_by_peer.value() == 1).await;
    assert_eq!(metrics.links_accepted.value(), 0);
}

#[tokio::test]
async fn a_busy_machine_asks_for_proof_of_address_then_refuses() {
    let dialler = engine(1);
    let mut busy = config(2);
    busy.limits.pending_before_retry = 0;
    let acceptor = QuicEngine::bind(busy.clone()).expect("binds");
    let (dialled, accepted) = connect(&dialler, &acceptor).await;
    assert_eq!((dialled.peer(), accepted.peer()), (id(2), id(1)));
    assert_eq!(acceptor.metrics().incoming_retried.value(), 1);

    busy.limits.max_pending = 0;
    let acceptor = QuicEngine::bind(busy).expect("binds");
    let error = within("dial", dialler.dial(address(&acceptor), None)).await.expect_err("refused");
    assert!(matches!(error, DialError::ClosedByPeer(_)), "{error}");
    assert_eq!(acceptor.metrics().incoming_refused_pending.value(), 1);
}

#[tokio::test]
async fn a_machine_does_not_connect_to_itself() {
    let engine = engine(1);
    for expected in [None, Some(id(1))] {
        let dial = engine.dial(address(&engine), expected);
        assert_eq!(within("dial", dial).await.expect_err("it is us"), DialError::OwnAddress);
    }
    assert_eq!(engine.metrics().failed_own_key.value(), 1);
}

#[tokio::test]
async fn silence_and_impossible_addresses_are_told_apart() {
    let mut quick = config(1);
    quick.handshake_timeout = Duration::from_millis(100);
    let dialler = QuicEngine::bind(quick).expect("binds");
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
    let silent = silent.local_addr().expect("bound");
    let error = within("dial", dialler.dial(silent, None)).await.expect_err("nobody answers");
    assert_eq!(error, DialError::Timeout);
    assert_eq!(dialler.metrics().failed_timeout.value(), 1);

    for address in ["127.0.0.1:0", "0.0.0.0:1", "224.0.0.1:9", "255.255.255.255:9", "[::1]:9"] {
        let address = address.parse().expect("an address");
        let error = within("dial", dialler.dial(address, None)).await.expect_err("no such peer");
        assert_eq!(error, DialError::NoAddress, "{address}");
    }
}

#[tokio::test]
async fn a_taken_port_is_an_error() {
    let first = engine(1);
    let mut second = config(2);
    second.bind = address(&first);
    let error = QuicEngine::bind(second).expect_err("the port is taken");
    assert!(matches!(error, BindError::Socket { .. }), "{error}");
}

#[tokio::test]
async fn metrics_have_unique_names() {
    let snapshot = engine(1).metrics().snapshot();
    let mut names: Vec<_> = snapshot.iter().map(|metric| metric.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), snapshot.len());
    assert!(names.iter().all(|name| name.starts_with("quic_")));
    let buffer = snapshot.iter().find(|m| m.name == "quic_socket_receive_buffer_bytes");
    assert!(buffer.expect("listed").value > 0);
}
