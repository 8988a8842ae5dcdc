//! Memory for large messages that arrive piece by piece: bounded for all peers together.
//!
//! The first [`FREE_ASSEMBLY`](crate::frame::FREE_ASSEMBLY) bytes of a message are each stream's own.
//! Before a reader takes more of one, it claims the message's whole length from its class's budget,
//! once and in the order of asking: no reader holds a part while it waits for the rest, so none waits
//! for another that waits. Meanwhile it reads nothing, and flow control stops the sender. Whoever
//! holds a claim has to make progress.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use x0x_core::{StreamClass, Tick};

use crate::{config::SessionConfig, frame::Assembling};

/// Bytes of a claimed message that must arrive in each [`PATIENCE`]: 140 kbit/s.
const MIN_PROGRESS: usize = 512 * 1024;
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that one permit stands for.
const UNIT: usize = 1024;

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// The budgets of all classes.
#[derive(Debug)]
pub(crate) struct Assembly([Arc<Semaphore>; 4]);

impl Assembly {
    /// Each class's largest message fits, whatever the settings say.
    pub(crate) fn new(config: &SessionConfig) -> Self {
        Self(StreamClass::ALL.map(|class| {
            let bytes = config.assembly(class).max(class.max_message());
            Arc::new(Semaphore::new(units(bytes) as usize))
        }))
    }

    /// Waits for the memory of a message; `None` never happens, for budgets are not closed.
    pub(super) async fn claim(&self, class: StreamClass, message: Assembling) -> Option<Claim> {
        let budget = self.0[class as usize % self.0.len()].clone();
        let permit = budget.acquire_many_owned(units(message.len)).await.ok()?;
        Some(Claim { _permit: permit, target: 0, until: Tick::ZERO })
    }
}

/// The memory of one message.
#[derive(Debug)]
pub(super) struct Claim {
    _permit: OwnedSemaphorePermit,
    /// Bytes that must have arrived by `until`.
    target: usize,
    until: Tick,
}

impl Claim {
    /// Notes how much arrived.
    pub(super) fn progress(&mut self, now: Tick, message: Assembling) {
        if message.arrived >= self.target {
            self.target = message.arrived + MIN_PROGRESS;
            self.until = now + PATIENCE;
        }
    }

    /// The reader itself was busy for a while, which does not count.
    pub(super) fn excuse(&mut self, time: Duration) {
        self.until = self.until + time;
    }

    /// When the peer has taken too long.
    pub(super) const fn until(&self) -> Tick {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FREE_ASSEMBLY;

    #[tokio::test(start_paused = true)]
    async fn the_budget_is_claimed_whole_and_in_turn() {
        let config = SessionConfig { direct_assembly_bytes: 0, ..SessionConfig::default() };
        let assembly = Assembly::new(&config);
        let (class, arrived) = (StreamClass::Direct, FREE_ASSEMBLY);
        let largest = Assembling { len: class.max_message(), arrived };
        let soon = |message| tokio::time::timeout(PATIENCE, assembly.claim(class, message));
        let first = soon(largest).await.expect("the largest always fits");
        assert!(soon(Assembling { len: 300_000, arrived }).await.is_err(), "nothing is left");
        let gossip = Assembling { len: 1 << 20, arrived };
        assert!(assembly.claim(StreamClass::Gossip, gossip).await.is_some(), "a budget of its own");
        drop(first);
        assert!(soon(largest).await.is_ok());
    }

    #[tokio::test]
    async fn progress_moves_the_deadline() {
        let assembly = Assembly::new(&SessionConfig::default());
        let at = |arrived| Assembling { len: 8 << 20, arrived };
        let mut claim = assembly.claim(StreamClass::Direct, at(0)).await.expect("room");
        claim.progress(Tick::from_millis(5), at(300_000));
        assert_eq!(claim.until(), Tick::from_millis(30_005));
        claim.progress(Tick::from_millis(9), at(300_000 + MIN_PROGRESS - 1));
        assert_eq!(claim.until(), Tick::from_millis(30_005));
        claim.excuse(Duration::from_millis(10));
        assert_eq!(claim.until(), Tick::from_millis(30_015));
        claim.progress(Tick::from_millis(20), at(300_000 + MIN_PROGRESS));
        assert_eq!(claim.until(), Tick::from_millis(30_020));
    }
}
