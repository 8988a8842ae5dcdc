//! Sessions that nobody uses.

use super::*;

fn peer(n: u8) -> MachineId {
    MachineId::new([n; 32])
}

/// A machine with sessions of peers 6, 7 and so on, one a second.
fn bench(sessions: u8, change: impl Fn(&mut SessionConfig)) -> (Bench, Vec<LinkId>) {
    let mut bench = Bench::new();
    change(&mut bench.machine.config);
    let open = |n| {
        bench.pass(Duration::from_secs(1));
        bench.session(peer(6 + n), 1)
    };
    let links = (0..sessions).map(open).collect();
    (bench, links)
}

fn usage(bench: &Bench, n: u8, held: bool) -> Usage {
    Usage { peer: peer(n), used: bench.now, held }
}

#[test]
fn the_longest_idle_sessions_beyond_the_soft_cap_are_closed() {
    let (mut bench, links) = bench(6, |config| config.idle_soft_cap = 2);
    bench.pass(Duration::from_secs(26));
    assert_eq!(bench.give(Input::Usage(vec![])), [], "two are idle, and may be");
    bench.pass(Duration::from_secs(1));
    let outputs = bench.give(Input::Usage(vec![]));
    let ended = |place: usize| {
        let down = Output::Down { link: links[place], peer: peer(6 + place as u8) };
        [down, closes(links[place], CloseCode::Disconnected)]
    };
    assert_eq!(outputs, ended(0), "the first of three");
    // Of the others, one is held and one was used: two are left to lie idle.
    bench.pass(Duration::from_secs(60));
    let told = vec![usage(&bench, 7, true), usage(&bench, 9, false)];
    assert_eq!(bench.give(Input::Usage(told)), ended(2), "8, 10 and 11 are idle");
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.give(Input::Usage(vec![])), ended(4), "that of 9 was used since");
    assert_eq!(bench.machine.metrics.sessions_idle_closed.value(), 3);
    assert_eq!(bench.machine.poll_timeout(), None, "none is reopened");
}

#[test]
fn an_idle_session_makes_room_for_a_newcomer_and_others_do_not() {
    let (mut bench, links) = bench(2, |config| config.max_sessions = 2);
    let (link, _) = bench.accept(LESSER);
    let outputs = bench.give(Input::Hello { link, hello: hello(1) });
    assert_eq!(outputs, [closes(link, CloseCode::Limit)], "both were used lately");
    bench.pass(Duration::from_secs(60));
    let held = usage(&bench, 6, true);
    bench.give(Input::Usage(vec![held]));
    let (link, _) = bench.accept(LESSER);
    let outputs = bench.give(Input::Hello { link, hello: hello(1) });
    assert_eq!(outputs[0], Output::Down { link: links[1], peer: peer(7) });
    assert_eq!(outputs[1], closes(links[1], CloseCode::Disconnected));
    assert!(outputs.iter().any(|output| matches!(output, Output::Up(up) if up.link == link)));
    assert_eq!(bench.machine.metrics.sessions_evicted.value(), 1);
    let held = [6, 1].map(|n| usage(&bench, n, true));
    bench.give(Input::Usage(held.to_vec()));
    let (_, outputs) = bench.connect(known(GREATER, &[10]));
    assert!(matches!(failure(&outputs), Some(DialError::Limit { what: "sessions", max: 2 })));
}

#[test]
fn a_dial_takes_the_place_of_an_idle_session() {
    let (mut bench, _) = bench(2, |config| config.max_sessions = 2);
    bench.pass(Duration::from_secs(60));
    let (_, outputs) = bench.connect(known(LESSER, &[10]));
    assert_eq!(dials(&outputs).len(), 1, "{outputs:?}");
}

#[test]
fn a_network_at_its_limit_gives_up_its_own_idle_sessions() {
    let (mut bench, _) = bench(1, |config| config.max_sessions_per_network = 2);
    let open = |bench: &mut Bench, n: u8, host: u8| {
        let at = SocketAddr::from(([198, 51, 100, host], 4000));
        let (link, _) = bench.accept_from(peer(n), at);
        bench.give(Input::Hello { link, hello: hello(1) });
        bench.give(Input::Keep { link, number: 1 })
    };
    let up = |outputs: &[Output]| outputs.iter().any(|output| matches!(output, Output::Up(_)));
    assert!(up(&open(&mut bench, 20, 1)) && up(&open(&mut bench, 21, 2)));
    assert!(!up(&open(&mut bench, 22, 3)));
    bench.pass(Duration::from_secs(60));
    let outputs = open(&mut bench, 22, 3);
    let downs: Vec<_> = outputs.iter().filter(|o| matches!(o, Output::Down { .. })).collect();
    assert!(matches!(downs[..], [Output::Down { peer: evicted, .. }] if *evicted == peer(20)));
    assert!(up(&outputs) && bench.machine.sessions.contains_key(&peer(6)));
}
