//! How many round trips a session takes, in the time of the simulation: what processors take is not in it.

use std::time::Duration;

use x0x_core::PeerAddr;
use x0x_transport::{Transport, testing::nat::NatKind};

use crate::support::{Internet, within};

const ONE_WAY: Duration = Duration::from_millis(100);

#[tokio::test(start_paused = true)]
async fn a_known_public_address_is_dialled_within_three_round_trips() {
    let internet = Internet::new(40);
    internet.net.with(|world| world.latency = ONE_WAY);
    let (a, b) = (internet.machine(1, None), internet.machine(2, None));
    let started = tokio::time::Instant::now();
    within("connect", a.node.connect(b.to())).await.expect("connects");
    let took = started.elapsed();
    println!("session after {took:?}, round trip {:?}", 2 * ONE_WAY);
    // The handshake and the hellos of both ends.
    assert!(took <= 6 * ONE_WAY + Duration::from_millis(5), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_first_relayed_message_arrives_within_four_round_trips() {
    let internet = Internet::new(41);
    internet.net.with(|world| world.latency = ONE_WAY);
    let relay = internet.machine(1, None);
    let at_once = |config: &mut x0x_transport::SessionConfig| config.relay_after = Duration::ZERO;
    let a = internet.machine_with(2, Some(internet.nat(NatKind::Symmetric)), at_once);
    let mut b = internet.machine(3, Some(internet.nat(NatKind::Symmetric)));
    a.connect(&relay).await;
    b.connect(&relay).await;
    let started = tokio::time::Instant::now();
    let peer = PeerAddr::known(b.id, []);
    within("connect", a.node.connect(peer)).await.expect("relayed");
    a.talk(&mut b, 1).await;
    let (took, round_trip) = (started.elapsed(), 4 * ONE_WAY);
    println!("first byte after {took:?}, round trip by the relay {round_trip:?}");
    assert!(took < 4 * round_trip, "{took:?}");
}
