//! What a peer with a valid session may try.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use x0x_core::Machine;
use x0x_rendezvous::{
    FinderInput, Frame, LookupKey, MAX_HELD_BYTES, RECORD_VALIDITY, Subject, epoch, seal,
};

use crate::overlay::{Overlay, START, machine};

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
    finder.handle(overlay.now, FinderInput::Find { ticket: 1, subject, deadline });
    let mut id = None;
    while let Some(output) = finder.poll_output() {
        if let x0x_rendezvous::FinderOutput::Send { frame, .. } = output
            && let Ok(Frame::Lookup { id: asked, .. }) = Frame::decode(&frame)
        {
            id = Some(asked);
        }
    }
    message(&mut overlay, &found(id.expect("asked"), sealed));
    assert_eq!(metrics.refused_records.value(), 1);
    assert!(overlay.nodes[0].found.is_empty());
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
