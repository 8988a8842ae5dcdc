//! The pubsub machine: topic logs, links and local subscribers, without clock, socket or task.
//!
//! `receive` takes what peers send, `topics` keeps the logs, `pump` hands out what there is to send and deliver. Sends and
//! deliveries are made one at a time when [`Machine::poll_output`] asks for them, so that a refusal
//! ([`Input::SendRefused`], [`Input::SubscriberFull`]) always concerns the last one handed out.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use lru::LruCache;
use x0x_core::{AgentId, Machine, MachineId, SeededRng, Tick, TokenBucket, TopicId, WallTime};
use x0x_identity::PublicKey;

use crate::{
    config::{Dissemination, Limits, MAX_SUBSCRIBED_TOPICS},
    error::SubscribeError,
    link::{self, Link, Score},
    log::TopicLog,
    metrics::PubSubMetrics,
    missing::MissingTable,
    retention::Retention,
    run::{NetworkId, Run},
    subscriber::{Batch, Start, Subscriber, SubscriptionId},
    time::HybridTime,
};

mod authors;
mod believed;
mod compare;
mod gaps;
mod io;
#[cfg(feature = "test-util")]
mod known;
mod links;
mod paths;
mod peers;
mod pump;
mod receive;
mod snapshot;
mod stored;
mod timers;
mod topics;
mod tree;

pub use io::{Input, Output};
pub use receive::{CheckedRun, PendingRun};
pub use snapshot::{LinkSnapshot, Snapshot, TableSnapshot, TopicSnapshot};

use believed::Believed;
use timers::{Timer, Timers};

/// How long a link waits that sent, announced or passed over as much as it may.
pub(crate) const THROTTLE: Duration = Duration::from_millis(50);

/// Two verified runs of which an honest author signs only one: they give one place in its log
/// different contents, or divide the same place differently, or the second follows another history
/// than the first, which it should continue.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Equivocation {
    /// The author, blocked in the topic since.
    pub author: AgentId,
    /// The topic.
    pub topic: TopicId,
    /// The run that was accepted first.
    pub first: Arc<Run>,
    /// The run that contradicts it.
    pub second: Arc<Run>,
}

#[derive(Debug, Default)]
struct Topic {
    log: TopicLog,
    subscribers: BTreeSet<SubscriptionId>,
    /// This author published in it.
    own: bool,
    /// The epoch and the last entry of this author that a peer confirmed, by retention class.
    confirmed: [(u64, u64); Retention::ALL.len()],
    /// Ephemeral runs, when they arrived and where they are.
    ephemeral: VecDeque<(Tick, u64)>,
    /// When it began to take part in the topic.
    subscribed_at: Option<Tick>,
    /// When the log of a topic without subscribers is dropped.
    drop_at: Option<Tick>,
    /// Its age is being looked at.
    aging: bool,
    /// What is stored of it is being read; it takes no part in anything until then.
    loading: bool,
    /// Runs of this author that wait for that.
    signed: Vec<Arc<Run>>,
    /// Peers dialled because they subscribe it, at most three.
    dialled: BTreeSet<MachineId>,
    /// When it is compared out of turn.
    compare_at: Option<Tick>,
    congested: bool,
    /// It holds as much of the durable class as it may.
    full: bool,
}

/// The pubsub machine of one node.
#[derive(Debug)]
pub struct PubSubMachine {
    network: NetworkId,
    key: PublicKey,
    me: AgentId,
    limits: Limits,
    metrics: Arc<PubSubMetrics>,
    rng: SeededRng,
    now: Tick,
    wall: WallTime,
    believed: Believed,
    topics: BTreeMap<TopicId, Topic>,
    links: BTreeMap<MachineId, Link>,
    /// Sessions beyond [`Limits::links`], the longest up first; at most
    /// [`MAX_WAITING_LINKS`](crate::MAX_WAITING_LINKS).
    waiting: VecDeque<MachineId>,
    /// Where sessions come from; at most [`MAX_WAITING_LINKS`](crate::MAX_WAITING_LINKS).
    paths: BTreeMap<MachineId, IpAddr>,
    subscribers: BTreeMap<SubscriptionId, Subscriber>,
    missing: MissingTable,
    /// Signatures that may be checked for all links together, beside what each has for itself.
    checks: TokenBucket,
    /// At most [`Limits::keys`].
    keys: LruCache<AgentId, PublicKey>,
    /// How peers behaved whose link ended; at most [`Limits::penalties`].
    scores: LruCache<MachineId, Score>,
    /// Peers that get no link until then; at most [`Limits::penalties`].
    banned: LruCache<MachineId, Tick>,
    /// Searches for topic peers, and where they came from; none for those begun here.
    searches: LruCache<(TopicId, u64), Option<MachineId>>,
    equivocations: VecDeque<Equivocation>,
    outputs: VecDeque<Output>,
    ready_links: VecDeque<MachineId>,
    ready_subscribers: VecDeque<SubscriptionId>,
    timers: Timers,
    next_subscription: u64,
    subscribed: usize,
    log_bytes: u64,
    log_entries: u64,
    durable_bytes: u64,
    /// Bytes that the store has not taken yet.
    unstored_bytes: u64,
    /// More waits for the store than the logs tell.
    store_behind: bool,
    /// When former authors were last looked through for some that can be forgotten.
    former_swept: Option<Tick>,
    latest: HybridTime,
    closing: bool,
    /// Whether changes of the logs are stored.
    storing: bool,
    /// Topics that this author published in before, to be read; at most [`MAX_OWN_TOPICS`].
    to_carry: VecDeque<TopicId>,
}

impl PubSubMachine {
    /// A machine of the agent with this key, without links.
    #[must_use]
    pub fn new(
        network: NetworkId,
        key: PublicKey,
        limits: Limits,
        metrics: Arc<PubSubMetrics>,
    ) -> Self {
        let me = key.agent_id();
        let mut timers = Timers::default();
        if let Dissemination::EagerFloor(_) = limits.dissemination {
            timers.set(Tick::ZERO, Timer::Enforce);
        }
        Self {
            keys: LruCache::unbounded(),
            scores: LruCache::unbounded(),
            banned: LruCache::unbounded(),
            rng: SeededRng::from_seed(*me.as_bytes()),
            checks: link::bucket(Tick::ZERO, limits.check_burst, limits.check_rate),
            network,
            key,
            me,
            limits,
            metrics,
            now: Tick::ZERO,
            wall: WallTime::default(),
            believed: Believed::default(),
            topics: BTreeMap::new(),
            links: BTreeMap::new(),
            waiting: VecDeque::new(),
            paths: BTreeMap::new(),
            subscribers: BTreeMap::new(),
            missing: MissingTable::default(),
            searches: LruCache::unbounded(),
            equivocations: VecDeque::new(),
            outputs: VecDeque::new(),
            ready_links: VecDeque::new(),
            ready_subscribers: VecDeque::new(),
            timers,
            next_subscription: 0,
            subscribed: 0,
            log_bytes: 0,
            log_entries: 0,
            durable_bytes: 0,
            unstored_bytes: 0,
            store_behind: false,
            former_swept: None,
            latest: HybridTime::default(),
            closing: false,
            storing: false,
            to_carry: VecDeque::new(),
        }
    }

    /// Keeps the logs in a store: asks for what it holds, and tells it every change.
    #[must_use]
    pub fn stored(mut self) -> Self {
        self.storing = true;
        self.believed = Believed::nothing();
        self.timers.set(Tick::ZERO, Timer::Expire);
        self
    }

    /// Draws what is drawn at random from this seed; without it, from the agent's id.
    #[must_use]
    pub fn seeded(mut self, seed: [u8; 32]) -> Self {
        self.rng = SeededRng::from_seed(seed);
        self
    }

    /// Subscribes a topic locally and at all links.
    ///
    /// # Errors
    /// [`SubscribeError::Limit`] when there are too many subscriptions or subscribed topics.
    pub fn subscribe(
        &mut self,
        now: Tick,
        topic: TopicId,
        start: Start,
    ) -> Result<SubscriptionId, SubscribeError> {
        self.now = now;
        let max = self.limits.subscriptions;
        if self.subscribers.len() >= max {
            return Err(SubscribeError::Limit { what: "subscriptions", max });
        }
        let is_new = self.topics.get(&topic).is_none_or(|topic| topic.subscribers.is_empty());
        // One log is always left for a topic that is only published to.
        let max = MAX_SUBSCRIBED_TOPICS.min(self.limits.topics.saturating_sub(1));
        if is_new && self.subscribed >= max {
            return Err(SubscribeError::Limit { what: "subscribed topics", max });
        }
        self.make_topic(topic);
        let state = self.topics.entry(topic).or_default();
        let id = SubscriptionId(self.next_subscription);
        self.next_subscription += 1;
        state.subscribers.insert(id);
        state.drop_at = None;
        let mut subscriber = Subscriber::waiting(topic, start);
        let loading = state.loading;
        if !loading {
            let live_from = live_from(self.wall, &self.limits);
            subscriber.begin(&state.log, start, live_from);
        }
        self.subscribers.insert(id, subscriber);
        if is_new {
            self.subscribed += 1;
            if !loading {
                self.begin_subscribed(topic);
            }
        }
        self.wake_subscriber(id);
        self.update_gauges();
        Ok(id)
    }

    /// Everything that a subscription has not read, in one batch of the size of the log.
    pub fn rest(&mut self, id: SubscriptionId) -> Option<Batch> {
        let subscriber = self.subscribers.get_mut(&id)?;
        let log = &self.topics.get(&subscriber.topic)?.log;
        let mut rest = Batch::default();
        loop {
            let batch = subscriber.next_batch(log);
            if batch.is_empty() {
                return Some(rest).filter(|rest| !rest.is_empty());
            }
            rest.append(batch);
        }
    }

    /// Proofs of equivocation, oldest first.
    pub fn equivocations(&self) -> impl Iterator<Item = &Equivocation> {
        self.equivocations.iter()
    }

    /// The greatest time seen in an accepted entry.
    #[must_use]
    pub const fn latest_time(&self) -> HybridTime {
        self.latest
    }

    /// What this machine counts.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<PubSubMetrics> {
        &self.metrics
    }

    fn subscribed_topics(&self) -> impl Iterator<Item = TopicId> {
        let subscribed = self.topics.iter().filter(|(_, topic)| topic.is_subscribed());
        subscribed.map(|(id, _)| *id)
    }

    /// A topic has its first subscriber.
    fn begin_subscribed(&mut self, topic: TopicId) {
        if let Some(state) = self.topics.get_mut(&topic) {
            state.subscribed_at = Some(self.now);
        }
        self.announce(topic, true);
        self.update_holds();
        self.schedule_reconcile(topic);
        self.schedule_search(topic);
    }

    fn is_subscribed(&self, topic: &TopicId) -> bool {
        self.topics.get(topic).is_some_and(Topic::is_subscribed)
    }

    /// Links that subscribe a topic: what is published to it goes to them.
    #[must_use]
    pub fn topic_links(&self, topic: &TopicId) -> usize {
        let links = self.links.values().filter(|link| !link.banned);
        links.filter(|link| link.topics.contains_key(topic)).count()
    }

    fn unsubscribe(&mut self, id: SubscriptionId) {
        let Some(subscriber) = self.subscribers.remove(&id) else { return };
        let Some(topic) = self.topics.get_mut(&subscriber.topic) else { return };
        topic.subscribers.remove(&id);
        if topic.subscribers.is_empty() {
            let drop_at = self.now + self.limits.topic_grace;
            topic.drop_at = Some(drop_at);
            self.timers.set(drop_at, Timer::Grace(subscriber.topic));
            self.subscribed -= 1;
            self.missing.remove_topic(&subscriber.topic);
            self.leave_topic_peers(&subscriber.topic);
            self.announce(subscriber.topic, false);
            self.update_holds();
        }
        self.update_gauges();
    }

    /// Whether a link lacks own entries that are to be sent to it.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        let mut own = self.topics.iter().filter(|(_, topic)| topic.own);
        own.any(|(id, topic)| self.links.values().any(|link| link.lacks(id, &topic.log)))
    }

    /// Puts a link into the queue of those with something to send.
    fn wake_link(&mut self, peer: MachineId) {
        if let Some(link) = self.links.get_mut(&peer)
            && link.can_send()
            && !link.queued
        {
            link.queued = true;
            self.ready_links.push_back(peer);
        }
    }

    fn wake_subscriber(&mut self, id: SubscriptionId) {
        if let Some(subscriber) = self.subscribers.get_mut(&id)
            && !subscriber.full
            && !subscriber.queued
            && subscriber.waits.is_none()
        {
            subscriber.queued = true;
            self.ready_subscribers.push_back(id);
        }
    }

    fn update_gauges(&self) {
        self.metrics.links.set(self.links.len() as u64);
        self.metrics.links_waiting.set(self.waiting.len() as u64);
        self.metrics.topics.set(self.topics.len() as u64);
        self.metrics.subscriptions.set(self.subscribers.len() as u64);
        self.metrics.log_bytes.set(self.log_bytes);
        self.metrics.log_entries.set(self.log_entries);
        self.metrics.missing.set(self.missing.len() as u64);
    }
}

impl Topic {
    /// Whether entries of it are taken from links.
    fn is_subscribed(&self) -> bool {
        !self.subscribers.is_empty() && !self.loading
    }
}

/// Entries from this time on are new: clocks differ by as much as is tolerated.
fn live_from(wall: WallTime, limits: &Limits) -> HybridTime {
    let ahead = u64::try_from(limits.clock_ahead.as_millis()).unwrap_or(u64::MAX);
    HybridTime::from_wall(WallTime::from_millis(wall.as_millis().saturating_sub(ahead)))
}

impl Machine for PubSubMachine {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Tick, input: Input) {
        self.now = now;
        match input {
            Input::Wall(wall) => {
                self.wall = wall;
                self.believed.look(now, wall);
            }
            Input::Carry(topics) => self.carry(topics),
            Input::Release { topic, upto } => self.release(&topic, &upto),
            Input::LinkUp(peer) => self.link_up(peer),
            Input::LinkDown(peer) => self.link_down(&peer),
            Input::LinkLeft(peer) => self.link_left(peer),
            Input::Rtt { peer, rtt } => {
                if let Some(link) = self.links.get_mut(&peer) {
                    link.rtt = rtt;
                }
            }
            Input::Path { peer, from } => self.path(peer, from),
            Input::Address(address) => self.address(address),
            Input::Dialled { peer, up } => self.dialled(peer, up),
            Input::Introduced { topic, peers } => self.introduced(topic, peers),
            Input::Closing => self.closing(),
            Input::Frame { peer, message } => self.receive(peer, message),
            Input::SendRefused(peer) => self.send_refused(&peer),
            Input::Writable(peer) => self.writable(peer),
            Input::Verified(checked) => self.verified(checked),
            Input::Signed(run) => self.signed(run),
            Input::Stored { topic, upto } => self.stored_upto(&topic, upto),
            Input::StoreBehind(behind) => self.store_behind = behind,
            Input::Holed(topic) => self.store_again(&topic),
            Input::Restored { topic, stored } => self.restored(topic, stored),
            Input::SubscriberFull(id) => {
                if let Some(subscriber) = self.subscribers.get_mut(&id) {
                    subscriber.refuse();
                }
            }
            Input::SubscriberReady(id) => {
                if let Some(subscriber) = self.subscribers.get_mut(&id) {
                    subscriber.full = false;
                }
                self.wake_subscriber(id);
            }
            Input::Unsubscribe(id) => self.unsubscribe(id),
        }
    }

    fn handle_timeout(&mut self, now: Tick) {
        self.now = now;
        if self.poll_timeout().is_none_or(|timeout| timeout > now) {
            return;
        }
        self.run_timers();
        self.update_gauges();
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.next_output()
    }

    fn poll_timeout(&self) -> Option<Tick> {
        self.timers.next().into_iter().chain(self.missing.next_deadline()).min()
    }
}
