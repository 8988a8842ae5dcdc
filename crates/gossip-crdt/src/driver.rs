//! One task per open object: entries of its log in, local writes out.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Sleep, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use x0x_core::{Machine, Tick, TopicId};
use x0x_gossip_pubsub::{
    Accepted, ChainEnd, Cursor, Delivery, Message, PublishError, Start, Subscription,
};

use crate::{
    RETENTION,
    config::{MAX_COMMANDS, MAX_IN_FLIGHT},
    descriptor::Descriptor,
    dot::Dot,
    error::{CrdtStoreError, OpenError, Reason, WriteError},
    handle::{Note, ObjectsConfig, Status},
    metrics::CrdtMetrics,
    notes::Teller,
    object::{Object, WriteContext},
    policy::PolicyChange,
    state::{Entry, Input, ObjectMachine, Output, Prepared, WriteId},
    store::{BoxFuture, Saved},
};

/// Entries handed to the machine in one turn.
const TURN: usize = 256;

/// The log was read as far as it goes when nothing came for so long.
const SILENCE: Duration = Duration::from_millis(20);

/// The same at the beginning of an object that was known: its log is on the disk.
const FIRST_SILENCE: Duration = Duration::from_millis(150);

/// Commands taken in one turn, so that a busy log does not hold them up.
const TAKEN: usize = 64;

/// How long an object may take to read its log before it is shown as far as it came.
const OPENING: Duration = Duration::from_secs(3);

/// Why a write was not made.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Its own condition does not hold.
    Declined,
    /// Anything else.
    Error(WriteError<Infallible>),
}

/// Decides what to write by the state.
pub(crate) type Decide<T> =
    Box<dyn FnOnce(&T, &WriteContext<'_>) -> Option<<T as Object>::Op> + Send>;

/// Makes a change of the policy by what is known.
pub(crate) type Changing<T> = Box<dyn FnOnce(&ObjectMachine<T>) -> PolicyChange + Send>;

pub(crate) type Reply = oneshot::Sender<Result<Dot, Failure>>;

/// What a write is decided by: it waits until own writes that change it are applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Nothing.
    Nothing,
    /// A part of the state that has this name.
    Part(Arc<str>),
    /// All of it.
    Everything,
}

impl Scope {
    /// Whether a write of this scope waits for one of another.
    fn waits_for(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nothing, _) | (Self::Part(_), Self::Nothing) => false,
            (Self::Part(mine), Self::Part(other)) => mine == other,
            _ => true,
        }
    }
}

/// A write on its way.
struct Waiting {
    scope: Scope,
    reply: Reply,
}

/// What handles ask for.
pub(crate) enum Command<T: Object> {
    Write { scope: Scope, decide: Decide<T>, reply: Reply },
    Policy { change: Changing<T>, reply: Reply },
    Read(Box<dyn FnOnce(&T) + Send>),
    Status(oneshot::Sender<Status>),
}

/// What an object's task is made of.
pub(crate) struct Parts<T: Object> {
    pub(crate) object: Descriptor,
    pub(crate) config: ObjectsConfig,
    pub(crate) metrics: Arc<CrdtMetrics>,
    pub(crate) commands: mpsc::Receiver<Command<T>>,
    pub(crate) notes: Teller<T::Event>,
    pub(crate) stop: CancellationToken,
    /// It was open here before.
    pub(crate) known: bool,
}

type Saving = BoxFuture<'static, Result<(), CrdtStoreError>>;

type Publishing = BoxFuture<'static, Result<Accepted, PublishError>>;

struct Driver<T: Object> {
    id: TopicId,
    config: ObjectsConfig,
    machine: ObjectMachine<T>,
    subscription: Subscription,
    metrics: Arc<CrdtMetrics>,
    commands: mpsc::Receiver<Command<T>>,
    notes: Teller<T::Event>,
    /// Writes that wait for their turn; at most [`MAX_COMMANDS`].
    queue: VecDeque<Command<T>>,
    /// What is to be published, in order, and who waits for it.
    payloads: VecDeque<(Option<WriteId>, Bytes)>,
    publishing: Option<(Option<WriteId>, Publishing)>,
    /// Writes that are not applied yet; at most [`MAX_IN_FLIGHT`].
    waiting: BTreeMap<WriteId, Waiting>,
    writes: WriteId,
    /// Everything before it is in the replica.
    cursor: Option<Cursor>,
    saving: Option<Saving>,
    /// What the log need not keep once the replica is stored that is being so.
    spare: Vec<ChainEnd>,
    /// The checkpoint that the replica stood on when the log let go last.
    let_go: u64,
    releasing: Option<BoxFuture<'static, ()>>,
    reread: bool,
    lagged: u64,
    stop: CancellationToken,
    known: bool,
}

/// Runs an object until it is stopped, or nobody holds it and the log ends.
pub(crate) async fn run<T: Object>(parts: Parts<T>, ready: oneshot::Sender<Result<(), OpenError>>) {
    let opened = Driver::open(parts).await;
    match opened {
        Ok(mut driver) => {
            driver.catch_up().await;
            if ready.send(Ok(())).is_ok() {
                driver.run().await;
            }
            driver.save_last().await;
        }
        // Who opened it may be gone.
        Err(error) => drop(ready.send(Err(error))),
    }
}

impl<T: Object> Driver<T> {
    async fn open(parts: Parts<T>) -> Result<Self, OpenError> {
        let Parts { object, config, metrics, commands, notes, stop, known } = parts;
        let (id, owner, me) = (object.id(), object.owner, config.me);
        let saved = config.store.load(id).await?;
        let restored = saved.and_then(|Saved { cursor, replica }| {
            let metrics = Arc::clone(&metrics);
            match ObjectMachine::load(id, owner, me, metrics, &replica) {
                Ok(machine) => Some((machine, cursor)),
                Err(error) => {
                    tracing::warn!(object = %id.short(), %error, "a stored replica is damaged; reading its log");
                    None
                }
            }
        });
        let fresh = || (ObjectMachine::new(id, owner, me, Arc::clone(&metrics)), None);
        let (machine, cursor) = restored.unwrap_or_else(fresh);
        let start = cursor.map_or(Start::Retained, Start::After);
        let subscription = config.pubsub.subscribe(id, start).await.map_err(OpenError::Log)?;
        Ok(Self {
            id,
            config,
            machine,
            subscription,
            metrics,
            commands,
            notes,
            queue: VecDeque::new(),
            payloads: VecDeque::new(),
            publishing: None,
            waiting: BTreeMap::new(),
            writes: 0,
            cursor,
            saving: None,
            spare: Vec::new(),
            let_go: 0,
            releasing: None,
            reread: false,
            lagged: 0,
            stop,
            known,
        })
    }

    /// Reads what the local log holds.
    async fn catch_up(&mut self) {
        let until = self.now() + OPENING;
        let mut silence = if self.known { FIRST_SILENCE } else { SILENCE };
        while self.now() < until && !self.stop.is_cancelled() {
            let Ok(Some(delivery)) = timeout(silence, self.subscription.next()).await else {
                break;
            };
            self.delivered(delivery);
            self.outputs();
            self.read_again().await;
            silence = SILENCE;
        }
    }

    async fn run(&mut self) {
        loop {
            self.outputs();
            self.read_again().await;
            self.take_commands();
            self.make_checkpoint();
            self.start_writes();
            let timer = self.timer();
            let room = self.queue.len() < MAX_COMMANDS;
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = publishing(&mut self.publishing) => self.accepted(accepted),
                delivery = self.subscription.next() => match delivery {
                    Some(delivery) => self.deliver(delivery),
                    None => return,
                },
                saved = answer(&mut self.saving) => self.saved(saved),
                () = answer(&mut self.releasing) => self.releasing = None,
                command = self.commands.recv(), if room => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                () = timer => {
                    let now = self.now();
                    self.machine.handle_timeout(now);
                }
            }
        }
    }

    fn now(&self) -> Tick {
        self.config.clock.now()
    }

    fn timer(&self) -> Sleep {
        const NEVER: Duration = Duration::from_secs(3600);
        let now = self.now();
        sleep(self.machine.poll_timeout().map_or(NEVER, |at| at.since(now)))
    }

    fn deliver(&mut self, first: Delivery) {
        self.delivered(first);
        for _ in 1..TURN {
            let Some(next) = self.subscription.next_ready() else { break };
            self.delivered(next);
        }
    }

    fn delivered(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Message(message) => {
                let Message { author, epoch, seq, time, payload, cursor, .. } = message;
                if message.retention == RETENTION {
                    let entry = Entry { author, epoch, seq, time, payload };
                    let (now, bytes) = (self.now(), message.logged);
                    self.machine.handle(now, Input::Logged { entry, bytes });
                }
                if self.machine.is_settled() {
                    self.cursor = Some(cursor);
                }
            }
            _ => {
                self.lagged += 1;
                self.metrics.lagged.inc();
            }
        }
    }

    /// Reads the log from its beginning when the machine asks for it.
    async fn read_again(&mut self) {
        if !std::mem::take(&mut self.reread) {
            return;
        }
        match self.config.pubsub.subscribe(self.id, Start::Retained).await {
            Ok(subscription) => self.subscription = subscription,
            Err(error) => {
                tracing::warn!(object = %self.id.short(), %error, "the log cannot be read again");
            }
        }
    }

    fn take_commands(&mut self) {
        for _ in 0..TAKEN {
            if self.queue.len() >= MAX_COMMANDS {
                return;
            }
            let Ok(command) = self.commands.try_recv() else { return };
            self.command(command);
        }
    }

    fn command(&mut self, command: Command<T>) {
        match command {
            Command::Read(read) => read(self.machine.state()),
            Command::Status(reply) => {
                // Who does not wait any more does not want to know.
                let _ = reply.send(self.status());
            }
            write => self.queue.push_back(write),
        }
    }

    fn status(&self) -> Status {
        let (applied, pending, invalid) = self.machine.counts();
        Status {
            applied,
            pending,
            invalid,
            refusals: self.machine.refusals().copied().collect(),
            actors: self.machine.actors(),
            in_flight: self.waiting.len(),
            bytes: self.machine.state().size(),
            policy: Arc::clone(self.machine.policy()),
            rebuilding: self.machine.rebuilding(),
            lagged: self.lagged,
            hash: self.machine.hash(),
            checkpoint: self.machine.checkpoint(),
        }
    }

    /// Prepares the next writes, and hands what is prepared to the log one after the other: their order
    /// there is that of their preparation.
    fn start_writes(&mut self) {
        while self.payloads.is_empty() && self.publishing.is_none() && !self.machine.rebuilding() {
            if self.waiting.len() >= MAX_IN_FLIGHT {
                return;
            }
            let mut before = self.waiting.values();
            if let Some(Command::Write { scope, .. }) = self.queue.front()
                && before.any(|write| scope.waits_for(&write.scope))
            {
                return;
            }
            let Some(command) = self.queue.pop_front() else { return };
            self.prepare(command);
        }
        if self.publishing.is_none()
            && let Some((write, payload)) = self.payloads.pop_front()
        {
            let (pubsub, id) = (Arc::clone(&self.config.pubsub), self.id);
            let accepting = Box::pin(async move { pubsub.accept_as(id, RETENTION, payload).await });
            self.publishing = Some((write, accepting));
        }
    }

    /// Writes a checkpoint when it is this agent's turn: before other writes, all of it.
    fn make_checkpoint(&mut self) {
        let free = self.payloads.is_empty() && self.publishing.is_none();
        if !free || !self.machine.checkpoint_due() {
            return;
        }
        let prepared = self.machine.prepare_checkpoint(self.config.clock.wall());
        let payloads = prepared.into_iter().flat_map(|prepared| prepared.payloads);
        self.payloads.extend(payloads.map(|payload| (None, payload)));
    }

    fn prepare(&mut self, command: Command<T>) {
        let now = self.config.clock.wall();
        let (prepared, waiting) = match command {
            Command::Write { scope, decide, reply } => {
                let op = decide(self.machine.state(), &self.machine.write_context(now));
                let Some(op) = op else {
                    // Who does not wait any more does not want to know.
                    return drop(reply.send(Err(Failure::Declined)));
                };
                (self.machine.prepare(now, &op), Waiting { scope, reply })
            }
            Command::Policy { change, reply } => {
                let change = change(&self.machine);
                let scope = Scope::Everything;
                (self.machine.prepare_change(now, change), Waiting { scope, reply })
            }
            Command::Read(_) | Command::Status(_) => return,
        };
        match prepared {
            Ok(Prepared { mut payloads }) => {
                self.writes += 1;
                let last = payloads.pop();
                self.payloads.extend(payloads.into_iter().map(|payload| (None, payload)));
                self.payloads.extend(last.map(|payload| (Some(self.writes), payload)));
                self.waiting.insert(self.writes, waiting);
            }
            Err(error) => {
                self.metrics.writes_refused.inc();
                drop(waiting.reply.send(Err(Failure::Error(error))));
            }
        }
    }

    fn accepted(&mut self, (write, accepted): (Option<WriteId>, Result<Accepted, PublishError>)) {
        self.publishing = None;
        let now = self.now();
        match accepted {
            Ok(accepted) => {
                let (epoch, seq) = (accepted.epoch(), accepted.seq());
                self.machine.handle(now, Input::Accepted { write, epoch, seq });
            }
            Err(error) => {
                self.machine.handle(now, Input::NotAccepted);
                let failed = self.payloads.drain(..).filter_map(|(write, _)| write);
                for write in write.into_iter().chain(failed) {
                    if let Some(Waiting { reply, .. }) = self.waiting.remove(&write) {
                        self.metrics.writes_refused.inc();
                        drop(reply.send(Err(Failure::Error(match error {
                            PublishError::Full => WriteError::Full,
                            PublishError::Busy => WriteError::Busy,
                            PublishError::Closed => WriteError::Closed,
                            other => WriteError::Log(other),
                        }))));
                    }
                }
            }
        }
    }

    fn outputs(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Changed(change) => self.notes.tell(Note::Changed(change)),
                Output::Policy(policy) => self.notes.tell(Note::Policy(policy)),
                Output::Rebuilt => self.notes.tell(Note::Rebuilt),
                Output::Done { write, result } => {
                    let Some(Waiting { reply, .. }) = self.waiting.remove(&write) else { continue };
                    let result = result.map_err(|reason| {
                        Failure::Error(match reason {
                            Reason::Reference => WriteError::Interrupted,
                            reason => WriteError::Refused(reason),
                        })
                    });
                    drop(reply.send(result));
                }
                Output::Reread => self.reread = true,
                Output::Save => self.save(),
            }
        }
    }

    fn save(&mut self) {
        // A state that is being rebuilt does not hold all that is before the cursor.
        if self.saving.is_some() || self.machine.rebuilding() {
            return;
        }
        if self.machine.checkpoint() > self.let_go {
            let chains = self.machine.let_go().into_iter();
            let end = |(author, epoch, seq)| ChainEnd { author, epoch, seq };
            self.spare = chains.map(end).collect();
            self.let_go = self.machine.checkpoint();
        }
        let saved = Saved::new(self.cursor, self.machine.save().into());
        let (store, id) = (Arc::clone(&self.config.store), self.id);
        self.saving = Some(Box::pin(async move { store.save(id, saved).await }));
    }

    fn saved(&mut self, saved: Result<(), CrdtStoreError>) {
        self.saving = None;
        match saved {
            Ok(()) => {
                self.metrics.saved.inc();
                self.release();
            }
            Err(error) => {
                self.metrics.save_failed.inc();
                tracing::warn!(object = %self.id.short(), %error, "a replica is not stored");
            }
        }
    }

    /// Lets the log go of what the stored replica makes up for.
    fn release(&mut self) {
        if self.spare.is_empty() || self.releasing.is_some() {
            return;
        }
        let (pubsub, id) = (Arc::clone(&self.config.pubsub), self.id);
        let spare = std::mem::take(&mut self.spare);
        self.releasing = Some(Box::pin(async move { pubsub.release(id, spare).await }));
    }

    /// Saves the replica at the end.
    async fn save_last(&mut self) {
        if let Some(saving) = self.saving.take() {
            let saved = saving.await;
            self.saved(saved);
        }
        self.save();
        if self.saving.is_some() {
            let saved = answer(&mut self.saving).await;
            self.saved(saved);
        }
    }
}

/// The answer of the log; pending while nothing is handed to it.
async fn publishing(
    publishing: &mut Option<(Option<WriteId>, Publishing)>,
) -> (Option<WriteId>, Result<Accepted, PublishError>) {
    match publishing {
        Some((write, accepting)) => {
            let write = *write;
            (write, accepting.await)
        }
        None => std::future::pending().await,
    }
}

/// What was asked for; pending while nothing was.
async fn answer<T>(asked: &mut Option<BoxFuture<'static, T>>) -> T {
    match asked {
        Some(asked) => asked.await,
        None => std::future::pending().await,
    }
}
