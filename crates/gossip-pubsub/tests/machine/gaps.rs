//! What is missing: who is asked, when it is given up, and who is told.

use crate::harness::{NETWORK, WALL, World, machine_id};
use x0x_core::TopicId;
use x0x_gossip_pubsub::{
    Delivery, Input, Limits, NetworkId, Start,
    testing::{RunForge, floor_frame},
    topic_id,
};
use x0x_identity::testing;

fn topic() -> TopicId {
    topic_id("gaps")
}

fn forge(key: u64) -> RunForge {
    RunForge::new(testing::key(key), NetworkId::from_name(NETWORK), topic(), WALL)
}

/// Node 0 publishes 20 entries; nodes 1 and 2 retain as many.
fn relays(seed: u64, retained: [usize; 2]) -> World {
    let mut world = World::new(4, seed, &Limits::default());
    for (node, retained) in [1, 2].into_iter().zip(retained) {
        let mut limits = Limits::default();
        limits.topic_entries = retained;
        world.limit(node, limits);
    }
    world.link(0, 1);
    world.link(0, 2);
    world.subscribe(1, topic(), Start::Retained);
    world.subscribe(2, topic(), Start::Retained);
    for n in 0..20 {
        world.publish(0, topic(), &format!("{n}")).expect("room");
        world.settle_now();
    }
    world
}

#[test]
fn a_late_joiner_waits_for_the_neighbour_with_the_whole_log() {
    let mut gaps = 0;
    for seed in 0..12 {
        let mut world = relays(seed, [4, 20]);
        let id = world.subscribe(3, topic(), Start::Retained);
        world.link(1, 3);
        world.link(2, 3);
        world.settle();
        world.assert_complete(&[(3, topic(), id)], seed);
        gaps += world.counter(3, "pubsub_refused_gap");
    }
    assert!(gaps > 0, "in some orders the trimmed one is first");
}

#[test]
fn what_no_neighbour_has_is_told_to_who_wanted_it() {
    let mut world = relays(1, [4, 20]);
    let all = world.subscribe(3, topic(), Start::Retained);
    let live = world.subscribe(3, topic(), Start::Live);
    world.link(1, 3);
    world.settle();
    assert_eq!(world.nodes[3].received[&all][0], Delivery::Lagged { missed: 16 });
    assert_eq!(world.nodes[3].messages(all).len(), 4);
    assert_eq!((world.nodes[3].messages(live).len(), world.nodes[3].missed(live)), (4, 0));
    assert_eq!(world.counter(3, "pubsub_entries_missed"), 16);
}

#[test]
fn of_two_neighbours_without_the_beginning_the_one_with_more_is_taken() {
    for seed in 0..12 {
        let mut world = relays(seed, [4, 8]);
        let id = world.subscribe(3, topic(), Start::Retained);
        world.link(1, 3);
        world.link(2, 3);
        // Others have the time to contradict them; then the one with more is asked for its first run
        // again.
        for _ in 0..5 {
            world.settle_now();
            world.advance(std::time::Duration::from_millis(500));
        }
        world.settle_now();
        let asked = world.counter(1, "pubsub_wants_received");
        assert!(asked + world.counter(2, "pubsub_wants_received") <= 4, "seed {seed}");
        assert_eq!(world.counter(3, "pubsub_log_entries"), 8, "seed {seed}");
        world.settle();
        assert_eq!(world.nodes[3].messages(id).len(), 8, "seed {seed}");
        assert_eq!(world.nodes[3].missed(id), 12, "seed {seed}");
    }
}

#[test]
fn a_relay_that_hides_the_beginning_hides_nothing() {
    let mut world = World::new(2, 2, &Limits::default());
    let id = world.subscribe(0, topic(), Start::Retained);
    world.subscribe(1, topic(), Start::Retained);
    world.link(0, 1);
    world.input(0, Input::LinkUp(machine_id(9)));
    world.settle();
    let forge = forge(70);
    let first = forge.run(None, &[b"1"]);
    let second = forge.run(Some(&first), &[b"2"]);
    let front_run = floor_frame(&forge, second.encoded());
    world.input(0, Input::Frame { peer: machine_id(9), message: front_run });
    for run in [&first, &second] {
        let message = forge.frame(run.encoded());
        world.input(1, Input::LinkUp(machine_id(8)));
        world.input(1, Input::Frame { peer: machine_id(8), message });
    }
    world.settle();
    assert_eq!(world.nodes[0].messages(id).len(), 2);
    assert_eq!(world.nodes[0].missed(id), 0);
}

#[test]
fn honest_peers_that_were_told_two_histories_keep_their_link() {
    let mut world = World::new(2, 3, &Limits::default());
    world.subscribe(0, topic(), Start::Retained);
    world.subscribe(1, topic(), Start::Retained);
    let forge = forge(71);
    for (node, text) in [(0, b"yes"), (1, b"not")] {
        world.input(node, Input::LinkUp(machine_id(9)));
        let mut last = None;
        // One of them has a longer history, which it passes on from where the other's ends.
        for _ in 0..=120 * node {
            let run = forge.run(last.as_ref(), &[text]);
            let message = forge.frame(run.encoded());
            world.input(node, Input::Frame { peer: machine_id(9), message });
            last = Some(run);
        }
    }
    world.link(0, 1);
    world.settle();
    assert_eq!(world.disconnects, []);
    let proofs: Vec<_> = world.nodes[0].machine.equivocations().collect();
    assert_eq!(proofs.len(), 1);
    assert_eq!(proofs[0].author, forge.author());
    assert_ne!(proofs[0].first.hash(), proofs[0].second.hash());
}

#[test]
fn a_forged_fork_is_held_against_the_peer() {
    let mut world = World::new(1, 4, &Limits::default());
    let id = world.subscribe(0, topic(), Start::Retained);
    world.input(0, Input::LinkUp(machine_id(9)));
    let forge = forge(72);
    let first = forge.run(None, &[b"1"]);
    let other = forge.run(None, &[b"x"]);
    let mut forged = forge.run(Some(&other), &[b"2"]).encoded().to_vec();
    *forged.last_mut().expect("a signature") ^= 1;
    let good = forge.frame(first.encoded());
    world.input(0, Input::Frame { peer: machine_id(9), message: good });
    let forged = forge.frame(&forged.into());
    for _ in 0..10 {
        world.input(0, Input::Frame { peer: machine_id(9), message: forged.clone() });
    }
    assert_eq!(world.counter(0, "pubsub_equivocations"), 0);
    assert_eq!(world.disconnects.len(), 1);
    assert_eq!(world.nodes[0].messages(id).len(), 1);
}
