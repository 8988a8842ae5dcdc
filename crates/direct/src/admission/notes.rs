//! How many messages a sender may say it has read: each may cost a write here.

use std::{collections::BTreeMap, time::Duration};

use x0x_core::{AgentId, Tick};

/// Senders whose notes are counted; those who used nothing lately are forgotten first, and more are
/// refused until some are.
pub const MAX_NOTE_SENDERS: usize = 4096;

/// A rate: an id each so often, and so many at once.
#[derive(Debug, Clone, Copy)]
struct Rate {
    each: Duration,
    burst: u32,
}

/// Of one contact: 1024 ids each second.
const CONTACT: Rate = Rate { each: Duration::from_micros(976), burst: 4096 };
/// Of one stranger: 64 ids each second.
const STRANGER: Rate = Rate { each: Duration::from_micros(15_625), burst: 512 };
/// Of all strangers together: 512 ids each second, since an agent's id costs nothing.
const STRANGERS: Rate = Rate { each: Duration::from_micros(1953), burst: 2048 };

impl Rate {
    /// Takes so many from what is whole again at a time. Returns when it is then; `None` when there
    /// are not so many left.
    fn take(self, whole_at: Tick, now: Tick, ids: u32) -> Option<Tick> {
        let after = whole_at.max(now) + self.each * ids;
        (after <= now + self.each * self.burst).then_some(after)
    }
}

/// What is left to each sender, by when it is whole again.
#[derive(Debug, Default)]
pub(super) struct Notes {
    senders: BTreeMap<AgentId, Tick>,
    strangers: Tick,
}

impl Notes {
    /// Whether a sender may name so many messages now.
    pub(super) fn admit(&mut self, now: Tick, from: AgentId, stranger: bool, ids: u32) -> bool {
        if self.senders.len() >= MAX_NOTE_SENDERS && !self.senders.contains_key(&from) {
            self.senders.retain(|_, whole_at| *whole_at > now);
            if self.senders.len() >= MAX_NOTE_SENDERS {
                return false;
            }
        }
        let rate = if stranger { STRANGER } else { CONTACT };
        let whole_at = self.senders.get(&from).copied().unwrap_or_default();
        let Some(after) = rate.take(whole_at, now, ids) else { return false };
        if stranger {
            let Some(together) = STRANGERS.take(self.strangers, now, ids) else { return false };
            self.strangers = together;
        }
        self.senders.insert(from, after);
        true
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
        let mut notes = Notes::default();
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
        let mut notes = Notes::default();
        let admitted = (0..100).filter(|n| notes.admit(at(1), agent(*n), true, 64)).count();
        assert_eq!(admitted, 32);
        assert!(notes.admit(at(1), agent(1000), false, 64), "contacts are not concerned");
        for n in 0..5000 {
            notes.admit(at(100 + u64::from(n)), agent(n), true, 64);
        }
        assert!(notes.senders.len() <= MAX_NOTE_SENDERS);
        let mut full = Notes::default();
        let cap = u32::try_from(MAX_NOTE_SENDERS).expect("small");
        assert!((0..cap).all(|n| full.admit(at(1), agent(n), false, 64)));
        assert!(!full.admit(at(1), agent(cap), false, 1) && full.admit(at(1), agent(0), false, 1));
        assert!(full.admit(at(2), agent(cap), false, 1));
    }
}
