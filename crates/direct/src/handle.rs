//! What users hold.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use x0x_core::{AgentId, Clock, MachineId, SeededRng, Tick};
use x0x_transport::{Transport, error::InboundTaken};

use crate::{
    config::DirectConfig,
    driver,
    error::DirectError,
    inbox::Inbox,
    mailing::Mailing,
    metrics::DirectMetrics,
    routes::Routes,
    wire::{MAX_PAYLOAD, MessageId, MessageIn, Terms, Verified},
};

/// Commands on their way to the driver.
const MAX_COMMANDS: usize = 1024;
/// Messages on another way to the driver.
const MAX_ARRIVALS: usize = 16;
/// Machines whose gate is kept while nobody sends to them; past it, idle gates are dropped.
const MAX_IDLE_GATES: usize = 1024;

/// The receiver's inbox has the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The message's id.
    pub id: MessageId,
}

/// A send on its way to the driver.
pub(crate) struct Command {
    pub(crate) id: MessageId,
    pub(crate) peer: MachineId,
    pub(crate) from: AgentId,
    pub(crate) to: AgentId,
    pub(crate) payload: Bytes,
    pub(crate) terms: Terms,
    pub(crate) deadline: Tick,
    pub(crate) waiting: Waiting,
}

/// Who waits for the outcome of a send, and its share of the gate.
pub(crate) struct Waiting {
    pub(crate) reply: oneshot::Sender<Result<MessageId, DirectError>>,
    _permit: OwnedSemaphorePermit,
}

/// What became of a message that came on another way than a session with its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Accepted {
    /// The inbox has it.
    Stored,
    /// The inbox has or had it already.
    Duplicate,
    /// Its sender is not wanted.
    Unwanted,
    /// There is no room for it now, or the disk did not take it.
    Busy,
}

/// A message on another way, for the driver.
pub(crate) struct Arrival {
    pub(crate) machine: MachineId,
    pub(crate) message: Verified,
    pub(crate) reply: oneshot::Sender<Accepted>,
}

/// Sends messages to agents on other machines, and on this one. Cheap to clone; the service ends
/// when the last clone is dropped.
#[derive(Clone)]
pub struct Direct(Arc<Shared>);

struct Shared {
    commands: mpsc::Sender<Command>,
    arrivals: mpsc::Sender<Arrival>,
    gates: Mutex<HashMap<MachineId, Arc<Semaphore>>>,
    ids: Mutex<SeededRng>,
    config: DirectConfig,
    clock: Arc<dyn Clock>,
    metrics: Arc<DirectMetrics>,
    routes: Arc<Routes>,
    stop: CancellationToken,
}

impl Direct {
    /// Starts the service over a transport, on the current tokio runtime.
    ///
    /// # Errors
    /// [`InboundTaken`] when another consumer holds the transport's direct messages.
    pub fn start(
        transport: Arc<dyn Transport>,
        config: DirectConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Inbox), InboundTaken> {
        Self::start_parts(transport, config, clock, None)
    }

    /// The same with a store: mail is acknowledged once it is there, what it refuses is refused, and
    /// a message that an earlier run took is not delivered again.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with_mail(
        transport: Arc<dyn Transport>,
        config: DirectConfig,
        clock: Arc<dyn Clock>,
        mailing: Mailing,
    ) -> Result<(Self, Inbox), InboundTaken> {
        Self::start_parts(transport, config, clock, Some(mailing))
    }

    fn start_parts(
        transport: Arc<dyn Transport>,
        config: DirectConfig,
        clock: Arc<dyn Clock>,
        mailing: Option<Mailing>,
    ) -> Result<(Self, Inbox), InboundTaken> {
        let config = config.bounded();
        let metrics = Arc::new(DirectMetrics::default());
        let routes = Arc::new(Routes::default());
        let stop = CancellationToken::new();
        let (commands, receiver) = mpsc::channel(MAX_COMMANDS);
        let (arrivals, arrived) = mpsc::channel(MAX_ARRIVALS);
        let inbox = driver::spawn(driver::Parts {
            transport,
            config: config.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            routes: routes.clone(),
            commands: receiver,
            arrivals: arrived,
            stop: stop.clone(),
            mailing,
        })?;
        let mut seed = [0; 32];
        // Ids only have to differ. Without the system's randomness, the clock makes them differ
        // from those of earlier runs.
        if getrandom::fill(&mut seed).is_err() {
            seed[..8].copy_from_slice(&clock.wall().as_millis().to_le_bytes());
        }
        let shared = Shared {
            commands,
            arrivals,
            gates: Mutex::default(),
            ids: Mutex::new(SeededRng::from_seed(seed)),
            config,
            clock,
            metrics,
            routes,
            stop,
        };
        Ok((Self(Arc::new(shared)), inbox))
    }

    /// Sends a message and waits until the receiver's inbox has it.
    ///
    /// `from` must be an agent that this machine proves in its session hello, `to` an agent of the
    /// machine `peer`; this machine's own id stands for local delivery. While the peer is slow, this
    /// waits.
    ///
    /// Cancel safe in the sense that nothing breaks when the future is dropped: the message may then
    /// have been sent or not. To know, send again with the same id
    /// ([`send_with_id`](Self::send_with_id)).
    ///
    /// # Errors
    /// [`DirectError`]; its variants say whether the receiver may have the message all the same.
    pub async fn send(
        &self,
        peer: MachineId,
        from: AgentId,
        to: AgentId,
        payload: Bytes,
    ) -> Result<Receipt, DirectError> {
        self.send_with_id(self.new_id(), peer, from, to, payload).await
    }

    /// [`send`](Self::send) with an id from [`new_id`](Self::new_id), for retries: a message whose id
    /// the receiver took lately is acknowledged again and not delivered twice.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_with_id(
        &self,
        id: MessageId,
        peer: MachineId,
        from: AgentId,
        to: AgentId,
        payload: Bytes,
    ) -> Result<Receipt, DirectError> {
        self.queue(id, peer, from, to, payload).await?.await
    }

    /// The first half of a send: returns as soon as the message has its place in the order, waiting
    /// only while too much is on its way to the machine. Await the result for the acknowledgement.
    ///
    /// A caller that awaits each call to this keeps its messages in order with many of them in
    /// flight.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn queue(
        &self,
        id: MessageId,
        peer: MachineId,
        from: AgentId,
        to: AgentId,
        payload: Bytes,
    ) -> Result<Sending, DirectError> {
        self.queue_as(id, peer, (from, to), payload, Terms::default()).await
    }

    /// [`queue`](Self::queue) for a message from one agent to another that is to be treated in its
    /// own way.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn queue_as(
        &self,
        id: MessageId,
        peer: MachineId,
        (from, to): (AgentId, AgentId),
        payload: Bytes,
        terms: Terms,
    ) -> Result<Sending, DirectError> {
        let shared = &*self.0;
        if payload.len() > MAX_PAYLOAD {
            shared.metrics.oversized.inc();
            return Err(DirectError::TooLarge { len: payload.len(), max: MAX_PAYLOAD });
        }
        let deadline = shared.clock.now() + shared.config.send_timeout;
        let gate = shared.gate(peer).acquire_many_owned(shared.share(payload.len()));
        let Ok(permit) = tokio::time::timeout(shared.config.send_timeout, gate).await else {
            shared.metrics.timed_out.inc();
            return Err(DirectError::Timeout);
        };
        let permit = permit.map_err(|_| DirectError::Closed)?;
        let (reply, outcome) = oneshot::channel();
        let waiting = Waiting { reply, _permit: permit };
        let command = Command { id, peer, from, to, payload, terms, deadline, waiting };
        shared.commands.send(command).await.map_err(|_| DirectError::Closed)?;
        Ok(Sending { id, outcome })
    }

    /// Takes a message of an agent on a machine, both proven by whoever calls this, that did not come
    /// over a session with it: trust, quotas and order are those of any other message. It is busy where
    /// nothing is stored.
    pub async fn accept(
        &self,
        id: MessageId,
        (from, machine): (AgentId, MachineId),
        to: AgentId,
        payload: Bytes,
        terms: Terms,
    ) -> Accepted {
        let message = MessageIn { epoch: 0, seq: 1, id, from, to, payload, terms };
        let Ok(message) = message.verify(&[from], &self.0.config.local_agents) else {
            return Accepted::Unwanted;
        };
        let (reply, accepted) = oneshot::channel();
        let arrival = Arrival { machine, message, reply };
        if self.0.arrivals.send(arrival).await.is_err() {
            return Accepted::Busy;
        }
        accepted.await.unwrap_or(Accepted::Busy)
    }

    /// A machine whose session proved this agent, from an index over the sessions. One that began or
    /// ended this instant may not be in it yet.
    #[must_use]
    pub fn machine_of(&self, agent: AgentId) -> Option<MachineId> {
        self.0.routes.machine_of(agent)
    }

    /// A fresh message id.
    #[must_use]
    pub fn new_id(&self) -> MessageId {
        let mut ids = self.0.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&ids.next_u64().to_le_bytes());
        id[8..].copy_from_slice(&ids.next_u64().to_le_bytes());
        id
    }

    /// What the service counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<DirectMetrics> {
        &self.0.metrics
    }

    /// Ends the service: pending sends fail with [`DirectError::Closed`], and the inbox ends after
    /// the messages that it has.
    pub fn close(&self) {
        self.0.stop.cancel();
    }
}

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Direct").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl Shared {
    /// What bounds the sends to one machine that are not settled.
    fn gate(&self, peer: MachineId) -> Arc<Semaphore> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if gates.len() >= MAX_IDLE_GATES && !gates.contains_key(&peer) {
            // Those in use are as many as the callers that wait.
            gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        }
        gates
            .entry(peer)
            .or_insert_with(|| Arc::new(Semaphore::new(self.config.window_messages)))
            .clone()
    }

    /// A message's share of the gate, which has one permit for each message of the window: a large
    /// payload counts for as many messages as its part of the window's bytes.
    fn share(&self, len: usize) -> u32 {
        let messages = self.config.window_messages;
        let unit = self.config.window_bytes.div_ceil(messages);
        // At most `MAX_IN_FLIGHT_MESSAGES`.
        u32::try_from(len.div_ceil(unit).clamp(1, messages)).unwrap_or(u32::MAX)
    }
}

/// A message that has its place in the order. Resolves when the receiver's inbox has the message;
/// dropping it changes nothing but that the outcome is not known.
#[derive(Debug)]
#[must_use = "the outcome of the send is only known by awaiting it"]
pub struct Sending {
    id: MessageId,
    outcome: oneshot::Receiver<Result<MessageId, DirectError>>,
}

impl Sending {
    /// The message's id.
    #[must_use]
    pub const fn id(&self) -> MessageId {
        self.id
    }
}

impl Future for Sending {
    type Output = Result<Receipt, DirectError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.outcome)
            .poll(cx)
            .map(|outcome| outcome.unwrap_or(Err(DirectError::Closed)).map(|id| Receipt { id }))
    }
}
