//! Every table keeps its cap, and says so when it is reached.

use std::time::Duration;

use x0x_core::TopicId;
use x0x_gossip_pubsub::{
    Input, Limits, MAX_SUBSCRIBED_TOPICS, NetworkId, Start, SubscribeError,
    testing::{RunForge, subscribe_frame, want_frame},
    topic_id,
};
use x0x_identity::testing;

use crate::harness::{NETWORK, WALL, World, machine_id};

fn topic(n: usize) -> TopicId {
    topic_id(&format!("topic {n}"))
}

#[test]
fn the_oldest_carried_topic_makes_room_and_subscribed_ones_stay() {
    let mut limits = Limits::default();
    limits.topics = 8;
    let mut world = World::new(1, 1, &limits);
    let kept = world.subscribe(0, topic(0), Start::Retained);
    for n in 0..20 {
        world.publish(0, topic(n), "x").unwrap();
        world.sign(0);
    }
    assert_eq!(world.counter(0, "pubsub_topics"), 8);
    assert_eq!(world.counter(0, "pubsub_topics_evicted"), 12);
    world.publish(0, topic(0), "y").unwrap();
    world.settle();
    assert_eq!(world.nodes[0].messages(kept).len(), 2);
}

#[test]
fn all_logs_together_keep_their_cap() {
    let mut limits = Limits::default();
    limits.log_bytes = 64 * 1024;
    let mut world = World::new(1, 2, &limits);
    for n in 0..60 {
        world.publish(0, topic(n % 3), &"x".repeat(100 * (n % 3))).unwrap();
        world.sign(0);
        assert!(world.counter(0, "pubsub_log_bytes") <= 64 * 1024);
    }
    assert!(world.counter(0, "pubsub_runs_evicted") > 0);
    let retained = world.counter(0, "pubsub_log_entries");
    assert_eq!(retained + world.counter(0, "pubsub_runs_evicted"), 60);
}

#[test]
fn an_author_beyond_the_cap_takes_the_place_of_another_newcomer() {
    let mut limits = Limits::default();
    limits.topic_authors = 3;
    let mut world = World::new(1, 3, &limits);
    world.refusals = 0.0;
    let id = world.subscribe(0, topic(0), Start::Retained);
    world.input(0, Input::LinkUp(machine_id(9)));
    let network = NetworkId::from_name(NETWORK);
    let forge = |n: u64| RunForge::new(testing::key(60 + n), network, topic(0), WALL);
    let send = |world: &mut World, forge: &RunForge, run: &x0x_gossip_pubsub::Run| {
        let message = forge.frame(run.encoded());
        world.input(0, Input::Frame { peer: machine_id(9), message });
    };
    let firsts: Vec<_> = (0..3).map(|n| forge(n).run(None, &[b"1"])).collect();
    for (n, run) in (0..).zip(&firsts) {
        send(&mut world, &forge(n), run);
    }
    // The first goes on, so that another one with a single entry makes room.
    send(&mut world, &forge(0), &forge(0).run(Some(&firsts[0]), &[b"2"]));
    send(&mut world, &forge(3), &forge(3).run(None, &[b"new"]));
    assert_eq!(world.counter(0, "pubsub_authors_expelled"), 1);
    assert_eq!(world.nodes[0].messages(id).len(), 5);
    assert_eq!(world.counter(0, "pubsub_log_entries"), 4);
    send(&mut world, &forge(1), &firsts[1]);
    assert_eq!(world.counter(0, "pubsub_refused_replayed"), 1, "what was expelled does not return");
    // What the others wrote is past the retention a day later: idle ones are forgotten first.
    world.advance(Duration::from_secs(24 * 3600 + 600));
    let later = |n: u64| RunForge { wall: WALL + Duration::from_secs(24 * 3600 + 600), ..forge(n) };
    send(&mut world, &later(4), &later(4).run(None, &[b"taken"]));
    assert_eq!(world.counter(0, "pubsub_authors_expelled"), 1);
    assert_eq!(world.nodes[0].messages(id).len(), 6);
}

#[test]
fn an_idle_author_of_any_topic_makes_room() {
    let mut limits = Limits::default();
    limits.authors = 2;
    let mut world = World::new(1, 3, &limits);
    let _ = world.subscribe(0, topic(0), Start::Retained);
    let id = world.subscribe(0, topic(1), Start::Retained);
    world.input(0, Input::LinkUp(machine_id(9)));
    let send = |world: &mut World, n: u64, topic| {
        let network = NetworkId::from_name(NETWORK);
        let forge = RunForge::new(testing::key(60 + n), network, topic, world.wall());
        let message = forge.frame(forge.run(None, &[b"1"]).encoded());
        world.input(0, Input::Frame { peer: machine_id(9), message });
    };
    send(&mut world, 0, topic(0));
    send(&mut world, 1, topic(0));
    // Nothing of them is retained a day later.
    world.advance(Duration::from_secs(25 * 3600));
    send(&mut world, 2, topic(1));
    assert_eq!(world.counter(0, "pubsub_authors_forgotten"), 2);
    assert_eq!(world.counter(0, "pubsub_authors_expelled"), 0);
    assert_eq!(world.nodes[0].messages(id).len(), 1);
}

#[test]
fn a_forgotten_author_cannot_be_replayed() {
    let mut limits = Limits::default();
    limits.topic_authors = 2;
    limits.former_authors = 1;
    limits.topic_entries = 1;
    let mut world = World::new(1, 3, &limits);
    world.refusals = 0.0;
    let id = world.subscribe(0, topic(0), Start::Retained);
    world.input(0, Input::LinkUp(machine_id(9)));
    let network = NetworkId::from_name(NETWORK);
    let forge = |n: u64| RunForge::new(testing::key(60 + n), network, topic(0), WALL);
    let send = |world: &mut World, n: u64| {
        let message = forge(n).frame(forge(n).run(None, &[b"1"]).encoded());
        world.input(0, Input::Frame { peer: machine_id(9), message });
    };
    send(&mut world, 0);
    world.publish(0, topic(0), "x").unwrap();
    world.sign(0);
    send(&mut world, 1);
    assert_eq!(world.counter(0, "pubsub_authors_forgotten"), 1);
    assert_eq!(world.nodes[0].messages(id).len(), 3);
    send(&mut world, 0);
    assert_eq!(world.counter(0, "pubsub_refused_replayed"), 1);
    assert_eq!(world.nodes[0].messages(id).len(), 3, "delivered once");
    // Rather no new author than a replay.
    send(&mut world, 2);
    assert_eq!(world.counter(0, "pubsub_refused_authors"), 1);
}

#[test]
fn a_session_beyond_the_links_takes_the_place_of_one_that_ends() {
    let mut limits = Limits::default();
    limits.links = 2;
    let mut world = World::new(4, 6, &Limits::default());
    world.limit(0, limits);
    let near = world.subscribe(0, topic(0), Start::Retained);
    let far = world.subscribe(3, topic(0), Start::Retained);
    (1..4).for_each(|n| world.link(0, n));
    world.publish(3, topic(0), "a").unwrap();
    world.publish(0, topic(0), "b").unwrap();
    world.settle();
    assert_eq!(world.counter(0, "pubsub_links_waiting"), 1);
    assert_eq!(world.nodes[3].messages(far).len(), 1);
    world.unlink(0, 1);
    world.settle();
    assert_eq!(world.counter(0, "pubsub_links"), 2);
    assert_eq!(world.counter(0, "pubsub_links_waiting"), 0);
    world.assert_complete(&[(0, topic(0), near), (3, topic(0), far)], 6);
}

#[test]
fn subscriptions_that_change_while_a_link_is_paused_add_up_to_what_is_left() {
    let mut world = World::new(2, 7, &Limits::default());
    world.capacity = 1;
    world.link(0, 1);
    world.settle();
    for n in 0..2000 {
        let id = world.subscribe(0, topic(n), Start::Live);
        world.input(0, Input::Unsubscribe(id));
        world.advance(Duration::from_millis(1));
    }
    let left = world.subscribe(0, topic(9), Start::Retained);
    world.settle();
    assert_eq!(world.counter(1, "pubsub_refused_oversized"), 0);
    assert_eq!(world.disconnects, []);
    world.publish(1, topic(9), "x").unwrap();
    world.settle();
    world.assert_complete(&[(0, topic(9), left)], 7);
}

#[test]
fn announcements_are_paced_below_what_a_peer_takes() {
    let mut world = World::new(2, 8, &Limits::default());
    world.capacity = usize::MAX;
    world.link(0, 1);
    let mut ids = Vec::new();
    for _ in 0..10 {
        for id in ids.drain(..) {
            world.input(0, Input::Unsubscribe(id));
        }
        ids.extend((0..400).map(|n| world.subscribe(0, topic(n), Start::Retained)));
        world.settle_now();
    }
    world.settle();
    assert_eq!(world.counter(1, "pubsub_refused_subscriptions"), 0);
    for n in 0..400 {
        world.publish(1, topic(n), "x").unwrap();
    }
    world.settle();
    assert!(ids.iter().all(|id| world.nodes[0].messages(*id).len() == 1));
}

#[test]
fn signature_checks_are_limited_and_a_sender_keeps_below() {
    let mut limits = Limits::default();
    (limits.link_run_burst, limits.link_run_rate) = (64, 64);
    let mut world = World::new(2, 9, &limits);
    let id = world.subscribe(1, topic(0), Start::Retained);
    world.link(0, 1);
    for n in 0..300 {
        world.publish(0, topic(0), &format!("{n}")).unwrap();
        world.sign(0);
    }
    world.settle();
    assert_eq!(world.counter(1, "pubsub_refused_run_rate"), 0);
    world.assert_complete(&[(1, topic(0), id)], 9);

    let mut world = World::new(1, 9, &limits);
    world.subscribe(0, topic(0), Start::Retained);
    world.input(0, Input::LinkUp(machine_id(9)));
    let network = NetworkId::from_name(NETWORK);
    let forge = RunForge::new(testing::key(60), network, topic(0), WALL);
    let mut last = None;
    for _ in 0..100 {
        let run = forge.run(last.as_ref(), &[b"x"]);
        let message = forge.frame(run.encoded());
        world.input(0, Input::Frame { peer: machine_id(9), message });
        last = Some(run);
    }
    assert_eq!(world.counter(0, "pubsub_signatures_verified"), 64);
    assert_eq!(world.counter(0, "pubsub_refused_run_rate"), 1, "then they are ahead");
}

#[test]
fn subscriptions_are_limited_here_and_for_peers() {
    let mut limits = Limits::default();
    limits.subscriptions = 2;
    let mut world = World::new(1, 4, &limits);
    let first = world.subscribe(0, topic(0), Start::Live);
    world.subscribe(0, topic(0), Start::Live);
    let now = world.now;
    let refused = world.nodes[0].machine.subscribe(now, topic(1), Start::Live);
    assert_eq!(refused, Err(SubscribeError::Limit { what: "subscriptions", max: 2 }));
    world.input(0, Input::Unsubscribe(first));
    world.subscribe(0, topic(1), Start::Live);

    limits.subscriptions = 2 * MAX_SUBSCRIBED_TOPICS;
    let mut world = World::new(1, 4, &limits);
    for n in 0..MAX_SUBSCRIBED_TOPICS {
        world.subscribe(0, topic(n), Start::Live);
    }
    let refused = world.nodes[0].machine.subscribe(now, topic(9999), Start::Live);
    let max = MAX_SUBSCRIBED_TOPICS;
    assert_eq!(refused, Err(SubscribeError::Limit { what: "subscribed topics", max }));

    world.input(0, Input::LinkUp(machine_id(9)));
    for n in 0..=MAX_SUBSCRIBED_TOPICS {
        // Each replaces those before it; a changed first byte makes it an addition.
        let frame = subscribe_frame(topic(n)).to_vec();
        let message = add_only(&frame);
        world.input(0, Input::Frame { peer: machine_id(9), message });
    }
    assert_eq!(world.counter(0, "pubsub_refused_subscriptions"), 1);
}

/// A subscriptions frame without its `set` flag.
fn add_only(frame: &[u8]) -> bytes::Bytes {
    assert_eq!(&frame[2..4], &[0x08, 1], "the flag comes first");
    [&[frame[0], frame[1] - 2], &frame[4..]].concat().into()
}

#[test]
fn links_and_requests_are_limited() {
    let mut limits = Limits::default();
    limits.links = 2;
    let mut world = World::new(1, 5, &limits);
    world.subscribe(0, topic(0), Start::Retained);
    for n in 9..12 {
        world.input(0, Input::LinkUp(machine_id(n)));
    }
    assert_eq!(world.counter(0, "pubsub_links"), 2);
    assert_eq!(world.counter(0, "pubsub_refused_links"), 1);
    let stranger = Input::Frame { peer: machine_id(11), message: subscribe_frame(topic(0)) };
    world.input(0, stranger);
    assert_eq!(world.counter(0, "pubsub_refused_no_link"), 1);

    world.publish(0, topic(0), "x").unwrap();
    world.sign(0);
    let message = subscribe_frame(topic(0));
    world.input(0, Input::Frame { peer: machine_id(9), message });
    let author = world.nodes[0].key.public_key().agent_id();
    let epoch = x0x_gossip_pubsub::epoch_at(WALL, 0);
    for _ in 0..1000 {
        let message = want_frame(topic(0), author, epoch, 1);
        world.input(0, Input::Frame { peer: machine_id(9), message });
    }
    // 512 at once, each of which is answered.
    assert_eq!(world.counter(0, "pubsub_refused_wants"), 1000 - 512);
    assert_eq!(world.counter(0, "pubsub_runs_sent"), 512);
}
