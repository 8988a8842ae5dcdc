//! Leaving letters with holders, as a pure machine: for whom, when, and with whom.
//!
//! Letters of one recipient are left in their order, each with a few holders: one is begun when the one
//! before it has at least one. Contacts come first, then the machines that suit the recipient's mailbox
//! best, so that sender and recipient think of the same ones without having talked about it.

mod event;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use x0x_core::{AgentId, Machine, MachineId, Tick};

pub use self::event::{DepositorInput, DepositorOutput, PendingEntry};
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
/// How long a holder that refused is not asked.
const REFUSED_FOR: Duration = Duration::from_secs(600);
/// The first pause after letters found too few holders; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LAST_PAUSE: Duration = Duration::from_secs(600);
/// How soon letters are looked at when there is something new.
const SOON: Duration = Duration::from_millis(500);

/// How well a machine suits a mailbox as a place for its letters: the higher the better.
#[must_use]
pub fn place_rank(places: &[u8; 32], machine: &MachineId) -> [u8; 32] {
    *blake3::keyed_hash(places, machine.as_bytes()).as_bytes()
}

#[derive(Debug)]
struct Known {
    standing: Standing,
    /// Until when it is not asked.
    refused_until: Option<Tick>,
}

/// A message that has copies with holders.
#[derive(Debug)]
struct HeldOut {
    to: AgentId,
    /// What it says goes before it, if that is known.
    after: Option<MessageId>,
    copies: BTreeMap<MachineId, Digest>,
}

/// The letter that is being left.
#[derive(Debug)]
struct Current {
    digest: Option<Digest>,
    after: Option<MessageId>,
    asked: BTreeSet<MachineId>,
    deadline: Tick,
}

#[derive(Debug)]
struct Work {
    letters: VecDeque<PendingEntry>,
    before: Option<After>,
    places: [u8; 32],
    current: Option<Current>,
    /// Some letter has fewer holders than it should.
    lacking: bool,
    /// Some letter could not be sealed.
    unsealed: bool,
}

#[derive(Debug)]
enum Stage {
    Waiting(Tick),
    Looking,
    Working(Work),
}

#[derive(Debug)]
struct Lane {
    stage: Stage,
    failures: u32,
    /// When to look again at the latest, since something was posted while letters were being left.
    posted: Option<Tick>,
    /// It looks sooner than its failures would have it.
    hurried: bool,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Depositor {
    config: LettersConfig,
    metrics: Arc<LettersMetrics>,
    lanes: BTreeMap<AgentId, Lane>,
    peers: BTreeMap<MachineId, Known>,
    /// Holders that take no more for some recipient, and until when they are not asked: see
    /// [`MAX_FULL_TAGS`].
    full_tags: BTreeMap<(AgentId, MachineId), Tick>,
    /// As large as the outbox.
    held_out: BTreeMap<MessageId, HeldOut>,
    outputs: VecDeque<DepositorOutput>,
}

impl Depositor {
    /// Has left nothing yet.
    #[must_use]
    pub const fn new(config: LettersConfig, metrics: Arc<LettersMetrics>) -> Self {
        Self {
            config,
            metrics,
            lanes: BTreeMap::new(),
            peers: BTreeMap::new(),
            full_tags: BTreeMap::new(),
            held_out: BTreeMap::new(),
            outputs: VecDeque::new(),
        }
    }

    /// How many holders have a copy of a message.
    #[must_use]
    pub fn holders(&self, id: &MessageId) -> usize {
        self.held_out.get(id).map_or(0, |held| held.copies.len())
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
        let fresh = Lane { stage, failures: 0, posted: None, hurried: false };
        self.lanes.entry(to).or_insert(fresh);
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
        let Some(places) = places else {
            lane.stage = Stage::Waiting(now + LAST_PAUSE);
            return;
        };
        let letters = letters.into();
        let (lacking, unsealed) = (false, false);
        let work = Work { letters, before: None, places, current: None, lacking, unsealed };
        lane.stage = Stage::Working(work);
        self.step(now, to);
    }

    /// Who may be asked to hold a message, the best first.
    fn candidates(
        &self,
        now: Tick,
        to: AgentId,
        id: &MessageId,
        places: &[u8; 32],
    ) -> Vec<MachineId> {
        let holders = self.held_out.get(id);
        let willing = |peer: &MachineId, known: &Known| {
            known.standing != Standing::Unwanted
                && known.refused_until.is_none_or(|until| until <= now)
                && self.full_tags.get(&(to, *peer)).is_none_or(|until| *until <= now)
                && holders.is_none_or(|held| !held.copies.contains_key(peer))
        };
        let mut found: Vec<_> = self
            .peers
            .iter()
            .filter(|(peer, known)| willing(peer, known))
            .map(|(peer, known)| {
                let rank = place_rank(places, peer);
                (known.standing != Standing::Contact, Reverse(rank), *peer)
            })
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(.., peer)| peer).collect()
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
                return self.finish(now, to);
            }
            let lacks = held < self.config.copies;
            let candidates = match lacks {
                true => self.candidates(now, to, &letter.id, &work.places),
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
        let (lacking, unsealed) = match &lane.stage {
            Stage::Working(work) => (work.lacking, work.unsealed),
            Stage::Waiting(_) | Stage::Looking => (false, false),
        };
        let early = std::mem::take(&mut lane.hurried) && lane.failures > 0;
        let pause = if lacking || unsealed {
            let failures = lane.failures.saturating_sub(u32::from(early));
            if !early {
                if lacking {
                    self.outputs.push_back(DepositorOutput::Seek(to));
                }
                lane.failures = lane.failures.saturating_add(1);
            }
            FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LAST_PAUSE)
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
        let open = self.holders(&letter.id) + current.asked.len();
        let lacks = self.config.copies.saturating_sub(open);
        let mut chosen = self.candidates(now, to, &letter.id, &work.places);
        chosen.retain(|peer| !current.asked.contains(peer));
        chosen.truncate(lacks);
        let held = self.holders(&letter.id);
        let Some(Lane { stage: Stage::Working(work), .. }) = self.lanes.get_mut(&to) else {
            return;
        };
        let Some(current) = &mut work.current else { return };
        for peer in chosen {
            current.asked.insert(peer);
            self.outputs.push_back(DepositorOutput::Deposit { peer, to, digest });
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

    fn deposited(&mut self, now: Tick, peer: MachineId, digest: Digest, outcome: Outcome) {
        let Some((to, id)) = self.lane_of(&digest) else { return };
        let Some(Lane { stage: Stage::Working(work), .. }) = self.lanes.get_mut(&to) else {
            return;
        };
        // Who was not asked has nothing to answer.
        let Some(current) = work.current.as_mut().filter(|current| current.asked.contains(&peer))
        else {
            return;
        };
        current.asked.remove(&peer);
        let after = current.after;
        if outcome == Outcome::Kept {
            self.metrics.copies_kept.inc();
            self.note(id, to, peer, digest).after = after;
            self.outputs.push_back(DepositorOutput::Note { id, to, holder: peer, digest });
        } else {
            self.metrics.copies_refused.inc();
            match outcome {
                // It may be this mailbox alone that has its share.
                Outcome::TooMuch => self.full_tag(now, to, peer),
                _ => self.refused(now, peer),
            }
        }
        self.ask_more(now, to);
    }

    fn note(
        &mut self,
        id: MessageId,
        to: AgentId,
        holder: MachineId,
        digest: Digest,
    ) -> &mut HeldOut {
        let fresh = HeldOut { to, after: None, copies: BTreeMap::new() };
        let held = self.held_out.entry(id).or_insert(fresh);
        held.copies.insert(holder, digest);
        held
    }

    fn refused(&mut self, now: Tick, peer: MachineId) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.refused_until = Some(now + REFUSED_FOR);
        }
    }

    /// A holder takes no more for a recipient.
    fn full_tag(&mut self, now: Tick, to: AgentId, peer: MachineId) {
        self.full_tags.retain(|_, until| *until > now);
        if self.full_tags.len() >= MAX_FULL_TAGS
            && let Some(first) = self.full_tags.iter().min_by_key(|(_, until)| **until)
        {
            let first = *first.0;
            self.full_tags.remove(&first);
        }
        self.full_tags.insert((to, peer), now + REFUSED_FOR);
    }

    fn up(&mut self, now: Tick, peer: MachineId, standing: Standing) {
        self.peers.insert(peer, Known { standing, refused_until: None });
        if standing == Standing::Unwanted {
            return;
        }
        for lane in self.lanes.values_mut().filter(|lane| lane.failures > 0) {
            if let Stage::Waiting(due) = &mut lane.stage {
                *due = (*due).min(now + SOON);
            }
        }
    }

    fn down(&mut self, now: Tick, peer: MachineId) {
        self.peers.remove(&peer);
        self.full_tags.retain(|(_, holder), _| *holder != peer);
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
        for peer in gone {
            self.refused(now, peer);
        }
        self.ask_more(now, to);
    }

    /// A message will never come: the letter that names it is left anew, without that.
    fn skipped(&mut self, now: Tick, id: &MessageId) {
        let behind = self.held_out.iter().find(|(_, held)| held.after == Some(*id));
        let Some((behind, to)) = behind.map(|(behind, held)| (*behind, held.to)) else { return };
        self.settled(&behind);
        self.hurry(to, now + SOON);
    }

    /// Copies of a message are of no use any more.
    fn settled(&mut self, id: &MessageId) {
        let Some(HeldOut { to, copies, .. }) = self.held_out.remove(id) else { return };
        self.outputs.push_back(DepositorOutput::Forget(*id));
        for (peer, digest) in copies {
            if self.peers.contains_key(&peer) {
                self.outputs.push_back(DepositorOutput::Withdraw { peer, to, digest });
            }
        }
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
            DepositorInput::Restore { id, to, holder, digest } => {
                self.note(id, to, holder, digest);
                // Whether it still waits is looked at soon.
                self.unreachable(now, to);
            }
            DepositorInput::Unreachable(to) => self.unreachable(now, to),
            DepositorInput::Reachable(to) => self.reachable(&to),
            DepositorInput::Posted(to) => {
                self.hurry(to, now + self.config.deposit_after.max(SOON));
            }
            DepositorInput::Pending { to, letters, places } => {
                self.pending(now, to, letters, places);
            }
            DepositorInput::Sealed { to, id, digest } => self.sealed(now, to, id, digest),
            DepositorInput::Unsealed { to, id } => self.unsealed(now, to, &id),
            DepositorInput::Up { peer, standing } => self.up(now, peer, standing),
            DepositorInput::Down(peer) => self.down(now, peer),
            DepositorInput::Deposited { peer, digest, outcome } => {
                self.deposited(now, peer, digest, outcome);
            }
            DepositorInput::Settled(id) => self.settled(&id),
            DepositorInput::Cancelled(id) => {
                self.settled(&id);
                self.skipped(now, &id);
            }
        }
    }

    fn handle_timeout(&mut self, now: Tick) {
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
                lane.stage = Stage::Looking;
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
        self.lanes.values().filter_map(at).min()
    }
}
