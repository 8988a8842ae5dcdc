//! Parameters of the overlay, with the reason for each number.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    book::{MAX_HEARSAY, MAX_TRIED},
    view::{MAX_ACTIVE, MAX_PASSIVE},
};

/// Longest random walk that a message may ask for; larger values on the wire are cut to it.
pub const MAX_WALK: u8 = 6;
/// Most entries of one shuffle.
pub const MAX_SHUFFLE_ENTRIES: usize = 16;

/// Parameters of the HyParView machine. `Default` gives the values of DSN'07 §5.1 where the paper
/// has one, widened for overlays of a few nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayConfig {
    /// Below this many neighbours the node looks for more at once. The paper's active view for
    /// 10,000 nodes; the node looks for more, up to eight, when the overlay seems larger than that.
    pub active_target: usize,
    /// Most neighbours, at most [`MAX_ACTIVE`]. Low-priority requests are refused from here on. The
    /// node fills its view up to one less, slowly, and keeps the last place for a newcomer: so eight
    /// nodes form a full mesh, and a join seldom pushes somebody else out.
    pub active_max: usize,
    /// Most peers known beside the neighbours, at most [`MAX_PASSIVE`]. Larger than the active view
    /// by the factor that survives 80 % simultaneous failures in the paper.
    pub passive_max: usize,
    /// Hops of a forwarded join (ARWL), at most [`MAX_WALK`].
    pub active_walk: u8,
    /// Hops left when a forwarded join is noted in the passive view (PRWL).
    pub passive_walk: u8,
    /// Hops of a shuffle, at most [`MAX_WALK`].
    pub shuffle_walk: u8,
    /// Time between two shuffles, give or take a fifth so that nodes do not fall into step.
    pub shuffle_interval: Duration,
    /// Neighbours in a shuffle (k_a).
    pub shuffle_active: usize,
    /// Passive peers in a shuffle (k_p).
    pub shuffle_passive: usize,
    /// Time between two attempts to fill the view beyond `active_target`.
    pub fill_interval: Duration,
    /// Time between two attempts to reach somebody who may be on the other side of a healed
    /// partition, give or take a fifth: a former neighbour, a bootstrap address that is silent, or a
    /// peer that was reached before.
    pub probe_interval: Duration,
    /// Most neighbours from one public network (/24 of IPv4, /48 of IPv6), as long as others are
    /// known: one operator has many addresses of one network for little. Where more networks were
    /// reached than this fills the view with, it is fewer, down to one.
    pub max_per_network: usize,
    /// Most neighbours that this node did not choose itself: the other places of a full view are for
    /// peers that it picked and asked, and no number of strangers takes them. At most `active_max`.
    pub inbound_max: usize,
    /// Most peers remembered that this node once reached itself, at most [`MAX_TRIED`].
    pub tried_max: usize,
    /// Most peers remembered from hearsay beside the passive view, at most [`MAX_HEARSAY`]; no one
    /// source fills more than an eighth.
    pub hearsay_max: usize,
    /// Time between two pings, each of another neighbour, give or take a fifth. The transport finds
    /// dead peers by itself; these find what it cannot see, at the cost of one message.
    pub ping_interval: Duration,
    /// The same while packets come from every neighbour: what is left to find is a process that
    /// answers packets and not messages.
    pub calm_ping_interval: Duration,
    /// For how long no packet came from a neighbour that is pinged out of turn: longer than the
    /// transport's keep-alive interval.
    pub silence: Duration,
    /// Shortest time that an answer may take; else it is four round trips.
    pub ping_timeout_min: Duration,
    /// Longest time that an answer may take.
    pub ping_timeout_max: Duration,
    /// Time between two pings of a neighbour that is suspected to have failed.
    pub suspect_interval: Duration,
    /// How long a neighbour is suspected that three others find silent too.
    pub suspicion_min: Duration,
    /// How long a neighbour is suspected that nobody else can be asked about.
    pub suspicion_max: Duration,
    /// How long an answer to a join or a neighbour request may take.
    pub request_timeout: Duration,
    /// How long a dial may take, the session hello included.
    pub dial_timeout: Duration,
    /// How long a peer that refused is left alone, doubling up to `refusal_max`.
    pub refusal_min: Duration,
    /// Longest time that a peer which refused is left alone.
    pub refusal_max: Duration,
    /// First pause before a bootstrap address or a lost neighbour is dialled again.
    pub retry_min: Duration,
    /// Longest such pause.
    pub retry_max: Duration,
    /// How long gossip about a peer that was just lost is not believed: longer than one shuffle, so
    /// that its neighbours have noticed too.
    pub deny_time: Duration,
}

impl Default for OverlayConfig {
    fn default() -> Self {
        Self {
            active_target: 5,
            active_max: 8,
            passive_max: 48,
            active_walk: 6,
            passive_walk: 3,
            shuffle_walk: 6,
            shuffle_interval: Duration::from_secs(30),
            shuffle_active: 3,
            shuffle_passive: 8,
            fill_interval: Duration::from_secs(1),
            probe_interval: Duration::from_secs(60),
            max_per_network: 2,
            inbound_max: 6,
            tried_max: MAX_TRIED,
            hearsay_max: MAX_HEARSAY,
            ping_interval: Duration::from_secs(5),
            calm_ping_interval: Duration::from_secs(20),
            silence: Duration::from_secs(9),
            ping_timeout_min: Duration::from_millis(300),
            ping_timeout_max: Duration::from_secs(3),
            suspect_interval: Duration::from_secs(2),
            suspicion_min: Duration::from_secs(6),
            suspicion_max: Duration::from_secs(30),
            request_timeout: Duration::from_secs(5),
            dial_timeout: Duration::from_secs(15),
            refusal_min: Duration::from_secs(10),
            refusal_max: Duration::from_secs(300),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(60),
            deny_time: Duration::from_secs(60),
        }
    }
}

impl OverlayConfig {
    /// Checks the bounds that the machine relies on.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first parameter out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let durations = [
            self.shuffle_interval,
            self.fill_interval,
            self.probe_interval,
            self.request_timeout,
            self.dial_timeout,
            self.refusal_min,
            self.retry_min,
            self.ping_interval,
            self.silence,
            self.ping_timeout_min,
            self.suspect_interval,
        ];
        let checks = [
            ((2..=MAX_ACTIVE).contains(&self.active_max), "active_max"),
            ((1..self.active_max).contains(&self.active_target), "active_target"),
            ((1..=MAX_PASSIVE).contains(&self.passive_max), "passive_max"),
            ((1..=MAX_WALK).contains(&self.active_walk), "active_walk"),
            (self.passive_walk <= self.active_walk, "passive_walk"),
            ((1..=MAX_WALK).contains(&self.shuffle_walk), "shuffle_walk"),
            // One place is for the node itself.
            (
                self.shuffle_active.saturating_add(self.shuffle_passive) < MAX_SHUFFLE_ENTRIES,
                "shuffle_active and shuffle_passive",
            ),
            (durations.iter().all(|d| *d >= Duration::from_millis(1)), "intervals and timeouts"),
            (self.refusal_max >= self.refusal_min, "refusal_max"),
            (self.retry_max >= self.retry_min, "retry_max"),
            (self.max_per_network >= 1, "max_per_network"),
            ((1..=MAX_ACTIVE).contains(&self.inbound_max), "inbound_max"),
            (self.tried_max <= MAX_TRIED, "tried_max"),
            (self.hearsay_max <= MAX_HEARSAY, "hearsay_max"),
            (self.calm_ping_interval >= self.ping_interval, "calm_ping_interval"),
            (self.ping_timeout_max >= self.ping_timeout_min, "ping_timeout_max"),
            (self.suspicion_max >= self.suspicion_min, "suspicion_max"),
        ];
        match checks.into_iter().find(|(holds, _)| !holds) {
            Some((_, parameter)) => Err(ConfigError(parameter)),
            None => Ok(()),
        }
    }

    /// How many neighbours the node looks for; the last place is kept for newcomers.
    pub(crate) const fn fill(&self) -> usize {
        self.active_max - 1
    }
}

/// What a node's membership is started with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MembershipConfig {
    /// Parameters of the overlay.
    pub overlay: OverlayConfig,
    /// Addresses of nodes that may already be in the overlay; their identities are learned by
    /// dialling. The first [`crate::state::MAX_BOOTSTRAP`] are used.
    pub bootstrap: Vec<SocketAddr>,
    /// Where peers are remembered between runs, usually `<data_dir>/peer_cache/peers.json`. Without
    /// it nothing is written.
    pub cache_file: Option<PathBuf>,
}

/// A parameter is out of range. The caller's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("overlay parameter out of range: {0}")]
pub struct ConfigError(pub &'static str);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_checked() {
        let check = |change: fn(&mut OverlayConfig)| {
            let mut config = OverlayConfig::default();
            change(&mut config);
            config.validate()
        };
        assert_eq!(check(|_| ()), Ok(()));
        assert_eq!(check(|c| c.active_max = 13), Err(ConfigError("active_max")));
        assert_eq!(check(|c| c.active_target = 8), Err(ConfigError("active_target")));
        assert_eq!(check(|c| c.passive_max = 97), Err(ConfigError("passive_max")));
        assert_eq!(check(|c| c.active_walk = 7), Err(ConfigError("active_walk")));
        assert!(check(|c| c.shuffle_passive = 13).is_err());
        assert!(check(|c| c.fill_interval = Duration::ZERO).is_err());
        assert!(check(|c| c.retry_max = Duration::ZERO).is_err());
    }
}
