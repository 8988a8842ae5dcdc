//! What a peer with a valid session may try.

use bytes::Bytes;
use proptest::prelude::*;
use x0x_core::{Machine, Tick};
use x0x_identity::testing::key;
use x0x_presence::{
    Beacon, Frame, Input, LocalSession, MAX_BEACONS, MAX_CHAIN, MAX_INTEREST, MAX_SUBJECTS,
    PresenceState::*, SessionId,
};
use zeroize::Zeroizing;

use crate::world::{World, agent, machine, secs};

fn session(n: usize, on: usize, world: &World) -> LocalSession {
    let secret = Zeroizing::new([n as u8 ^ 0x55; 32]);
    LocalSession::begin(&key(n as u64), machine(on), &secret, world.wall(), secs(30), true)
}

fn message(world: &mut World, from: usize, frame: Bytes) {
    world.input(0, Input::Message { peer: machine(from), frame });
}

/// Node 0 with neighbour 1, to whose place the test speaks.
fn world() -> World {
    let mut world = World::new(2);
    world.neighbors(0, 1);
    world.run(secs(61));
    world
}

#[test]
fn a_beacon_is_small_and_its_frames_fit() {
    let beacon = Beacon { session: SessionId([0xff; 8]), index: MAX_CHAIN, value: [0xff; 32] };
    assert!(Frame::Beacons(vec![beacon]).encode().len() < 100);
    assert!(Frame::Beacons(vec![beacon; MAX_BEACONS]).encode().len() < 64 * MAX_BEACONS);
    let tags = vec![[0xff; 8]; MAX_INTEREST];
    assert!(Frame::decode(&Frame::Interest(tags).encode()).is_ok());
}

#[test]
fn forged_and_old_beacons_prove_nothing() {
    let mut world = world();
    let own = session(1, 1, &world);
    let metrics = world.nodes[0].machine.metrics();
    // Whatever node 1 really sent: replayed, and with another index.
    let mut seen = World::new(2);
    seen.log = Some(Vec::new());
    seen.neighbors(0, 1);
    seen.run(secs(61));
    let log = seen.log.take().expect("kept");
    let replayed: Vec<Bytes> =
        log.into_iter().filter(|(from, ..)| *from == 1).map(|(_, _, frame)| frame).collect();
    let before = metrics.beacons_accepted.value();
    for frame in replayed {
        message(&mut world, 1, frame);
    }
    assert_eq!(metrics.beacons_accepted.value(), before);
    // A session nobody knows leads to one question, and its record must hold.
    let beacon = Beacon { session: own.signed().id(), index: 1, value: [1; 32] };
    message(&mut world, 1, Frame::Beacons(vec![beacon]).encode());
    message(&mut world, 1, Frame::Record(own.signed().clone()).encode());
    assert_eq!(metrics.refused_beacon.value(), 1, "the record holds, the value does not");
    let far = Beacon { index: MAX_CHAIN, ..beacon };
    message(&mut world, 1, Frame::Beacons(vec![far]).encode());
    assert_eq!(metrics.refused_future.value(), 1);
    let farewell = Beacon { index: 0, ..beacon };
    message(&mut world, 1, Frame::Beacons(vec![farewell]).encode());
    assert_eq!(metrics.refused_beacon.value(), 2);
    assert_eq!(world.state(0, 1), Online);
}

#[test]
fn records_are_taken_only_when_asked_for_and_of_use() {
    let mut world = world();
    let metrics = world.nodes[0].machine.metrics();
    let before = metrics.records_accepted.value();
    let stranger = session(40, 1, &world);
    message(&mut world, 1, Frame::Record(stranger.signed().clone()).encode());
    assert_eq!(metrics.refused_unasked.value(), 1);
    let beacon = Beacon { session: stranger.signed().id(), index: 1, value: [1; 32] };
    message(&mut world, 1, Frame::Beacons(vec![beacon]).encode());
    message(&mut world, 1, Frame::Record(stranger.signed().clone()).encode());
    assert_eq!(metrics.refused_unasked.value(), 2, "neither behind the link nor watched");
    assert_eq!(metrics.records_accepted.value(), before);
    assert_eq!(world.state(0, 40), Unknown);
}

#[test]
fn a_record_signed_by_another_is_refused() {
    let mut world = world();
    world.watch(0, [40]);
    let metrics = world.nodes[0].machine.metrics();
    let honest = session(40, 1, &world);
    let mut forged = honest.signed().encode().to_vec();
    let middle = forged.len() - 100;
    forged[middle] ^= 1;
    let beacon = Beacon { session: honest.signed().id(), index: 1, value: [1; 32] };
    message(&mut world, 1, Frame::Beacons(vec![beacon]).encode());
    let mut frame = Frame::Record(honest.signed().clone()).encode().to_vec();
    let start = frame.len() - forged.len();
    frame[start..].copy_from_slice(&forged);
    message(&mut world, 1, frame.into());
    assert_eq!(metrics.refused_signature.value(), 1);
    assert_eq!(world.state(0, 40), Unknown);
}

#[test]
fn beacons_that_were_kept_back_do_not_keep_the_dead_alive() {
    let mut world = World::new(3);
    world.neighbors(0, 1);
    world.neighbors(1, 2);
    world.watch(0, [2]);
    world.log = Some(Vec::new());
    world.run(secs(1200));
    let log = world.log.take().expect("kept");
    let mut late = World::new(3);
    late.neighbors(0, 1);
    late.watch(0, [2]);
    late.run(secs(100));
    // Node 1 passes on, 20 minutes late and one by one, what it had of node 2.
    late.run(secs(1100));
    for (from, to, frame) in log {
        if (from, to) == (1, 0) {
            message(&mut late, 1, frame);
            late.run(secs(15));
        }
    }
    assert!(!late.states(0, 2).contains(&Online) || late.first(0, 2, Offline).is_some());
    assert_ne!(late.state(0, 2), Online);
}

#[test]
fn floods_cost_a_bounded_amount() {
    let mut world = world();
    let metrics = world.nodes[0].machine.metrics();
    let sent = world.nodes[0].bytes_out;
    for n in 0..10_000_u64 {
        let beacon = Beacon { session: SessionId(n.to_be_bytes()), index: 1, value: [0; 32] };
        message(&mut world, 1, Frame::Beacons(vec![beacon; 4]).encode());
    }
    assert!(metrics.refused_rate.value() > 9_000);
    assert!(world.nodes[0].bytes_out - sent < 64 * 64, "few records are asked for");
}

#[test]
fn a_known_session_is_no_licence_to_long_chains() {
    let mut world = world();
    let own = session(1, 1, &world);
    let metrics = world.nodes[0].machine.metrics();
    let beacon = Beacon { session: own.signed().id(), index: 1, value: [1; 32] };
    message(&mut world, 1, Frame::Beacons(vec![beacon]).encode());
    message(&mut world, 1, Frame::Record(own.signed().clone()).encode());
    assert_eq!(metrics.refused_beacon.value(), 1, "nothing is proven of the session");
    world.run(secs(4 * 3600));
    let (wrong, unpaid) = (metrics.refused_beacon.value(), metrics.refused_checks.value());
    let far = Beacon { index: 400, ..beacon };
    for _ in 0..200 {
        message(&mut world, 1, Frame::Beacons(vec![far; MAX_BEACONS]).encode());
    }
    let checked = metrics.refused_beacon.value() - wrong;
    assert!((1..=64).contains(&checked), "{checked} long chains were followed");
    assert!(metrics.refused_checks.value() - unpaid > 12_000);
}

#[test]
fn the_table_keeps_those_with_sessions() {
    let mut world = World::new(1);
    for n in 0..MAX_SUBJECTS + 200 {
        let peer = machine(n + 10);
        let mut id = [9; 32];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        world.input(0, Input::Up { peer, agents: vec![id.into()] });
        if n >= 100 {
            world.input(0, Input::Down(peer));
        }
    }
    let machine = &world.nodes[0].machine;
    assert_eq!(machine.network().len(), MAX_SUBJECTS);
    let online = machine.network().iter().filter(|status| status.state == Online).count();
    assert_eq!(online, 100);
    assert_eq!(machine.metrics().evicted.value(), 200);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_bytes_are_survived(frames in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 0..200), 1..20,
    )) {
        let mut world = World::new(2);
        world.neighbors(0, 1);
        for frame in frames {
            message(&mut world, 1, frame.into());
        }
        world.run(secs(1));
        prop_assert_eq!(world.state(0, 1), Online);
        prop_assert!(world.nodes[0].machine.poll_timeout() > Some(Tick::ZERO));
    }
}

#[test]
fn a_link_that_is_unknown_is_not_heard() {
    let mut world = world();
    let metrics = world.nodes[0].machine.metrics();
    let own = session(30, 30, &world);
    world.input(
        0,
        Input::Message { peer: machine(30), frame: Frame::Record(own.signed().clone()).encode() },
    );
    assert_eq!(metrics.records_accepted.value(), 1, "only that of node 1");
    assert_eq!(world.state(0, 30), Unknown);
    assert_ne!(agent(30), agent(1));
}
