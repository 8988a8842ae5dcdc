//! When a node announces.

use std::net::Ipv4Addr;

use proptest::prelude::*;
use x0x_core::UserId;

use super::*;

fn machine() -> Discoverer {
    Discoverer::new(Tick::ZERO, [1; 32], DiscoveryConfig::default())
}

/// Runs to the next due time and reports the announcement's result.
fn step(machine: &mut Discoverer, result: Input) -> Tick {
    let at = machine.poll_timeout().expect("scheduled");
    machine.handle_timeout(at);
    assert_eq!(machine.poll_output(), Some(Output::Announce));
    assert_eq!(machine.poll_output(), None, "once");
    assert_eq!(machine.poll_timeout(), None, "nothing before the result is known");
    machine.handle(at, result);
    at
}

fn secs(tick: Tick) -> f64 {
    tick.since(Tick::ZERO).as_secs_f64()
}

#[test]
fn announces_at_start_soon_again_then_at_every_heartbeat() {
    let mut machine = machine();
    assert_eq!(machine.poll_timeout(), Some(Tick::ZERO));
    assert!(secs(step(&mut machine, Input::Published)) < 0.001);
    let second = step(&mut machine, Input::Published);
    assert!((3.0..=4.0).contains(&secs(second)), "{second:?}");
    let mut last = second;
    for _ in 0..50 {
        let next = step(&mut machine, Input::Published);
        assert!((270.0..=330.0).contains(&(next - last).as_secs_f64()), "{next:?}");
        last = next;
    }
}

#[test]
fn nothing_is_due_early() {
    let mut machine = machine();
    step(&mut machine, Input::Published);
    machine.handle_timeout(Tick::from_millis(2999));
    assert_eq!(machine.poll_output(), None);
}

#[test]
fn a_failure_is_retried_with_growing_pauses() {
    let mut machine = machine();
    let mut last = step(&mut machine, Input::PublishFailed);
    let mut pauses = Vec::new();
    for _ in 0..10 {
        let next = step(&mut machine, Input::PublishFailed);
        pauses.push((next - last).as_secs_f64());
        last = next;
    }
    assert!((1.0..=1.5).contains(&pauses[0]), "{pauses:?}");
    assert!((60.0..=90.0).contains(&pauses[9]), "{pauses:?}");
    // The first that is published is still repeated.
    let published = step(&mut machine, Input::Published);
    let repeated = step(&mut machine, Input::Published);
    assert!((repeated - published).as_secs_f64() <= 4.0);
}

#[test]
fn the_owner_is_served_at_once_but_not_in_a_loop() {
    let mut machine = machine();
    step(&mut machine, Input::Published);
    let at = Tick::from_millis(2000);
    machine.handle(at, Input::Announce);
    assert_eq!(machine.poll_output(), Some(Output::Announce));
    // Asked again while it is on its way, and right after.
    machine.handle(at, Input::Announce);
    assert_eq!(machine.poll_output(), None);
    machine.handle(at, Input::Published);
    assert_eq!(machine.poll_timeout(), Some(at + MIN_ANNOUNCE_INTERVAL));
    machine.handle(Tick::from_millis(2500), Input::Announce);
    assert_eq!(machine.poll_output(), None);
    assert_eq!(machine.poll_timeout(), Some(Tick::from_millis(3000)));
}

#[test]
fn stamps_grow_when_the_clock_goes_back() {
    let mut machine = machine();
    let at = WallTime::from_millis;
    let stamps = [at(1000), at(500), at(500), at(2000)].map(|wall| machine.next_stamp(wall));
    assert!(stamps.is_sorted() && stamps.windows(2).all(|pair| pair[0] < pair[1]), "{stamps:?}");
    assert_eq!(stamps[3].announced_at, at(2000));
}

#[test]
fn useless_addresses_are_dropped() {
    let mut machine = machine();
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let lan = SocketAddr::from(([10, 0, 0, 1], 1));
    let (agent, machine_id) = (AgentId::new([1; 32]), MachineId::new([2; 32]));
    let news = Announcement {
        agent,
        machine: machine_id,
        user: Some(UserId::new([3; 32])),
        addresses: vec![local, lan, lan],
        stamp: Stamp { announced_at: WallTime::from_millis(5), counter: 1 },
    };
    let wall = WallTime::from_millis(5);
    let result = machine.announced(Tick::ZERO, wall, news.clone(), &[lan]);
    assert_eq!(result, (Outcome::Kept, 2));
    assert_eq!(machine.cache().agent(&agent).expect("known").addresses, [lan]);

    let elsewhere = Announcement { agent: AgentId::new([5; 32]), ..news };
    assert_eq!(machine.announced(Tick::ZERO, wall, elsewhere, &[]), (Outcome::Kept, 3));

    let other = AgentId::new([4; 32]);
    let wall = WallTime::from_millis(6);
    let addresses = vec![local];
    machine.handle(
        Tick::ZERO,
        Input::Met { wall, agents: vec![other], machine: machine_id, addresses },
    );
    assert!(machine.cache().agent(&other).expect("known").addresses.is_empty());
}

proptest! {
    #[test]
    fn announcements_keep_their_distance(
        steps in prop::collection::vec((0_u64..2_000, 0_u8..3), 1..200),
    ) {
        let mut machine = machine();
        let mut now = Tick::ZERO;
        let mut announced: Vec<Tick> = Vec::new();
        let mut on_its_way = false;
        for (pause, what) in steps {
            now = now + Duration::from_millis(pause);
            match what {
                0 => machine.handle(now, Input::Announce),
                1 if on_its_way => {
                    machine.handle(now, Input::Published);
                    on_its_way = false;
                }
                2 if on_its_way => {
                    machine.handle(now, Input::PublishFailed);
                    on_its_way = false;
                }
                _ => {}
            }
            machine.handle_timeout(now);
            while machine.poll_output().is_some() {
                prop_assert!(!on_its_way, "one at a time");
                on_its_way = true;
                announced.push(now);
            }
            prop_assert_eq!(machine.poll_timeout().is_none(), on_its_way);
        }
        prop_assert!(announced.windows(2).all(|pair| pair[1] - pair[0] >= MIN_ANNOUNCE_INTERVAL));
    }
}
