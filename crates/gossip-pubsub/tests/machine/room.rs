//! Who stays when there is no room for all, and what differs between nodes that removed other things.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use x0x_core::TopicId;
use x0x_gossip_pubsub::{
    Delivery, Input, Limits, MAX_EPOCHS, NetworkId, Retention, Run, Start, epoch_at,
    testing::{RunForge, floor_frame, subscribe_frame},
    topic_id,
};
use x0x_identity::testing;

use crate::{
    frames,
    harness::{NETWORK, WALL, World, machine_id},
};

const WANT: u32 = 3;
const GRAFT: u32 = 6;

fn topic() -> TopicId {
    topic_id("room")
}

fn forge(key: u64) -> RunForge {
    RunForge::new(testing::key(key), NetworkId::from_name(NETWORK), topic(), WALL)
}

/// Node 0 subscribes the topic, and so do peers that only talk.
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

fn bring(world: &mut World, peer: usize, forge: &RunForge, last: Option<&Run>) -> Run {
    let run = forge.run(last, &[b"x"]);
    world.frame(0, peer, forge.frame(run.encoded()));
    run
}

fn table(world: &World, node: usize, name: &str) -> usize {
    let tables = world.nodes[node].machine.snapshot().tables;
    tables.iter().find(|table| table.name == name).map_or(0, |table| table.len)
}

#[test]
fn keys_that_cost_nothing_shut_nobody_out_and_push_no_old_friend_out() {
    let mut limits = Limits::default();
    limits.topic_authors = 32;
    let mut world = node(&limits, 8..12);
    world.publish(0, topic(), "own").expect("room");
    world.sign(0);
    let friend = forge(900);
    let first = bring(&mut world, 9, &friend, None);
    world.advance(Duration::from_secs(660));
    let second = bring(&mut world, 9, &friend, Some(&first));
    // Two links bring more authors than there is room for, again and again.
    let mut invented = Vec::new();
    for round in 0..6 {
        for n in 0..60 {
            let stranger = forge(1000 + round * 60 + n);
            bring(&mut world, 8 + usize::from(n % 2 == 0), &stranger, None);
            invented.push(stranger.author());
        }
        world.advance(Duration::from_secs(60));
    }
    assert!(world.counter(0, "pubsub_authors_expelled") > 8);
    assert!(table(&world, 0, "authors of a topic") <= 32);
    // Another link's authors find room, all of them.
    let before = world.counter(0, "pubsub_runs_accepted");
    for n in 0..12 {
        bring(&mut world, 10, &forge(2000 + n), None);
    }
    assert_eq!(world.counter(0, "pubsub_runs_accepted"), before + 12);
    // So does one that comes by the link of the flood, in a while.
    world.advance(Duration::from_secs(60));
    bring(&mut world, 8, &forge(2100), None);
    assert_eq!(world.counter(0, "pubsub_runs_accepted"), before + 13);
    // Who was here before is here still, with all that is retained.
    let duplicates = world.counter(0, "pubsub_duplicates");
    for run in [&first, &second] {
        world.frame(0, 9, friend.frame(run.encoded()));
    }
    assert_eq!(world.counter(0, "pubsub_duplicates"), duplicates + 2);
    // Those who were expelled are not looked for, whoever still has them.
    world.kinds_to(11);
    let epoch = forge(0).epoch;
    let taken: BTreeSet<_> = invented.iter().copied().collect();
    let heads = taken.iter().map(|author| frames::head(*author, epoch, 1));
    let expelled = world.counter(0, "pubsub_authors_expelled");
    world.frame(0, 11, frames::heads(topic(), heads.take(250), true));
    let asked = world.kinds_to(11).iter().filter(|kind| **kind == WANT).count() as u64;
    let known = table(&world, 0, "former authors") as u64;
    assert!(known >= expelled && asked <= taken.len() as u64 - known, "{asked} asked");
}

#[test]
fn a_full_table_of_all_topics_makes_room_where_the_crowd_is() {
    let mut limits = Limits::default();
    (limits.topic_authors, limits.authors) = (32, 24);
    let mut world = node(&limits, 8..10);
    for n in 0..60 {
        bring(&mut world, 8, &forge(1000 + n), None);
    }
    let other = topic_id("another room");
    world.subscribe(0, other, Start::Retained);
    for n in 0..4 {
        let newcomer = RunForge { topic: other, ..forge(2000 + n) };
        let run = newcomer.run(None, &[b"x"]);
        world.frame(0, 9, newcomer.frame(run.encoded()));
    }
    let topics = world.nodes[0].machine.snapshot().topics;
    let of = |id| topics.iter().find(|topic| topic.topic == id).map(|topic| topic.entries);
    assert_eq!(of(other), Some(4));
    assert!(table(&world, 0, "authors") <= 24);
}

#[test]
fn what_each_removed_to_make_room_differs_and_they_are_found_equal_all_the_same() {
    let mut world = World::new(3, 5, &Limits::default());
    let mut small = Limits::default();
    small.topic_entries = 6;
    world.limit(1, small);
    world.refusals = 0.0;
    world.link(0, 1);
    for node in 0..2 {
        world.subscribe(node, topic(), Start::Retained);
    }
    world.input(0, Input::LinkUp(machine_id(9)));
    for n in 0..20 {
        bring(&mut world, 9, &forge(3000 + n), None);
        world.settle_now();
    }
    world.input(0, Input::LinkDown(machine_id(9)));
    let entries = |world: &World, node| world.counter(node, "pubsub_log_entries");
    world.settle();
    assert_eq!((entries(&world, 0), entries(&world, 1)), (20, 6));
    let late = world.subscribe(2, topic(), Start::Retained);
    world.link(1, 2);
    for _ in 0..6 {
        world.settle();
    }
    assert_eq!(entries(&world, 2), 6, "what its only neighbour retains");
    for node in 0..3 {
        let topic = &world.nodes[node].machine.snapshot().topics[0];
        assert_eq!((topic.equal, topic.missing), (topic.eager + topic.lazy, 0), "node {node}");
    }
    // Nothing is left to compare, or to ask for.
    let counted = |world: &World| {
        let names = [
            "pubsub_comparisons",
            "pubsub_wants_sent",
            "pubsub_promises_broken",
            "pubsub_missing_given_up",
        ];
        let of = |node| names.map(|name| world.counter(node, name));
        [of(0), of(1), of(2)]
    };
    let before = counted(&world);
    (0..10).for_each(|_| world.settle());
    assert_eq!(counted(&world), before);
    // What is gone at one neighbour is had from another.
    world.link(0, 2);
    (0..4).for_each(|_| world.settle());
    assert_eq!(entries(&world, 2), 20);
    assert_eq!((world.nodes[2].messages(late).len(), world.nodes[2].missed(late)), (20, 0));
}

#[test]
fn an_author_that_restarts_every_five_minutes_loses_nothing_of_a_day() {
    let mut world = node(&Limits::default(), 8..9);
    let restart = |world: &mut World, n: u64| {
        let wall = world.wall();
        let mut author = RunForge { wall, epoch: epoch_at(wall, n), ..forge(4000) };
        bring(world, 8, &author, None);
        author.epoch = epoch_at(wall, n) | 2 << 18;
        assert_eq!(Retention::of_epoch(author.epoch), Retention::Ephemeral);
        bring(world, 8, &author, None);
        world.advance(Duration::from_secs(300));
    };
    (0..288).for_each(|n| restart(&mut world, n));
    let entries = world.counter(0, "pubsub_log_entries");
    assert!((287..=288).contains(&entries), "all of a day: {entries}");
    assert_eq!(world.counter(0, "pubsub_epochs_forgotten"), 0);
    (288..400).for_each(|n| restart(&mut world, n));
    assert!(table(&world, 0, "epochs of an author") <= MAX_EPOCHS);
    let entries = world.counter(0, "pubsub_log_entries");
    assert!((286..=289).contains(&entries), "{entries}");
    world.advance(Duration::from_secs(26 * 3600));
    world.advance(Duration::from_secs(3600));
    assert_eq!(world.counter(0, "pubsub_log_entries"), 0);
    assert_eq!(world.counter(0, "pubsub_log_bytes"), 0);
}

#[test]
fn epochs_that_are_forgotten_take_what_is_retained_of_them_along() {
    let mut limits = Limits::default();
    limits.spare_chains = 10;
    let mut world = node(&limits, 8..9);
    for n in 0..40 {
        let author = RunForge { epoch: epoch_at(WALL, 0) + n, ..forge(4100) };
        bring(&mut world, 8, &author, None);
    }
    assert_eq!(world.counter(0, "pubsub_epochs_forgotten"), 40 - 14);
    let topic = &world.nodes[0].machine.snapshot().topics[0];
    assert_eq!((topic.entries, topic.chains), (14, 14));
}

#[test]
fn durable_epochs_outlive_any_number_of_restarts() {
    let mut limits = Limits::default();
    limits.spare_chains = 10;
    let mut world = node(&limits, 8..9);
    let restarts = 2 * MAX_EPOCHS as u64;
    let first = forge(4300);
    for n in 0..restarts {
        for class in [0, 3] {
            let author =
                RunForge { epoch: (epoch_at(WALL, 0) + n) | (class << 18), ..first.clone() };
            bring(&mut world, 8, &author, None);
        }
    }
    let topic = &world.nodes[0].machine.snapshot().topics[0];
    assert!(topic.entries >= restarts, "all that is durable is there");
    assert!(table(&world, 0, "epochs of an author") <= MAX_EPOCHS);
    let forgotten = world.counter(0, "pubsub_epochs_forgotten");
    assert!(forgotten > 0 && forgotten <= restarts, "of the other class only: {forgotten}");
    // What was forgotten does not come again.
    let entries = world.counter(0, "pubsub_log_entries");
    bring(&mut world, 8, &RunForge { epoch: epoch_at(WALL, 0), ..first }, None);
    assert_eq!(world.counter(0, "pubsub_log_entries"), entries);
}

#[test]
fn ephemeral_runs_that_made_room_are_not_remembered() {
    let mut limits = Limits::default();
    limits.topic_entries = 8;
    let mut world = node(&limits, 8..9);
    let base = forge(4200);
    let author = RunForge { epoch: base.epoch | 2 << 18, ..base };
    let mut last = None;
    for _ in 0..200 {
        last = Some(bring(&mut world, 8, &author, last.as_ref()));
        assert!(table(&world, 0, "ephemeral runs of a topic") <= 8);
    }
    assert_eq!(world.counter(0, "pubsub_log_entries"), 8);
    world.advance(Duration::from_secs(61));
    assert_eq!(table(&world, 0, "ephemeral runs of a topic"), 0);
}

/// The only neighbour repeats, when asked, that it has nothing before the fourth.
fn waits(world: &mut World, forge: &RunForge, runs: &[Run], seconds: u32) {
    for _ in 0..2 * seconds {
        if world.kinds_to(8).contains(&WANT) {
            world.frame(0, 8, floor_frame(forge, runs[3].encoded()));
        }
        world.advance(Duration::from_millis(500));
    }
}

#[test]
fn one_neighbour_that_never_had_it_does_not_speak_for_all() {
    let forge = forge(4300);
    let mut runs: Vec<Run> = Vec::new();
    (0..5).for_each(|_| runs.push(forge.run(runs.last(), &[b"x"])));
    let begin = || {
        let mut world = node(&Limits::default(), 8..9);
        world.advance(Duration::from_secs(600));
        world.kinds_to(8);
        world.frame(0, 8, floor_frame(&forge, runs[3].encoded()));
        waits(&mut world, &forge, &runs, 55);
        assert_eq!(world.counter(0, "pubsub_log_entries"), 0, "for two rounds");
        world
    };
    let mut world = begin();
    world.input(0, Input::LinkUp(machine_id(9)));
    world.frame(0, 9, subscribe_frame(topic()));
    for run in &runs {
        world.frame(0, 9, forge.frame(run.encoded()));
    }
    assert_eq!(world.counter(0, "pubsub_log_entries"), 5);
    assert_eq!(world.counter(0, "pubsub_entries_missed"), 0);
    // Nobody else comes: then it is all there is.
    let mut world = begin();
    let id = world.subscribe(0, topic(), Start::Retained);
    waits(&mut world, &forge, &runs, 60);
    world.settle();
    assert_eq!(world.counter(0, "pubsub_log_entries"), 1);
    assert_eq!(world.nodes[0].received[&id].first(), Some(&Delivery::Lagged { missed: 3 }));
}

#[test]
fn while_the_store_is_behind_peers_bring_nothing_that_is_stored() {
    let mut world = node(&Limits::default(), 8..9);
    world.input(0, Input::StoreBehind(true));
    let latest = RunForge { epoch: forge(4400).epoch | 1 << 18, ..forge(4400) };
    let run = bring(&mut world, 8, &latest, None);
    assert_eq!(world.counter(0, "pubsub_refused_store"), 1);
    world.input(0, Input::StoreBehind(false));
    world.kinds_to(8);
    world.advance(Duration::from_secs(1));
    let asks = |kind: &u32| [WANT, GRAFT].contains(kind);
    assert!(world.kinds_to(8).iter().any(asks), "asked for once there is room");
    world.frame(0, 8, latest.frame(&Bytes::clone(run.encoded())));
    assert_eq!(world.counter(0, "pubsub_log_entries"), 1);
}
