//! The machine alone: two of them over a wire that loses sessions, and a hostile one.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use proptest::prelude::*;
use x0x_core::{AgentId, Machine, MachineId, Tick, WallTime};
use x0x_trust::{Reason, testing::FakePolicy};

mod trust;
mod turns;

use super::{Change, FilesMachine, Input, Output, Prepared};
use crate::{
    config::{FilesConfig, MAX_HISTORY, MAX_OFFERS_PER_STRANGER, MAX_UNASKED, MAX_WINDOW},
    error::WorkError,
    id::TransferId,
    metrics::FilesMetrics,
    ranges::RangeSet,
    record::{Direction, FileEvent, Phase, Record},
    tree::{GROUP, group_len, groups},
    wire::{FrameIn, OfferIn, SliceIn, Standing, Status, Want},
};

fn agent(n: usize) -> AgentId {
    AgentId::new([n as u8 + 1; 32])
}

fn host(n: usize) -> MachineId {
    MachineId::new([n as u8 + 101; 32])
}

fn config(n: usize) -> FilesConfig {
    let mut config = FilesConfig::new(vec![agent(n)]);
    config.keep_free = 0;
    config
}

fn machine(n: usize) -> FilesMachine {
    FilesMachine::new(config(n), Arc::new(FakePolicy::new()), Arc::new(FilesMetrics::default()))
}

/// The same, whose peer is a contact.
fn friend(n: usize) -> FilesMachine {
    let policy = FakePolicy::new();
    policy.set(agent(1 - n), Reason::Known);
    FilesMachine::new(config(n), Arc::new(policy), Arc::new(FilesMetrics::default()))
}

fn outgoing(id: u8, from: usize, to: usize) -> Record {
    Record {
        id: TransferId::new([id; 16]),
        direction: Direction::Sending,
        peer: agent(to),
        machine: None,
        local: agent(from),
        name: format!("file {id}"),
        size: 0,
        root: None,
        sha256: None,
        media_type: String::new(),
        phase: Phase::Preparing,
        reason: None,
        started: WallTime::from_millis(0),
        ended: None,
        source: Some("/file".into()),
        modified: 0,
        folder: None,
        output: None,
    }
}

/// One end: its machine, and a disk that keeps groups without content.
struct End {
    machine: FilesMachine,
    records: BTreeMap<TransferId, Record>,
    stored: BTreeMap<TransferId, RangeSet>,
    /// Stored more than once in one life.
    complete: BTreeSet<TransferId>,
    work: VecDeque<Input>,
    full: bool,
}

/// Two ends and what is on the way between them.
struct World {
    now: Tick,
    size: u64,
    ends: [End; 2],
    connected: bool,
    wire: VecDeque<(usize, Input)>,
    served: u64,
}

impl World {
    fn new(size: u64) -> Self {
        let end = |n| End {
            machine: friend(n),
            records: BTreeMap::new(),
            stored: BTreeMap::new(),
            complete: BTreeSet::new(),
            work: VecDeque::new(),
            full: false,
        };
        Self {
            now: Tick::ZERO,
            size,
            ends: [end(0), end(1)],
            connected: false,
            wire: VecDeque::new(),
            served: 0,
        }
    }

    fn handle(&mut self, n: usize, input: Input) {
        self.ends[n].machine.handle(self.now, input);
        self.carry_out(n);
    }

    fn connect(&mut self) {
        if !std::mem::replace(&mut self.connected, true) {
            for n in [0, 1] {
                self.handle(n, Input::Up { peer: host(1 - n), agents: vec![agent(1 - n)] });
            }
        }
    }

    fn disconnect(&mut self) {
        if std::mem::take(&mut self.connected) {
            self.wire.clear();
            for n in [0, 1] {
                self.handle(n, Input::Down(host(1 - n)));
            }
        }
    }

    /// The process of one end is killed and started again.
    fn restart(&mut self, n: usize) {
        self.disconnect();
        let end = &mut self.ends[n];
        end.machine = friend(n);
        end.work.clear();
        let records = end.records.values().cloned().collect();
        self.handle(n, Input::Loaded(records));
    }

    fn carry_out(&mut self, n: usize) {
        while let Some(output) = self.ends[n].machine.poll_output() {
            self.output(n, output);
        }
    }

    fn output(&mut self, n: usize, output: Output) {
        let size = self.size;
        let end = &mut self.ends[n];
        match output {
            Output::Transmit { frame, .. } if self.connected => {
                self.wire.push_back((1 - n, Input::Frame { peer: host(n), frame }));
            }
            Output::Save(record) => drop(end.records.insert(record.id, *record)),
            Output::Forget(record) => {
                end.records.remove(&record.id);
                end.stored.remove(&record.id);
            }
            Output::Discard(record) => {
                if record.phase == Phase::Complete
                    && record.direction == Direction::Receiving
                    && let Some(stored) = end.stored.remove(&record.id)
                {
                    assert_eq!(stored, RangeSet::of(0..groups(size)));
                    assert!(end.complete.insert(record.id), "complete once");
                }
                end.stored.remove(&record.id);
            }
            Output::Prepare(record) => {
                let prepared = Prepared { size, root: [7; 32], sha256: [8; 32], modified: 1 };
                end.work.push_back(Input::Prepared { id: record.id, result: Ok(prepared) });
            }
            Output::Serve { peer, session, record, groups } => {
                let mut bytes = 0;
                for group in groups {
                    let len = group_len(size, group);
                    bytes += len as u64;
                    let slice = SliceIn {
                        id: record.id,
                        group,
                        proof: Bytes::new(),
                        content: Bytes::new(),
                    };
                    if self.connected {
                        let input = Input::Content { peer: host(n), frame: slice.encode() };
                        self.wire.push_back((1 - n, input));
                    }
                }
                self.served += bytes;
                end.work.push_back(Input::Served {
                    peer,
                    session,
                    id: record.id,
                    sent: bytes,
                    left: 0..0,
                    result: Ok(()),
                });
            }
            Output::LookForSpace { id, .. } => {
                let free = if end.full { 0 } else { u64::MAX };
                end.work.push_back(Input::Space { id, free: Ok(free) });
            }
            Output::Open(record) => {
                let there = end.stored.entry(record.id).or_default().clone();
                end.work.push_back(Input::Opened { id: record.id, result: Ok(there) });
            }
            Output::Store(slice) => {
                let result = if end.full { Err(WorkError::NoSpace) } else { Ok(()) };
                if result.is_ok() {
                    let stored = end.stored.entry(slice.id).or_default();
                    stored.insert(slice.group..slice.group + 1);
                }
                end.work.push_back(Input::Stored { id: slice.id, group: slice.group, result });
            }
            Output::Finish(id) => {
                end.work.push_back(Input::Finished { id, result: Ok("/out".into()) });
            }
            Output::Event(event) => {
                if let FileEvent::Offered(info) = *event {
                    let change = Change::Accept { folder: None };
                    end.work.push_back(Input::Change { ticket: 1, id: info.record.id, change });
                }
            }
            _ => {}
        }
    }

    fn step(&mut self, what: u8) {
        match what % 16 {
            0 => self.disconnect(),
            1 | 2 => self.connect(),
            3 => self.restart(usize::from(what >= 128)),
            4 => {
                let full = &mut self.ends[1].full;
                *full = !*full;
            }
            5 => self.later(Duration::from_secs(7)),
            6 => {
                let n = usize::from(what >= 128);
                let change = if what % 32 < 16 { Change::Pause } else { Change::Resume };
                let ids: Vec<_> = self.ends[n].records.keys().copied().collect();
                for id in ids {
                    self.handle(n, Input::Change { ticket: 9, id, change: change.clone() });
                }
            }
            7..=10 => {
                if let Some((n, input)) = self.wire.pop_front() {
                    self.handle(n, input);
                }
            }
            _ => {
                let n = usize::from(what >= 128);
                if let Some(input) = self.ends[n].work.pop_front() {
                    self.handle(n, input);
                }
            }
        }
    }

    fn later(&mut self, time: Duration) {
        self.now = self.now + time;
        for n in [0, 1] {
            self.ends[n].machine.handle_timeout(self.now);
            self.carry_out(n);
        }
    }

    /// Lets everything that can happen without trouble happen.
    fn settle(&mut self) {
        self.ends[1].full = false;
        for _ in 0..40 {
            self.connect();
            for n in [0, 1] {
                let ids: Vec<_> = self.ends[n].records.keys().copied().collect();
                for id in ids {
                    self.handle(n, Input::Change { ticket: 9, id, change: Change::Resume });
                    // The user may have asked just before a crash.
                    let change = Change::Accept { folder: None };
                    self.handle(n, Input::Change { ticket: 9, id, change });
                }
            }
            loop {
                let mut idle = true;
                for n in [0, 1] {
                    while let Some(input) = self.ends[n].work.pop_front() {
                        self.handle(n, input);
                        idle = false;
                    }
                }
                if let Some((n, input)) = self.wire.pop_front() {
                    self.handle(n, input);
                    idle = false;
                }
                if idle {
                    break;
                }
            }
            self.later(Duration::from_secs(30));
        }
    }

    fn phases(&self, n: usize) -> Vec<Phase> {
        self.ends[n].machine.infos().iter().map(|info| info.record.phase).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever ends sessions and processes, fills disks and stops transfers: both ends end complete.
    #[test]
    fn every_transfer_ends_complete(
        count in 1_u8..6,
        size in prop_oneof![Just(0), 1..3 * GROUP, 100 * GROUP..140 * GROUP],
        steps in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let mut world = World::new(size);
        world.connect();
        for id in 0..count {
            world.handle(0, Input::Send { ticket: 1, record: Box::new(outgoing(id, 0, 1)) });
        }
        for what in steps {
            world.step(what);
        }
        world.settle();
        prop_assert_eq!(world.phases(0), vec![Phase::Complete; count.into()]);
        prop_assert_eq!(world.phases(1), vec![Phase::Complete; count.into()]);
        prop_assert_eq!(world.ends[1].complete.len(), usize::from(count));
        prop_assert!(world.ends.iter().all(|end| end.machine.poll_timeout().is_none()), "nothing is left to do");
    }

    /// Frames of any content and order never panic, and never make the machine grow past its bounds.
    #[test]
    fn a_hostile_peer_is_bounded(frames in prop::collection::vec((0_u8..7, any::<u64>(), any::<u64>(), 0_u8..30), 1..300)) {
        let mut machine = machine(0);
        machine.handle(Tick::ZERO, Input::Up { peer: host(1), agents: vec![agent(1)] });
        let (mut opens, mut stores) = (Vec::new(), 0);
        for (kind, a, b, id) in frames {
            let id = TransferId::new([id; 16]);
            let frame = match kind {
                0 => FrameIn::Offer(OfferIn {
                    id, from: agent(1), to: agent(0), name: "../x".into(), size: a, root: [1; 32],
                    sha256: None, media_type: String::new(),
                }),
                1 => FrameIn::Want(Want { id, ranges: vec![(a.min(b), 1), (a / 2, b / 2)], verified: b }),
                2..=4 => FrameIn::Status(Status {
                    id, standing: [Standing::Active, Standing::Complete, Standing::Cancelled][kind as usize - 2],
                    verified: a, reason: "x".into(),
                }),
                _ => {
                    let slice = SliceIn { id, group: a % 50, proof: Bytes::new(), content: Bytes::new() };
                    machine.handle(Tick::ZERO, Input::Content { peer: host(1), frame: slice.encode() });
                    continue;
                }
            };
            machine.handle(Tick::ZERO, Input::Frame { peer: host(1), frame: frame.encode() });
            machine.handle(Tick::ZERO, Input::Change { ticket: 0, id, change: Change::Accept { folder: None } });
            while let Some(output) = machine.poll_output() {
                match output {
                    Output::LookForSpace { id, .. } => {
                        machine.handle(Tick::ZERO, Input::Space { id, free: Ok(u64::MAX) });
                    }
                    Output::Open(record) => opens.push(record.id),
                    Output::Store(_) => stores += 1,
                    _ => {}
                }
            }
            for id in opens.drain(..) {
                machine.handle(Tick::ZERO, Input::Opened { id, result: Ok(RangeSet::new()) });
            }
            let open = machine.infos().iter().filter(|info| info.record.phase == Phase::Offered).count();
            prop_assert!(open <= MAX_OFFERS_PER_STRANGER);
            prop_assert!(stores <= MAX_WINDOW * 30);
        }
    }
}

#[test]
fn nothing_is_sent_twice_when_only_the_session_breaks() {
    let mut world = World::new(50 * GROUP + 5);
    world.connect();
    world.handle(0, Input::Send { ticket: 1, record: Box::new(outgoing(1, 0, 1)) });
    world.settle();
    assert_eq!(world.served, 50 * GROUP + 5);
}

#[test]
fn unasked_content_ends_the_session() {
    let mut machine = machine(0);
    machine.handle(Tick::ZERO, Input::Up { peer: host(1), agents: vec![agent(1)] });
    let slice = SliceIn {
        id: TransferId::new([1; 16]),
        group: 0,
        proof: Bytes::new(),
        content: Bytes::new(),
    };
    let frame = slice.encode();
    for sent in 1..=MAX_UNASKED {
        machine.handle(Tick::ZERO, Input::Content { peer: host(1), frame: frame.clone() });
        let ended = machine.poll_output() == Some(Output::Disconnect(host(1)));
        assert_eq!(ended, sent == MAX_UNASKED);
    }
    machine.handle(Tick::ZERO, Input::Frame { peer: host(1), frame: Bytes::from_static(&[9]) });
    assert_eq!(machine.poll_output(), Some(Output::Disconnect(host(1))));
}

#[test]
fn what_strangers_withdraw_leaves_no_trace() {
    let mut machine = machine(0);
    let up = || Input::Up { peer: host(1), agents: vec![agent(1)] };
    for n in 0..MAX_HISTORY + 100 {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        let id = TransferId::new(id);
        machine.handle(Tick::ZERO, up());
        let offer = OfferIn {
            id,
            from: agent(1),
            to: agent(0),
            name: "x".into(),
            size: 1,
            root: [1; 32],
            sha256: None,
            media_type: String::new(),
        };
        let frame = FrameIn::Offer(offer).encode();
        machine.handle(Tick::ZERO, Input::Frame { peer: host(1), frame });
        assert_eq!(machine.infos().len(), 1);
        let status =
            Status { id, standing: Standing::Cancelled, verified: 0, reason: String::new() };
        let frame = FrameIn::Status(status).encode();
        machine.handle(Tick::ZERO, Input::Frame { peer: host(1), frame });
        assert!(machine.infos().is_empty());
        while machine.poll_output().is_some() {}
    }
}

#[test]
fn what_a_crash_left_of_ended_transfers_is_dropped() {
    let mut ended = outgoing(1, 0, 1);
    (ended.phase, ended.ended) = (Phase::Complete, Some(WallTime::from_millis(5)));
    let mut machine = machine(0);
    machine.handle(Tick::ZERO, Input::Loaded(vec![ended.clone()]));
    let outputs: Vec<_> = std::iter::from_fn(|| machine.poll_output()).collect();
    assert_eq!(outputs, vec![Output::Discard(Box::new(ended))]);
}
