//! The pure machine: offers and answers, who may send what when, and what is still missing.
//!
//! Both ends keep a record of a transfer. Whoever meets the other says how it stands: the sender by
//! repeating its offer, the receiver by its status. So a lost frame, a crash or a change of session
//! costs nothing but a repetition. Content is asked for in a window that moves as it is stored, so that
//! a slow disk slows its sender down.

mod change;
mod due;
mod event;
mod ignored;
mod incoming;
mod outgoing;
mod peers;
#[cfg(test)]
mod tests;
mod transfer;
mod turns;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use x0x_core::{AgentId, Machine, MachineId, Tick, TokenBucket, WallTime};
use x0x_trust::Policy;

pub use self::event::{Change, Changed, Input, Output, Prepared};
use self::{
    peers::Claim,
    transfer::{Held, Incoming, Outgoing, Side, Stage, Transfer},
};
use crate::{
    config::{FilesConfig, MAX_HISTORY, MAX_LIVE},
    error::ChangeTransferError,
    id::TransferId,
    metrics::FilesMetrics,
    record::{Direction, FileEvent, Phase, Record, TransferInfo, Waiting},
    wire::{FrameIn, Standing, Status},
};

/// Offers that a machine may make at once after a quiet time, and how often after that: more than may be
/// open, so that only those are refused who withdraw and offer again.
const OFFER_BURST: u32 = 64;
const OFFER_EVERY: Duration = Duration::from_secs(1);
/// The same of offers that are known, which are answered and nothing else: more than a sender may have.
const REPEAT_BURST: u32 = 512;
const REPEAT_EVERY: Duration = Duration::from_millis(100);
/// The same of frames of any kind: more than it takes to ask for the content of all files that are received
/// at once over a line of 10 Gbit/s.
const FRAME_BURST: u32 = 4096;
const FRAME_EVERY: Duration = Duration::from_micros(250);
/// How often a pause doubles: eight times the first wait for content.
const MAX_DOUBLINGS: u32 = 3;
/// Pause before the disk is asked again to take a record.
const SAVE_AGAIN: Duration = Duration::from_secs(5);

/// A session, as the machine sees it.
#[derive(Debug)]
struct Session {
    number: u64,
    agents: Vec<AgentId>,
    frames: TokenBucket,
    offers: TokenBucket,
    repeats: TokenBucket,
    /// Groups that came as asked for, and when the last one did.
    groups: u64,
    heard: Option<Tick>,
    /// Content frames that nobody asked for.
    unasked: u32,
    jobs: usize,
    /// Takes no content for now.
    stalled: bool,
    /// Which transfer was served last.
    turn: Option<TransferId>,
}

/// The protocol of file transfers; see the module's documentation.
#[derive(Debug)]
pub struct FilesMachine {
    config: FilesConfig,
    policy: Arc<dyn Policy>,
    metrics: Arc<FilesMetrics>,
    wall: WallTime,
    sessions: BTreeMap<MachineId, Session>,
    next_session: u64,
    live: BTreeMap<TransferId, Transfer>,
    history: BTreeMap<TransferId, Record>,
    ignored: ignored::Ignored,
    unsaved: BTreeMap<TransferId, Tick>,
    /// Somebody may be served who could not be before.
    serve_due: bool,
    /// The same for files that wait to be opened, and offers that wait for a rule.
    turn_due: bool,
    next_turn: u64,
    outputs: VecDeque<Output>,
}

impl FilesMachine {
    /// A machine without transfers.
    #[must_use]
    pub const fn new(
        config: FilesConfig,
        policy: Arc<dyn Policy>,
        metrics: Arc<FilesMetrics>,
    ) -> Self {
        Self {
            config,
            policy,
            metrics,
            wall: WallTime::from_millis(0),
            sessions: BTreeMap::new(),
            next_session: 0,
            live: BTreeMap::new(),
            history: BTreeMap::new(),
            ignored: ignored::Ignored::new(),
            unsaved: BTreeMap::new(),
            serve_due: false,
            turn_due: false,
            next_turn: 0,
            outputs: VecDeque::new(),
        }
    }

    /// The wall time, for the times in records: to be told before each turn.
    pub const fn set_wall(&mut self, wall: WallTime) {
        self.wall = wall;
    }

    /// Every transfer that is known, by id.
    #[must_use]
    pub fn infos(&self) -> Vec<TransferInfo> {
        let ended = self.history.values().map(ended_info);
        let mut all: Vec<_> = self.live.values().map(|t| self.describe(t)).chain(ended).collect();
        all.sort_by_key(|info| info.record.id);
        all
    }

    /// One transfer.
    #[must_use]
    pub fn info(&self, id: &TransferId) -> Option<TransferInfo> {
        let live = self.live.get(id).map(|transfer| self.describe(transfer));
        live.or_else(|| self.history.get(id).map(ended_info))
    }

    fn describe(&self, transfer: &Transfer) -> TransferInfo {
        let routed = self.route(&transfer.record).is_some();
        let waiting = match &transfer.side {
            Side::In(Incoming { waits_for_disk: true, .. })
                if transfer.record.phase == Phase::Offered =>
            {
                Some(Waiting::Space)
            }
            _ if transfer.record.phase != Phase::Active => None,
            Side::In(Incoming { held: Some(Held::Space), .. }) => Some(Waiting::Space),
            Side::In(Incoming { held: Some(Held::Disk), .. })
            | Side::Out(Outgoing { held: true, .. }) => Some(Waiting::Disk),
            Side::In(Incoming { stage: Stage::Finishing, .. }) => None,
            Side::In(Incoming { stage: Stage::Shut, .. }) if !routed => Some(Waiting::Peer),
            Side::In(Incoming { stage: Stage::Shut, .. }) => Some(Waiting::Turn),
            Side::In(incoming) if incoming.peer_paused => Some(Waiting::PeerPaused),
            Side::Out(outgoing) if outgoing.peer_paused => Some(Waiting::PeerPaused),
            _ => (!routed).then_some(Waiting::Peer),
        };
        let (record, verified) = (transfer.record.clone(), transfer.verified);
        TransferInfo { record, verified, waiting }
    }

    fn transmit(&mut self, peer: MachineId, frame: FrameIn) {
        self.outputs.push_back(Output::Transmit { peer, frame: frame.encode() });
    }

    fn send_status(&mut self, peer: MachineId, status: Status) {
        self.transmit(peer, FrameIn::Status(status));
    }

    fn save(&mut self, id: TransferId) {
        let live = self.live.get(&id).map(|transfer| &transfer.record);
        if let Some(record) = live.or_else(|| self.history.get(&id)) {
            self.outputs.push_back(Output::Save(Box::new(record.clone())));
        }
    }

    /// Shows that something changed here.
    fn show(&mut self, id: TransferId) {
        if let Some(transfer) = self.live.get_mut(&id) {
            transfer.show_at = None;
        }
        if let Some(info) = self.info(&id) {
            self.outputs.push_back(Output::Event(Box::new(FileEvent::Progress(info))));
        }
    }

    /// Shows what the peer changed, however often it does: at once or soon.
    fn show_progress(&mut self, now: Tick, id: TransferId) {
        let interval = self.config.progress_interval;
        let Some(transfer) = self.live.get_mut(&id) else { return };
        match transfer.shown.map(|shown| shown + interval) {
            Some(next) if next > now => transfer.show_at = Some(next),
            _ => {
                transfer.shown = Some(now);
                self.show(id);
            }
        }
    }

    /// Ends a transfer, and tells the other end unless it was that end's doing.
    fn end(&mut self, id: TransferId, phase: Phase, reason: Option<String>, tell: bool) -> bool {
        let Some(Transfer { mut record, mut verified, side, .. }) = self.live.remove(&id) else {
            return false;
        };
        let before = record.phase;
        record.phase = phase;
        record.reason = reason;
        record.ended = Some(self.wall);
        match phase {
            Phase::Complete => verified = record.size,
            Phase::Failed => self.metrics.failed.inc(),
            _ => {}
        }
        let told = tell && self.tell(&record, verified);
        if let Side::In(Incoming { stage, accepting, cancelling, .. }) = side {
            if stage != Stage::Shut {
                self.outputs.push_back(Output::Close(id));
            }
            let failed = Err(ChangeTransferError::NotPossible(phase));
            if let Some(ticket) = accepting.and_then(|accepting| accepting.ticket) {
                self.outputs.push_back(Output::Changed { ticket, result: failed.clone() });
            }
            if let Some(ticket) = cancelling {
                let done = phase == Phase::Cancelled;
                let result = if done { Ok(Changed { told }) } else { failed };
                self.outputs.push_back(Output::Changed { ticket, result });
            }
        }
        let info = TransferInfo { record: record.clone(), verified, waiting: None };
        let event = match phase {
            Phase::Complete => FileEvent::Complete(info),
            _ => FileEvent::Ended(info),
        };
        // What a stranger offered and withdrew must not push the user's own transfers out.
        let withdrawn =
            record.direction == Direction::Receiving && before == Phase::Offered && !tell;
        if withdrawn {
            self.outputs.push_back(Output::Forget(Box::new(record)));
        } else {
            self.outputs.push_back(Output::Save(Box::new(record.clone())));
            self.outputs.push_back(Output::Discard(Box::new(record.clone())));
            self.remember(record);
        }
        self.outputs.push_back(Output::Event(Box::new(event)));
        self.gauge();
        self.turn_due = true;
        told
    }

    fn remember(&mut self, record: Record) {
        self.history.insert(record.id, record);
        while self.history.len() > MAX_HISTORY
            && let Some(oldest) =
                self.history.values().min_by_key(|r| (r.ended, r.id)).map(|r| r.id)
            && let Some(record) = self.history.remove(&oldest)
        {
            self.unsaved.remove(&oldest);
            self.outputs.push_back(Output::Forget(Box::new(record)));
        }
    }

    fn gauge(&self) {
        self.metrics.live.set(self.live.len() as u64);
    }

    fn load(&mut self, now: Tick, mut records: Vec<Record>) {
        records.sort_by_key(|record| (record.started, record.id));
        for record in records {
            let id = record.id;
            if record.phase.ended() {
                // A crash may have come between its end and this.
                self.outputs.push_back(Output::Discard(Box::new(record.clone())));
                self.remember(record);
                continue;
            }
            if self.live.len() >= MAX_LIVE {
                self.outputs.push_back(Output::Forget(Box::new(record)));
                continue;
            }
            if record.phase == Phase::Preparing {
                self.outputs.push_back(Output::Prepare(Box::new(record.clone())));
            }
            self.live.insert(id, Transfer::new(record));
            self.queue(id);
            self.schedule(now, id);
        }
        self.gauge();
        self.turn_due = true;
    }

    fn up(&mut self, now: Tick, peer: MachineId, agents: &[AgentId]) {
        self.next_session += 1;
        let session = Session {
            number: self.next_session,
            agents: agents.to_vec(),
            frames: TokenBucket::new(FRAME_BURST, FRAME_EVERY, now),
            offers: TokenBucket::new(OFFER_BURST, OFFER_EVERY, now),
            repeats: TokenBucket::new(REPEAT_BURST, REPEAT_EVERY, now),
            groups: 0,
            heard: None,
            unasked: 0,
            jobs: 0,
            stalled: false,
            turn: None,
        };
        self.sessions.insert(peer, session);
        let ours = |transfer: &Transfer| {
            self.owns(peer, &transfer.record) && !self.is_elsewhere(peer, &transfer.record)
        };
        let ids: Vec<_> =
            self.live.values().filter(|transfer| ours(transfer)).map(|t| t.record.id).collect();
        for id in ids {
            self.meet(now, peer, id);
        }
        self.meet_ignored(peer);
        self.turn_due = true;
    }

    /// Says to a machine that came up how a transfer of its agent stands.
    fn meet(&mut self, now: Tick, peer: MachineId, id: TransferId) {
        let Some(transfer) = self.live.get_mut(&id) else { return };
        // What the disk lets wait does not depend on the peer.
        if !matches!(&transfer.side, Side::In(Incoming { held: Some(_), .. })) {
            transfer.tries = 0;
        }
        match transfer.record.direction {
            Direction::Sending => self.offer(id, peer),
            Direction::Receiving => {
                let status = status_of(&transfer.record, transfer.verified);
                self.send_status(peer, status);
                self.ask(now, id);
            }
        }
        self.schedule(now, id);
    }

    fn down(&mut self, now: Tick, peer: MachineId) {
        let Some(session) = self.sessions.remove(&peer) else { return };
        let mut ids = Vec::new();
        let hit = |transfer: &Transfer| session.agents.contains(&transfer.record.peer);
        for (id, transfer) in self.live.iter_mut().filter(|(_, transfer)| hit(transfer)) {
            match &mut transfer.side {
                Side::Out(outgoing) if outgoing.via == Some(peer) => {
                    outgoing.wanted.clear();
                    outgoing.via = None;
                }
                Side::In(incoming) if incoming.via == Some(peer) => incoming.give_up_asked(),
                _ => {}
            }
            ids.push(*id);
        }
        for id in ids {
            // Another machine of the agent may go on with it.
            let sending =
                self.live.get(&id).is_some_and(|t| t.record.direction == Direction::Sending);
            if sending {
                self.offer_around(id);
            }
            self.schedule(now, id);
        }
        self.serve_due = true;
        self.turn_due = true;
    }

    fn frame(&mut self, now: Tick, peer: MachineId, frame: Bytes) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        if !session.frames.take(now) {
            return self.metrics.dropped_rate.inc();
        }
        match FrameIn::decode(frame) {
            Ok(FrameIn::Offer(offer)) => self.on_offer(now, peer, offer),
            Ok(FrameIn::Want(want)) => self.on_want(now, peer, want),
            Ok(FrameIn::Status(status)) => self.on_status(now, peer, status),
            Ok(_) => self.metrics.unknown.inc(),
            Err(_) => {
                self.metrics.broken_malformed.inc();
                self.outputs.push_back(Output::Disconnect(peer));
            }
        }
    }

    fn on_status(&mut self, now: Tick, peer: MachineId, status: Status) {
        let id = status.id;
        let pending =
            matches!(status.standing, Standing::Offered | Standing::Active | Standing::Paused);
        // Whoever waits for something hears that it is over. Nobody answers an end.
        match self.claim(peer, &id) {
            Claim::Denied => self.metrics.refused_trust.inc(),
            Claim::Stranger => {
                self.metrics.refused_stranger.inc();
                if !self.heard_of_ignored(peer, &id, pending) && pending {
                    self.send_status(peer, unknown(id));
                }
            }
            Claim::Own => {
                let live = self.live.get(&id).map(|transfer| &transfer.record);
                let elsewhere = live.is_some_and(|record| self.is_elsewhere(peer, record));
                match live.map(|record| record.direction) {
                    Some(direction) if elsewhere => {
                        self.metrics.refused_machine.inc();
                        if pending && direction == Direction::Sending {
                            self.answer_elsewhere(peer, id);
                        }
                    }
                    Some(Direction::Sending) => self.heard_of_outgoing(now, peer, status),
                    Some(Direction::Receiving) => self.heard_of_incoming(now, status),
                    None if pending => self.answer_ended(peer, &id),
                    None => {}
                }
            }
        }
    }

    /// What a turn leaves to be done.
    fn settle(&mut self) {
        if std::mem::take(&mut self.turn_due) {
            self.accept_by_rules();
            self.open_waiting();
        }
        if std::mem::take(&mut self.serve_due) {
            self.serve();
        }
    }
}

/// How a transfer stands, in the words of the wire.
fn status_of(record: &Record, verified: u64) -> Status {
    let standing = match record.phase {
        Phase::Preparing | Phase::Offered => Standing::Offered,
        Phase::Active => Standing::Active,
        Phase::Paused => Standing::Paused,
        Phase::Complete => Standing::Complete,
        Phase::Failed => Standing::Failed,
        Phase::Rejected => Standing::Rejected,
        Phase::Cancelled => Standing::Cancelled,
    };
    let reason = record.reason.clone().unwrap_or_default();
    Status { id: record.id, standing, verified, reason }
}

const fn unknown(id: TransferId) -> Status {
    Status { id, standing: Standing::Unknown, verified: 0, reason: String::new() }
}

const fn verified_of(record: &Record) -> u64 {
    if matches!(record.phase, Phase::Complete) { record.size } else { 0 }
}

fn ended_info(record: &Record) -> TransferInfo {
    TransferInfo { record: record.clone(), verified: verified_of(record), waiting: None }
}

impl Machine for FilesMachine {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Tick, input: Input) {
        match input {
            Input::Loaded(records) => self.load(now, records),
            Input::Send { ticket, record } => self.on_send(ticket, *record),
            Input::Change { ticket, id, change } => self.change(now, ticket, id, change),
            Input::Up { peer, agents } => self.up(now, peer, &agents),
            Input::Down(peer) => self.down(now, peer),
            Input::Frame { peer, frame } => self.frame(now, peer, frame),
            Input::Content { peer, frame } => self.on_content(now, peer, frame),
            Input::Prepared { id, result } => self.on_prepared(now, id, result),
            Input::Served { peer, session, id, sent, left, result } => {
                self.metrics.bytes_sent.add(sent);
                self.on_served(now, (peer, session), id, left, result);
            }
            Input::Reconsider(agent) => self.reconsider(agent),
            Input::Writable(peer) => self.on_writable(peer),
            Input::Space { id, free } => self.on_space(now, id, free),
            Input::Opened { id, result } => self.on_opened(now, id, result),
            Input::Stored { id, group, result } => self.on_stored(now, id, group, result),
            Input::Finished { id, result } => self.on_finished(now, id, result),
            Input::Unsaved(id) => {
                self.metrics.unsaved.inc();
                self.unsaved.insert(id, now + SAVE_AGAIN);
            }
        }
        self.settle();
    }

    fn handle_timeout(&mut self, now: Tick) {
        let is_due = |due: &Tick| *due <= now;
        let due: Vec<_> = self
            .live
            .iter()
            .filter(|(_, transfer)| transfer.due.as_ref().is_some_and(is_due))
            .map(|(id, _)| *id)
            .collect();
        due.into_iter().for_each(|id| self.due(now, id));
        let shown: Vec<_> = self
            .live
            .iter()
            .filter(|(_, transfer)| transfer.show_at.as_ref().is_some_and(is_due))
            .map(|(id, _)| *id)
            .collect();
        shown.into_iter().for_each(|id| self.show_progress(now, id));
        let unsaved: Vec<_> =
            self.unsaved.iter().filter(|(_, due)| is_due(due)).map(|(id, _)| *id).collect();
        for id in unsaved {
            self.unsaved.remove(&id);
            self.save(id);
            if let Some(record) = self.history.get(&id) {
                self.outputs.push_back(Output::Discard(Box::new(record.clone())));
            }
        }
        self.settle();
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Tick> {
        let transfers = self.live.values().flat_map(|t| [t.due, t.show_at]).flatten();
        transfers.chain(self.unsaved.values().copied()).min()
    }
}
