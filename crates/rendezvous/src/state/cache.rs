//! What is known about other agents, bounded.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use x0x_core::{AgentId, MachineId, Tick, WallTime};

use crate::{
    config::MAX_DISCOVERED,
    wire::{Announcement, Stamp},
};

/// An agent that was heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveredAgent {
    /// The agent.
    pub agent: AgentId,
    /// The machine that it last proved to run on.
    pub machine: MachineId,
    /// Where the machine may be reached; at most [`x0x_core::MAX_ADDRESSES`], perhaps none.
    pub addresses: Vec<SocketAddr>,
    /// When the agent made its last announcement, by its clock; when it was first met, for one that
    /// was met in a session and has announced nothing yet.
    pub announced_at: WallTime,
    /// When it was last known to be there, by this machine's clock.
    pub last_seen: WallTime,
}

/// What became of an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is the newest that is known of its agent.
    Kept,
    /// It is not newer than what is known of its agent.
    Replay,
    /// The cache is full of agents that were met, or seen later.
    Full,
}

#[derive(Debug, Clone)]
struct Entry {
    known: DiscoveredAgent,
    /// Of the newest announcement, if there was one.
    stamp: Option<Stamp>,
    /// When a session last proved the machine.
    met_at: Option<WallTime>,
    /// It was met, and keeps its place before all that only announced themselves.
    proven: bool,
    /// Listed as present until then. Monotonic, so that a step of the wall clock empties no list.
    fresh_until: Tick,
}

/// What makes room first: who only announced itself before who was met, then who was seen longest ago.
type Rank = (bool, WallTime, AgentId);

impl Entry {
    const fn rank(&self) -> Rank {
        (self.proven, self.known.last_seen, self.known.agent)
    }
}

/// The agents that were heard of: at most [`MAX_DISCOVERED`], by id. When it is full, the agent seen
/// longest ago makes room, of those that only announced themselves first. Announcing costs a key, so
/// that a flood of them displaces nobody who proved itself in a session here. Those who did hold at
/// most three quarters: a flood of sessions leaves room for what is announced.
///
/// Pure: the time is an argument, the order of iteration is that of the ids.
#[derive(Debug, Clone)]
pub struct DiscoveryCache {
    freshness: Duration,
    capacity: usize,
    entries: BTreeMap<AgentId, Entry>,
    /// The same agents in the order in which they make room.
    by_rank: BTreeSet<Rank>,
    /// How many of them are proven.
    proven: usize,
    evicted: u64,
}

impl DiscoveryCache {
    /// An empty cache that lists an agent as present for `freshness` after it was seen.
    #[must_use]
    pub const fn new(freshness: Duration) -> Self {
        Self::with_capacity(freshness, MAX_DISCOVERED)
    }

    const fn with_capacity(freshness: Duration, capacity: usize) -> Self {
        Self {
            freshness,
            capacity,
            entries: BTreeMap::new(),
            by_rank: BTreeSet::new(),
            proven: 0,
            evicted: 0,
        }
    }

    /// Whether an announcement with this stamp would tell anything new about the agent.
    #[must_use]
    pub fn is_news(&self, agent: &AgentId, stamp: Stamp) -> bool {
        self.entries.get(agent).and_then(|entry| entry.stamp).is_none_or(|known| stamp > known)
    }

    /// Takes a verified announcement, received at `now`, which is `wall` by this machine's clock.
    ///
    /// A replay is refused: stamps of one agent only move forward. An announcement that waited in a
    /// log counts from when it was made, so that an agent which left hours ago is not listed as
    /// present; but never from later than now.
    pub fn announced(&mut self, now: Tick, wall: WallTime, news: Announcement) -> Outcome {
        if !self.is_news(&news.agent, news.stamp) {
            return Outcome::Replay;
        }
        let seen = news.stamp.announced_at.min(wall);
        let age = Duration::from_millis(wall.as_millis() - seen.as_millis());
        let fresh_until = now + self.freshness.saturating_sub(age);
        if let Some(entry) = self.entries.get_mut(&news.agent) {
            // A session that is more recent than the announcement knows better where the agent is.
            let moved = entry.known.machine != news.machine;
            let outdated = moved && entry.met_at.is_some_and(|met_at| seen < met_at);
            if !outdated {
                entry.known.machine = news.machine;
                if moved || !news.addresses.is_empty() {
                    entry.known.addresses = news.addresses;
                }
            }
            entry.known.announced_at = news.stamp.announced_at;
            entry.stamp = Some(news.stamp);
            entry.fresh_until = entry.fresh_until.max(fresh_until);
            self.seen(news.agent, seen, false);
            return Outcome::Kept;
        }
        let known = DiscoveredAgent {
            agent: news.agent,
            machine: news.machine,
            addresses: news.addresses,
            announced_at: news.stamp.announced_at,
            last_seen: seen,
        };
        self.insert(Entry {
            known,
            stamp: Some(news.stamp),
            met_at: None,
            proven: false,
            fresh_until,
        })
    }

    /// Takes note of an agent that proved itself in a session with `machine`.
    pub fn met(
        &mut self,
        now: Tick,
        wall: WallTime,
        agent: AgentId,
        machine: MachineId,
        addresses: Vec<SocketAddr>,
    ) -> Outcome {
        let fresh_until = now + self.freshness;
        if let Some(entry) = self.entries.get_mut(&agent) {
            let moved = entry.known.machine != machine;
            if moved || !addresses.is_empty() {
                entry.known.addresses = addresses;
            }
            entry.known.machine = machine;
            entry.met_at = Some(wall);
            entry.fresh_until = fresh_until;
            self.seen(agent, wall, true);
            return Outcome::Kept;
        }
        let known =
            DiscoveredAgent { agent, machine, addresses, announced_at: wall, last_seen: wall };
        self.insert(Entry { known, stamp: None, met_at: Some(wall), proven: true, fresh_until })
    }

    /// Moves an agent's last sighting forward; it stays proven once it is.
    fn seen(&mut self, agent: AgentId, at: WallTime, proven: bool) {
        let Some(entry) = self.entries.get_mut(&agent) else { return };
        self.by_rank.remove(&entry.rank());
        self.proven += usize::from(proven && !entry.proven);
        entry.proven |= proven;
        entry.known.last_seen = entry.known.last_seen.max(at);
        self.by_rank.insert(entry.rank());
        self.limit_proven();
    }

    fn insert(&mut self, entry: Entry) -> Outcome {
        let rank = entry.rank();
        if self.entries.len() >= self.capacity {
            match self.by_rank.first().copied() {
                Some(first) if first < rank => self.evict(first),
                _ => return Outcome::Full,
            }
        }
        self.proven += usize::from(entry.proven);
        self.by_rank.insert(rank);
        self.entries.insert(entry.known.agent, entry);
        self.limit_proven();
        Outcome::Kept
    }

    fn evict(&mut self, rank: Rank) {
        self.by_rank.remove(&rank);
        self.entries.remove(&rank.2);
        self.proven -= usize::from(rank.0);
        self.evicted += 1;
    }

    /// Those met longest ago count as announced when too many were met.
    fn limit_proven(&mut self) {
        if self.proven <= self.capacity * 3 / 4 {
            return;
        }
        let from = (true, WallTime::default(), AgentId::new([0; 32]));
        let first = self.by_rank.range(from..).next().copied();
        if let Some(rank) = first
            && let Some(entry) = self.entries.get_mut(&rank.2)
        {
            entry.proven = false;
            self.proven -= 1;
            self.by_rank.remove(&rank);
            self.by_rank.insert(entry.rank());
        }
    }

    /// Drops what is known of an agent. Whoever calls it refuses its announcements from now on: what was
    /// refused as a replay before would be news again.
    pub fn forget(&mut self, agent: &AgentId) {
        if let Some(entry) = self.entries.remove(agent) {
            self.by_rank.remove(&entry.rank());
            self.proven -= usize::from(entry.proven);
        }
    }

    /// The agents by id: those present at `now`, or all that are known.
    #[must_use]
    pub fn agents(&self, now: Tick, unfiltered: bool) -> Vec<DiscoveredAgent> {
        self.entries
            .values()
            .filter(|entry| unfiltered || entry.fresh_until > now)
            .map(|entry| entry.known.clone())
            .collect()
    }

    /// Whether an agent is listed as present.
    #[must_use]
    pub fn is_fresh(&self, now: Tick, agent: &AgentId) -> bool {
        self.entries.get(agent).is_some_and(|entry| entry.fresh_until > now)
    }

    /// What is known of an agent, present or not.
    #[must_use]
    pub fn agent(&self, agent: &AgentId) -> Option<&DiscoveredAgent> {
        self.entries.get(agent).map(|entry| &entry.known)
    }

    /// The stamp of the newest announcement or record of an agent.
    #[must_use]
    pub fn stamp(&self, agent: &AgentId) -> Option<Stamp> {
        self.entries.get(agent).and_then(|entry| entry.stamp)
    }

    /// Number of agents known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many agents had to make room so far.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests;
