//! How soon an end is seen, and that a stall is none.

use proptest::prelude::*;
use x0x_presence::PresenceState::{Offline, Online};

use crate::world::{World, agent, secs};

/// The transport notices a dead peer within 15 s; then it may come back for 10 s.
const BOUND_WITH_SESSION: u64 = 25;
/// Four periods and the delays of who passes beacons on.
const BOUND_RELAYED: u64 = 4 * 30 + 2 * 5 + 1;

#[test]
fn a_killed_agent_is_seen_offline_within_the_bounds() {
    for after in [61, 75, 600] {
        let mut world = World::new(3);
        world.neighbors(0, 1);
        world.neighbors(1, 2);
        world.watch(0, [2]);
        world.run(secs(after));
        let killed = world.now;
        world.kill(2);
        world.run(secs(300));
        let near = world.first(1, 2, Offline).expect("seen by its neighbour").since(killed);
        assert!(near <= secs(BOUND_WITH_SESSION), "{near:?}");
        let far = world.first(0, 2, Offline).expect("seen from afar").since(killed);
        assert!(far <= secs(BOUND_RELAYED), "{far:?}");
        assert_eq!((world.state(0, 2), world.state(1, 2)), (Offline, Offline));
    }
}

#[test]
fn a_restart_within_the_grace_is_no_end() {
    let mut world = World::new(2);
    world.neighbors(0, 1);
    world.run(secs(60));
    world.unlink(0, 1);
    world.run(secs(9));
    world.link(0, 1);
    world.run(secs(300));
    assert!(!world.states(0, 1).contains(&Offline), "{:?}", world.states(0, 1));
    assert_eq!(world.state(0, 1), Online);
}

#[test]
fn a_node_that_slept_blames_nobody() {
    let mut world = World::new(3);
    world.neighbors(0, 1);
    world.neighbors(1, 2);
    world.watch(0, [2]);
    world.run(secs(100));
    world.sleep(0, secs(600));
    world.run(secs(700));
    assert!(!world.states(0, 2).contains(&Offline), "{:?}", world.states(0, 2));
    assert_eq!(world.state(0, 2), Online);
}

#[test]
fn who_seems_gone_is_asked_after_first() {
    let mut world = World::new(3);
    world.neighbors(0, 1);
    world.neighbors(1, 2);
    world.watch(0, [2]);
    world.run(secs(100));
    assert_eq!((world.state(0, 2), world.nodes[0].suspects.len()), (Online, 0));
    // Nobody is left who tells of it.
    world.kill(1);
    world.run(secs(75));
    assert_eq!(world.nodes[0].suspects, [agent(2)]);
    world.link(0, 2);
    world.run(secs(120));
    assert_eq!(world.state(0, 2), Online);
    assert!(!world.states(0, 2).contains(&Offline), "{:?}", world.states(0, 2));
    // Asked after in vain it does not stay for long.
    world.kill(2);
    world.run(secs(40));
    assert_eq!((world.state(0, 2), world.nodes[0].suspects.len()), (Offline, 2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Any of three nodes in a row stalls for up to 5 s, again and again, for ten minutes.
    #[test]
    fn stalls_of_five_seconds_are_no_end(
        stalls in proptest::collection::vec((0_usize..3, 0_u64..40_000, 0_u64..=5_000), 1..40),
    ) {
        let mut world = World::new(3);
        world.neighbors(0, 1);
        world.neighbors(1, 2);
        world.watch(0, [2]);
        world.watch(2, [0]);
        world.run(secs(60));
        let end = world.now + secs(600);
        for (node, pause, stall) in stalls {
            world.run(std::time::Duration::from_millis(pause));
            world.sleep(node, std::time::Duration::from_millis(stall));
        }
        world.run(end.since(world.now));
        for (viewer, subject) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
            let states = world.states(viewer, subject);
            prop_assert!(!states.contains(&Offline), "{viewer} of {subject}: {states:?}");
        }
    }
}
