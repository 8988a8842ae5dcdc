//! Time as an argument: a monotonic [`Tick`], a [`WallTime`] for signed expiries, and the [`Clock`]
//! that only drivers hold.

use std::{
    fmt,
    ops::{Add, Sub},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Monotonic time since the clock's start, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(u64);

impl Tick {
    /// The clock's start.
    pub const ZERO: Self = Self(0);

    /// This many microseconds after the start.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// This many milliseconds after the start.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1000)
    }

    /// Microseconds since the start.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`, zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Tick {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

impl Sub for Tick {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

/// Wall-clock time in milliseconds since the Unix epoch. Only for expiries and time stamps that
/// cross machines; liveness uses [`Tick`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WallTime(u64);

impl WallTime {
    /// This many milliseconds after the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }
}

impl Add<Duration> for WallTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

/// Where a driver reads the time.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Monotonic time.
    fn now(&self) -> Tick;
    /// Wall-clock time.
    fn wall(&self) -> WallTime;
}

/// The operating system's clocks.
#[derive(Debug, Clone)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose [`Tick::ZERO`] is now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clocks")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Tick {
        Tick::ZERO + self.start.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clocks")]
    fn wall(&self) -> WallTime {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime::default() + elapsed
    }
}

/// A clock moved by hand, for tests of drivers.
#[derive(Debug, Clone, Default)]
pub struct ManualClock {
    micros: Arc<AtomicU64>,
    epoch: WallTime,
}

impl ManualClock {
    /// A clock at [`Tick::ZERO`], whose wall time starts at `epoch`.
    #[must_use]
    pub fn new(epoch: WallTime) -> Self {
        Self { micros: Arc::default(), epoch }
    }

    /// Moves both times forward.
    pub fn advance(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Tick {
        Tick::from_micros(self.micros.load(Ordering::Relaxed))
    }

    fn wall(&self) -> WallTime {
        self.epoch + Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let tick = Tick::from_millis(5);
        assert_eq!(tick + Duration::from_millis(5), Tick::from_millis(10));
        assert_eq!(Tick::ZERO - tick, Duration::ZERO);
        assert_eq!(Tick::from_micros(u64::MAX) + Duration::MAX, Tick::from_micros(u64::MAX));
        assert_eq!(WallTime::from_millis(2500).as_secs(), 2);
    }

    #[test]
    fn manual_clock_moves_both_times() {
        let clock = ManualClock::new(WallTime::from_millis(1000));
        clock.advance(Duration::from_secs(2));
        assert_eq!(clock.now(), Tick::from_millis(2000));
        assert_eq!(clock.wall(), WallTime::from_millis(3000));
        let system = SystemClock::new();
        assert!(system.now() <= system.now());
    }
}
