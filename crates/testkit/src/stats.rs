//! Counts of what the simulated network did.

/// Totals since the swarm began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Messages handed to the network.
    pub sent: u64,
    /// Messages handed to a machine.
    pub delivered: u64,
    /// Messages that vanished by the link's loss or by a partition.
    pub lost: u64,
    /// Messages sent without a session, or overtaken by its end.
    pub undeliverable: u64,
    /// Sessions opened.
    pub sessions: u64,
    /// Dials that failed.
    pub failed_dials: u64,
    /// Timeouts handled by machines.
    pub timeouts: u64,
    /// Simulated events processed in all.
    pub events: u64,
}
