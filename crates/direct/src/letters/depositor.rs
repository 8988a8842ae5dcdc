//! Leaving letters with holders, as a pure machine: for whom, when, and with whom.
//!
//! Letters of one recipient are left in their order, each with a few holders: one is begun when the one
//! before it has at least one. Contacts come first. Of strangers, one is the machine that suits the
//! recipient's mailbox best, so that sender and recipient think of the same one without having talked
//! about it; as ranks can be ground by whoever knows the mailbox, the others are taken by lot.

mod choice;
mod copies;
mod event;
mod lane;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use x0x_core::{AgentId, Machine, MachineId, SeededRng, Tick, TokenBucket, WallTime};
use x0x_identity::Pickup;

pub use self::event::{Deposit, DepositorInput, DepositorOutput, NotLeft, PendingEntry};
use self::{
    choice::drawn,
    lane::{Current, LAST_PAUSE, Lane, Obstacle, SOON, Stage, Work},
};
use super::{
    config::LettersConfig,
    letter::{After, MAX_LETTER_PAYLOAD},
    metrics::LettersMetrics,
    wire::{Digest, Outcome},
};
use crate::{admission::Standing, wire::MessageId};

#[cfg(test)]
mod tests;

/// Recipients out of reach at once; letters for others wait in the outbox alone.
pub const MAX_LANES: usize = 1024;
/// Recipients for whom letters are being left at once.
const MAX_WORKING: usize = 4;
/// How long a holder may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Mailboxes that are full at some holder, as far as it is remembered; of more, the one that may be tried
/// again first is forgotten.
const MAX_FULL_TAGS: usize = 4096;
/// Holders that are not asked for a while; of more, the one that may be asked again first is forgotten.
const MAX_REFUSED: usize = 1024;
/// How long a holder that refused is not asked.
const REFUSED_FOR: Duration = Duration::from_secs(600);
/// How long one is not asked at which this machine's share of the day is used.
const SHARE_USED_FOR: Duration = Duration::from_secs(3600);
/// Searches for holders: a few at once, then one in half a minute, for all recipients together.
const SEARCHES: (u32, Duration) = (4, Duration::from_secs(30));

/// How well a machine suits a mailbox as a place for its letters: the higher the better.
#[must_use]
pub fn place_rank(places: &[u8; 32], machine: &MachineId) -> [u8; 32] {
    *blake3::keyed_hash(places, machine.as_bytes()).as_bytes()
}

/// A message that has copies with holders.
#[derive(Debug)]
struct HeldOut {
    to: AgentId,
    /// What it says goes before it, if that is known.
    after: Option<MessageId>,
    copies: BTreeMap<MachineId, Deposit>,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Depositor {
    config: LettersConfig,
    metrics: Arc<LettersMetrics>,
    rng: SeededRng,
    /// Wall time at some tick.
    wall: (Tick, WallTime),
    lanes: BTreeMap<AgentId, Lane>,
    /// Machines with a session, and how they stand.
    peers: BTreeMap<MachineId, Standing>,
    /// Who is not asked, and until when: see [`MAX_REFUSED`].
    refused: BTreeMap<MachineId, Tick>,
    searches: TokenBucket,
    /// Holders that take no more for some recipient, and until when they are not asked: see
    /// [`MAX_FULL_TAGS`].
    full_tags: BTreeMap<(AgentId, MachineId), Tick>,
    /// As large as the outbox.
    held_out: BTreeMap<MessageId, HeldOut>,
    /// When copies lapse.
    lapses: BTreeSet<(WallTime, MessageId, MachineId)>,
    outputs: VecDeque<DepositorOutput>,
}

impl Depositor {
    /// Has left nothing yet. Holders are drawn by `seed`, which must not be known to others.
    #[must_use]
    pub fn new(config: LettersConfig, metrics: Arc<LettersMetrics>, seed: [u8; 32]) -> Self {
        Self {
            config,
            metrics,
            rng: SeededRng::from_seed(seed),
            wall: (Tick::ZERO, WallTime::default()),
            lanes: BTreeMap::new(),
            peers: BTreeMap::new(),
            refused: BTreeMap::new(),
            searches: TokenBucket::new(SEARCHES.0, SEARCHES.1, Tick::ZERO),
            full_tags: BTreeMap::new(),
            held_out: BTreeMap::new(),
            lapses: BTreeSet::new(),
            outputs: VecDeque::new(),
        }
    }

    /// How many holders have a copy of a message.
    #[must_use]
    pub fn holders(&self, id: &MessageId) -> usize {
        self.held_out.get(id).map_or(0, |held| held.copies.len())
    }

    /// Why a message to an agent, by its number, is not left with others, as far as that is known.
    #[must_use]
    pub fn not_left(&self, to: &AgentId, number: u64) -> Option<NotLeft> {
        match self.lanes.get(to)?.obstacle? {
            Obstacle::NoMailbox => Some(NotLeft::NoMailbox),
            Obstacle::TooLarge(large) if large == number => Some(NotLeft::TooLarge),
            Obstacle::TooLarge(large) => (large < number).then_some(NotLeft::BehindTooLarge),
        }
    }

    /// The messages that holders have, their recipients, and how many holders each has.
    pub fn held_out(&self) -> impl Iterator<Item = (MessageId, AgentId, usize)> + '_ {
        self.held_out.iter().map(|(id, held)| (*id, held.to, held.copies.len()))
    }

    fn unreachable(&mut self, now: Tick, to: AgentId) {
        if !self.config.deposits || (self.lanes.len() >= MAX_LANES && !self.lanes.contains_key(&to))
        {
            return;
        }
        let due = now + self.config.deposit_after;
        let stage = Stage::Waiting(due);
        self.lanes.entry(to).or_insert(Lane {
            stage,
            obstacle: None,
            failures: 0,
            looked: None,
            posted: None,
            hurried: false,
        });
    }

    /// Looks at a lane no later than this, or as soon as what goes on is done.
    fn hurry(&mut self, to: AgentId, at: Tick) {
        let Some(lane) = self.lanes.get_mut(&to) else { return };
        match &mut lane.stage {
            Stage::Waiting(due) => {
                lane.hurried |= at < *due;
                *due = (*due).min(at);
            }
            Stage::Looking | Stage::Working(_) => {
                lane.posted = Some(lane.posted.map_or(at, |posted| posted.min(at)));
            }
        }
    }

    fn reachable(&mut self, to: &AgentId) {
        let Some(lane) = self.lanes.remove(to) else { return };
        if let Stage::Working(Work {
            current: Some(Current { digest: Some(digest), .. }), ..
        }) = lane.stage
        {
            self.outputs.push_back(DepositorOutput::Release(digest));
        }
    }

    fn pending(
        &mut self,
        now: Tick,
        to: AgentId,
        letters: Vec<PendingEntry>,
        granted: bool,
        places: Option<[u8; 32]>,
    ) {
        let looking = |lane: &Lane| matches!(lane.stage, Stage::Looking);
        if !self.lanes.get(&to).is_some_and(looking) {
            return;
        }
        let waits = |id: &MessageId| letters.iter().any(|letter| letter.id == *id);
        let of_lane = self.held_out.iter().filter(|(_, held)| held.to == to);
        let gone: Vec<MessageId> = of_lane.map(|(id, _)| *id).filter(|id| !waits(id)).collect();
        // Their end was not heard of.
        for id in gone {
            self.settled(&id);
        }
        if letters.is_empty() {
            self.lanes.remove(&to);
            return;
        }
        let Some(lane) = self.lanes.get_mut(&to) else { return };
        lane.obstacle = (!granted).then_some(Obstacle::NoMailbox);
        if !granted {
            lane.stage = Stage::Waiting(now + LAST_PAUSE);
            return;
        }
        let letters = letters.into();
        let (lacking, unsealed) = (false, false);
        let work = Work { letters, before: None, places, current: None, lacking, unsealed };
        lane.stage = Stage::Working(work);
        self.step(now, to);
    }

    /// Goes on with a lane, until there is something to wait for.
    fn step(&mut self, now: Tick, to: AgentId) {
        loop {
            let Some(Lane { stage: Stage::Working(work), .. }) = self.lanes.get(&to) else {
                return;
            };
            let Some(letter) = work.letters.front().copied() else { return self.finish(now, to) };
            let held = self.holders(&letter.id);
            if letter.bytes > MAX_LETTER_PAYLOAD as u64 {
                // Those behind it must not overtake it.
                self.metrics.not_sealed.inc();
                if let Some(lane) = self.lanes.get_mut(&to) {
                    lane.obstacle = Some(Obstacle::TooLarge(letter.number));
                }
                return self.finish(now, to);
            }
            let lacks = held < self.config.copies;
            let candidates = match lacks {
                true => self.candidates(now, to, &letter.id),
                false => Vec::new(),
            };
            let Some(Lane { stage: Stage::Working(work), .. }) = self.lanes.get_mut(&to) else {
                return;
            };
            work.lacking |= lacks && candidates.len() + held < self.config.copies;
            if !candidates.is_empty() {
                let after = work.before;
                let (id, number) = (letter.id, letter.number);
                let asked = BTreeSet::new();
                let before = after.map(|after| after.id);
                work.current = Some(Current { digest: None, after: before, asked, deadline: now });
                return self.outputs.push_back(DepositorOutput::Seal { to, id, number, after });
            }
            if held == 0 {
                work.lacking = true;
                return self.finish(now, to);
            }
            work.before = Some(After { id: letter.id, expires_at: letter.expires_at });
            work.letters.pop_front();
        }
    }

    /// Waits until there is something new, or for another try. A look that came early since there was
    /// something new is no further failure.
    fn finish(&mut self, now: Tick, to: AgentId) {
        let Some(lane) = self.lanes.get_mut(&to) else { return };
        let (lacking, unsealed, places) = match &lane.stage {
            Stage::Working(work) => (work.lacking, work.unsealed, work.places),
            Stage::Waiting(_) | Stage::Looking => (false, false, None),
        };
        let early = std::mem::take(&mut lane.hurried) && lane.failures > 0;
        let pause = if lacking || unsealed {
            let failures = lane.failures.saturating_sub(u32::from(early));
            if !early {
                if lacking && self.searches.take(now) {
                    let places = places.unwrap_or_else(|| drawn(&mut self.rng));
                    self.outputs.push_back(DepositorOutput::Seek { places });
                } else if lacking {
                    self.metrics.searches_put_off.inc();
                }
                lane.failures = lane.failures.saturating_add(1);
            }
            Lane::pause(failures)
        } else {
            lane.failures = 0;
            LAST_PAUSE
        };
        let again = lane.posted.take();
        lane.hurried = again.is_some();
        lane.stage = Stage::Waiting(again.map_or(now + pause, |at| at.max(now).min(now + pause)));
    }

    fn sealed(&mut self, now: Tick, to: AgentId, id: MessageId, digest: Option<Digest>) {
        let Some(Lane { stage: Stage::Working(work), .. }) = self.lanes.get_mut(&to) else {
            if let Some(digest) = digest {
                self.outputs.push_back(DepositorOutput::Release(digest));
            }
            return;
        };
        let awaited = work.letters.front().is_some_and(|letter| letter.id == id);
        let Some(current) = work.current.as_mut().filter(|now| awaited && now.digest.is_none())
        else {
            if let Some(digest) = digest {
                self.outputs.push_back(DepositorOutput::Release(digest));
            }
            return;
        };
        let Some(digest) = digest else {
            // Settled meanwhile: what comes next does not wait for it.
            work.current = None;
            work.letters.pop_front();
            return self.step(now, to);
        };
        self.metrics.sealed.inc();
        current.digest = Some(digest);
        current.deadline = now + ANSWER_TIMEOUT;
        self.ask_more(now, to);
    }

    /// A message cannot be sealed now: it is tried again, and nothing behind it is left before.
    fn unsealed(&mut self, now: Tick, to: AgentId, id: &MessageId) {
        let Some(Lane { stage: Stage::Working(work), .. }) = self.lanes.get_mut(&to) else {
            return;
        };
        let awaited = work.letters.front().is_some_and(|letter| letter.id == *id);
        if awaited && work.current.as_ref().is_some_and(|current| current.digest.is_none()) {
            work.unsealed = true;
            self.finish(now, to);
        }
    }

    /// Asks as many holders as the current letter lacks, and goes on when nobody is left to wait for.
    fn ask_more(&mut self, now: Tick, to: AgentId) {
        let Some(Lane { stage: Stage::Working(work), .. }) = self.lanes.get(&to) else { return };
        let (Some(letter), Some(current)) = (work.letters.front().copied(), &work.current) else {
            return;
        };
        let Some(digest) = current.digest else { return };
        let held = self.holders(&letter.id);
        let lacks = self.config.copies.saturating_sub(held + current.asked.len());
        let mut chosen = self.candidates(now, to, &letter.id);
        chosen.retain(|peer| !current.asked.contains(peer));
        let holding = self.held_out.get(&letter.id).into_iter().flat_map(|held| held.copies.keys());
        let has_stranger = holding.chain(&current.asked).any(|holder| !self.is_contact(holder));
        let mut chosen = self.order(chosen, work.places, has_stranger);
        chosen.truncate(lacks);
        let Some(Lane { stage: Stage::Working(work), .. }) = self.lanes.get_mut(&to) else {
            return;
        };
        let Some(current) = &mut work.current else { return };
        for peer in chosen {
            current.asked.insert(peer);
            self.outputs.push_back(DepositorOutput::Deposit { peer, digest });
        }
        if !current.asked.is_empty() {
            return;
        }
        work.current = None;
        work.lacking |= held < self.config.copies;
        self.outputs.push_back(DepositorOutput::Release(digest));
        if held == 0 {
            return self.finish(now, to);
        }
        work.before = Some(After { id: letter.id, expires_at: letter.expires_at });
        work.letters.pop_front();
        self.step(now, to);
    }

    /// The lane whose current letter it is.
    fn lane_of(&self, digest: &Digest) -> Option<(AgentId, MessageId)> {
        self.lanes.iter().find_map(|(to, lane)| match &lane.stage {
            Stage::Working(work)
                if work.current.as_ref().is_some_and(|now| now.digest == Some(*digest)) =>
            {
                Some((*to, work.letters.front()?.id))
            }
            _ => None,
        })
    }

    fn deposited(
        &mut self,
        now: Tick,
        (peer, digest): (MachineId, Digest),
        outcome: Outcome,
        (pickup, until): (Pickup, WallTime),
    ) {
        let Some((to, id)) = self.lane_of(&digest) else { return };
        let wall = self.wall_at(now);
        let Some(Lane { stage: Stage::Working(work), .. }) = self.lanes.get_mut(&to) else {
            return;
        };
        let expires_at = work.letters.front().map_or(wall, |letter| letter.expires_at);
        // Who was not asked has nothing to answer.
        let Some(current) = work.current.as_mut().filter(|current| current.asked.contains(&peer))
        else {
            return;
        };
        current.asked.remove(&peer);
        let after = current.after;
        let until = until.min(expires_at).min(wall + self.config.lifetime);
        if outcome == Outcome::Kept && until > wall {
            self.metrics.copies_kept.inc();
            let deposit = Deposit { id, to, holder: peer, digest, pickup, until };
            self.note(deposit).after = after;
            self.outputs.push_back(DepositorOutput::Note(deposit));
        } else {
            self.metrics.copies_refused.inc();
            match outcome {
                Outcome::TagFull => self.full_tag(now, to, peer),
                Outcome::ShareUsed => self.refused(now + SHARE_USED_FOR, now, peer),
                _ => self.refused(now + REFUSED_FOR, now, peer),
            }
        }
        self.ask_more(now, to);
    }

    fn wall_at(&self, now: Tick) -> WallTime {
        self.wall.1 + now.since(self.wall.0)
    }

    fn up(&mut self, now: Tick, peer: MachineId, standing: Standing) {
        self.peers.insert(peer, standing);
        let refuses = self.refused.get(&peer).is_some_and(|until| *until > now);
        if standing == Standing::Unwanted || refuses {
            return;
        }
        for lane in self.lanes.values_mut().filter(|lane| lane.failures > 0) {
            lane.hasten(now);
        }
    }

    fn down(&mut self, now: Tick, peer: MachineId) {
        self.peers.remove(&peer);
        let waits = |lane: &Lane| match &lane.stage {
            Stage::Working(work) => {
                work.current.as_ref().is_some_and(|current| current.asked.contains(&peer))
            }
            _ => false,
        };
        let lanes: Vec<AgentId> =
            self.lanes.iter().filter(|(_, lane)| waits(lane)).map(|(to, _)| *to).collect();
        for to in lanes {
            self.give_up(now, to, Some(peer));
        }
    }

    /// Waits no longer for a holder, or for any.
    fn give_up(&mut self, now: Tick, to: AgentId, peer: Option<MachineId>) {
        let Some(Lane { stage: Stage::Working(work), .. }) = self.lanes.get_mut(&to) else {
            return;
        };
        let Some(current) = &mut work.current else { return };
        let gone: Vec<MachineId> =
            current.asked.extract_if(.., |asked| peer.is_none_or(|peer| peer == *asked)).collect();
        current.deadline = now + ANSWER_TIMEOUT;
        self.metrics.copies_unanswered.add(gone.len() as u64);
        // One that went may come back as another.
        for silent in gone.into_iter().filter(|_| peer.is_none()) {
            self.refused(now + REFUSED_FOR, now, silent);
        }
        self.ask_more(now, to);
    }

    fn working(&self) -> usize {
        self.lanes.values().filter(|lane| !matches!(lane.stage, Stage::Waiting(_))).count()
    }
}

impl Machine for Depositor {
    type Input = DepositorInput;
    type Output = DepositorOutput;

    fn handle(&mut self, now: Tick, input: DepositorInput) {
        match input {
            DepositorInput::Wall(wall) => self.wall = (now, wall),
            DepositorInput::Restore(deposit) => {
                self.note(deposit);
                // Whether it still waits is looked at soon.
                self.unreachable(now, deposit.to);
            }
            DepositorInput::Unreachable(to) => self.unreachable(now, to),
            DepositorInput::Reachable(to) => self.reachable(&to),
            DepositorInput::Posted(to) => {
                self.hurry(to, now + self.config.deposit_after.max(SOON));
            }
            DepositorInput::Pending { to, letters, granted, places } => {
                self.pending(now, to, letters, granted, places);
            }
            DepositorInput::Sealed { to, id, digest } => self.sealed(now, to, id, digest),
            DepositorInput::Unsealed { to, id } => self.unsealed(now, to, &id),
            DepositorInput::Up { peer, standing } => self.up(now, peer, standing),
            DepositorInput::Down(peer) => self.down(now, peer),
            DepositorInput::Deposited { peer, digest, outcome, pickup, until } => {
                self.deposited(now, (peer, digest), outcome, (pickup, until));
            }
            DepositorInput::Settled(id) => self.settled(&id),
            DepositorInput::Cancelled(id) => {
                self.settled(&id);
                self.skipped(now, &id);
            }
        }
    }

    fn handle_timeout(&mut self, now: Tick) {
        let wall = self.wall_at(now);
        while let Some((until, id, holder)) = self.lapses.first().copied()
            && until <= wall
        {
            self.lapses.remove(&(until, id, holder));
            self.lapsed(now, id, holder);
        }
        let (mut due, mut late) = (Vec::new(), Vec::new());
        for (to, lane) in &self.lanes {
            match &lane.stage {
                Stage::Waiting(at) if *at <= now => due.push((*at, *to)),
                Stage::Working(Work { current: Some(current), .. })
                    if current.digest.is_some() && current.deadline <= now =>
                {
                    late.push(*to);
                }
                _ => {}
            }
        }
        for to in late {
            self.give_up(now, to, None);
        }
        due.sort_unstable();
        for (_, to) in due {
            let busy = self.working() >= MAX_WORKING;
            let Some(lane) = self.lanes.get_mut(&to) else { continue };
            if busy {
                lane.stage = Stage::Waiting(now + SOON);
            } else {
                (lane.stage, lane.looked) = (Stage::Looking, Some(now));
                self.outputs.push_back(DepositorOutput::Look(to));
            }
        }
    }

    fn poll_output(&mut self) -> Option<DepositorOutput> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Tick> {
        let at = |lane: &Lane| match &lane.stage {
            Stage::Waiting(at) => Some(*at),
            Stage::Working(Work { current: Some(current), .. }) => {
                current.digest.is_some().then_some(current.deadline)
            }
            _ => None,
        };
        let lapse = self.lapses.first().map(|(until, ..)| {
            let wait = until.as_millis().saturating_sub(self.wall.1.as_millis());
            self.wall.0 + Duration::from_millis(wait)
        });
        self.lanes.values().filter_map(at).chain(lapse).min()
    }
}
