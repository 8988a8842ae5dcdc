//! Where the file is, how safe a commit is, and every bound.

use std::{path::PathBuf, time::Duration};

/// Commands that wait for the writer; callers wait beyond it.
pub const MAX_COMMANDS: usize = 64;

/// Changes after which a transaction takes no further commit.
pub const MAX_GROUP_CHANGES: usize = 1024;

/// Bytes of runs after which a transaction takes no further commit. The journal grows to
/// about five times this at most.
pub const MAX_GROUP_BYTES: u64 = 4 * 1024 * 1024;

/// Changes that are committed though not in the tables yet; what exceeds it waits for the writer.
pub const MAX_TAIL_CHANGES: usize = 8 * MAX_GROUP_CHANGES;

/// Bytes of the same.
pub const MAX_TAIL_BYTES: u64 = 4 * 1024 * 1024;

/// How long they gather before they are applied, unless they fill a quarter of that before.
pub(crate) const TAIL_BATCH_TIME: Duration = Duration::from_millis(200);

/// Damaged files that are kept aside; the oldest goes.
pub const MAX_DAMAGED_FILES: usize = 4;

/// The smallest cap of the file that is taken.
pub const MIN_FILE_BYTES: u64 = 1024 * 1024;

/// Bytes of a page: a run of one small entry, most of it signature, fills one.
pub(crate) const PAGE_BYTES: u64 = 4096;

/// Pages of the journal after which it is written back into the file: beside the writer, or by it
/// at four times as many.
pub(crate) const JOURNAL_PAGES: u64 = 1024;

/// Runs that one step of expiry or eviction takes: not fewer than a transaction may bring.
pub(crate) const STEP_RUNS: usize = MAX_GROUP_CHANGES;

/// Rows of mail that one step of pruning or indexing takes.
pub(crate) const STEP_MAIL: i64 = 256;

/// Unread mail that is told to a service that starts: as much as its quotas allow.
pub(crate) const MAX_UNREAD: i64 = 64 * 1024;

/// Consumers of mail that are told to a service that starts.
pub(crate) const MAX_CONSUMERS: i64 = 1024;

/// Row numbers of topics and authors that the writer remembers; all are forgotten beyond it.
pub(crate) const MAX_KNOWN_ROWS: usize = 1024;

/// What a commit outlives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// The end of the process at any point, `kill -9` included. A power loss may take the last
    /// commits, never what was before them and never the file. What it takes comes back from
    /// neighbours.
    #[default]
    Process,
    /// A power loss too, at the cost of a flush to the disk for each transaction.
    Power,
}

/// Settings of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreConfig {
    /// The database file. It and missing directories above it are made, readable by the owner only.
    pub path: PathBuf,
    /// What a commit outlives.
    pub durability: Durability,
    /// The same for mail that comes and letters that are posted, which no neighbour gives back: their
    /// transactions are flushed with [`Durability::Power`], the others as `durability` says.
    pub mail_durability: Durability,
    /// Bytes in use after which the oldest runs of all topics go; 1 GiB unless set, at least
    /// [`MIN_FILE_BYTES`]. The file is never larger than a quarter more. It keeps its size when runs
    /// go, and their space is used again.
    pub max_bytes: u64,
    /// Bytes of the writer's page cache; 256 KiB unless set, since it appends and reads little back. A
    /// load has a cache of half of it.
    pub cache_bytes: u64,
}

impl StoreConfig {
    /// The defaults for a file.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            durability: Durability::default(),
            mail_durability: Durability::default(),
            max_bytes: 1024 * 1024 * 1024,
            cache_bytes: 256 * 1024,
        }
    }

    /// Whether mail is flushed where nothing else is.
    pub(crate) fn flushes_mail(&self) -> bool {
        self.mail_durability == Durability::Power && self.durability == Durability::Process
    }

    /// Bytes in use above which runs are evicted.
    pub(crate) fn cap(&self) -> u64 {
        self.max_bytes.max(MIN_FILE_BYTES)
    }

    /// Pages that the file never exceeds, whatever happens.
    pub(crate) fn hard_pages(&self) -> u64 {
        let cap = self.cap();
        cap.saturating_add(cap / 4) / PAGE_BYTES
    }
}
