//! One session with a peer, and what it may cost.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use x0x_core::{AgentId, Tick, TokenBucket};

use crate::{session::SessionId, wire::Tag};

/// Frames: a burst of a reconnecting peer, then 20 a second.
const FRAMES: (u32, Duration) = (256, Duration::from_millis(50));
/// Signatures and long chains: the records of a contact list at once, then 2 a second. Each is less than
/// a millisecond.
const CHECKS: (u32, Duration) = (64, Duration::from_millis(500));
/// Records told: as many as the other end may check.
const RECORDS: (u32, Duration) = (64, Duration::from_millis(250));
/// Walks: 6 a minute.
const WALKS: (u32, Duration) = (10, Duration::from_secs(10));

/// What is known and allowed of a peer.
#[derive(Debug)]
pub(super) struct Link {
    /// Proven in the session's hello.
    pub(super) agents: Vec<AgentId>,
    pub(super) neighbor: bool,
    /// What the peer asked for.
    pub(super) interest: BTreeSet<Tag>,
    /// The known agents among it.
    pub(super) wanted: BTreeSet<AgentId>,
    /// What the peer was asked for.
    pub(super) asked: Vec<Tag>,
    /// The latest beacon told of each session: at most the own one and the wanted.
    pub(super) told: BTreeMap<SessionId, u32>,
    pub(super) frames: TokenBucket,
    pub(super) checks: TokenBucket,
    pub(super) records: TokenBucket,
    pub(super) walks: TokenBucket,
}

impl Link {
    pub(super) const fn new(now: Tick, agents: Vec<AgentId>, neighbor: bool) -> Self {
        const fn bucket(rate: (u32, Duration), now: Tick) -> TokenBucket {
            TokenBucket::new(rate.0, rate.1, now)
        }
        Self {
            agents,
            neighbor,
            interest: BTreeSet::new(),
            wanted: BTreeSet::new(),
            asked: Vec::new(),
            told: BTreeMap::new(),
            frames: bucket(FRAMES, now),
            checks: bucket(CHECKS, now),
            records: bucket(RECORDS, now),
            walks: bucket(WALKS, now),
        }
    }
}
