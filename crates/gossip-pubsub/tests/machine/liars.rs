//! Peers that promise what they do not keep, or say what is not so.

use std::time::Duration;

use x0x_core::TopicId;
use x0x_gossip_pubsub::{
    Input, Limits, NetworkId, Run, Start,
    testing::{RunForge, floor_frame, subscribe_frame},
    topic_id,
};
use x0x_identity::testing;

use crate::{
    frames,
    harness::{NETWORK, WALL, World, machine_id},
};

const WANT: u32 = 3;
const PRUNE: u32 = 5;
const GRAFT: u32 = 6;

fn topic() -> TopicId {
    topic_id("liars")
}

fn forge(key: u64) -> RunForge {
    RunForge::new(testing::key(key), NetworkId::from_name(NETWORK), topic(), WALL)
}

fn chain(forge: &RunForge, length: usize) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for _ in 0..length {
        runs.push(forge.run(runs.last(), &[b"x"]));
    }
    runs
}

/// Node 0 subscribes the topic, and peers from 8 on that only talk have links and subscribe it.
fn node(limits: &Limits, peers: &[usize]) -> World {
    let mut world = World::new(1, 1, limits);
    world.refusals = 0.0;
    for peer in peers {
        world.input(0, Input::LinkUp(machine_id(*peer)));
        world.frame(0, *peer, subscribe_frame(topic()));
    }
    world
}

/// Whether a peer was asked for something since it was last looked.
fn asked(world: &mut World, peer: usize) -> bool {
    world.kinds_to(peer).iter().any(|kind| [WANT, GRAFT].contains(kind))
}

fn head(forge: &RunForge, seq: u64, hops: u32) -> bytes::Bytes {
    frames::announce(topic(), &[(forge.author(), forge.epoch, seq, hops)])
}

#[test]
fn an_early_floor_is_no_reason_to_give_up_what_others_may_have() {
    let mut world = node(&Limits::default(), &[8]);
    let id = world.subscribe(0, topic(), Start::Retained);
    let forge = forge(80);
    let runs = chain(&forge, 5);
    // The only link says that it has nothing before the fourth.
    for _ in 0..3 {
        world.frame(0, 8, floor_frame(&forge, runs[3].encoded()));
        world.advance(Duration::from_millis(500));
    }
    assert_eq!(world.counter(0, "pubsub_log_entries"), 0);
    world.input(0, Input::LinkUp(machine_id(9)));
    world.frame(0, 9, subscribe_frame(topic()));
    for run in &runs {
        world.frame(0, 9, forge.frame(run.encoded()));
    }
    assert_eq!((world.nodes[0].messages(id).len(), world.nodes[0].missed(id)), (5, 0));
}

#[test]
fn a_floor_is_not_believed_while_another_link_sends_what_is_before_it() {
    let mut world = node(&Limits::default(), &[8, 9]);
    let id = world.subscribe(0, topic(), Start::Retained);
    world.advance(Duration::from_secs(10));
    let forge = forge(81);
    let runs = chain(&forge, 12);
    world.frame(0, 9, head(&forge, 12, 1));
    // The honest one is slow: a run each second and a half; the liar repeats its floor meanwhile.
    for run in &runs[..11] {
        world.frame(0, 8, floor_frame(&forge, runs[11].encoded()));
        world.advance(Duration::from_millis(1500));
        world.frame(0, 8, floor_frame(&forge, runs[11].encoded()));
        world.frame(0, 9, forge.frame(run.encoded()));
    }
    world.frame(0, 9, forge.frame(runs[11].encoded()));
    assert_eq!((world.nodes[0].messages(id).len(), world.nodes[0].missed(id)), (12, 0));
}

#[test]
fn a_promise_that_is_not_kept_does_not_hold_a_gap_open_for_ever() {
    let mut world = node(&Limits::default(), &[8, 9]);
    let id = world.subscribe(0, topic(), Start::Retained);
    world.advance(Duration::from_secs(10));
    let forge = forge(82);
    let runs = chain(&forge, 4);
    for _ in 0..120 {
        // The liar says again and again that it has all; the honest one has the last entry only.
        world.frame(0, 8, head(&forge, 4, 1));
        if asked(&mut world, 9) {
            world.frame(0, 9, floor_frame(&forge, runs[3].encoded()));
        }
        world.frame(0, 9, head(&forge, 4, 1));
        world.advance(Duration::from_millis(500));
    }
    assert_eq!((world.nodes[0].messages(id).len(), world.nodes[0].missed(id)), (1, 3));
}

#[test]
fn liars_that_tell_of_chains_that_do_not_exist_leave_room_for_those_that_do() {
    let mut limits = Limits::default();
    (limits.missing, limits.link_missing) = (64, 32);
    let mut world = node(&limits, &[8, 9, 10, 11, 12]);
    let id = world.subscribe(0, topic(), Start::Retained);
    let fill = |world: &mut World, round: u64| {
        for liar in 8..12 {
            for n in 0..32 {
                let invented = x0x_core::AgentId::new([liar as u8; 32]);
                let chain = (invented, (round << 16) + n, 7, 1);
                world.frame(0, liar, frames::announce(topic(), &[chain]));
            }
        }
    };
    fill(&mut world, 1);
    assert_eq!(world.nodes[0].machine.snapshot().missing, 64);
    for key in 83..86 {
        let forge = forge(key);
        let run = forge.run(None, &[b"true"]);
        world.frame(0, 12, head(&forge, 1, 1));
        world.kinds_to(12);
        for _ in 0..4 {
            world.advance(Duration::from_millis(500));
            fill(&mut world, key);
        }
        assert!(asked(&mut world, 12), "asked for");
        world.frame(0, 12, forge.frame(run.encoded()));
    }
    assert_eq!(world.nodes[0].messages(id).len(), 3);
    assert!(world.nodes[0].machine.snapshot().missing <= 64);
}

#[test]
fn a_link_answers_for_its_own_word_only() {
    let mut world = node(&Limits::default(), &[8, 9]);
    let id = world.subscribe(0, topic(), Start::Retained);
    let forge = forge(86);
    let runs = chain(&forge, 3);
    world.frame(0, 9, head(&forge, 3, 1));
    world.frame(0, 8, head(&forge, u64::MAX, 0));
    for _ in 0..40 {
        if asked(&mut world, 9) {
            for run in &runs {
                world.frame(0, 9, forge.frame(run.encoded()));
            }
        }
        world.advance(Duration::from_millis(500));
    }
    assert_eq!(world.nodes[0].messages(id).len(), 3);
    let links = world.nodes[0].machine.snapshot().links;
    let broken = |peer| {
        let link = links.iter().find(|link| link.peer == machine_id(peer));
        link.map(|link| link.broken_promises)
    };
    assert_eq!(broken(9), Some(0));
    assert!(world.counter(0, "pubsub_promises_broken") > 0, "by the other one");
}

#[test]
fn sending_the_same_again_and_again_is_not_being_busy() {
    let mut world = node(&Limits::default(), &[8, 9]);
    world.subscribe(0, topic(), Start::Retained);
    let (old, new) = (forge(87), forge(88));
    let known = old.run(None, &[b"known"]);
    world.frame(0, 8, old.frame(known.encoded()));
    world.frame(0, 8, head(&new, 1, 0));
    world.frame(0, 9, head(&new, 1, 3));
    let mut first = None;
    for n in 0..20 {
        world.frame(0, 8, old.frame(known.encoded()));
        world.advance(Duration::from_millis(100));
        if asked(&mut world, 9) && first.is_none() {
            first = Some(n);
        }
    }
    assert!(first.is_some_and(|n| n < 12), "the honest one after a second at most: {first:?}");
}

#[test]
fn a_shorter_way_is_proven_before_the_other_one_is_given_up() {
    let mut world = node(&Limits::default(), &[8, 9]);
    let id = world.subscribe(0, topic(), Start::Retained);
    let forge = forge(89);
    let runs = chain(&forge, 6);
    let key = forge.key.public_key().as_bytes().to_vec();
    let push = |world: &mut World, peer, n: usize, hops| {
        world.frame(0, peer, frames::publish(runs[n].encoded(), &key, false, hops));
    };
    push(&mut world, 8, 0, 9);
    world.kinds_to(9);
    world.frame(0, 9, head(&forge, 1, 1));
    assert!(asked(&mut world, 9), "tried");
    assert!(!world.kinds_to(8).contains(&PRUNE), "and the parent kept");
    // It says so and does not deliver: nothing is late, and it is not tried again soon.
    for n in 1..3 {
        push(&mut world, 8, n, 9);
        world.frame(0, 9, head(&forge, n as u64 + 1, 1));
        assert_eq!(world.nodes[0].messages(id).len(), n + 1);
        world.advance(Duration::from_secs(3));
    }
    assert!(!asked(&mut world, 9), "neither grafted again nor for anything");
    assert!(!world.kinds_to(8).contains(&PRUNE));
    // It delivers first: then the longer way is given up, for this author alone.
    push(&mut world, 9, 3, 2);
    push(&mut world, 8, 3, 9);
    assert!(world.kinds_to(8).contains(&PRUNE));
    assert_eq!(world.nodes[0].machine.snapshot().topics[0].eager, 2);
    // It is silent again: the announcement of the other one repairs that, and it is not tried soon.
    world.frame(0, 8, head(&forge, 5, 8));
    world.kinds_to(9);
    world.advance(Duration::from_secs(1));
    assert!(asked(&mut world, 8));
    push(&mut world, 8, 4, 9);
    push(&mut world, 8, 5, 9);
    world.frame(0, 9, head(&forge, 6, 1));
    assert!(!asked(&mut world, 9));
    assert_eq!(world.nodes[0].messages(id).len(), 6);
}
