//! The task that owns the three machines: it carries their outputs out, seals and opens letters, and
//! hands out mailboxes.

mod backlog;
mod mailboxes;
mod outputs;
mod records;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::{broadcast::error::RecvError, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use x0x_core::{AgentId, Clock, Machine, MachineId, Protocol, Tick, WallTime};
use x0x_identity::{BindingError, MailboxSecret};
use x0x_transport::{Inbound, InboundEvent, SessionInfo, Transport, error::SendError};

use self::{backlog::Backlog, mailboxes::Boxes, records::Records, work::Done};
use super::{
    collector::{Collector, CollectorInput},
    config::LettersConfig,
    depositor::{Depositor, DepositorInput, NotLeft},
    handle::{LettersParts, LettersStatus, Places, Trusts},
    holder::{Holder, HolderInput},
    letter::{MAX_SEALED, OpenLetterError},
    metrics::LettersMetrics,
    store::{LetterStore, StoredLetters},
    wire::{Digest, Frame},
};
use crate::{
    admission::Standing,
    mail::LetterState,
    mailing::{LetterEvent, Mailing},
    outbox::Outbox,
    wire::MessageId,
};

/// Events taken in one turn.
const BATCH: usize = 64;
/// Searches for holders that go on at once; others are put off until they are wanted again.
const MAX_SEARCHES: usize = 2;
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
    NotLeft { to: AgentId, number: u64, reply: oneshot::Sender<Option<NotLeft>> },
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

/// A letter that is being left.
struct Sealed {
    bytes: Bytes,
    expires_at: WallTime,
    /// Of the mailbox that it is sealed for: the agent may give another one meanwhile.
    secret: MailboxSecret,
}

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
    sealed: BTreeMap<Digest, Sealed>,
    work: FuturesUnordered<Work>,
    records: Records,
    searches: usize,
    tend_at: Tick,
}

impl Driver {
    pub(super) fn new(
        transport: Arc<dyn Transport>,
        parts: LettersParts,
        metrics: Arc<LettersMetrics>,
        seed: [u8; 32],
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
        let mut depositor = Depositor::new(config.clone(), Arc::clone(&metrics), seed);
        depositor.handle(now, DepositorInput::Wall(clock.wall()));
        for deposit in deposits {
            depositor.handle(now, DepositorInput::Restore(deposit));
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
            records: Records::default(),
            searches: 0,
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
        self.records.hurry();
        loop {
            self.commit_records();
            if self.records.is_done() || self.records.has_failed() {
                return;
            }
            match self.work.next().await {
                Some(Done::Recorded { changes, result }) => self.recorded(changes, result),
                Some(Done::Looked(stored)) => self.looked(stored),
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
        self.depositor.handle(now, DepositorInput::Wall(wall));
        self.collector.handle(now, CollectorInput::Wall(wall));
    }

    fn pause(&self) -> Duration {
        let due = [
            self.holder.poll_timeout(),
            self.depositor.poll_timeout(),
            self.collector.poll_timeout(),
            self.records.retry_at(),
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
        let places = self.boxes.places(wall);
        self.meet(places);
    }

    /// Has machines met that may hold letters, by some ranks after the other.
    fn meet(&mut self, places: Vec<[u8; 32]>) {
        if self.searches >= MAX_SEARCHES {
            return self.metrics.searches_put_off.inc();
        }
        self.searches += 1;
        let meetings = Arc::clone(&self.shared.places);
        self.work.push(Box::pin(async move {
            for places in places {
                meetings.meet(places).await;
            }
            Done::Met
        }));
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
            Command::NotLeft { to, number, reply } => {
                let _ = reply.send(self.depositor.not_left(&to, number));
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
        self.collector.handle(now, CollectorInput::Up(peer));
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

    /// Gives the agents on a machine mailboxes of their own. Who is not wanted gets one like a stranger, in which
    /// nothing is read: without one it would know.
    fn grant(&mut self, peer: MachineId, agents: &[AgentId]) {
        let wall = self.shared.clock.wall();
        let trusts = Arc::clone(&self.trusts);
        for agent in agents {
            let is_contact = |agent: &AgentId| trusts.standing(agent, None) == Standing::Contact;
            let to = (*agent, peer);
            let contact = trusts.standing(agent, Some(&peer)) == Standing::Contact;
            let Some(grant) = self.boxes.grant(to, contact, wall) else { continue };
            let changes = self.boxes.met(to, wall, is_contact);
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
                let local = (self.boxes.local(), self.boxes.machine());
                let verified = grant.verify(agents, local, wall).filter(|grant| {
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
            Frame::Deposited { digest, outcome, until } => {
                if let Some(letter) = self.sealed.get(&digest) {
                    let pickup = letter.secret.pickup(&peer);
                    let input = DepositorInput::Deposited { peer, digest, outcome, pickup, until };
                    self.depositor.handle(now, input);
                }
            }
            // What follows costs time for each letter that is listed.
            Frame::Listing { .. } if !self.collector.expects(&peer) => {
                self.metrics.refused_unsolicited.inc();
            }
            Frame::Listing { letters, more } => {
                let wall = self.shared.clock.wall();
                let trusts = &self.trusts;
                let wanted = |agent: &AgentId, machine: &MachineId| {
                    trusts.standing(agent, Some(machine)) != Standing::Unwanted
                };
                let letters = self.boxes.senders(&peer, &letters, wall, wanted);
                self.collector.handle(now, CollectorInput::Listed { peer, letters, more });
            }
            Frame::Fetched { digest, sealed } => self.fetched(peer, digest, sealed),
            Frame::Unknown => {}
            Frame::Fetch { .. } if !self.may_fetch(&peer) => {
                self.metrics.refused_fetches_slow.inc();
            }
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
                let Some(mailbox) = self.collector.fetching(peer, digest) else { return };
                let wall = self.shared.clock.wall();
                match self.boxes.open(&sealed, &mailbox, wall) {
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
                let digest = sealed.map(|sealed| {
                    let digest = Digest::of(&sealed.bytes);
                    self.sealed.insert(digest, sealed);
                    digest
                });
                self.depositor.handle(now, DepositorInput::Sealed { to, id, digest });
            }
            Done::Recorded { changes, result } => self.recorded(changes, result),
            Done::Looked(stored) => self.looked(stored),
            Done::Met => self.searches -= 1,
        }
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
