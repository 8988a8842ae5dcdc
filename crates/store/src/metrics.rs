//! What the store counts.

use x0x_core::{Counter, Gauge, Metric};
use x0x_gossip_pubsub::StoreError;

/// Counters of one store, shared by its handles.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// Commits that were asked for and done.
    pub commits: Counter,
    /// Transactions that they took.
    pub transactions: Counter,
    /// Changes that a crash had left out of the tables, applied at the start.
    pub replayed: Counter,
    /// Changes in them.
    pub changes: Counter,
    /// Encoded bytes of appended runs.
    pub run_bytes: Counter,
    /// Bytes of mail and letters stored, nearly.
    pub mail_bytes: Counter,
    /// Topics loaded.
    pub loads: Counter,
    /// Runs loaded.
    pub runs_loaded: Counter,
    /// Rows left out of a load, since their seal is broken or what they refer to is gone.
    pub rows_damaged: Counter,
    /// Runs that expired.
    pub runs_expired: Counter,
    /// Runs evicted to keep the file below its cap.
    pub runs_evicted: Counter,
    /// Damaged files set aside.
    pub files_damaged: Counter,
    /// Rows of mail carried over from them.
    pub rows_carried: Counter,
    /// Commits and loads that failed on the disk.
    pub failed_io: Counter,
    /// The same, on damaged data.
    pub failed_corrupt: Counter,
    /// The same, for want of space.
    pub failed_full: Counter,
    /// The same, by a mistake of this crate.
    pub failed_internal: Counter,
    /// 1 when the last commit failed for want of space, else 0.
    pub full: Gauge,
    /// Bytes in use in the file, as of the last look at it.
    pub bytes_used: Gauge,
}

impl StoreMetrics {
    /// All values now.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Metric> {
        vec![
            self.commits.metric("store_commits", "Commits done"),
            self.transactions.metric("store_transactions", "Transactions that commits took"),
            self.replayed.metric("store_replayed", "Changes applied that a crash had left"),
            self.changes.metric("store_changes", "Changes committed"),
            self.run_bytes.metric("store_run_bytes", "Encoded bytes of runs committed"),
            self.mail_bytes.metric("store_mail_bytes", "Bytes of mail committed"),
            self.loads.metric("store_loads", "Topics loaded"),
            self.runs_loaded.metric("store_runs_loaded", "Runs loaded"),
            self.rows_damaged.metric("store_rows_damaged", "Damaged rows left out of loads"),
            self.runs_expired.metric("store_runs_expired", "Runs that expired"),
            self.runs_evicted.metric("store_runs_evicted", "Runs evicted at the file's cap"),
            self.files_damaged.metric("store_files_damaged", "Damaged files set aside"),
            self.rows_carried.metric("store_rows_carried", "Rows of mail read from damaged files"),
            self.failed_io.metric("store_failed_io", "Operations that failed on the disk"),
            self.failed_corrupt.metric("store_failed_corrupt", "Operations that met damaged data"),
            self.failed_full.metric("store_failed_full", "Operations refused for want of space"),
            self.failed_internal.metric("store_failed_internal", "Operations failed by mistake"),
            self.bytes_used.metric("store_bytes_used", "Bytes in use in the file"),
        ]
    }

    pub(crate) fn failed(&self, error: &StoreError) {
        match error {
            StoreError::Io(_) => self.failed_io.inc(),
            StoreError::Corrupt(_) => self.failed_corrupt.inc(),
            StoreError::Full => {
                self.full.set(1);
                self.failed_full.inc();
            }
            StoreError::Closed => {}
            _ => self.failed_internal.inc(),
        }
    }
}
