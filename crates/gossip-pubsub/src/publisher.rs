//! The publisher's intake: entries wait here for the signer, and leave as runs.
//!
//! Batches are self-clocking: whenever the signer is free it takes whatever one topic has queued, up
//! to a full run, topics in turn. One message at rest is signed at once; a burst is amortised.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use lru::LruCache;
use x0x_core::{AgentId, TopicId, WallTime};

use crate::{
    config::{Limits, MAX_PAYLOAD, MAX_RUN_BYTES, MAX_RUN_ENTRIES},
    error::PublishError,
    retention::{Retention, began, epoch_after, epoch_at},
    run::{
        ENTRY_FRAME_BYTES, Entry, EntryHash, NetworkId, RUN_FRAME_BYTES, Run, RunBody, UnsignedRun,
    },
    time::{HybridClock, HybridTime},
};

/// The chains of one class in one topic, one for each epoch.
type Line = (TopicId, Retention);

/// This author's chain in one topic, of one class.
#[derive(Debug, Clone, Copy)]
struct OwnChain {
    epoch: u64,
    /// The last sequence number given out.
    given: u64,
    /// The last sequence number taken for signing, and its hash once signed.
    taken: u64,
    hash: EntryHash,
}

/// Entries of this author on their way to the signer. The bounded queue between callers and the
/// service: its caller wraps it in a lock, as inside a channel.
#[derive(Debug)]
pub struct Publisher {
    network: NetworkId,
    author: AgentId,
    limits: Limits,
    clock: HybridClock,
    /// The epoch of topics that are not remembered, of the standard class. Grows when a topic is forgotten, so that no
    /// sequence number is used twice in one epoch.
    epoch: u64,
    /// The greatest epoch of this author that is stored.
    stored: u64,
    /// At most [`Limits::published_topics`].
    chains: LruCache<Line, OwnChain>,
    queues: BTreeMap<Line, VecDeque<Entry>>,
    turns: VecDeque<Line>,
    entries: usize,
    bytes: usize,
    congested: BTreeSet<TopicId>,
    /// Topics that hold as much of the durable class as they may.
    full: BTreeSet<TopicId>,
    signing: Option<Line>,
    /// The number of waiting entries that the signer waits for; see [`wait_for`](Self::wait_for).
    awaited: usize,
    closed: bool,
}

impl Publisher {
    /// An empty queue. `epoch` must be greater than in any earlier run of this author's service:
    /// see [`epoch_at`](crate::epoch_at).
    #[must_use]
    pub fn new(network: NetworkId, author: AgentId, epoch: u64, limits: Limits) -> Self {
        Self {
            network,
            author,
            clock: HybridClock::default(),
            epoch,
            stored: 0,
            chains: LruCache::unbounded(),
            queues: BTreeMap::new(),
            turns: VecDeque::new(),
            entries: 0,
            bytes: 0,
            congested: BTreeSet::new(),
            full: BTreeSet::new(),
            signing: None,
            awaited: 0,
            closed: false,
            limits,
        }
    }

    /// Accepts an entry of the standard class and gives it its sequence number and time.
    ///
    /// # Errors
    /// [`PublishError`]; nothing was accepted.
    pub fn publish(
        &mut self,
        wall: WallTime,
        topic: TopicId,
        payload: Bytes,
    ) -> Result<u64, PublishError> {
        self.publish_as(wall, topic, Retention::Standard, payload).map(|(_, seq)| seq)
    }

    /// Accepts an entry and gives it its epoch, sequence number and time.
    ///
    /// # Errors
    /// [`PublishError`]; nothing was accepted.
    pub fn publish_as(
        &mut self,
        wall: WallTime,
        topic: TopicId,
        retention: Retention,
        payload: Bytes,
    ) -> Result<(u64, u64), PublishError> {
        if self.closed {
            return Err(PublishError::Closed);
        }
        if payload.len() > MAX_PAYLOAD {
            return Err(PublishError::TooLarge { len: payload.len(), max: MAX_PAYLOAD });
        }
        if retention == Retention::Durable && self.full.contains(&topic) {
            return Err(PublishError::Full);
        }
        let line = (topic, retention);
        let queued = self.queues.get(&line).map_or(0, VecDeque::len);
        if self.congested.contains(&topic)
            || queued >= self.limits.pending_topic_entries
            || self.entries >= self.limits.pending_entries
            || self.bytes.saturating_add(payload.len()) > self.limits.pending_bytes
        {
            return Err(PublishError::Busy);
        }
        self.keep_time(wall)?;
        let time = self.clock.next(wall);
        let chain = self.chain(line)?;
        chain.given += 1;
        let entry = (chain.epoch, chain.given);
        self.entries += 1;
        self.bytes += payload.len();
        let queue = self.queues.entry(line).or_default();
        if queue.is_empty() && self.signing != Some(line) {
            self.turns.push_back(line);
        }
        queue.push_back(Entry { time, payload });
        Ok(entry)
    }

    /// Takes the next run for the signer; none while one is being signed. Then
    /// [`signed`](Self::signed) must follow.
    pub fn next_run(&mut self) -> Option<UnsignedRun> {
        if self.signing.is_some() {
            return None;
        }
        let line = self.turns.pop_front()?;
        let queue = self.queues.get_mut(&line)?;
        let mut entries = Vec::with_capacity(queue.len().min(MAX_RUN_ENTRIES));
        let mut bytes = RUN_FRAME_BYTES;
        while let Some(entry) = queue.front() {
            bytes += ENTRY_FRAME_BYTES + entry.payload.len();
            if entries.len() >= MAX_RUN_ENTRIES || bytes > MAX_RUN_BYTES {
                break;
            }
            self.bytes = self.bytes.saturating_sub(entry.payload.len());
            entries.extend(queue.pop_front());
        }
        self.entries = self.entries.saturating_sub(entries.len());
        let chain = self.chains.get_mut(&line)?;
        let first_seq = chain.taken + 1;
        chain.taken += entries.len() as u64;
        self.signing = Some(line);
        Some(UnsignedRun(RunBody {
            network: self.network,
            topic: line.0,
            author: self.author,
            epoch: chain.epoch,
            first_seq,
            prev: chain.hash,
            entries,
        }))
    }

    /// Continues the chain after a run that was signed; the signer is free again.
    pub fn signed(&mut self, run: &Run) {
        let line = (run.body().topic(), run.body().retention());
        if let Some(chain) = self.chains.get_mut(&line)
            && chain.epoch == run.body().epoch()
        {
            chain.hash = run.hash();
        }
        self.signing = None;
        match self.queues.get(&line) {
            Some(queue) if queue.is_empty() => {
                self.queues.remove(&line);
            }
            Some(_) => self.turns.push_back(line),
            None => {}
        }
    }

    /// Lets the first topic and class have the next turn of which a run may be signed now, by the
    /// number of entries that wait. Returns whether there is one.
    pub fn turn_to(&mut self, may: impl Fn(TopicId, Retention, usize) -> bool) -> bool {
        let queues = &self.queues;
        let waiting = |line: &Line| queues.get(line).map_or(0, VecDeque::len);
        let next = self.turns.iter().position(|line| may(line.0, line.1, waiting(line)));
        if let Some(line) = next.and_then(|index| self.turns.remove(index)) {
            self.turns.push_front(line);
        }
        next.is_some()
    }

    /// Sets whether a live link is too far behind on a topic for more to be accepted.
    pub fn set_congested(&mut self, topic: TopicId, congested: bool) {
        if congested {
            self.congested.insert(topic);
        } else {
            self.congested.remove(&topic);
        }
    }

    /// Sets whether a topic holds as much of the durable class as it may.
    pub fn set_full(&mut self, topic: TopicId, full: bool) {
        if full {
            self.full.insert(topic);
        } else {
            self.full.remove(&topic);
        }
    }

    /// Follows the time of what others published.
    pub fn observe(&mut self, wall: WallTime, seen: HybridTime) {
        self.clock.observe(wall, seen);
    }

    /// Takes note of the greatest epoch that an earlier service of this author used.
    pub fn follow(&mut self, stored: u64) {
        self.stored = self.stored.max(Retention::Standard.epoch(stored));
    }

    /// Begins a new epoch when the clock was wrong before. If it was ahead by more than others accept,
    /// they refuse what goes on from there; if it was behind, they know a later epoch, which takes the
    /// place of this one.
    ///
    /// A later epoch that is stored but ahead of the clock was written while that was wrong.
    fn keep_time(&mut self, wall: WallTime) -> Result<(), PublishError> {
        let latest = wall + self.limits.clock_ahead;
        let is_ahead = |epoch| began(epoch) > latest.as_millis();
        let was_ahead = is_ahead(self.epoch) || self.clock.last().wall() > latest;
        let stored = Some(self.stored).filter(|stored| !is_ahead(*stored)).unwrap_or(0);
        if !was_ahead && stored < self.epoch {
            return Ok(());
        }
        if self.is_active() {
            // What was accepted goes out first, in the epoch that its caller was told.
            return Err(PublishError::Busy);
        }
        let fresh = epoch_at(wall, epoch_after(self.epoch));
        let before = if was_ahead { stored } else { stored.max(self.epoch) };
        self.epoch = fresh.max(epoch_after(before));
        self.chains.clear();
        if was_ahead {
            self.clock = HybridClock::default();
        }
        Ok(())
    }

    /// Accepts nothing more. What is queued can still be signed.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Tells that the signer waits until so many entries wait; 0 when it waits for none.
    pub const fn wait_for(&mut self, entries: usize) {
        self.awaited = entries;
    }

    /// Whether the entry accepted last is the one that the signer waits for.
    #[must_use]
    pub const fn has_awaited(&self) -> bool {
        self.entries == self.awaited
    }

    /// Entries of a topic and class that wait for the signer.
    #[must_use]
    pub fn waiting(&self, topic: TopicId, retention: Retention) -> usize {
        self.queues.get(&(topic, retention)).map_or(0, VecDeque::len)
    }

    /// Entries that wait for the signer.
    #[must_use]
    pub const fn pending(&self) -> usize {
        self.entries
    }

    /// Whether the signer has something to do or is at it.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.signing.is_some() || self.entries > 0
    }

    /// The chain of a topic and class, remembered or new. Forgetting one moves all new ones to a later
    /// epoch.
    fn chain(&mut self, line: Line) -> Result<&mut OwnChain, PublishError> {
        if !self.chains.contains(&line) {
            if self.chains.len() >= self.limits.published_topics
                && let Some((oldest, _)) = self.chains.peek_lru()
            {
                if self.queues.contains_key(oldest) {
                    return Err(PublishError::Busy);
                }
                self.chains.pop_lru();
                self.epoch = epoch_after(self.epoch);
            }
            let (epoch, hash) = (line.1.epoch(self.epoch), EntryHash::GENESIS);
            self.chains.put(line, OwnChain { epoch, given: 0, taken: 0, hash });
        }
        self.chains.get_mut(&line).ok_or(PublishError::Busy)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use x0x_identity::testing::key;

    use super::*;
    use crate::run::topic_id;

    fn at(hours: u32) -> WallTime {
        WallTime::from_millis(1_800_000_000_000) + Duration::from_secs(3600) * hours
    }

    fn publisher(started: WallTime) -> Publisher {
        let (network, author) = (NetworkId::from_name("clocks"), key(1).public_key().agent_id());
        Publisher::new(network, author, epoch_at(started, 7), Limits::default())
    }

    fn publish(publisher: &mut Publisher, wall: WallTime) -> Result<(u64, u64), PublishError> {
        publisher.publish_as(wall, topic_id("a"), Retention::Latest, Bytes::new())
    }

    fn sign(publisher: &mut Publisher) -> Run {
        let run = publisher.next_run().expect("one waits").sign(&key(1)).expect("signed");
        publisher.signed(&run);
        run
    }

    #[test]
    fn a_clock_that_was_ahead_and_is_set_right_begins_an_epoch_that_others_accept() {
        let mut publisher = publisher(at(10));
        assert_eq!(publish(&mut publisher, at(10)).map(|(_, seq)| seq), Ok(1));
        assert_eq!(
            publish(&mut publisher, at(0)),
            Err(PublishError::Busy),
            "what waits goes first"
        );
        sign(&mut publisher);
        let (epoch, seq) = publish(&mut publisher, at(0)).expect("accepted");
        assert_eq!((began(epoch), seq), (at(0).as_millis(), 1));
        assert_eq!(sign(&mut publisher).body().last_time().wall(), at(0));
        // A small step back is followed, as ever.
        let back = WallTime::from_millis(at(0).as_millis() - 60_000);
        assert_eq!(publish(&mut publisher, back), Ok((epoch, 2)));
    }

    #[test]
    fn an_epoch_that_peers_know_as_an_older_one_is_left_once_the_clock_is_right() {
        let mut publisher = publisher(at(0));
        let stored = Retention::Standard.epoch(epoch_at(at(3), 9));
        publisher.follow(Retention::Latest.epoch(stored));
        let (early, _) = publish(&mut publisher, at(0)).expect("accepted");
        assert_eq!(began(early), at(0).as_millis(), "others would refuse one that far ahead");
        sign(&mut publisher);
        let (epoch, seq) = publish(&mut publisher, at(3)).expect("accepted");
        assert!(epoch > Retention::Latest.epoch(stored), "{epoch:x}");
        assert_eq!((began(epoch), seq), (at(3).as_millis(), 1));
        assert_eq!(publish(&mut publisher, at(4)), Ok((epoch, 2)), "and stays");
    }
}
