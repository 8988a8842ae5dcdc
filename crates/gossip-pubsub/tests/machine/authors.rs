//! Authors that a hostile peer makes up, and signatures that it has checked.

use x0x_core::TopicId;
use x0x_gossip_pubsub::{
    Input, Limits, NetworkId, Start,
    testing::{RunForge, subscribe_frame},
    topic_id,
};
use x0x_identity::testing;

use crate::harness::{NETWORK, WALL, World, machine_id};

fn topic() -> TopicId {
    topic_id("authors")
}

fn forge(key: u64) -> RunForge {
    RunForge::new(testing::key(key), NetworkId::from_name(NETWORK), topic(), WALL)
}

fn bring(world: &mut World, peer: usize, key: u64) {
    let forge = forge(key);
    world.frame(0, peer, forge.frame(forge.run(None, &[b"x"]).encoded()));
}

fn node(limits: &Limits, peers: std::ops::Range<usize>) -> World {
    let mut world = World::new(1, 1, limits);
    world.refusals = 0.0;
    world.subscribe(0, topic(), Start::Retained);
    for peer in peers {
        world.input(0, Input::LinkUp(machine_id(peer)));
        world.frame(0, peer, subscribe_frame(topic()));
    }
    world
}

#[test]
fn one_that_makes_authors_up_leaves_room_for_those_of_others() {
    let mut limits = Limits::default();
    limits.topic_authors = 32;
    let mut world = node(&limits, 8..12);
    (0..64).for_each(|n| bring(&mut world, 8, 1000 + n));
    // Half of the table is for everybody; its share of four was within that.
    // Beyond that it takes the place of its own, a few times.
    assert_eq!(world.counter(0, "pubsub_signatures_verified"), 24, "the rest is not even checked");
    assert_eq!(world.counter(0, "pubsub_authors_expelled"), 8);
    assert_eq!(world.counter(0, "pubsub_refused_author_quota"), 40);
    (0..8).for_each(|n| bring(&mut world, 9, 1100 + n));
    assert_eq!(world.counter(0, "pubsub_runs_accepted"), 32);
    // Not by coming back either.
    world.input(0, Input::LinkDown(machine_id(8)));
    world.input(0, Input::LinkUp(machine_id(8)));
    world.frame(0, 8, subscribe_frame(topic()));
    (0..64).for_each(|n| bring(&mut world, 8, 1000 + n));
    assert_eq!(world.counter(0, "pubsub_runs_accepted"), 32);
}

#[test]
fn the_only_link_of_a_topic_may_bring_all_its_authors_and_then_renew_a_few() {
    let mut limits = Limits::default();
    limits.topic_authors = 32;
    let mut world = node(&limits, 8..9);
    (0..60).for_each(|n| bring(&mut world, 8, 1000 + n));
    assert_eq!(world.counter(0, "pubsub_runs_accepted"), 32 + 8);
    assert_eq!(world.counter(0, "pubsub_authors_expelled"), 8);
}

#[test]
fn a_flood_of_signatures_leaves_each_link_its_own() {
    let mut limits = Limits::default();
    (limits.check_burst, limits.check_rate) = (64, 1);
    (limits.link_check_burst, limits.link_check_rate) = (8, 1);
    let mut world = node(&limits, 8..12);
    for peer in 8..11 {
        let forge = forge(1200 + peer as u64);
        let mut last = None;
        for _ in 0..60 {
            let run = forge.run(last.as_ref(), &[b"x"]);
            world.frame(0, peer, forge.frame(run.encoded()));
            last = Some(run);
        }
    }
    // The first needed nothing of its own.
    assert_eq!(world.counter(0, "pubsub_signatures_verified"), 64 + 2 * 8);
    assert!(world.counter(0, "pubsub_refused_checks") > 0);
    let before = world.counter(0, "pubsub_runs_accepted");
    (0..8).for_each(|n| bring(&mut world, 11, 1300 + n));
    assert_eq!(world.counter(0, "pubsub_runs_accepted"), before + 8, "the honest one is heard");
}
