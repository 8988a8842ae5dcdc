//! How fast senders may cost this machine a write each: by leaving mail, and by saying what they have read.

use std::{collections::BTreeMap, time::Duration};

use x0x_core::{AgentId, Tick};

/// Senders whose rates are counted; those who used nothing lately are forgotten first, and more are
/// refused until some are.
pub const MAX_RATED_SENDERS: usize = 4096;

/// Bytes of a stranger's message that count as one.
const COUNTED_BYTES: usize = 32 * 1024;

/// A rate: one each so often, and so many at once.
#[derive(Debug, Clone, Copy)]
struct Rate {
    each: Duration,
    burst: u32,
}

/// What senders may use.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Of one contact.
    contact: Rate,
    /// Of one stranger.
    stranger: Rate,
    /// Of all strangers together, since an agent's id costs nothing.
    strangers: Rate,
    /// How much of that is for strangers who used nothing lately, one each.
    first: u32,
}

/// Ids in read notes: 1024 each second of a contact, 64 of a stranger, 512 of all strangers.
const NOTES: Limits = Limits {
    contact: Rate { each: Duration::from_micros(976), burst: 4096 },
    stranger: Rate { each: Duration::from_micros(15_625), burst: 512 },
    strangers: Rate { each: Duration::from_micros(1953), burst: 2048 },
    first: 0,
};

/// Mail of strangers, which is asked of contacts no less but never refused to them: as much at once as may lie
/// unread, then 16 messages each second of one and 64 of all, however fast somebody reads here.
const MAIL: Limits = Limits {
    contact: Rate { each: Duration::ZERO, burst: 0 },
    stranger: Rate { each: Duration::from_micros(62_500), burst: 1024 },
    strangers: Rate { each: Duration::from_micros(15_625), burst: 4096 },
    first: 1024,
};

impl Rate {
    /// Takes so many from what is whole again at a time. Returns when it is then; `None` when there
    /// are not so many left.
    fn take(self, whole_at: Tick, now: Tick, count: u32) -> Option<Tick> {
        let after = whole_at.max(now) + self.each * count;
        (after <= now + self.each * self.burst).then_some(after)
    }
}

/// What is left to each sender, by when it is whole again.
#[derive(Debug)]
pub(super) struct Rates {
    limits: Limits,
    senders: BTreeMap<AgentId, Tick>,
    strangers: Tick,
}

impl Rates {
    const fn new(limits: Limits) -> Self {
        Self { limits, senders: BTreeMap::new(), strangers: Tick::ZERO }
    }

    /// Of read notes.
    pub(super) const fn notes() -> Self {
        Self::new(NOTES)
    }

    /// Of mail.
    pub(super) const fn mail() -> Self {
        Self::new(MAIL)
    }

    /// For how many messages one of so many payload bytes counts.
    pub(super) fn count(bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(COUNTED_BYTES)).unwrap_or(u32::MAX).max(1)
    }

    /// Whether a sender may use so much now.
    pub(super) fn admit(&mut self, now: Tick, from: AgentId, stranger: bool, count: u32) -> bool {
        let rate = if stranger { self.limits.stranger } else { self.limits.contact };
        if rate.each.is_zero() {
            return true;
        }
        let Some((after, together)) = self.look(now, from, (rate, stranger), count) else {
            return false;
        };
        self.strangers = together;
        self.senders.insert(from, after);
        true
    }

    /// Whether a sender might use so much now if it were a stranger: who is not wanted must not tell by its rate,
    /// and takes nothing from strangers.
    pub(super) fn pretend(&mut self, now: Tick, from: AgentId, count: u32) -> bool {
        let Some((after, _)) = self.look(now, from, (self.limits.stranger, true), count) else {
            return false;
        };
        self.senders.insert(from, after);
        true
    }

    /// When a sender's part and that of all strangers are whole again after this, if they have so much.
    fn look(
        &mut self,
        now: Tick,
        from: AgentId,
        (rate, stranger): (Rate, bool),
        count: u32,
    ) -> Option<(Tick, Tick)> {
        if self.senders.len() >= MAX_RATED_SENDERS && !self.senders.contains_key(&from) {
            self.senders.retain(|_, whole_at| *whole_at > now);
            if self.senders.len() >= MAX_RATED_SENDERS {
                return None;
            }
        }
        let whole_at = self.senders.get(&from).copied().unwrap_or_default();
        let after = rate.take(whole_at, now, count)?;
        if !stranger {
            return Some((after, self.strangers));
        }
        let is_first = count == 1 && whole_at <= now;
        let mut all = self.limits.strangers;
        all.burst -= if is_first { 0 } else { self.limits.first };
        Some((after, all.take(self.strangers, now, count)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::at;

    fn agent(n: u32) -> AgentId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        AgentId::new(bytes)
    }

    #[test]
    fn a_sender_has_a_burst_and_then_its_rate() {
        let mut notes = Rates::notes();
        for _ in 0..8 {
            assert!(notes.admit(at(1), agent(1), true, 64));
        }
        assert!(!notes.admit(at(1), agent(1), true, 1), "its burst is over");
        assert!(notes.admit(at(1), agent(2), true, 64), "others have their own");
        assert!(notes.admit(at(2), agent(1), true, 64) && !notes.admit(at(2), agent(1), true, 1));
        for _ in 0..64 {
            assert!(notes.admit(at(2), agent(3), false, 64), "a contact may name more");
        }
        assert!(!notes.admit(at(2), agent(3), false, 64));
    }

    #[test]
    fn strangers_have_a_rate_together_and_are_forgotten() {
        let mut notes = Rates::notes();
        let admitted = (0..100).filter(|n| notes.admit(at(1), agent(*n), true, 64)).count();
        assert_eq!(admitted, 32);
        assert!(notes.admit(at(1), agent(1000), false, 64), "contacts are not concerned");
        for n in 0..5000 {
            notes.admit(at(100 + u64::from(n)), agent(n), true, 64);
        }
        assert!(notes.senders.len() <= MAX_RATED_SENDERS);
        let mut full = Rates::notes();
        let cap = u32::try_from(MAX_RATED_SENDERS).expect("small");
        assert!((0..cap).all(|n| full.admit(at(1), agent(n), false, 64)));
        assert!(!full.admit(at(1), agent(cap), false, 1) && full.admit(at(1), agent(0), false, 1));
        assert!(full.admit(at(2), agent(cap), false, 1));
    }

    #[test]
    fn mail_of_strangers_has_a_rate_and_a_contacts_has_none() {
        let mut mail = Rates::mail();
        let taken = |mail: &mut Rates, n: u32, secs: u64| {
            (0..1100).filter(|_| mail.admit(at(secs), agent(n), true, Rates::count(10))).count()
        };
        assert_eq!(taken(&mut mail, 1, 1), 1024, "as much at once as may lie unread");
        assert_eq!(taken(&mut mail, 1, 2), 16);
        let others: Vec<usize> = (2..20).map(|n| taken(&mut mail, n, 2)).collect();
        let together: usize = others.iter().sum();
        // One that comes late has a first message out of the quarter that is kept for those.
        assert_eq!(others[..4], [1024, 1024, 3072 - 2 * 1024 - (1024 - 64 + 16), 1]);
        assert_eq!(together, 3072 - (1024 - 64 + 16) + 15, "an id costs nothing");
        assert_eq!(taken(&mut mail, 30, 3), 64 - 15);
        let firsts = (2000..3100).filter(|n| mail.admit(at(3), agent(*n), true, 1)).count();
        assert_eq!(firsts, 1024, "each of a thousand more has a first message");
        assert!((0..100_000).all(|_| mail.admit(at(3), agent(40), false, 1)));
        assert_eq!((Rates::count(0), Rates::count(16 << 20)), (1, 512));
    }
}
