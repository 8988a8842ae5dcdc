//! The pubsub machine: topic logs, links and local subscribers, without clock, socket or task.
//!
//! `receive` takes what peers send, `topics` keeps the logs, `pump` hands out what there is to send and deliver. Sends and
//! deliveries are made one at a time when [`Machine::poll_output`] asks for them, so that a refusal
//! ([`Input::SendRefused`], [`Input::SubscriberFull`]) always concerns the last one handed out.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use lru::LruCache;
use x0x_core::{AgentId, Machine, MachineId, Tick, TopicId, WallTime};
use x0x_identity::PublicKey;

use crate::{
    config::{Limits, MAX_SUBSCRIBED_TOPICS, MAX_WAITING_LINKS},
    error::SubscribeError,
    link::{Link, Penalty},
    log::TopicLog,
    metrics::PubSubMetrics,
    run::{NetworkId, Run},
    subscriber::{Batch, Start, Subscriber, SubscriptionId},
    time::HybridTime,
};

mod pump;
mod receive;
mod topics;

pub use receive::{CheckedRun, PendingRun};

/// How often requests, congestion and grace periods are looked at while there are any.
const SHORT_TICK: Duration = Duration::from_millis(500);

/// How long a link waits that sent, announced or passed over as much as it may.
pub(crate) const THROTTLE: Duration = Duration::from_millis(50);

/// How often retention by age is looked at while anything is retained.
const SWEEP: Duration = Duration::from_secs(60);

/// What the world tells the machine.
#[derive(Debug)]
#[non_exhaustive]
pub enum Input {
    /// The wall-clock time, before anything else of a turn.
    Wall(WallTime),
    /// A session with this peer begins.
    LinkUp(MachineId),
    /// The session with this peer ended.
    LinkDown(MachineId),
    /// A message of the pubsub protocol.
    Frame {
        /// The authenticated sender.
        peer: MachineId,
        /// The message.
        message: Bytes,
    },
    /// The peer's queue refused the last [`Output::Send`] to it.
    SendRefused(MachineId),
    /// The peer's queue has room again.
    Writable(MachineId),
    /// The answer to [`Output::Verify`].
    Verified(CheckedRun),
    /// A run of this author, signed.
    Signed(Run),
    /// The subscription's channel refused the last [`Output::Deliver`] to it.
    SubscriberFull(SubscriptionId),
    /// The subscription's channel has room again.
    SubscriberReady(SubscriptionId),
    /// The subscription was dropped.
    Unsubscribe(SubscriptionId),
}

/// What the machine asks of the world.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output {
    /// Offer a message to the peer's queue; when it is refused say so with [`Input::SendRefused`]
    /// before polling again.
    Send {
        /// To whom.
        peer: MachineId,
        /// The frame.
        message: Bytes,
    },
    /// Check a run's signature with [`PendingRun::verify`] and hand the result back with
    /// [`Input::Verified`] before the next frame: an author's runs are taken in order.
    Verify(Box<PendingRun>),
    /// Offer a batch to the subscription's channel; when it is refused say so with
    /// [`Input::SubscriberFull`] before polling again.
    Deliver {
        /// To whom.
        subscription: SubscriptionId,
        /// The messages.
        batch: Batch,
    },
    /// A live link of this topic is too far behind for more to be published, or no longer is.
    Congestion {
        /// The topic.
        topic: TopicId,
        /// Whether publishing is to wait.
        congested: bool,
    },
    /// End the session with a peer that misbehaves.
    Disconnect(MachineId),
}

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
    /// When the log of a topic without subscribers is dropped.
    drop_at: Option<Tick>,
    congested: bool,
}

/// The pubsub machine of one node.
#[derive(Debug)]
pub struct PubSubMachine {
    network: NetworkId,
    key: PublicKey,
    limits: Limits,
    metrics: Arc<PubSubMetrics>,
    now: Tick,
    wall: WallTime,
    topics: BTreeMap<TopicId, Topic>,
    links: BTreeMap<MachineId, Link>,
    /// Sessions beyond [`Limits::links`], the longest up first; at most [`MAX_WAITING_LINKS`].
    waiting: VecDeque<MachineId>,
    subscribers: BTreeMap<SubscriptionId, Subscriber>,
    /// At most [`Limits::keys`].
    keys: LruCache<AgentId, PublicKey>,
    /// At most [`Limits::penalties`].
    penalties: LruCache<MachineId, Penalty>,
    equivocations: VecDeque<Equivocation>,
    outputs: VecDeque<Output>,
    ready_links: VecDeque<MachineId>,
    ready_subscribers: VecDeque<SubscriptionId>,
    next_subscription: u64,
    log_bytes: u64,
    log_entries: u64,
    /// When former authors were last looked through for some that can be forgotten.
    former_swept: Option<Tick>,
    latest: HybridTime,
    timeout: Option<Tick>,
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
        Self {
            keys: LruCache::unbounded(),
            penalties: LruCache::unbounded(),
            network,
            key,
            limits,
            metrics,
            now: Tick::ZERO,
            wall: WallTime::default(),
            topics: BTreeMap::new(),
            links: BTreeMap::new(),
            waiting: VecDeque::new(),
            subscribers: BTreeMap::new(),
            equivocations: VecDeque::new(),
            outputs: VecDeque::new(),
            ready_links: VecDeque::new(),
            ready_subscribers: VecDeque::new(),
            next_subscription: 0,
            log_bytes: 0,
            log_entries: 0,
            former_swept: None,
            latest: HybridTime::default(),
            timeout: None,
        }
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
        if is_new && self.subscribed_topics().count() >= max {
            return Err(SubscribeError::Limit { what: "subscribed topics", max });
        }
        self.make_topic(topic);
        let state = self.topics.entry(topic).or_default();
        let id = SubscriptionId(self.next_subscription);
        self.next_subscription += 1;
        state.subscribers.insert(id);
        state.drop_at = None;
        let (cursor, not_before) = match start {
            Start::Retained => (state.log.base(), HybridTime::default()),
            Start::Live => {
                let ahead = u64::try_from(self.limits.clock_ahead.as_millis()).unwrap_or(u64::MAX);
                let from = WallTime::from_millis(self.wall.as_millis().saturating_sub(ahead));
                (state.log.end(), HybridTime::from_wall(from))
            }
        };
        self.subscribers.insert(id, Subscriber::new(topic, cursor, not_before));
        if is_new {
            self.announce(topic, true);
        }
        self.wake_subscriber(id);
        self.update_gauges();
        Ok(id)
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
        let subscribed = self.topics.iter().filter(|(_, topic)| !topic.subscribers.is_empty());
        subscribed.map(|(id, _)| *id)
    }

    fn unsubscribe(&mut self, id: SubscriptionId) {
        let Some(subscriber) = self.subscribers.remove(&id) else { return };
        let Some(topic) = self.topics.get_mut(&subscriber.topic) else { return };
        topic.subscribers.remove(&id);
        if topic.subscribers.is_empty() {
            topic.drop_at = Some(self.now + self.limits.topic_grace);
            self.set_timeout(SHORT_TICK);
            self.announce(subscriber.topic, false);
        }
        self.update_gauges();
    }

    /// Tells every link that a topic is subscribed here, or no longer is.
    fn announce(&mut self, topic: TopicId, subscribed: bool) {
        let peers: Vec<MachineId> = self.links.keys().copied().collect();
        for peer in peers {
            if let Some(link) = self.links.get_mut(&peer) {
                if subscribed {
                    link.retract.remove(&topic);
                    link.announce.insert(topic);
                } else {
                    link.announce.remove(&topic);
                    if link.announced.contains(&topic) {
                        link.retract.insert(topic);
                    }
                }
            }
            self.wake_link(peer);
        }
    }

    fn link_up(&mut self, peer: MachineId) {
        self.links.remove(&peer);
        self.waiting.retain(|waiting| *waiting != peer);
        if self.links.len() < self.limits.links {
            self.admit(peer, false);
        } else {
            self.metrics.refused_links.inc();
            if self.waiting.len() < MAX_WAITING_LINKS {
                self.waiting.push_back(peer);
            }
        }
        self.update_gauges();
    }

    /// Makes a session a link. One that waited has announced its subscriptions in vain and is asked
    /// for them.
    fn admit(&mut self, peer: MachineId, waited: bool) {
        let mut link = Link::new(self.now, &self.limits);
        link.announce = self.subscribed_topics().collect();
        link.announce_again = waited;
        self.links.insert(peer, link);
        self.wake_link(peer);
    }

    fn link_down(&mut self, peer: &MachineId) {
        self.waiting.retain(|waiting| waiting != peer);
        if let Some(link) = self.links.remove(peer) {
            for topic in link.topics.keys() {
                self.update_congestion(topic);
            }
            if let Some(next) = self.waiting.pop_front() {
                self.admit(next, true);
            }
        }
        self.update_gauges();
    }

    /// Whether a link lacks own entries that are to be sent to it.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        let mut own = self.topics.iter().filter(|(_, topic)| topic.own);
        own.any(|(id, topic)| self.links.values().any(|link| link.lacks(id, &topic.log)))
    }

    /// Lets links go on that had sent as much as they may.
    fn resume_throttled(&mut self) {
        let throttled = self.links.iter_mut().filter_map(|(peer, link)| {
            let runs = std::mem::take(&mut link.runs_throttled);
            let topics = std::mem::take(&mut link.topics_throttled);
            (runs || topics).then_some(*peer)
        });
        let throttled: Vec<MachineId> = throttled.collect();
        throttled.into_iter().for_each(|peer| self.wake_link(peer));
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
        {
            subscriber.queued = true;
            self.ready_subscribers.push_back(id);
        }
    }

    /// Makes the timer run out no later than this.
    fn set_timeout(&mut self, after: Duration) {
        let at = self.now + after;
        self.timeout = Some(self.timeout.map_or(at, |timeout| timeout.min(at)));
    }

    fn update_gauges(&self) {
        self.metrics.links.set(self.links.len() as u64);
        self.metrics.links_waiting.set(self.waiting.len() as u64);
        self.metrics.topics.set(self.topics.len() as u64);
        self.metrics.subscriptions.set(self.subscribers.len() as u64);
        self.metrics.log_bytes.set(self.log_bytes);
        self.metrics.log_entries.set(self.log_entries);
    }
}

impl Machine for PubSubMachine {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Tick, input: Input) {
        self.now = now;
        match input {
            Input::Wall(wall) => self.wall = wall,
            Input::LinkUp(peer) => self.link_up(peer),
            Input::LinkDown(peer) => self.link_down(&peer),
            Input::Frame { peer, message } => self.receive(peer, message),
            Input::SendRefused(peer) => self.send_refused(&peer),
            Input::Writable(peer) => self.writable(peer),
            Input::Verified(checked) => self.verified(checked),
            Input::Signed(run) => self.signed(run),
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
        if self.timeout.is_none_or(|timeout| timeout > now) {
            return;
        }
        self.timeout = None;
        self.sweep_age();
        self.sweep_topics();
        self.retry_missing();
        self.resume_throttled();
        let own: Vec<TopicId> =
            self.topics.iter().filter(|(_, topic)| topic.congested).map(|(id, _)| *id).collect();
        own.iter().for_each(|id| self.update_congestion(id));
        if self.topics.values().any(|topic| topic.drop_at.is_some()) {
            self.set_timeout(SHORT_TICK);
        }
        if self.log_entries > 0 {
            self.set_timeout(SWEEP);
        }
        self.update_gauges();
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.next_output()
    }

    fn poll_timeout(&self) -> Option<Tick> {
        self.timeout
    }
}
