//! What users hold: the service and their subscriptions.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering, fence},
    },
};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use x0x_core::{AgentId, Clock, Protocol, SeededRng, TopicId};
use x0x_identity::SecretKey;
use x0x_transport::{BoxFuture, Transport};

use crate::{
    config::Limits,
    driver::{Command, Driver},
    error::{PublishError, StartError, SubscribeError},
    metrics::PubSubMetrics,
    publisher::{Publisher, epoch_at},
    pubsub::{PubSub, Published},
    run::NetworkId,
    state::{Equivocation, PubSubMachine},
    subscriber::{Batch, Delivery, Start, SubscriptionId},
};

/// Commands that wait for the actor; callers wait beyond it.
const COMMANDS: usize = 64;

/// What handles, subscriptions and the actor share: queues with a lock inside, never held across
/// an await.
#[derive(Debug)]
pub(crate) struct Shared {
    publisher: Mutex<Publisher>,
    signals: Mutex<Signals>,
    /// Wakes the actor: something to sign, or a signal.
    pub(crate) work: Notify,
    /// Wakes publishers that found the topic busy.
    pub(crate) room: Notify,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<PubSubMetrics>,
}

/// What subscriptions tell the actor; at most one of each per subscription.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    pub(crate) ready: Vec<SubscriptionId>,
    pub(crate) dropped: Vec<SubscriptionId>,
}

impl Shared {
    pub(crate) fn publisher(&self) -> MutexGuard<'_, Publisher> {
        self.publisher.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn signals(&self) -> MutexGuard<'_, Signals> {
        self.signals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, topic: TopicId, payload: Bytes) -> Result<u64, PublishError> {
        let wall = self.clock.wall();
        let mut publisher = self.publisher();
        let idle = !publisher.is_active();
        let result = publisher.publish(wall, topic, payload);
        drop(publisher);
        match result {
            Ok(_) => {
                self.metrics.entries_published.inc();
                if idle {
                    self.work.notify_one();
                }
            }
            Err(PublishError::Busy) => self.metrics.publishes_busy.inc(),
            Err(_) => {}
        }
        result
    }
}

/// The pubsub service of one agent. Cheap to clone; it ends with [`shutdown`](Self::shutdown) or
/// when the last clone is dropped.
#[derive(Clone)]
pub struct Gossip {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    stop: CancellationToken,
    tasks: TaskTracker,
    author: AgentId,
    epoch: u64,
}

impl fmt::Debug for Gossip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (author, epoch) = (self.author, self.epoch);
        f.debug_struct("Gossip").field("author", &author).field("epoch", &epoch).finish()
    }
}

impl Gossip {
    /// Starts the service over a transport: each of its sessions is a link. Must be called within a
    /// tokio runtime. `seed` only separates epochs that start in the same millisecond.
    ///
    /// # Errors
    /// [`StartError::InboundTaken`] when another service reads this transport's pubsub protocol.
    pub fn start(
        transport: Arc<dyn Transport>,
        key: Arc<SecretKey>,
        network: &str,
        limits: Limits,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> Result<Self, StartError> {
        let inbound = transport.inbound(Protocol::Pubsub).map_err(|_| StartError::InboundTaken)?;
        let network = NetworkId::from_name(network);
        let public = key.public_key().clone();
        let author = public.agent_id();
        let random = SeededRng::from_number(seed).next_u64();
        let epoch = epoch_at(clock.wall(), random);
        let metrics = Arc::new(PubSubMetrics::default());
        let shared = Arc::new(Shared {
            publisher: Mutex::new(Publisher::new(network, author, epoch, limits.clone())),
            signals: Mutex::default(),
            work: Notify::new(),
            room: Notify::new(),
            clock,
            metrics: Arc::clone(&metrics),
        });
        let (sender, commands) = mpsc::channel(COMMANDS);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let driver = Driver {
            subscription_batches: limits.subscription_batches,
            waiting: Arc::default(),
            waiting_limit: limits.waiting_bytes,
            machine: PubSubMachine::new(network, public, limits, metrics),
            transport,
            key,
            shared: Arc::clone(&shared),
            inbound,
            commands,
            stop: stop.clone(),
            signing: None,
            channels: std::collections::BTreeMap::new(),
        };
        tasks.spawn(driver.run());
        tasks.close();
        Ok(Self { shared, commands: sender, stop, tasks, author, epoch })
    }

    /// The agent that publishes.
    #[must_use]
    pub const fn author(&self) -> AgentId {
        self.author
    }

    /// The epoch of this service's entries.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What the service counts.
    #[must_use]
    pub fn metrics(&self) -> &Arc<PubSubMetrics> {
        &self.shared.metrics
    }

    /// Proofs of authors that signed two histories, oldest first; empty once the service is closed.
    pub async fn equivocations(&self) -> Vec<Equivocation> {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Equivocations(reply)).await.is_err() {
            return Vec::new();
        }
        answer.await.unwrap_or_default()
    }

    /// Accepts nothing more, signs what was accepted and hands it to the transport, then ends.
    /// Waits at most a second for links whose queue is full; what they do not take is not sent. The
    /// transport has to be shut down gracefully after this for its queues to reach the peers.
    /// Subscriptions end once they are read to the end.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl PubSub for Gossip {
    fn publish(
        &self,
        topic: TopicId,
        payload: Bytes,
    ) -> BoxFuture<'_, Result<Published, PublishError>> {
        Box::pin(async move {
            loop {
                let room = self.shared.room.notified();
                tokio::pin!(room);
                // Registered before trying, so that room made in between is not missed.
                room.as_mut().enable();
                match self.shared.publish(topic, payload.clone()) {
                    Err(PublishError::Busy) => room.await,
                    result => return result.map(|seq| Published { seq }),
                }
            }
        })
    }

    fn try_publish(&self, topic: TopicId, payload: Bytes) -> Result<(), PublishError> {
        self.shared.publish(topic, payload).map(|_| ())
    }

    fn subscribe(
        &self,
        topic: TopicId,
        start: Start,
    ) -> BoxFuture<'_, Result<Subscription, SubscribeError>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let command = Command::Subscribe { topic, start, reply };
            self.commands.send(command).await.map_err(|_| SubscribeError::Closed)?;
            answer.await.map_err(|_| SubscribeError::Closed)?
        })
    }
}

/// The reading end of a subscription. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Subscription {
    topic: TopicId,
    batch: Batch,
    batches: mpsc::Receiver<Batch>,
    feed: Option<Feed>,
}

/// How a subscription talks back to the actor.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) id: SubscriptionId,
    /// Set by the actor when the channel was full.
    pub(crate) parked: Arc<AtomicBool>,
    pub(crate) shared: Arc<Shared>,
}

impl Subscription {
    pub(crate) fn new(topic: TopicId, batches: mpsc::Receiver<Batch>, feed: Option<Feed>) -> Self {
        Self { topic, batch: Batch::default(), batches, feed }
    }

    /// The topic.
    #[must_use]
    pub const fn topic(&self) -> TopicId {
        self.topic
    }

    /// The next delivery; `None` once the service is closed and everything was read. Cancel-safe.
    pub async fn next(&mut self) -> Option<Delivery> {
        loop {
            if let Some(delivery) = self.batch.next() {
                return Some(delivery);
            }
            self.batch = self.batches.recv().await?;
            self.make_room();
        }
    }

    /// The next delivery that is here already, without waiting: for readers that pass on several at
    /// once.
    pub fn next_ready(&mut self) -> Option<Delivery> {
        loop {
            if let Some(delivery) = self.batch.next() {
                return Some(delivery);
            }
            self.batch = self.batches.try_recv().ok()?;
            self.make_room();
        }
    }

    /// Waits for the next delivery, and takes up to `max - 1` more that are here already. Empty once
    /// the service is closed and everything was read. Cancel-safe.
    pub async fn next_batch(&mut self, max: usize) -> Vec<Delivery> {
        let Some(first) = self.next().await else { return Vec::new() };
        let mut batch = vec![first];
        while batch.len() < max {
            let Some(delivery) = self.next_ready() else { break };
            batch.push(delivery);
        }
        batch
    }

    /// Wakes the actor when it found the channel full and half of it is read.
    fn make_room(&self) {
        let Some(feed) = &self.feed else { return };
        fence(Ordering::SeqCst);
        if self.batches.len() <= self.batches.max_capacity() / 2
            && feed.parked.swap(false, Ordering::SeqCst)
        {
            feed.shared.signals().ready.push(feed.id);
            feed.shared.work.notify_one();
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.signals().dropped.push(self.id);
        self.shared.work.notify_one();
    }
}
