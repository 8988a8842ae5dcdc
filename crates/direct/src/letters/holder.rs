//! Keeping letters for others, as a pure machine: what is taken, for how long, and who may have it.
//!
//! What was accepted is kept until it expires or whoever may fetch it has deleted it: nothing that is
//! sent later pushes it out. So all room is divided beforehand, by tag, by depositor and by whether the
//! depositor is a contact.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use x0x_core::{Machine, MachineId, Tick, TokenBucket, WallTime};
use x0x_identity::{Pickup, Tag};

use super::{
    config::LettersConfig,
    metrics::LettersMetrics,
    wire::{Digest, Frame, Listed, MAX_LISTED, Outcome},
};
use crate::admission::Standing;

#[cfg(test)]
mod tests;

/// Machines whose deposits of the day are counted; past it, the count that is oldest is forgotten.
pub const MAX_DEPOSITORS: usize = 1024;
/// Letters of one machine that are being read from the store for it.
const MAX_LOADS: usize = 16;
/// Their bytes.
const MAX_LOADING: usize = 1024 * 1024;
/// Bytes of letters that are being read for all machines.
const MAX_LOADING_ALL: usize = 16 * 1024 * 1024;
/// Questions of one machine: a burst, then one in five seconds.
const ASKS: (u32, Duration) = (64, Duration::from_secs(5));
/// Letters that one machine fetches: a burst, then fifty a second.
const FETCHES: (u32, Duration) = (1024, Duration::from_millis(20));
/// Counted for each letter beside its bytes.
const OVERHEAD: u64 = 512;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A letter that is kept, without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores make them")]
pub struct Held {
    /// Under which tag.
    pub tag: Tag,
    /// Its name.
    pub digest: Digest,
    /// Bytes of the sealed letter.
    pub bytes: u32,
    /// Until when.
    pub expires_at: WallTime,
    /// It came from a machine without a contact on it.
    pub stranger: bool,
}

impl Held {
    fn cost(&self) -> u64 {
        u64::from(self.bytes) + OVERHEAD
    }
}

/// What the world tells the machine.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum HolderInput {
    /// The wall-clock time now. To be told before each turn.
    Wall(WallTime),
    /// A letter that an earlier run kept.
    Restore(Held),
    /// A frame of a machine. Those that concern no holder are ignored.
    Frame {
        /// Who.
        peer: MachineId,
        /// How the agents on it stand here.
        standing: Standing,
        /// What.
        frame: Frame,
    },
    /// What became of [`HolderOutput::Store`].
    Stored {
        /// Whose letter.
        peer: MachineId,
        /// Which.
        held: Held,
        /// Whether it is kept.
        kept: bool,
    },
    /// What became of [`HolderOutput::Load`].
    Loaded {
        /// Who waits for it.
        peer: MachineId,
        /// Which.
        digest: Digest,
        /// None when the store lost it.
        sealed: Option<Bytes>,
    },
    /// The session with a machine ended.
    Down(MachineId),
}

/// What the machine asks of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HolderOutput {
    /// Send a frame.
    Send {
        /// To whom.
        peer: MachineId,
        /// What.
        frame: Frame,
    },
    /// Store a letter; [`HolderInput::Stored`] is the answer.
    Store {
        /// Whose deposit.
        peer: MachineId,
        /// Which.
        held: Held,
        /// Its content.
        sealed: Bytes,
    },
    /// Read a letter; [`HolderInput::Loaded`] is the answer.
    Load {
        /// For whom.
        peer: MachineId,
        /// Under which tag.
        tag: Tag,
        /// Which.
        digest: Digest,
    },
    /// Delete letters from the store.
    Remove(Vec<(Tag, Digest)>),
}

#[derive(Debug)]
struct Kept {
    held: Held,
    stored: bool,
}

#[derive(Debug)]
struct Peer {
    asks: TokenBucket,
    fetches: TokenBucket,
    /// Letters that are being read, with their bytes.
    loads: BTreeMap<Digest, usize>,
}

impl Peer {
    fn loading(&self) -> usize {
        self.loads.values().sum()
    }
}

/// Bytes that a machine left since the beginning of its day.
#[derive(Debug, Clone, Copy)]
struct Daily {
    since: Tick,
    bytes: u64,
}

/// See the module documentation. As large as [`LettersConfig::hold_bytes`] allows.
#[derive(Debug)]
pub struct Holder {
    config: LettersConfig,
    metrics: Arc<LettersMetrics>,
    /// Wall time at some tick.
    wall: (Tick, WallTime),
    letters: BTreeMap<(Tag, Digest), Kept>,
    expiries: BTreeSet<(WallTime, Tag, Digest)>,
    bytes: u64,
    stranger_bytes: u64,
    peers: BTreeMap<MachineId, Peer>,
    /// Bytes of letters that are being read for them.
    loading: usize,
    daily: BTreeMap<MachineId, Daily>,
    outputs: VecDeque<HolderOutput>,
}

impl Holder {
    /// Keeps nothing yet.
    #[must_use]
    pub fn new(config: LettersConfig, metrics: Arc<LettersMetrics>) -> Self {
        Self {
            config,
            metrics,
            wall: (Tick::ZERO, WallTime::default()),
            letters: BTreeMap::new(),
            expiries: BTreeSet::new(),
            bytes: 0,
            stranger_bytes: 0,
            peers: BTreeMap::new(),
            loading: 0,
            daily: BTreeMap::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Letters and bytes that are kept for others.
    #[must_use]
    pub fn held(&self) -> (usize, u64) {
        (self.letters.len(), self.bytes)
    }

    /// Bytes of letters that are being read for a machine.
    #[must_use]
    pub fn loading(&self, peer: &MachineId) -> usize {
        self.peers.get(peer).map_or(0, Peer::loading)
    }

    /// Whether a letter is kept, or being stored.
    #[must_use]
    pub fn holds(&self, tag: Tag, digest: Digest) -> bool {
        self.letters.contains_key(&(tag, digest))
    }

    fn wall_at(&self, now: Tick) -> WallTime {
        self.wall.1 + now.since(self.wall.0)
    }

    fn insert(&mut self, held: Held, stored: bool) {
        self.bytes += held.cost();
        if held.stranger {
            self.stranger_bytes += held.cost();
        }
        self.expiries.insert((held.expires_at, held.tag, held.digest));
        self.letters.insert((held.tag, held.digest), Kept { held, stored });
        self.measure();
    }

    fn remove(&mut self, tag: Tag, digest: Digest) -> bool {
        let Some(Kept { held, .. }) = self.letters.remove(&(tag, digest)) else { return false };
        self.bytes -= held.cost();
        if held.stranger {
            self.stranger_bytes -= held.cost();
        }
        self.expiries.remove(&(held.expires_at, tag, digest));
        self.measure();
        true
    }

    fn measure(&self) {
        self.metrics.held.set(self.letters.len() as u64);
        self.metrics.held_bytes.set(self.bytes);
    }

    fn of_tag(&self, tag: Tag) -> impl Iterator<Item = &Kept> {
        let all = (tag, Digest::new([0; 32]))..=(tag, Digest::new([0xff; 32]));
        self.letters.range(all).map(|(_, kept)| kept)
    }

    fn deposit(
        &mut self,
        now: Tick,
        peer: MachineId,
        standing: Standing,
        (tag, expires_at, sealed): (Tag, WallTime, Bytes),
    ) {
        let digest = Digest::of(&sealed);
        let wall = self.wall_at(now);
        let bytes = u32::try_from(sealed.len()).unwrap_or(u32::MAX);
        let expires_at = expires_at.min(wall + self.config.lifetime);
        let stranger = standing != Standing::Contact;
        let held = Held { tag, digest, bytes, expires_at, stranger };
        let outcome = match self.letters.get(&(tag, digest)) {
            // A repetition: the answer was lost.
            Some(kept) if kept.stored => {
                let until = kept.held.expires_at;
                return self.answer(peer, digest, Outcome::Kept, until);
            }
            Some(_) => Outcome::Full,
            None => match self.admit(now, wall, peer, &held) {
                Ok(()) => {
                    self.insert(held, false);
                    return self.outputs.push_back(HolderOutput::Store { peer, held, sealed });
                }
                Err(outcome) => outcome,
            },
        };
        self.answer(peer, digest, outcome, WallTime::default());
    }

    fn answer(&mut self, peer: MachineId, digest: Digest, outcome: Outcome, until: WallTime) {
        let frame = Frame::Deposited { digest, outcome, until };
        self.outputs.push_back(HolderOutput::Send { peer, frame });
    }

    /// Whether there is room for a letter, and counts it against its depositor.
    fn admit(
        &mut self,
        now: Tick,
        wall: WallTime,
        peer: MachineId,
        held: &Held,
    ) -> Result<(), Outcome> {
        let (config, metrics) = (&self.config, &self.metrics);
        if !config.holds || held.expires_at <= wall {
            metrics.refused_deposit.inc();
            return Err(Outcome::Refused);
        }
        let (letters, bytes) = self
            .of_tag(held.tag)
            .fold((0, 0), |(n, bytes), kept| (n + 1, bytes + kept.held.cost()));
        if letters >= config.tag_letters || bytes + held.cost() > config.tag_bytes {
            metrics.refused_tag_full.inc();
            return Err(Outcome::TagFull);
        }
        let strangers_full =
            held.stranger && self.stranger_bytes + held.cost() > config.stranger_bytes;
        if self.bytes + held.cost() > config.hold_bytes || strangers_full {
            metrics.refused_full.inc();
            return Err(Outcome::Full);
        }
        let share = if held.stranger { config.stranger_daily } else { config.contact_daily };
        if self.daily.len() >= MAX_DEPOSITORS && !self.daily.contains_key(&peer) {
            let oldest = self.daily.iter().min_by_key(|(_, daily)| daily.since);
            if let Some(oldest) = oldest.map(|(peer, _)| *peer) {
                self.daily.remove(&oldest);
            }
        }
        let daily = self.daily.entry(peer).or_insert(Daily { since: now, bytes: 0 });
        if now.since(daily.since) >= DAY {
            *daily = Daily { since: now, bytes: 0 };
        }
        if daily.bytes + held.cost() > share {
            metrics.refused_share.inc();
            return Err(Outcome::ShareUsed);
        }
        daily.bytes += held.cost();
        Ok(())
    }

    fn stored(&mut self, peer: MachineId, held: Held, kept: bool) {
        let Held { tag, digest, .. } = held;
        let outcome = match self.letters.get_mut(&(tag, digest)) {
            Some(entry) if kept => {
                entry.stored = true;
                self.metrics.deposits_kept.inc();
                Outcome::Kept
            }
            // Deleted or expired while it was stored.
            None if kept => {
                self.outputs.push_back(HolderOutput::Remove(vec![(tag, digest)]));
                Outcome::Refused
            }
            _ => {
                self.remove(tag, digest);
                self.metrics.refused_not_stored.inc();
                Outcome::Full
            }
        };
        let until = if outcome == Outcome::Kept { held.expires_at } else { WallTime::default() };
        self.answer(peer, digest, outcome, until);
    }

    fn peer(&mut self, now: Tick, peer: MachineId) -> &mut Peer {
        self.peers.entry(peer).or_insert_with(|| Peer {
            asks: TokenBucket::new(ASKS.0, ASKS.1, now),
            fetches: TokenBucket::new(FETCHES.0, FETCHES.1, now),
            loads: BTreeMap::new(),
        })
    }

    fn asked(&mut self, now: Tick, peer: MachineId, pickups: &[Pickup]) {
        if !self.peer(now, peer).asks.take(now) {
            return self.metrics.refused_asks.inc();
        }
        let wall = self.wall_at(now);
        let tags: BTreeSet<Tag> = pickups.iter().map(Pickup::tag).collect();
        let mut letters = Vec::new();
        let mut more = false;
        'tags: for tag in tags {
            for Kept { held, stored } in self.of_tag(tag) {
                if !stored || held.expires_at <= wall {
                    continue;
                }
                if letters.len() >= MAX_LISTED {
                    more = true;
                    break 'tags;
                }
                letters.push(Listed { tag, digest: held.digest, bytes: held.bytes });
            }
        }
        self.metrics.asks_answered.inc();
        let frame = Frame::Listing { letters, more };
        self.outputs.push_back(HolderOutput::Send { peer, frame });
    }

    fn fetch(&mut self, now: Tick, peer: MachineId, (pickup, digest): (Pickup, Digest)) {
        let tag = pickup.tag();
        let stored = self.letters.get(&(tag, digest)).filter(|kept| kept.stored);
        let bytes = stored.map(|kept| kept.held.bytes as usize);
        let all = self.loading;
        let state = self.peer(now, peer);
        let full = |bytes| {
            state.loads.len() >= MAX_LOADS
                || state.loads.contains_key(&digest)
                || state.loading() + bytes > MAX_LOADING
                || all + bytes > MAX_LOADING_ALL
        };
        if bytes.is_some_and(full) || !state.fetches.take(now) {
            // It is asked for again: a holder that is busy is no holder that withholds.
            return self.metrics.refused_fetches.inc();
        }
        if let Some(bytes) = bytes {
            state.loads.insert(digest, bytes);
            self.loading += bytes;
            return self.outputs.push_back(HolderOutput::Load { peer, tag, digest });
        }
        let frame = Frame::Fetched { digest, sealed: None };
        self.outputs.push_back(HolderOutput::Send { peer, frame });
    }

    fn loaded(&mut self, peer: MachineId, digest: Digest, sealed: Option<Bytes>) {
        if let Some(state) = self.peers.get_mut(&peer) {
            self.loading -= state.loads.remove(&digest).unwrap_or_default();
        }
        if sealed.is_some() {
            self.metrics.letters_served.inc();
        }
        let frame = Frame::Fetched { digest, sealed };
        self.outputs.push_back(HolderOutput::Send { peer, frame });
    }

    fn delete(&mut self, pickup: Pickup, digests: Vec<Digest>) {
        let tag = pickup.tag();
        let gone: Vec<_> = digests
            .into_iter()
            .filter(|digest| self.remove(tag, *digest))
            .map(|digest| (tag, digest))
            .collect();
        if !gone.is_empty() {
            self.metrics.letters_deleted.add(gone.len() as u64);
            self.outputs.push_back(HolderOutput::Remove(gone));
        }
    }

    /// Whoever is not wanted is served like a stranger: what is kept here is between others, and it could tell by
    /// a letter to itself.
    fn frame(&mut self, now: Tick, peer: MachineId, standing: Standing, frame: Frame) {
        match frame {
            Frame::Deposit { tag, expires_at, sealed } => {
                self.deposit(now, peer, standing, (tag, expires_at, sealed));
            }
            Frame::Ask(pickups) => self.asked(now, peer, &pickups),
            Frame::Fetch { pickup, digest } => self.fetch(now, peer, (pickup, digest)),
            Frame::Delete { pickup, digests } => self.delete(pickup, digests),
            _ => {}
        }
    }
}

impl Machine for Holder {
    type Input = HolderInput;
    type Output = HolderOutput;

    fn handle(&mut self, now: Tick, input: HolderInput) {
        match input {
            HolderInput::Wall(wall) => self.wall = (now, wall),
            HolderInput::Restore(held) => {
                if !self.letters.contains_key(&(held.tag, held.digest)) {
                    self.insert(held, true);
                }
            }
            HolderInput::Frame { peer, standing, frame } => self.frame(now, peer, standing, frame),
            HolderInput::Stored { peer, held, kept } => self.stored(peer, held, kept),
            HolderInput::Loaded { peer, digest, sealed } => self.loaded(peer, digest, sealed),
            HolderInput::Down(peer) => {
                let loading = self.peers.remove(&peer).map(|peer| peer.loading());
                self.loading -= loading.unwrap_or_default();
            }
        }
    }

    fn handle_timeout(&mut self, now: Tick) {
        let wall = self.wall_at(now);
        let mut gone = Vec::new();
        while let Some((at, tag, digest)) = self.expiries.first().copied()
            && at <= wall
        {
            self.remove(tag, digest);
            gone.push((tag, digest));
        }
        if !gone.is_empty() {
            self.metrics.letters_expired.add(gone.len() as u64);
            self.outputs.push_back(HolderOutput::Remove(gone));
        }
    }

    fn poll_output(&mut self) -> Option<HolderOutput> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Tick> {
        let (at, ..) = self.expiries.first()?;
        let wait = at.as_millis().saturating_sub(self.wall.1.as_millis());
        Some(self.wall.0 + Duration::from_millis(wait))
    }
}
