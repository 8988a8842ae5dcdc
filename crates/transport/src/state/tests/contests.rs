//! Keeps, replacements and dials that cross each other.

use super::*;

#[test]
fn a_late_keep_does_not_end_the_later_session() {
    let mut bench = Bench::new();
    let (first, _) = bench.accept(GREATER);
    let (second, _) = bench.accept(GREATER);
    for link in [first, second] {
        bench.give(Input::Hello { link, hello: hello(1) });
    }
    bench.give(Input::Keep { link: second, number: 8 });
    let outputs = bench.give(Input::Keep { link: first, number: 7 });
    assert_eq!(outputs, [closes(first, CloseCode::Duplicate)]);
    assert_eq!(bench.machine.sessions[&GREATER].link, second);
    // The numbers decide, not the order in which the links came up here.
    let mut bench = Bench::new();
    let (older, _) = bench.accept(GREATER);
    let newer = bench.session(GREATER, 1);
    bench.give(Input::Hello { link: older, hello: hello(1) });
    let outputs = bench.give(Input::Keep { link: older, number: 2 });
    assert_eq!(outputs[1], closes(newer, CloseCode::Duplicate));
    // A restarted arbiter counts afresh.
    let (restarted, _) = bench.accept(GREATER);
    bench.give(Input::Hello { link: restarted, hello: hello(2) });
    let outputs = bench.give(Input::Keep { link: restarted, number: 1 });
    assert_eq!(outputs[0], Output::Down { link: older, peer: GREATER });
}

#[test]
fn a_refused_dialler_does_not_replace_a_session_that_may_come() {
    let mut bench = Bench::new();
    let (kept, _) = bench.accept(GREATER);
    let (request, outputs) = bench.connect(known(GREATER, &[10]));
    let (link, _) = bench.reach(dials(&outputs)[0].0, GREATER, 10);
    bench.close(link, LinkClosed::Peer(CloseCode::Duplicate));
    assert!(bench.pass(Duration::from_secs(5)).is_empty(), "its keep may be on the way");
    bench.give(Input::Hello { link: kept, hello: hello(1) });
    let outputs = bench.give(Input::Keep { link: kept, number: 1 });
    assert_eq!(outputs.last(), Some(&Output::Connected { request, peer: GREATER }));
    assert_eq!(bench.machine.metrics.dials_replacing.value(), 0);
}

#[test]
fn the_replacement_is_asked_for_once_no_link_is_left() {
    let mut bench = Bench::new();
    let (kept, _) = bench.accept(GREATER);
    let (_, outputs) = bench.connect(known(GREATER, &[10]));
    let (link, _) = bench.reach(dials(&outputs)[0].0, GREATER, 10);
    bench.close(link, LinkClosed::Peer(CloseCode::Duplicate));
    bench.pass(Duration::from_millis(500));
    bench.close(kept, LinkClosed::TimedOut);
    let again = dials(&bench.pass(Duration::from_millis(500)));
    // A link comes up while that dial is on its way: again nothing is replaced.
    let (crossing, _) = bench.accept(GREATER);
    let (link, outputs) = bench.reach(again[0].0, GREATER, 10);
    assert_eq!(outputs, [Output::SendHello { link, replace: false }]);
    bench.close(link, LinkClosed::Peer(CloseCode::Duplicate));
    bench.close(crossing, LinkClosed::TimedOut);
    let again = dials(&bench.pass(Duration::from_secs(1)));
    let (link, outputs) = bench.reach(again[0].0, GREATER, 10);
    assert_eq!(outputs, [Output::SendHello { link, replace: true }]);
}

#[test]
fn machines_with_one_key_do_not_replace_each_other_for_ever() {
    let mut bench = Bench::new();
    let mut dialled = 0;
    let end = Tick::ZERO + Duration::from_secs(600);
    let mut link = bench.session(GREATER, 1);
    while bench.now < end {
        bench.pass(Duration::from_millis(300));
        let outputs = bench.close(link, LinkClosed::Peer(CloseCode::Duplicate));
        assert!(matches!(outputs[0], Output::Down { .. }));
        if dialled > 0 {
            let (_, outputs) = bench.connect(known(GREATER, &[900]));
            assert!(matches!(failure(&outputs), Some(DialError::BackingOff { .. })));
        }
        let attempt = loop {
            let due = bench.machine.poll_timeout().expect("it is tried again");
            if let Some((attempt, _)) = dials(&bench.pass(due.since(bench.now))).first() {
                break *attempt;
            }
        };
        dialled += 1;
        link = bench.reach(attempt, GREATER, 900).0;
        bench.give(Input::Hello { link, hello: hello(1) });
        bench.give(Input::Keep { link, number: dialled + 1 });
    }
    assert!((5..=14).contains(&dialled), "{dialled} times in ten minutes");
    // A session that settles ends the contest.
    bench.pass(Duration::from_secs(60));
    bench.close(link, LinkClosed::Peer(CloseCode::Duplicate));
    assert_eq!(dials(&bench.pass(Duration::from_secs(3))).len(), 1);
}

#[test]
fn joining_a_dial_does_not_bypass_the_back_off() {
    let mut bench = Bench::new();
    let (_, outputs) = bench.connect(known(GREATER, &[10]));
    bench.give(Input::Dialled { attempt: dials(&outputs)[0].0, result: Err(DialError::Timeout) });
    let (_, outputs) = bench.connect(known(GREATER, &[11]));
    assert_eq!(dials(&outputs)[0].1, address(11));
    bench.connect(known(GREATER, &[10, 12]));
    let outputs = bench
        .give(Input::Dialled { attempt: dials(&outputs)[0].0, result: Err(DialError::Timeout) });
    let tried: Vec<_> = dials(&outputs).into_iter().map(|dial| dial.1).collect();
    assert_eq!(tried, [address(12)]);
}
