//! Retention classes: whatever is published and whatever links break, neighbours end with the same
//! entries, and nothing that was replaced or has gone counts as missing.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use x0x_core::{Machine as _, Tick, TopicId, WallTime};
use x0x_gossip_pubsub::{
    ChainEnd, EPHEMERAL_FOR, Input, Limits, Output, PubSubMachine, PublishError, Publisher,
    Retention, Start, epoch_at, topic_id,
};

use crate::harness::World;

/// What a node retains of the topic: entries and chains.
fn retained(world: &World, node: usize) -> (u64, u32) {
    let topics = world.nodes[node].machine.snapshot().topics;
    topics.first().map_or((0, 0), |topic| (topic.entries, topic.chains))
}

fn publish(world: &mut World, node: usize, topic: TopicId, retention: Retention, n: u32) {
    let wall = world.wall();
    let payload = Bytes::copy_from_slice(&n.to_be_bytes());
    // Busy is an answer too.
    let _ = world.nodes[node].publisher.publish_as(wall, topic, retention, payload);
}

fn step(world: &mut World, topic: TopicId, n: u32) {
    let nodes = world.nodes.len();
    let (a, b) = (world.rng.below(nodes), world.rng.below(nodes));
    match world.rng.below(100) {
        0..20 => {
            let retention = Retention::ALL[world.rng.below(4)];
            publish(world, a, topic, retention, n);
        }
        20..34 => {
            world.sign(a);
        }
        34..39 => world.unlink(a, b),
        39..48 => world.link(a, b),
        48..52 => {
            let millis = 1 + world.rng.range(0, 4000);
            world.advance(Duration::from_millis(millis));
        }
        _ => {
            world.deliver();
        }
    }
}

fn interleaving(seed: u64) {
    let nodes = 2 + usize::try_from(seed % 3).expect("small");
    let topic = topic_id("classes");
    let mut world = World::new(nodes, seed, &Limits::default());
    let ids: Vec<_> = (0..nodes).map(|n| world.subscribe(n, topic, Start::Retained)).collect();
    for n in 0..120 {
        step(&mut world, topic, n);
    }
    (0..nodes).for_each(|n| world.link(n, (n + 1) % nodes));
    for _ in 0..160 {
        world.settle_now();
        world.refusals = 0.0;
        world.ready();
        if (1..nodes).all(|node| retained(&world, node) == retained(&world, 0)) {
            break;
        }
        world.advance(Duration::from_millis(500));
    }
    // What is ephemeral goes everywhere; what stays has been compared since.
    world.advance(EPHEMERAL_FOR);
    world.settle_now();
    world.advance(Duration::from_secs(60));
    world.settle();
    assert_eq!(world.disconnects, [], "seed {seed}");
    let links = world.links.len() * 2;
    let mut equal = 0;
    for node in 0..nodes {
        assert_eq!(retained(&world, node), retained(&world, 0), "seed {seed}: node {node}");
        let snapshot = world.nodes[node].machine.snapshot();
        assert_eq!(snapshot.missing, 0, "seed {seed}: node {node} looks for what is gone");
        equal += snapshot.topics.first().map_or(0, |topic| topic.equal);
    }
    if retained(&world, 0).0 > 0 {
        assert!(equal > 0 && equal <= links, "seed {seed}: {equal} of {links} were found equal");
    }
    for (node, id) in ids.iter().enumerate() {
        let messages = world.nodes[node].messages(*id);
        let mut places: Vec<_> =
            messages.iter().map(|message| (message.author, message.epoch, message.seq)).collect();
        let count = places.len();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), count, "seed {seed}: node {node} saw an entry twice");
        let latest = messages.iter().filter(|message| message.retention == Retention::Latest);
        assert!(
            latest.clone().all(|message| message.gap == 0),
            "seed {seed}: replaced, not missed"
        );
    }
}

#[test]
fn nodes_end_with_equal_sets_of_all_classes() {
    (0..300).for_each(interleaving);
}

#[test]
fn a_late_joiner_gets_the_newest_and_looks_for_nothing_else() {
    let topic = topic_id("classes");
    let mut world = World::new(3, 7, &Limits::default());
    world.refusals = 0.0;
    world.link(0, 1);
    for node in 0..2 {
        world.subscribe(node, topic, Start::Retained);
    }
    for n in 0..10 {
        publish(&mut world, 0, topic, Retention::Latest, n);
        world.settle_now();
    }
    assert_eq!(retained(&world, 1), (1, 1));
    let late = world.subscribe(2, topic, Start::Retained);
    world.link(1, 2);
    world.settle_now();
    let messages = world.nodes[2].messages(late);
    let got: Vec<_> = messages.iter().map(|message| (message.seq, message.gap)).collect();
    assert_eq!(got, [(10, 0)], "at once, without waiting for what is gone");
    assert_eq!(world.nodes[2].missed(late), 0);
    assert_eq!(world.nodes[2].machine.snapshot().missing, 0);
    // The author's machine restarts: its new epoch takes the place of the old one everywhere.
    world.restart(0);
    world.subscribe(0, topic, Start::Retained);
    world.link(0, 1);
    world.settle();
    publish(&mut world, 0, topic, Retention::Latest, 99);
    world.settle();
    for node in 0..3 {
        assert_eq!(retained(&world, node), (1, 1), "node {node}");
    }
}

#[test]
fn what_is_durable_outlives_the_retention_and_reaches_who_comes_later() {
    let topic = topic_id("classes");
    let mut world = World::new(2, 7, &Limits::default());
    world.refusals = 0.0;
    world.subscribe(0, topic, Start::Retained);
    for retention in [Retention::Standard, Retention::Durable] {
        for n in 0..10 {
            publish(&mut world, 0, topic, retention, n);
            world.settle_now();
        }
    }
    assert_eq!(retained(&world, 0).0, 20);
    // The sweep follows a clock that is believed, hour by hour.
    (0..30).for_each(|_| world.advance(Duration::from_secs(3600)));
    assert_eq!(retained(&world, 0).0, 10, "a day later the standard ones are gone");
    let late = world.subscribe(1, topic, Start::Retained);
    world.link(0, 1);
    world.settle();
    let messages = world.nodes[1].messages(late);
    assert_eq!(messages.len(), 10);
    assert!(messages.iter().all(|message| message.retention == Retention::Durable));
}

#[test]
fn what_is_durable_goes_when_it_is_let_go_and_who_comes_later_is_told() {
    let topic = topic_id("classes");
    let mut world = World::new(2, 5, &Limits::default());
    world.subscribe(0, topic, Start::Retained);
    for n in 0..10 {
        publish(&mut world, 0, topic, Retention::Durable, n);
        world.settle_now();
    }
    let reader = world.subscribe(0, topic, Start::Retained);
    let first = world.nodes[0].messages(reader)[0].clone();
    let end = |seq| ChainEnd { author: first.author, epoch: first.epoch, seq };
    let other = ChainEnd { epoch: first.epoch + 1, ..end(9) };
    for (upto, left) in [(vec![other], 10), (vec![end(0)], 10), (vec![end(7), other], 3)] {
        world.input(0, Input::Release { topic, upto });
        assert_eq!(retained(&world, 0).0, left);
    }
    world.settle_now();
    let late = world.subscribe(1, topic, Start::Retained);
    world.link(0, 1);
    world.settle();
    world.advance(Duration::from_secs(120));
    world.settle();
    let messages = world.nodes[1].messages(late);
    let seqs: Vec<u64> = messages.iter().map(|message| message.seq).collect();
    assert_eq!(seqs, [8, 9, 10], "those that are left, after a gap");
    assert_eq!(messages[0].gap, 7);
    publish(&mut world, 0, topic, Retention::Durable, 10);
    world.settle();
    assert_eq!(world.nodes[1].messages(late).len(), 4);
}

#[test]
fn a_topic_that_is_full_of_durable_entries_takes_no_more() {
    let topic = topic_id("classes");
    let mut limits = Limits::default();
    (limits.durable_topic_bytes, limits.topic_bytes) = (100_000, 50_000);
    let mut machine = {
        let public = x0x_identity::testing::key(1).public_key().clone();
        let network = x0x_gossip_pubsub::NetworkId::from_name("full");
        PubSubMachine::new(network, public, limits.clone(), Arc::default())
    };
    let (wall, key) = (WallTime::from_millis(1_800_000_000_000), x0x_identity::testing::key(1));
    let network = x0x_gossip_pubsub::NetworkId::from_name("full");
    let author = key.public_key().agent_id();
    let mut publisher = Publisher::new(network, author, epoch_at(wall, 1), limits);
    machine.handle(Tick::ZERO, Input::Wall(wall));
    let mut taken = 0;
    let refused = loop {
        let payload = Bytes::from(vec![7; 9000]);
        match publisher.publish_as(wall, topic, Retention::Durable, payload) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        let run = publisher.next_run().expect("an entry waits").sign(&key).expect("own key");
        publisher.signed(&run);
        machine.handle(Tick::ZERO, Input::Signed(Arc::new(run)));
        while let Some(output) = machine.poll_output() {
            if let Output::Full { topic, full } = output {
                publisher.set_full(topic, full);
            }
        }
    };
    assert_eq!(refused, PublishError::Full);
    assert!((7..=11).contains(&taken), "{taken}");
    assert_eq!(machine.snapshot().topics[0].entries, taken, "nothing gave way");
    publisher.publish_as(wall, topic, Retention::Standard, Bytes::new()).expect("it may go on");
}
