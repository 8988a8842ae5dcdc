//! Memory of failed dials: who may be tried again, and when.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use x0x_core::{MachineId, SeededRng, Tick};

use crate::config::MAX_BACKOFFS;

/// An address in the role of a peer: a failure to find `A` there says nothing about `B`.
type Key = (Option<MachineId>, SocketAddr);

#[derive(Debug, Clone, Copy)]
struct Failure {
    count: u32,
    until: Tick,
}

/// Failed addresses with exponential back-off and jitter.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    failures: BTreeMap<Key, Failure>,
    by_end: BTreeSet<(Tick, Key)>,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, failures: BTreeMap::new(), by_end: BTreeSet::new() }
    }

    /// How many addresses are remembered.
    pub(super) fn len(&self) -> usize {
        self.failures.len()
    }

    /// When this address may be dialled: `None` means now.
    pub(super) fn blocked_until(
        &self,
        now: Tick,
        peer: Option<MachineId>,
        address: SocketAddr,
    ) -> Option<Tick> {
        self.failures.get(&(peer, address)).map(|f| f.until).filter(|until| *until > now)
    }

    pub(super) fn fail(
        &mut self,
        now: Tick,
        peer: Option<MachineId>,
        address: SocketAddr,
        rng: &mut SeededRng,
    ) {
        self.forget_old(now);
        let key = (peer, address);
        let count = self.remove(key).map_or(0, |failure| failure.count).saturating_add(1);
        let doubled = self.min.saturating_mul(1 << (count - 1).min(20)).min(self.max);
        // Three quarters to five quarters, so that peers that failed together part.
        let until = now + doubled * u32::try_from(rng.range(192, 321)).unwrap_or(256) / 256;
        self.failures.insert(key, Failure { count, until });
        self.by_end.insert((until, key));
        if self.failures.len() > MAX_BACKOFFS
            && let Some((_, first)) = self.by_end.first().copied()
        {
            self.remove(first);
        }
    }

    /// The peer was reached, at this address if it is known.
    pub(super) fn succeed(&mut self, peer: MachineId, address: Option<SocketAddr>) {
        let first = (Some(peer), SocketAddr::from(([0, 0, 0, 0], 0)));
        let of_peer = self.failures.range(first..).map(|(key, _)| *key);
        let keys: Vec<Key> = of_peer
            .take_while(|(owner, _)| *owner == Some(peer))
            .chain(address.map(|address| (None, address)))
            .collect();
        for key in keys {
            self.remove(key);
        }
    }

    /// Failures say nothing any more: this machine is somewhere else.
    pub(super) fn forget_all(&mut self) {
        self.failures.clear();
        self.by_end.clear();
    }

    /// An address that was left alone for long after its back-off starts afresh.
    fn forget_old(&mut self, now: Tick) {
        while let Some((until, key)) = self.by_end.first().copied()
            && until + self.max < now
        {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: Key) -> Option<Failure> {
        let failure = self.failures.remove(&key)?;
        self.by_end.remove(&(failure.until, key));
        Some(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(500);
    const MAX: Duration = Duration::from_secs(300);

    fn address(n: u32) -> SocketAddr {
        SocketAddr::from((n.to_be_bytes(), 1000))
    }

    #[test]
    fn a_dead_address_takes_a_fraction_of_a_kilobyte() {
        // Nodes of both trees are half full at least.
        let entries = size_of::<(Key, Failure)>() + size_of::<(Tick, Key)>();
        assert!(2 * entries <= 512, "{entries}");
    }

    #[test]
    fn doubles_to_the_cap_and_resets() {
        let mut backoff = Backoff::new(MIN, MAX);
        let mut rng = SeededRng::from_number(1);
        let (peer, at) = (MachineId::new([1; 32]), address(1));
        let mut now = Tick::ZERO;
        for round in 0..20_u32 {
            backoff.fail(now, Some(peer), at, &mut rng);
            let until = backoff.blocked_until(now, Some(peer), at).expect("blocked");
            let expected = MIN.saturating_mul(1 << round.min(12)).min(MAX);
            assert!(until - now >= expected * 3 / 4 && until - now <= expected * 5 / 4);
            now = until;
            assert_eq!(backoff.blocked_until(now, Some(peer), at), None);
        }
        backoff.fail(now, None, at, &mut rng);
        backoff.fail(now, Some(peer), address(2), &mut rng);
        assert_eq!(backoff.blocked_until(now, Some(MachineId::new([2; 32])), at), None);
        backoff.succeed(peer, Some(at));
        assert!(backoff.failures.is_empty() && backoff.by_end.is_empty());
    }

    #[test]
    fn memory_is_capped_and_ages() {
        let mut backoff = Backoff::new(MIN, MAX);
        let mut rng = SeededRng::from_number(2);
        for n in 0..(MAX_BACKOFFS as u32 + 50) {
            backoff.fail(Tick::from_millis(u64::from(n)), None, address(n), &mut rng);
        }
        assert_eq!(backoff.failures.len(), MAX_BACKOFFS);
        assert_eq!(backoff.by_end.len(), MAX_BACKOFFS);
        backoff.fail(Tick::ZERO + MAX * 10, None, address(1), &mut rng);
        assert_eq!(backoff.failures.len(), 1);
    }
}
