//! The in-memory fake of [`PubSub`]: authors that share a hub, without keys, runs or links.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::mpsc;
use x0x_core::{AgentId, TopicId, WallTime};
use x0x_transport::BoxFuture;

use crate::{
    config::MAX_PAYLOAD,
    error::{PublishError, SubscribeError},
    handle::Subscription,
    pubsub::{Accepted, PubSub},
    retention::{ChainEnd, Retention},
    subscriber::{Batch, Cursor, Message, Piece, Start},
};

/// Messages that a topic retains; the oldest is dropped.
const MAX_RETAINED: usize = 65_536;

/// Messages that wait in one subscription; it lags beyond.
const MAX_WAITING: usize = MAX_RETAINED + 1;

/// What the authors of one test share.
#[derive(Debug, Clone, Default)]
pub struct LocalHub(Arc<Mutex<HubState>>);

#[derive(Debug, Default)]
struct HubState {
    retained: BTreeMap<TopicId, VecDeque<Held>>,
    /// Bytes of the durable class that an author may hold of a topic; as many as it likes when there is none.
    limit: Option<u64>,
    readers: Vec<Reader>,
    heads: BTreeMap<(AgentId, TopicId, Retention), u64>,
    /// Messages of all topics together: each message's place.
    positions: u64,
    wall: WallTime,
    busy: bool,
    closed: bool,
}

/// A message, and who holds it: whoever subscribed when it came, or came while all still gave it.
#[derive(Debug)]
struct Held {
    message: Message,
    by: BTreeSet<AgentId>,
    released: bool,
}

#[derive(Debug)]
struct Reader {
    topic: TopicId,
    author: AgentId,
    batches: mpsc::Sender<Batch>,
    missed: u64,
}

impl Reader {
    /// False when the subscription was dropped.
    fn offer(&mut self, message: &Message) -> bool {
        if self.missed > 0 && self.batches.try_send(Batch::of(Piece::Lagged(self.missed))).is_ok() {
            self.missed = 0;
        }
        match self.batches.try_send(Batch::of(Piece::Message(message.clone()))) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.missed += 1;
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

impl LocalHub {
    /// An author on this hub; what it publishes reaches the subscriptions of all.
    #[must_use]
    pub fn author(&self, author: AgentId) -> LocalPubSub {
        LocalPubSub { hub: self.clone(), author }
    }

    /// The time that messages carry from now on.
    pub fn set_wall(&self, wall: WallTime) {
        self.state().wall = wall;
    }

    /// Makes `try_publish` refuse everything as busy, or no longer.
    pub fn set_busy(&self, busy: bool) {
        self.state().busy = busy;
    }

    /// Bounds what of the durable class an author holds of a topic.
    pub fn set_durable_limit(&self, bytes: u64) {
        self.state().limit = Some(bytes);
    }

    /// Bytes of the durable class that an author holds of a topic.
    #[must_use]
    pub fn durable_bytes(&self, topic: TopicId, author: AgentId) -> u64 {
        self.state().durable_bytes(topic, author)
    }

    /// Ends all subscriptions; publishing and subscribing fail from now on.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.readers.clear();
    }

    /// How many subscriptions a topic has.
    #[must_use]
    pub fn subscriptions(&self, topic: TopicId) -> usize {
        let mut state = self.state();
        state.readers.retain(|reader| !reader.batches.is_closed());
        state.readers.iter().filter(|reader| reader.topic == topic).count()
    }

    fn state(&self) -> MutexGuard<'_, HubState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HubState {
    fn durable_bytes(&self, topic: TopicId, author: AgentId) -> u64 {
        let retained = self.retained.get(&topic).into_iter().flatten();
        let own = retained.filter(|held| held.by.contains(&author));
        let durable = own.filter(|held| held.message.retention == Retention::Durable);
        durable.map(|held| held.message.logged).sum()
    }
}

/// One author on a [`LocalHub`]: a [`PubSub`] that delivers at once.
#[derive(Debug, Clone)]
pub struct LocalPubSub {
    hub: LocalHub,
    author: AgentId,
}

impl LocalPubSub {
    /// A hub for several authors.
    #[must_use]
    pub fn hub() -> LocalHub {
        LocalHub::default()
    }

    /// The hub that this author is on.
    #[must_use]
    pub const fn on(&self) -> &LocalHub {
        &self.hub
    }

    fn push(
        &self,
        topic: TopicId,
        retention: Retention,
        payload: Bytes,
    ) -> Result<u64, PublishError> {
        if payload.len() > MAX_PAYLOAD {
            return Err(PublishError::TooLarge { len: payload.len(), max: MAX_PAYLOAD });
        }
        let mut state = self.hub.state();
        if state.closed {
            return Err(PublishError::Closed);
        }
        if retention == Retention::Durable
            && state.limit.is_some_and(|limit| state.durable_bytes(topic, self.author) > limit)
        {
            return Err(PublishError::Full);
        }
        let head = state.heads.entry((self.author, topic, retention)).or_default();
        *head += 1;
        let seq = *head;
        let (author, time) = (self.author, state.wall);
        state.positions += 1;
        let cursor = Cursor::new(0, state.positions);
        let epoch = retention.epoch(1);
        let logged = payload.len() as u64;
        let message =
            Message { topic, author, epoch, seq, time, payload, cursor, retention, logged, gap: 0 };
        state.readers.retain_mut(|reader| reader.topic != topic || reader.offer(&message));
        let readers = state.readers.iter().filter(|reader| reader.topic == topic);
        let by = readers.map(|reader| reader.author).chain([author]).collect();
        let retained = state.retained.entry(topic).or_default();
        match retention {
            Retention::Ephemeral => return Ok(seq),
            Retention::Latest => {
                retained.retain(|held| {
                    (held.message.author, held.message.retention) != (author, retention)
                });
            }
            Retention::Standard | Retention::Durable => {}
        }
        if retained.len() >= MAX_RETAINED {
            retained.pop_front();
        }
        retained.push_back(Held { message, by, released: false });
        Ok(seq)
    }
}

impl PubSub for LocalPubSub {
    fn accept_as(
        &self,
        topic: TopicId,
        retention: Retention,
        payload: Bytes,
    ) -> BoxFuture<'_, Result<Accepted, PublishError>> {
        Box::pin(async move {
            let seq = self.push(topic, retention, payload)?;
            Ok(Accepted::new((retention.epoch(1), seq), None))
        })
    }

    fn try_publish_as(
        &self,
        topic: TopicId,
        retention: Retention,
        payload: Bytes,
    ) -> Result<(), PublishError> {
        if self.hub.state().busy {
            return Err(PublishError::Busy);
        }
        self.push(topic, retention, payload).map(|_| ())
    }

    fn subscribe(
        &self,
        topic: TopicId,
        start: Start,
    ) -> BoxFuture<'_, Result<Subscription, SubscribeError>> {
        Box::pin(async move {
            let mut state = self.hub.state();
            if state.closed {
                return Err(SubscribeError::Closed);
            }
            let (batches, receiver) = mpsc::channel(MAX_WAITING);
            let mut reader = Reader { topic, author: self.author, batches, missed: 0 };
            for held in state.retained.get_mut(&topic).into_iter().flatten() {
                if !held.released {
                    held.by.insert(self.author);
                }
                let message = &held.message;
                let wanted = match start {
                    Start::Retained => true,
                    Start::Live => false,
                    Start::After(cursor) => message.cursor > cursor,
                };
                if wanted && held.by.contains(&self.author) {
                    reader.offer(message);
                }
            }
            state.readers.push(reader);
            Ok(Subscription::new(topic, receiver, None))
        })
    }

    fn release(&self, topic: TopicId, upto: Vec<ChainEnd>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let mut state = self.hub.state();
            let Some(retained) = state.retained.get_mut(&topic) else { return };
            for held in retained.iter_mut() {
                let message = &held.message;
                let of =
                    |end: &&ChainEnd| (end.author, end.epoch) == (message.author, message.epoch);
                if upto.iter().find(of).is_some_and(|end| message.seq <= end.seq) {
                    held.released |= held.by.remove(&self.author);
                }
            }
            retained.retain(|held| !held.by.is_empty());
        })
    }
}
