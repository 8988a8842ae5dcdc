//! The arithmetic of failure detection: how long to wait for an answer, how long to suspect, and how
//! far to trust this node's own sense of time.
//!
//! A. Das, I. Gupta, A. Motivala, *SWIM*, DSN 2002; A. Dadgar, J. Phillips, J. Currey, *Lifeguard:
//! local health awareness for more accurate failure detection*, 2017.

use std::time::Duration;

/// The worst local health.
const MAX_HEALTH: u8 = 8;
/// Others that find a suspect silent too, from whose number on the shortest suspicion holds.
const MAX_CONFIRMATIONS: usize = 3;

/// How this node does itself, from 0, well, to eight. A node that is slow, or cut off, finds
/// that all the others fail; it should doubt itself first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LocalHealth(u8);

impl LocalHealth {
    /// Something failed that should not have.
    pub(crate) fn worsen(&mut self, by: usize) {
        let by = u8::try_from(by).unwrap_or(MAX_HEALTH);
        self.0 = self.0.saturating_add(by).min(MAX_HEALTH);
    }

    /// An answer came in time.
    pub(crate) const fn improve(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }

    pub(crate) const fn value(self) -> u8 {
        self.0
    }

    /// A time limit of this node: longer, the worse it does.
    pub(crate) fn scale(self, time: Duration) -> Duration {
        time * (u32::from(self.0) + 1)
    }
}

/// How long a neighbour is suspected before it counts as failed. The time shrinks with each other node
/// that finds it silent, fastest with the first: by the logarithm of their number, as in Lifeguard.
pub(crate) fn suspicion(min: Duration, max: Duration, confirmations: usize) -> Duration {
    /// log(1 + c) / log(1 + [`MAX_CONFIRMATIONS`]), in thousandths.
    const SHRUNK: [u32; MAX_CONFIRMATIONS + 1] = [0, 500, 792, 1000];
    let shrunk = SHRUNK[confirmations.min(MAX_CONFIRMATIONS)];
    max - max.saturating_sub(min) * shrunk / 1000
}

/// A smoothed round-trip time with one more sample (RFC 6298 §2: an eighth of the new one).
pub(crate) fn smooth(rtt: Duration, sample: Duration) -> Duration {
    (rtt * 7 + sample) / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspicion_shrinks_with_each_confirmation() {
        let (min, max) = (Duration::from_secs(6), Duration::from_secs(30));
        let seconds = [0, 1, 2, 3, 100].map(|c| suspicion(min, max, c).as_secs());
        assert_eq!(seconds, [30, 18, 10, 6, 6]);
        assert_eq!(suspicion(max, min, 3), min, "a minimum above the maximum is none");
    }

    #[test]
    fn health_is_bounded_and_stretches_time() {
        let mut health = LocalHealth::default();
        health.worsen(3);
        assert_eq!(health.scale(Duration::from_secs(1)), Duration::from_secs(4));
        health.worsen(usize::MAX);
        assert_eq!(health.value(), MAX_HEALTH);
        (0..20).for_each(|_| health.improve());
        assert_eq!(health, LocalHealth::default());
    }

    #[test]
    fn a_round_trip_is_smoothed() {
        let mut rtt = Duration::from_millis(100);
        (0..50).for_each(|_| rtt = smooth(rtt, Duration::from_millis(20)));
        assert!((20..23).contains(&rtt.as_millis()), "{rtt:?}");
    }
}
