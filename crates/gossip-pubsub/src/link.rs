//! What is known of one neighbour: what it subscribes, where it is in each topic's log, and how well
//! it behaves.
//!
//! Nothing is queued for a link. It holds a position in each log, so a slow link costs a number, and
//! loses nothing until retention passes that position.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use lru::LruCache;
use x0x_core::{AgentId, Tick, TokenBucket, TopicId, WallTime};

use crate::{
    config::{Limits, MAX_RUN_ENTRIES, MAX_SUBSCRIBED_TOPICS},
    log::{Item, TopicLog},
    wire::WantIn,
};

mod wants;

pub(crate) use wants::Wants;

/// An author's chain within a topic.
pub(crate) type ChainId = (AgentId, u64);

/// Points at which a peer is disconnected.
pub(crate) const MAX_PENALTY: u32 = 100;

/// Requests that a peer may make at once, and per second. Each can rewind its place in a log.
const WANT_BURST: u64 = 256;
const WANT_RATE: u64 = 64;

/// Subscriptions that a peer may make at once, and per second. Each reads a log from the start.
const SUBSCRIBE_BURST: u64 = 4 * MAX_SUBSCRIBED_TOPICS as u64;
const SUBSCRIBE_RATE: u64 = 64;

/// Topics that this node announces at once, and per second: half of what a peer takes.
const ANNOUNCE_BURST: u64 = SUBSCRIBE_BURST / 2;
const ANNOUNCE_RATE: u64 = SUBSCRIBE_RATE / 2;

/// Runs passed over in one turn because the peer has them. The rest follows at the next
/// [`THROTTLE`](crate::state::THROTTLE), so that a peer that subscribes again and again costs little.
const MAX_SCAN: usize = 4096;

/// A bucket of tokens that come at a rate per second.
fn bucket(now: Tick, burst: u64, rate: u64) -> TokenBucket {
    let refill = Duration::from_secs(1) / u32::try_from(rate.max(1)).unwrap_or(u32::MAX);
    TokenBucket::new(u32::try_from(burst).unwrap_or(u32::MAX), refill, now)
}

/// What a sender allows itself where a receiver allows this much: a little less, since the way to it
/// is not even; but always a full run.
fn paced(now: Tick, burst: u64, rate: u64) -> TokenBucket {
    let burst = (burst - burst / 16).max(MAX_RUN_ENTRIES as u64);
    bucket(now, burst, rate - rate / 16)
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
    /// The furthest position, from before the peer asked for something again.
    reached: u64,
    /// It had caught up, and is not slow since: only then it holds publishers back.
    live: bool,
    /// Since when it is far behind.
    behind_since: Option<Tick>,
}

impl LinkTopic {
    /// A peer that begins to read here; live when that is the end.
    pub(crate) fn at(cursor: u64, live: bool) -> Self {
        Self { cursor, reached: cursor, live, ..Self::default() }
    }

    /// Begins again in a log that is new.
    pub(crate) fn restart(&mut self) {
        (self.cursor, self.reached, self.live, self.behind_since) = (0, 0, true, None);
    }

    /// Goes back to an earlier position, which does not make the peer slower than it was.
    pub(crate) fn rewind(&mut self, position: u64) {
        self.reached = self.reached.max(self.cursor);
        self.cursor = self.cursor.min(position);
    }
}

/// The frame handed out last, in case it is refused.
#[derive(Debug)]
pub(crate) enum Offer {
    Announce { set: bool, again: bool, added: Vec<TopicId>, removed: Vec<TopicId> },
    Want(WantIn),
    Run { topic: TopicId, cursor: u64, chain: ChainId, had: Option<u64>, key: Option<AgentId> },
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
    /// The next announcement replaces all before it.
    pub(crate) announce_set: bool,
    /// It asks for the peer's too, which were not heard.
    pub(crate) announce_again: bool,
    pub(crate) announce: BTreeSet<TopicId>,
    /// A part of `announced`.
    pub(crate) retract: BTreeSet<TopicId>,
    /// What the peer was told; at most what is subscribed, and what is to be retracted.
    pub(crate) announced: BTreeSet<TopicId>,
    pub(crate) wants: Wants,
    pub(crate) keys_sent: LruCache<AgentId, ()>,
    pub(crate) offer: Option<Offer>,
    /// What the peer may bring in.
    pub(crate) entries: TokenBucket,
    pub(crate) runs: TokenBucket,
    pub(crate) requests: TokenBucket,
    pub(crate) subscribes: TokenBucket,
    /// What this node sends.
    paced_entries: TokenBucket,
    paced_runs: TokenBucket,
    pub(crate) paced_topics: TokenBucket,
    /// It sent as many runs, or announced as many topics, as it may; until the next timer.
    pub(crate) runs_throttled: bool,
    pub(crate) topics_throttled: bool,
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
            announce_again: false,
            announce: BTreeSet::new(),
            retract: BTreeSet::new(),
            announced: BTreeSet::new(),
            wants: Wants::default(),
            keys_sent: LruCache::unbounded(),
            offer: None,
            entries: bucket(now, limits.link_burst, limits.link_rate),
            runs: bucket(now, limits.link_run_burst, limits.link_run_rate),
            requests: bucket(now, WANT_BURST, WANT_RATE),
            subscribes: bucket(now, SUBSCRIBE_BURST, SUBSCRIBE_RATE),
            paced_entries: paced(now, limits.link_burst, limits.link_rate),
            paced_runs: paced(now, limits.link_run_burst, limits.link_run_rate),
            paced_topics: bucket(now, ANNOUNCE_BURST, ANNOUNCE_RATE),
            runs_throttled: false,
            topics_throttled: false,
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
    /// Throttles the link when it sent or passed as much as it may for now.
    pub(crate) fn next_run<'log>(
        &mut self,
        now: Tick,
        topic: TopicId,
        log: &'log TopicLog,
        oldest: WallTime,
    ) -> (Option<&'log Item>, u64) {
        let Some(state) = self.topics.get_mut(&topic) else { return (None, 0) };
        let evicted = log.base().saturating_sub(state.cursor);
        state.cursor = state.cursor.max(log.base());
        for (scanned, item) in log.from(state.cursor).enumerate() {
            let body = item.run.body();
            let chain = (body.author(), body.epoch());
            let has = state.have.get(&chain).is_some_and(|seq| *seq >= body.last_seq());
            let expired = body.last_time().wall() < oldest;
            let needed = !has && !expired && !log.is_blocked(&body.author());
            let entries = u32::try_from(item.run.len()).unwrap_or(u32::MAX);
            if needed && self.paced_runs.take(now) && self.paced_entries.take_many(now, entries) {
                return (Some(item), evicted);
            }
            if needed || scanned >= MAX_SCAN {
                self.runs_throttled = true;
                self.wake(topic);
                return (None, evicted);
            }
            state.cursor = item.end();
        }
        state.live = true;
        (None, evicted)
    }

    /// Notes that an author's key goes out with the next frame.
    pub(crate) fn note_key(&mut self, author: AgentId, limits: &Limits) {
        if self.keys_sent.len() >= limits.keys {
            self.keys_sent.pop_lru();
        }
        self.keys_sent.put(author, ());
    }

    /// Undoes the frame handed out last: the peer's queue is full.
    pub(crate) fn refuse_offer(&mut self) {
        self.paused = true;
        match self.offer.take() {
            Some(Offer::Announce { set, again, added, removed }) => {
                self.announce_set |= set;
                self.announce_again |= again;
                added.iter().for_each(|topic| {
                    self.announced.remove(topic);
                });
                self.announce.extend(added);
                self.announced.extend(removed.iter().copied());
                self.retract.extend(removed);
            }
            Some(Offer::Want(want)) => self.wants.put_back(want),
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

    /// Whether the link holds a publisher of this topic back: it has caught up once, is far behind
    /// since, and works on it.
    pub(crate) fn holds(
        &mut self,
        now: Tick,
        topic: &TopicId,
        log: &TopicLog,
        limits: &Limits,
    ) -> bool {
        let Some(state) = self.topics.get_mut(topic).filter(|state| state.live) else {
            return false;
        };
        state.reached = state.reached.max(state.cursor);
        let entries = log.end().saturating_sub(state.reached);
        let bytes = log.bytes_after(state.reached);
        let exceeds = |share| {
            entries > limits.backlog_entries / share || bytes > limits.backlog_bytes / share
        };
        match state.behind_since {
            None if exceeds(1) => state.behind_since = Some(now),
            // Released at half the limit, so that it does not flicker.
            Some(_) if !exceeds(2) => state.behind_since = None,
            Some(since) if now.since(since) >= limits.stalled_after => {
                state.behind_since = None;
                state.live = false;
            }
            _ => {}
        }
        !self.banned && state.behind_since.is_some()
    }

    /// Whether the peer lacks something of a topic that it subscribes.
    pub(crate) fn lacks(&self, topic: &TopicId, log: &TopicLog) -> bool {
        !self.banned && self.topics.get(topic).is_some_and(|state| state.cursor < log.end())
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
    use super::*;

    #[test]
    fn a_long_log_that_the_peer_has_is_passed_over_in_turns() {
        use crate::{run::NetworkId, testing::RunForge};
        let key = x0x_identity::testing::key(70);
        let (topic, wall) = (crate::topic_id("t"), WallTime::from_millis(1_800_000_000_000));
        let forge = RunForge::new(key, NetworkId::from_name("link"), topic, wall);
        let run = std::sync::Arc::new(forge.run(None, &[b"x"]));
        let mut log = TopicLog::default();
        let public = forge.key.public_key();
        (0..2 * MAX_SCAN).for_each(|_| log.append(std::sync::Arc::clone(&run), public));
        let mut link = Link::new(Tick::ZERO, &Limits::default());
        link.topics.insert(topic, LinkTopic::at(0, false));
        link.note_have(topic, (forge.author(), forge.epoch), 1, &Limits::default());
        let mut turns = 1;
        while link.next_run(Tick::ZERO, topic, &log, wall).0.is_none() && link.runs_throttled {
            assert_eq!(link.next_topic(), Some(topic), "it goes on in the next turn");
            link.runs_throttled = false;
            turns += 1;
        }
        assert_eq!((turns, link.topics[&topic].cursor), (2, log.end()));
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
