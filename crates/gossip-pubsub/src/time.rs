//! Hybrid logical time: wall-clock milliseconds with a counter below them (Kulkarni et al., "Logical
//! Physical Clocks", 2014), so that one author's entries are strictly ordered and different
//! authors' entries are nearly so.

use std::time::Duration;

use x0x_core::WallTime;

/// How far ahead of our wall clock another author's time is followed. Well below the five minutes
/// that receivers allow, so that nobody can push our entries past what others accept.
const MAX_FOLLOW: Duration = Duration::from_secs(60);

/// Milliseconds since the Unix epoch in the upper 48 bits, a counter in the lower 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HybridTime(u64);

impl HybridTime {
    /// The first time of a wall-clock millisecond.
    #[must_use]
    pub const fn from_wall(wall: WallTime) -> Self {
        Self(wall.as_millis() << 16)
    }

    /// The number that goes over the wire and into the hash.
    #[must_use]
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// The number that goes over the wire and into the hash.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Whether an author whose clock says `wall` lets its own time follow this one.
    #[must_use]
    pub(crate) fn is_followed(self, wall: WallTime) -> bool {
        self <= Self::from_wall(wall + MAX_FOLLOW)
    }

    /// The wall-clock part.
    #[must_use]
    pub const fn wall(self) -> WallTime {
        WallTime::from_millis(self.0 >> 16)
    }
}

/// Hands out strictly increasing hybrid times.
#[derive(Debug, Clone, Default)]
pub(crate) struct HybridClock {
    last: HybridTime,
}

impl HybridClock {
    /// The next time of this author.
    pub(crate) fn next(&mut self, wall: WallTime) -> HybridTime {
        let after_last = HybridTime(self.last.0.saturating_add(1));
        self.last = after_last.max(HybridTime::from_wall(wall));
        self.last
    }

    /// The latest time that was given out or followed.
    pub(crate) const fn last(&self) -> HybridTime {
        self.last
    }

    /// Follows another author's time, so that what we say next is later than what we heard.
    pub(crate) fn observe(&mut self, wall: WallTime, seen: HybridTime) {
        if seen.is_followed(wall) {
            self.last = self.last.max(seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_through_standstill_steps_back_and_heard_times() {
        let mut clock = HybridClock::default();
        let at = WallTime::from_millis;
        let first = clock.next(at(1000));
        let second = clock.next(at(1000));
        let back = clock.next(at(500));
        assert!(first < second && second < back);
        assert_eq!(first.wall(), at(1000));
        clock.observe(at(1000), HybridTime::from_wall(at(2000)));
        assert!(clock.next(at(1001)) > HybridTime::from_wall(at(2000)));
        clock.observe(at(1000), HybridTime::from_wall(at(10_000_000)));
        assert!(clock.next(at(1002)).wall() < at(3000), "a far future is not followed");
    }
}
