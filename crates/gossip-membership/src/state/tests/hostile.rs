//! Peers that lie, flood and push.

use super::*;
use crate::state::dial::Purpose;

fn at(n: u64, addresses: &[&str]) -> Peer {
    Peer::new(id(n), addresses.iter().map(|text| text.parse().expect("an address")))
}

#[test]
fn strangers_cannot_take_the_whole_view_over_in_a_burst() {
    let mut world = World::new();
    world.link(1..=8);
    for n in 100..200 {
        world.up(n);
        world.hear(n, if n % 2 == 0 { Message::Join } else { Message::Neighbor { high: true } });
    }
    let evictions = || world.machine.metrics().demotions.value();
    assert_eq!(evictions(), 2);
    assert!((1..=8).filter(|n| world.machine.active.contains(id(*n))).count() >= 6);
}

#[test]
fn strangers_never_push_out_the_oldest_neighbours_or_those_that_were_dialled() {
    let mut world = World::new();
    world.link(1..=5);
    for n in 6..=8 {
        world.handle(Input::Up { peer: peer(n), path: Scope::Site, dialled: true });
        world.hear(n, Message::Neighbor { high: true });
    }
    for n in 100..200 {
        world.up(n);
        world.hear(n, Message::Neighbor { high: true });
        world.advance(60 * SECOND);
        // Those who had to go do not come back.
        world.dials.clear();
    }
    assert!(world.machine.metrics().demotions.value() >= 50, "one a minute is allowed");
    for n in [1, 2, 6, 7, 8] {
        assert!(world.machine.active.contains(id(n)), "{n}");
    }
}

#[test]
fn a_walk_wins_no_protected_place() {
    let mut world = World::new();
    world.link(1..=7);
    let chosen = |world: &World, n| world.machine.sessions[&id(n)].chosen;
    for (n, own) in [(20, false), (21, true)] {
        if own {
            world.machine.reach(world.now, peer(n), Purpose::Link { urgent: false });
        } else {
            world.hear(1, Message::ForwardJoin { ttl: 0, joiner: peer(n) });
        }
        world.handle(Input::Up { peer: peer(n), path: Scope::Site, dialled: true });
        assert_eq!(chosen(&world, n), own);
    }
}

/// Every dial that is open hangs, as one into a black hole does.
#[test]
fn walks_to_nowhere_occupy_few_dials_and_keep_no_others_out() {
    let mut world = World::new();
    world.link([1]);
    let walks = |world: &mut World, turn: u64| {
        for n in 0..64 {
            let joiner = at(1_000 + turn * 64 + n, &["192.0.2.77:1"]);
            world.hear(1, Message::ForwardJoin { ttl: 0, joiner });
        }
    };
    walks(&mut world, 0);
    let of_walks = |world: &World| world.machine.dials.len() - world.machine.links_dialled();
    assert_eq!(of_walks(&world), MAX_WALK_DIALS);
    for turn in 1..120 {
        world.advance(SECOND);
        walks(&mut world, turn);
        assert!(of_walks(&world) <= MAX_WALK_DIALS);
    }
    let ended = world.machine.metrics().walks_ended.value();
    assert!(ended <= 8 + 120 / 4, "{ended}");
    assert!(world.machine.metrics().refused_walks.value() > 7_000);
    // What walks told of is tried too, but keeps no contact out.
    let start = Input::Start { bootstrap: vec![address(2)], cached: vec![peer(3)] };
    let outputs = world.handle(start);
    assert!(outputs.contains(&Output::Dial(PeerAddr::unknown(address(2)))), "{outputs:?}");
    // Of a peer that was reached before one of those that lead nowhere makes way once it failed.
    let cached = peer(3).to_addr();
    for _ in 0..400 {
        if world.dials.contains(&cached) {
            break;
        }
        let nowhere = world.dials.iter().position(|dial| dial.id.is_some()).expect("a dial");
        let to = world.dials.remove(nowhere);
        world.handle(Input::DialResult { to, result: Err(DialFailure::Unreachable) });
    }
    assert!(world.dials.contains(&cached), "{:?}", world.dials);
    let to = PeerAddr::unknown(address(2));
    world.handle(Input::DialResult { to, result: Ok(id(2)) });
    assert_eq!(sent(&world.up(2), 2), [&Message::Join]);
}

/// Shuffles tell of peers that lead nowhere, as fast as these are tried.
#[test]
fn hearsay_of_nowhere_keeps_no_contact_out() {
    let mut world = World::new();
    world.link([1]);
    world.handle(Input::Start { bootstrap: vec![address(2)], cached: Vec::new() });
    world.dials.clear();
    let to = PeerAddr::unknown(address(2));
    let result = Err(DialFailure::Unreachable);
    world.handle(Input::DialResult { to: to.clone(), result });
    let mut contacted = 0;
    for turn in 0..300 {
        let entry = |n| at(1_000 + turn * 16 + n, &["192.0.2.77:1"]);
        let entries = (0..16).map(entry).collect();
        world.hear(1, Message::Shuffle { id: turn, ttl: 1, entries });
        world.advance(SECOND);
        while let Some(place) = world.dials.iter().position(|dial| *dial == to) {
            world.dials.remove(place);
            contacted += 1;
            world.handle(Input::DialResult { to: to.clone(), result });
        }
    }
    assert!(contacted >= 5, "{contacted}");
}

/// The peers that the walks lead to have sessions, and never answer.
#[test]
fn requests_that_walks_cause_keep_no_others_out() {
    let mut world = World::new();
    world.link([1]);
    for n in 100..110 {
        world.up(n);
        world.hear(1, Message::ForwardJoin { ttl: 0, joiner: peer(n) });
    }
    assert!(world.machine.requests.len() >= 5);
    let outputs = world.handle(Input::Start { bootstrap: vec![address(2)], cached: Vec::new() });
    assert_eq!(outputs, [Output::Dial(PeerAddr::unknown(address(2)))]);
}

#[test]
fn a_link_that_could_not_be_kept_is_not_asked_for() {
    let mut world = World::new();
    for n in 1..=8 {
        world.handle(Input::Up { peer: peer(n), path: Scope::Site, dialled: true });
        world.hear(n, Message::Neighbor { high: true });
    }
    world.up(50);
    let outputs = world.hear(1, Message::ForwardJoin { ttl: 0, joiner: peer(50) });
    assert_eq!(outputs, [], "nobody may make room");
}

#[test]
fn a_peer_names_no_address_nearer_than_itself() {
    let near = ["127.0.0.1:1", "10.0.0.9:1", "100.64.0.1:1", "169.254.169.254:80", "[fd00::1]:1"];
    for (path, kept) in [
        (Scope::Loopback, vec!["127.0.0.1:1", "10.0.0.9:1"]),
        (Scope::Site, vec!["10.0.0.9:1", "100.64.0.1:1"]),
        (Scope::Global, vec![]),
    ] {
        let mut world = World::new();
        world.handle(Input::Up { peer: at(1, &["192.0.2.1:1"]), path, dialled: false });
        world.hear(1, Message::Neighbor { high: true });
        world.hear(1, Message::Shuffle { id: 1, ttl: 1, entries: vec![at(9, &near)] });
        world.hear(1, Message::ForwardJoin { ttl: 0, joiner: at(9, &near) });
        let dialled: Vec<_> = world.dials.iter().filter(|to| to.id == Some(id(9))).collect();
        let expected = at(9, &kept).to_addr();
        let expected: Vec<&PeerAddr> = if kept.is_empty() { vec![] } else { vec![&expected] };
        assert_eq!(dialled, expected, "{path:?}");
        assert!(world.machine.metrics().refused_addresses.value() > 0 || path == Scope::Loopback);
        // What it says of itself is held to the same rule.
        world.handle(Input::Up { peer: at(2, &near), path, dialled: false });
        let own = world.machine.session_peer(id(2));
        assert!(own.addresses().iter().all(|address| path.may_name(*address)), "{own:?}");
    }
}

#[test]
fn bogus_addresses_do_not_keep_a_peers_own_out() {
    let mut world = World::new();
    world.link(1..=6);
    let victims = |first: u8| Peer::new(id(9), (0..8).map(|n| ([192, 0, 2, first + n], 1).into()));
    let tell = |world: &mut World, first| {
        world.hear(1, Message::Shuffle { id: 1, ttl: 1, entries: vec![victims(first)] });
        let known = world.machine.passive().find(|peer| peer.id() == id(9)).cloned();
        known.expect("noted").addresses().to_vec()
    };
    let heard = tell(&mut world, 1);
    assert_eq!(heard, victims(1).addresses()[..2], "two of what is only heard");
    let again = tell(&mut world, 50);
    assert_eq!(again, [victims(1).addresses()[0], victims(50).addresses()[0]]);
    // It comes itself: its own word replaces what was heard, and gossip does not touch it.
    world.up(9);
    assert_eq!(tell(&mut world, 100), peer(9).addresses());
    world.handle(Input::Down(id(9)));
    assert_eq!(tell(&mut world, 150), peer(9).addresses());
    // A walk that names other places is followed there too, but not only.
    let outputs = world.hear(1, Message::ForwardJoin { ttl: 0, joiner: victims(200) });
    let to = peer(9).and_heard(&victims(200)).to_addr();
    assert_eq!((to.addresses[0], to.addresses.len()), (address(9), 3));
    assert_eq!(outputs, [Output::Dial(to)]);
}

#[test]
fn a_false_walk_does_not_make_a_former_neighbour_forgotten() {
    let mut world = World::new();
    world.link(1..=6);
    world.handle(Input::Down(id(2)));
    let outputs = world.hear(1, Message::ForwardJoin { ttl: 0, joiner: at(2, &["192.0.2.1:1"]) });
    let Some(Output::Dial(to)) = outputs.first().cloned() else { panic!("{outputs:?}") };
    assert_eq!(to.addresses[0], address(2));
    world.handle(Input::DialResult { to, result: Err(DialFailure::Unreachable) });
    assert_eq!(world.machine.lost.former(id(2)), Some(&peer(2)));
}

#[test]
fn a_flooding_peer_is_cut_to_its_rate() {
    let mut world = World::new();
    world.link(1..=6);
    let mut outputs = 0;
    for _ in 0..10_000 {
        outputs += world.hear(1, Message::Join).len();
        outputs += world.hear(1, Message::Shuffle { id: 1, ttl: 6, entries: vec![peer(9)] }).len();
    }
    assert!(outputs <= 2 * MESSAGE_BURST as usize, "{outputs}");
    assert!(world.machine.metrics().refused_rate.value() > 19_000);
}

#[test]
fn a_hundred_thousand_hostile_inputs_stay_under_every_cap() {
    let mut world = World { check_every: 256, ..World::new() };
    let mut rng = SeededRng::from_number(9);
    let start = Input::Start {
        bootstrap: (0..1000).map(address).collect(),
        cached: (0..1000).map(peer).collect(),
    };
    world.handle(start);
    for turn in 0..100_000_u64 {
        let n = 1 + rng.below(6000) as u64;
        let entries = || {
            let entry = |k| Peer::new(id(turn * 16 + k), (0..9).map(|a| address(turn + a)));
            (0..MAX_SHUFFLE_ENTRIES as u64).map(entry).collect()
        };
        let id_drawn = rng.next_u64() % 200;
        match rng.below(9) {
            0 if !world.sessions.contains(&id(n)) => drop(world.up(n)),
            1 if rng.chance(0.1) => drop(world.handle(Input::Down(id(n)))),
            2 => drop(world.hear(n, Message::Join)),
            3 => drop(world.hear(n, Message::Neighbor { high: rng.chance(0.5) })),
            4 => drop(world.hear(n, Message::ForwardJoin { ttl: 0, joiner: peer(turn) })),
            5 => drop(world.hear(n, Message::Shuffle { id: id_drawn, ttl: 1, entries: entries() })),
            6 => drop(world.hear(n, Message::ShuffleReply { id: id_drawn, entries: entries() })),
            7 if turn % 64 == 7 => drop(world.advance(Duration::from_millis(rng.range(0, 5000)))),
            _ => {
                if let Some(to) = world.dials.pop() {
                    world.handle(Input::DialResult { to, result: Err(DialFailure::Unreachable) });
                }
            }
        }
    }
    assert!(world.machine.metrics().refused_sessions.value() > 0);
}
