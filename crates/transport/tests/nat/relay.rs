//! Machines that cannot reach each other, and a third one that relays.

use std::time::Duration;

use x0x_core::PeerAddr;
use x0x_transport::{PathKind, Transport, testing::nat::NatKind};

use crate::support::{Internet, within};

#[tokio::test(start_paused = true)]
async fn two_that_cannot_meet_are_relayed() {
    let internet = Internet::new(1);
    let relay = internet.machine(1, None);
    let mut a = internet.machine(2, Some(internet.nat(NatKind::Symmetric)));
    let mut b = internet.machine(3, Some(internet.nat(NatKind::Symmetric)));
    a.connect(&relay).await;
    b.connect(&relay).await;
    let start = tokio::time::Instant::now();
    let session = within("connect", a.node.connect(PeerAddr::known(b.id, []))).await;
    let session = session.expect("relayed");
    println!("connected after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(2));
    let via = PathKind::Relayed { via: relay.id };
    assert_eq!((session.path, session.remote_address), (via, relay.at));
    b.has(&a).await;
    assert_eq!(b.path(&a), via);
    a.talk(&mut b, 100).await;
    b.talk(&mut a, 100).await;
    println!("talked after {:?}", start.elapsed());
    for metric in relay.node.metrics().relay.snapshot() {
        if metric.value > 0 { println!("{} {}", metric.name, metric.value); }
    }
    for metric in a.node.metrics().snapshot() {
        if metric.value > 0 { println!("{} {}", metric.name, metric.value); }
    }
}
