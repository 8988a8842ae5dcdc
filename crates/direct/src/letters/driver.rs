//! The task that owns the three machines: it carries their outputs out, seals and opens letters, and
//! hands out mailboxes.

mod backlog;
mod mailboxes;
mod outputs;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::{broadcast::error::RecvError, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use x0x_core::{AgentId, Clock, Machine, MachineId, Protocol, Tick};
use x0x_identity::BindingError;
use x0x_transport::{Inbound, InboundEvent, SessionInfo, Transport, error::SendError};

use self::{backlog::Backlog, mailboxes::Boxes, work::Done};
use super::{
    collector::{Collector, CollectorInput},
    config::LettersConfig,
    depositor::{Depositor, DepositorInput},
    handle::{LettersParts, LettersStatus, Places, Trusts},
    holder::{Holder, HolderInput},
    letter::{MAX_SEALED, OpenLetterError},
    metrics::LettersMetrics,
    store::{Deposit, LetterChange, LetterStore, StoredLetters},
    wire::{Digest, Frame},
};
use crate::{
    admission::Standing,
    mail::{LetterState, MailError},
    mailing::{LetterEvent, Mailing},
    outbox::Outbox,
    wire::MessageId,
};

/// Events taken in one turn.
const BATCH: usize = 64;
/// Records that wait for the store; those beyond it are made again, or only missed.
const MAX_RECORDS: usize = 4096;
/// Records that one commit makes.
const RECORD_BATCH: usize = 256;
/// How often mailboxes are handed out anew, and holders looked for.
const TEND_INTERVAL: Duration = Duration::from_secs(3600);
/// How long after the start holders are looked for: until then, some machines are known.
const FIRST_TENDING: Duration = Duration::from_secs(3);
/// How long the end waits for the store.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// What a handle asks.
#[derive(Debug)]
pub(super) enum Command {
    Unreachable(AgentId),
    Posted(AgentId),
    Holders(MessageId, oneshot::Sender<usize>),
    Status(oneshot::Sender<LettersStatus>),
}

/// What work beside the driver needs.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) store: Arc<dyn LetterStore>,
    pub(super) mailing: Mailing,
    pub(super) outbox: Outbox,
    pub(super) direct: crate::Direct,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) places: Arc<dyn Places>,
}

type Work = x0x_transport::BoxFuture<'static, Done>;

pub(super) struct Driver {
    shared: Shared,
    trusts: Arc<dyn Trusts>,
    config: LettersConfig,
    metrics: Arc<LettersMetrics>,
    holder: Holder,
    depositor: Depositor,
    collector: Collector,
    boxes: Boxes,
    sessions: BTreeMap<MachineId, Vec<AgentId>>,
    /// Those whose grant was answered with the own one: they hear now, and may not have before.
    answered: BTreeSet<MachineId>,
    backlog: Backlog,
    /// Sealed letters that are being left.
    sealed: BTreeMap<Digest, (Bytes, x0x_core::WallTime)>,
    work: FuturesUnordered<Work>,
    records: VecDeque<LetterChange>,
    recording: bool,
    tend_at: Tick,
}

impl Driver {
    pub(super) fn new(
        transport: Arc<dyn Transport>,
        parts: LettersParts,
        metrics: Arc<LettersMetrics>,
    ) -> Self {
        let LettersParts { key, generation, direct, outbox, mailing, store, stored, .. } = parts;
        let LettersParts { trusts, places, clock, config, .. } = parts;
        let StoredLetters { held, grants, met, deposits } = stored;
        let now = clock.now();
        let mut holder = Holder::new(config.clone(), Arc::clone(&metrics));
        holder.handle(now, HolderInput::Wall(clock.wall()));
        for held in held {
            holder.handle(now, HolderInput::Restore(held));
        }
        let mut depositor = Depositor::new(config.clone(), Arc::clone(&metrics));
        for Deposit { id, to, holder, digest } in deposits {
            depositor.handle(now, DepositorInput::Restore { id, to, holder, digest });
        }
        let collector = Collector::new(config.clone(), Arc::clone(&metrics));
        let boxes = Boxes::new(key, generation, transport.local_id(), grants, met);
        Self {
            shared: Shared { transport, store, mailing, outbox, direct, clock, places },
            trusts,
            config,
            metrics,
            holder,
            depositor,
            collector,
            boxes,
            sessions: BTreeMap::new(),
            answered: BTreeSet::new(),
            backlog: Backlog::default(),
            sealed: BTreeMap::new(),
            work: FuturesUnordered::new(),
            records: VecDeque::new(),
            recording: false,
            tend_at: now + FIRST_TENDING,
        }
    }

    pub(super) async fn run(
        mut self,
        commands: mpsc::Receiver<Command>,
        inbound: Inbound,
        stop: CancellationToken,
    ) {
        self.serve(commands, inbound, stop).await;
        let recorded = tokio::time::timeout(CLOSE_DEADLINE, self.record_all()).await;
        if recorded.is_err() {
            tracing::debug!("what became of letters is not recorded in time");
        }
    }

    async fn serve(
        &mut self,
        mut commands: mpsc::Receiver<Command>,
        mut inbound: Inbound,
        stop: CancellationToken,
    ) {
        let mut events = Vec::with_capacity(BATCH);
        let mut settled = self.shared.mailing.letter_events();
        let mut arrivals = self.shared.mailing.arrivals.subscribe();
        loop {
            // Frames may come without a pause, and the timer is the last that is looked at.
            self.timeout();
            self.carry_out();
            let pause = self.pause();
            let timer = pin!(tokio::time::sleep(pause));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                command = commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                event = settled.recv() => match event {
                    Ok(event) => self.letter_event(&event),
                    // What was missed keeps its copies until they expire.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
                // Who arrived unheard is tried again by the outbox.
                Ok(agent) = arrivals.recv() => {
                    self.depositor.handle(self.now(), DepositorInput::Reachable(agent));
                }
                Some(done) = self.work.next(), if !self.work.is_empty() => self.done(done),
                taken = inbound.recv_many(&mut events, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    self.tell_time();
                    events.drain(..).for_each(|event| self.event(event));
                }
                () = timer => {}
            }
        }
    }

    /// Records what is not recorded yet.
    async fn record_all(&mut self) {
        loop {
            self.commit_records();
            if !self.recording {
                return;
            }
            match self.work.next().await {
                Some(Done::Recorded(_)) => self.recording = false,
                Some(_) => {}
                None => return,
            }
        }
    }

    fn now(&self) -> Tick {
        self.shared.clock.now()
    }

    fn tell_time(&mut self) {
        let (now, wall) = (self.now(), self.shared.clock.wall());
        self.holder.handle(now, HolderInput::Wall(wall));
        self.collector.handle(now, CollectorInput::Wall(wall));
    }

    fn pause(&self) -> Duration {
        let due = [
            self.holder.poll_timeout(),
            self.depositor.poll_timeout(),
            self.collector.poll_timeout(),
            Some(self.tend_at),
        ];
        let first = due.into_iter().flatten().min().unwrap_or(self.tend_at);
        first.since(self.now())
    }

    fn timeout(&mut self) {
        self.tell_time();
        let now = self.now();
        let is_due = |at: Option<Tick>| at.is_some_and(|at| at <= now);
        if is_due(self.holder.poll_timeout()) {
            self.holder.handle_timeout(now);
        }
        if is_due(self.depositor.poll_timeout()) {
            self.depositor.handle_timeout(now);
        }
        if is_due(self.collector.poll_timeout()) {
            self.collector.handle_timeout(now);
        }
        if self.tend_at <= now {
            self.tend(now);
        }
    }

    /// Hands out mailboxes of a new period, and looks for who may hold letters for this agent.
    fn tend(&mut self, now: Tick) {
        self.tend_at = now + TEND_INTERVAL;
        let wall = self.shared.clock.wall();
        if self.boxes.new_period(wall) {
            let sessions: Vec<_> = self.sessions.clone().into_iter().collect();
            for (peer, agents) in sessions {
                self.grant(peer, &agents);
            }
        }
        for places in self.boxes.places(wall) {
            let meeting = self.shared.places.meet(places);
            self.work.push(Box::pin(async move {
                meeting.await;
                Done::Met
            }));
        }
    }

    fn command(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Unreachable(agent) => {
                self.depositor.handle(now, DepositorInput::Unreachable(agent));
            }
            Command::Posted(agent) => self.depositor.handle(now, DepositorInput::Posted(agent)),
            Command::Holders(id, reply) => {
                // Who asked may be gone.
                let _ = reply.send(self.depositor.holders(&id));
            }
            Command::Status(reply) => {
                let _ = reply.send(self.status());
            }
        }
    }

    fn status(&self) -> LettersStatus {
        let (held, held_bytes) = self.holder.held();
        LettersStatus {
            held,
            held_bytes,
            hold_limit: self.config.hold_bytes,
            holds: self.config.holds,
            held_out: self.depositor.held_out().collect(),
            outstanding: self.collector.outstanding(),
            mailboxes: self.boxes.grants(),
            gaps: self.collector.gaps().copied().collect(),
        }
    }

    fn letter_event(&mut self, event: &LetterEvent) {
        let input = match event.state {
            LetterState::Queued | LetterState::Sent => return,
            LetterState::Received | LetterState::Read | LetterState::Expired => {
                DepositorInput::Settled(event.id)
            }
            _ => DepositorInput::Cancelled(event.id),
        };
        self.depositor.handle(self.now(), input);
    }

    fn event(&mut self, event: InboundEvent) {
        match event {
            InboundEvent::Up(session) => self.up(session),
            InboundEvent::Message { peer, message } => self.message(peer, &message),
            InboundEvent::Writable(peer) => self.flush(peer),
            InboundEvent::Down(peer) => self.down(peer),
            _ => {}
        }
    }

    /// How whoever is on a machine stands here: the best of them counts.
    fn standing(&self, peer: &MachineId) -> Standing {
        let agents = self.sessions.get(peer).map(Vec::as_slice).unwrap_or_default();
        let standings = agents.iter().map(|agent| self.trusts.standing(agent, Some(peer)));
        let mut best = if agents.is_empty() { Standing::Stranger } else { Standing::Unwanted };
        for standing in standings {
            match standing {
                Standing::Contact => return Standing::Contact,
                Standing::Stranger => best = Standing::Stranger,
                Standing::Unwanted => {}
            }
        }
        best
    }

    fn up(&mut self, session: SessionInfo) {
        let SessionInfo { peer, agents, .. } = session;
        self.down(peer);
        self.sessions.insert(peer, agents.clone());
        let (now, standing) = (self.now(), self.standing(&peer));
        self.grant(peer, &agents);
        self.depositor.handle(now, DepositorInput::Up { peer, standing });
        if standing != Standing::Unwanted {
            self.collector.handle(now, CollectorInput::Up(peer));
        }
    }

    fn down(&mut self, peer: MachineId) {
        if self.sessions.remove(&peer).is_none() {
            return;
        }
        let now = self.now();
        self.backlog.remove(&peer);
        self.answered.remove(&peer);
        self.holder.handle(now, HolderInput::Down(peer));
        self.depositor.handle(now, DepositorInput::Down(peer));
        self.collector.handle(now, CollectorInput::Down(peer));
    }

    /// Gives the agents on a machine mailboxes of their own, as far as they may write.
    fn grant(&mut self, peer: MachineId, agents: &[AgentId]) {
        let wall = self.shared.clock.wall();
        let trusts = Arc::clone(&self.trusts);
        let wanted = |agent: &AgentId, at: Option<&MachineId>| {
            trusts.standing(agent, at) != Standing::Unwanted
        };
        for agent in agents.iter().filter(|agent| wanted(agent, Some(&peer))) {
            let Some(grant) = self.boxes.grant(*agent, wall) else { continue };
            let is_contact = |agent: &AgentId| trusts.standing(agent, None) == Standing::Contact;
            let changes = self.boxes.met(*agent, wall, is_contact);
            self.record(changes);
            self.send(peer, &Frame::grant(grant));
        }
    }

    fn message(&mut self, peer: MachineId, message: &Bytes) {
        let Some(agents) = self.sessions.get(&peer) else { return };
        let Ok(frame) = Frame::decode(message) else {
            return self.metrics.refused_malformed.inc();
        };
        let now = self.now();
        match frame {
            Frame::Grant(grant) => {
                let answers = (!self.answered.contains(&peer)).then(|| agents.clone());
                let wall = self.shared.clock.wall();
                let verified = grant.verify(agents, self.boxes.local(), wall).filter(|grant| {
                    self.trusts.standing(&grant.owner, Some(&peer)) != Standing::Unwanted
                });
                match verified {
                    Some(grant) => {
                        self.metrics.grants_taken.inc();
                        let trusts = &self.trusts;
                        let is_contact =
                            |agent: &AgentId| trusts.standing(agent, None) == Standing::Contact;
                        let changes = self.boxes.granted(grant, is_contact);
                        self.record(changes);
                    }
                    None => self.metrics.refused_grants.inc(),
                }
                if let Some(agents) = answers {
                    self.answered.insert(peer);
                    self.grant(peer, &agents);
                }
            }
            Frame::Deposited { digest, outcome } => {
                self.depositor.handle(now, DepositorInput::Deposited { peer, digest, outcome });
            }
            Frame::Listing { letters, more } => {
                let wall = self.shared.clock.wall();
                let trusts = &self.trusts;
                let wanted = |agent: &AgentId| trusts.standing(agent, None) != Standing::Unwanted;
                let letters = self.boxes.senders(&peer, &letters, wall, wanted);
                self.collector.handle(now, CollectorInput::Listed { peer, letters, more });
            }
            Frame::Fetched { digest, sealed } => self.fetched(peer, digest, sealed),
            Frame::Unknown => {}
            Frame::Fetch { .. } if !self.may_fetch(&peer) => self.metrics.refused_fetches.inc(),
            frame => {
                let standing = self.standing(&peer);
                self.holder.handle(now, HolderInput::Frame { peer, standing, frame });
            }
        }
        self.carry_out();
    }

    /// Whether a letter, even the largest, has room beside what a machine has not taken yet.
    fn may_fetch(&self, peer: &MachineId) -> bool {
        self.backlog.has_room(peer, self.holder.loading(peer) + MAX_SEALED)
    }

    fn fetched(&mut self, peer: MachineId, digest: Digest, sealed: Option<Bytes>) {
        let now = self.now();
        let input = match sealed {
            None => CollectorInput::Missing { peer, digest },
            Some(sealed) if Digest::of(&sealed) != digest => {
                CollectorInput::Tampered { peer, digest }
            }
            Some(sealed) => {
                let Some((from, period)) = self.collector.fetching(peer, digest) else { return };
                let wall = self.shared.clock.wall();
                match self.boxes.open(&sealed, from, period, wall) {
                    Ok(letter) => CollectorInput::Opened { peer, digest, letter: Box::new(letter) },
                    Err(error) if depends_on_clock(&error) => {
                        tracing::debug!(%error, "a letter is set aside");
                        CollectorInput::Untimely { peer, digest }
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a letter is refused");
                        CollectorInput::Broken { peer, digest }
                    }
                }
            }
        };
        self.collector.handle(now, input);
    }

    fn send(&mut self, peer: MachineId, frame: &Frame) {
        let frame = frame.encode();
        let waits = self.backlog.waits(&peer);
        let refused = waits
            || matches!(
                self.shared.transport.try_send(peer, Protocol::Letters, frame.clone()),
                Err(SendError::Busy)
            );
        if refused && self.sessions.contains_key(&peer) && !self.backlog.push(peer, frame) {
            self.metrics.sends_refused.inc();
        }
    }

    fn flush(&mut self, peer: MachineId) {
        let transport = &self.shared.transport;
        self.backlog.flush(peer, |frame| {
            let taken = transport.try_send(peer, Protocol::Letters, frame.clone());
            !matches!(taken, Err(SendError::Busy))
        });
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.holder.poll_output() {
            self.holder_output(output);
        }
        while let Some(output) = self.depositor.poll_output() {
            self.depositor_output(&output);
        }
        while let Some(output) = self.collector.poll_output() {
            self.collector_output(output);
        }
        self.commit_records();
    }

    fn done(&mut self, done: Done) {
        self.tell_time();
        let now = self.now();
        match done {
            Done::Holder(input) => self.holder.handle(now, input),
            Done::Collector(input) => self.collector.handle(now, input),
            Done::Depositor(input) => self.depositor.handle(now, input),
            Done::Sealed { to, id, sealed } => {
                let digest = sealed.map(|(sealed, expires_at)| {
                    let digest = Digest::of(&sealed);
                    self.sealed.insert(digest, (sealed, expires_at));
                    digest
                });
                self.depositor.handle(now, DepositorInput::Sealed { to, id, digest });
            }
            Done::Recorded(result) => {
                self.recording = false;
                if let Err(error) = result {
                    tracing::debug!(%error, "what became of letters is not recorded");
                }
            }
            Done::Met => {}
        }
    }

    fn record(&mut self, changes: Vec<LetterChange>) {
        let room = MAX_RECORDS.saturating_sub(self.records.len());
        self.records.extend(changes.into_iter().take(room));
    }

    /// One commit at a time, so that they keep their order.
    fn commit_records(&mut self) {
        if self.recording || self.records.is_empty() {
            return;
        }
        self.recording = true;
        let batch = self.records.len().min(RECORD_BATCH);
        let changes: Vec<LetterChange> = self.records.drain(..batch).collect();
        let store = Arc::clone(&self.shared.store);
        self.work.push(Box::pin(async move {
            let result: Result<(), MailError> = store.commit(changes).await;
            Done::Recorded(result)
        }));
    }
}

/// Whether a clock that goes right might open a letter.
const fn depends_on_clock(error: &OpenLetterError) -> bool {
    matches!(
        error,
        OpenLetterError::Time
            | OpenLetterError::Binding(BindingError::NotYetValid | BindingError::Expired)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_condemns_no_letter() {
        let early = OpenLetterError::Binding(BindingError::NotYetValid);
        let late = OpenLetterError::Binding(BindingError::Expired);
        for error in [OpenLetterError::Time, early, late] {
            assert!(depends_on_clock(&error), "{error}");
        }
        let forged = OpenLetterError::Binding(BindingError::WrongAgent);
        for error in [OpenLetterError::WrongSender, OpenLetterError::WrongRecipient, forged] {
            assert!(!depends_on_clock(&error), "{error}");
        }
    }
}
