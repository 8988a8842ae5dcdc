//! Three machines with perfect sessions between them, and what hostile ones try.

use super::*;
use crate::wire::MAX_WAIT_MS;

const RTT: Duration = Duration::from_millis(40);

fn machine(n: u8) -> MachineId {
    MachineId::new([n; 32])
}

/// Where the internet sees a machine.
fn seen(n: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, n, 1], 4000))
}

fn own(n: u8) -> Vec<SocketAddr> {
    vec![SocketAddr::from(([192, 168, n, 7], 5483))]
}

fn place(of: u8, sees: u8) -> Place {
    Place::new(machine(of), seen(of), Some(seen(sees)), RTT)
}

fn punches(n: u8) -> Punches {
    Punches::new(machine(n), Arc::default())
}

fn outputs(punches: &mut Punches) -> Vec<Output> {
    std::iter::from_fn(|| punches.poll_output()).collect()
}

fn want(punches: &mut Punches, now: Tick, peer: u8, helpers: &[u8]) -> Vec<Output> {
    let helpers = helpers.iter().map(|n| machine(*n)).collect();
    let fresh = ([peer; 16], [1; 32]);
    let own = own(1);
    punches.handle(now, Input::Want { peer: machine(peer), fresh, helpers, own });
    outputs(punches)
}

/// A step on the session of two machines, `to` of which takes it; it has sessions with all `known`.
fn deliver(
    to: (&mut Punches, u8),
    now: Tick,
    from: u8,
    punch: &Punch,
    known: &[u8],
) -> Vec<Output> {
    let (punches, n) = to;
    let named = match punch {
        Punch::Ask(offer) | Punch::Forward(offer) | Punch::Accept(offer) => offer.peer,
        Punch::Refuse { peer, .. } => *peer,
    };
    let peer = known.iter().find(|known| machine(**known) == named).map(|known| place(*known, n));
    let received = Received::new(place(from, n), punch.clone(), peer, true, own(n), [n; 32]);
    punches.handle(now, Input::Received(Box::new(received)));
    outputs(punches)
}

fn sent(outputs: &[Output]) -> Vec<(MachineId, Punch)> {
    let step = |output: &Output| match output {
        Output::Send { to, punch } => Some((*to, punch.clone())),
        _ => None,
    };
    outputs.iter().filter_map(step).collect()
}

fn probed(outputs: &[Output]) -> Vec<(FlowId, SocketAddr)> {
    let probe = |output: &Output| match output {
        Output::Probe { flow, address } => Some((*flow, *address)),
        _ => None,
    };
    outputs.iter().filter_map(probe).collect()
}

fn opened(outputs: &[Output]) -> Vec<FlowId> {
    let open = |output: &Output| match output {
        Output::Open(keys) => Some(keys.flow()),
        _ => None,
    };
    outputs.iter().filter_map(open).collect()
}

fn over(outputs: &[Output]) -> Vec<Option<SocketAddr>> {
    let over = |output: &Output| match output {
        Output::Over { found, .. } => Some(*found),
        _ => None,
    };
    outputs.iter().filter_map(over).collect()
}

#[test]
fn three_machines_agree_and_both_ends_send_at_once() {
    let (mut a, mut b, mut c) = (punches(1), punches(2), punches(3));
    let now = Tick::ZERO;
    let ask = sent(&want(&mut a, now, 2, &[3]));
    assert_eq!(ask[0].0, machine(3));
    let forward = sent(&deliver((&mut c, 3), now, 1, &ask[0].1, &[1, 2]));
    let (to, Punch::Forward(offer)) = &forward[0] else { panic!("{forward:?}") };
    assert_eq!((*to, offer.peer, offer.wait_ms), (machine(2), machine(1), 40));
    assert_eq!(offer.addresses, [seen(1)], "the network of one is nothing to the other");
    let answer = deliver((&mut b, 2), now, 3, &forward[0].1, &[3]);
    assert!(probed(&answer).is_empty(), "not before the answer is there");
    let accept = sent(&answer);
    let done = deliver((&mut c, 3), now, 2, &accept[0].1, &[1, 2]);
    let passed = sent(&done);
    assert_eq!(passed[0].0, machine(1));
    let later = now + RTT;
    let begun = deliver((&mut a, 1), later, 3, &passed[0].1, &[3]);
    let (near, far) = (opened(&begun), opened(&answer));
    assert!(near.len() == 1 && near == far, "one key at both ends");
    assert_eq!(probed(&begun), [(near[0], seen(2))], "never into the own site");
    b.handle_timeout(later);
    assert_eq!(probed(&outputs(&mut b)), [(far[0], seen(1))]);

    a.handle(later, Input::Validated { flow: near[0], address: seen(2) });
    assert_eq!(over(&outputs(&mut a)), [Some(seen(2))]);
    b.handle(later, Input::Validated { flow: far[0], address: seen(1) });
    assert!(over(&outputs(&mut b)).is_empty(), "one end dials");
    // All is forgotten in the end.
    for punches in [&mut a, &mut b] {
        while let Some(at) = punches.poll_timeout() {
            punches.handle_timeout(at);
        }
        assert!(punches.rounds.is_empty() && punches.wanted.is_empty());
    }
}

#[test]
fn helpers_are_asked_three_at_a_time_and_silence_ends() {
    let mut a = punches(1);
    let asked = sent(&want(&mut a, Tick::ZERO, 2, &[2, 3, 4, 5, 6, 7]));
    let to: Vec<MachineId> = asked.iter().map(|(to, _)| *to).collect();
    assert_eq!(to, [3, 4, 5].map(machine), "not the peer itself");
    let refuse = Punch::Refuse { round: [2; 16], peer: machine(2), why: Refusal::NotConnected };
    let next = sent(&deliver((&mut a, 1), Tick::ZERO, 4, &refuse, &[]));
    assert_eq!(next.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [machine(6)]);
    assert!(sent(&deliver((&mut a, 1), Tick::ZERO, 4, &refuse, &[])).is_empty(), "once each");
    for helper in [3, 5, 6] {
        assert!(over(&deliver((&mut a, 1), Tick::ZERO, helper, &refuse, &[])).is_empty());
    }
    assert_eq!(over(&deliver((&mut a, 1), Tick::ZERO, 7, &refuse, &[])), [None]);

    want(&mut a, Tick::ZERO, 8, &[3]);
    let at = a.poll_timeout().expect("a deadline");
    a.handle_timeout(at);
    assert_eq!(over(&outputs(&mut a)), [None]);
    assert_eq!(over(&want(&mut a, at, 9, &[])), [None], "nobody to ask");
}

#[test]
fn a_coordinator_helps_only_with_its_own_peers_and_only_so_often() {
    let mut c = punches(3);
    let ask =
        |peer: u8, round: u8| Punch::Ask(Offer::new([round; 16], machine(peer), [1; 32], own(1)));
    let why = |outputs: Vec<Output>| match &sent(&outputs)[0].1 {
        Punch::Refuse { why, .. } => Some(*why),
        _ => None,
    };
    let now = Tick::ZERO;
    let mut asks = |peer, round, now| why(deliver((&mut c, 3), now, 1, &ask(peer, round), &[1, 2]));
    assert_eq!(asks(9, 0, now), Some(Refusal::NotConnected));
    assert_eq!(asks(1, 0, now), Some(Refusal::Unwilling), "the asker itself");
    assert_eq!(asks(3, 0, now), Some(Refusal::Unwilling), "this machine");
    let refused = (0..100).filter(|n| asks(2, *n, now) == Some(Refusal::Rate)).count();
    assert_eq!(refused, 95, "five a minute");
    assert_eq!(asks(2, 200, now + Duration::from_secs(12)), None);

    // Many askers, one target.
    let mut c = punches(3);
    let forwarded = (10..250)
        .filter(|n| {
            let outputs = deliver((&mut c, 3), now, *n, &ask(2, *n), &[2]);
            matches!(sent(&outputs)[0].1, Punch::Forward(_))
        })
        .count();
    assert_eq!(forwarded, 20);
    assert_eq!(c.coordinator.pending(), 20);
}

#[test]
fn answers_to_nothing_are_dropped() {
    let (mut a, mut c) = (punches(1), punches(3));
    let offer = Offer::new([2; 16], machine(2), [5; 32], vec![seen(7)]);
    let accept = Punch::Accept(offer.clone());
    assert!(deliver((&mut c, 3), Tick::ZERO, 1, &accept, &[1, 2]).is_empty());
    assert!(deliver((&mut a, 1), Tick::ZERO, 3, &accept, &[3]).is_empty());
    want(&mut a, Tick::ZERO, 2, &[3]);
    assert!(deliver((&mut a, 1), Tick::ZERO, 4, &accept, &[3]).is_empty(), "who was not asked");
    let other = Punch::Accept(Offer { round: [9; 16], ..offer });
    assert!(deliver((&mut a, 1), Tick::ZERO, 3, &other, &[3]).is_empty(), "another round");
    assert_eq!(a.metrics.refused_unasked.value(), 3);
    assert_eq!(opened(&deliver((&mut a, 1), Tick::ZERO, 3, &accept, &[3])).len(), 1);
    assert!(deliver((&mut a, 1), Tick::ZERO, 3, &accept, &[3]).is_empty(), "once");
}

/// A helper that makes an answer up keeps nobody from those that others bring, nor from their addresses.
#[test]
fn a_helper_that_lies_suppresses_no_other() {
    let mut a = punches(1);
    let now = Tick::ZERO;
    want(&mut a, now, 2, &[3, 4, 5, 6, 7]);
    let accept = |seed: u8, at: SocketAddr| {
        Punch::Accept(Offer::new([2; 16], machine(2), [seed; 32], vec![at]))
    };
    // It even names where the peer is.
    for (helper, seed) in [(3, 7), (4, 8)] {
        let lie = deliver((&mut a, 1), now, helper, &accept(seed, seen(2)), &[3, 4, 5]);
        assert_eq!(opened(&lie).len(), 1);
    }
    let truth = deliver((&mut a, 1), now, 5, &accept(9, seen(2)), &[3, 4, 5]);
    let flow = opened(&truth)[0];
    assert_eq!(probed(&truth), [(flow, seen(2))]);
    a.handle(now, Input::Validated { flow, address: seen(2) });
    assert_eq!(over(&outputs(&mut a)), [Some(seen(2))]);

    // When all that were asked lie, others are asked, and in the end nobody is.
    want(&mut a, now, 8, &[3, 4, 5, 6]);
    let lie = |seed| Punch::Accept(Offer::new([8; 16], machine(8), [seed; 32], vec![seen(9)]));
    for helper in [3, 4, 5] {
        assert!(over(&deliver((&mut a, 1), now, helper, &lie(helper), &[])).is_empty());
    }
    let late = now + PROBE_TIME;
    a.handle_timeout(late);
    let asked: Vec<MachineId> = sent(&outputs(&mut a)).iter().map(|(to, _)| *to).collect();
    assert_eq!(asked, [machine(6)]);
    a.handle_timeout(now + WANT_LIFETIME);
    assert_eq!(over(&outputs(&mut a)), [None]);
}

/// One helper with invented askers uses up its own share of this machine's answers only.
#[test]
fn a_helper_has_a_share_of_the_answers() {
    let mut b = punches(2);
    let mut answered = |n: u8, from: u8| {
        let offer = Offer::new([n; 16], machine(100 + n), [1; 32], vec![seen(n)]);
        !opened(&deliver((&mut b, 2), Tick::ZERO, from, &Punch::Forward(offer), &[])).is_empty()
    };
    assert_eq!((0..50).filter(|n| answered(*n, 3)).count(), BROUGHT_BURST as usize);
    assert!(answered(60, 4));
}

/// Whoever names a victim in thousands of agreements directs few packets there.
#[test]
fn a_victim_is_probed_once_in_ten_seconds_whoever_names_it() {
    let mut b = punches(2);
    let victim = SocketAddr::from(([192, 0, 2, 66], 4444));
    let (mut packets, mut answered) = (0, 0);
    for n in 0..10_000_u32 {
        let now = Tick::from_millis(u64::from(n));
        let mut round = [0; 16];
        round[..4].copy_from_slice(&n.to_be_bytes());
        let mut addresses = vec![victim];
        addresses.extend((0..7).map(|m| SocketAddr::from(([10, m, 0, 1], 5483))));
        let mut offer = Offer::new(round, machine(9), [1; 32], addresses);
        offer.wait_ms = MAX_WAIT_MS;
        let done = deliver((&mut b, 2), now, 3, &Punch::Forward(offer), &[3]);
        answered += opened(&done).len();
        b.handle_timeout(now);
        packets += probed(&[done, outputs(&mut b)].concat()).len();
        assert!(b.rounds.len() <= MAX_ROUNDS);
    }
    assert_eq!(packets, 1);
    assert!(answered <= 24, "{answered} agreements in ten seconds");
    assert!(b.metrics.addresses_refused.value() >= 7);
}

#[test]
fn who_is_refused_gets_no_answer_but_that() {
    let mut b = punches(2);
    let offer = Offer::new([1; 16], machine(1), [1; 32], vec![seen(1)]);
    let forward = Punch::Forward(offer);
    let received = Received::new(place(3, 2), forward, None, false, own(2), [2; 32]);
    b.handle(Tick::ZERO, Input::Received(Box::new(received)));
    let done = outputs(&mut b);
    assert!(matches!(sent(&done)[0].1, Punch::Refuse { why: Refusal::Unwilling, .. }));
    assert!(opened(&done).is_empty() && b.rounds.is_empty());
}
