//! Peers that are no neighbours of the overlay: how many get a link, and what they may make us do.

use std::time::Duration;

use x0x_core::{MachineId, TopicId};
use x0x_gossip_pubsub::{Input, Limits, Start, testing::subscribe_frame, topic_id};

use crate::{
    frames::{self, Fields},
    harness::{World, machine_id},
};

const LEAVE: [u8; 4] = [0x0a, 2, 0x28, 1];
const FIND: u32 = 10;

fn topic() -> TopicId {
    topic_id("strangers")
}

fn links(world: &World) -> (usize, usize) {
    let links = world.nodes[0].machine.snapshot().links;
    (links.len(), links.iter().filter(|link| !link.neighbor).count())
}

#[test]
fn strangers_get_few_links_and_neighbours_take_them() {
    let mut limits = Limits::default();
    limits.links = 20;
    let mut world = World::new(1, 1, &limits);
    world.subscribe(0, topic(), Start::Retained);
    for n in 50..80 {
        world.frame(0, n, subscribe_frame(topic()));
    }
    assert_eq!(links(&world), (16, 16));
    assert_eq!(world.counter(0, "pubsub_refused_strangers"), 14);
    world.sent.clear();
    for n in 1..20 {
        world.input(0, Input::LinkUp(machine_id(n)));
    }
    assert_eq!(links(&world), (20, 1), "every neighbour has a link");
    let left = world.sent.iter().filter(|(_, _, frame)| frame[..] == LEAVE).count();
    assert_eq!(left, 15, "who made room is told");
    assert_eq!(world.held.len(), 1);
    world.input(0, Input::LinkUp(machine_id(20)));
    world.input(0, Input::LinkUp(machine_id(21)));
    assert_eq!((links(&world), world.counter(0, "pubsub_links_waiting")), ((20, 0), 1));
    assert!(world.held.is_empty());
}

#[test]
fn strangers_of_one_network_leave_room_for_others() {
    let mut world = World::new(1, 2, &Limits::default());
    world.subscribe(0, topic(), Start::Retained);
    let speak = |world: &mut World, peer: usize, from: &str| {
        let from = from.parse().expect("an address");
        world.input(0, Input::Path { peer: machine_id(peer), from });
        world.frame(0, peer, subscribe_frame(topic()));
    };
    for n in 0..12 {
        speak(&mut world, 10 + n, &format!("198.51.100.{n}"));
    }
    assert_eq!(links(&world), (4, 4));
    speak(&mut world, 30, "203.0.113.1");
    for n in 0..5 {
        speak(&mut world, 40 + n, "192.168.1.7");
    }
    assert_eq!(links(&world), (10, 10), "a site is one network for all");
    world.input(0, Input::LinkDown(machine_id(10)));
    speak(&mut world, 22, "198.51.100.99");
    assert_eq!(links(&world), (10, 10));
}

#[test]
fn sessions_of_topic_peers_are_held_as_long_as_the_topic() {
    let mut world = World::new(1, 3, &Limits::default());
    let id = world.subscribe(0, topic(), Start::Retained);
    world.frame(0, 9, subscribe_frame(topic_id("another")));
    assert!(world.held.is_empty(), "nothing is shared");
    world.frame(0, 9, subscribe_frame(topic()));
    assert!(world.held.contains(&machine_id(9)));
    world.input(0, Input::LinkUp(machine_id(9)));
    assert!(world.held.is_empty(), "the overlay keeps its neighbours itself");
    world.frame(0, 8, subscribe_frame(topic()));
    assert!(world.held.contains(&machine_id(8)));
    world.input(0, Input::Unsubscribe(id));
    assert!(world.held.is_empty());
    world.subscribe(0, topic(), Start::Retained);
    assert!(world.held.contains(&machine_id(8)));
    world.input(0, Input::LinkDown(machine_id(8)));
    assert!(world.held.is_empty());
}

/// The addresses that this node dials when a peer at `from` names them for a topic.
fn dialled(from: Option<&str>, named: &str) -> Vec<String> {
    let mut world = World::new(1, 4, &Limits::default());
    world.input(0, Input::LinkUp(machine_id(9)));
    if let Some(from) = from {
        let from = from.parse().expect("an address");
        world.input(0, Input::Path { peer: machine_id(9), from });
    }
    world.subscribe(0, topic(), Start::Retained);
    world.advance(Duration::from_secs(3));
    let search = world.sent.iter().rfind(|(_, _, frame)| frames::kind(frame) == FIND);
    let id = frames::search_id(&search.expect("a search").2);
    let found = frames::peers_found(topic(), id, &[(MachineId::new([7; 32]), named)]);
    world.frame(0, 9, found);
    world.dials.iter().flat_map(|to| &to.addresses).map(ToString::to_string).collect()
}

#[test]
fn a_stranger_does_not_make_this_machine_dial_into_its_own_network() {
    let inside = "127.0.0.1:22 10.0.0.1:22 192.168.1.1:22 169.254.1.1:22 169.254.169.254:80 \
                  [::1]:22 [fe80::1]:22 [fd00::1]:22";
    for from in [None, Some("198.51.100.1"), Some("2001:db8::1")] {
        assert_eq!(dialled(from, inside), [""; 0], "{from:?}");
        let both = format!("{inside} 203.0.113.7:5483");
        let both = both.split(' ').rev().take(8).collect::<Vec<_>>().join(" ");
        assert_eq!(dialled(from, &both), ["203.0.113.7:5483"], "{from:?}");
    }
    assert_eq!(dialled(Some("192.168.1.9"), "10.0.0.1:22 127.0.0.1:22"), ["10.0.0.1:22"]);
    assert_eq!(dialled(Some("127.0.0.1"), "127.0.0.1:22"), ["127.0.0.1:22"]);
    assert_eq!(dialled(Some("127.0.0.1"), "169.254.169.254:80"), [""; 0]);
}

#[test]
fn comparisons_cost_what_they_read() {
    let mut world = World::new(1, 5, &Limits::default());
    world.subscribe(0, topic(), Start::Retained);
    world.input(0, Input::LinkUp(machine_id(9)));
    world.frame(0, 9, subscribe_frame(topic()));
    // Each reads all there is.
    for _ in 0..3000 {
        world.frame(0, 9, frames::heads(topic(), std::iter::empty(), true));
    }
    let refused = world.counter(0, "pubsub_refused_comparisons");
    assert_eq!(refused, 3000 - 2047, "one was spent on the subscription");
    world.advance(Duration::from_secs(1));
    world.frame(0, 9, frames::heads(topic(), std::iter::empty(), true));
    assert_eq!(world.counter(0, "pubsub_refused_comparisons"), refused, "it comes back");
}

#[test]
fn asking_for_all_subscriptions_again_and_again_is_refused() {
    let mut world = World::new(1, 6, &Limits::default());
    for n in 0..400 {
        world.subscribe(0, topic_id(&format!("{n}")), Start::Retained);
    }
    world.input(0, Input::LinkUp(machine_id(9)));
    let again = Fields::default().number(4, 1).frame(1);
    for _ in 0..100 {
        world.frame(0, 9, again.clone());
    }
    assert_eq!(world.counter(0, "pubsub_refused_subscriptions"), 95);
    // To remove what is not subscribed costs nothing, and what is, was paid for.
    let nothing = Fields::default().bytes(3, &[7; 32]).frame(1);
    (0..1000).for_each(|_| world.frame(0, 9, nothing.clone()));
    assert_eq!(world.counter(0, "pubsub_refused_subscriptions"), 95);
    assert_eq!(world.disconnects, []);
}

#[test]
fn subscribing_again_and_again_leaves_no_timers() {
    let mut world = World::new(1, 7, &Limits::default());
    let timers = |world: &World| {
        let tables = world.nodes[0].machine.snapshot().tables;
        tables.iter().find(|table| table.name == "timers").map_or(0, |table| table.len)
    };
    for n in 0..500 {
        let id = world.subscribe(0, topic(), Start::Retained);
        world.publish(0, topic(), "x").expect("room");
        world.sign(0);
        world.input(0, Input::Unsubscribe(id));
        world.advance(Duration::from_millis(n));
        assert!(timers(&world) <= 8, "{n}: {}", timers(&world));
    }
}
