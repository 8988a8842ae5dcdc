//! A wall clock that is wrong for a while costs nothing that is stored.

use std::{sync::Arc, time::Duration};

use x0x_core::{Machine as _, Tick, WallTime};
use x0x_gossip_pubsub::{
    Input, Limits, LogChange, NetworkId, Output, PubSubMachine, Start, StoredChain, StoredRun,
    StoredTopic, testing::RunForge, topic_id,
};
use x0x_identity::testing::key;

use super::harness::WALL;

const HOUR: Duration = Duration::from_secs(3600);

/// What was removed for its age.
fn removed(machine: &mut PubSubMachine, now: Tick, wall: WallTime) -> Vec<LogChange> {
    machine.handle(now, Input::Wall(wall));
    machine.handle_timeout(now);
    let outputs = std::iter::from_fn(|| machine.poll_output());
    let changes = outputs.filter_map(|output| match output {
        Output::Persist(change) => Some(change),
        _ => None,
    });
    changes.collect()
}

#[test]
fn a_boot_with_the_clock_ahead_removes_nothing_until_the_clock_has_lasted() {
    let (network, topic) = (NetworkId::from_name("clocks"), topic_id("kept"));
    let forge = RunForge::new(key(2), network, topic, WALL);
    let run = forge.run(None, &[b"kept"]);
    let stored = || StoredTopic {
        incarnation: 5,
        end: 1,
        gone: 0,
        runs: vec![StoredRun { position: 0, missed: 0, begins: true, run: run.encoded().clone() }],
        chains: vec![StoredChain::after(&run)],
        keys: vec![(forge.author(), forge.key.public_key().as_bytes().to_vec().into())],
        blocked: Vec::new(),
    };
    let public = key(1).public_key().clone();
    let start = || {
        let limits = Limits::default();
        PubSubMachine::new(network, public.clone(), limits, Arc::default()).stored()
    };
    let mut machine = start();
    let ahead = WALL + HOUR * 26;
    assert!(removed(&mut machine, Tick::ZERO, ahead).is_empty());
    machine.subscribe(Tick::ZERO, topic, Start::Retained).expect("subscribed");
    let restored = Some(Box::new(stored().check(network, topic)));
    machine.handle(Tick::ZERO, Input::Restored { topic, stored: restored });
    assert!(removed(&mut machine, Tick::ZERO, ahead).is_empty());
    // It is set right after ten minutes, and believed once it has lasted.
    for minutes in [10, 30, 59] {
        let by = Duration::from_secs(60) * minutes;
        assert!(removed(&mut machine, Tick::ZERO + by, WALL + by).is_empty());
    }
    let changes = removed(&mut machine, Tick::ZERO + HOUR, WALL + HOUR);
    assert!(changes.iter().all(|change| match change {
        LogChange::Expire { before } => *before < WALL,
        _ => false,
    }));
    assert_eq!(machine.snapshot().topics[0].entries, 1);
    // What is old by a clock that lasts goes, from memory and from the store.
    let mut changes = Vec::new();
    for hours in 2..30 {
        changes.extend(removed(&mut machine, Tick::ZERO + HOUR * hours, WALL + HOUR * hours));
    }
    assert!(changes.iter().any(|change| matches!(change, LogChange::EvictTo { .. })));
    assert!(changes.iter().any(|change| match change {
        LogChange::Expire { before } => *before > WALL,
        _ => false,
    }));
}
