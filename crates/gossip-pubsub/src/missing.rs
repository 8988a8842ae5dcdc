//! What is missing here, who may supply it, and who is asked when.
//!
//! One table for all links: a missing range is asked for on one link at a time. It is made by an
//! announcement, which first gives the tree its time, or by anything else that tells of entries
//! beyond a head, which asks at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use x0x_core::{AgentId, MachineId, Tick, TopicId};

use crate::{
    config::{Limits, MAX_ANNOUNCERS},
    link::ChainId,
};

#[cfg(test)]
mod tests;

/// How often a range is asked for without any progress before it is left to reconciliation.
pub(crate) const MAX_TRIES: u32 = 3;

/// Most links whose floor is remembered for one range; with more of them, patience decides.
const MAX_FLOORS: usize = 16;

/// Ranges that are looked at for one to give up in a full table.
const EVICTION_LOOK: usize = 16;

/// A chain of a topic.
pub(crate) type Key = (TopicId, ChainId);

/// A link that may have the range.
#[derive(Debug, Clone, Copy)]
struct Announcer {
    peer: MachineId,
    /// Up to here, by its own word; none when it did not say. It answers for no more than that.
    upto: Option<u64>,
    /// Links that the announced run crossed on its way to it; `u32::MAX` when not told.
    hops: u32,
    /// How often it was asked since there was progress.
    asked: u32,
}

/// A peer says that a run which leaves a gap is the oldest that it has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Floor {
    peer: MachineId,
    /// Since when.
    pub(crate) since: Tick,
    /// The first entry of that run.
    pub(crate) first: u64,
    /// When it is believed although others may know better.
    pub(crate) until: Tick,
    /// How often it was asked for that run again.
    asked: u32,
}

/// A missing range: what is beyond the chain's head here.
#[derive(Debug)]
pub(crate) struct Missing {
    need_key: bool,
    /// At most [`MAX_ANNOUNCERS`].
    announcers: Vec<Announcer>,
    asked: Option<MachineId>,
    deadline: Tick,
    /// When it was heard of, or last made progress.
    heard: Tick,
    /// The same, or when it was asked for since.
    since: Tick,
    tries: u32,
    /// Heard of by an announcement: the tree should have brought it.
    tree: bool,
    /// The link that told of it first.
    owner: MachineId,
    /// At most [`MAX_FLOORS`], all of one head.
    floors: Vec<Floor>,
    floor_head: u64,
}

/// What a link tells of a chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    pub(crate) peer: MachineId,
    pub(crate) upto: u64,
    pub(crate) hops: u32,
    pub(crate) need_key: bool,
    /// How long the tree gets to bring it; none when it did not come by an announcement.
    pub(crate) wait: Option<Duration>,
}

/// Whom to ask for a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    Ask {
        peer: MachineId,
        need_key: bool,
        /// The tree is to be repaired: a graft rather than a want.
        tree: bool,
        /// Entries up to here may come in answer.
        upto: u64,
    },
    /// Nobody now; again at this time.
    Wait(Tick),
    /// Nobody is left.
    GiveUp,
}

/// What an accepted run made of a missing range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    None,
    Some,
    /// Nothing is missing any more. Of the links that announced it, the one with the fewest hops.
    Done(Option<(MachineId, u32)>),
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct MissingTable {
    /// At most [`Limits::missing`].
    entries: BTreeMap<Key, Missing>,
    deadlines: BTreeSet<(Tick, Key)>,
    /// Entries by the link that answers for them: the first of its announcers that is still there.
    owned: BTreeMap<MachineId, BTreeSet<Key>>,
    /// Topics of ranges for which a link had no room; at most those subscribed here, for each link.
    crowded: BTreeMap<MachineId, BTreeSet<TopicId>>,
}

impl MissingTable {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Ranges that one link answers for, at most.
    pub(crate) fn most_owned(&self) -> usize {
        self.owned.values().map(BTreeSet::len).max().unwrap_or(0)
    }

    /// Topics of one link for which there was no room, at most.
    pub(crate) fn most_crowded(&self) -> usize {
        self.crowded.values().map(BTreeSet::len).max().unwrap_or(0)
    }

    /// Links for which there was no room.
    pub(crate) fn crowding(&self) -> usize {
        self.crowded.len()
    }

    /// When something is due next.
    pub(crate) fn next_deadline(&self) -> Option<Tick> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// A range that is due now.
    pub(crate) fn due(&self, now: Tick) -> Option<Key> {
        self.deadlines.first().filter(|(at, _)| *at <= now).map(|(_, key)| *key)
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.entries.contains_key(key)
    }

    /// Notes what a link tells. True when the range is to be asked for now; false also when there is
    /// no room for it.
    pub(crate) fn note(&mut self, now: Tick, key: Key, report: Report, limits: &Limits) -> bool {
        let deadline = report.wait.map_or(now, |wait| now + wait);
        if let Some(missing) = self.entries.get_mut(&key) {
            missing.need_key |= report.need_key;
            missing.announced(report);
            if missing.asked.is_none() && deadline < missing.deadline {
                missing.tree &= report.wait.is_some();
                self.reschedule(key, deadline);
                return deadline <= now;
            }
            return false;
        }
        if !self.has_room(&report.peer, limits) {
            self.crowded.entry(report.peer).or_default().insert(key.0);
            return false;
        }
        let mut missing = Missing {
            need_key: report.need_key,
            announcers: Vec::new(),
            asked: None,
            deadline,
            heard: now,
            since: now,
            tries: 0,
            tree: report.wait.is_some(),
            owner: report.peer,
            floors: Vec::new(),
            floor_head: 0,
        };
        missing.announced(report);
        self.entries.insert(key, missing);
        self.deadlines.insert((deadline, key));
        self.owned.entry(report.peer).or_default().insert(key);
        deadline <= now
    }

    fn owned_by(&self, peer: &MachineId) -> usize {
        self.owned.get(peer).map_or(0, BTreeSet::len)
    }

    /// Whether there is room for another range of this link. In a full table the link with most
    /// ranges gives one up for a link with fewer, so that each has an even share if it needs it.
    fn has_room(&mut self, peer: &MachineId, limits: &Limits) -> bool {
        let mine = self.owned_by(peer);
        if mine >= limits.link_missing {
            return false;
        }
        if self.entries.len() < limits.missing {
            return true;
        }
        let Some((most, keys)) = self.owned.iter().max_by_key(|(_, keys)| keys.len()) else {
            return false;
        };
        if keys.len() <= mine + 1 {
            return false;
        }
        // Rather one that nobody else told of.
        let alone = |key: &&Key| self.entries.get(*key).is_none_or(|m| m.announcers.len() <= 1);
        let given = keys.iter().take(EVICTION_LOOK).find(alone).or_else(|| keys.first());
        let (most, Some(given)) = (*most, given.copied()) else { return false };
        self.crowded.entry(most).or_default().insert(given.0);
        self.remove(&given);
        true
    }

    /// Notes that a peer has nothing between the head here and a run that it sent. It is asked again
    /// only when nobody else is left. True when it says so for the first time.
    pub(crate) fn note_floor(
        &mut self,
        now: Tick,
        key: Key,
        report: Report,
        (head, first, patience): (u64, u64, Duration),
        limits: &Limits,
    ) -> bool {
        self.note(now, key, report, limits);
        let Some(missing) = self.entries.get_mut(&key) else { return false };
        if missing.floor_head != head {
            missing.floors.clear();
            missing.floor_head = head;
        }
        let peer = report.peer;
        let known = missing.floors.iter_mut().find(|floor| floor.peer == peer);
        if let Some(floor) = known {
            floor.first = first;
            floor.until = floor.until.min(floor.since + patience);
            return false;
        }
        if missing.floors.len() < MAX_FLOORS {
            missing.floors.push(Floor { peer, since: now, first, until: now + patience, asked: 0 });
        }
        true
    }

    /// The links that had no room for ranges of these topics, and have some again.
    pub(crate) fn take_crowded(&mut self, limits: &Limits) -> Vec<(MachineId, TopicId)> {
        if self.crowded.is_empty() {
            return Vec::new();
        }
        let full = self.entries.len() > limits.missing / 4 * 3;
        let share = limits.missing / self.owned.len().max(1);
        let most = if full { limits.link_missing.min(share) } else { limits.link_missing } / 2;
        let free: Vec<MachineId> =
            self.crowded.keys().filter(|peer| self.owned_by(peer) <= most).copied().collect();
        let mut taken = Vec::new();
        for peer in free {
            let topics = self.crowded.remove(&peer).into_iter().flatten();
            taken.extend(topics.map(|topic| (peer, topic)));
        }
        taken
    }

    /// What a peer said of its floor after this head.
    pub(crate) fn floor(&self, key: &Key, peer: &MachineId, head: u64) -> Option<Floor> {
        let missing = self.entries.get(key).filter(|missing| missing.floor_head == head)?;
        missing.floors.iter().find(|floor| floor.peer == *peer).copied()
    }

    /// Adds links that did not say whether they have the range.
    pub(crate) fn suggest(&mut self, key: &Key, peers: impl Iterator<Item = MachineId>) {
        let Some(missing) = self.entries.get_mut(key) else { return };
        for peer in peers {
            let known = missing.announcers.iter().any(|announcer| announcer.peer == peer);
            if !known && missing.announcers.len() < MAX_ANNOUNCERS {
                missing.announcers.push(Announcer { peer, upto: None, hops: u32::MAX, asked: 0 });
            }
        }
    }

    /// Links other than this one that said to have what follows the head, and were not asked for it
    /// in vain yet.
    pub(crate) fn promised(
        &self,
        key: &Key,
        head: u64,
        but: &MachineId,
    ) -> impl Iterator<Item = MachineId> + '_ {
        let (missing, but) = (self.entries.get(key), *but);
        let known = missing.into_iter().flat_map(move |missing| {
            let floors = missing.floors_at(head);
            missing.announcers.iter().filter(move |known| {
                let floor = floors.iter().any(|floor| floor.peer == known.peer);
                known.promises(head) && known.asked < MAX_TRIES && !floor
            })
        });
        known.map(|known| known.peer).filter(move |peer| *peer != but)
    }

    /// Whether a link said to have what follows the head.
    pub(crate) fn is_promised(&self, key: &Key, head: u64, peer: &MachineId) -> bool {
        let known = self.entries.get(key).into_iter().flat_map(|missing| &missing.announcers);
        known.into_iter().any(|known| known.peer == *peer && known.promises(head))
    }

    /// Whom to ask. `rank` sorts links, the best first; none for those that cannot be asked. Before
    /// a topic is `settled`, a floor is not taken for the last word however many say so, until the patience
    /// of when it was told or of now is over.
    pub(crate) fn choose(
        &self,
        now: Tick,
        key: &Key,
        head: u64,
        (settled, patience): (bool, Duration),
        rank: impl Fn(&MachineId) -> Option<(u32, u32, u32)>,
    ) -> Choice {
        let Some(missing) = self.entries.get(key) else { return Choice::GiveUp };
        let floors = missing.floors_at(head);
        let is_floor = |peer: &MachineId| floors.iter().any(|floor| floor.peer == *peer);
        let known = u32::try_from(missing.announcers.len()).unwrap_or(u32::MAX);
        let tries_left = missing.tries < MAX_TRIES.max(known);
        let open = missing.announcers.iter().filter(|known| {
            // Before a gap is accepted, every promise is put to the test.
            let asked = tries_left || (known.upto.is_some() && !floors.is_empty());
            asked && known.may_have(head) && known.asked < MAX_TRIES && !is_floor(&known.peer)
        });
        let ranked = open.filter_map(|open| {
            // Who brought something goes on, and who did not makes way.
            let last = (missing.asked == Some(open.peer)) == (missing.tries > 0);
            Some(((open.asked, last, rank(&open.peer)?, open.hops), open))
        });
        if let Some((_, best)) = ranked.min_by_key(|(rank, _)| *rank) {
            let (need_key, tree) = (missing.need_key, missing.tree);
            let upto = best.upto.unwrap_or_else(|| missing.upto());
            return Choice::Ask { peer: best.peer, need_key, tree, upto };
        }
        let askable = floors.iter().filter(|floor| rank(&floor.peer).is_some());
        let askable = askable.filter(|floor| floor.asked < MAX_TRIES);
        let Some(floor) = askable.min_by_key(|floor| (floor.asked, floor.first)) else {
            return Choice::GiveUp;
        };
        let mut silent = missing.announcers.iter().filter(|known| !is_floor(&known.peer));
        let open = !settled || silent.any(|known| rank(&known.peer).is_some());
        let until = floor.until.min(floor.since + patience);
        if open && until > now {
            return Choice::Wait(until);
        }
        let (need_key, upto) = (missing.need_key, missing.upto());
        Choice::Ask { peer: floor.peer, need_key, tree: false, upto }
    }

    /// Notes that a link is being asked, until a deadline.
    pub(crate) fn asked(&mut self, key: &Key, peer: MachineId, (now, until): (Tick, Tick)) {
        let Some(missing) = self.entries.get_mut(key) else { return };
        missing.since = now;
        missing.asked = Some(peer);
        missing.tries = missing.tries.saturating_add(1);
        if let Some(known) = missing.announcers.iter_mut().find(|known| known.peer == peer) {
            known.asked += 1;
        }
        if let Some(floor) = missing.floors.iter_mut().find(|floor| floor.peer == peer) {
            floor.asked += 1;
        }
        self.reschedule(*key, until);
    }

    /// When a range was heard of, or last made progress.
    pub(crate) fn heard(&self, key: &Key) -> Option<Tick> {
        self.entries.get(key).map(|missing| missing.heard)
    }

    /// How long nothing came of a range since it was heard of, asked for, or made progress.
    pub(crate) fn waited(&self, key: &Key, now: Tick) -> Duration {
        self.entries.get(key).map_or(Duration::ZERO, |missing| now.since(missing.since))
    }

    /// How often the range was asked for in vain, and who was asked last.
    pub(crate) fn tries(&self, key: &Key) -> (u32, Option<MachineId>) {
        self.entries.get(key).map_or((0, None), |missing| (missing.tries, missing.asked))
    }

    /// Whether a range was asked for on a link.
    pub(crate) fn is_asked(&self, key: &Key, peer: &MachineId) -> bool {
        self.entries.get(key).is_some_and(|missing| missing.asked.as_ref() == Some(peer))
    }

    /// A run was accepted from a link: the chain's head is here now, and its key known.
    pub(crate) fn progress(
        &mut self,
        key: &Key,
        head: u64,
        from: &MachineId,
        (now, until): (Tick, Tick),
    ) -> Progress {
        let Some(missing) = self.entries.get_mut(key) else { return Progress::None };
        if missing.upto() <= head {
            let announced = missing.announcers.iter().filter(|known| known.hops != u32::MAX);
            let best = announced.min_by_key(|known| known.hops);
            let best = best.map(|known| (known.peer, known.hops));
            self.remove(key);
            return Progress::Done(best);
        }
        missing.need_key = false;
        (missing.heard, missing.since) = (now, now);
        missing.tries = 0;
        // Only who brought it: another one's empty promise is not renewed by that.
        let brought = missing.announcers.iter_mut().filter(|known| known.peer == *from);
        brought.for_each(|known| known.asked = 0);
        self.reschedule(*key, until);
        Progress::Some
    }

    /// Makes a range due at a time.
    pub(crate) fn reschedule(&mut self, key: Key, at: Tick) {
        if let Some(missing) = self.entries.get_mut(&key) {
            self.deadlines.remove(&(missing.deadline, key));
            missing.deadline = at;
            self.deadlines.insert((at, key));
        }
    }

    pub(crate) fn remove(&mut self, key: &Key) {
        if let Some(missing) = self.entries.remove(key) {
            self.deadlines.remove(&(missing.deadline, *key));
            self.disown(&missing.owner, key);
        }
    }

    fn disown(&mut self, owner: &MachineId, key: &Key) {
        if let Some(owned) = self.owned.get_mut(owner) {
            owned.remove(key);
            if owned.is_empty() {
                self.owned.remove(owner);
            }
        }
    }

    /// Forgets a topic that is no longer subscribed.
    pub(crate) fn remove_topic(&mut self, topic: &TopicId) {
        self.crowded.values_mut().for_each(|topics| {
            topics.remove(topic);
        });
        self.crowded.retain(|_, topics| !topics.is_empty());
        let keys: Vec<Key> = self.keys_of(topic).collect();
        keys.iter().for_each(|key| self.remove(key));
    }

    /// How many chains of a topic have something missing.
    pub(crate) fn of_topic(&self, topic: &TopicId) -> usize {
        self.keys_of(topic).count()
    }

    fn keys_of(&self, topic: &TopicId) -> impl Iterator<Item = Key> + '_ {
        let topic = *topic;
        let first = (topic, (AgentId::new([0; 32]), 0));
        let keys = self.entries.range(first..).map(|(key, _)| *key);
        keys.take_while(move |(of, _)| *of == topic)
    }

    /// A link ended: what it was asked for, or alone told of, is due now.
    pub(crate) fn remove_peer(&mut self, peer: &MachineId, now: Tick) {
        self.crowded.remove(peer);
        let keys: Vec<Key> = self.entries.keys().copied().collect();
        let due: Vec<Key> = keys.into_iter().filter(|key| self.leave(key, peer)).collect();
        due.into_iter().for_each(|key| self.reschedule(key, now));
    }

    /// What a link told of a range is not accepted from it now, so that it is of no use to ask it; others
    /// may be asked at once.
    pub(crate) fn retract(&mut self, key: &Key, peer: &MachineId, now: Tick) {
        let due = self.leave(key, peer);
        if self.entries.get(key).is_some_and(|missing| missing.announcers.is_empty()) {
            self.remove(key);
        } else if due {
            self.reschedule(*key, now);
        }
    }

    /// Takes a link from those that may have a range; whether nobody is asked for it now.
    fn leave(&mut self, key: &Key, peer: &MachineId) -> bool {
        let Some(missing) = self.entries.get_mut(key) else { return false };
        missing.announcers.retain(|known| known.peer != *peer);
        missing.floors.retain(|floor| floor.peer != *peer);
        let asked = missing.asked.as_ref() == Some(peer);
        if asked {
            missing.asked = None;
        }
        let heir = missing.announcers.first().map(|known| known.peer);
        if missing.owner == *peer
            && let Some(heir) = heir
        {
            missing.owner = heir;
            self.disown(peer, key);
            self.owned.entry(heir).or_default().insert(*key);
        }
        asked || heir.is_none()
    }
}

impl Announcer {
    fn promises(&self, head: u64) -> bool {
        self.upto.is_some_and(|upto| upto > head)
    }

    fn may_have(&self, head: u64) -> bool {
        self.upto.is_none_or(|upto| upto > head)
    }
}

impl Missing {
    /// Entries up to here are said to exist, by links that are still there.
    fn upto(&self) -> u64 {
        self.announcers.iter().filter_map(|known| known.upto).max().unwrap_or(0)
    }

    fn floors_at(&self, head: u64) -> &[Floor] {
        if self.floor_head == head { &self.floors } else { &[] }
    }

    /// Of too many announcers, one that was asked in vain makes way.
    fn announced(&mut self, report: Report) {
        let Report { peer, upto, hops, .. } = report;
        let announcer = Announcer { peer, upto: Some(upto), hops, asked: 0 };
        if let Some(known) = self.announcers.iter_mut().find(|known| known.peer == peer) {
            known.upto = known.upto.max(Some(upto));
            known.hops = hops.min(known.hops);
        } else if self.announcers.len() < MAX_ANNOUNCERS {
            self.announcers.push(announcer);
        } else if let Some(known) = self.announcers.iter_mut().max_by_key(|known| known.asked)
            && known.asked > 0
        {
            *known = announcer;
        }
    }
}
