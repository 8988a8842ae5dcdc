//! What machines sign of themselves.

use x0x_core::WallTime;
use x0x_transport::{ReachClass, SignedRecord, testing};

use super::*;
use crate::peer::Hint;

const NOW: WallTime = testing::EPOCH;

fn signed(n: u64, reach: ReachClass, second: u64) -> SignedRecord {
    testing::record(n, reach, NOW + second as u32 * SECOND)
}

/// Links with the `n`-th test machine, which says in its session that it listens at `at`.
fn link(world: &mut World, n: u64, at: SocketAddr) -> Vec<Output> {
    let peer = Peer::new(testing::machine(n), [at]);
    world.handle(Input::Up { peer, path: Scope::Site, dialled: false });
    tell(world, n, Message::Neighbor { high: true })
}

fn tell(world: &mut World, n: u64, message: Message) -> Vec<Output> {
    world.handle(Input::Message { peer: testing::machine(n), message })
}

fn told(world: &World, n: u64) -> Peer {
    world.machine.session_peer(testing::machine(n))
}

#[test]
fn a_new_neighbour_gets_the_record_and_later_ones() {
    let mut world = World::new();
    world.machine.local = testing::machine(1);
    let first = signed(1, ReachClass::Public, 0);
    world.handle(Input::Record(first.clone()));
    let outputs = link(&mut world, 2, address(2));
    let to = testing::machine(2);
    assert!(outputs.contains(&Output::Send { to, message: Message::Record(first.clone()) }));
    assert_eq!(world.handle(Input::Record(first)), [], "it is no other one");
    assert_eq!(world.handle(Input::Record(signed(9, ReachClass::Public, 5))), [], "not its own");
    let second = signed(1, ReachClass::Unknown, 9);
    let outputs = world.handle(Input::Record(second.clone()));
    assert_eq!(outputs, [Output::Send { to, message: Message::Record(second.clone()) }]);
    // What is told of this node in shuffles names it.
    world.handle(Input::LocalAddresses(vec![address(1)]));
    assert_eq!(world.machine.own_entry().hint(), Hint::of(&second));
}

#[test]
fn the_newest_record_counts_and_goes_before_the_session_hello() {
    let mut world = World::new();
    link(&mut world, 2, address(900));
    tell(&mut world, 2, Message::Record(signed(2, ReachClass::Public, 5)));
    assert_eq!(told(&world, 2).addresses(), [testing::address(2), address(900)]);
    assert_eq!(told(&world, 2).hint().reach, ReachClass::Public);
    tell(&mut world, 2, Message::Record(signed(2, ReachClass::Punchable, 4)));
    tell(&mut world, 2, Message::Record(signed(3, ReachClass::Punchable, 9)));
    assert_eq!(told(&world, 2).hint().reach, ReachClass::Public);
    assert_eq!(world.machine.metrics().refused_records.value(), 2, "an old one, another's");
    let record = world.machine.record(testing::machine(2)).expect("known").clone();
    // Shuffles tell of it.
    let outputs = {
        link(&mut world, 4, address(4));
        tell(&mut world, 4, Message::Shuffle { id: 1, ttl: 1, entries: vec![] })
    };
    let hint = outputs.iter().find_map(|output| match output {
        Output::Send { message: Message::ShuffleReply { entries, .. }, .. } => {
            entries.iter().find(|peer| peer.id() == testing::machine(2)).map(Peer::hint)
        }
        _ => None,
    });
    assert_eq!(hint, Some(Hint::of(&record)));
}

#[test]
fn half_a_view_at_most_hangs_on_relays() {
    let mut world = World::new();
    for n in 1..=8 {
        let peer = Peer::new(testing::machine(n), [address(n)])
            .with_hint(Hint::new(ReachClass::RelayOnly, None));
        world.handle(Input::Up { peer, path: Scope::Site, dialled: false });
        tell(&mut world, n, Message::Neighbor { high: true });
    }
    assert_eq!(world.machine.active.len(), 4);
    link(&mut world, 9, address(9));
    assert_eq!(world.machine.active.len(), 5, "another one is welcome");
}

#[test]
fn records_are_few_and_those_of_neighbours_stay() {
    let mut world = World::new();
    for n in 1..=3 {
        link(&mut world, n, address(n));
        tell(&mut world, n, Message::Record(signed(n, ReachClass::Public, 0)));
    }
    for n in 10..80 {
        let peer = Peer::new(testing::machine(n), [address(n)]);
        world.handle(Input::Up { peer, path: Scope::Site, dialled: false });
        tell(&mut world, n, Message::Record(signed(n, ReachClass::Public, n)));
        world.handle(Input::Down(testing::machine(n)));
    }
    assert_eq!(world.machine.records.len(), MAX_RECORDS);
    assert!((1..=3).all(|n| world.machine.record(testing::machine(n)).is_some()));
}
