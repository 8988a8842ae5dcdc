//! Timing of announcements and what is kept of those of others.

use std::time::Duration;

/// Most agents in the discovery cache. When it is full, the one seen longest ago makes room, of those
/// that only announced themselves first.
pub const MAX_DISCOVERED: usize = 4096;

/// Shortest time between two announcements of this node. Every announcement travels to the whole
/// network, so a local client that asks for them in a loop must not set the pace.
pub const MIN_ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);

/// Settings of discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryConfig {
    /// Time between announcements; each interval varies by a tenth, so that nodes which started
    /// together spread out. 300 s, a third of `freshness`: two may be lost before an agent is
    /// listed no more.
    pub heartbeat: Duration,
    /// The first announcement is repeated after this time and up to a third more. 3 s: at the start
    /// a node may have no neighbours yet to carry the first one.
    pub repeat_after: Duration,
    /// How long an agent that was heard of is listed as present. 900 s.
    pub freshness: Duration,
    /// Validity of the binding in an announcement. 25 h, an hour more than pubsub retains it.
    pub binding_validity: Duration,
    /// Whether loopback addresses are announced and believed. Only for nodes that share one machine:
    /// elsewhere they are useless, and a peer that announces them makes us dial ourselves.
    pub allow_loopback: bool,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(300),
            repeat_after: Duration::from_secs(3),
            freshness: Duration::from_secs(900),
            binding_validity: Duration::from_secs(25 * 3600),
            allow_loopback: false,
        }
    }
}
