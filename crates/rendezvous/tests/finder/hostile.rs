//! What a peer with a valid session may try.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;
use x0x_core::{Machine, MachineId, SeededRng, Tick};
use x0x_identity::AcceptAll;
use x0x_rendezvous::{
    Finder, FinderConfig, FinderInput, FinderOutput, Frame, LookupKey, MAX_DIALS, MAX_FILING_DIALS,
    MAX_HELD_BYTES, MAX_OFFERS, MAX_SEARCHES, RECORD_VALIDITY, Referral, Subject, epoch, seal,
    testing::invented,
};

use crate::overlay::{Overlay, START, address, machine};

fn pair() -> Overlay {
    let mut overlay = Overlay::new(2, 2, 1);
    overlay.run(Duration::from_secs(1));
    overlay
}

fn message(overlay: &mut Overlay, frame: &Frame) {
    overlay.input(0, FinderInput::Message { peer: machine(1), frame: frame.encode() });
}

fn store(key: LookupKey, topic: bool, sealed: Bytes) -> Frame {
    Frame::Store { key, topic, sealed, lifetime: RECORD_VALIDITY * 100 }
}

#[test]
fn nobody_files_under_an_agent_that_it_does_not_run() {
    let mut overlay = pair();
    let metrics = overlay.nodes[0].finder.metrics();
    let (own, other) = (Subject::Agent(overlay.agent(1)), Subject::Agent([3; 32].into()));
    let key = |subject| LookupKey::of(subject, epoch(START));
    message(&mut overlay, &store(key(&other), false, vec![1; 100].into()));
    assert_eq!((metrics.refused_foreign.value(), overlay.nodes[0].finder.held_bytes()), (1, 0));
    // Nor as if it were a topic, or a topic's record as if it were an agent's.
    message(&mut overlay, &store(key(&other), true, vec![1; 100].into()));
    message(&mut overlay, &store(key(&own), true, vec![1; 100].into()));
    let topic = Subject::Topic([3; 32].into());
    message(&mut overlay, &store(key(&topic), false, vec![1; 100].into()));
    assert_eq!((metrics.refused_kind.value(), overlay.nodes[0].finder.held_bytes()), (3, 0));
    message(&mut overlay, &store(key(&own), false, vec![1; 100].into()));
    assert!(overlay.nodes[0].finder.held_bytes() > 100);
    overlay.run(RECORD_VALIDITY + Duration::from_secs(60));
    assert_eq!(overlay.nodes[0].finder.held_bytes(), 0, "not longer than records last");
}

#[test]
fn floods_are_bounded() {
    let mut overlay = pair();
    let metrics = overlay.nodes[0].finder.metrics();
    for n in 0..20_000_u64 {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_be_bytes());
        key[31] = 1;
        let key = LookupKey::new(key);
        message(&mut overlay, &store(key, true, vec![2; 6000].into()));
        message(&mut overlay, &Frame::Lookup { key, id: n, hops: 3 });
    }
    assert!(metrics.refused_stores.value() > 19_000);
    assert!(metrics.refused_lookups.value() > 19_000);
    assert!(overlay.nodes[0].finder.held_bytes() <= MAX_HELD_BYTES);
}

#[test]
fn answers_count_only_when_asked_for_and_when_they_hold() {
    let mut overlay = pair();
    let metrics = overlay.nodes[0].finder.metrics();
    let subject = Subject::Agent([5; 32].into());
    let key = LookupKey::of(&subject, epoch(START));
    let found = |id, sealed| Frame::Found {
        key,
        id,
        sealed: vec![sealed],
        referrals: Vec::new(),
        holds: true,
    };
    message(&mut overlay, &found(77, vec![1; 50].into()));
    assert_eq!(metrics.refused_unasked.value(), 1);

    // A record of another agent, sealed as if it were this one's.
    let forged = overlay.record(1, Subject::Agent(overlay.agent(1)));
    let sealed = seal(&subject, epoch(START), &forged.encode());
    let deadline = overlay.now + Duration::from_secs(5);
    let wall = overlay.wall();
    overlay.nodes[0].finder.handle(overlay.now, FinderInput::Wall(wall));
    let finder = &mut overlay.nodes[0].finder;
    finder.handle(overlay.now, FinderInput::Find { ticket: 1, subject, after: None, deadline });
    let mut id = None;
    while let Some(output) = finder.poll_output() {
        if let FinderOutput::Send { frame, .. } = output
            && let Ok(Frame::Lookup { id: asked, .. }) = Frame::decode(&frame)
        {
            id = Some(asked);
        }
    }
    message(&mut overlay, &found(id.expect("asked"), sealed));
    assert_eq!(metrics.refused_records.value(), 1);
    assert!(overlay.nodes[0].found.is_empty());
}

/// What one finder puts out, at one time.
fn handle(finder: &mut Finder, input: FinderInput) -> Vec<FinderOutput> {
    finder.handle(Tick::ZERO, input);
    std::iter::from_fn(|| finder.poll_output()).collect()
}

fn find(ticket: u64, agent: u8) -> FinderInput {
    let deadline = Tick::ZERO + Duration::from_secs(5);
    FinderInput::Find { ticket, subject: Subject::Agent([agent; 32].into()), after: None, deadline }
}

fn up(n: usize) -> FinderInput {
    let (agents, address, remote) = (Vec::new(), address(n), address(n).addresses[0]);
    FinderInput::Up { peer: machine(n), agents, address, remote }
}

/// Machines that are asked as holders, with the key and the number of the question.
fn asked(outputs: &[FinderOutput]) -> Vec<(MachineId, LookupKey, u64)> {
    let lookup = |output: &FinderOutput| {
        let FinderOutput::Send { peer, frame } = output else { return None };
        match Frame::decode(frame) {
            Ok(Frame::Lookup { key, id, hops: 1 }) => Some((*peer, key, id)),
            _ => None,
        }
    };
    outputs.iter().filter_map(lookup).collect()
}

fn dialled(outputs: &[FinderOutput]) -> Vec<MachineId> {
    let dialled = |output: &FinderOutput| match output {
        FinderOutput::Dial(address) => address.id,
        _ => None,
    };
    outputs.iter().filter_map(dialled).collect()
}

/// A finder that asked machine 1, which answers with a record and names these.
fn answered(sealed: &[Bytes], named: &[usize]) -> (Finder, Vec<FinderOutput>) {
    let config = FinderConfig::default();
    let mut finder = Finder::new(machine(0), config, Arc::new(AcceptAll), [7; 32]);
    handle(&mut finder, FinderInput::Wall(START));
    handle(&mut finder, FinderInput::Volunteers(vec![address(1)]));
    assert_eq!(dialled(&handle(&mut finder, find(1, 5))), [machine(1)]);
    let outputs = handle(&mut finder, up(1));
    let [(peer, key, id)] = asked(&outputs)[..] else { panic!("{outputs:?}") };
    let named = named.iter().map(|n| (machine(*n), address(*n).addresses));
    let referrals = named.map(|(machine, addresses)| Referral { machine, addresses }).collect();
    let frame = Frame::Found { key, id, sealed: sealed.to_vec(), referrals, holds: true }.encode();
    let outputs = handle(&mut finder, FinderInput::Message { peer, frame });
    (finder, outputs)
}

#[test]
fn garbage_that_somebody_filed_is_not_its_holders_lie() {
    let (mut finder, outputs) = answered(&[vec![1; 50].into()], &[2]);
    assert_eq!(finder.metrics().refused_records.value(), 1);
    assert_eq!(dialled(&outputs), [machine(2)], "whom it names is asked too");
    let outputs = handle(&mut finder, find(2, 6));
    let peers: Vec<MachineId> = asked(&outputs).iter().map(|(peer, ..)| *peer).collect();
    assert_eq!(peers, [machine(1)], "and it itself the next time");
}

#[test]
fn a_session_revives_who_was_not_reached_and_nobody_who_is_not_believed() {
    let named = [2, 3, 4, 5, 6, 7];
    let (mut finder, outputs) = answered(&[], &named);
    let mut tried = dialled(&outputs);
    for n in 0..2 {
        let failed = FinderInput::DialFailed(tried[n]);
        tried.extend(dialled(&handle(&mut finder, failed)));
    }
    assert!(tried.len() < named.len(), "the rest is not believed: {tried:?}");
    for n in named {
        let questions = asked(&handle(&mut finder, up(n))).len();
        assert_eq!(questions, usize::from(tried.contains(&machine(n))), "machine {n}");
    }
}

#[test]
fn filings_take_no_place_of_callers() {
    let config = FinderConfig::default();
    let mut finder = Finder::new(machine(0), config, Arc::new(AcceptAll), [7; 32]);
    handle(&mut finder, FinderInput::Wall(START));
    // Nobody of these answers a dial.
    handle(&mut finder, FinderInput::Volunteers((1..100).map(address).collect()));
    let overlay = Overlay::new(2, 0, 1);
    let mut dials = 0;
    for n in 0..MAX_OFFERS {
        let topic = Subject::Topic([n as u8; 32].into());
        handle(&mut finder, FinderInput::Offer(topic));
        let record = Box::new(overlay.record(0, topic));
        let publish = FinderInput::Publish { subject: topic, near: record.clone(), far: record };
        dials += dialled(&handle(&mut finder, publish)).len();
    }
    assert_eq!(dials, MAX_FILING_DIALS, "the rest is left to callers");
    for ticket in 0..MAX_SEARCHES as u64 {
        let outputs = handle(&mut finder, find(ticket, ticket as u8));
        let over = |output: &FinderOutput| {
            matches!(output, FinderOutput::Busy { .. } | FinderOutput::Done { .. })
        };
        assert!(!outputs.iter().any(over), "search {ticket}: {outputs:?}");
        dials += dialled(&outputs).len();
    }
    assert_eq!(dials, MAX_DIALS, "at once");
    let outputs = handle(&mut finder, find(1000, 200));
    assert_eq!(outputs, [FinderOutput::Busy { ticket: 1000 }]);
    assert_eq!(finder.metrics().refused_searches.value(), 1);
    // Places that become free are taken at once, those of filings by them, and each call in its turn.
    let mut now = Tick::ZERO;
    let mut tried = 0;
    while let Some(at) = finder.poll_timeout().filter(|at| *at < Tick::from_millis(4000)) {
        now = now.max(at);
        finder.handle_timeout(now);
        while let Some(output) = finder.poll_output() {
            tried += usize::from(matches!(output, FinderOutput::Dial(_)));
        }
    }
    assert!(tried >= MAX_DIALS, "{tried}");
}

#[test]
fn what_a_liar_invents_is_tried_a_few_times() {
    let config = FinderConfig::default();
    let mut finder = Finder::new(machine(0), config, Arc::new(AcceptAll), [7; 32]);
    handle(&mut finder, FinderInput::Wall(START));
    handle(&mut finder, FinderInput::Volunteers(vec![address(1)]));
    handle(&mut finder, find(1, 5));
    let [(peer, key, id)] = asked(&handle(&mut finder, up(1)))[..] else { panic!("one is asked") };
    let mut rng = SeededRng::from_number(3);
    let answer = |referrals| Frame::Found { key, id, sealed: Vec::new(), referrals, holds: true };
    // It names one that is there, and seven nearer ones that are not.
    let mut referrals = invented(&mut rng, &key);
    let there = Referral { machine: machine(2), addresses: address(2).addresses };
    referrals[7] = there;
    let frame = answer(referrals).encode();
    let mut tried = dialled(&handle(&mut finder, FinderInput::Message { peer, frame }));
    assert_eq!(tried.len(), 2, "of one namer, before any is reached: {tried:?}");
    assert!(!tried.contains(&machine(2)));
    for peer in tried.clone() {
        tried.extend(dialled(&handle(&mut finder, FinderInput::DialFailed(peer))));
    }
    assert_eq!(tried.len(), 3, "one more after the first failed, and none after the second");
}

/// One link that was asked to ask on brings a few answers and no more.
#[test]
fn a_link_answers_a_search_a_few_times() {
    let config = FinderConfig::default();
    let mut finder = Finder::new(machine(0), config, Arc::new(AcceptAll), [7; 32]);
    handle(&mut finder, FinderInput::Wall(START));
    handle(&mut finder, up(1));
    let outputs = handle(&mut finder, find(1, 5));
    let walked = outputs.iter().find_map(|output| match output {
        FinderOutput::Send { frame, .. } => match Frame::decode(frame) {
            Ok(Frame::Lookup { key, id, hops: 2.. }) => Some((key, id)),
            _ => None,
        },
        _ => None,
    });
    let (key, id) = walked.expect("asked to ask on");
    let sealed = vec![vec![1; 50].into()];
    let frame = Frame::Found { key, id, sealed, referrals: Vec::new(), holds: true }.encode();
    for _ in 0..100 {
        handle(&mut finder, FinderInput::Message { peer: machine(1), frame: frame.clone() });
    }
    let metrics = finder.metrics();
    assert_eq!(metrics.refused_unasked.value() + metrics.refused_records.value(), 100);
    assert!(metrics.refused_records.value() <= 6, "{}", metrics.refused_records.value());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_survived(frames in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 0..120), 1..20,
    )) {
        let mut overlay = pair();
        for frame in frames {
            overlay.input(0, FinderInput::Message { peer: machine(1), frame: frame.into() });
        }
        overlay.run(Duration::from_secs(1));
        prop_assert!(overlay.nodes[0].found.is_empty());
    }
}
