//! A machine that moves to another network.

use std::{net::SocketAddr, sync::Arc};

use x0x_core::{PeerAddr, SystemClock};
use x0x_identity::testing::key;
use x0x_transport::{
    LocalHello, Node, SessionConfig, Transport,
    interfaces::{Interface, Network, follow},
    quic::{QuicConfig, QuicEngine},
    testing::{FakeInterfaces, eventually},
};

fn at(text: &str) -> Network {
    let mut interface = Interface::new(2, text.parse().expect("an address"), 24);
    interface.default_routed = true;
    Network::new([interface])
}

fn node(n: u64, interfaces: &FakeInterfaces) -> Node {
    let mut config = QuicConfig::new("0.0.0.0:0".parse().expect("an address"), key(n));
    config.network = Some(follow(interfaces.clone()));
    let engine = QuicEngine::bind(config).expect("a socket");
    let hello = LocalHello::new("test", [n as u8; 16], Vec::new());
    Node::start(engine, SessionConfig::default(), hello, Arc::new(SystemClock::new()))
}

fn loopback(node: &Node) -> SocketAddr {
    let all = node.local_addresses();
    all.into_iter().find(|address| address.ip().is_loopback()).expect("listens there")
}

#[tokio::test]
async fn addresses_and_record_follow_and_peers_are_asked_at_once() {
    let (moves, stays) = (FakeInterfaces::new(at("10.1.0.5")), FakeInterfaces::new(at("10.2.0.5")));
    let (a, b) = (node(1, &moves), node(2, &stays));
    let port = loopback(&a).port();
    let first = SocketAddr::new("10.1.0.5".parse().expect("an address"), port);
    assert_eq!(a.local_addresses()[0], first);
    assert_eq!(a.record().expect("has a key").record().addresses[0], first);

    a.connect(PeerAddr::known(b.local_id(), [loopback(&b)])).await.expect("connects");
    let probes = &a.metrics().probes;
    let before = probes.sent.value();
    moves.set(at("10.3.0.5"));
    eventually("the change is taken note of", async || a.metrics().addresses_changed.value() == 1)
        .await;
    eventually("the peer is asked", async || probes.sent.value() > before).await;
    let now = SocketAddr::new("10.3.0.5".parse().expect("an address"), port);
    assert_eq!(a.local_addresses()[0], now);
    assert_eq!(a.record().expect("has a key").record().addresses[0], now);
    // A change of what nobody is told of is none.
    stays.set(at("10.2.0.5"));
    assert_eq!(b.metrics().addresses_changed.value(), 0);
    assert!(a.session(b.local_id()).is_some(), "the session stays");
    a.shutdown().await;
    b.shutdown().await;
}
