//! Settings and their defaults, and every bound of the protocol's state.

use std::{path::PathBuf, time::Duration};

use x0x_core::AgentId;
use x0x_trust::Reason;

/// Most transfers that have not ended, both directions together.
pub const MAX_LIVE: usize = 512;
/// Most of these that this machine offers.
pub const MAX_OUTGOING: usize = 256;
/// Most offers of one contact that nobody has answered.
pub const MAX_OFFERS_PER_CONTACT: usize = 32;
/// Most offers of one stranger that nobody has answered.
pub const MAX_OFFERS_PER_STRANGER: usize = 4;
/// Most offers of all strangers together that nobody has answered.
pub const MAX_OFFERS_OF_STRANGERS: usize = 64;
/// Most transfers that ended and are remembered; the one that ended first is forgotten.
pub const MAX_HISTORY: usize = 512;
/// Most files that are received at once; further ones wait for their turn, and take it from those that
/// do not move.
pub const MAX_RECEIVING: usize = 16;
/// Most transfers of one agent that rules accept and that have not ended: half of the places. Its further
/// offers are accepted when these have ended.
pub const MAX_ACCEPTED_BY_RULE: usize = 8;
/// Groups asked for and not stored yet, all transfers together: 12 MiB of memory.
pub const MAX_WINDOW: u64 = 96;
/// The most of these that one transfer may have, and the least.
pub const WINDOW: std::ops::RangeInclusive<u64> = 4..=48;
/// Groups that one job reads and sends.
pub const JOB_GROUPS: u64 = 8;
/// Jobs given out for one machine, which are done in order: the next one is there when one is done.
pub const JOBS_PER_PEER: usize = 2;
/// Groups read and not taken by the transport yet, for all machines together: 16 MiB of memory. Those for
/// a machine that takes nothing are dropped after [`TAKE_DEADLINE`], and a slow one is read for one by one.
pub const MAX_READ: usize = 128;
/// How long a machine may take no content before what was read for it is dropped.
pub const TAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Groups of its other files that a machine may send while one of them gets nothing of what it asked for:
/// more than two turns of all that may be received at once.
pub const MAX_AHEAD: u64 = 256;
/// Groups that a machine may want of one file at a time; what it asks for beyond that is left out.
pub const MAX_WANTED: u64 = 1024;
/// Groups that nobody asked for which a machine may send in a session.
pub const MAX_UNASKED: u32 = 4096;
/// Rules for accepting without a question.
pub const MAX_RULES: usize = 64;

/// Accepts offers without asking, of whom and up to which size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptRule {
    /// Whether strangers' offers are accepted.
    pub strangers: bool,
    /// Whether contacts' offers are accepted.
    pub known: bool,
    /// Whether the offers of trusted contacts are accepted.
    pub trusted: bool,
    /// Largest file in bytes.
    pub max_size: u64,
    /// Where the files go; `None` for the usual folder.
    pub folder: Option<PathBuf>,
}

impl AcceptRule {
    /// For trusted contacts, up to a size, into the usual folder.
    #[must_use]
    pub const fn trusted(max_size: u64) -> Self {
        Self { strangers: false, known: false, trusted: true, max_size, folder: None }
    }

    /// Whether the rule holds for an offer.
    #[must_use]
    pub fn holds(&self, reason: Reason, size: u64) -> bool {
        let who = match reason {
            Reason::Unknown => self.strangers,
            Reason::Known => self.known,
            Reason::Trusted | Reason::Pinned => self.trusted,
            _ => false,
        };
        who && size <= self.max_size
    }
}

/// Settings of file transfers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FilesConfig {
    /// Agents of this machine.
    pub local_agents: Vec<AgentId>,
    /// Rules for accepting without a question, the first that holds; at most [`MAX_RULES`]. Default
    /// none: nothing is accepted by itself.
    pub accept: Vec<AcceptRule>,
    /// Bytes of the disk that transfers leave free. Default 64 MiB, so that a stranger's file is never
    /// what stops the database.
    pub keep_free: u64,
    /// How long an offer waits for an answer. Default a week.
    pub offer_ttl: Duration,
    /// How long an accepted transfer of which nothing moves waits for the other end before it fails, so that it takes no
    /// place and no room for ever; begins anew at a restart. Default a month.
    pub idle_ttl: Duration,
    /// How often a full disk is looked at again, and how long after a failure of the disk it is tried
    /// again, which doubles with each time. Default 5 s.
    pub space_interval: Duration,
    /// How long nothing may arrive of what was asked of a machine before it is asked for again; doubles
    /// with each time. Its files share a line, so that what comes of one counts for all, up to
    /// [`MAX_AHEAD`]. Default 20 s.
    pub stall_after: Duration,
    /// First pause before a machine that is away is looked for; doubles up to [`seek_max`](Self::seek_max).
    pub seek_min: Duration,
    /// Longest such pause.
    pub seek_max: Duration,
    /// Shortest time between two events about the progress of a transfer. Default 250 ms.
    pub progress_interval: Duration,
}

impl FilesConfig {
    /// The defaults for these agents.
    #[must_use]
    pub const fn new(local_agents: Vec<AgentId>) -> Self {
        Self {
            local_agents,
            accept: Vec::new(),
            keep_free: 64 * 1024 * 1024,
            offer_ttl: Duration::from_secs(7 * 24 * 3600),
            idle_ttl: Duration::from_secs(30 * 24 * 3600),
            space_interval: Duration::from_secs(5),
            stall_after: Duration::from_secs(20),
            seek_min: Duration::from_secs(1),
            seek_max: Duration::from_secs(60),
            progress_interval: Duration::from_millis(250),
        }
    }
}
