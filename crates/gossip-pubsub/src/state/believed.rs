//! How far the wall clock is believed where that cannot be taken back: in removing what is old.
//!
//! A machine may start with a clock that is wrong by days, and set it right minutes later. What was
//! removed in between would be gone, and come again from the neighbours as if it were new.

use std::time::Duration;

use x0x_core::{Tick, WallTime};

/// How far ahead of what was expected the clock is believed at once.
const JUMP: Duration = Duration::from_secs(3600);

/// How long a clock that is further ahead must go on steadily before it is believed.
const STEADY: Duration = Duration::from_secs(3600);

/// What is believed of the wall clock.
#[derive(Debug, Default)]
pub(super) struct Believed {
    /// A time that was believed, and when.
    anchor: Option<(Tick, WallTime)>,
    /// Since when the clock is ahead of what was expected, and goes on steadily.
    ahead_since: Option<Tick>,
    /// The clock when it was last looked at.
    last: Option<(Tick, WallTime)>,
}

impl Believed {
    /// Believes nothing yet: there is something stored that a wrong clock would remove.
    pub(super) fn nothing() -> Self {
        Self { anchor: Some((Tick::ZERO, WallTime::default())), ..Self::default() }
    }

    /// Notes what the clock says.
    pub(super) fn look(&mut self, now: Tick, wall: WallTime) {
        let jumped = is_ahead(self.last, now, wall);
        self.last = Some((now, wall));
        if is_ahead(self.anchor, now, wall) {
            let since = self.ahead_since.filter(|_| !jumped).unwrap_or(now);
            self.ahead_since = Some(since);
            if now.since(since) < STEADY {
                return;
            }
        }
        (self.anchor, self.ahead_since) = (Some((now, wall)), None);
    }

    /// The time by which something is old: that of the clock, or what was expected when it is not
    /// believed.
    pub(super) fn time(&self, now: Tick) -> WallTime {
        self.anchor.map(|(at, wall)| wall + now.since(at)).unwrap_or_default()
    }
}

/// Whether the clock is ahead of what it said before, by more than the time that went by.
fn is_ahead(before: Option<(Tick, WallTime)>, now: Tick, wall: WallTime) -> bool {
    before.is_some_and(|(at, then)| wall > then + now.since(at) + JUMP)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(hours: u32) -> (Tick, WallTime) {
        (Tick::ZERO + HOUR * hours, WallTime::from_millis(1_800_000_000_000) + HOUR * hours)
    }

    #[test]
    fn a_jump_ahead_is_believed_once_it_lasts() {
        let mut believed = Believed::default();
        let (now, wall) = at(0);
        believed.look(now, wall);
        assert_eq!(believed.time(now), wall, "the first time");
        let minute = Duration::from_secs(60);
        believed.look(now + minute, wall + HOUR * 25);
        assert_eq!(believed.time(now + minute), wall + minute);
        // It was set right, which counts at once.
        believed.look(now + minute * 2, wall + minute * 2);
        assert_eq!(believed.time(now + minute * 2), wall + minute * 2);
        for hours in [10, 40] {
            // Each jump begins the hour anew.
            believed.look(now + minute * 3, wall + HOUR * hours);
        }
        let later = now + minute * 3 + HOUR;
        believed.look(later, wall + HOUR * 41);
        assert_eq!(believed.time(later), wall + HOUR * 41);
    }

    #[test]
    fn after_a_start_the_clock_has_an_hour_to_be_set_right() {
        let mut believed = Believed::nothing();
        let (now, wall) = at(0);
        believed.look(now, wall + HOUR * 25);
        assert!(believed.time(now) < wall);
        let (half, right) = (now + HOUR / 2, wall + HOUR / 2);
        believed.look(half, right);
        assert!(believed.time(half) < right);
        let (now, wall) = at(1);
        believed.look(now, wall);
        assert_eq!(believed.time(now), wall);
    }
}
