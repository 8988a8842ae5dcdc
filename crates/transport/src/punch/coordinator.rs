//! What a machine between two others remembers and allows.

use std::{collections::BTreeMap, time::Duration};

use x0x_core::{MachineId, Tick, TokenBucket};

use crate::wire::RoundId;

/// Most agreements that wait for their answer.
pub(super) const MAX_PENDING: usize = 256;
/// Most machines whose rate is remembered: all that have sessions, and some.
pub(super) const MAX_RATES: usize = 1024;
/// How long an answer is waited for.
const PENDING_LIFETIME: Duration = Duration::from_secs(5);
/// Agreements that one machine may ask for at once, and the time in which another is earned: five a minute.
const ASKED_BURST: u32 = 5;
const ASKED_REFILL: Duration = Duration::from_secs(12);
/// The same for what is asked of one machine: twenty a minute.
const TARGET_BURST: u32 = 20;
const TARGET_REFILL: Duration = Duration::from_secs(3);

/// The rates of machines. Whoever was quiet for long enough to have a full bucket is forgotten first.
#[derive(Debug, Default)]
struct Rates(BTreeMap<MachineId, (Tick, TokenBucket)>);

impl Rates {
    fn take(&mut self, now: Tick, machine: MachineId, burst: u32, refill: Duration) -> bool {
        if self.0.len() >= MAX_RATES && !self.0.contains_key(&machine) {
            let full_after = refill * burst;
            self.0.retain(|_, (used, _)| now.since(*used) < full_after);
            if self.0.len() >= MAX_RATES {
                return false;
            }
        }
        let fresh = || (now, TokenBucket::new(burst, refill, now));
        let (used, bucket) = self.0.entry(machine).or_insert_with(fresh);
        *used = now;
        bucket.take(now)
    }
}

/// Agreements between others.
#[derive(Debug, Default)]
pub(super) struct Coordinator {
    /// Who asked, who was asked, and when.
    pending: BTreeMap<([MachineId; 2], RoundId), Tick>,
    asked: Rates,
    targets: Rates,
}

impl Coordinator {
    /// Whether an agreement may be brought before the second of the two ends; its answer is waited for.
    pub(super) fn admit(&mut self, now: Tick, ends: [MachineId; 2], round: RoundId) -> bool {
        self.pending.retain(|_, since| now.since(*since) < PENDING_LIFETIME);
        let admitted = self.pending.len() < MAX_PENDING
            && self.asked.take(now, ends[0], ASKED_BURST, ASKED_REFILL)
            && self.targets.take(now, ends[1], TARGET_BURST, TARGET_REFILL);
        if admitted {
            self.pending.insert((ends, round), now);
        }
        admitted
    }

    /// Whether an answer of the second end is waited for; once.
    pub(super) fn take(&mut self, ends: [MachineId; 2], round: RoundId, now: Tick) -> bool {
        let since = self.pending.remove(&(ends, round));
        since.is_some_and(|since| now.since(since) < PENDING_LIFETIME)
    }

    #[cfg(test)]
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }
}
