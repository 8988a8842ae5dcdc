//! Random interleavings of everything that can happen in a world of two to five nodes: whatever the
//! order, subscribers that can reach each other end with the same entries, no cursor sees one twice,
//! and no topic is without an eager link while it has links.

use std::{collections::BTreeMap, time::Duration};

use crate::harness::World;
use x0x_core::{AgentId, TopicId};
use x0x_gossip_pubsub::{Limits, Start, SubscriptionId, topic_id};

/// Interleavings of one test; all of them together are 10,000.
const SEEDS: u64 = 625;

fn topics() -> [TopicId; 2] {
    [topic_id("a"), topic_id("b")]
}

/// Who subscribes what, now and before.
type Subscribed = BTreeMap<(usize, TopicId), SubscriptionId>;

fn assert_invariants(world: &World, seed: u64) {
    for (n, node) in world.nodes.iter().enumerate() {
        for topic in node.machine.snapshot().topics {
            let links = topic.eager + topic.lazy;
            assert!(links == 0 || topic.eager > 0, "seed {seed}: node {n} has no eager link");
        }
    }
}

/// No cursor saw an entry twice or out of the order of its author.
fn assert_once(world: &World, seed: u64) {
    for (n, node) in world.nodes.iter().enumerate() {
        for id in node.received.keys() {
            let mut heads: BTreeMap<(TopicId, AgentId, u64), u64> = BTreeMap::new();
            for message in node.messages(*id) {
                let head = heads.entry((message.topic, message.author, message.epoch)).or_default();
                assert!(message.seq > *head, "seed {seed}: node {n} saw an entry twice");
                *head = message.seq;
            }
        }
    }
}

fn step(world: &mut World, subscribed: &mut Subscribed, n: u32) {
    let nodes = world.nodes.len();
    let (a, b) = (world.rng.below(nodes), world.rng.below(nodes));
    let topic = topics()[world.rng.below(2)];
    match world.rng.below(100) {
        0..14 => {
            // Busy is an answer too.
            let _ = world.publish(a, topic, &format!("{n}"));
        }
        14..26 => {
            world.sign(a);
        }
        26..30 => world.unlink(a, b),
        30..38 => world.link(a, b),
        38..42 => {
            let micros = 1 + world.rng.range(0, 400_000);
            world.advance(Duration::from_micros(micros));
        }
        42..46 => world.ready(),
        46..50 => {
            let id = world.subscribe(a, topic, Start::Retained);
            if let Some(old) = subscribed.insert((a, topic), id) {
                world.input(a, x0x_gossip_pubsub::Input::Unsubscribe(old));
            }
        }
        50..52 => {
            if let Some(id) = subscribed.remove(&(a, topic)) {
                world.input(a, x0x_gossip_pubsub::Input::Unsubscribe(id));
            }
        }
        52 => {
            world.restart(a);
            subscribed.retain(|(node, _), _| *node != a);
        }
        _ => {
            world.deliver();
        }
    }
}

/// One interleaving, then a ring of links and time to settle.
fn interleaving(seed: u64) {
    let nodes = 2 + usize::try_from(seed % 4).expect("small");
    let mut world = World::new(nodes, seed, &Limits::default());
    let mut subscribed = Subscribed::new();
    for node in 0..nodes {
        let id = world.subscribe(node, topics()[0], Start::Retained);
        subscribed.insert((node, topics()[0]), id);
    }
    for n in 0..60 {
        step(&mut world, &mut subscribed, n);
        assert_invariants(&world, seed);
    }
    for a in 0..nodes {
        world.link(a, (a + 1) % nodes);
    }
    for node in 0..nodes {
        for topic in topics() {
            subscribed
                .entry((node, topic))
                .or_insert_with(|| world.subscribe(node, topic, Start::Retained));
        }
    }
    settle(&mut world);
    assert_invariants(&world, seed);
    assert_once(&world, seed);
    assert_eq!(world.disconnects, [], "seed {seed}");
    for node in 0..nodes {
        assert_eq!(retained(&world, node), retained(&world, 0), "seed {seed}: node {node}");
        for topic in topics() {
            let missed = world.nodes[node].missed(subscribed[&(node, topic)]);
            assert_eq!(missed, 0, "seed {seed}: node {node} lagged");
        }
    }
}

/// How many entries of each topic a node retains.
fn retained(world: &World, node: usize) -> Vec<(TopicId, u64)> {
    let topics = world.nodes[node].machine.snapshot().topics;
    topics.into_iter().map(|topic| (topic.topic, topic.entries)).collect()
}

/// Runs until all nodes retain the same, or for two rounds of comparison.
fn settle(world: &mut World) {
    for _ in 0..160 {
        world.settle_now();
        world.refusals = 0.0;
        world.ready();
        let first = retained(world, 0);
        if (1..world.nodes.len()).all(|node| retained(world, node) == first) {
            break;
        }
        world.advance(Duration::from_millis(500));
    }
    world.ready();
}

macro_rules! interleavings {
    ($($name:ident: $part:literal,)*) => {
        $(
            #[test]
            fn $name() {
                ($part * SEEDS..($part + 1) * SEEDS).for_each(interleaving);
            }
        )*
    };
}

interleavings! {
    interleavings_01: 0,
    interleavings_02: 1,
    interleavings_03: 2,
    interleavings_04: 3,
    interleavings_05: 4,
    interleavings_06: 5,
    interleavings_07: 6,
    interleavings_08: 7,
    interleavings_09: 8,
    interleavings_10: 9,
    interleavings_11: 10,
    interleavings_12: 11,
    interleavings_13: 12,
    interleavings_14: 13,
    interleavings_15: 14,
    interleavings_16: 15,
}
