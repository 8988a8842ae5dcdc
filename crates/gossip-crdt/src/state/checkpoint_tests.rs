//! Checkpoints between a few replicas: made, checked, taken, refused, and against each other.

use std::{convert::Infallible, time::Duration};

use x0x_core::TopicId;

use super::*;
use crate::{
    config::{MAX_CHECKPOINTS, MAX_PIECE, MAX_PIECES},
    error::WriteError,
    testing::{Sample, SampleOp},
};

const OBJECT: TopicId = TopicId::new([9; 32]);
const OWNER: u8 = 1;

fn agent(n: u8) -> AgentId {
    AgentId::new([n; 32])
}

/// One replica, and the chain that it writes.
struct Peer {
    machine: ObjectMachine<Sample>,
    id: AgentId,
    epoch: u64,
    seq: u64,
    wall: u64,
}

impl Peer {
    fn new(n: u8) -> Self {
        let machine = ObjectMachine::new(OBJECT, Some(agent(OWNER)), agent(n), Arc::default());
        Self { machine, id: agent(n), epoch: 1, seq: 0, wall: 1_800_000_000_000 }
    }

    /// A device of the owner in an epoch of its own.
    fn device(epoch: u64) -> Self {
        Self { epoch, ..Self::new(OWNER) }
    }

    fn now(&mut self) -> WallTime {
        self.wall += 10;
        WallTime::from_millis(self.wall)
    }

    fn entries(&mut self, prepared: Prepared) -> Vec<Entry> {
        let time = WallTime::from_millis(self.wall);
        let mut entries = Vec::new();
        for payload in prepared.payloads {
            self.seq += 1;
            let (author, epoch, seq) = (self.id, self.epoch, self.seq);
            self.machine.handle(Tick::ZERO, Input::Accepted { write: None, epoch, seq });
            entries.push(Entry { author, epoch, seq, time, payload });
        }
        self.read(&entries);
        entries
    }

    fn write(&mut self, op: &SampleOp) -> Vec<Entry> {
        let now = self.now();
        let prepared = self.machine.prepare::<Infallible>(now, op).expect("it may");
        self.entries(prepared)
    }

    fn add(&mut self, element: &str) -> Vec<Entry> {
        self.write(&SampleOp::Add(element.to_owned()))
    }

    fn change(&mut self, change: PolicyChange) -> Vec<Entry> {
        let now = self.now();
        let prepared = self.machine.prepare_change::<Infallible>(now, change).expect("it may");
        self.entries(prepared)
    }

    fn checkpoint(&mut self) -> Vec<Entry> {
        let now = self.now();
        let prepared = self.machine.prepare_checkpoint(now).expect("it may");
        self.entries(prepared)
    }

    fn read(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.machine.handle(Tick::ZERO, Input::Entry(entry.clone()));
        }
    }

    /// Reads a log as often as it asks for it.
    fn read_log(&mut self, log: &[Entry]) {
        let mut again = true;
        while again {
            self.read(log);
            let outputs = std::iter::from_fn(|| self.machine.poll_output());
            again = outputs.filter(|output| matches!(output, Output::Reread)).count() > 0;
        }
    }

    fn has(&self, element: &str) -> bool {
        self.machine.state().elements.contains(&element.to_owned())
    }
}

fn everyone() -> PolicyChange {
    PolicyChange::Rules { kind: 0, everyone: true }
}

/// An owner, a writer who has what the owner has, and their log.
fn pair() -> (Peer, Peer, Vec<Entry>) {
    let (mut owner, mut writer) = (Peer::new(OWNER), Peer::new(2));
    let mut log = owner.change(everyone());
    writer.read(&log);
    log.extend(writer.add("early"));
    owner.read_log(&log);
    (owner, writer, log)
}

/// What is left of a log when what was let go is gone.
fn rest(log: &[Entry], gone: &[(AgentId, u64, u64)]) -> Vec<Entry> {
    let kept = |entry: &&Entry| {
        !gone
            .iter()
            .any(|gone| (gone.0, gone.1) == (entry.author, entry.epoch) && entry.seq <= gone.2)
    };
    log.iter().filter(kept).cloned().collect()
}

#[test]
fn who_holds_it_checks_it_and_who_comes_late_takes_it() {
    let (mut owner, mut writer, mut log) = pair();
    for round in 1..=3_u64 {
        log.extend(owner.checkpoint());
        owner.read_log(&log);
        writer.read_log(&log);
        log.extend(writer.add(&format!("after {round}")));
        owner.read_log(&log);
        assert_eq!((owner.machine.checkpoint(), writer.machine.checkpoint()), (round, round));
        assert_eq!(owner.machine.hash(), writer.machine.hash());
        assert_eq!(writer.machine.let_go().is_empty(), round == 1, "one has to be before the last");
    }
    let gone = writer.machine.let_go();
    let left = rest(&log, &gone);
    assert!(left.len() < log.len());
    let mut late = Peer::new(3);
    late.read_log(&left);
    assert!(!late.has("early") && !late.machine.is_settled(), "it waits for what may come");
    late.machine.handle_timeout(Tick::ZERO + Duration::from_secs(6));
    late.read_log(&left);
    assert!(late.has("early") && late.has("after 3") && late.machine.is_settled());
    assert_eq!(late.machine.hash(), owner.machine.hash());
    assert!(late.machine.let_go().is_empty(), "it did not check what it took");
    log.extend(late.add("late"));
    owner.read_log(&log);
    assert!(owner.has("late"));
    assert_eq!(late.machine.hash(), owner.machine.hash());
}

#[test]
fn who_was_away_keeps_what_it_wrote() {
    let (mut owner, mut writer, mut log) = pair();
    let mut away = Peer::new(3);
    away.read_log(&log);
    let own = away.add("away");
    let mut at_home = log.clone();
    at_home.extend(own.clone());
    for n in 0..3 {
        log.extend(writer.add(&n.to_string()));
        owner.read_log(&log);
        log.extend(owner.checkpoint());
        owner.read_log(&log);
        writer.read_log(&log);
    }
    at_home.extend(rest(&log, &owner.machine.let_go()));
    away.read_log(&at_home);
    away.machine.handle_timeout(Tick::ZERO + Duration::from_secs(6));
    away.read_log(&at_home);
    assert!(away.has("away") && away.has("0") && away.has("2"));
    log.extend(own);
    writer.read_log(&log);
    assert_eq!(away.machine.hash(), writer.machine.hash());
}

#[test]
fn who_has_lost_its_log_takes_what_it_cannot_check() {
    let (mut owner, mut writer, log) = pair();
    writer.read_log(&log);
    let made = owner.checkpoint();
    writer.read_log(&made);
    let mut now = Tick::ZERO;
    while writer.machine.checkpoint() == 0 {
        assert!(now < Tick::ZERO + Duration::from_secs(600), "{now:?}");
        now = writer.machine.poll_timeout().expect("it waits");
        writer.machine.handle_timeout(now);
        for entry in &made {
            writer.machine.handle(now, Input::Entry(entry.clone()));
        }
    }
    writer.read_log(&made);
    assert!(writer.has("early") && writer.machine.is_settled());
    assert!(writer.machine.let_go().is_empty());
}

#[test]
fn a_false_one_is_skipped_by_who_knows_better() {
    let (mut owner, mut writer, mut log) = pair();
    log.extend(writer.add("kept"));
    writer.read_log(&log);
    owner.read_log(&log);
    let mut liar = Peer::new(OWNER);
    liar.read(&log[..1]);
    let now = liar.now();
    let lie = liar.machine.prepare_checkpoint(now).expect("it may");
    // It says that it covers what it does not carry.
    let cover = owner.machine.actors.vector().collect::<Vec<_>>();
    let mut payloads = lie.payloads;
    let last = payloads.pop().expect("there is one");
    let told = OperationIn::decode(&last).expect("it is one");
    let Body::Checkpoint(told) = told.body else { panic!("it is the last") };
    let told = Body::Checkpoint(Arc::new(Checkpoint { cover, ..Checkpoint::clone(&told) }));
    payloads.push(OperationIn { ahead: 0, deps: Vec::new(), body: told }.encode());
    log.extend(owner.entries(Prepared { payloads }));
    for peer in [&mut owner, &mut writer] {
        peer.read_log(&log);
        assert_eq!(peer.machine.checkpoint(), 0);
        assert!(peer.machine.is_settled() && peer.machine.let_go().is_empty() && peer.has("kept"));
        assert_eq!(peer.machine.metrics.checkpoints_refused.value(), 1);
    }
    log.extend(owner.checkpoint());
    writer.read_log(&log);
    assert_eq!(writer.machine.checkpoint(), 1, "the next true one counts");
}

#[test]
fn of_two_at_once_all_stand_on_the_same() {
    let (mut owner, mut writer, mut log) = pair();
    let mut other = Peer::device(2);
    other.read_log(&log);
    let theirs = other.add("other");
    let (first, second) = (owner.checkpoint(), other.checkpoint());
    let more = log.clone();
    let mut orders =
        [vec![&theirs, &first, &second], vec![&second, &theirs, &first]].map(|order| {
            let entries = order.into_iter().flatten().cloned();
            more.iter().cloned().chain(entries).collect::<Vec<_>>()
        });
    orders[1].reverse();
    let mut late = Peer::new(4);
    late.read_log(&orders[1]);
    writer.read_log(&orders[0]);
    assert_eq!(late.machine.hash(), writer.machine.hash());
    owner.read_log(&orders[1]);
    other.read_log(&orders[0]);
    log = orders[0].clone();
    // Whichever goes on stands on it, too; what stands on more counts.
    log.extend(other.checkpoint());
    for peer in [&mut owner, &mut other, &mut writer, &mut late] {
        peer.read_log(&log);
        assert_eq!(peer.machine.checkpoint(), 2);
    }
    assert_eq!(late.machine.hash(), owner.machine.hash());
    assert_eq!(late.machine.hash(), other.machine.hash());
}

#[test]
fn what_is_covered_is_not_taken_back() {
    let (mut owner, mut writer, mut log) = pair();
    log.extend(owner.checkpoint());
    owner.read_log(&log);
    writer.read_log(&log);
    log.extend(writer.add("beyond"));
    let remove = PolicyChange::Remove { agent: agent(2), cut: Vec::new() };
    log.extend(owner.change(remove));
    for peer in [&mut owner, &mut writer] {
        peer.read_log(&log);
        assert!(peer.has("early") && !peer.has("beyond"));
    }
    assert_eq!(owner.machine.hash(), writer.machine.hash());
}

#[test]
fn a_stored_replica_knows_what_it_stands_on() {
    let (mut owner, mut writer, mut log) = pair();
    for _ in 0..2 {
        log.extend(owner.checkpoint());
        owner.read_log(&log);
    }
    writer.read_log(&log);
    let saved = writer.machine.save();
    let load = |bytes: &[u8]| {
        let (owner, me) = (Some(agent(OWNER)), agent(2));
        ObjectMachine::<Sample>::load(OBJECT, owner, me, Arc::default(), bytes)
    };
    let mut again = load(&saved).expect("it was stored");
    assert_eq!((again.save(), again.checkpoint()), (saved.clone(), 2));
    assert_eq!(again.let_go(), writer.machine.let_go());
    assert!(load(&saved[..saved.len() - 1]).is_err());
    assert!(load(&writer.machine.encode()).is_ok(), "as it was stored before");
}

#[test]
fn what_is_heard_of_checkpoints_is_bounded() {
    let (_, mut writer, log) = pair();
    writer.read_log(&log);
    let mut hostile = Peer::device(7);
    let mut entries = Vec::new();
    for number in 1..=3 * MAX_CHECKPOINTS as u64 {
        let cover = vec![Dot { actor: ActorTag::default(), seq: number }];
        let before = (number > 1).then(Dot::default);
        let pieces = MAX_PIECES;
        let checkpoint = Checkpoint { number, before, hash: [0; 32], pieces, cover };
        for body in [Body::Piece(vec![0; MAX_PIECE].into()), Body::Checkpoint(Arc::new(checkpoint))]
        {
            let payload = OperationIn { ahead: 0, deps: Vec::new(), body }.encode();
            entries.extend(hostile.entries(Prepared { payloads: vec![payload] }));
        }
        // Others may say what they like.
        let (author, time) = (agent(5), WallTime::from_millis(1));
        let entry = entries.last().expect("there is one").clone();
        writer.read(&[Entry { author, time, seq: number, ..entry }]);
        assert_eq!(writer.machine.checkpoints.known.len(), 0);
    }
    writer.read_log(&entries);
    assert_eq!(writer.machine.checkpoints.known.len(), MAX_CHECKPOINTS);
    assert!(writer.machine.is_settled() && writer.has("early"));
    writer.machine.handle_timeout(Tick::ZERO + Duration::from_secs(600));
    assert!(writer.machine.checkpoints.taking.is_none(), "they cover what nobody wrote");
}

#[test]
fn one_is_due_after_enough_was_written_and_writing_ends_when_none_comes() {
    let (mut owner, mut writer, mut log) = pair();
    let op = |n: u64| SampleOp::Title((n % 3).to_string().repeat(60_000));
    let mut round = 0;
    while !owner.machine.checkpoint_due() {
        round += 1;
        assert!(round < 100);
        log.extend(writer.write(&op(round)));
        owner.read_log(&log);
        assert!(!writer.machine.checkpoint_due(), "it is not its own");
    }
    assert!((30..40).contains(&round), "{round}");
    let full = loop {
        round += 1;
        let now = writer.now();
        match writer.machine.prepare::<Infallible>(now, &op(round)) {
            Ok(prepared) => log.extend(writer.entries(prepared)),
            Err(error) => break error,
        }
    };
    assert_eq!(full, WriteError::Full);
    owner.read_log(&log);
    log.extend(owner.checkpoint());
    owner.read_log(&log);
    assert!(!owner.machine.checkpoint_due());
    writer.read_log(&log);
    assert!(writer.machine.is_uncovered(), "it is all in the log yet");
    for _ in 0..2 {
        log.extend(owner.checkpoint());
        owner.read_log(&log);
    }
    writer.read_log(&log);
    assert_eq!((writer.machine.checkpoint(), writer.machine.is_uncovered()), (3, false));
    log.extend(writer.write(&op(0)));
}
