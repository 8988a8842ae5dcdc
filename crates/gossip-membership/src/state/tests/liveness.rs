//! Neighbours that fall silent, and those that only seem to.

use super::*;

const RUN: u64 = 5 << 32;

/// Neighbours 1 to `count`, none of whom answers by itself.
fn silent(count: u64) -> World {
    let mut world = World::new();
    world.link(1..=count);
    world.alive = false;
    world
}

fn pings(outputs: &[Output]) -> Vec<(MachineId, u64, Option<u64>)> {
    let ping = |output: &Output| match output {
        Output::Send { to, message: Message::Ping { nonce, suspected, .. } } => {
            Some((*to, *nonce, *suspected))
        }
        _ => None,
    };
    outputs.iter().filter_map(ping).collect()
}

fn requests(outputs: &[Output]) -> Vec<(MachineId, u64, MachineId)> {
    let request = |output: &Output| match output {
        Output::Send { to, message: Message::PingRequest { nonce, target, .. } } => {
            Some((*to, *nonce, *target))
        }
        _ => None,
    };
    outputs.iter().filter_map(request).collect()
}

impl World {
    fn answer(&mut self, from: MachineId, nonce: u64, incarnation: u64) -> Vec<Output> {
        let message = Message::Ack { nonce, incarnation, entries: Vec::new() };
        self.handle(Input::Message { peer: from, message })
    }

    fn report(&mut self, from: MachineId, nonce: u64, outcome: Outcome) -> Vec<Output> {
        self.handle(Input::Message { peer: from, message: Message::PingReport { nonce, outcome } })
    }

    /// Until somebody is pinged.
    fn next_ping(&mut self) -> (MachineId, u64) {
        for _ in 0..1000 {
            let outputs = self.advance(Duration::from_millis(100));
            if let Some((id, nonce, _)) = pings(&outputs).first() {
                return (*id, *nonce);
            }
        }
        panic!("nobody is pinged");
    }

    /// Has the last-pinged neighbour doubted, and gives what the helpers were asked.
    fn until_helpers(&mut self) -> Vec<(MachineId, u64, MachineId)> {
        requests(&self.advance(Duration::from_millis(450)))
    }
}

#[test]
fn each_neighbour_is_pinged_once_a_round() {
    let mut world = World::new();
    world.link(1..=5);
    let outputs = world.advance(60 * SECOND);
    let pinged: Vec<MachineId> = pings(&outputs).iter().map(|(id, ..)| *id).collect();
    assert!((10..=15).contains(&pinged.len()), "one each five seconds");
    for round in pinged.chunks_exact(5) {
        assert_eq!(round.iter().collect::<BTreeSet<_>>().len(), 5, "{round:?}");
    }
    assert_eq!(world.machine.active.len(), 5);
    assert_eq!(world.machine.metrics().pings_late.value(), 0);
}

#[test]
fn neighbours_whose_packets_come_are_left_in_peace() {
    let mut world = World::new();
    world.link(1..=7);
    let (mut timeouts, mut pinged, mut silent_at) = (0, 0, None);
    let begin = world.now;
    // A packet of each in seven seconds, as keep-alives make them; after ten minutes one falls silent.
    while world.now.since(begin) < 640 * SECOND {
        let Some(at) = world.machine.poll_timeout() else { panic!("no timer") };
        world.now = at;
        let seconds = at.since(begin).as_secs();
        for n in 1..=7 {
            let packets = if n == 3 { seconds.min(600) / 7 } else { seconds / 7 };
            world.machine.handle(at, Input::Received { peer: id(n), packets });
        }
        world.machine.handle_timeout(at);
        let outputs = world.drain();
        if seconds < 600 {
            timeouts += 1;
            pinged += pings(&outputs).len();
        } else if silent_at.is_none() {
            silent_at = pings(&outputs).iter().find(|(to, ..)| *to == id(3)).map(|_| seconds - 600);
        }
    }
    assert!((20..=40).contains(&pinged), "{pinged} pings in ten minutes");
    // A look each five seconds, and a shuffle now and then.
    assert!(timeouts <= 160, "{timeouts} wake-ups in ten minutes");
    assert!(silent_at.is_some_and(|after| after <= 16), "{silent_at:?}");
}

#[test]
fn one_that_nobody_reaches_is_dropped_and_its_session_ended() {
    let mut world = silent(4);
    let (late, _) = world.next_ping();
    let mut asked = BTreeSet::new();
    let start = world.now;
    let mut outputs = Vec::new();
    while world.machine.active.contains(late) {
        assert!(world.now.since(start) < 20 * SECOND);
        outputs = world.advance(Duration::from_millis(50));
        for (helper, nonce, target) in requests(&outputs) {
            if target == late {
                asked.insert(helper);
                world.report(helper, nonce, Outcome::Silent);
            }
        }
        // The others are there.
        for (id, nonce, _) in pings(&outputs).into_iter().filter(|(id, ..)| *id != late) {
            world.answer(id, nonce, RUN);
        }
    }
    assert_eq!(asked.len(), 3, "all the others");
    let took = world.now.since(start);
    assert!((6 * SECOND..8 * SECOND).contains(&took), "three confirm: {took:?}");
    assert!(outputs.contains(&Output::Disconnect(late)));
    assert!(outputs.contains(&Output::NeighborDown(late)));
    assert!(world.machine.lost.former(late).is_some(), "it is tried again later");
    assert_eq!(world.machine.metrics().neighbors_dead.value(), 1);
    assert_eq!(world.machine.liveness.health(), 0, "the helpers answered");
}

#[test]
fn a_suspect_that_answers_is_a_neighbour_again() {
    let mut world = silent(3);
    let (late, nonce) = world.next_ping();
    world.answer(late, nonce, RUN);
    let (late, _) = {
        let mut next = world.next_ping();
        while next.0 != late {
            world.answer(next.0, next.1, RUN);
            next = world.next_ping();
        }
        next
    };
    // Helpers and suspect are silent: this node doubts itself, and tells the suspect.
    let outputs = world.advance(4 * SECOND);
    assert!(world.machine.liveness.health() > 0);
    let told = pings(&outputs).into_iter().find(|(id, ..)| *id == late).expect("pinged again");
    assert_eq!(told.2, Some(RUN));
    world.answer(late, told.1, RUN + 1);
    let metrics = world.machine.metrics();
    assert_eq!(metrics.suspicions.value(), 1);
    world.alive = true;
    world.advance(60 * SECOND);
    assert!(world.machine.active.contains(late));
    assert_eq!(metrics.neighbors_dead.value(), 0);
}

#[test]
fn others_refute_a_suspicion_only_by_a_later_incarnation() {
    let mut world = silent(3);
    let (first, nonce) = world.next_ping();
    world.answer(first, nonce, RUN);
    let mut next = world.next_ping();
    while next.0 != first {
        world.answer(next.0, next.1, RUN);
        next = world.next_ping();
    }
    let mut outputs = world.advance(SECOND);
    while world.machine.metrics().suspicions.value() == 0 {
        outputs = world.advance(Duration::from_millis(50));
    }
    let about_suspect = |outputs: &[Output]| {
        requests(outputs).into_iter().find(|(.., target)| *target == first).expect("asked")
    };
    let (helper, nonce, _) = about_suspect(&outputs);
    world.report(helper, nonce, Outcome::Alive(RUN));
    let outputs = world.advance(2 * SECOND);
    let (helper, nonce, _) = about_suspect(&outputs);
    let outputs = world.report(helper, nonce, Outcome::Alive(RUN + 1));
    assert_eq!(pings(&outputs).len(), 1, "it is tried directly at once");
    assert_eq!(pings(&outputs)[0].2, None, "and not suspected any more");
}

#[test]
fn one_that_only_others_reach_is_dropped_as_cut_off() {
    let mut world = silent(4);
    let (late, _) = world.next_ping();
    let mut downs = Vec::new();
    for _ in 0..400 {
        let outputs = world.advance(Duration::from_millis(50));
        for (helper, nonce, target) in requests(&outputs) {
            if target == late {
                downs.extend(world.report(helper, nonce, Outcome::Alive(RUN)));
            }
        }
        for (id, nonce, _) in pings(&outputs).into_iter().filter(|(id, ..)| *id != late) {
            world.answer(id, nonce, RUN);
        }
    }
    assert!(downs.contains(&Output::Disconnect(late)));
    let metrics = world.machine.metrics();
    assert_eq!((metrics.neighbors_cut.value(), metrics.neighbors_dead.value()), (1, 0));
}

#[test]
fn a_neighbour_that_joins_elsewhere_is_doubted_and_replaced_by_its_new_process() {
    let mut world = silent(3);
    let restarted = loop {
        let (id, nonce) = world.next_ping();
        world.answer(id, nonce, RUN);
        if id == super::id(2) {
            break id;
        }
    };
    world.advance(SECOND);
    let elsewhere = Peer::new(restarted, [address(77)]);
    let walk = Message::ForwardJoin { ttl: 6, joiner: elsewhere.clone() };
    let outputs = world.hear(1, walk.clone());
    assert_eq!(pings(&outputs).len(), 1);
    assert_eq!(pings(&world.hear(1, walk)).len(), 0, "not at each of them");
    let (helper, nonce, _) = world.until_helpers()[0];
    let outputs = world.report(helper, nonce, Outcome::Alive((6 << 32) + 1));
    assert_eq!(pings(&outputs).first().map(|(id, ..)| *id), Some(restarted), "asked once more");
    assert!(world.machine.active.contains(restarted));
    let outputs = world.advance(Duration::from_millis(450));
    assert!(outputs.contains(&Output::Disconnect(restarted)));
    assert!(outputs.contains(&Output::NeighborDown(restarted)));
    // The session was the old process's: the new one is dialled where it is now.
    assert!(outputs.contains(&Output::Dial(elsewhere.to_addr())), "{outputs:?}");
    assert_eq!(world.machine.metrics().neighbors_restarted.value(), 1);
}

#[test]
fn a_helper_that_lies_ends_no_link() {
    let mut world = silent(3);
    let (late, nonce) = loop {
        let (id, nonce) = world.next_ping();
        world.answer(id, nonce, RUN);
        if id == super::id(2) {
            break world.next_ping();
        }
    };
    if late != id(2) {
        world.answer(late, nonce, RUN);
    }
    let walk = Message::ForwardJoin { ttl: 6, joiner: peer(2) };
    for lie in 0..50 {
        world.advance(SECOND);
        world.hear(1, walk.clone());
        for (helper, nonce, target) in world.until_helpers() {
            if target != id(2) {
                continue;
            }
            // Another run, or silence: it answers the ping that follows, late as it was.
            let lies = [Outcome::Alive((lie << 32) | 1), Outcome::Silent];
            let outputs = world.report(helper, nonce, lies[lie as usize % 2]);
            for (id, nonce, _) in pings(&outputs) {
                world.answer(id, nonce, RUN);
            }
        }
        let outputs = world.advance(2 * SECOND);
        for (id, nonce, _) in pings(&outputs) {
            world.answer(id, nonce, RUN);
        }
        assert!(world.machine.active.contains(id(2)), "{lie}");
    }
    let metrics = world.machine.metrics();
    assert_eq!((metrics.neighbors_restarted.value(), metrics.neighbors_dead.value()), (0, 0));
}

#[test]
fn false_suspicions_do_not_make_a_node_doubt_itself_for_long() {
    let mut world = World::new();
    world.link(1..=4);
    world.up(50);
    let mut own = 0;
    let mut suspect = |world: &mut World, n, suspected| {
        let outputs = world.hear(n, Message::Ping { nonce: 9, suspected, sample: false });
        if let [Message::Ack { incarnation, .. }] = sent(&outputs, n).as_slice() {
            own = *incarnation;
        }
        own
    };
    let mut known = suspect(&mut world, 50, None);
    for _ in 0..100 {
        assert_eq!(suspect(&mut world, 50, Some(known)), known, "a stranger's word counts nothing");
    }
    assert_eq!(world.machine.liveness.health(), 0);
    let mut worst = 0;
    for _ in 0..600 {
        known = suspect(&mut world, 1, Some(known));
        worst = worst.max(world.machine.liveness.health());
        world.advance(SECOND / 2);
    }
    assert_eq!(worst, 1, "one neighbour's word counts once in a while");
    assert!(world.machine.metrics().refused_suspicions.value() > 600);
}

#[test]
fn a_neighbour_that_a_helper_finds_silent_is_asked_about_in_turn() {
    let mut world = silent(4);
    world.hear(1, Message::PingRequest { nonce: 7, target: id(2), suspected: None });
    let outputs = world.advance(Duration::from_millis(450));
    let report = Message::PingReport { nonce: 7, outcome: Outcome::Silent };
    assert!(sent(&outputs, 1).contains(&&report));
    let about: Vec<_> = requests(&outputs).into_iter().filter(|(.., of)| *of == id(2)).collect();
    assert_eq!(about.len(), 3, "{outputs:?}");
}

#[test]
fn a_false_walk_costs_one_ping_and_no_link() {
    let mut world = World::new();
    world.link(1..=4);
    for _ in 0..100 {
        world.hear(1, Message::ForwardJoin { ttl: 6, joiner: peer(2) });
        world.advance(Duration::from_millis(10));
    }
    assert!(world.machine.active.contains(id(2)));
    assert!(world.machine.metrics().pings.value() <= 3);
}

#[test]
fn this_node_answers_refutes_and_helps() {
    let mut world = World::new();
    world.link(1..=3);
    world.alive = false;
    let ping = |suspected| Message::Ping { nonce: 9, suspected, sample: false };
    let incarnation = |outputs: &[Output], to| match sent(outputs, to).as_slice() {
        [Message::Ack { nonce: 9, incarnation, .. }] => *incarnation,
        other => panic!("an answer: {other:?}"),
    };
    let own = incarnation(&world.hear(1, ping(None)), 1);
    assert_eq!(incarnation(&world.hear(1, ping(Some(own + 1))), 1), own, "nobody knows that");
    assert_eq!(incarnation(&world.hear(1, ping(Some(own))), 1), own + 1);
    assert_eq!(incarnation(&world.hear(2, ping(Some(own))), 2), own + 1, "refuted already");
    assert_eq!(world.machine.metrics().refutations.value(), 1);

    let request = |target| Message::PingRequest { nonce: 40, target: id(target), suspected: None };
    let report = |outcome| Message::PingReport { nonce: 40, outcome };
    let outputs = world.hear(1, request(2));
    let nonce = pings(&outputs)[0].1;
    assert_eq!(world.answer(id(3), nonce, 1), [], "not from another one");
    assert_eq!(sent(&world.answer(id(2), nonce, 77), 1), [&report(Outcome::Alive(77))]);
    world.hear(1, request(2));
    assert!(sent(&world.advance(SECOND), 1).contains(&&report(Outcome::Silent)));
    assert_eq!(sent(&world.hear(1, request(9)), 1), [&report(Outcome::Unknown)]);
    assert_eq!(sent(&world.hear(1, request(1)), 1), [&report(Outcome::Unknown)]);
    world.up(50);
    let outputs = world.hear(50, request(2));
    assert!(pings(&outputs).is_empty(), "only neighbours are helped");
}

#[test]
fn favours_are_few() {
    let mut world = World::new();
    world.link(1..=3);
    world.alive = false;
    for nonce in 0..200 {
        world.hear(1, Message::PingRequest { nonce, target: id(2), suspected: Some(nonce) });
    }
    assert_eq!(world.machine.liveness.len(), (3, MAX_FAVOURS));
    world.advance(SECOND);
    assert_eq!(world.machine.liveness.len().1, 0);
}

#[test]
fn a_session_that_does_not_end_is_used_again() {
    let mut world = silent(1);
    let late = id(1);
    // Nobody delivers the end of the session.
    world.machine.handle(world.now, Input::Path { peer: late, remote: address(1), rtt: SECOND });
    while let Some(at) = world.machine.poll_timeout().filter(|_| !world.machine.active.is_empty()) {
        world.now = at;
        world.machine.handle_timeout(at);
        while world.machine.poll_output().is_some() {}
    }
    let session = |world: &World| world.machine.has_session(late);
    assert!(!session(&world));
    world.machine.handle(world.now, Input::Message { peer: late, message: Message::Join });
    assert!(world.machine.poll_output().is_none(), "not heard");
    world.now = world.now + 6 * SECOND;
    world.machine.handle(world.now, Input::Message { peer: late, message: Message::Join });
    assert!(session(&world) && world.machine.active.contains(late));
}
