//! Dials by streams of packets.

use super::*;
use crate::sock::table::streamed_address;

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.machine = bench.machine.with_streams();
    bench
}

fn streams(outputs: &[Output]) -> Vec<(AttemptId, SocketAddr)> {
    let dial = |output: &Output| match output {
        Output::Dial { attempt, address, by: Means::Stream, .. } => Some((*attempt, *address)),
        _ => None,
    };
    outputs.iter().filter_map(dial).collect()
}

fn far(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 443))
}

fn to_far(hosts: impl IntoIterator<Item = u8>) -> PeerAddr {
    PeerAddr::known(LESSER, hosts.into_iter().map(far))
}

const TIMEOUT: Result<LinkUp, DialError> = Err(DialError::Timeout);

#[test]
fn what_has_no_answer_is_tried_by_streams_a_few_at_once() {
    let mut bench = bench();
    let (request, _) = bench.connect(to_far(1..=4));
    assert!(streams(&bench.pass(Duration::from_millis(1999))).is_empty(), "not at once");
    let opened = streams(&bench.pass(Duration::from_millis(1)));
    assert_eq!(opened.iter().map(|(_, at)| *at).collect::<Vec<_>>(), [far(1), far(2)]);
    let outputs = bench.give(Input::Dialled { attempt: opened[0].0, result: TIMEOUT });
    assert_eq!(streams(&outputs)[0].1, far(3), "one after the other");

    let link = LinkId(99);
    let up = LinkUp { link, peer: LESSER, address: streamed_address(1, 1), held: false };
    let outputs = bench.give(Input::Dialled { attempt: opened[1].0, result: Ok(up) });
    let aborted = outputs.iter().filter(|output| matches!(output, Output::Abort(_)));
    assert_eq!(aborted.count(), 5, "four addresses and a stream");
    let outputs = bench.give(Input::Hello { link, hello: hello(1) });
    assert_eq!(outputs.last(), Some(&Output::Connected { request, peer: LESSER }));
    assert_eq!(bench.machine.metrics.sessions_began_by_stream.value(), 1);

    // The session is found by where it was dialled, and reopened there.
    let (again, outputs) = bench.connect(PeerAddr::unknown(far(2)));
    assert_eq!(outputs, [Output::Connected { request: again, peer: LESSER }]);
    bench.close(link, LinkClosed::TimedOut);
    assert_eq!(dials(&bench.pass(Duration::from_secs(1)))[0].1, far(2));
}

#[test]
fn a_dial_without_an_answer_fails_once_the_streams_have_failed() {
    let mut bench = bench();
    let (request, outputs) = bench.connect(to_far([1]));
    let outputs = bench.give(Input::Dialled { attempt: dials(&outputs)[0].0, result: TIMEOUT });
    let [(stream, _)] = streams(&outputs)[..] else { panic!("at once: {outputs:?}") };
    let outputs = bench.give(Input::Dialled { attempt: stream, result: TIMEOUT });
    assert_eq!(outputs, [Output::Failed { request, error: DialError::Timeout }]);
    assert_eq!(bench.machine.poll_timeout(), None);
}

#[test]
fn who_answers_and_refuses_is_not_asked_by_a_stream() {
    let mut bench = bench();
    let (_, outputs) = bench.connect(to_far([1]));
    let result = Err(DialError::PeerMisbehaved("no"));
    let outputs = bench.give(Input::Dialled { attempt: dials(&outputs)[0].0, result });
    assert!(failure(&outputs).is_some() && streams(&outputs).is_empty());
}

#[test]
fn sessions_over_packets_as_far_away_show_that_there_is_no_need() {
    let mut bench = bench();
    let (near, _) = bench.accept_from(GREATER, SocketAddr::from(([10, 0, 0, 5], 5483)));
    bench.give(Input::Hello { link: near, hello: hello(1) });
    bench.give(Input::Keep { link: near, number: 1 });
    bench.connect(to_far([1]));
    assert_eq!(streams(&bench.pass(Duration::from_secs(2))).len(), 1, "the other one is near");

    let mut bench = self::bench();
    let (link, _) = bench.accept_from(GREATER, far(77));
    bench.give(Input::Hello { link, hello: hello(1) });
    bench.give(Input::Keep { link, number: 1 });
    bench.connect(to_far([1]));
    assert!(streams(&bench.pass(Duration::from_secs(14))).is_empty());
    bench.close(link, LinkClosed::TimedOut);
    bench.pass(Duration::from_secs(60));
    bench.connect(to_far([2]));
    assert_eq!(streams(&bench.pass(Duration::from_secs(2))).len(), 1, "it is gone");
}
