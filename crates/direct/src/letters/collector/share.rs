//! What each sender may have of the memory and of the fetches, and whose turn it is.

use std::collections::{BTreeMap, BTreeSet};

use x0x_core::{AgentId, MachineId, Tick};

use super::{
    super::wire::Digest, Collector, CollectorOutput, FETCH_TIMEOUT, Holding, Item, Key, Lane,
    MAX_COLLECTED, MAX_SENDER_COLLECTED, MAX_SENDER_FETCHES, MAX_SENDER_WAITING_BYTES,
    MAX_WAITING_BYTES, Mailbox, Stage,
};

/// How many letters of each sender are not settled.
pub(super) type Open = BTreeMap<AgentId, usize>;

const FIRST_MACHINE: MachineId = MachineId::new([0; 32]);
const LAST_MACHINE: MachineId = MachineId::new([0xff; 32]);

/// The first key that there may be of a sender, and the last.
const fn keys_of(from: AgentId) -> (Key, Key) {
    let first = Mailbox { from, machine: FIRST_MACHINE, period: 0 };
    let last = Mailbox { from, machine: LAST_MACHINE, period: u64::MAX };
    ((first, Digest::new([0; 32])), (last, Digest::new([0xff; 32])))
}

impl Collector {
    fn items_of(&self, from: AgentId) -> impl DoubleEndedIterator<Item = (&Key, &Item)> {
        let (first, last) = keys_of(from);
        self.items.range(first..=last)
    }

    /// How many letters of each sender are not settled.
    pub(super) fn open(&self) -> Open {
        let mut open = Open::new();
        for ((mailbox, _), item) in &self.items {
            *open.entry(mailbox.from).or_default() += usize::from(item.stage != Stage::Done);
        }
        open
    }

    /// Makes room for one more letter of a sender, and counts it: one that was settled is forgotten, else
    /// one of whoever has the most, unless that is this sender itself.
    pub(super) fn has_room(&mut self, now: Tick, from: AgentId, open: &mut Open) -> bool {
        let own = open.get(&from).copied().unwrap_or_default();
        if own >= MAX_SENDER_COLLECTED {
            return false;
        }
        while self.items.len() >= MAX_COLLECTED {
            if let Some(oldest) = self.done.pop_front() {
                self.items.remove(&oldest);
                continue;
            }
            let more = open.iter_mut().filter(|(_, count)| **count > own + 1);
            let Some((largest, count)) = more.max_by_key(|(_, count)| **count) else {
                return false;
            };
            *count -= 1;
            if !self.forget_last(now, *largest) {
                return false;
            }
        }
        open.insert(from, own + 1);
        true
    }

    /// Forgets the last letter of a sender. It is listed again later.
    fn forget_last(&mut self, now: Tick, from: AgentId) -> bool {
        let may_go = |item: &Item| matches!(item.stage, Stage::Listed | Stage::Opened);
        let last = self.items_of(from).rev().find(|(_, item)| may_go(item));
        let Some((key, holders)) = last.map(|(key, item)| (*key, item.holders.clone())) else {
            return false;
        };
        self.unknown(now, &key);
        for peer in holders {
            if let Some(holder) = self.holders.get_mut(&peer) {
                holder.more = true;
            }
        }
        true
    }

    fn bytes_of(&self, from: AgentId) -> usize {
        let lanes = self.lanes.range((from, FIRST_MACHINE)..=(from, LAST_MACHINE));
        lanes.map(|(_, lane)| lane.bytes()).sum()
    }

    /// Payload bytes of letters that wait for others.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.lanes.values().map(Lane::bytes).sum()
    }

    /// Drops payloads that are past the share of a sender, or past what there may be in all.
    pub(super) fn trim(&mut self, now: Tick, from: AgentId) {
        let mut dropped = false;
        while self.bytes_of(from) > MAX_SENDER_WAITING_BYTES && self.drop_latest(from) {
            dropped = true;
        }
        while self.waiting_bytes() > MAX_WAITING_BYTES {
            let mut senders: BTreeMap<AgentId, usize> = BTreeMap::new();
            for ((of, _), lane) in &self.lanes {
                *senders.entry(*of).or_default() += lane.bytes();
            }
            let largest = senders.into_iter().max_by_key(|(_, bytes)| *bytes);
            if !largest.is_some_and(|(largest, _)| self.drop_latest(largest)) {
                break;
            }
            dropped = true;
        }
        if dropped {
            self.drop_orphans(now);
        }
    }

    fn drop_latest(&mut self, from: AgentId) -> bool {
        let lanes = self.lanes.range_mut((from, FIRST_MACHINE)..=(from, LAST_MACHINE));
        let mut lanes: Vec<&mut Lane> = lanes.map(|(_, lane)| lane).collect();
        lanes.sort_by_key(|lane| std::cmp::Reverse(lane.bytes()));
        lanes.into_iter().any(Lane::drop_latest)
    }

    /// Forgets letters that are not here and that nobody has any more.
    pub(super) fn drop_orphans(&mut self, now: Tick) {
        let lacking: BTreeSet<Key> = self.lanes.values().flat_map(Lane::lacking).collect();
        let orphan = |key: &Key, item: &Item| {
            item.holders.is_empty()
                && match item.stage {
                    Stage::Listed => true,
                    Stage::Opened => lacking.contains(key),
                    Stage::Fetching(..) | Stage::Done => false,
                }
        };
        let orphans = self.items.iter().filter(|(key, item)| orphan(key, item));
        let orphans: Vec<Key> = orphans.map(|(key, _)| *key).collect();
        for key in orphans {
            self.unknown(now, &key);
        }
    }

    /// Fetches what may be fetched now, from one sender after the other.
    pub(super) fn fetch(&mut self, now: Tick) {
        let mut any = true;
        while any && self.holders.values().any(Holding::has_room) {
            any = false;
            for from in self.senders() {
                any |= self.fetch_one(now, from);
            }
        }
    }

    /// Whose letters are known, beginning with the one after whom had the last turn.
    fn senders(&self) -> Vec<AgentId> {
        let mut senders = Vec::new();
        let mut next = self.items.first_key_value().map(|(key, _)| key.0.from);
        while let Some(from) = next {
            senders.push(from);
            let (_, last) = keys_of(from);
            next = self
                .items
                .range(last..)
                .find(|(key, _)| key.0.from != from)
                .map(|(key, _)| key.0.from);
        }
        let first = self.turn.map_or(0, |turn| senders.partition_point(|from| *from <= turn));
        senders.rotate_left(first);
        senders
    }

    fn fetch_one(&mut self, now: Tick, from: AgentId) -> bool {
        let of_sender = |mailbox: &&Mailbox| mailbox.from == from;
        if self.fetching.values().filter(of_sender).count() >= MAX_SENDER_FETCHES {
            return false;
        }
        let found = self.items_of(from).find_map(|(key, item)| {
            let paused = |lane: &Lane| lane.is_paused(now);
            if item.stage != Stage::Listed || self.lanes.get(&key.0.sender()).is_some_and(paused) {
                return None;
            }
            let ready = |peer: &&MachineId| {
                self.holders.get(*peer).is_some_and(Holding::has_room)
                    && !self.fetching.contains_key(&(**peer, key.1))
            };
            Some((*key, *item.holders.iter().find(ready)?))
        });
        let Some((key, peer)) = found else { return false };
        if let Some(holder) = self.holders.get_mut(&peer) {
            holder.fetching += 1;
        }
        if let Some(item) = self.items.get_mut(&key) {
            item.stage = Stage::Fetching(peer, now + FETCH_TIMEOUT);
        }
        let (mailbox, digest) = key;
        self.turn = Some(from);
        self.fetching.insert((peer, digest), mailbox);
        self.outputs.push_back(CollectorOutput::Fetch { peer, mailbox, digest });
        true
    }
}
