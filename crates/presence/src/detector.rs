//! How long a silence means that somebody is gone.
//!
//! N. Hayashibara, X. Défago, R. Yared, T. Katayama, *The φ accrual failure detector*, SRDS 2004: the
//! intervals seen so far give the probability that a beacon still comes after a silence; φ is its
//! negative decimal logarithm. With normally distributed intervals a bound on φ is a bound on the
//! silence, in standard deviations above the mean, so that no logarithm is ever taken and the moment at
//! which the verdict changes is known ahead.

use std::{collections::VecDeque, time::Duration};

use x0x_core::Tick;

/// Intervals that are remembered.
const WINDOW: usize = 32;
/// φ = 3: one silence in a thousand is as long. In standard deviations.
const SUSPECT: f64 = 3.09;
/// φ = 8: one in a hundred million.
const CONDEMN: f64 = 5.61;
/// The deviation is at least this share of the period: timers and queues are never exact, and a stall
/// of a few seconds means nothing.
const LEAST_DEVIATION: f64 = 1.0 / 6.0;

/// The intervals of one sender's beacons.
#[derive(Debug, Clone)]
pub(crate) struct Detector {
    period: Duration,
    intervals: VecDeque<f64>,
    last: Option<Tick>,
}

impl Detector {
    /// For beacons that are promised once a period.
    pub(crate) const fn new(period: Duration) -> Self {
        Self { period, intervals: VecDeque::new(), last: None }
    }

    /// A beacon came.
    pub(crate) fn heard(&mut self, now: Tick) {
        if let Some(last) = self.last {
            // What was longer than the bound says nothing of the intervals while the sender is there.
            let interval = now.since(last).min(self.longest());
            if self.intervals.len() == WINDOW {
                self.intervals.pop_front();
            }
            self.intervals.push_back(interval.as_secs_f64());
        }
        self.last = Some(now);
    }

    /// The longest silence that may mean nothing.
    pub(crate) fn longest(&self) -> Duration {
        self.period * 4
    }

    /// The silence after which the sender is suspected, and that after which it is taken for gone: from
    /// one and a half and two periods up to four, whatever the intervals were.
    pub(crate) fn bounds(&self) -> (Duration, Duration) {
        let (period, seen) = (self.period.as_secs_f64(), self.intervals.len());
        // The promise counts for as much as what was not seen yet.
        let unseen = (WINDOW - seen) as f64;
        let mean = (self.intervals.iter().sum::<f64>() + unseen * period) / WINDOW as f64;
        let spread = self.intervals.iter().map(|interval| (interval - mean).powi(2)).sum::<f64>();
        let promised = unseen * (period - mean).powi(2);
        let deviation = ((spread + promised) / WINDOW as f64).sqrt().max(period * LEAST_DEVIATION);
        let after = |deviations: f64, least: f64| {
            let silence = mean + deviations * deviation;
            Duration::from_secs_f64(silence.clamp(period * least, period * 4.0))
        };
        (after(SUSPECT, 1.5), after(CONDEMN, 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(30);

    fn after(intervals: impl IntoIterator<Item = f64>) -> (Duration, Duration) {
        let (mut detector, mut now) = (Detector::new(PERIOD), Tick::ZERO);
        detector.heard(now);
        for interval in intervals {
            now = now + Duration::from_secs_f64(interval);
            detector.heard(now);
        }
        detector.bounds()
    }

    #[test]
    fn regular_beacons_leave_two_periods() {
        for bounds in [after([]), after(std::iter::repeat_n(30.0, 100))] {
            assert_eq!(bounds.0.as_secs(), 45);
            assert_eq!(bounds.1, PERIOD * 2);
        }
    }

    #[test]
    fn irregular_ones_leave_more_but_never_more_than_four() {
        let (suspect, condemn) = after([15.0, 45.0].into_iter().cycle().take(64));
        assert!(suspect > PERIOD * 2 && condemn > suspect, "{suspect:?} {condemn:?}");
        assert!(condemn <= PERIOD * 4);
        let (_, condemn) = after(std::iter::repeat_n(100_000.0, 64));
        assert_eq!(condemn, PERIOD * 4);
        let (suspect, condemn) = after(std::iter::repeat_n(0.0, 64));
        assert_eq!((suspect, condemn), (PERIOD * 3 / 2, PERIOD * 2));
    }
}
