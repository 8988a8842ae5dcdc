//! One value of a layer's metrics snapshot.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a value means over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// Only grows while the process runs.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A named value. Layers keep plain atomic counters and hand out a list of these; what exposes them
/// (the daemon, as OpenMetrics) knows nothing of the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Snake-case name without the `x0x_` prefix, such as `pubsub_runs_refused_signature`.
    pub name: &'static str,
    /// One line of what it counts.
    pub help: &'static str,
    /// Whether it only grows.
    pub kind: MetricKind,
    /// The value now.
    pub value: u64,
}

/// A value that only grows: relaxed, since nothing is ordered by it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// This counter as an entry of a snapshot.
    #[must_use]
    pub fn metric(&self, name: &'static str, help: &'static str) -> Metric {
        Metric { name, help, kind: MetricKind::Counter, value: self.value() }
    }
}

/// A value that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// This gauge as an entry of a snapshot.
    #[must_use]
    pub fn metric(&self, name: &'static str, help: &'static str) -> Metric {
        Metric { name, help, kind: MetricKind::Gauge, value: self.value() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_entries_carry_the_value() {
        let counter = Counter::default();
        counter.inc();
        counter.add(2);
        assert_eq!(counter.metric("a", "b").value, 3);
        let gauge = Gauge::default();
        gauge.set(7);
        assert_eq!(gauge.metric("a", "b").kind, MetricKind::Gauge);
        assert_eq!(gauge.value(), 7);
    }
}
