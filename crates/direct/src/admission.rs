//! Who may leave mail, and how much of it may lie unread.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use x0x_core::{AgentId, MachineId, Tick};

mod rates;

pub use self::rates::MAX_RATED_SENDERS;
use self::rates::Rates;
use crate::wire::{Kind, MAX_PAYLOAD, MAX_READ_IDS, Verified};

/// What is to be done with a message whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Admit {
    /// It is taken.
    Take,
    /// Its sender is not wanted: it is acknowledged like any other, and dropped.
    Ignore,
    /// There is no room for it now.
    Refuse,
}

/// Asked once for each message, before anything is stored. Answers at once.
pub trait Admission: Send + Sync + fmt::Debug {
    /// What is to be done with a message of a machine whose turn it is now.
    fn admit(&self, now: Tick, message: &Verified, machine: MachineId) -> Admit;

    /// Whether a message may still go to an agent on a machine, now that it is its turn.
    fn may_send(&self, to: &AgentId, machine: &MachineId) -> bool;
}

/// Takes everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Open;

impl Admission for Open {
    fn admit(&self, _: Tick, _: &Verified, _: MachineId) -> Admit {
        Admit::Take
    }

    fn may_send(&self, _: &AgentId, _: &MachineId) -> bool {
        true
    }
}

/// How a sender stands with this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Standing {
    /// An agent of this machine, or a contact.
    Contact,
    /// Nobody that is known.
    Stranger,
    /// Not to be heard.
    Unwanted,
}

/// Says how a sender stands: the trust layer, behind this crate's own words.
pub trait Standings: Send + Sync + fmt::Debug {
    /// How an agent on a machine stands now.
    fn standing(&self, agent: &AgentId, machine: &MachineId) -> Standing;

    /// Whether anything may be sent to an agent on a machine now.
    fn may_send(&self, agent: &AgentId, machine: &MachineId) -> bool;
}

/// How much mail may lie unread. A sender past its share is refused as busy and tries again later;
/// nothing of what lies there makes room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quotas {
    /// Of one contact.
    pub contact: Share,
    /// Of one stranger.
    pub stranger: Share,
    /// Of all strangers together, since an id costs nothing. A quarter of it is for the first small message of
    /// each, and of the rest a stranger may have a part of what the others left.
    pub strangers: Share,
    /// Of everybody together.
    pub all: Share,
}

/// Messages and payload bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "messages and bytes are all there is to count")]
pub struct Share {
    /// Messages.
    pub messages: usize,
    /// Payload bytes.
    pub bytes: u64,
}

impl Default for Quotas {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            contact: Share { messages: 16 * 1024, bytes: 128 * MIB },
            // A window, and one message of the largest size.
            stranger: Share { messages: 1024, bytes: 32 * MIB },
            strangers: Share { messages: 4096, bytes: 64 * MIB },
            all: Share { messages: 32 * 1024, bytes: 256 * MIB },
        }
    }
}

impl Share {
    const fn fits(self, held: Self, bytes: u64) -> bool {
        held.messages < self.messages
            && (held.bytes + bytes <= self.bytes || (held.messages == 0 && self.bytes > 0))
    }

    /// Whether one of those who share this may add a message to its own, with so much held by all of them. A
    /// quarter is for the first message of a sender, if it is small; of the rest a sender may have half as many
    /// messages as are left, and as many bytes. So nobody has to give anything back for a newcomer.
    const fn leaves_room(self, all: Self, own: Self, bytes: u64) -> bool {
        let is_first = own.messages == 0 && bytes * (self.messages as u64) <= self.bytes;
        let messages = self.messages.saturating_sub(all.messages + self.messages / 4);
        let taken = all.bytes.saturating_add(self.bytes / 4);
        is_first
            || own.messages * 2 < messages
                && (all.messages == 0 || own.bytes + bytes <= self.bytes.saturating_sub(taken))
    }

    const fn add(&mut self, bytes: u64) {
        self.messages += 1;
        self.bytes += bytes;
    }

    const fn remove(&mut self, bytes: u64) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// Mail that nobody has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores make them")]
pub struct Unread {
    /// Its number.
    pub number: u64,
    /// Its sender.
    pub from: AgentId,
    /// The machine it came from.
    pub machine: MachineId,
    /// Payload bytes.
    pub bytes: u64,
}

/// What counts against a sender.
#[derive(Debug, Clone, Copy)]
struct Charge {
    from: AgentId,
    bytes: u64,
    stranger: bool,
}

/// What lies unread, by sender. As large as the quotas allow.
#[derive(Debug)]
struct Held {
    senders: BTreeMap<AgentId, Share>,
    strangers: Share,
    all: Share,
    /// Admitted and not settled yet, in order.
    admitted: VecDeque<Charge>,
    /// What is stored, by number.
    unread: BTreeMap<u64, Charge>,
    /// The number that was settled last.
    last: u64,
    /// Numbers beyond it that were handed to somebody before they were settled; at most as many as are
    /// admitted.
    early: BTreeSet<u64>,
    seen: u64,
    notes: Rates,
    mail: Rates,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            senders: BTreeMap::new(),
            strangers: Share::default(),
            all: Share::default(),
            admitted: VecDeque::new(),
            unread: BTreeMap::new(),
            last: 0,
            early: BTreeSet::new(),
            seen: 0,
            notes: Rates::notes(),
            mail: Rates::mail(),
        }
    }
}

impl Held {
    /// Moves the mark up to the first message that nobody was handed. Returns whether it moved.
    fn advance(&mut self) -> bool {
        let through = match self.unread.first_key_value() {
            Some((first, _)) => first - 1,
            None => self.last,
        };
        let before = self.seen;
        self.seen = before.max(through);
        self.seen > before
    }

    fn charge(&mut self, charge: Charge) {
        self.senders.entry(charge.from).or_default().add(charge.bytes);
        self.all.add(charge.bytes);
        if charge.stranger {
            self.strangers.add(charge.bytes);
        }
    }

    fn release(&mut self, charge: Charge) {
        if let Some(share) = self.senders.get_mut(&charge.from) {
            share.remove(charge.bytes);
            if share.messages == 0 {
                self.senders.remove(&charge.from);
            }
        }
        self.all.remove(charge.bytes);
        if charge.stranger {
            self.strangers.remove(charge.bytes);
        }
    }
}

/// Admits by standing and by what lies unread. Clones share it.
#[derive(Debug, Clone)]
pub struct Admittance {
    standings: Arc<dyn Standings>,
    quotas: Quotas,
    held: Arc<Mutex<Held>>,
}

impl Admittance {
    /// Nothing lies unread yet.
    #[must_use]
    pub fn new(standings: Arc<dyn Standings>, quotas: Quotas) -> Self {
        Self { standings, quotas, held: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what an earlier run left unread, in order, and the number up to which all was seen.
    /// It counts against its senders as they stand now.
    pub fn restore(&self, seen: u64, unread: impl IntoIterator<Item = Unread>) {
        let mut held = self.lock();
        (held.seen, held.last) = (seen, seen);
        for Unread { number, from, machine, bytes } in unread {
            let charge = Charge { from, bytes, stranger: self.is_stranger(&from, &machine) };
            held.charge(charge);
            held.last = held.last.max(number);
            held.unread.insert(number, charge);
        }
    }

    /// Whether an agent on a machine is nobody that is known now.
    #[must_use]
    pub fn is_stranger(&self, agent: &AgentId, machine: &MachineId) -> bool {
        self.standings.standing(agent, machine) == Standing::Stranger
    }

    /// The oldest admitted mail that is not settled is stored under this number, or not at all.
    pub fn settle(&self, number: Option<u64>) {
        let mut held = self.lock();
        let Some(charge) = held.admitted.pop_front() else { return };
        match number {
            Some(number) => {
                held.last = held.last.max(number);
                if number <= held.seen || held.early.remove(&number) {
                    held.release(charge);
                    held.advance();
                } else {
                    held.unread.insert(number, charge);
                }
            }
            None => held.release(charge),
        }
        if held.admitted.is_empty() {
            held.early.clear();
        }
    }

    /// Somebody was handed all that is kept beyond the first of these numbers, up to the second one. Returns
    /// whether the [mark](Self::seen_through) moved: never past a message that nobody was handed.
    pub fn seen(&self, after: u64, through: u64) -> bool {
        let mut held = self.lock();
        if through <= after {
            return false;
        }
        let read: Vec<u64> =
            held.unread.range(after + 1..=through).map(|(number, _)| *number).collect();
        for number in read {
            if let Some(charge) = held.unread.remove(&number) {
                held.release(charge);
            }
        }
        match held.admitted.len() {
            0 => held.last = held.last.max(through),
            unsettled => {
                let beyond = held.last.max(after) + 1;
                held.early.extend((beyond..=through).take(unsettled));
            }
        }
        held.advance()
    }

    /// The number up to which everything was handed to somebody.
    #[must_use]
    pub fn seen_through(&self) -> u64 {
        self.lock().seen
    }

    /// What lies unread.
    #[must_use]
    pub fn unread(&self) -> Share {
        self.lock().all
    }
}

impl Admission for Admittance {
    fn admit(&self, now: Tick, message: &Verified, machine: MachineId) -> Admit {
        let from = message.from();
        let standing = self.standings.standing(&from, &machine);
        let (stranger, unwanted) = (standing == Standing::Stranger, standing == Standing::Unwanted);
        let kind = message.terms().kind;
        if kind == Kind::Session {
            // Nothing of it stays.
            return if unwanted { Admit::Ignore } else { Admit::Take };
        }
        let ids = (message.payload().len() / 16).clamp(1, MAX_READ_IDS);
        let ids = u32::try_from(ids).unwrap_or(u32::MAX);
        let mut held = self.lock();
        if unwanted {
            // It is refused where a stranger is whose mail somebody reads at once: it could tell by that.
            let paced = match kind {
                Kind::Read => held.notes.pretend(now, from, ids),
                _ => held.mail.pretend(now, from, Rates::count(message.payload().len())),
            };
            return if paced { Admit::Ignore } else { Admit::Refuse };
        }
        if kind == Kind::Read {
            let admitted = held.notes.admit(now, from, stranger, ids);
            return if admitted { Admit::Take } else { Admit::Refuse };
        }
        let bytes = message.payload().len().min(MAX_PAYLOAD) as u64;
        let share = held.senders.get(&from).copied().unwrap_or_default();
        let quotas = &self.quotas;
        let of_one = if stranger { quotas.stranger } else { quotas.contact };
        let fits = of_one.fits(share, bytes)
            && (!stranger
                || quotas.strangers.fits(held.strangers, bytes)
                    && quotas.strangers.leaves_room(held.strangers, share, bytes))
            && quotas.all.fits(held.all, bytes);
        let count = Rates::count(message.payload().len());
        if !fits || !held.mail.admit(now, from, stranger, count) {
            return Admit::Refuse;
        }
        let charge = Charge { from, bytes, stranger };
        held.charge(charge);
        held.admitted.push_back(charge);
        Admit::Take
    }

    fn may_send(&self, to: &AgentId, machine: &MachineId) -> bool {
        self.standings.may_send(to, machine)
    }
}

#[cfg(test)]
mod tests;
