//! How many round trips a session takes, in the time of the simulation: what processors take is not in it.

use std::time::Duration;

use x0x_core::PeerAddr;
use x0x_transport::{Transport, testing::nat::NatKind};

use crate::support::{Internet, within};

const ONE_WAY: Duration = Duration::from_millis(100);

/// From the call to the dialler's session, and to the first message at the peer.
async fn dial(seed: u64, greater_dials: bool) -> [Duration; 2] {
    let internet = Internet::new(seed);
    internet.net.with(|world| world.latency = ONE_WAY);
    let (a, b) = (internet.machine(1, None), internet.machine(2, None));
    let (a, mut b) = if (a.id > b.id) == greater_dials { (a, b) } else { (b, a) };
    let started = tokio::time::Instant::now();
    let session = within("connect", a.node.connect(b.to())).await.expect("connects");
    let connected = started.elapsed();
    assert!(session.peer == b.id && session.agents.len() == 1, "proven: {session:?}");
    a.talk(&mut b, 1).await;
    [connected, started.elapsed()]
}

#[tokio::test(start_paused = true)]
async fn a_known_public_address_is_dialled_in_one_round_trip() {
    let round_trip = 2 * ONE_WAY;
    for greater_dials in [true, false] {
        let [connected, first] = dial(40, greater_dials).await;
        println!("greater dials: {greater_dials}; session {connected:?}, first message {first:?}");
        let most = |round_trips: f64| round_trip.mul_f64(round_trips) + Duration::from_millis(5);
        assert!(connected <= most(1.0), "{connected:?}");
        assert!(first <= most(1.5), "{first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_relayed_message_arrives_within_four_round_trips() {
    let internet = Internet::new(41);
    internet.net.with(|world| world.latency = ONE_WAY);
    let relay = internet.machine(1, None);
    let a = internet.machine(2, Some(internet.nat(NatKind::Symmetric)));
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
