//! How well a peer behaves: known here only, never told to anybody.

use std::time::Duration;

use x0x_core::{Tick, TokenBucket};

/// Points at which a peer is disconnected.
pub(crate) const MAX_PENALTY: u32 = 100;

/// Points at which nothing is pushed to a peer and it is asked last.
pub(crate) const LAZY_AT: u32 = 30;

/// Points at which a peer's comparisons are not answered.
pub(crate) const UNSERVED_AT: u32 = 60;

/// Most first deliveries that count, each against one broken promise.
const MAX_CREDIT: u32 = 64;

/// New authors that a peer may bring at once in place of others that it brought, and the time for
/// another one: few enough that what is remembered of those expelled lasts for as long as it must.
const RENEWAL_BURST: u32 = 8;
const RENEW_EVERY: Duration = Duration::from_secs(30);

/// Misbehaviour, of which one point is forgiven each second, and how far promises are kept.
#[derive(Debug, Clone)]
pub(crate) struct Score {
    points: u32,
    since: Tick,
    /// Announced or asked for, and not sent; halved every ten seconds.
    broken: u32,
    halved: Tick,
    credit: u32,
    /// Authors that it was the first to bring, of which one is forgotten every twenty seconds.
    authors: u32,
    authors_since: Tick,
    /// Authors that it may bring in place of its own.
    pub(crate) renewals: TokenBucket,
}

impl Score {
    pub(crate) const fn new(now: Tick) -> Self {
        Self {
            points: 0,
            since: now,
            broken: 0,
            halved: now,
            credit: 0,
            authors: 0,
            authors_since: now,
            renewals: TokenBucket::new(RENEWAL_BURST, RENEW_EVERY, now),
        }
    }

    /// Adds points; true when the peer has had enough.
    pub(crate) fn add(&mut self, now: Tick, points: u32) -> bool {
        self.points = self.points(now).saturating_add(points);
        self.since = now;
        self.points >= MAX_PENALTY
    }

    /// Points now.
    pub(crate) fn points(&self, now: Tick) -> u32 {
        let forgiven = u32::try_from(now.since(self.since).as_secs()).unwrap_or(u32::MAX);
        self.points.saturating_sub(forgiven)
    }

    /// It was the first to bring a run.
    pub(crate) fn delivered(&mut self) {
        self.credit = (self.credit + 1).min(MAX_CREDIT);
    }

    /// It did not send what it said to have.
    pub(crate) fn broke_promise(&mut self, now: Tick) {
        self.broken = self.broken(now).saturating_add(1);
        self.halved = now;
        self.credit = self.credit.saturating_sub(1);
    }

    /// Promises broken lately.
    pub(crate) fn broken(&self, now: Tick) -> u32 {
        let halvings = u32::try_from(now.since(self.halved).as_secs() / 10).unwrap_or(u32::MAX);
        self.broken.checked_shr(halvings).unwrap_or(0)
    }

    /// It was the first to bring an author.
    pub(crate) fn introduced(&mut self, now: Tick) {
        self.authors = self.authors(now).saturating_add(1);
        self.authors_since = now;
    }

    /// Authors that it was the first to bring lately.
    pub(crate) fn authors(&self, now: Tick) -> u32 {
        let old = now.since(self.authors_since).as_secs() / 20;
        self.authors.saturating_sub(u32::try_from(old).unwrap_or(u32::MAX))
    }

    /// Misbehaviour and broken promises, and then how little it brought: less is better.
    pub(crate) fn rank(&self, now: Tick) -> (u32, u32) {
        let lazy = u32::from(self.points(now) >= LAZY_AT) << 16;
        (lazy | self.broken(now).min(0xff), (MAX_CREDIT - self.credit) / 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_forgeries_are_enough_and_time_forgives() {
        let mut score = Score::new(Tick::ZERO);
        assert!((0..9).all(|_| !score.add(Tick::ZERO, 10)));
        assert!(score.add(Tick::ZERO, 10));
        let mut slow = Score::new(Tick::ZERO);
        assert!((0..1000).all(|n| !slow.add(Tick::from_millis(n * 10_000), 10)));
    }

    #[test]
    fn who_breaks_promises_is_asked_last_for_a_while() {
        let (mut good, mut bad) = (Score::new(Tick::ZERO), Score::new(Tick::ZERO));
        (0..16).for_each(|_| good.delivered());
        (0..4).for_each(|_| bad.broke_promise(Tick::ZERO));
        assert!(good.rank(Tick::ZERO) < bad.rank(Tick::ZERO));
        assert_eq!(bad.broken(Tick::from_millis(25_000)), 1);
        assert_eq!(bad.broken(Tick::from_millis(2_500_000)), 0);
    }
}
