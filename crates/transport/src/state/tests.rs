//! Tests of the session machine, without tasks or time.

mod contests;
mod early;
mod idle;
mod limits;
mod properties;
mod streams;

use std::time::Duration;

use x0x_core::PeerAddr;

use super::*;
use crate::config::{
    MAX_DIALS, MAX_PENDING_LINKS, MAX_PENDING_PER_NETWORK, MAX_PENDING_PER_PEER, MAX_QUEUED_DIALS,
    MAX_WAITERS,
};

const LOCAL: MachineId = MachineId::new([5; 32]);
/// This end is the arbiter towards it.
const LESSER: MachineId = MachineId::new([1; 32]);
/// It is the arbiter towards this end.
const GREATER: MachineId = MachineId::new([9; 32]);

fn address(n: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], n))
}

fn hello(instance: u8) -> Hello {
    Hello {
        instance: [instance; 16],
        agents: Vec::new(),
        listen_addresses: vec![address(900)],
        replace: false,
        preferred: false,
    }
}

fn replacing(instance: u8) -> Hello {
    Hello { replace: true, ..hello(instance) }
}

/// A machine with its own time.
struct Bench {
    machine: Sessions,
    now: Tick,
    next: u64,
}

impl Bench {
    fn new() -> Self {
        let metrics = Arc::new(TransportMetrics::default());
        let rng = SeededRng::from_number(1);
        let config = SessionConfig::default();
        let machine = Sessions::new(LOCAL, vec![address(1)], config, metrics, rng);
        Self { machine, now: Tick::ZERO, next: 0 }
    }

    /// With others who may help with dials.
    fn helped(helped: bool) -> Self {
        let mut bench = Self::new();
        if helped {
            bench.machine = bench.machine.with_help();
        }
        bench
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn give(&mut self, input: Input) -> Vec<Output> {
        self.machine.handle(self.now, input);
        std::iter::from_fn(|| self.machine.poll_output()).collect()
    }

    /// Moves the time, running each timer when it is due.
    fn pass(&mut self, time: Duration) -> Vec<Output> {
        let (end, mut outputs) = (self.now + time, Vec::new());
        while let Some(due) = self.machine.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.machine.handle_timeout(self.now);
            outputs.extend(std::iter::from_fn(|| self.machine.poll_output()));
        }
        self.now = end;
        outputs
    }

    fn connect(&mut self, to: PeerAddr) -> (RequestId, Vec<Output>) {
        let request = RequestId(self.number());
        (request, self.give(Input::Connect { request, to }))
    }

    /// An attempt succeeds; gives the link.
    fn reach(&mut self, attempt: AttemptId, peer: MachineId, at: u16) -> (LinkId, Vec<Output>) {
        let link = LinkId(self.number());
        let result = Ok(LinkUp { link, peer, address: address(at), held: false });
        (link, self.give(Input::Dialled { attempt, result }))
    }

    fn accept(&mut self, peer: MachineId) -> (LinkId, Vec<Output>) {
        self.accept_from(peer, address(700))
    }

    fn accept_from(&mut self, peer: MachineId, address: SocketAddr) -> (LinkId, Vec<Output>) {
        let link = LinkId(self.number());
        (link, self.give(Input::Accepted(LinkUp { link, peer, address, held: false })))
    }

    /// An accepted link that becomes the session.
    fn session(&mut self, peer: MachineId, instance: u8) -> LinkId {
        let (link, _) = self.accept(peer);
        let mut outputs = self.give(Input::Hello { link, hello: hello(instance) });
        if peer > LOCAL {
            outputs = self.give(Input::Keep { link, number: 1 });
        }
        assert!(outputs.iter().any(|o| matches!(o, Output::Up(up) if up.link == link)));
        link
    }

    fn close(&mut self, link: LinkId, reason: LinkClosed) -> Vec<Output> {
        self.give(Input::LinkClosed { link, reason })
    }
}

fn dials(outputs: &[Output]) -> Vec<(AttemptId, SocketAddr)> {
    let dial = |output: &Output| match output {
        Output::Dial { attempt, address, .. } => Some((*attempt, *address)),
        _ => None,
    };
    outputs.iter().filter_map(dial).collect()
}

fn failure(outputs: &[Output]) -> Option<&DialError> {
    outputs.iter().find_map(|output| match output {
        Output::Failed { error, .. } => Some(error),
        _ => None,
    })
}

fn closes(link: LinkId, code: CloseCode) -> Output {
    Output::Close { link, code }
}

fn known(peer: MachineId, at: &[u16]) -> PeerAddr {
    PeerAddr::known(peer, at.iter().map(|n| address(*n)))
}

#[test]
fn callers_share_a_dial_and_a_session() {
    let mut bench = Bench::new();
    let (first, outputs) = bench.connect(known(LESSER, &[10]));
    let attempt = dials(&outputs)[0].0;
    let (second, outputs) = bench.connect(known(LESSER, &[10]));
    assert!(outputs.is_empty());
    let (link, outputs) = bench.reach(attempt, LESSER, 10);
    assert_eq!(outputs, [Output::SendHello { link, replace: false }]);
    let outputs = bench.give(Input::Hello { link, hello: hello(1) });
    assert_eq!(outputs[0], Output::SendKeep { link, number: 1 });
    assert!(matches!(&outputs[1], Output::Up(up) if up.side == Side::Dialer && up.generation == 1));
    let connected = |request| Output::Connected { request, peer: LESSER };
    assert_eq!(outputs[2..], [connected(first), connected(second)]);
    let (third, outputs) = bench.connect(known(LESSER, &[77]));
    assert_eq!(outputs, [connected(third)]);
    let (fourth, outputs) = bench.connect(PeerAddr::unknown(address(10)));
    assert_eq!(outputs, [connected(fourth)]);
    assert_eq!(bench.machine.poll_timeout(), None);
}

#[test]
fn addresses_race_with_a_stagger() {
    let mut bench = Bench::new();
    let (request, outputs) = bench.connect(known(GREATER, &[10, 11, 12]));
    let first = dials(&outputs)[0].0;
    let second = dials(&bench.pass(Duration::from_millis(150)))[0].0;
    let third = dials(&bench.pass(Duration::from_millis(150)))[0].0;
    let result = Err(DialError::Timeout);
    assert!(bench.give(Input::Dialled { attempt: second, result }).is_empty());
    let (link, outputs) = bench.reach(third, GREATER, 12);
    assert_eq!(outputs, [Output::Abort(first), Output::SendHello { link, replace: false }]);
    let outputs = bench.give(Input::Hello { link, hello: hello(1) });
    assert_eq!(outputs.last(), Some(&Output::Connected { request, peer: GREATER }));
    let outputs = bench.give(Input::Keep { link, number: 1 });
    assert_eq!(outputs, [Output::Taken { link, peer: GREATER }]);
    // The loser answers after all.
    let (late, outputs) = bench.reach(first, GREATER, 10);
    assert_eq!(outputs, [closes(late, CloseCode::Duplicate)]);
}

#[test]
fn failures_back_off_by_address() {
    let mut bench = Bench::new();
    let (_, outputs) = bench.connect(known(GREATER, &[10]));
    let attempt = dials(&outputs)[0].0;
    let outputs = bench.give(Input::Dialled { attempt, result: Err(DialError::Timeout) });
    assert_eq!(failure(&outputs), Some(&DialError::Timeout));
    let (_, outputs) = bench.connect(known(GREATER, &[10]));
    let Some(DialError::BackingOff { retry_in_ms }) = failure(&outputs) else {
        panic!("backs off: {outputs:?}");
    };
    assert!((375..=626).contains(retry_in_ms));
    let wait = Duration::from_millis(*retry_in_ms);
    let (_, outputs) = bench.connect(known(GREATER, &[10, 11]));
    assert_eq!(dials(&outputs).iter().map(|d| d.1).collect::<Vec<_>>(), [address(11)]);
    bench.give(Input::Dialled { attempt: dials(&outputs)[0].0, result: Err(DialError::Timeout) });
    bench.pass(wait);
    let (_, outputs) = bench.connect(known(GREATER, &[10]));
    assert_eq!(dials(&outputs).len(), 1);
}

#[test]
fn addresses_of_this_machine_are_not_dialled() {
    let mut bench = Bench::new();
    let (_, outputs) = bench.connect(known(LOCAL, &[10]));
    assert_eq!(failure(&outputs), Some(&DialError::OwnAddress));
    let (_, outputs) = bench.connect(known(GREATER, &[1]));
    assert_eq!(failure(&outputs), Some(&DialError::OwnAddress));
    let (_, outputs) = bench.connect(known(GREATER, &[]));
    assert_eq!(failure(&outputs), Some(&DialError::NoAddress));
    // Beside a peer that may help, that is no reason not to ask it: networks number alike.
    let mut helped = Bench::helped(true);
    helped.session(LESSER, 1);
    let (_, mut outputs) = helped.connect(known(GREATER, &[1]));
    outputs.extend(helped.pass(Duration::ZERO));
    assert!(outputs.contains(&Output::Punch(GREATER)), "{outputs:?}");
    // Found out only by the identity that answers.
    let (_, outputs) = bench.connect(PeerAddr::unknown(address(10)));
    let (link, outputs) = bench.reach(dials(&outputs)[0].0, LOCAL, 10);
    assert_eq!(outputs[0], closes(link, CloseCode::Misbehaved));
    assert_eq!(failure(&outputs), Some(&DialError::OwnAddress));
    let (link, outputs) = bench.accept(LOCAL);
    assert_eq!(outputs, [closes(link, CloseCode::Misbehaved)]);
}

#[test]
fn another_machine_than_expected_is_refused() {
    let mut bench = Bench::new();
    let (_, outputs) = bench.connect(known(GREATER, &[10]));
    let (link, outputs) = bench.reach(dials(&outputs)[0].0, LESSER, 10);
    assert_eq!(outputs[0], closes(link, CloseCode::Misbehaved));
    assert!(matches!(failure(&outputs), Some(DialError::PeerMisbehaved(_))));
}

#[test]
fn dials_are_limited() {
    let mut bench = Bench::new();
    let peer = |n: usize| MachineId::new([100 + n as u8; 32]);
    let mut running = Vec::new();
    for n in 0..MAX_DIALS + MAX_QUEUED_DIALS {
        let (_, outputs) = bench.connect(known(peer(n), &[10]));
        running.extend(dials(&outputs));
    }
    assert_eq!(running.len(), MAX_DIALS);
    let (_, outputs) = bench.connect(known(peer(100), &[10]));
    assert_eq!(failure(&outputs), Some(&DialError::Limit { what: "dials", max: MAX_QUEUED_DIALS }));
    let (attempt, _) = running[0];
    let outputs = bench.give(Input::Dialled { attempt, result: Err(DialError::Timeout) });
    assert_eq!(dials(&outputs).len(), 1, "the next in line");
    for _ in 1..MAX_WAITERS {
        bench.connect(known(peer(1), &[10]));
    }
    let (_, outputs) = bench.connect(known(peer(1), &[10]));
    assert!(matches!(failure(&outputs), Some(DialError::Limit { .. })));
    let outputs = bench.pass(Duration::from_secs(16));
    assert!(outputs.contains(&Output::Failed { request: RequestId(2), error: DialError::Timeout }));
}

#[test]
fn a_dial_that_nobody_waits_for_ends() {
    let mut bench = Bench::helped(true);
    let (first, outputs) = bench.connect(known(LESSER, &[10, 11]));
    let mut attempts = dials(&outputs);
    let (second, _) = bench.connect(known(LESSER, &[10]));
    attempts.extend(dials(&bench.pass(Duration::from_millis(200))));
    assert!(bench.pass(Duration::from_millis(200)).contains(&Output::Punch(LESSER)));
    assert_eq!(bench.give(Input::GaveUp(first)), [], "another waits");
    let outputs = bench.give(Input::GaveUp(second));
    let aborted = attempts.iter().map(|(attempt, _)| Output::Abort(*attempt));
    let ended: Vec<Output> = aborted.chain([Output::PunchOver(LESSER)]).collect();
    assert_eq!(outputs, ended);
    assert_eq!(bench.machine.poll_timeout(), None);
    assert_eq!(bench.machine.metrics.dials_given_up.value(), 1);
    assert_eq!(bench.give(Input::GaveUp(second)), []);
    let (_, outputs) = bench.connect(known(LESSER, &[10]));
    assert_eq!(dials(&outputs).len(), 1, "nothing is held against the addresses");
}

/// A relay gets ready while the two find out whether they reach each other, and waits a moment for that.
#[test]
fn a_relay_that_is_ready_lets_a_direct_link_go_first() {
    let way = crate::sock::table::relayed_address(1, 1);
    let at = |outputs: &[Output]| dials(outputs).iter().map(|dial| dial.1).collect::<Vec<_>>();
    for nobody_answers in [false, true] {
        let mut bench = Bench::helped(true);
        bench.session(GREATER, 1);
        bench.connect(known(LESSER, &[]));
        assert!(bench.pass(Duration::ZERO).contains(&Output::Punch(LESSER)));
        assert_eq!(bench.give(Input::PunchAgreed(LESSER)), [Output::Relay(LESSER)]);
        bench.pass(Duration::from_millis(40));
        let found = Some(way);
        assert_eq!(bench.give(Input::Relayed { peer: LESSER, found }), []);
        if nobody_answers {
            let outputs = bench.give(Input::Punched { peer: LESSER, found: None });
            assert_eq!(at(&outputs), [way], "nothing is waited for");
        } else {
            assert_eq!(at(&bench.pass(Duration::from_millis(59))), []);
            assert_eq!(at(&bench.pass(Duration::from_millis(1))), [way]);
            let found = Some(address(12));
            let outputs = bench.give(Input::Punched { peer: LESSER, found });
            assert_eq!(at(&outputs), [address(12)], "they race");
        }
    }
}

/// A relay that joins the two and carries nothing is not the only one that a dial tries.
#[test]
fn a_dial_tries_several_relays() {
    let mut bench = Bench::helped(true);
    bench.connect(known(LESSER, &[10]));
    let way = |n: u32| crate::sock::table::relayed_address(1, n);
    let asks = |outputs: &[Output]| outputs.contains(&Output::Relay(LESSER));
    assert!(asks(&bench.pass(Duration::from_millis(800))));
    for n in 1..=3 {
        let found = Some(way(n));
        let outputs = bench.give(Input::Relayed { peer: LESSER, found });
        assert_eq!(dials(&outputs).iter().map(|dial| dial.1).collect::<Vec<_>>(), [way(n)]);
        let again = bench.pass(Duration::from_millis(2100));
        assert_eq!(asks(&again), n < 3, "after way {n}");
    }
}

#[test]
fn dials_that_are_given_up_make_room_for_others() {
    let mut bench = Bench::new();
    let peer = |n: usize| MachineId::new([100 + n as u8; 32]);
    let mut requests = Vec::new();
    for n in 0..=MAX_DIALS {
        requests.push(bench.connect(known(peer(n), &[10])).0);
    }
    let (_, outputs) = bench.connect(known(LESSER, &[20]));
    assert_eq!(outputs, [], "queued");
    assert_eq!(bench.give(Input::GaveUp(requests[MAX_DIALS])), [], "it had not begun");
    let outputs = bench.give(Input::GaveUp(requests[0]));
    assert_eq!(dials(&outputs).iter().map(|dial| dial.1).collect::<Vec<_>>(), [address(20)]);
}

#[test]
fn a_session_that_is_reopened_waits_for_nobody() {
    let mut bench = Bench::new();
    let link = bench.session(LESSER, 1);
    bench.close(link, LinkClosed::TimedOut);
    let outputs = bench.pass(Duration::from_secs(3));
    let attempt = dials(&outputs)[0].0;
    let (request, _) = bench.connect(known(LESSER, &[900]));
    assert_eq!(bench.give(Input::GaveUp(request)), []);
    let (link, outputs) = bench.reach(attempt, LESSER, 900);
    assert_eq!(outputs, [Output::SendHello { link, replace: false }]);
}

#[test]
fn the_arbiter_keeps_one_link() {
    let mut bench = Bench::new();
    let session = bench.session(LESSER, 1);
    let (duplicate, _) = bench.accept(LESSER);
    let outputs = bench.give(Input::Hello { link: duplicate, hello: hello(1) });
    assert_eq!(outputs, [closes(duplicate, CloseCode::Duplicate)]);

    let (restarted, _) = bench.accept(LESSER);
    let outputs = bench.give(Input::Hello { link: restarted, hello: hello(2) });
    assert_eq!(outputs[0], Output::Down { link: session, peer: LESSER });
    assert_eq!(outputs[1], closes(session, CloseCode::Duplicate));
    assert_eq!(outputs[2], Output::SendKeep { link: restarted, number: 2 });

    let (lost, _) = bench.accept(LESSER);
    let outputs = bench.give(Input::Hello { link: lost, hello: replacing(2) });
    assert_eq!(outputs[0], Output::Down { link: restarted, peer: LESSER });
    assert!(matches!(&outputs[3], Output::Up(up) if up.generation == 3));
    assert_eq!(bench.machine.metrics.links_duplicate.value(), 1);
    assert_eq!(bench.machine.metrics.sessions_replaced.value(), 2);
    assert_eq!(bench.machine.metrics.sessions.value(), 1);
}

#[test]
fn a_link_older_than_the_session_never_replaces_it() {
    let mut bench = Bench::new();
    let (older, _) = bench.accept(LESSER);
    bench.session(LESSER, 2);
    let outputs = bench.give(Input::Hello { link: older, hello: replacing(1) });
    assert_eq!(outputs, [closes(older, CloseCode::Duplicate)]);
}

#[test]
fn the_other_end_follows_keep() {
    let mut bench = Bench::new();
    let session = bench.session(GREATER, 1);
    let (later, _) = bench.accept(GREATER);
    assert!(bench.give(Input::Hello { link: later, hello: hello(1) }).is_empty());
    let outputs = bench.give(Input::Keep { link: later, number: 2 });
    assert_eq!(outputs[0], Output::Down { link: session, peer: GREATER });
    assert_eq!(outputs[1], closes(session, CloseCode::Duplicate));
    assert!(matches!(&outputs[2], Output::Up(up) if up.link == later));
}

#[test]
fn keep_out_of_turn_is_misbehaviour() {
    let mut bench = Bench::new();
    let (early, _) = bench.accept(GREATER);
    assert_eq!(
        bench.give(Input::Keep { link: early, number: 1 }),
        [closes(early, CloseCode::Misbehaved)]
    );
    let session = bench.session(LESSER, 1);
    let outputs = bench.give(Input::Keep { link: session, number: 1 });
    assert_eq!(outputs[0], Output::Down { link: session, peer: LESSER });
    assert_eq!(outputs[1], closes(session, CloseCode::Misbehaved));
    let (twice, _) = bench.accept(GREATER);
    bench.give(Input::Hello { link: twice, hello: hello(1) });
    let outputs = bench.give(Input::Hello { link: twice, hello: hello(1) });
    assert_eq!(outputs, [closes(twice, CloseCode::Misbehaved)]);
    assert_eq!(bench.machine.metrics.control_refused.value(), 3);
    assert_eq!(bench.machine.poll_timeout(), None, "a peer that misbehaves is not redialled");
}

#[test]
fn a_refused_dialler_waits_then_asks_to_replace() {
    let mut bench = Bench::new();
    let (_, outputs) = bench.connect(known(GREATER, &[10]));
    let (link, _) = bench.reach(dials(&outputs)[0].0, GREATER, 10);
    assert!(bench.close(link, LinkClosed::Peer(CloseCode::Duplicate)).is_empty());
    assert!(bench.pass(Duration::from_millis(999)).is_empty());
    let outputs = bench.pass(Duration::from_millis(1));
    let (again, outputs) = bench.reach(dials(&outputs)[0].0, GREATER, 10);
    assert_eq!(outputs, [Output::SendHello { link: again, replace: true }]);
    let outputs = bench.close(again, LinkClosed::Peer(CloseCode::Duplicate));
    assert!(matches!(failure(&outputs), Some(DialError::ClosedByPeer(_))), "once");
}

#[test]
fn a_refused_dialler_takes_the_session_that_comes() {
    let mut bench = Bench::new();
    let (request, outputs) = bench.connect(PeerAddr::unknown(address(10)));
    let (link, _) = bench.reach(dials(&outputs)[0].0, GREATER, 10);
    bench.close(link, LinkClosed::Peer(CloseCode::Duplicate));
    let (kept, _) = bench.accept(GREATER);
    bench.give(Input::Hello { link: kept, hello: hello(1) });
    let outputs = bench.give(Input::Keep { link: kept, number: 1 });
    assert_eq!(outputs.last(), Some(&Output::Connected { request, peer: GREATER }));
    assert!(bench.pass(Duration::from_secs(5)).is_empty());
}

#[test]
fn silent_links_time_out() {
    let mut bench = Bench::new();
    let (accepted, _) = bench.accept(LESSER);
    let (_, outputs) = bench.connect(known(GREATER, &[10]));
    let (dialled, _) = bench.reach(dials(&outputs)[0].0, GREATER, 10);
    let outputs = bench.pass(Duration::from_secs(6));
    assert!(outputs.contains(&closes(accepted, CloseCode::Timeout)));
    assert!(outputs.contains(&closes(dialled, CloseCode::Timeout)));
    assert_eq!(failure(&outputs), Some(&DialError::Timeout));
    assert_eq!(bench.machine.metrics.links_timed_out.value(), 2);
}

#[test]
fn pending_links_and_sessions_are_limited() {
    let mut bench = Bench::new();
    bench.machine.config.max_sessions = 1;
    for _ in 0..MAX_PENDING_PER_PEER {
        assert!(matches!(bench.accept(GREATER).1[..], [Output::SendHello { .. }]));
    }
    let (link, outputs) = bench.accept(GREATER);
    assert_eq!(outputs, [closes(link, CloseCode::Limit)]);
    bench.session(LESSER, 1);
    let other = MachineId::new([2; 32]);
    let (link, _) = bench.accept(other);
    let outputs = bench.give(Input::Hello { link, hello: hello(1) });
    assert_eq!(outputs, [closes(link, CloseCode::Limit)]);
    assert!(bench.machine.poll_timeout().is_some());
    assert_eq!(bench.machine.metrics.links_refused_limit.value(), 2);
}

#[test]
fn lost_sessions_are_reopened_and_ended_ones_are_not() {
    let mut bench = Bench::new();
    for reason in [CloseCode::Disconnected, CloseCode::Shutdown, CloseCode::Limit] {
        let link = bench.session(LESSER, 1);
        bench.close(link, LinkClosed::Peer(reason));
        assert!(bench.pass(Duration::from_secs(60)).is_empty(), "{reason}");
    }
    let mut link = bench.session(LESSER, 1);
    for code in [CloseCode::Disconnected, CloseCode::Refused] {
        let outputs = bench.give(Input::Disconnect(LESSER, code));
        assert_eq!(outputs.last(), Some(&closes(link, code)));
        assert!(bench.pass(Duration::from_secs(60)).is_empty());
        link = bench.session(LESSER, 1);
    }
    bench.give(Input::Disconnect(LESSER, CloseCode::Refused));
    assert_eq!(bench.machine.metrics.sessions_expelled.value(), 2);

    let link = bench.session(LESSER, 1);
    bench.close(link, LinkClosed::TimedOut);
    assert!(bench.pass(Duration::from_millis(1999)).is_empty(), "the dialler goes first");
    let outputs = bench.pass(Duration::from_millis(600));
    let (attempt, at) = dials(&outputs)[0];
    assert_eq!(at, address(900));
    let (link, _) = bench.reach(attempt, LESSER, 900);
    bench.give(Input::Hello { link, hello: hello(1) });
    bench.close(link, LinkClosed::TimedOut);
    let outputs = bench.pass(Duration::from_millis(700));
    assert_eq!(dials(&outputs).len(), 1, "the dialler after half a second");
    assert_eq!(bench.machine.metrics.reconnects.value(), 2);
}

#[test]
fn a_lost_session_is_given_up_in_the_end() {
    let mut bench = Bench::new();
    let link = bench.session(LESSER, 1);
    bench.close(link, LinkClosed::TimedOut);
    let mut attempts = 0;
    while let Some(due) = bench.machine.poll_timeout() {
        let outputs = bench.pass(due.since(bench.now));
        for (attempt, _) in dials(&outputs) {
            attempts += 1;
            bench.give(Input::Dialled { attempt, result: Err(DialError::Timeout) });
        }
    }
    assert!((9..=10).contains(&attempts), "{attempts}");
    assert!(bench.now <= Tick::ZERO + Duration::from_secs(900));
    assert_eq!(bench.machine.metrics.reconnects_given_up.value(), 1);
}

#[test]
fn from_new_addresses_everything_is_tried_again_at_once() {
    let mut bench = Bench::new();
    let link = bench.session(LESSER, 1);
    bench.close(link, LinkClosed::TimedOut);
    for _ in 0..4 {
        let due = bench.machine.poll_timeout().expect("it is tried again");
        let outputs = bench.pass(due.since(bench.now));
        for (attempt, _) in dials(&outputs) {
            bench.give(Input::Dialled { attempt, result: Err(DialError::Timeout) });
        }
    }
    let (request, outputs) = bench.connect(known(GREATER, &[10]));
    let (attempt, _) = dials(&outputs)[0];
    let failed = bench.give(Input::Dialled { attempt, result: Err(DialError::Timeout) });
    assert!(failed.contains(&Output::Failed { request, error: DialError::Timeout }));
    let (_, outputs) = bench.connect(known(GREATER, &[10]));
    assert!(dials(&outputs).is_empty(), "it backs off");

    bench.give(Input::LocalAddresses(vec![address(2)]));
    let lost = bench.pass(Duration::ZERO);
    assert_eq!(dials(&lost).len(), 1, "the lost session");
    let (_, outputs) = bench.connect(known(GREATER, &[10]));
    assert_eq!(dials(&outputs).len(), 1, "nothing is held against it");
    let (_, outputs) = bench.connect(known(MachineId::new([7; 32]), &[2]));
    assert!(dials(&outputs).is_empty(), "this is the own address now");
}

#[test]
fn the_end_answers_everybody() {
    let mut bench = Bench::new();
    let session = bench.session(LESSER, 1);
    let (request, _) = bench.connect(known(GREATER, &[10]));
    let outputs = bench.give(Input::Shutdown);
    let closed = |request| Output::Failed { request, error: DialError::Closed };
    assert!(outputs.contains(&closed(request)));
    assert!(outputs.contains(&Output::Down { link: session, peer: LESSER }));
    assert!(outputs.contains(&closes(session, CloseCode::Shutdown)));
    let (request, outputs) = bench.connect(known(LESSER, &[10]));
    assert_eq!(outputs, [closed(request)]);
    let (link, outputs) = bench.accept(LESSER);
    assert_eq!(outputs, [closes(link, CloseCode::Shutdown)]);
    assert_eq!(bench.machine.poll_timeout(), None);
}
