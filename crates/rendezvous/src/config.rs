//! Timing and bounds of announcements, of filed records and of searches.

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

/// How long a filed record is valid.
pub const RECORD_VALIDITY: Duration = Duration::from_secs(2 * 3600);
/// Records under one key: further machines of one agent, or subscribers of one topic. The one that
/// expires first makes room.
pub const MAX_PER_KEY: usize = 8;
/// Records that one machine may file here. The one that expires first makes room.
pub const MAX_PER_PROVIDER: usize = 64;
/// Most bytes of records kept for others, whatever is configured. When they are full, whoever filed most gives
/// up the record that expires first.
pub const MAX_HELD_BYTES: usize = 64 * 1024 * 1024;
/// The same by default.
const DEFAULT_HELD_BYTES: usize = 8 * 1024 * 1024;
/// Most machines known that may hold records. When full, one of those that share as many bits with the local
/// id as most of them do makes room: one that failed, one that was never met, or the one met longest ago.
pub const MAX_VOLUNTEERS: usize = 512;
/// Most sessions that finding speaks on.
pub const MAX_LINKS: usize = 1024;
/// Most searches for callers at once; callers beyond it are refused.
pub const MAX_SEARCHES: usize = 64;
/// Most searches at once for holders of own records; further ones wait, and take no place of a caller's.
pub const MAX_FILINGS: usize = 16;
/// Most of them that wait: two days of each offer, and the climb to the own id.
pub const MAX_WAITING_FILINGS: usize = 2 * MAX_OFFERS + 1;
/// Most machines dialled at once.
pub const MAX_DIALS: usize = 48;
/// The same for filings, which leave the rest to callers.
pub const MAX_FILING_DIALS: usize = 16;
/// Shortest time between two filings of one subject because the own addresses changed.
pub const MIN_REFILE: Duration = Duration::from_secs(10);
/// Most subjects offered by this node: its agent and its topics.
pub const MAX_OFFERS: usize = 256;
/// Lookups of others remembered on their way through; the oldest is forgotten, and its answers dropped.
pub const MAX_WALKS: usize = 1024;
/// Misses remembered; the one least asked for is forgotten.
pub const MAX_MISSES: usize = 1024;
/// Holders that a record is filed with.
pub const COPIES: usize = 12;

/// Settings of finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinderConfig {
    /// Whether this node keeps records of others. All do by default.
    pub holds: bool,
    /// Bytes of records kept for others: at most, and where that is more, [`MAX_HELD_BYTES`]. 8 MiB.
    pub held_bytes: usize,
    /// Loopback addresses are told and believed: for nodes that share one machine.
    pub allow_loopback: bool,
    /// How long a holder may take to answer before the next one is asked beside it. 400 ms: twice the
    /// round trip of a far one.
    pub ask_timeout: Duration,
    /// The same for a holder that must be dialled first. 800 ms.
    pub dial_timeout: Duration,
    /// How long who was not found is not looked for again. 5 s: an agent that just started is found
    /// soon, and a caller who asks in a loop costs the network little.
    pub miss: Duration,
    /// Longest time between filings: half of the validity, so that one may fail. It begins with a
    /// sixtieth of it, grows by half where at least three quarters of the holders still had the record, and
    /// halves, to no less than at first, where not even half had.
    pub refresh: Duration,
}

impl FinderConfig {
    /// How long a dial may take: twice the time after which its search gives up on it, so that one that
    /// comes late still counts, and none that never comes keeps a place for long.
    #[must_use]
    pub fn dial_deadline(&self) -> Duration {
        self.dial_timeout * 2
    }
}

impl Default for FinderConfig {
    fn default() -> Self {
        Self {
            holds: true,
            held_bytes: DEFAULT_HELD_BYTES,
            allow_loopback: false,
            ask_timeout: Duration::from_millis(400),
            dial_timeout: Duration::from_millis(800),
            miss: Duration::from_secs(5),
            refresh: RECORD_VALIDITY / 2,
        }
    }
}
