//! A token bucket in virtual time.

use std::time::Duration;

use crate::Tick;

/// Bounds a rate: allows a burst, then one more in each `refill`.
///
/// Tokens are earned whole, and what is left of a refill time counts towards the next: a caller who
/// asks often gets no less than one who asks seldom.
///
/// ```
/// use std::time::Duration;
/// use x0x_core::{Tick, TokenBucket};
///
/// let mut bucket = TokenBucket::new(2, Duration::from_millis(10), Tick::ZERO);
/// assert!(bucket.take(Tick::ZERO) && bucket.take(Tick::ZERO) && !bucket.take(Tick::ZERO));
/// assert!(bucket.take(Tick::from_millis(10)));
/// ```
#[derive(Debug, Clone)]
pub struct TokenBucket {
    tokens: u32,
    burst: u32,
    refill: Duration,
    /// Up to when tokens were earned.
    filled_at: Tick,
}

impl TokenBucket {
    /// A full bucket of `burst` tokens that earns one in each `refill`, which counts in whole
    /// microseconds and is at least one.
    #[must_use]
    pub const fn new(burst: u32, refill: Duration, now: Tick) -> Self {
        Self { tokens: burst, burst, refill, filled_at: now }
    }

    /// Takes a token; false when there is none.
    #[must_use]
    pub fn take(&mut self, now: Tick) -> bool {
        self.take_many(now, 1)
    }

    /// Takes `count` tokens; false, and none is taken, when there are fewer.
    #[must_use]
    pub fn take_many(&mut self, now: Tick, count: u32) -> bool {
        self.fill(now);
        let left = self.tokens.checked_sub(count);
        self.tokens = left.unwrap_or(self.tokens);
        left.is_some()
    }

    fn fill(&mut self, now: Tick) {
        let refill = self.refill.max(Duration::from_micros(1));
        let earned = now.since(self.filled_at).as_micros() / refill.as_micros();
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        if earned >= self.burst - self.tokens {
            self.tokens = self.burst;
            // A full bucket earns nothing; a clock reading from before gives nothing either.
            self.filled_at = self.filled_at.max(now);
        } else {
            self.tokens += earned;
            self.filled_at = self.filled_at + refill * earned;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFILL: Duration = Duration::from_millis(10);

    #[test]
    fn a_burst_then_a_rate() {
        let mut bucket = TokenBucket::new(3, REFILL, Tick::ZERO);
        let mut taken = |at| bucket.take(Tick::from_millis(at));
        assert_eq!([0, 0, 0, 0, 9].map(&mut taken), [true, true, true, false, false]);
        assert_eq!([10, 15, 20, 25].map(&mut taken), [true, false, true, false]);
        assert_eq!([900, 900, 900, 900].map(&mut taken), [true, true, true, false]);
    }

    #[test]
    fn asking_often_costs_nothing() {
        let mut bucket = TokenBucket::new(2, REFILL, Tick::ZERO);
        let taken = (0..10_000).filter(|at| bucket.take(Tick::from_micros(at * 300))).count();
        assert_eq!(taken, 2 + 299, "the burst, then one in each 10 ms of 2.9997 s");
    }

    #[test]
    fn many_are_taken_together_or_not_at_all() {
        let mut bucket = TokenBucket::new(5, REFILL, Tick::ZERO);
        assert!(!bucket.take_many(Tick::ZERO, 6), "never above the burst");
        assert!(bucket.take_many(Tick::ZERO, 4));
        assert!(!bucket.take_many(Tick::ZERO, 2) && bucket.take_many(Tick::ZERO, 1));
        assert!(!bucket.take_many(Tick::from_millis(29), 3));
        assert!(bucket.take_many(Tick::from_millis(30), 3));
    }

    #[test]
    fn extreme_values_are_harmless() {
        let end = Tick::from_micros(u64::MAX);
        let mut instant = TokenBucket::new(2, Duration::ZERO, Tick::ZERO);
        assert!(instant.take_many(Tick::ZERO, 2) && instant.take_many(Tick::from_micros(2), 2));
        assert!(instant.take(end));
        let mut never = TokenBucket::new(u32::MAX, Duration::MAX, Tick::ZERO);
        assert!(never.take_many(Tick::ZERO, u32::MAX) && !never.take(end));
        let mut empty = TokenBucket::new(0, REFILL, Tick::ZERO);
        assert!(!empty.take(end) && empty.take_many(end, 0));
        let mut backwards = TokenBucket::new(1, REFILL, Tick::from_millis(50));
        assert!(backwards.take(Tick::ZERO) && !backwards.take(Tick::from_millis(59)));
        assert!(backwards.take(Tick::from_millis(60)));
    }
}
