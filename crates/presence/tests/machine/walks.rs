//! Friends of friends.

use x0x_core::{AgentId, Machine};
use x0x_presence::{Frame, FrameIn, Input, PresenceState::*, SignedQuery};

use crate::world::{World, agent, machine, secs};

fn line(count: usize) -> World {
    let mut world = World::new(count);
    for n in 1..count {
        world.neighbors(n - 1, n);
    }
    world.run(secs(60));
    world
}

fn find(world: &mut World, n: usize, targets: &[AgentId], ttl: u32) {
    let query = world.query(n, targets);
    world.input(n, Input::Find { ticket: Some(7), query, ttl, patience: secs(10) });
    world.run(secs(11));
}

fn found(world: &World, n: usize) -> Vec<AgentId> {
    let mut found: Vec<_> = world.nodes[n].found.iter().map(|status| status.agent).collect();
    found.sort();
    found
}

#[test]
fn an_agent_is_found_as_far_as_the_hops_reach() {
    let mut world = line(6);
    // Three hops, and the last one knows its neighbour.
    find(&mut world, 0, &[agent(4)], 3);
    assert_eq!(found(&world, 0), [agent(4)]);
    assert_eq!(world.nodes[0].done, [7]);
    assert_eq!(world.state(0, 4), Online);

    let mut world = line(6);
    find(&mut world, 0, &[agent(5)], 3);
    assert_eq!(found(&world, 0), []);
    assert_eq!(world.nodes[0].done, [7], "told at the end of its time");
    find(&mut world, 0, &[agent(4)], 2);
    assert_eq!(found(&world, 0), []);
}

#[test]
fn whoever_is_there_can_be_asked_for() {
    let mut world = line(4);
    find(&mut world, 0, &[], 3);
    let mut expected = [agent(1), agent(2), agent(3)];
    expected.sort();
    assert_eq!(found(&world, 0), expected);
}

#[test]
fn what_is_known_takes_no_walk() {
    let mut world = line(3);
    let query = world.query(0, &[agent(1)]);
    world.input(0, Input::Find { ticket: Some(9), query, ttl: 3, patience: secs(10) });
    assert_eq!((found(&world, 0), &world.nodes[0].done[..]), (vec![agent(1)], &[9][..]));
    assert_eq!(world.nodes[0].machine.metrics().walks_started.value(), 0);
}

#[test]
fn who_may_not_see_is_not_told() {
    let mut world = line(4);
    world.blocks.block(agent(0), agent(3));
    find(&mut world, 0, &[agent(3)], 3);
    assert_eq!(found(&world, 0), []);
}

#[test]
fn watched_agents_far_away_are_looked_for() {
    let mut world = line(5);
    world.watch(0, [4]);
    world.run(secs(1300));
    assert_eq!(world.state(0, 4), Unknown, "a quiet walk has two hops");
    world.watch(0, [3]);
    world.run(secs(700));
    assert!(world.states(0, 3).contains(&Online));
}

#[test]
fn answers_come_back_only_the_way_the_question_went() {
    let mut world = line(4);
    let query = world.query(0, &[agent(3)]);
    let id = query.query().id;
    let sighting = {
        world.log = Some(Vec::new());
        world.input(
            0,
            Input::Find { ticket: Some(1), query: query.clone(), ttl: 3, patience: secs(10) },
        );
        world.run(secs(1));
        let log = world.log.take().expect("kept");
        for (from, to, frame) in &log {
            if matches!(Frame::decode(frame), Ok(FrameIn::Answer(..))) {
                assert_eq!(*to + 1, *from, "towards the origin");
            }
        }
        let answers = log.iter().filter_map(|(_, _, frame)| match Frame::decode(frame) {
            Ok(FrameIn::Answer(_, sightings)) => Some(sightings),
            _ => None,
        });
        answers.last().expect("answered")
    };
    assert_eq!(found(&world, 0), [agent(3)]);
    // A second answer to somebody who did not ask, and one to a walk that never was.
    let refused = |world: &World| world.nodes[2].machine.metrics().refused_answers.value();
    let before = refused(&world);
    for walk in [id, [0xee; 16]] {
        let frame = Frame::Answer(walk, sighting.clone()).encode();
        world.input(2, Input::Message { peer: machine(1), frame });
    }
    assert_eq!(refused(&world), before + 2);
}

#[test]
fn walks_are_limited_by_link_and_by_origin() {
    let mut world = line(3);
    let ask = |world: &mut World, n: usize| {
        let query = world.query(n, &[agent(99)]);
        let frame = Frame::Walk(query, 3).encode();
        world.input(1, Input::Message { peer: machine(0), frame });
    };
    for _ in 0..20 {
        ask(&mut world, 2);
    }
    let metrics = world.nodes[1].machine.metrics();
    let (served, refused) = (metrics.walks_served.value(), metrics.refused_walks.value());
    assert_eq!((served, refused), (6, 14), "six of one origin, ten of one link");
}

#[test]
fn a_question_must_be_signed_and_fresh() {
    let mut world = line(2);
    let metrics = world.nodes[1].machine.metrics();
    let query = world.query(0, &[agent(1)]);
    let frame = Frame::Walk(query.clone(), 3).encode();
    let mut forged = frame.to_vec();
    let last = forged.len() - 40;
    forged[last] ^= 1;
    world.input(1, Input::Message { peer: machine(0), frame: forged.into() });
    assert_eq!(metrics.refused_signature.value() + metrics.refused_malformed.value(), 1);
    assert_eq!(metrics.walks_served.value(), 0);
    world.run(secs(400));
    world.input(1, Input::Message { peer: machine(0), frame });
    assert_eq!((metrics.refused_expired.value(), metrics.walks_served.value()), (1, 0));
    let decoded = SignedQuery::decode(&query.encode()).expect("well-formed");
    assert_eq!(decoded.verify(crate::world::START + secs(60)), Ok(query));
}

#[test]
fn a_walk_that_was_seen_goes_no_further() {
    // A ring: the question comes by from both sides.
    let mut world = World::new(4);
    for n in 0..4 {
        world.neighbors(n, (n + 1) % 4);
    }
    world.run(secs(60));
    world.log = Some(Vec::new());
    find(&mut world, 0, &[agent(77)], 3);
    let log = world.log.take().expect("kept");
    let walks =
        log.iter().filter(|(_, _, frame)| matches!(Frame::decode(frame), Ok(FrameIn::Walk(..))));
    assert!(walks.count() <= 5, "at most once over each link, and both ways at the far end");
    assert!(world.nodes[0].machine.poll_timeout().is_some());
}
