//! No network has more than its share, and the view grows with the overlay.

use super::*;

fn public(n: u64, network: u8) -> Peer {
    Peer::new(id(n), [SocketAddr::from(([198, 51, network, n as u8], 5483))])
}

fn come(world: &mut World, n: u64, network: u8, message: Message) -> bool {
    let peer = public(n, network);
    let remote = peer.addresses()[0];
    world.handle(Input::Up { peer, path: Scope::Global, dialled: false });
    world.handle(Input::Path { peer: id(n), remote, rtt: SECOND / 20 });
    world.hear(n, message);
    world.machine.active.contains(id(n))
}

#[test]
fn two_of_a_network_are_taken_while_others_are_known() {
    let mut world = World::new();
    world.machine.learn(Tick::ZERO, public(50, 9), Source::Gossip, &[]);
    let high = || Message::Neighbor { high: true };
    assert!(come(&mut world, 1, 1, high()) && come(&mut world, 2, 1, Message::Join));
    // The dial to the one of another network is under way; once it is lost there is nobody else.
    world.machine.learn(Tick::ZERO, public(51, 9), Source::Gossip, &[]);
    world.machine.learn(Tick::ZERO, public(52, 8), Source::Gossip, &[]);
    world.machine.passive.defer(id(52), Tick::ZERO);
    for (n, network) in [(4, 2), (5, 2), (6, 3)] {
        assert!(come(&mut world, n, network, high()), "{n}");
    }
    assert_eq!(world.machine.active.len(), 5);
    for n in 20..40 {
        assert!(!come(&mut world, n, 1, high()), "the network has its share");
    }
    assert_eq!(world.machine.metrics().refused_network.value(), 20);
    assert!(come(&mut world, 7, 4, high()));
    assert_eq!(world.machine.metrics().demotions.value(), 0, "nobody had to go for them");
}

#[test]
fn a_laboratory_in_two_networks_fills_its_views() {
    let mut world = World::new();
    for n in 1..=6 {
        assert!(come(&mut world, n, 1 + n as u8 / 4, Message::Neighbor { high: n < 6 }), "{n}");
    }
    assert!(!come(&mut world, 7, 1, Message::Neighbor { high: false }), "strangers have theirs");
    world.advance(2 * SECOND);
    assert!(world.machine.requests.contains_key(&id(7)), "but it may be picked");
    world.hear(7, reply(true));
    assert!(!come(&mut world, 8, 1, Message::Neighbor { high: true }), "enough of it");
}

#[test]
fn where_a_peers_packets_come_from_counts_not_where_it_says_that_it_listens() {
    let mut world = World::new();
    for n in 1..=5 {
        assert!(come(&mut world, n, n as u8, Message::Neighbor { high: true }));
    }
    let mut taken = 0;
    for n in 10..30 {
        // A network of its own each, if one believes it.
        let peer = public(n, n as u8);
        world.handle(Input::Up { peer, path: Scope::Global, dialled: false });
        let remote = SocketAddr::from(([203, 0, 113, n as u8], 999));
        world.handle(Input::Path { peer: id(n), remote, rtt: SECOND / 20 });
        world.hear(n, Message::Neighbor { high: true });
        taken += usize::from(world.machine.active.contains(id(n)));
    }
    assert_eq!(taken, 1, "of six networks each has one place");
}

#[test]
fn four_networks_do_not_fill_the_view_and_make_room_for_others() {
    let mut world = World::new();
    let high = || Message::Neighbor { high: true };
    for n in 0..200 {
        come(&mut world, 100 + n, 100 + (n % 4) as u8, high());
    }
    let of_crowd = |world: &World| world.machine.active().filter(|peer| *peer >= id(100)).count();
    assert_eq!(of_crowd(&world), 6, "strangers take no more than this");
    // Others come: whoever is beyond the share of its network goes, at once and whatever it cost.
    for n in 1..=8 {
        come(&mut world, n, n as u8, high());
        world.hear(n, Message::Neighbor { high: false });
    }
    assert_eq!((of_crowd(&world), world.machine.active.len()), (4, 6));
    assert_eq!(world.machine.metrics().spread.value(), 2);
    // The two last places are for those that this node picks itself.
    world.advance(10 * SECOND);
    assert_eq!(world.dials.len() + world.machine.requests.len(), 1, "{:?}", world.machine.requests);
}

#[test]
fn a_candidate_of_a_small_network_is_as_likely_as_one_of_a_large_one() {
    let mut picked = [0; 2];
    for seed in 0..100 {
        let mut world = World::new();
        world.machine.rng = SeededRng::from_number(seed);
        for n in 1..=30 {
            world.machine.learn(Tick::ZERO, public(n, 1), Source::Gossip, &[]);
        }
        (31..=36).for_each(|n| world.machine.learn(Tick::ZERO, public(n, 2), Source::Gossip, &[]));
        world.handle(Input::LocalAddresses(vec![]));
        let first = world.dials[0].id.expect("a known peer");
        picked[usize::from(first > id(30))] += 1;
    }
    assert!(picked.iter().all(|count| *count >= 30), "{picked:?}");
}

#[test]
fn a_crowded_candidate_does_not_keep_the_timers_busy() {
    let mut world = World::new();
    for n in 1..=4 {
        assert!(come(&mut world, n, (n / 3) as u8, Message::Neighbor { high: true }));
    }
    for n in 60..90 {
        world.machine.learn(world.now, public(n, 0), Source::Gossip, &[]);
    }
    world.machine.learn(world.now, public(99, 7), Source::Gossip, &[]);
    world.machine.passive.defer(id(99), world.now + 500 * SECOND);
    // `advance` fails when they never rest.
    world.advance(60 * SECOND);
}

#[test]
fn the_target_grows_with_the_overlay_within_bounds() {
    let mut world = World::new();
    assert_eq!(world.machine.target(), 5);
    let mut meet = |count| {
        (0..count).for_each(|n| world.machine.estimate.note(Tick::ZERO, id(n)));
        world.machine.target()
    };
    assert_eq!((meet(100), meet(1000)), (5, 5));
    assert_eq!(meet(30_000), 6);
    assert_eq!(meet(300_000), 7, "and one place is kept for newcomers");
}

#[test]
fn the_book_helps_out_when_the_views_are_empty() {
    let mut world = World::new();
    world.link(1..=6);
    for first in (100..160).step_by(10) {
        let entries = (first..first + 10).map(peer).collect();
        world.hear(1, Message::Shuffle { id: first, ttl: 1, entries });
    }
    let (_, hearsay) = world.machine.book.len();
    assert!(hearsay >= 40, "{hearsay}");
    assert_eq!(world.machine.passive.len(), 48);
    let (mut now_down, mut tried) = (1..=6, BTreeSet::new());
    for _ in 0..200 {
        if let Some(n) = now_down.next() {
            world.handle(Input::Down(id(n)));
        }
        while let Some(to) = world.dials.pop() {
            tried.insert(to.id.expect("a known peer"));
            world.handle(Input::DialResult { to, result: Err(DialFailure::Unreachable) });
        }
        world.advance(SECOND / 10);
    }
    assert!(tried.len() > 48, "{} peers were tried", tried.len());
}

#[test]
fn a_peer_reached_before_shows_whether_the_overlay_is_whole() {
    for (knows, joins) in [(3, false), (77, true)] {
        let mut world = World::new();
        world.link(1..=5);
        world.handle(Input::Up { peer: peer(9), path: Scope::Site, dialled: true });
        world.handle(Input::Down(id(9)));
        world.alive = false;
        let mut outputs = Vec::new();
        while world.dials.is_empty() {
            outputs.extend(world.advance(SECOND));
            for (to, nonce) in asked(&outputs, false) {
                let message = Message::Ack { nonce, incarnation: 0, entries: Vec::new() };
                world.handle(Input::Message { peer: to, message });
            }
            outputs.clear();
            assert!(world.now < Tick::ZERO + 80 * SECOND, "one a minute");
        }
        let to = world.dials.pop().expect("a dial");
        assert_eq!(to.id, Some(id(9)));
        let outputs = world.up(9);
        let (asked, nonce) = asked(&outputs, true)[0];
        let entries = vec![peer(knows), peer(9)];
        let answer = Message::Ack { nonce, incarnation: 0, entries };
        let outputs = world.handle(Input::Message { peer: asked, message: answer.clone() });
        let request = Message::Neighbor { high: false };
        assert_eq!(sent(&outputs, 9).contains(&&request), joins, "{outputs:?}");
        let outputs = world.handle(Input::Message { peer: asked, message: answer });
        assert!(sent(&outputs, 9).is_empty(), "once");
    }
}

fn asked(outputs: &[Output], whom: bool) -> Vec<(MachineId, u64)> {
    let ping = |output: &Output| match output {
        Output::Send { to, message: Message::Ping { nonce, sample, .. } } if *sample == whom => {
            Some((*to, *nonce))
        }
        _ => None,
    };
    outputs.iter().filter_map(ping).collect()
}
