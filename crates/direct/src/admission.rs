//! Who may leave mail, and how much of it may lie unread.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use x0x_core::{AgentId, MachineId};

use crate::wire::{Kind, MAX_PAYLOAD, Verified};

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
    /// What is to be done with a message of a machine.
    fn admit(&self, message: &Verified, machine: MachineId) -> Admit;
}

/// Takes everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Open;

impl Admission for Open {
    fn admit(&self, _: &Verified, _: MachineId) -> Admit {
        Admit::Take
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
    /// Of all strangers together, since an id costs nothing.
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

    const fn add(&mut self, bytes: u64) {
        self.messages += 1;
        self.bytes += bytes;
    }

    const fn remove(&mut self, bytes: u64) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// What counts against a sender.
#[derive(Debug, Clone, Copy)]
struct Charge {
    from: AgentId,
    bytes: u64,
    stranger: bool,
}

/// What lies unread, by sender. As large as the quotas allow.
#[derive(Debug, Default)]
struct Held {
    senders: BTreeMap<AgentId, Share>,
    strangers: Share,
    all: Share,
    /// Admitted and not settled yet, in order.
    admitted: VecDeque<Charge>,
    /// What is stored, by number.
    unread: VecDeque<(u64, Charge)>,
    seen: u64,
}

impl Held {
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

    /// Takes over what an earlier run left unread: number, sender and payload bytes of each, in
    /// order, and the number up to which all was seen.
    pub fn restore(&self, seen: u64, unread: impl IntoIterator<Item = (u64, AgentId, u64)>) {
        let mut held = self.lock();
        held.seen = seen;
        for (number, from, bytes) in unread {
            // Whoever it was then counts as a contact; it was admitted already.
            let charge = Charge { from, bytes, stranger: false };
            held.charge(charge);
            held.unread.push_back((number, charge));
        }
    }

    /// The oldest admitted mail that is not settled is stored under this number, or not at all.
    pub fn settle(&self, number: Option<u64>) {
        let mut held = self.lock();
        let Some(charge) = held.admitted.pop_front() else { return };
        match number {
            Some(number) if number > held.seen => held.unread.push_back((number, charge)),
            _ => held.release(charge),
        }
    }

    /// Everything up to this number was handed to somebody. Returns whether that is news.
    pub fn seen(&self, number: u64) -> bool {
        let mut held = self.lock();
        if number <= held.seen {
            return false;
        }
        held.seen = number;
        while let Some((first, charge)) = held.unread.front().copied()
            && first <= number
        {
            held.unread.pop_front();
            held.release(charge);
        }
        true
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
    fn admit(&self, message: &Verified, machine: MachineId) -> Admit {
        let from = message.from();
        let standing = self.standings.standing(&from, &machine);
        if standing == Standing::Unwanted {
            return Admit::Ignore;
        }
        if message.terms().kind != Kind::Mail {
            // Nothing of it stays.
            return Admit::Take;
        }
        let bytes = message.payload().len().min(MAX_PAYLOAD) as u64;
        let stranger = standing == Standing::Stranger;
        let mut held = self.lock();
        let share = held.senders.get(&from).copied().unwrap_or_default();
        let quotas = &self.quotas;
        let of_one = if stranger { quotas.stranger } else { quotas.contact };
        let fits = of_one.fits(share, bytes)
            && (!stranger || quotas.strangers.fits(held.strangers, bytes))
            && quotas.all.fits(held.all, bytes);
        if !fits {
            return Admit::Refuse;
        }
        let charge = Charge { from, bytes, stranger };
        held.charge(charge);
        held.admitted.push_back(charge);
        Admit::Take
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wire::{MessageIn, Terms};

    /// Agent 0 is unwanted, those below 10 are contacts.
    #[derive(Debug)]
    struct ById;

    impl Standings for ById {
        fn standing(&self, agent: &AgentId, _: &MachineId) -> Standing {
            match agent.as_bytes()[0] {
                0 => Standing::Unwanted,
                1..10 => Standing::Contact,
                _ => Standing::Stranger,
            }
        }
    }

    fn mail(from: u8, len: usize, kind: Kind) -> Verified {
        let from = AgentId::new([from; 32]);
        let payload = Bytes::from(vec![0; len]);
        let terms = Terms { kind, ..Terms::default() };
        let message = MessageIn { epoch: 1, seq: 1, id: [0; 16], from, to: from, payload, terms };
        message.verify(&[from], &[from]).expect("it is proven")
    }

    fn admittance() -> Admittance {
        let quotas = Quotas {
            contact: Share { messages: 3, bytes: 100 },
            stranger: Share { messages: 2, bytes: 50 },
            strangers: Share { messages: 3, bytes: 80 },
            all: Share { messages: 5, bytes: 1000 },
        };
        Admittance::new(Arc::new(ById), quotas)
    }

    fn admit(admittance: &Admittance, from: u8, len: usize) -> Admit {
        admittance.admit(&mail(from, len, Kind::Mail), MachineId::new([1; 32]))
    }

    #[test]
    fn shares_bound_each_sender_and_strangers_together() {
        let held = admittance();
        assert_eq!(admit(&held, 0, 1), Admit::Ignore);
        for _ in 0..2 {
            assert_eq!(admit(&held, 20, 10), Admit::Take);
        }
        assert_eq!(admit(&held, 20, 10), Admit::Refuse, "its share is full");
        assert_eq!(admit(&held, 21, 200), Admit::Refuse, "bytes of all strangers");
        assert_eq!(admit(&held, 21, 10), Admit::Take);
        assert_eq!(admit(&held, 22, 1), Admit::Refuse, "strangers together");
        assert_eq!(
            admit(&held, 1, 500),
            Admit::Take,
            "one large message of a contact passes alone"
        );
        assert_eq!(admit(&held, 1, 1), Admit::Refuse);
        let session = mail(22, 1, Kind::Session);
        assert_eq!(held.admit(&session, MachineId::new([1; 32])), Admit::Take, "it is not kept");
    }

    #[test]
    fn what_is_seen_or_not_stored_makes_room() {
        let held = admittance();
        for _ in 0..3 {
            assert_eq!(admit(&held, 1, 10), Admit::Take);
        }
        held.settle(None);
        assert_eq!(held.unread(), Share { messages: 2, bytes: 20 });
        held.settle(Some(1));
        held.settle(Some(2));
        assert!(held.seen(1) && !held.seen(1));
        assert_eq!(held.unread().messages, 1);
        assert!(held.seen(9));
        assert_eq!(held.unread(), Share::default());
        let after = admittance();
        after.restore(4, [(5, AgentId::new([20; 32]), 10)]);
        assert_eq!((after.seen_through(), after.unread().messages), (4, 1));
        after.seen(5);
        assert_eq!(after.unread(), Share::default());
    }
}
