//! A token bucket in virtual time.

use std::time::Duration;

use x0x_core::Tick;

/// Allows a burst, then one in each `refill`.
#[derive(Debug, Clone)]
pub(crate) struct TokenBucket {
    tokens: u32,
    burst: u32,
    refill: Duration,
    filled_at: Tick,
}

impl TokenBucket {
    /// A full bucket. `refill` must not be zero.
    pub(crate) const fn new(burst: u32, refill: Duration, now: Tick) -> Self {
        Self { tokens: burst, burst, refill, filled_at: now }
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Tick) -> bool {
        let earned = now.since(self.filled_at).as_micros() / self.refill.as_micros().max(1);
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        if earned >= self.burst - self.tokens {
            self.tokens = self.burst;
            self.filled_at = now;
        } else {
            self.tokens += earned;
            self.filled_at = self.filled_at + self.refill * earned;
        }
        let taken = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_rate() {
        let mut bucket = TokenBucket::new(3, Duration::from_millis(10), Tick::ZERO);
        let mut taken = |at| bucket.take(Tick::from_millis(at));
        assert_eq!([0, 0, 0, 0, 9].map(&mut taken), [true, true, true, false, false]);
        assert_eq!([10, 15, 20, 25].map(&mut taken), [true, false, true, false]);
        assert_eq!([900, 900, 900, 900].map(&mut taken), [true, true, true, false]);
    }
}
