//! What a hostile peer sends is refused and counted, and harms nobody else.

use crate::harness::{NETWORK, WALL, World, machine_id};
use x0x_gossip_pubsub::{
    Input, Limits, NetworkId, Start,
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
