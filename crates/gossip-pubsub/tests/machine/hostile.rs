//! What a hostile peer sends is refused and counted, and harms nobody else.

use std::time::Duration;

use crate::harness::{NETWORK, WALL, World, machine_id};
use x0x_gossip_pubsub::{
    EntryHash, Input, Limits, NetworkId, Retention, Start,
    testing::{RunForge, hostile_cases},
    topic_id,
};
use x0x_identity::testing;

fn frame(world: &mut World, node: usize, message: bytes::Bytes) {
    world.input(node, Input::Frame { peer: machine_id(9), message });
}

#[test]
fn every_attack_is_refused_and_counted() {
    let topic = topic_id("town square");
    let mut world = World::new(2, 1, &Limits::default());
    let id = world.subscribe(0, topic, Start::Retained);
    world.subscribe(1, topic, Start::Retained);
    world.link(0, 1);
    world.input(0, Input::LinkUp(machine_id(9)));
    world.settle();
    let mut n = 100;
    let cases = hostile_cases(NETWORK, topic, WALL, || {
        n += 1;
        testing::key(n)
    });
    let mut delivered = Vec::new();
    for case in cases {
        let before = world.counter(0, case.counter);
        for message in case.frames {
            frame(&mut world, 0, message);
        }
        assert!(world.counter(0, case.counter) > before, "{}", case.name);
        delivered.extend(case.delivered);
        let got: Vec<_> = world.nodes[0].messages(id).iter().map(|m| m.payload.clone()).collect();
        assert_eq!(got, delivered, "{}", case.name);
    }
    world.settle();
    let equivocations: Vec<_> = world.nodes[0].machine.equivocations().collect();
    assert_eq!(equivocations.len(), 3, "mis-chained, overlapping and equivocating");
    assert_ne!(equivocations[0].first.hash(), equivocations[0].second.hash());
    assert!(equivocations.iter().all(|proof| proof.first.body().author() == proof.author));
    assert_eq!(world.disconnects, []);
    // What was accepted is forwarded, and the honest neighbour finds nothing to refuse.
    let snapshot = world.nodes[1].machine.metrics().snapshot();
    let refused = snapshot.iter().filter(|m| m.name.starts_with("pubsub_refused_"));
    assert!(refused.clone().all(|metric| metric.value == 0), "{:?}", refused.collect::<Vec<_>>());
}

#[test]
fn a_blocked_author_is_no_longer_accepted() {
    let topic = topic_id("t");
    let mut world = World::new(1, 2, &Limits::default());
    let id = world.subscribe(0, topic, Start::Retained);
    world.input(0, Input::LinkUp(machine_id(9)));
    let network = NetworkId::from_name(NETWORK);
    let forge = RunForge::new(testing::key(50), network, topic, WALL);
    let first = forge.run(None, &[b"one"]);
    let second = forge.run(None, &[b"other"]);
    let next = forge.run(Some(&first), &[b"two"]);
    for run in [&first, &second, &next] {
        frame(&mut world, 0, forge.frame(run.encoded()));
    }
    assert_eq!(world.counter(0, "pubsub_refused_blocked"), 1);
    assert_eq!(world.nodes[0].messages(id).len(), 1);
    assert_eq!(world.disconnects, [], "an honest peer may forward a blocked author");
}

#[test]
fn ten_forgeries_end_the_session() {
    let topic = topic_id("t");
    let mut world = World::new(1, 3, &Limits::default());
    world.subscribe(0, topic, Start::Retained);
    world.input(0, Input::LinkUp(machine_id(9)));
    let network = NetworkId::from_name(NETWORK);
    let forge = RunForge::new(testing::key(51), network, topic, WALL);
    let mut bytes = forge.run(None, &[b"one"]).encoded().to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let forged = forge.frame(&bytes.into());
    for n in 0..20 {
        assert_eq!(world.disconnects.len(), usize::from(n >= 10));
        frame(&mut world, 0, forged.clone());
    }
    assert_eq!(world.counter(0, "pubsub_refused_signature"), 10, "then it is not heard");
    assert_eq!(world.counter(0, "pubsub_peers_disconnected"), 1);
}

#[test]
fn a_cut_run_and_old_runs_do_no_harm() {
    let topic = topic_id("t");
    let mut limits = Limits::default();
    limits.topic_entries = 2;
    let mut world = World::new(1, 4, &limits);
    world.subscribe(0, topic, Start::Retained);
    world.input(0, Input::LinkUp(machine_id(9)));
    let network = NetworkId::from_name(NETWORK);
    let forge = RunForge::new(testing::key(52), network, topic, WALL);
    let first = forge.run(None, &[b"1"]);
    let second = forge.run(Some(&first), &[b"2"]);
    let third = forge.run(Some(&second), &[b"3"]);
    for run in [&first, &second, &third, &first] {
        frame(&mut world, 0, forge.frame(run.encoded()));
    }
    assert_eq!(world.counter(0, "pubsub_runs_evicted"), 1);
    assert_eq!(world.counter(0, "pubsub_refused_replayed"), 1);
    let other = RunForge::new(testing::key(53), network, topic, WALL);
    frame(&mut world, 0, other.frame(other.run_at(7, first.hash(), &[b"7"]).encoded()));
    assert_eq!(world.counter(0, "pubsub_refused_gap"), 1, "a log begins at 1 or at a floor");
    assert_eq!(world.disconnects, []);
}

/// An author gives its newest entry to one member and an older one, with a later time, to another.
#[test]
fn authors_whose_times_run_backwards_do_not_part_honest_members() {
    let topic = topic_id("latest");
    let mut world = World::new(2, 5, &Limits::default());
    world.refusals = 0.0;
    for node in 0..2 {
        world.subscribe(node, topic, Start::Retained);
        world.input(node, Input::LinkUp(machine_id(9)));
    }
    let network = NetworkId::from_name(NETWORK);
    for n in 0..120 {
        let forge = RunForge::new(testing::key(100 + n), network, topic, WALL);
        let mut forge = forge.of_class(Retention::Latest);
        let newest = forge.run_at(10, EntryHash::GENESIS, &[b"newest"]);
        forge.wall = WALL + Duration::from_secs(240);
        let later = forge.run_at(5, EntryHash::GENESIS, &[b"later"]);
        frame(&mut world, 0, forge.frame(newest.encoded()));
        frame(&mut world, 1, forge.frame(later.encoded()));
    }
    world.link(0, 1);
    for _ in 0..60 {
        world.settle_now();
        world.advance(Duration::from_millis(500));
    }
    assert_eq!(world.disconnects, []);
    let equal = |node: usize| world.nodes[node].machine.snapshot().topics[0].equal;
    assert!(equal(0) + equal(1) > 0, "both have the newest of each");
    let asked =
        |node| world.counter(node, "pubsub_wants_sent") + world.counter(node, "pubsub_grafts_sent");
    assert!(asked(0) + asked(1) < 500, "{} {}", asked(0), asked(1));
}

/// A clock that is behind refuses what comes, and does not ask for it over and over.
#[test]
fn what_cannot_be_accepted_now_is_not_asked_for_again_and_again() {
    let topic = topic_id("t");
    let mut world = World::new(2, 6, &Limits::default());
    world.refusals = 0.0;
    for node in 0..2 {
        world.subscribe(node, topic, Start::Retained);
    }
    let network = NetworkId::from_name(NETWORK);
    world.input(0, Input::LinkUp(machine_id(9)));
    let forge = RunForge::new(testing::key(60), network, topic, WALL + Duration::from_secs(120));
    let run = forge.run(None, &[b"ahead of node 1, not of node 0"]);
    frame(&mut world, 0, forge.frame(run.encoded()));
    world.behind.insert(1, Duration::from_secs(3600));
    world.advance(Duration::from_millis(1));
    world.link(0, 1);
    for _ in 0..120 {
        world.settle_now();
        world.advance(Duration::from_millis(500));
    }
    let refused = world.counter(1, "pubsub_refused_future");
    assert!((1..8).contains(&refused), "{refused} in a minute");
    assert_eq!(world.disconnects, []);
    world.behind.clear();
    for _ in 0..120 {
        world.settle_now();
        world.advance(Duration::from_millis(500));
    }
    assert_eq!(world.nodes[1].machine.snapshot().topics[0].entries, 1, "once the clock is right");
}
