//! Fetching one's own letters, as a pure machine: whom to ask, what to fetch from whom, and in which
//! order to deliver.
//!
//! A letter names the one before it. It is delivered after that one, however it came, and when nobody
//! brings it in time, with a [`Gap`] to tell. A holder that gives something else than it listed has
//! changed it; the letter is fetched elsewhere, and a holder that does so again is asked no more.
//!
//! What a holder lists proves nothing, not even whose mailbox a letter lay in. So a letter is known by
//! mailbox and digest: who lists it in a wrong mailbox does not touch the one in the right mailbox.

mod blame;
mod event;
mod lane;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use x0x_core::{AgentId, Machine, MachineId, Tick, WallTime};

pub use self::event::{CollectorInput, CollectorOutput, Gap, Taken};
use self::{
    blame::MAX_BROKEN,
    lane::{Lane, Next},
};
use super::{
    config::LettersConfig,
    letter::Opened,
    metrics::LettersMetrics,
    wire::{Digest, MAX_DELETED},
};
use crate::wire::MessageId;

#[cfg(test)]
mod tests;

/// Letters known at once, those that were delivered included; of these the oldest are forgotten.
pub const MAX_COLLECTED: usize = 4096;
/// Payload bytes of letters that wait for others.
pub const MAX_WAITING_BYTES: usize = 32 * 1024 * 1024;
/// Letters fetched from one holder at once.
const FETCH_WINDOW: usize = 4;
/// How long a holder may take to give a letter.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);
/// Letters of one holder that are not settled; it lists the others when it is asked again.
const MAX_OPEN: usize = 512;
/// How soon a holder that has more is asked again.
const MORE_PAUSE: Duration = Duration::from_secs(5);
/// How soon a machine that does not answer is asked again, and how often.
const ASK_AGAIN: Duration = Duration::from_secs(15);
const MAX_ASKED_AGAIN: u32 = 3;
/// Holders remembered; the one asked longest ago is forgotten.
const MAX_ASKED_HOLDERS: usize = 1024;
/// Gaps remembered; the oldest goes.
const MAX_GAPS: usize = 64;

/// The sender of letters and the period of the mailbox that they lie in.
type Mailbox = (AgentId, u64);
/// A letter in a mailbox.
type Key = (Mailbox, Digest);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Listed,
    Fetching(MachineId, Tick),
    /// Opened, and waiting for its turn.
    Opened,
    /// Settled: to be deleted wherever it is.
    Done,
}

#[derive(Debug)]
struct Item {
    holders: BTreeSet<MachineId>,
    stage: Stage,
}

#[derive(Debug, Default)]
struct Holding {
    connected: bool,
    asked: Option<Tick>,
    /// Questions without an answer: a machine that is just starting may not hear the first.
    unanswered: u32,
    ask_at: Option<Tick>,
    fetching: usize,
    /// Lists that it owes.
    expected: usize,
    lies: u32,
    /// Listed letters that it had not, since it was asked.
    missing: u32,
    /// Letters that did not open; as many mailboxes as `MAX_BLAMED`.
    broken: BTreeMap<Mailbox, u32>,
    shunned_until: Option<Tick>,
    /// It has more than it listed, or than it gave in time.
    more: bool,
    /// Something of it was settled since it was asked.
    settled: bool,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Collector {
    config: LettersConfig,
    metrics: Arc<LettersMetrics>,
    /// Wall time at some tick.
    wall: (Tick, WallTime),
    holders: BTreeMap<MachineId, Holding>,
    items: BTreeMap<Key, Item>,
    /// What is asked of whom: a digest of one machine in one mailbox at a time, for its answer names
    /// no mailbox.
    fetching: BTreeMap<(MachineId, Digest), Mailbox>,
    done: VecDeque<Key>,
    lanes: BTreeMap<(AgentId, MachineId), Lane>,
    waiting_bytes: usize,
    gaps: VecDeque<Gap>,
    outputs: VecDeque<CollectorOutput>,
}

impl Collector {
    /// Knows of no letter yet.
    #[must_use]
    pub const fn new(config: LettersConfig, metrics: Arc<LettersMetrics>) -> Self {
        Self {
            config,
            metrics,
            wall: (Tick::ZERO, WallTime::from_millis(0)),
            holders: BTreeMap::new(),
            items: BTreeMap::new(),
            fetching: BTreeMap::new(),
            done: VecDeque::new(),
            lanes: BTreeMap::new(),
            waiting_bytes: 0,
            gaps: VecDeque::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Letters delivered without the one before them, the newest last.
    pub fn gaps(&self) -> impl Iterator<Item = &Gap> {
        self.gaps.iter()
    }

    /// The sender of a letter that is being fetched from a machine, and the period of its mailbox.
    #[must_use]
    pub fn fetching(&self, peer: MachineId, digest: Digest) -> Option<(AgentId, u64)> {
        self.fetching.get(&(peer, digest)).copied()
    }

    /// Letters that are known to be somewhere, and not delivered yet.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.items.values().filter(|item| item.stage != Stage::Done).count()
    }

    fn wall_at(&self, now: Tick) -> WallTime {
        self.wall.1 + now.since(self.wall.0)
    }

    fn up(&mut self, now: Tick, peer: MachineId) {
        if self.holders.len() >= MAX_ASKED_HOLDERS && !self.holders.contains_key(&peer) {
            let idle = self.holders.iter().filter(|(_, holder)| !holder.connected);
            let oldest = idle.min_by_key(|(_, holder)| holder.asked).map(|(peer, _)| *peer);
            match oldest {
                Some(oldest) => drop(self.holders.remove(&oldest)),
                None => return,
            }
        }
        let interval = self.config.ask_interval;
        let holder = self.holders.entry(peer).or_default();
        holder.connected = true;
        let pause = if holder.unanswered > 0 { ASK_AGAIN } else { interval };
        let next = holder.asked.map_or(now, |asked| (asked + pause).max(now));
        holder.ask_at = Some(holder.shunned_until.map_or(next, |until| until.max(next)));
    }

    fn down(&mut self, now: Tick, peer: MachineId) {
        let Some(holder) = self.holders.get_mut(&peer) else { return };
        (holder.connected, holder.ask_at, holder.fetching) = (false, None, 0);
        (holder.expected, holder.more, holder.settled) = (0, false, false);
        holder.broken.clear();
        self.fetching.retain(|(from, _), _| *from != peer);
        let mut gone = Vec::new();
        for (key, item) in &mut self.items {
            item.holders.remove(&peer);
            if matches!(item.stage, Stage::Fetching(from, _) if from == peer) {
                item.stage = Stage::Listed;
            }
            if item.stage == Stage::Listed && item.holders.is_empty() {
                gone.push(*key);
            }
        }
        for key in gone {
            self.items.remove(&key);
        }
        self.fetch(now);
    }

    fn ask(&mut self, now: Tick) {
        let interval = self.config.ask_interval;
        for (peer, holder) in &mut self.holders {
            if holder.connected && holder.ask_at.is_some_and(|at| at <= now) {
                holder.asked = Some(now);
                holder.unanswered += 1;
                let again = holder.unanswered <= MAX_ASKED_AGAIN;
                holder.ask_at = Some(now + if again { ASK_AGAIN } else { interval });
                (holder.more, holder.settled, holder.missing) = (false, false, 0);
                self.outputs.push_back(CollectorOutput::Ask(*peer));
            }
        }
    }

    fn listed(
        &mut self,
        now: Tick,
        peer: MachineId,
        letters: Vec<(AgentId, u64, Digest, bool)>,
        more: bool,
    ) {
        let Some(holder) = self.holders.get_mut(&peer) else { return };
        if holder.expected == 0 {
            return self.metrics.refused_unsolicited.inc();
        }
        holder.expected -= 1;
        if !holder.connected || holder.shunned_until.is_some_and(|until| until > now) {
            return;
        }
        holder.more |= more;
        if std::mem::take(&mut holder.unanswered) > 0 {
            holder.ask_at = holder.asked.map(|asked| asked + self.config.ask_interval);
        }
        for (mailbox, digests) in self.sort(peer, letters) {
            self.delete(peer, mailbox, &digests);
            if let Some(holder) = self.holders.get_mut(&peer) {
                holder.settled = true;
            }
        }
        self.fetch(now);
        self.ask_for_more(now, peer);
    }

    /// Remembers who has which letter. What of them is to be deleted.
    fn sort(
        &mut self,
        peer: MachineId,
        letters: Vec<(AgentId, u64, Digest, bool)>,
    ) -> BTreeMap<Mailbox, Vec<Digest>> {
        let mut delete: BTreeMap<Mailbox, Vec<Digest>> = BTreeMap::new();
        let mut open = self.open_at(peer).count();
        for (from, period, digest, wanted) in letters {
            let mailbox = (from, period);
            let key = (mailbox, digest);
            if let Some(item) = self.items.get_mut(&key)
                && (item.stage == Stage::Done || item.holders.contains(&peer))
            {
                item.holders.insert(peer);
                if item.stage == Stage::Done {
                    delete.entry(mailbox).or_default().push(digest);
                }
                continue;
            }
            if !wanted {
                self.metrics.unwanted.inc();
                delete.entry(mailbox).or_default().push(digest);
                continue;
            }
            let Some(holder) = self.holders.get_mut(&peer) else { break };
            if holder.broken.get(&mailbox).is_some_and(|broken| *broken >= MAX_BROKEN) {
                continue;
            }
            if open >= MAX_OPEN {
                holder.more = true;
                continue;
            }
            if !self.items.contains_key(&key) && !self.has_room() {
                // It is listed again, to who asks again.
                break;
            }
            open += 1;
            let fresh = || Item { holders: BTreeSet::new(), stage: Stage::Listed };
            self.items.entry(key).or_insert_with(fresh).holders.insert(peer);
        }
        delete
    }

    /// What a holder has that is not settled.
    fn open_at(&self, peer: MachineId) -> impl Iterator<Item = &Item> {
        let open = move |item: &&Item| item.stage != Stage::Done && item.holders.contains(&peer);
        self.items.values().filter(open)
    }

    /// Makes room for one more letter by forgetting one that was settled.
    fn has_room(&mut self) -> bool {
        while self.items.len() >= MAX_COLLECTED {
            let Some(oldest) = self.done.pop_front() else { return false };
            self.items.remove(&oldest);
        }
        true
    }

    fn delete(&mut self, peer: MachineId, mailbox: Mailbox, digests: &[Digest]) {
        for digests in digests.chunks(MAX_DELETED) {
            let digests = digests.to_vec();
            self.outputs.push_back(CollectorOutput::Delete { peer, mailbox, digests });
        }
    }

    /// Asks a holder again that had more, once all that it listed is settled, if anything was.
    fn ask_for_more(&mut self, now: Tick, peer: MachineId) {
        let wanted = |holder: &Holding| holder.connected && holder.more && holder.settled;
        if !self.holders.get(&peer).is_some_and(wanted) || self.open_at(peer).next().is_some() {
            return;
        }
        if let Some(holder) = self.holders.get_mut(&peer) {
            let pace = holder.asked.map_or(now, |asked| asked + MORE_PAUSE).max(now);
            holder.ask_at = Some(holder.shunned_until.map_or(pace, |until| until.max(pace)));
        }
    }

    /// Fetches what may be fetched now.
    fn fetch(&mut self, now: Tick) {
        if self.waiting_bytes >= MAX_WAITING_BYTES {
            return;
        }
        for ((mailbox, digest), item) in &mut self.items {
            if item.stage != Stage::Listed {
                continue;
            }
            let ready = |peer: &&MachineId| {
                let holder = self.holders.get(*peer);
                holder.is_some_and(|holder| holder.connected && holder.fetching < FETCH_WINDOW)
                    && !self.fetching.contains_key(&(**peer, *digest))
            };
            let Some(peer) = item.holders.iter().find(ready).copied() else { continue };
            if let Some(holder) = self.holders.get_mut(&peer) {
                holder.fetching += 1;
            }
            item.stage = Stage::Fetching(peer, now + FETCH_TIMEOUT);
            let (mailbox, digest) = (*mailbox, *digest);
            self.fetching.insert((peer, digest), mailbox);
            self.outputs.push_back(CollectorOutput::Fetch { peer, mailbox, digest });
        }
    }

    /// Ends a fetch; none when the letter was not being fetched from that machine.
    fn fetched(&mut self, peer: MachineId, digest: Digest) -> Option<Key> {
        let key = (self.fetching.remove(&(peer, digest))?, digest);
        if let Some(holder) = self.holders.get_mut(&peer) {
            holder.fetching = holder.fetching.saturating_sub(1);
        }
        self.items.get_mut(&key)?.stage = Stage::Listed;
        Some(key)
    }

    fn opened(&mut self, now: Tick, peer: MachineId, digest: Digest, letter: Box<Opened>) {
        let Some(key) = self.fetched(peer, digest) else { return };
        self.metrics.opened.inc();
        let from = (letter.from(), letter.machine());
        let lane = self.lanes.entry(from).or_default();
        let len = letter.draft.payload.len();
        if lane.add(now, key, letter) {
            self.waiting_bytes += len;
            if let Some(item) = self.items.get_mut(&key) {
                item.stage = Stage::Opened;
            }
        } else {
            // The same message in another cover.
            self.metrics.duplicates.inc();
            self.settle(now, key);
        }
        self.advance(now, from);
        self.fetch(now);
    }

    /// The letter is not needed any more in this mailbox, at whichever holder.
    fn settle(&mut self, now: Tick, key: Key) {
        let Some(item) = self.items.get_mut(&key) else { return };
        if std::mem::replace(&mut item.stage, Stage::Done) == Stage::Done {
            return;
        }
        let holders = item.holders.clone();
        self.done.push_back(key);
        let (mailbox, digest) = key;
        for peer in holders {
            let Some(holder) = self.holders.get_mut(&peer).filter(|holder| holder.connected) else {
                continue;
            };
            holder.settled = true;
            self.delete(peer, mailbox, &[digest]);
            self.ask_for_more(now, peer);
        }
    }

    /// A holder does not have what it listed, or not as it was.
    fn lost(&mut self, now: Tick, peer: MachineId, key: Key) {
        if let Some(item) = self.items.get_mut(&key) {
            item.holders.remove(&peer);
            if item.holders.is_empty() {
                self.items.remove(&key);
            }
        }
        self.fetch(now);
        self.ask_for_more(now, peer);
    }

    fn advance(&mut self, now: Tick, from: (AgentId, MachineId)) {
        let wall = self.wall_at(now);
        let Some(lane) = self.lanes.get_mut(&from) else { return };
        while let Some(next) = lane.next(now, wall, self.config.hole_patience) {
            match next {
                Next::Ask(id) => self.outputs.push_back(CollectorOutput::Knows { from, id }),
                Next::Deliver { letter, without } => {
                    if let Some(missing) = without {
                        self.metrics.gaps.inc();
                        if self.gaps.len() >= MAX_GAPS {
                            self.gaps.pop_front();
                        }
                        let next = letter.draft.id;
                        self.gaps.push_back(Gap { from: from.0, missing, next, at: wall });
                    }
                    self.outputs.push_back(CollectorOutput::Deliver(letter));
                }
            }
        }
    }

    fn delivered(&mut self, now: Tick, from: (AgentId, MachineId), id: MessageId, taken: Taken) {
        let Some(lane) = self.lanes.get_mut(&from) else { return };
        let counter = match taken {
            Taken::Stored => &self.metrics.delivered,
            Taken::Duplicate => &self.metrics.duplicates,
            Taken::Unwanted => &self.metrics.unwanted,
            Taken::Busy => &self.metrics.busy,
        };
        counter.inc();
        if let Some((key, len)) = lane.delivered(now, id, taken != Taken::Busy) {
            self.waiting_bytes = self.waiting_bytes.saturating_sub(len);
            self.settle(now, key);
        }
        self.advance(now, from);
        if self.lanes.get(&from).is_some_and(Lane::is_empty) {
            self.lanes.remove(&from);
        }
        self.fetch(now);
    }
}

impl Machine for Collector {
    type Input = CollectorInput;
    type Output = CollectorOutput;

    fn handle(&mut self, now: Tick, input: CollectorInput) {
        match input {
            CollectorInput::Wall(wall) => self.wall = (now, wall),
            CollectorInput::Up(peer) => {
                self.up(now, peer);
                self.ask(now);
            }
            CollectorInput::Down(peer) => self.down(now, peer),
            CollectorInput::Asked { peer, frames } => {
                if let Some(holder) = self.holders.get_mut(&peer) {
                    holder.expected = frames;
                }
            }
            CollectorInput::Listed { peer, letters, more } => {
                self.listed(now, peer, letters, more);
                self.ask(now);
            }
            CollectorInput::Opened { peer, digest, letter } => {
                self.opened(now, peer, digest, letter);
            }
            CollectorInput::Broken { peer, digest } => self.broken(now, peer, digest),
            CollectorInput::Untimely { peer, digest } => self.untimely(now, peer, digest),
            CollectorInput::Tampered { peer, digest } => self.tampered(now, peer, digest),
            CollectorInput::Missing { peer, digest } => self.missing(now, peer, digest),
            CollectorInput::Known { from, id, known } => {
                if let Some(lane) = self.lanes.get_mut(&from) {
                    lane.answered(now, id, known);
                }
                self.advance(now, from);
            }
            CollectorInput::Delivered { from, id, taken } => {
                self.delivered(now, from, id, taken);
                self.ask(now);
            }
        }
    }

    fn handle_timeout(&mut self, now: Tick) {
        let late: Vec<_> = self
            .items
            .iter()
            .filter_map(|((_, digest), item)| match item.stage {
                Stage::Fetching(peer, until) if until <= now => Some((peer, *digest)),
                _ => None,
            })
            .collect();
        for (peer, digest) in late {
            self.late(now, peer, digest);
        }
        let due = |lane: &Lane| lane.due(self.config.hole_patience).is_some_and(|at| at <= now);
        let lanes: Vec<_> =
            self.lanes.iter().filter(|(_, lane)| due(lane)).map(|(from, _)| *from).collect();
        for from in lanes {
            self.advance(now, from);
        }
        self.ask(now);
    }

    fn poll_output(&mut self) -> Option<CollectorOutput> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Tick> {
        let fetches = self.items.values().filter_map(|item| match item.stage {
            Stage::Fetching(_, until) => Some(until),
            _ => None,
        });
        let lanes = self.lanes.values().filter_map(|lane| lane.due(self.config.hole_patience));
        let connected = self.holders.values().filter(|holder| holder.connected);
        let asks = connected.filter_map(|holder| holder.ask_at);
        fetches.chain(lanes).chain(asks).min()
    }
}
