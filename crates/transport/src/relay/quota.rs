//! How much is forwarded: for each machine that asked, and altogether.

use std::time::Duration;

use x0x_core::Tick;

use super::RelayConfig;

/// What a machine may have forwarded on a day is counted from its first packet on.
const DAY: Duration = Duration::from_secs(24 * 3600);
const MICROS: u64 = 1_000_000;
/// Bytes around a forwarded packet: IP, UDP, QUIC and its tag, the frame.
const FRAMING: usize = 64;
const MIN_COST: usize = 256;

/// Bytes at a rate, and some at once.
#[derive(Debug, Clone)]
pub struct ByteBucket {
    /// In millionths of a byte, so that a microsecond earns a whole number of them.
    level: u64,
    most: u64,
    rate: u64,
    filled_at: Tick,
}

impl ByteBucket {
    /// A full bucket of `burst` bytes that earns `rate` bytes a second.
    #[must_use]
    pub const fn new(rate: u64, burst: u64, now: Tick) -> Self {
        let most = burst.saturating_mul(MICROS);
        Self { level: most, most, rate, filled_at: now }
    }

    fn fill(&mut self, now: Tick) {
        let micros = u64::try_from(now.since(self.filled_at).as_micros()).unwrap_or(u64::MAX);
        let earned = micros.saturating_mul(self.rate);
        self.level = self.level.saturating_add(earned).min(self.most);
        self.filled_at = self.filled_at.max(now);
    }

    /// Whether so many bytes are there.
    pub fn has(&mut self, now: Tick, bytes: usize) -> bool {
        self.fill(now);
        self.level >= (bytes as u64).saturating_mul(MICROS)
    }

    /// Takes them; false, and none is taken, when there are fewer.
    #[must_use]
    pub fn take(&mut self, now: Tick, bytes: usize) -> bool {
        let has = self.has(now, bytes);
        if has {
            self.level -= bytes as u64 * MICROS;
        }
        has
    }
}

/// What a packet is charged: a small one costs the relay as much as one of 256 bytes.
#[must_use]
pub fn cost(bytes: usize) -> usize {
    (bytes + FRAMING).max(MIN_COST)
}

/// Why a packet is not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OverQuota {
    /// The machine's rate.
    Rate,
    /// What it may have on one day.
    Day,
    /// The rate of all together.
    Total,
}

/// What one machine may have forwarded of what it sends, in all of its contexts together.
#[derive(Debug, Clone)]
pub struct ClientQuota {
    bucket: ByteBucket,
    day: Tick,
    today: u64,
    daily: u64,
}

impl ClientQuota {
    /// All of it is left.
    #[must_use]
    pub const fn new(config: &RelayConfig, now: Tick) -> Self {
        let bucket = ByteBucket::new(config.client_rate, config.client_burst, now);
        Self { bucket, day: now, today: 0, daily: config.client_daily }
    }

    /// Charges a packet to the machine and to the relay's own bucket.
    ///
    /// # Errors
    /// [`OverQuota`]; nothing is charged then.
    pub fn charge(
        &mut self,
        now: Tick,
        bytes: usize,
        total: &mut ByteBucket,
    ) -> Result<(), OverQuota> {
        if now.since(self.day) >= DAY {
            (self.day, self.today) = (now, 0);
        }
        let today = self.today.saturating_add(bytes as u64);
        if today > self.daily {
            return Err(OverQuota::Day);
        }
        if !self.bucket.has(now, bytes) {
            return Err(OverQuota::Rate);
        }
        if !total.take(now, bytes) {
            return Err(OverQuota::Total);
        }
        self.today = today;
        // It has them.
        let _ = self.bucket.take(now, bytes);
        Ok(())
    }

    /// What was forwarded today.
    #[must_use]
    pub fn used(&self, now: Tick) -> u64 {
        if now.since(self.day) >= DAY { 0 } else { self.today }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config() -> RelayConfig {
        let mut config = RelayConfig::default();
        (config.client_rate, config.client_burst, config.client_daily) = (1000, 500, 10_000);
        config
    }

    proptest! {
        /// However it is asked, no more than the burst and the rate.
        #[test]
        fn a_machine_gets_its_burst_and_its_rate(steps in prop::collection::vec((0..200_u64, 1..600_usize), 1..200)) {
            let mut quota = ClientQuota::new(&config(), Tick::ZERO);
            let mut total = ByteBucket::new(u64::MAX, u64::MAX / MICROS, Tick::ZERO);
            let (mut now, mut sent) = (0, 0);
            for (pause, bytes) in steps {
                now += pause;
                if quota.charge(Tick::from_millis(now), bytes, &mut total).is_ok() {
                    sent += bytes as u64;
                }
                prop_assert!(sent <= (500 + now).min(10_000), "{} after {} ms", sent, now);
            }
        }
    }

    #[test]
    fn each_limit_is_named() {
        let mut quota = ClientQuota::new(&config(), Tick::ZERO);
        let mut total = ByteBucket::new(1, 700, Tick::ZERO);
        let at = Tick::from_millis;
        assert_eq!(quota.charge(at(0), 500, &mut total), Ok(()));
        assert_eq!(quota.charge(at(0), 1, &mut total), Err(OverQuota::Rate));
        assert_eq!(quota.charge(at(500), 300, &mut total), Err(OverQuota::Total));
        let mut total = ByteBucket::new(1 << 20, 1 << 20, Tick::ZERO);
        for second in 1..20 {
            assert_eq!(quota.charge(at(second * 1000), 500, &mut total), Ok(()));
        }
        assert_eq!(quota.charge(at(30_000), 1, &mut total), Err(OverQuota::Day));
        assert_eq!((quota.used(at(30_000)), quota.used(at(24 * 3_600_000))), (10_000, 0));
        assert_eq!(quota.charge(at(24 * 3_600_000), 500, &mut total), Ok(()));
    }

    #[test]
    fn a_bucket_asked_often_earns_no_less() {
        let mut bucket = ByteBucket::new(1 << 20, 1 << 18, Tick::ZERO);
        let sent = (0..1_000_000).filter(|us| bucket.take(Tick::from_micros(*us), 100)).count();
        let expected = ((1 << 20) + (1 << 18)) / 100;
        assert!((expected - 2..=expected).contains(&sent), "{sent}");
    }
}
