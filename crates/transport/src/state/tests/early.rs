//! Sessions that begin before the arbiter has taken them.

use super::*;

/// A dialled link to the arbiter, with its hello.
fn early(bench: &mut Bench) -> LinkId {
    let (request, outputs) = bench.connect(known(GREATER, &[10]));
    let (link, _) = bench.reach(dials(&outputs)[0].0, GREATER, 10);
    let outputs = bench.give(Input::Hello { link, hello: hello(1) });
    assert!(matches!(&outputs[0], Output::Up(up) if up.early && up.link == link), "{outputs:?}");
    assert_eq!(outputs[1..], [Output::Connected { request, peer: GREATER }]);
    link
}

fn accepted(bench: &mut Bench, instance: u8) -> LinkId {
    let (link, _) = bench.accept(GREATER);
    assert_eq!(bench.give(Input::Hello { link, hello: hello(instance) }), []);
    link
}

#[test]
fn the_arbiter_takes_it() {
    let mut bench = Bench::new();
    let link = early(&mut bench);
    let (request, outputs) = bench.connect(known(GREATER, &[11]));
    assert_eq!(outputs, [Output::Connected { request, peer: GREATER }]);
    let outputs = bench.give(Input::Keep { link, number: 7 });
    assert_eq!(outputs, [Output::Taken { link, peer: GREATER }]);
    assert_eq!(bench.machine.poll_timeout(), None, "the dial is over");
    let outputs = bench.give(Input::Keep { link, number: 7 });
    assert_eq!(outputs[1], closes(link, CloseCode::Misbehaved), "once");
}

#[test]
fn it_moves_to_the_link_that_the_arbiter_takes() {
    for closed_first in [false, true] {
        let mut bench = Bench::new();
        let from = early(&mut bench);
        let to = accepted(&mut bench, 1);
        if closed_first {
            assert_eq!(bench.close(from, LinkClosed::Peer(CloseCode::Duplicate)), [], "it waits");
            assert!(bench.pass(Duration::from_secs(3)).is_empty());
        }
        let outputs = bench.give(Input::Keep { link: to, number: 1 });
        let (side, peer) = (Side::Acceptor, GREATER);
        assert_eq!(outputs[0], Output::Moved { from, to, side, peer });
        let closed = [closes(from, CloseCode::Duplicate)];
        assert_eq!(outputs[1..], closed[usize::from(closed_first)..]);
        assert!(bench.pass(Duration::from_secs(20)).is_empty(), "the dial is over");
        assert_eq!(bench.machine.sessions[&GREATER].link, to);
        let metrics = &bench.machine.metrics;
        assert_eq!((metrics.sessions_opened.value(), metrics.sessions.value()), (1, 1));
        assert_eq!(metrics.sessions_moved_early.value(), 1);
    }
}

#[test]
fn the_other_link_may_be_known_later() {
    let mut bench = Bench::new();
    let from = early(&mut bench);
    assert_eq!(bench.close(from, LinkClosed::Peer(CloseCode::Duplicate)), []);
    let to = accepted(&mut bench, 1);
    let outputs = bench.give(Input::Keep { link: to, number: 1 });
    assert!(matches!(outputs[..], [Output::Moved { .. }]), "{outputs:?}");
}

#[test]
fn without_another_link_it_is_replaced_or_ends() {
    for replaced in [true, false] {
        let mut bench = Bench::new();
        let first = early(&mut bench);
        bench.close(first, LinkClosed::Peer(CloseCode::Duplicate));
        let outputs = bench.pass(Duration::from_secs(1));
        let (link, outputs) = bench.reach(dials(&outputs)[0].0, GREATER, 10);
        assert_eq!(outputs, [Output::SendHello { link, replace: true }]);
        assert_eq!(bench.give(Input::Hello { link, hello: hello(1) }), []);
        let down = Output::Down { link: first, peer: GREATER };
        if replaced {
            // The arbiter may have had the first one: what was sent there is not sent again.
            let outputs = bench.give(Input::Keep { link, number: 3 });
            assert_eq!(outputs[0], down);
            assert!(matches!(&outputs[1], Output::Up(up) if !up.early), "{outputs:?}");
        } else {
            let outputs = bench.close(link, LinkClosed::Peer(CloseCode::Duplicate));
            assert_eq!(outputs, [down]);
            assert!(bench.machine.sessions.is_empty());
        }
    }
}

#[test]
fn a_restarted_arbiter_knows_nothing_of_it() {
    let mut bench = Bench::new();
    let from = early(&mut bench);
    let to = accepted(&mut bench, 2);
    let outputs = bench.give(Input::Keep { link: to, number: 1 });
    assert_eq!(outputs[0], Output::Down { link: from, peer: GREATER });
    assert!(matches!(&outputs[2], Output::Up(up) if up.link == to), "{outputs:?}");
}

#[test]
fn beside_another_link_nothing_begins_early() {
    let mut bench = Bench::new();
    let other = accepted(&mut bench, 1);
    let (_, outputs) = bench.connect(known(GREATER, &[10]));
    let (link, _) = bench.reach(dials(&outputs)[0].0, GREATER, 10);
    assert_eq!(bench.give(Input::Hello { link, hello: hello(1) }), []);
    bench.give(Input::Keep { link: other, number: 1 });
    assert_eq!(bench.machine.sessions[&GREATER].link, other);
}

#[test]
fn one_that_is_not_taken_in_time_ends() {
    let mut bench = Bench::new();
    let link = early(&mut bench);
    let outputs = bench.pass(Duration::from_secs(6));
    assert_eq!(
        outputs[..2],
        [Output::Down { link, peer: GREATER }, closes(link, CloseCode::Timeout),]
    );
    assert_eq!(bench.machine.metrics.links_timed_out.value(), 1);
}

#[test]
fn one_that_is_not_wanted_is_not_dialled_again() {
    for waits in [false, true] {
        let mut bench = Bench::new();
        let link = early(&mut bench);
        if waits {
            bench.close(link, LinkClosed::Peer(CloseCode::Duplicate));
        }
        let outputs = bench.give(Input::Disconnect(GREATER, CloseCode::Disconnected));
        assert_eq!(outputs[0], Output::Down { link, peer: GREATER });
        assert_eq!(outputs.len(), if waits { 1 } else { 2 });
        assert!(bench.pass(Duration::from_secs(60)).is_empty());
    }
    let mut bench = Bench::new();
    let link = early(&mut bench);
    bench.close(link, LinkClosed::Peer(CloseCode::Duplicate));
    let outputs = bench.give(Input::Shutdown);
    assert_eq!(outputs, [Output::Down { link, peer: GREATER }]);
}
