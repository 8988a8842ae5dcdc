//! Which incoming handshakes are worth a signature.
//!
//! Networks are counted in a fixed table indexed by a keyed hash, so that no peer can make it grow
//! or choose whom it collides with. Handshakes from unproven addresses use entries of their own:
//! whoever forges source addresses can only make the true owners of those addresses prove theirs.

use std::{
    hash::{BuildHasher, RandomState},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use x0x_core::{Tick, TokenBucket};

use super::config::QuicLimits;
use crate::prefix::Prefix;

/// Entries of the table. Draining all of them takes a quarter of a million handshakes a second at
/// the default rate, more than the CPU can begin to answer.
const MAX_NETWORKS: usize = 4096;

/// What to do with an incoming handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    /// Let the dialler prove its address first.
    Retry,
    /// In the place of the oldest one that is in progress.
    Replace,
    RefuseRate,
}

/// Decides by the number of pending handshakes and by the rate of each network.
#[derive(Debug)]
pub(super) struct Admission<S = RandomState> {
    limits: QuicLimits,
    networks: Box<[TokenBucket]>,
    /// Of IPv6, twice as generous.
    sites: Box<[TokenBucket]>,
    hasher: S,
}

impl Admission {
    pub(super) fn new(limits: QuicLimits) -> Self {
        Self::with_hasher(limits, RandomState::new())
    }
}

impl<S: BuildHasher> Admission<S> {
    fn with_hasher(limits: QuicLimits, hasher: S) -> Self {
        let refill = Duration::from_secs(1) / limits.network_rate.max(1);
        let table = |factor: u32| {
            let burst = limits.network_burst.saturating_mul(factor);
            let bucket = TokenBucket::new(burst, refill / factor, Tick::ZERO);
            vec![bucket; MAX_NETWORKS].into_boxed_slice()
        };
        Self { networks: table(1), sites: table(2), limits, hasher }
    }

    /// The time of a handshake that begins while `pending` others are in progress.
    pub(super) fn time_limit(&self, usual: Duration, pending: usize) -> Duration {
        match pending < self.limits.pending_before_hurry {
            true => usual,
            false => usual.min(self.limits.hurried_timeout),
        }
    }

    /// Judges a handshake from `remote` while `pending` others are in progress.
    pub(super) fn judge(
        &mut self,
        now: Tick,
        remote: SocketAddr,
        validated: bool,
        pending: usize,
    ) -> Verdict {
        if pending >= self.limits.pending_before_retry && !validated {
            return Verdict::Retry;
        }
        let ip = remote.ip().to_canonical();
        if ip.is_loopback() || self.take(now, ip, validated) {
            let full = pending >= self.limits.max_pending;
            return if full { Verdict::Replace } else { Verdict::Accept };
        }
        if validated { Verdict::RefuseRate } else { Verdict::Retry }
    }

    fn take(&mut self, now: Tick, ip: IpAddr, validated: bool) -> bool {
        let place = |prefix: Prefix| {
            (self.hasher.hash_one((prefix, validated)) % MAX_NETWORKS as u64) as usize
        };
        let site = Prefix::site(ip).map(place);
        self.networks[place(Prefix::of(ip))].take(now)
            && site.is_none_or(|site| self.sites[site].take(now))
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasherDefault, DefaultHasher};

    use super::*;

    fn admission() -> Admission<BuildHasherDefault<DefaultHasher>> {
        let limits = QuicLimits { network_rate: 10, network_burst: 5, ..QuicLimits::default() };
        Admission::with_hasher(limits, BuildHasherDefault::default())
    }

    fn address(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().unwrap(), 4000)
    }

    #[test]
    fn pending_handshakes_bring_retries_and_then_replace_each_other() {
        let mut admission = admission();
        let peer = address("192.0.2.1");
        for (pending, validated, verdict) in [
            (255, false, Verdict::Accept),
            (256, false, Verdict::Retry),
            (256, true, Verdict::Accept),
            (1023, true, Verdict::Accept),
            (1024, true, Verdict::Replace),
            (1024, false, Verdict::Retry),
        ] {
            assert_eq!(admission.judge(Tick::ZERO, peer, validated, pending), verdict);
        }
        let usual = Duration::from_secs(6);
        assert_eq!(admission.time_limit(usual, 511), usual);
        assert_eq!(admission.time_limit(usual, 512), Duration::from_secs(2));
    }

    #[test]
    fn a_site_of_ipv6_spends_twice_as_much() {
        let mut admission = admission();
        let mut judge = |network: u16| {
            let ip = IpAddr::from([0x2001, 0xdb8, 1, network << 8, 0, 0, 0, 1]);
            admission.judge(Tick::ZERO, SocketAddr::new(ip, 4000), true, 0)
        };
        for network in 0..10 {
            assert_eq!(judge(network), Verdict::Accept);
        }
        assert_eq!(judge(10), Verdict::RefuseRate);
    }

    #[test]
    fn a_network_spends_its_burst_and_earns_its_rate() {
        let mut admission = admission();
        let judge = |admission: &mut Admission<_>, now, text: &str, validated| {
            admission.judge(Tick::from_millis(now), address(text), validated, 0)
        };
        for host in 0..5 {
            let text = format!("192.0.2.{host}");
            assert_eq!(judge(&mut admission, 0, &text, false), Verdict::Accept);
        }
        assert_eq!(judge(&mut admission, 0, "192.0.2.77", false), Verdict::Retry);
        // As an IPv4 peer looks on a socket of both families.
        assert_eq!(judge(&mut admission, 0, "::ffff:192.0.2.77", false), Verdict::Retry);
        // Another network, and one that proved its address, have their own tokens.
        assert_eq!(judge(&mut admission, 0, "192.0.3.77", false), Verdict::Accept);
        for _ in 0..5 {
            assert_eq!(judge(&mut admission, 0, "192.0.2.1", true), Verdict::Accept);
        }
        assert_eq!(judge(&mut admission, 99, "192.0.2.1", true), Verdict::RefuseRate);
        assert_eq!(judge(&mut admission, 100, "192.0.2.1", true), Verdict::Accept);
        assert_eq!(judge(&mut admission, 100, "192.0.2.1", true), Verdict::RefuseRate);
    }

    #[test]
    fn loopback_is_exempt() {
        let mut admission = admission();
        for text in ["127.0.0.1", "::1"] {
            for _ in 0..50 {
                let verdict = admission.judge(Tick::ZERO, address(text), false, 0);
                assert_eq!(verdict, Verdict::Accept);
            }
        }
    }
}
