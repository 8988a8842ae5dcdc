//! Who holds a publisher back, and who does not.

use std::time::Duration;

use crate::harness::{WALL, World, machine_id};
use x0x_core::TopicId;
use x0x_gossip_pubsub::{
    Input, Limits, PublishError, Start, epoch_at, testing::want_frame, topic_id,
};

fn topic() -> TopicId {
    topic_id("pressure")
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.backlog_entries = 256;
    limits
}

/// Publishes up to `count` entries at node 0, one by one; how many it took until it was busy.
fn flood(world: &mut World, count: u32) -> u32 {
    for n in 0..count {
        match world.publish(0, topic(), "x") {
            Ok(_) => {}
            Err(PublishError::Busy) => return n,
            Err(error) => panic!("{error}"),
        }
        world.sign(0);
    }
    count
}

#[test]
fn a_late_joiner_holds_nobody_back_until_it_has_caught_up() {
    let mut world = World::new(2, 1, &limits());
    let id = world.subscribe(1, topic(), Start::Retained);
    assert_eq!(flood(&mut world, 600), 600);
    world.link(0, 1);
    for _ in 0..8 {
        world.deliver();
    }
    assert_eq!(flood(&mut world, 300), 300, "it reads the first 600 still");
    world.settle();
    let taken = flood(&mut world, 600);
    assert!((256..600).contains(&taken), "caught up, it holds back: {taken}");
    world.settle();
    world.assert_complete(&[(1, topic(), id)], 1);
}

#[test]
fn asking_again_holds_nobody_back() {
    let mut world = World::new(2, 2, &limits());
    world.subscribe(1, topic(), Start::Retained);
    world.link(0, 1);
    for _ in 0..3 {
        flood(&mut world, 200);
        world.settle_now();
    }
    let author = world.nodes[0].key.public_key().agent_id();
    let message = want_frame(topic(), author, epoch_at(WALL, 0), 1);
    world.input(0, Input::Frame { peer: machine_id(1), message });
    assert_eq!(flood(&mut world, 200), 200);
    let taken = flood(&mut world, 600);
    assert!(taken < 600, "what is new counts: {taken}");
}

#[test]
fn a_trickle_holds_nobody_back_for_long() {
    let mut world = World::new(2, 3, &limits());
    world.subscribe(1, topic(), Start::Retained);
    world.link(0, 1);
    flood(&mut world, 1);
    world.settle();
    assert!(flood(&mut world, 2000) < 2000);
    let trickle = |world: &mut World, seconds: u32| {
        for _ in 0..2 * seconds {
            (0..4).for_each(|_| {
                world.deliver();
            });
            world.advance(Duration::from_millis(500));
        }
    };
    trickle(&mut world, 3);
    assert_eq!(flood(&mut world, 1), 0);
    trickle(&mut world, 3);
    assert_eq!(flood(&mut world, 2000), 2000);
    trickle(&mut world, 10);
    assert_eq!(flood(&mut world, 2000), 2000, "not again before it has caught up");
}
