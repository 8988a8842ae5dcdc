//! Timing and bounds, with reasons.

use std::time::Duration;

/// Most agents whose presence is known. When more are, one makes room: those without a session first,
/// then those that nobody here watches, then who was seen longest ago.
pub const MAX_SUBJECTS: usize = 1024;
/// Most agents that are watched; further ones are ignored.
pub const MAX_WATCHED: usize = 1024;
/// Most sessions that presence speaks on. On further ones the session itself still shows who is there.
pub const MAX_LINKS: usize = 1024;
/// Most agents that one peer may ask for, and that are asked of one.
pub const MAX_INTEREST: usize = 256;
/// Most walks remembered; the oldest is forgotten, and its answers are dropped.
pub const MAX_WALKS: usize = 512;
/// Most origins of walks whose rate is remembered; the one heard longest ago is forgotten.
pub const MAX_ORIGINS: usize = 1024;
/// Links that a walk takes at each hop.
pub const FAN_OUT: usize = 3;
/// Most hops of a walk.
pub const MAX_TTL: u32 = 3;

/// Shortest and longest period that is believed of others.
pub const MIN_PERIOD: Duration = Duration::from_secs(5);
/// See [`MIN_PERIOD`].
pub const MAX_PERIOD: Duration = Duration::from_secs(600);

/// Settings of presence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceConfig {
    /// Time between own beacons. 30 s: 150 contacts then cost 0.3 KiB/s. Who has a session learns of an
    /// end from the session, so that the period only sets how soon others do.
    pub period: Duration,
    /// How long news about others wait to travel together. 5 s, a sixth of the period.
    pub batch: Duration,
    /// How long an agent whose session ended may take to come back before it is offline. 10 s: a daemon
    /// restarts, and a link moves, in less.
    pub grace: Duration,
    /// Whether others may pass on that this agent is there.
    pub shared: bool,
    /// Time between walks for watched agents that are not seen. 10 min: a walk of two hops is some six
    /// messages of 6 KiB.
    pub walk_interval: Duration,
    /// How long a walk is answered. 10 s.
    pub walk_timeout: Duration,
}

impl Default for PresenceConfig {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(30),
            batch: Duration::from_secs(5),
            grace: Duration::from_secs(10),
            shared: true,
            walk_interval: Duration::from_secs(600),
            walk_timeout: Duration::from_secs(10),
        }
    }
}
