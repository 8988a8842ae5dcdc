//! What is known of one neighbour: what it subscribes, where it is in each topic's log, and how well
//! it behaves.
//!
//! Nothing is queued for a link. It holds a position in each log, so a slow link costs a number, and
//! loses nothing until retention passes that position.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use lru::LruCache;
use x0x_core::{AgentId, Tick, TopicId, WallTime};

use crate::{
    config::{Limits, MAX_SUBSCRIBED_TOPICS},
    log::{Item, TopicLog},
    wire::WantIn,
};

/// An author's chain within a topic.
pub(crate) type ChainId = (AgentId, u64);

/// Points at which a peer is disconnected.
pub(crate) const MAX_PENALTY: u32 = 100;

/// How often a missing range is asked for on one link.
const MAX_TRIES: u32 = 5;

/// Requests that a peer may make at once, and per second. Each can rewind its place in a log.
const WANT_BURST: u64 = 256;
const WANT_RATE: u64 = 64;

/// Subscriptions that a peer may make at once, and per second. Each reads a log from the start.
const SUBSCRIBE_BURST: u64 = 4 * MAX_SUBSCRIBED_TOPICS as u64;
const SUBSCRIBE_RATE: u64 = 64;

/// A token bucket in virtual time.
#[derive(Debug)]
pub(crate) struct Bucket {
    tokens: u64,
    burst: u64,
    rate: u64,
    refilled: Tick,
}

impl Bucket {
    pub(crate) const fn new(now: Tick, burst: u64, rate: u64) -> Self {
        Self { tokens: burst, burst, rate, refilled: now }
    }

    /// Takes `count` tokens if they are there.
    pub(crate) fn take(&mut self, now: Tick, count: u64) -> bool {
        let elapsed = u64::try_from(now.since(self.refilled).as_micros()).unwrap_or(u64::MAX);
        let fresh = elapsed.saturating_mul(self.rate) / 1_000_000;
        if fresh > 0 {
            self.tokens = self.tokens.saturating_add(fresh).min(self.burst);
            self.refilled = now;
        }
        let enough = self.tokens >= count;
        if enough {
            self.tokens -= count;
        }
        enough
    }
}

/// A peer's misbehaviour; one point is forgiven each second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Penalty {
    points: u32,
    since: Tick,
}

impl Penalty {
    pub(crate) const fn new(now: Tick) -> Self {
        Self { points: 0, since: now }
    }

    /// Adds points; true when the peer has had enough.
    pub(crate) fn add(&mut self, now: Tick, points: u32) -> bool {
        let forgiven = u32::try_from(now.since(self.since).as_secs()).unwrap_or(u32::MAX);
        if forgiven > 0 {
            self.points = self.points.saturating_sub(forgiven);
            self.since = now;
        }
        self.points = self.points.saturating_add(points);
        self.points >= MAX_PENALTY
    }
}

/// The peer's place in one topic that it subscribes.
#[derive(Debug, Default)]
pub(crate) struct LinkTopic {
    /// Position up to which everything was sent or was not needed.
    pub(crate) cursor: u64,
    /// What the peer has: from its heads, from what it sent, and from what was sent to it.
    pub(crate) have: BTreeMap<ChainId, u64>,
    /// Whether the topic is in the link's queue.
    queued: bool,
}

impl LinkTopic {
    /// A peer that begins to read here.
    pub(crate) fn at(cursor: u64) -> Self {
        Self { cursor, ..Self::default() }
    }
}

/// The frame handed out last, in case it is refused.
#[derive(Debug)]
pub(crate) enum Offer {
    Announce { set: bool, added: Vec<TopicId>, removed: Vec<TopicId> },
    Want(WantIn),
    Run { topic: TopicId, cursor: u64, chain: ChainId, had: Option<u64>, key: Option<AgentId> },
}

/// A missing range that was asked for.
#[derive(Debug)]
pub(crate) struct Missing {
    /// Entries up to here are known to exist.
    pub(crate) upto: u64,
    pub(crate) need_key: bool,
    pub(crate) retry_at: Tick,
    tries: u32,
}

/// One neighbour.
#[derive(Debug)]
pub(crate) struct Link {
    /// Its queue is full; nothing is sent until it is writable.
    pub(crate) paused: bool,
    /// It misbehaved and is being disconnected.
    pub(crate) banned: bool,
    /// Its subscriptions arrived.
    pub(crate) heard: bool,
    /// Whether it is in the machine's queue of links with something to send.
    pub(crate) queued: bool,
    pub(crate) topics: BTreeMap<TopicId, LinkTopic>,
    ready: VecDeque<TopicId>,
    pub(crate) announce_set: bool,
    pub(crate) announce: BTreeSet<TopicId>,
    pub(crate) retract: BTreeSet<TopicId>,
    pub(crate) wants: VecDeque<WantIn>,
    pub(crate) missing: BTreeMap<(TopicId, ChainId), Missing>,
    pub(crate) keys_sent: LruCache<AgentId, ()>,
    pub(crate) offer: Option<Offer>,
    pub(crate) progress: Tick,
    pub(crate) entries: Bucket,
    pub(crate) requests: Bucket,
    pub(crate) subscribes: Bucket,
    heads: usize,
}

impl Link {
    pub(crate) fn new(now: Tick, limits: &Limits) -> Self {
        Self {
            paused: false,
            banned: false,
            heard: false,
            queued: false,
            topics: BTreeMap::new(),
            ready: VecDeque::new(),
            announce_set: true,
            announce: BTreeSet::new(),
            retract: BTreeSet::new(),
            wants: VecDeque::new(),
            missing: BTreeMap::new(),
            keys_sent: LruCache::unbounded(),
            offer: None,
            progress: now,
            entries: Bucket::new(now, limits.link_burst, limits.link_rate),
            requests: Bucket::new(now, WANT_BURST, WANT_RATE),
            subscribes: Bucket::new(now, SUBSCRIBE_BURST, SUBSCRIBE_RATE),
            heads: 0,
        }
    }

    /// Whether it can be handed a frame now.
    pub(crate) const fn can_send(&self) -> bool {
        !self.paused && !self.banned
    }

    /// Notes that a topic has runs that may concern this link. False when it does not subscribe it.
    pub(crate) fn wake(&mut self, topic: TopicId) -> bool {
        let Some(state) = self.topics.get_mut(&topic) else { return false };
        if !state.queued {
            state.queued = true;
            self.ready.push_back(topic);
        }
        true
    }

    /// Takes the next topic with something to send; a topic that is not done is put back by
    /// [`wake`](Self::wake), behind the others.
    pub(crate) fn next_topic(&mut self) -> Option<TopicId> {
        while let Some(topic) = self.ready.pop_front() {
            if let Some(state) = self.topics.get_mut(&topic) {
                state.queued = false;
                return Some(topic);
            }
        }
        None
    }

    /// The peer no longer subscribes a topic.
    pub(crate) fn drop_topic(&mut self, topic: &TopicId) {
        if let Some(state) = self.topics.remove(topic) {
            self.heads = self.heads.saturating_sub(state.have.len());
            self.ready.retain(|queued| queued != topic);
        }
    }

    /// Notes that the peer has an author's entries up to `seq`, and returns what was noted before.
    pub(crate) fn note_have(
        &mut self,
        topic: TopicId,
        chain: ChainId,
        seq: u64,
        limits: &Limits,
    ) -> Option<u64> {
        if self.heads >= limits.link_heads {
            self.topics.values_mut().for_each(|state| state.have.clear());
            self.heads = 0;
        }
        let have = &mut self.topics.get_mut(&topic)?.have;
        let before = have.get(&chain).copied();
        self.heads += usize::from(before.is_none());
        have.insert(chain, before.unwrap_or(0).max(seq));
        before
    }

    /// Puts back what was noted before, exactly.
    pub(crate) fn reset_have(&mut self, topic: TopicId, chain: ChainId, seq: Option<u64>) {
        let Some(state) = self.topics.get_mut(&topic) else { return };
        match seq {
            Some(seq) => {
                let fresh = state.have.insert(chain, seq).is_none();
                self.heads += usize::from(fresh);
            }
            None if state.have.remove(&chain).is_some() => {
                self.heads = self.heads.saturating_sub(1);
            }
            None => {}
        }
    }

    /// Moves the peer's place in a log to the next run that it needs, past those it has, and
    /// returns it. The second value counts entries that were evicted before they could be sent.
    pub(crate) fn next_run<'log>(
        &mut self,
        topic: TopicId,
        log: &'log TopicLog,
        oldest: WallTime,
    ) -> (Option<&'log Item>, u64) {
        let Some(state) = self.topics.get_mut(&topic) else { return (None, 0) };
        let evicted = log.base().saturating_sub(state.cursor);
        state.cursor = state.cursor.max(log.base());
        for item in log.from(state.cursor) {
            let body = item.run.body();
            let chain = (body.author(), body.epoch());
            let has = state.have.get(&chain).is_some_and(|seq| *seq >= body.last_seq());
            let expired = body.last_time().wall() < oldest;
            if !has && !expired && !log.is_blocked(&body.author()) {
                return (Some(item), evicted);
            }
            state.cursor = item.end();
        }
        (None, evicted)
    }

    /// Notes that an author's key goes out with the next frame.
    pub(crate) fn note_key(&mut self, author: AgentId, limits: &Limits) {
        if self.keys_sent.len() >= limits.keys {
            self.keys_sent.pop_lru();
        }
        self.keys_sent.put(author, ());
    }

    /// Asks for a missing range, unless it was asked for a moment ago or too often.
    pub(crate) fn want(&mut self, now: Tick, want: WantIn, upto: u64, limits: &Limits) {
        let key = (want.topic, (want.author, want.epoch));
        if let Some(missing) = self.missing.get_mut(&key) {
            missing.upto = missing.upto.max(upto);
            missing.need_key |= want.need_key;
            return;
        }
        if self.missing.len() < limits.link_wants {
            let retry_at = now + limits.gap_patience;
            let need_key = want.need_key;
            self.missing.insert(key, Missing { upto, need_key, retry_at, tries: 1 });
            self.wants.push_back(want);
        }
    }

    /// Asks again for what is still missing; forgets what arrived or was asked for too often, and
    /// returns the number of ranges given up.
    pub(crate) fn retry_missing(
        &mut self,
        now: Tick,
        limits: &Limits,
        head: impl Fn(&TopicId, &ChainId) -> Option<u64>,
    ) -> u64 {
        let mut given_up = 0;
        let wants = &mut self.wants;
        self.missing.retain(|(topic, chain), missing| {
            let Some(head) = head(topic, chain).filter(|head| *head < missing.upto) else {
                return false;
            };
            if now < missing.retry_at {
                return true;
            }
            if missing.tries >= MAX_TRIES {
                given_up += 1;
                return false;
            }
            missing.tries += 1;
            missing.retry_at = now + limits.gap_patience;
            if wants.len() < limits.link_wants * 2 {
                wants.push_back(WantIn {
                    topic: *topic,
                    author: chain.0,
                    epoch: chain.1,
                    from_seq: head + 1,
                    need_key: missing.need_key,
                });
            }
            true
        });
        given_up
    }

    /// Undoes the frame handed out last: the peer's queue is full.
    pub(crate) fn refuse_offer(&mut self) {
        self.paused = true;
        match self.offer.take() {
            Some(Offer::Announce { set, added, removed }) => {
                self.announce_set |= set;
                self.announce.extend(added);
                self.retract.extend(removed);
            }
            Some(Offer::Want(want)) => self.wants.push_front(want),
            Some(Offer::Run { topic, cursor, chain, had, key }) => {
                self.reset_have(topic, chain, had);
                if let Some(state) = self.topics.get_mut(&topic) {
                    state.cursor = cursor;
                }
                if let Some(key) = key {
                    self.keys_sent.pop(&key);
                }
                self.wake(topic);
            }
            None => {}
        }
    }

    /// Whether the link holds a publisher of this topic back: alive, and far behind.
    pub(crate) fn is_behind(
        &self,
        now: Tick,
        topic: &TopicId,
        log: &TopicLog,
        limits: &Limits,
        share: u64,
    ) -> bool {
        let Some(state) = self.topics.get(topic) else { return false };
        if self.banned || (self.paused && now.since(self.progress) >= limits.stalled_after) {
            return false;
        }
        log.end().saturating_sub(state.cursor) > limits.backlog_entries / share
            || log.bytes_after(state.cursor) > limits.backlog_bytes / share
    }
}

/// A message for a link, with what must be undone if it is refused.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) message: Bytes,
    pub(crate) offer: Offer,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_refills_with_time_up_to_its_burst() {
        let mut bucket = Bucket::new(Tick::ZERO, 10, 1000);
        assert!(bucket.take(Tick::ZERO, 10) && !bucket.take(Tick::ZERO, 1));
        let later = Tick::ZERO + Duration::from_millis(3);
        assert!(bucket.take(later, 3) && !bucket.take(later, 1));
        assert!(!bucket.take(later + Duration::from_secs(60), 11), "never above the burst");
    }

    #[test]
    fn ten_forgeries_are_enough_and_time_forgives() {
        let mut penalty = Penalty::new(Tick::ZERO);
        assert!((0..9).all(|_| !penalty.add(Tick::ZERO, 10)));
        assert!(penalty.add(Tick::ZERO, 10));
        let mut slow = Penalty::new(Tick::ZERO);
        assert!((0..1000).all(|n| !slow.add(Tick::from_millis(n * 10_000), 10)));
    }
}
