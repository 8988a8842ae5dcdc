//! What users hold: the service and their subscriptions.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering, fence},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use x0x_core::{AgentId, Clock, PeerAddr, Protocol, SeededRng, TopicId};
use x0x_gossip_membership::Neighbors;
use x0x_identity::SecretKey;
use x0x_transport::{BoxFuture, Transport, ask};

use crate::{
    config::Limits,
    driver::{
        Command, Driver, Links,
        gather::Gather,
        waiters::{Publishing, Waiters},
    },
    error::{PublishError, StartError, SubscribeError, WaitError},
    metrics::PubSubMetrics,
    publisher::Publisher,
    pubsub::{Accepted, PubSub, Published},
    retention::{ChainEnd, Retention, epoch_at},
    run::NetworkId,
    state::{Equivocation, PubSubMachine, Snapshot},
    store::{LogStore, follow::Follower},
    subscriber::{Batch, Delivery, Start, SubscriptionId},
};

/// Commands that wait for the actor; callers wait beyond it.
const COMMANDS: usize = 64;

/// What handles, subscriptions and the actor share: queues with a lock inside, never held across
/// an await.
#[derive(Debug)]
pub(crate) struct Shared {
    publisher: Mutex<Publisher>,
    /// Locked after the publisher, when both are.
    publishing: Mutex<Publishing>,
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

    pub(crate) fn publishing(&self) -> MutexGuard<'_, Publishing> {
        self.publishing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts an entry; `told` asks to be told when it is published.
    fn accept(
        &self,
        topic: TopicId,
        retention: Retention,
        payload: Bytes,
        told: bool,
    ) -> Result<Accepted, PublishError> {
        let wall = self.clock.wall();
        let mut publisher = self.publisher();
        let idle = !publisher.is_active();
        let result = publisher.publish_as(wall, topic, retention, payload).map(|(epoch, seq)| {
            let published = told.then(|| {
                let (reply, published) = oneshot::channel();
                self.publishing().wait(topic, epoch, seq, reply);
                published
            });
            Accepted::new((epoch, seq), published)
        });
        let work = idle || publisher.has_awaited();
        drop(publisher);
        match result {
            Ok(_) => {
                self.metrics.entries_published.inc();
                if work {
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

/// What a [`Gossip`] is started with, beside its transport, its author's key and its clock.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GossipConfig {
    /// The network's name; runs of another one are refused.
    pub network: String,
    /// Every bound.
    pub limits: Limits,
    /// Who is a link: the neighbours of the overlay, and peers that subscribe a topic of ours and say
    /// so. Without it every session is one.
    pub neighbors: Option<Arc<dyn Neighbors>>,
    /// Where the logs outlive the service. Without it they do not.
    pub store: Option<Arc<dyn LogStore>>,
    /// Must differ between nodes and runs.
    pub seed: u64,
}

impl GossipConfig {
    /// Defaults, without neighbours and store.
    #[must_use]
    pub fn new(network: &str, seed: u64) -> Self {
        let (network, limits) = (network.to_owned(), Limits::default());
        Self { network, limits, neighbors: None, store: None, seed }
    }
}

impl fmt::Debug for Gossip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (author, epoch) = (self.author, self.epoch);
        f.debug_struct("Gossip").field("author", &author).field("epoch", &epoch).finish()
    }
}

impl Gossip {
    /// Starts the service over a transport. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`StartError::InboundTaken`] when another service reads this transport's pubsub protocol.
    pub fn start(
        transport: Arc<dyn Transport>,
        key: Arc<SecretKey>,
        config: GossipConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        let GossipConfig { network, limits, neighbors, store, seed } = config;
        let inbound = transport.inbound(Protocol::Pubsub).map_err(|_| StartError::InboundTaken)?;
        let network = NetworkId::from_name(&network);
        let public = key.public_key().clone();
        let author = public.agent_id();
        let mut rng = SeededRng::from_number(seed);
        let epoch = epoch_at(clock.wall(), rng.next_u64());
        let metrics = Arc::new(PubSubMetrics::default());
        let shared = Arc::new(Shared {
            publisher: Mutex::new(Publisher::new(network, author, epoch, limits.clone())),
            publishing: Mutex::default(),
            signals: Mutex::default(),
            work: Notify::new(),
            room: Notify::new(),
            clock,
            metrics: Arc::clone(&metrics),
        });
        let (sender, commands) = mpsc::channel(COMMANDS);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let links = Links::new(neighbors.map(|neighbors| neighbors.events()));
        let store = store.map(|store| Follower::new(store, network, &limits).asking_for(author));
        let mut machine_seed = *author.as_bytes();
        machine_seed[..8].copy_from_slice(&rng.next_u64().to_be_bytes());
        machine_seed[8..16].copy_from_slice(&epoch.to_be_bytes());
        let (subscription_batches, waiting_limit) =
            (limits.subscription_batches, limits.waiting_bytes);
        let mut machine = PubSubMachine::new(network, public, limits, metrics).seeded(machine_seed);
        if store.is_some() {
            machine = machine.stored();
        }
        let driver = Driver {
            subscription_batches,
            waiting: Arc::default(),
            waiting_limit,
            machine,
            links,
            store,
            unstored: VecDeque::new(),
            changes: 0,
            behind: false,
            waiters: Waiters::default(),
            dials: tokio::task::JoinSet::new(),
            measured: shared.clock.now(),
            transport,
            key,
            shared: Arc::clone(&shared),
            inbound,
            commands,
            stop: stop.clone(),
            signing: None,
            gather: Gather::default(),
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

    /// The epoch of this service's first entries. A clock that is set while it runs begins another.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What the service counts.
    #[must_use]
    pub fn metrics(&self) -> &Arc<PubSubMetrics> {
        &self.shared.metrics
    }

    /// Names subscribers of a topic that were found by other means than pubsub's own search. Those that
    /// the topic lacks as links are dialled.
    pub async fn introduce(&self, topic: TopicId, peers: Vec<PeerAddr>) {
        // Once the service is closed nobody needs them.
        let _ = self.commands.send(Command::Introduce { topic, peers }).await;
    }

    /// Proofs of authors that signed two histories, oldest first; empty once the service is closed.
    pub async fn equivocations(&self) -> Vec<Equivocation> {
        ask(&self.commands, Command::Equivocations).await.unwrap_or_default()
    }

    /// What the service is like now; empty once it is closed.
    pub async fn snapshot(&self) -> Snapshot {
        ask(&self.commands, Command::Snapshot).await.unwrap_or_default()
    }

    /// Waits until so many links subscribe a topic, and returns how many do: what is published then
    /// reaches them at once.
    ///
    /// # Errors
    /// [`WaitError`].
    pub async fn ready(
        &self,
        topic: TopicId,
        links: usize,
        within: Duration,
    ) -> Result<usize, WaitError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Ready { topic, links, reply };
        self.wait_for(command, answer, within).await
    }

    /// Waits until a link has confirmed an entry of this service: it left this machine.
    ///
    /// # Errors
    /// [`WaitError`].
    pub async fn first_hop(
        &self,
        topic: TopicId,
        published: &Published,
        within: Duration,
    ) -> Result<(), WaitError> {
        let (reply, answer) = oneshot::channel();
        let entry = (published.epoch, published.seq);
        let command = Command::FirstHop { topic, entry, reply };
        self.wait_for(command, answer, within).await
    }

    async fn wait_for<T>(
        &self,
        command: Command,
        answer: oneshot::Receiver<T>,
        within: Duration,
    ) -> Result<T, WaitError> {
        self.commands.send(command).await.map_err(|_| WaitError::Closed)?;
        match tokio::time::timeout(within, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) if self.commands.is_closed() => Err(WaitError::Closed),
            Ok(Err(_)) => Err(WaitError::Busy),
            Err(_) => Err(WaitError::Timeout),
        }
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
    fn accept_as(
        &self,
        topic: TopicId,
        retention: Retention,
        payload: Bytes,
    ) -> BoxFuture<'_, Result<Accepted, PublishError>> {
        Box::pin(async move {
            loop {
                let room = self.shared.room.notified();
                tokio::pin!(room);
                // Registered before trying, so that room made in between is not missed.
                room.as_mut().enable();
                match self.shared.accept(topic, retention, payload.clone(), true) {
                    Err(PublishError::Busy) => room.await,
                    result => return result,
                }
            }
        })
    }

    fn try_publish_as(
        &self,
        topic: TopicId,
        retention: Retention,
        payload: Bytes,
    ) -> Result<(), PublishError> {
        self.shared.accept(topic, retention, payload, false).map(|_| ())
    }

    fn subscribe(
        &self,
        topic: TopicId,
        start: Start,
    ) -> BoxFuture<'_, Result<Subscription, SubscribeError>> {
        Box::pin(async move {
            let subscribe = |reply| Command::Subscribe { topic, start, reply };
            ask(&self.commands, subscribe).await.ok_or(SubscribeError::Closed)?
        })
    }

    fn release(&self, topic: TopicId, upto: Vec<ChainEnd>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // A service that was closed lets go of nothing.
            let _ = ask(&self.commands, |reply| Command::Release { topic, upto, reply }).await;
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
