//! Fetching one's own letters, as a pure machine: whom to ask, what to fetch from whom, and in which
//! order to deliver.
//!
//! A letter names the one before it. It is delivered after that one, however it came, and when nobody
//! brings it in time, with a [`Gap`] to tell. A holder that gives something else than it listed has
//! changed it; the letter is fetched elsewhere, and a holder that does so again is asked no more.
//!
//! What a holder lists proves nothing, not even whose mailbox a letter lay in. So a letter is known by
//! mailbox and digest: who lists it in a wrong mailbox does not touch the one in the right mailbox.
//!
//! Each sender has a share of what is remembered, of what is fetched at once, and of the memory for
//! letters that wait for others. One that leaves more than its share is in nobody's way.

mod blame;
mod event;
mod lane;
mod share;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use x0x_core::{AgentId, Machine, MachineId, Tick, WallTime};

pub use self::event::{CollectorInput, CollectorOutput, Gap, Mailbox, Taken};
use self::{
    blame::MAX_BROKEN,
    lane::{Added, Lane, Next},
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
/// Letters of one sender that are not settled; its others are listed again later.
pub const MAX_SENDER_COLLECTED: usize = 1024;
/// Payload bytes of letters that wait for others. Past it, the sender with the most yields.
pub const MAX_WAITING_BYTES: usize = 32 * 1024 * 1024;
/// Those of one sender: sixteen of the largest. What was written last is dropped, and fetched again when
/// it is its turn.
pub const MAX_SENDER_WAITING_BYTES: usize = 4 * 1024 * 1024;
/// Letters fetched from one holder at once.
const FETCH_WINDOW: usize = 4;
/// Letters of one sender that are fetched at once.
const MAX_SENDER_FETCHES: usize = 16;
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

/// An agent on a machine.
type Sender = (AgentId, MachineId);
/// A letter in a mailbox.
type Key = (Mailbox, Digest);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Listed,
    Fetching(MachineId, Tick),
    /// Opened: its lane knows of it.
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

impl Holding {
    /// Whether something may be fetched from it now.
    const fn has_room(&self) -> bool {
        self.connected && self.fetching < FETCH_WINDOW
    }
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
    lanes: BTreeMap<Sender, Lane>,
    /// Whose letter was fetched last.
    turn: Option<AgentId>,
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
            turn: None,
            gaps: VecDeque::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Letters delivered without the one before them, the newest last.
    pub fn gaps(&self) -> impl Iterator<Item = &Gap> {
        self.gaps.iter()
    }

    /// Whether a machine owes a list: one that nobody asked for is not worth looking at.
    #[must_use]
    pub fn expects(&self, peer: &MachineId) -> bool {
        self.holders.get(peer).is_some_and(|holder| holder.expected > 0)
    }

    /// The mailbox of a letter that is being fetched from a machine.
    #[must_use]
    pub fn fetching(&self, peer: MachineId, digest: Digest) -> Option<Mailbox> {
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
        for item in self.items.values_mut() {
            item.holders.remove(&peer);
            if matches!(item.stage, Stage::Fetching(from, _) if from == peer) {
                item.stage = Stage::Listed;
            }
        }
        self.drop_orphans(now);
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
        letters: Vec<(Mailbox, Digest, bool)>,
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
        for (mailbox, digests) in self.sort(now, peer, letters) {
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
        now: Tick,
        peer: MachineId,
        letters: Vec<(Mailbox, Digest, bool)>,
    ) -> BTreeMap<Mailbox, Vec<Digest>> {
        let mut delete: BTreeMap<Mailbox, Vec<Digest>> = BTreeMap::new();
        let (mut open, mut open_of) = (self.open_at(peer).count(), self.open());
        for (mailbox, digest, wanted) in letters {
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
            if !self.items.contains_key(&key) && !self.has_room(now, mailbox.from, &mut open_of) {
                // It is listed again, to who asks again.
                if let Some(holder) = self.holders.get_mut(&peer) {
                    holder.more = true;
                }
                continue;
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
        let from = key.0.sender();
        let left =
            letter.draft.expires_at.as_millis().saturating_sub(self.wall_at(now).as_millis());
        let expires = now + Duration::from_millis(left);
        // The same message in another cover is not needed.
        let needless = match self.lanes.entry(from).or_default().add(now, key, letter, expires) {
            Added::Waits { instead_of } => {
                if let Some(item) = self.items.get_mut(&key) {
                    item.stage = Stage::Opened;
                }
                instead_of
            }
            Added::Duplicate => Some(key),
        };
        if let Some(needless) = needless {
            self.metrics.duplicates.inc();
            self.settle(now, needless);
        }
        self.advance(now, from);
        self.trim(now, from.0);
        self.fetch(now);
    }

    /// The letter is not needed any more in this mailbox, at whichever holder.
    fn settle(&mut self, now: Tick, key: Key) {
        let Some(item) = self.items.get_mut(&key) else { return };
        let before = std::mem::replace(&mut item.stage, Stage::Done);
        if before == Stage::Done {
            return;
        }
        let holders = item.holders.clone();
        let (mailbox, digest) = key;
        if let Stage::Fetching(peer, _) = before {
            // Its answer is not waited for.
            self.fetching.remove(&(peer, digest));
            if let Some(holder) = self.holders.get_mut(&peer) {
                holder.fetching = holder.fetching.saturating_sub(1);
            }
        }
        self.done.push_back(key);
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
                self.unknown(now, &key);
            }
        }
        self.fetch(now);
        self.ask_for_more(now, peer);
    }

    /// A letter is known no more.
    fn unknown(&mut self, now: Tick, key: &Key) {
        self.items.remove(key);
        self.unlane(now, key);
    }

    /// Takes a letter out of its lane, and lets that go on without it.
    fn unlane(&mut self, now: Tick, key: &Key) {
        let from = key.0.sender();
        if self.lanes.get_mut(&from).is_some_and(|lane| lane.forget(key)) {
            self.advance(now, from);
        }
    }

    /// Goes on with a lane, until there is something to wait for. One without letters ends.
    fn advance(&mut self, now: Tick, from: Sender) {
        let (wall, patience) = (self.wall_at(now), self.config.hole_patience);
        let next = |lanes: &mut BTreeMap<Sender, Lane>| {
            lanes.get_mut(&from).and_then(|lane| lane.next(now, wall, patience))
        };
        while let Some(next) = next(&mut self.lanes) {
            match next {
                Next::Ask(id) => self.outputs.push_back(CollectorOutput::Knows { from, id }),
                Next::Fetch(key) => {
                    if let Some(item) = self.items.get_mut(&key) {
                        item.stage = Stage::Listed;
                    }
                }
                Next::Expired(key) => {
                    self.metrics.lapsed.inc();
                    self.settle(now, key);
                }
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
        if self.lanes.get(&from).is_some_and(Lane::is_empty) {
            self.lanes.remove(&from);
        }
    }

    fn delivered(&mut self, now: Tick, from: Sender, id: MessageId, taken: Taken) {
        let Some(lane) = self.lanes.get_mut(&from) else { return };
        let counter = match taken {
            Taken::Stored => &self.metrics.delivered,
            Taken::Duplicate => &self.metrics.duplicates,
            Taken::Unwanted => &self.metrics.unwanted,
            Taken::Busy => &self.metrics.busy,
        };
        counter.inc();
        if let Some(key) = lane.delivered(now, id, taken != Taken::Busy) {
            self.settle(now, key);
        }
        self.advance(now, from);
        if taken == Taken::Busy {
            self.drop_orphans(now);
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
                self.fetch(now);
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
        self.fetch(now);
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
