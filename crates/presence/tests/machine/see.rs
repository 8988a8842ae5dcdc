//! Who sees whom.

use x0x_core::Machine;
use x0x_presence::{Input, PresenceConfig, PresenceState::*};

use crate::world::{World, agent, machine, secs};

#[test]
fn a_session_shows_that_an_agent_is_there() {
    let mut world = World::new(2);
    world.link(0, 1);
    assert_eq!((world.state(0, 1), world.state(1, 0)), (Online, Online));
    let status = world.nodes[0].machine.status(&agent(1));
    assert!(status.reachable && status.last_seen >= world.wall());
    world.run(secs(300));
    assert_eq!(world.state(0, 1), Online);
    assert_eq!(world.nodes[0].bytes_out, 0, "neither neighbours nor contacts: no beacons");
    world.unlink(0, 1);
    assert_eq!(world.state(0, 1), Away);
    world.run(secs(11));
    assert_eq!(world.states(0, 1), [Online, Away, Offline]);
    world.link(0, 1);
    assert_eq!(world.state(0, 1), Online);
}

#[test]
fn a_neighbour_passes_on_what_a_watcher_wants() {
    let mut world = World::new(4);
    world.neighbors(0, 1);
    world.neighbors(1, 2);
    world.neighbors(1, 3);
    world.watch(0, [2]);
    world.run(secs(60));
    assert_eq!(world.state(0, 2), Online);
    let status = world.nodes[0].machine.status(&agent(2));
    assert!(!status.reachable && status.machine == Some(machine(2)));
    assert_eq!(world.state(0, 3), Unknown, "nobody asked for it");
    assert_eq!(world.nodes[0].machine.social().len(), 1);
    assert_eq!(world.nodes[0].machine.network().len(), 2);
    world.run(secs(3600));
    assert_eq!(world.states(0, 2), [Online], "for an hour");
}

#[test]
fn the_blocked_see_nothing() {
    for relayed in [false, true] {
        let mut world = World::new(3);
        world.blocks.block(agent(0), agent(2));
        world.neighbors(0, 1);
        if relayed {
            world.neighbors(1, 2);
        } else {
            world.neighbors(0, 2);
        }
        world.watch(0, [2]);
        world.run(secs(300));
        assert_eq!(world.state(0, 2), Unknown, "not even a session shows it");
        let accepted = world.nodes[0].machine.metrics().records_accepted.value();
        assert_eq!(accepted, 1, "only that of node 1");
    }
}

#[test]
fn a_block_and_its_end_show_at_once() {
    let mut world = World::new(2);
    world.neighbors(0, 1);
    world.watch(0, [1]);
    world.run(secs(60));
    world.blocks.block(agent(0), agent(1));
    world.input(0, Input::Reconsider(None));
    assert_eq!(world.state(0, 1), Unknown);
    world.run(secs(20));
    world.blocks.unblock(agent(0), agent(1));
    world.input(0, Input::Reconsider(Some(agent(1))));
    assert_eq!(world.state(0, 1), Online);
    assert_eq!(world.states(0, 1), [Online, Unknown, Online]);
}

#[test]
fn a_session_on_a_machine_that_was_left_is_forgotten_and_not_believed_again() {
    let mut world = World::new(3);
    world.neighbors(0, 1);
    world.neighbors(1, 2);
    world.watch(0, [2]);
    world.run(secs(60));
    assert_eq!(world.state(0, 2), Online);
    world.blocks.doubt(agent(2), machine(2));
    for n in [0, 1] {
        world.input(n, Input::Reconsider(None));
    }
    assert_eq!(world.states(0, 2), [Online, Unknown]);
    world.unlink(1, 2);
    world.link(1, 2);
    world.run(secs(600));
    assert_eq!((world.state(0, 2), world.state(1, 2)), (Unknown, Unknown));
    assert!(world.nodes[1].machine.metrics().refused_machine.value() > 0);
    world.blocks.believe(agent(2), machine(2));
    world.input(1, Input::Reconsider(None));
    assert_eq!(world.state(1, 2), Online, "by the session alone");
    world.run(secs(180));
    assert_eq!(world.state(0, 2), Online);
}

#[test]
fn who_may_not_ask_is_told_nothing_but_what_neighbours_are() {
    let asks = |muted: bool| {
        let mut world = World::new(2);
        if muted {
            world.blocks.mute(agent(0));
        }
        world.link(0, 1);
        world.watch(0, [1]);
        world.run(secs(90));
        let alone = world.nodes[0].machine.metrics().beacons_accepted.value();
        world.neighbors(0, 1);
        world.run(secs(90));
        (alone, world.nodes[0].machine.metrics().beacons_accepted.value() - alone)
    };
    let (open, muted) = (asks(false), asks(true));
    assert!(open.0 >= 2 && open.1 >= 2, "{open:?}");
    assert!(muted.0 == 0 && muted.1 >= 2, "{muted:?}");
}

#[test]
fn an_agent_may_ask_not_to_be_passed_on() {
    let config = PresenceConfig { shared: false, ..PresenceConfig::default() };
    let mut world = World::with(3, &config);
    world.neighbors(0, 1);
    world.neighbors(1, 2);
    world.watch(0, [2]);
    world.run(secs(900));
    assert_eq!((world.state(0, 2), world.state(1, 2)), (Unknown, Online));
}

#[test]
fn a_goodbye_counts_at_once_and_is_passed_on() {
    let mut world = World::new(3);
    world.neighbors(0, 1);
    world.neighbors(1, 2);
    world.watch(0, [2]);
    world.run(secs(60));
    world.input(2, Input::Leave);
    world.run(secs(1));
    assert_eq!((world.state(1, 2), world.state(0, 2)), (Offline, Offline));
}

#[test]
fn a_session_is_renewed_before_it_ends() {
    let config = PresenceConfig { period: secs(5), ..PresenceConfig::default() };
    let mut world = World::with(3, &config);
    world.neighbors(0, 1);
    world.neighbors(1, 2);
    world.watch(0, [2]);
    world.run(secs(60));
    let records = world.nodes[0].machine.metrics().records_accepted.value();
    // The chain of 2880 beacons lasts four hours at this period.
    world.run(secs(5 * 3600));
    assert_eq!(world.states(0, 2), [Online]);
    let renewed = world.nodes[0].machine.metrics().records_accepted.value() - records;
    assert_eq!(renewed, 2, "one new record of either");
}

#[test]
fn contacts_with_sessions_get_beacons_and_strangers_do_not() {
    let mut world = World::new(3);
    world.link(0, 1);
    world.link(0, 2);
    world.watch(0, [1]);
    world.watch(1, [0]);
    world.run(secs(120));
    let accepted = |n: usize| world.nodes[n].machine.metrics().beacons_accepted.value();
    assert!(accepted(0) >= 4 && accepted(1) >= 4);
    assert_eq!(accepted(2), 0);
}

#[test]
fn the_same_inputs_give_the_same_run() {
    let run = || {
        let mut world = World::new(5);
        world.log = Some(Vec::new());
        for n in 1..5 {
            world.neighbors(n - 1, n);
        }
        world.watch(0, [2, 4]);
        world.run(secs(1200));
        let log = world.log.take().expect("kept");
        // Signatures are hedged; everything else repeats.
        log.into_iter().map(|(from, to, frame)| (from, to, frame.len())).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn nothing_is_due_for_ever() {
    let mut world = World::new(2);
    world.neighbors(0, 1);
    world.run(secs(60));
    let machine = &mut world.nodes[0].machine;
    let due = machine.poll_timeout().expect("a beacon");
    machine.handle_timeout(due);
    assert!(machine.poll_timeout().expect("the next") > due);
}
