//! Whatever happens in whatever order: the machine's promises.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    Connect(u8, u8),
    /// A caller does not wait any more.
    GiveUp(usize),
    Succeed(usize, u8),
    Fail(usize),
    Accept(u8),
    Hello(usize, u8, bool),
    Keep(usize, u64),
    Refuse(usize),
    Close(usize, u8),
    Disconnect(u8),
    Pass(u64),
    /// What others' help with a dial came to.
    Punched(u8, Option<u8>),
    /// What the search for a relay came to.
    Relayed(u8, Option<u8>),
    /// The peer is there.
    Agreed(u8),
    /// A peer is to be reached of which no address is known.
    Find(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let peer = 0_u8..4;
    prop_oneof![
        (peer.clone(), any::<u8>()).prop_map(|(peer, at)| Step::Connect(peer, at % 8)),
        any::<usize>().prop_map(Step::GiveUp),
        (any::<usize>(), peer.clone()).prop_map(|(n, peer)| Step::Succeed(n, peer)),
        any::<usize>().prop_map(Step::Fail),
        peer.clone().prop_map(Step::Accept),
        (any::<usize>(), 0_u8..3, any::<bool>()).prop_map(|(n, i, r)| Step::Hello(n, i, r)),
        (any::<usize>(), 0_u64..4).prop_map(|(n, number)| Step::Keep(n, number)),
        any::<usize>().prop_map(Step::Refuse),
        (any::<usize>(), 0_u8..10).prop_map(|(n, why)| Step::Close(n, why)),
        peer.prop_map(Step::Disconnect),
        (0_u64..4000).prop_map(Step::Pass),
        (0_u8..4, any::<Option<u8>>()).prop_map(|(n, at)| Step::Punched(n, at)),
        (0_u8..4, any::<Option<u8>>()).prop_map(|(n, at)| Step::Relayed(n, at)),
        (0_u8..4).prop_map(Step::Agreed),
        (0_u8..4).prop_map(Step::Find),
    ]
}

/// Two lesser and two greater peers than this machine.
fn peer(n: u8) -> MachineId {
    MachineId::new([[1, 2, 8, 9][usize::from(n)]; 32])
}

/// What the outputs claim.
#[derive(Default)]
struct Model {
    open: BTreeMap<LinkId, MachineId>,
    up: BTreeMap<MachineId, LinkId>,
    trying: BTreeSet<AttemptId>,
    waiting: BTreeSet<RequestId>,
    helped: BTreeSet<MachineId>,
    relayed: BTreeSet<MachineId>,
    generation: u64,
}

impl Model {
    fn see(&mut self, output: &Output) {
        match output {
            Output::Dial { attempt, .. } => assert!(self.trying.insert(*attempt)),
            Output::Abort(attempt) => assert!(self.trying.contains(attempt)),
            Output::SendHello { link, .. } | Output::SendKeep { link, .. } => {
                assert!(self.open.contains_key(link));
            }
            Output::Up(up) => {
                assert_eq!(self.open.get(&up.link), Some(&up.peer), "over an open link");
                assert!(self.up.insert(up.peer, up.link).is_none(), "one session at a time");
                assert!(up.generation > self.generation);
                self.generation = up.generation;
            }
            Output::Taken { link, peer } => assert_eq!(self.up.get(peer), Some(link)),
            Output::Moved { from, to, peer, .. } => {
                assert_eq!(self.open.get(to), Some(peer), "over an open link");
                assert_eq!(self.up.insert(*peer, *to), Some(*from), "of the session");
            }
            Output::Down { link, peer } => assert_eq!(self.up.remove(peer), Some(*link)),
            Output::Close { link, .. } => {
                assert!(self.open.remove(link).is_some(), "closed once");
                assert!(!self.up.values().any(|up| up == link), "down comes first");
            }
            Output::Connected { request, peer } => {
                assert!(self.waiting.remove(request), "answered once");
                assert!(self.up.contains_key(peer));
            }
            Output::Failed { request, .. } => {
                assert!(self.waiting.remove(request), "answered once");
            }
            Output::Punch(peer) => assert!(self.helped.insert(*peer), "once a dial"),
            Output::PunchOver(peer) => assert!(self.helped.remove(peer)),
            Output::Relay(peer) => assert!(self.relayed.insert(*peer), "once a dial"),
            Output::RelayOver(peer) => assert!(self.relayed.remove(peer)),
        }
    }
}

/// The `n`-th of the links or attempts that exist, or one that never did.
fn pick<T: Copy + Ord>(mut all: impl ExactSizeIterator<Item = T>, n: usize, none: T) -> T {
    let count = all.len();
    all.nth(n % (count + 1)).unwrap_or(none)
}

fn close_reason(why: u8) -> LinkClosed {
    match why {
        0..=6 => LinkClosed::Peer(CloseCode::from_wire(why.into())),
        7 => LinkClosed::Failed("broken".into()),
        _ => LinkClosed::TimedOut,
    }
}

fn take(bench: &mut Bench, model: &mut Model, step: Step) {
    let attempt = |model: &Model, n| pick(model.trying.iter().copied(), n, AttemptId(u64::MAX));
    let link = |model: &Model, n| pick(model.open.keys().copied(), n, LinkId(u64::MAX));
    let input = match step {
        Step::Connect(n, at) => {
            let request = RequestId(bench.number());
            model.waiting.insert(request);
            let at = u16::from(at);
            Input::Connect { request, to: known(peer(n), &[at, at + 1]) }
        }
        Step::GiveUp(n) => {
            let request = pick(model.waiting.iter().copied(), n, RequestId(u64::MAX));
            model.waiting.remove(&request);
            Input::GaveUp(request)
        }
        Step::Succeed(n, who) => {
            let attempt = attempt(model, n);
            if !model.trying.remove(&attempt) {
                return;
            }
            let (link, held) = (LinkId(bench.number()), who % 2 == 0);
            let up = LinkUp { link, peer: peer(who), address: address(5), held };
            model.open.insert(up.link, up.peer);
            Input::Dialled { attempt, result: Ok(up) }
        }
        Step::Fail(n) => {
            let attempt = attempt(model, n);
            model.trying.remove(&attempt);
            Input::Dialled { attempt, result: Err(DialError::Timeout) }
        }
        Step::Accept(n) => {
            let (link, held) = (LinkId(bench.number()), n % 2 == 0);
            let up = LinkUp { link, peer: peer(n), address: address(6), held };
            model.open.insert(up.link, up.peer);
            Input::Accepted(up)
        }
        Step::Hello(n, instance, replace) => {
            Input::Hello { link: link(model, n), hello: Hello { replace, ..hello(instance) } }
        }
        Step::Keep(n, number) => Input::Keep { link: link(model, n), number },
        Step::Refuse(n) => Input::Refused { link: link(model, n), code: CloseCode::Misbehaved },
        Step::Close(n, why) => {
            let link = link(model, n);
            let outputs = bench.close(link, close_reason(why));
            outputs.iter().for_each(|output| model.see(output));
            model.open.remove(&link);
            return;
        }
        Step::Disconnect(n) => Input::Disconnect(peer(n), CloseCode::Disconnected),
        Step::Punched(n, at) => {
            if !model.helped.remove(&peer(n)) {
                return;
            }
            Input::Punched { peer: peer(n), found: at.map(|at| address(at.into())) }
        }
        Step::Relayed(n, at) => {
            if !model.relayed.remove(&peer(n)) {
                return;
            }
            let found = at.map(|at| crate::sock::table::relayed_address(1, at.into()));
            Input::Relayed { peer: peer(n), found }
        }
        Step::Agreed(n) => Input::PunchAgreed(peer(n)),
        Step::Find(n) => {
            let request = RequestId(bench.number());
            model.waiting.insert(request);
            Input::Connect { request, to: known(peer(n), &[]) }
        }
        Step::Pass(ms) => {
            let outputs = bench.pass(Duration::from_millis(ms));
            return outputs.iter().for_each(|output| model.see(output));
        }
    };
    bench.give(input).iter().for_each(|output| model.see(output));
}

proptest! {
    #[test]
    fn promises_hold(steps in prop::collection::vec(step(), 0..200), helped: bool) {
        let (mut bench, mut model) = (Bench::helped(helped), Model::default());
        for step in steps {
            take(&mut bench, &mut model, step);
            let up = bench.machine.sessions.iter().map(|(peer, session)| (*peer, session.link));
            prop_assert_eq!(up.collect::<BTreeMap<_, _>>(), model.up.clone());
            prop_assert!(bench.machine.links.keys().all(|link| model.open.contains_key(link)));
        }
        bench.give(Input::Shutdown).iter().for_each(|output| model.see(output));
        prop_assert!(model.up.is_empty() && model.open.is_empty());
        prop_assert!(model.waiting.is_empty(), "everybody was answered");
        prop_assert!(model.helped.is_empty(), "nobody is asked for ever");
        prop_assert!(model.relayed.is_empty(), "nor is any relay sought");
    }

    #[test]
    fn everybody_is_answered_in_time(steps in prop::collection::vec(step(), 0..100), helped: bool) {
        let (mut bench, mut model) = (Bench::helped(helped), Model::default());
        for step in steps {
            take(&mut bench, &mut model, step);
        }
        // A race may be followed by a second one, and both may be queued behind others.
        let outputs = bench.pass(Duration::from_secs(300));
        outputs.iter().for_each(|output| model.see(output));
        prop_assert!(model.waiting.is_empty());
    }
}
