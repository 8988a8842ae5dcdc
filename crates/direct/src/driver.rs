//! One task that owns the machine and carries its outputs out.

mod queues;

use std::{
    collections::{HashMap, VecDeque},
    pin::{Pin, pin},
    sync::Arc,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::CancellationToken;
use x0x_core::{Clock, Machine, MachineId, Protocol, Tick, WallTime};
use x0x_transport::{BoxFuture, InboundEvent, Transport, error::InboundTaken};

use self::queues::{Queues, Taken as Batch};
use crate::{
    admission::{Admission, Admit},
    config::DirectConfig,
    error::RefuseReason,
    handle::{Accepted, Arrival, Command, Waiting},
    inbox::{DirectMessage, Inbox, InboxSender, inbox},
    mail::{LetterState, MailChange, MailError, MailOutcome},
    mailing::{LetterEvent, Mailing},
    metrics::DirectMetrics,
    routes::Routes,
    state::{DirectMachine, Input, Output, Room, SendRequest, Taken},
    wire::{Kind, MAX_READ_IDS, Verified, read_ids},
};

/// Changes of the store that one commit makes, so that no note of what was read keeps mail waiting
/// for long.
const MAX_COMMIT_CHANGES: usize = 1024;
const _: () = assert!(MAX_READ_IDS <= MAX_COMMIT_CHANGES);

/// What the driver is made of.
pub(crate) struct Parts {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) config: DirectConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<DirectMetrics>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) arrivals: mpsc::Receiver<Arrival>,
    pub(crate) stop: CancellationToken,
    pub(crate) mailing: Option<Mailing>,
}

/// Starts the task. It ends when told to, when all handles are gone, or with the transport.
pub(crate) fn spawn(parts: Parts) -> Result<Inbox, InboundTaken> {
    let Parts { transport, config, clock, metrics, routes, commands, arrivals, stop, mailing } =
        parts;
    let inbound = transport.inbound(Protocol::Direct)?;
    let (sender, inbox) = inbox(&config);
    let local = transport.local_id();
    let machine = match &mailing {
        None => DirectMachine::new(local, config, metrics),
        Some(mailing) => {
            let admission = Arc::new(mailing.admittance.clone());
            DirectMachine::with_admission(local, config, metrics, admission)
        }
    };
    let driver = Driver {
        machine,
        transport,
        clock,
        routes,
        queues: Queues { commands, inbound, arrivals },
        inbox: sender,
        inbox_open: true,
        waiting: HashMap::new(),
        tickets: 0,
        mailing,
        handed: VecDeque::new(),
        committing: None,
        in_commit: Vec::new(),
        deliveries: Vec::new(),
    };
    tokio::spawn(driver.run(stop));
    Ok(inbox)
}

struct Driver {
    machine: DirectMachine,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    routes: Arc<Routes>,
    queues: Queues,
    inbox: InboxSender,
    inbox_open: bool,
    /// Callers by ticket; as many as the gates let through.
    waiting: HashMap<u64, Waiting>,
    tickets: u64,
    mailing: Option<Mailing>,
    /// Messages whose turn it was, which the next commits take.
    handed: VecDeque<Handed>,
    committing: Option<Committing>,
    /// What that commit is of.
    in_commit: Vec<Handed>,
    deliveries: Vec<DirectMessage>,
}

/// A message that the machine handed out, to be settled.
enum Handed {
    Message(Kind, DirectMessage),
    /// One that came on another way, of which the machine knows nothing, and who waits for its end.
    Arrived(Kind, DirectMessage, oneshot::Sender<Accepted>),
    Ignored,
}

impl Handed {
    fn room(&self) -> Room {
        match self {
            Self::Message(_, message) | Self::Arrived(_, message, _) => {
                Room { messages: 1, bytes: message.payload.len() }
            }
            Self::Ignored => Room::default(),
        }
    }
}

type Committing = BoxFuture<'static, Result<Vec<MailOutcome>, MailError>>;

/// The commit that is on its way; never, when there is none.
async fn committed(committing: &mut Option<Committing>) -> Result<Vec<MailOutcome>, MailError> {
    match committing {
        Some(commit) => {
            let outcome = commit.await;
            *committing = None;
            outcome
        }
        None => std::future::pending().await,
    }
}

impl Driver {
    async fn run(mut self, stop: CancellationToken) {
        let mut taken = Batch::default();
        let mut timer = pin!(sleep(std::time::Duration::ZERO));
        let mut armed: Option<Tick> = None;
        loop {
            let mut outcome = None;
            // What comes seldom comes first: the queues can be full all the time.
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                result = committed(&mut self.committing) => outcome = Some(result),
                () = self.inbox.drained(), if self.machine.is_holding() => {}
                () = &mut timer, if armed.is_some() => armed = None,
                goes_on = self.queues.next(&mut taken) => if !goes_on { return },
            }
            self.queues.fill(&mut taken);
            let now = self.clock.now();
            if let Some(outcome) = outcome {
                self.finish(now, outcome);
            }
            self.machine.handle_timeout(now);
            self.take_commands(now, &mut taken.commands);
            self.carry_out(now, &mut taken.events);
            for arrival in taken.arrivals.drain(..) {
                self.arrived(now, arrival);
            }
            self.arm(now, &mut armed, timer.as_mut());
        }
    }

    /// Takes a message that came on another way, under the same rules as any other. No output of the
    /// machine waits now, so that what is admitted and what is handed out keep the same order.
    fn arrived(&mut self, now: Tick, arrival: Arrival) {
        let Arrival { machine, message, reply } = arrival;
        let unsettled = self.handed.iter().chain(&self.in_commit).map(Handed::room);
        let room = self.inbox.snapshot().map(|it| unsettled.fold(it.room, Room::less));
        let fits =
            room.is_some_and(|room| room.messages > 0 && room.bytes >= message.payload().len());
        let admitted = match &self.mailing {
            Some(mailing) if fits => mailing.admittance.admit(now, &message, machine),
            Some(_) | None => Admit::Refuse,
        };
        match admitted {
            Admit::Take => {
                let kind = message.terms().kind;
                let message = self.direct_message(&message, machine, self.clock.wall());
                self.handed.push_back(Handed::Arrived(kind, message, reply));
                self.poll_outputs(now);
            }
            // Who waits may be gone.
            Admit::Ignore => drop(reply.send(Accepted::Unwanted)),
            Admit::Refuse => drop(reply.send(Accepted::Busy)),
        }
    }

    fn take_commands(&mut self, now: Tick, commands: &mut Vec<Command>) {
        for Command { id, peer, from, to, payload, terms, deadline, waiting } in commands.drain(..)
        {
            self.tickets += 1;
            let ticket = self.tickets;
            self.waiting.insert(ticket, waiting);
            let connected = self.transport.session(peer).is_some();
            let request =
                SendRequest { ticket, id, peer, from, to, payload, terms, deadline, connected };
            self.machine.handle(now, Input::Send(request));
        }
    }

    fn take_events(&mut self, now: Tick, events: &mut Vec<InboundEvent>) {
        for event in events.drain(..) {
            let input = match event {
                InboundEvent::Up(session) => {
                    self.routes.up(session.peer, &session.agents);
                    if let Some(mailing) = &self.mailing {
                        for agent in &session.agents {
                            // Nobody may be listening.
                            let _ = mailing.arrivals.send(*agent);
                        }
                    }
                    Input::Up {
                        peer: session.peer,
                        generation: session.generation,
                        agents: session.agents,
                    }
                }
                InboundEvent::Message { peer, message } => Input::Received { peer, frame: message },
                InboundEvent::Writable(peer) => Input::Writable(peer),
                InboundEvent::Down(peer) => {
                    self.routes.down(peer);
                    Input::Down(peer)
                }
                _ => continue,
            };
            self.machine.handle(now, input);
        }
    }

    /// Handles the events, fills the inbox and carries all outputs out.
    fn carry_out(&mut self, now: Tick, events: &mut Vec<InboundEvent>) {
        loop {
            // All settled messages are in the inbox; those that are not will need its room.
            let snapshot = self.inbox.snapshot();
            match snapshot {
                Some(snapshot) => {
                    let unsettled = self.handed.iter().chain(&self.in_commit).map(Handed::room);
                    let room = unsettled.fold(snapshot.room, Room::less);
                    self.machine.handle(now, Input::Room(room));
                }
                None if self.inbox_open => {
                    self.inbox_open = false;
                    self.machine.handle(now, Input::InboxClosed);
                }
                None => {}
            }
            self.take_events(now, events);
            self.poll_outputs(now);
            let waits = !self.machine.is_holding()
                || snapshot.is_some_and(|snapshot| self.inbox.want_room(snapshot));
            if waits {
                return;
            }
        }
    }

    fn poll_outputs(&mut self, now: Tick) {
        let wall = self.clock.wall();
        loop {
            while let Some(output) = self.machine.poll_output() {
                match output {
                    Output::Deliver { machine, message } => {
                        let kind = message.terms().kind;
                        let message = self.direct_message(&message, machine, wall);
                        self.handed.push_back(Handed::Message(kind, message));
                    }
                    Output::Ignore => self.handed.push_back(Handed::Ignored),
                    Output::Transmit { peer, frame } => {
                        let taken = self.transport.try_send(peer, Protocol::Direct, frame.clone());
                        // Busy: it will be writable. Not connected: the session's end is on its
                        // way.
                        if taken.is_err() {
                            self.machine.handle(now, Input::Blocked { peer, frame });
                        }
                    }
                    Output::Resolve { ticket, result } => {
                        if let Some(waiting) = self.waiting.remove(&ticket) {
                            // The caller may have stopped waiting.
                            let _ = waiting.reply.send(result);
                        }
                    }
                    Output::Disconnect(peer) => {
                        tracing::debug!(peer = %peer.short(), "peer breaks the protocol");
                        self.transport.disconnect(peer);
                    }
                }
            }
            if self.handed.is_empty() || self.committing.is_some() {
                return;
            }
            self.commit(now);
        }
    }

    /// Stores what was handed out, as much of what waits as one commit takes, and settles at once what
    /// needs no store.
    fn commit(&mut self, now: Tick) {
        let changes = self.take_commit();
        match &self.mailing {
            Some(mailing) if !changes.is_empty() => {
                let store = Arc::clone(&mailing.store);
                self.committing = Some(Box::pin(async move { store.commit(changes).await }));
            }
            _ => self.finish(now, Ok(Vec::new())),
        }
    }

    /// What the next commit changes.
    fn take_commit(&mut self) -> Vec<MailChange> {
        let mut taken = Vec::new();
        while let Some(next) = self.handed.front() {
            let mut of_next = if self.mailing.is_some() { changes(next) } else { Vec::new() };
            if taken.len() + of_next.len() > MAX_COMMIT_CHANGES {
                break;
            }
            taken.append(&mut of_next);
            self.in_commit.extend(self.handed.pop_front());
        }
        taken
    }

    /// A commit came to an end: what it stored is delivered, and answered.
    fn finish(&mut self, now: Tick, outcome: Result<Vec<MailOutcome>, MailError>) {
        let in_commit = std::mem::take(&mut self.in_commit);
        let outcome = outcome.inspect_err(|error| {
            tracing::debug!(%error, "mail is not stored");
        });
        let mut settled = Vec::with_capacity(in_commit.len());
        match outcome {
            Ok(outcomes) => {
                let mut outcomes = outcomes.into_iter();
                for handed in in_commit {
                    settled.extend(self.stored(handed, &mut outcomes));
                }
                self.inbox.push(&mut self.deliveries);
            }
            Err(_) => {
                // What comes behind must not be taken before what was refused.
                let waiting = std::mem::take(&mut self.handed);
                for handed in in_commit.into_iter().chain(waiting) {
                    settled.extend(self.not_stored(handed));
                }
            }
        }
        self.machine.handle(now, Input::Settled(settled));
    }

    /// What the machine is told of it, if it is one of the machine's.
    fn stored(
        &mut self,
        handed: Handed,
        outcomes: &mut impl Iterator<Item = MailOutcome>,
    ) -> Option<Taken> {
        let (kind, mut message, reply) = match handed {
            Handed::Message(kind, message) => (kind, message, None),
            Handed::Arrived(kind, message, reply) => (kind, message, Some(reply)),
            Handed::Ignored => return Some(Ok(())),
        };
        let mut accepted = Accepted::Stored;
        match (kind, &self.mailing) {
            (Kind::Mail, Some(mailing)) => {
                let number = match outcomes.next() {
                    Some(MailOutcome::Stored(number)) => Some(number),
                    _ => None,
                };
                mailing.admittance.settle(number);
                match number {
                    Some(number) => {
                        message.number = number;
                        self.deliveries.push(message);
                    }
                    None => accepted = Accepted::Duplicate,
                }
            }
            (Kind::Read, Some(mailing)) => {
                for id in read_ids(&message.payload).unwrap_or_default() {
                    if let Some(MailOutcome::Stored(_)) = outcomes.next() {
                        let event = LetterEvent::read(id, message.from, message.received_at);
                        // Nobody may be listening.
                        let _ = mailing.events.send(event);
                    }
                }
            }
            (Kind::Read, None) => {}
            (Kind::Mail, None) | (Kind::Session, _) => self.deliveries.push(message),
        }
        match reply {
            Some(reply) => {
                // Who waits may be gone.
                let _ = reply.send(accepted);
                None
            }
            None => Some(Ok(())),
        }
    }

    fn direct_message(
        &self,
        message: &Verified,
        machine: MachineId,
        received_at: WallTime,
    ) -> DirectMessage {
        let from = message.from();
        let mailing = self.mailing.as_ref();
        DirectMessage {
            id: message.id(),
            from,
            to: message.to(),
            machine,
            payload: message.payload().clone(),
            received_at,
            number: 0,
            reply_to: message.terms().reply_to,
            wants_read: message.terms().wants_read,
            from_stranger: mailing
                .is_some_and(|mailing| mailing.admittance.is_stranger(&from, &machine)),
        }
    }

    fn not_stored(&self, handed: Handed) -> Option<Taken> {
        let (kind, reply) = match handed {
            Handed::Message(kind, _) => (kind, None),
            Handed::Arrived(kind, _, reply) => (kind, Some(reply)),
            Handed::Ignored => return Some(Ok(())),
        };
        if let (Kind::Mail, Some(mailing)) = (kind, &self.mailing) {
            mailing.admittance.settle(None);
        }
        match reply {
            Some(reply) => {
                let _ = reply.send(Accepted::Busy);
                None
            }
            None => Some(Err(RefuseReason::NotStored)),
        }
    }

    /// Sets the timer when the next deadline is earlier. A later one is left to an idle wake-up, so
    /// that the timer is not set for every message.
    fn arm(&self, now: Tick, armed: &mut Option<Tick>, timer: Pin<&mut Sleep>) {
        let Some(deadline) = self.machine.poll_timeout() else { return };
        if armed.is_none_or(|armed| deadline < armed) {
            timer.reset(Instant::now() + deadline.since(now));
            *armed = Some(deadline);
        }
    }
}

/// What a message changes in the store.
fn changes(handed: &Handed) -> Vec<MailChange> {
    match handed {
        Handed::Message(Kind::Mail, message) | Handed::Arrived(Kind::Mail, message, _) => {
            vec![MailChange::Receive(message.clone())]
        }
        Handed::Message(Kind::Read, message) | Handed::Arrived(Kind::Read, message, _) => {
            let (by, at) = (Some(message.from), message.received_at);
            let ids = read_ids(&message.payload).unwrap_or_default();
            let state = LetterState::Read;
            ids.into_iter().map(|id| MailChange::Advance { id, by, state, at }).collect()
        }
        Handed::Message(Kind::Session, _)
        | Handed::Arrived(Kind::Session, ..)
        | Handed::Ignored => Vec::new(),
    }
}
