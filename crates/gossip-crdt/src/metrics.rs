//! What is counted, over all objects of a service.

use x0x_core::{Counter, Gauge, Metric};

use crate::error::Reason;

/// Counters of a service's objects. Every reason for which an operation is skipped has its own.
#[derive(Debug, Default)]
pub struct CrdtMetrics {
    /// Operations applied.
    pub applied: Counter,
    /// Operations that were here already.
    pub duplicates: Counter,
    /// Operations skipped, by reason.
    pub(crate) invalid: [Counter; 8],
    /// Operations of actors beyond the cap.
    pub barred: Counter,
    /// Operations dropped because too many waited; they are read again.
    pub pending_dropped: Counter,
    /// Objects rebuilt from their base.
    pub rebuilds: Counter,
    /// Checkpoints that replicas stand on since.
    pub checkpoints: Counter,
    /// Checkpoints that are not what their operations make.
    pub checkpoints_refused: Counter,
    /// Entries that the log could not supply.
    pub lagged: Counter,
    /// Local writes refused.
    pub writes_refused: Counter,
    /// Replicas stored.
    pub saved: Counter,
    /// Replicas that could not be stored.
    pub save_failed: Counter,
    /// Objects open.
    pub open: Gauge,
}

impl CrdtMetrics {
    pub(crate) fn invalid(&self, reason: Reason) {
        if let Some(counter) = self.invalid.get(reason.index()) {
            counter.inc();
        }
    }

    /// All values.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Metric> {
        const NAMES: [(&str, &str); 8] = [
            ("crdt_invalid_malformed", "operations skipped: malformed"),
            ("crdt_invalid_reference", "operations skipped: bad reference"),
            ("crdt_invalid_not_writer", "operations skipped: author is no writer"),
            ("crdt_invalid_removed", "operations skipped: author was removed"),
            ("crdt_invalid_policy", "operations skipped: policy change not by the owner"),
            ("crdt_invalid_time", "operations skipped: time too far ahead"),
            ("crdt_invalid_quota", "operations skipped: chain over its quota"),
            ("crdt_invalid_type", "operations skipped: a rule of the type"),
        ];
        let invalid = self.invalid.iter().zip(NAMES);
        let mut metrics: Vec<Metric> =
            invalid.map(|(counter, (name, help))| counter.metric(name, help)).collect();
        metrics.extend([
            self.applied.metric("crdt_applied", "operations applied"),
            self.duplicates.metric("crdt_duplicates", "operations that were here already"),
            self.barred.metric("crdt_barred", "operations of actors beyond the cap"),
            self.pending_dropped.metric("crdt_pending_dropped", "waiting operations dropped"),
            self.rebuilds.metric("crdt_rebuilds", "objects rebuilt from their base"),
            self.checkpoints.metric("crdt_checkpoints", "checkpoints stood on"),
            self.checkpoints_refused.metric("crdt_checkpoints_refused", "checkpoints refused"),
            self.lagged.metric("crdt_lagged", "times that the log lacked entries"),
            self.writes_refused.metric("crdt_writes_refused", "local writes refused"),
            self.saved.metric("crdt_saved", "replicas stored"),
            self.save_failed.metric("crdt_save_failed", "replicas that could not be stored"),
            self.open.metric("crdt_open", "objects open"),
        ]);
        metrics
    }
}
