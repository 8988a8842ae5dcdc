//! The discovery simulator: the production finder and the production presence machine of each node over
//! one set of simulated sessions, at thousands of nodes that come and go.
//!
//! Nodes have a few neighbours each, know a share of the others by address, and watch a few agents:
//! some near them, some anywhere. A node that is killed is missed by its peers when their transport
//! gives up; one that leaves says goodbye. Either comes back some minutes later with its keys and
//! nothing else.

mod report;
mod world;

use std::time::Duration;

pub use report::{Report, Sight};
pub use world::World;

/// What a run is like.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Nodes that run at a time, about.
    pub nodes: usize,
    /// Share of the running nodes that end in a minute; half of them are killed.
    pub churn: f64,
    /// Share of the nodes that hold nothing and lie or say nothing when they are asked.
    pub bad: f64,
    /// How long is measured, after the nodes have found their places.
    pub time: Duration,
    /// How long a search may take.
    pub patience: Duration,
    /// Searches begun in a second.
    pub finds: u32,
    /// Everything random follows from it.
    pub seed: u64,
}

impl Config {
    /// The defaults: a tenth comes and goes in a minute, and all are honest.
    #[must_use]
    pub const fn new(nodes: usize, seed: u64) -> Self {
        let (time, patience) = (Duration::from_secs(600), Duration::from_secs(2));
        Self { nodes, churn: 0.1, bad: 0.0, time, patience, finds: 50, seed }
    }
}

/// Runs it.
#[must_use]
pub fn run(config: &Config) -> Report {
    World::new(config).run()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(bad: f64) -> Report {
        let mut config = Config::new(150, 3);
        (config.bad, config.time, config.finds) = (bad, Duration::from_secs(240), 5);
        run(&config)
    }

    #[test]
    fn a_small_run_finds_and_sees_and_repeats() {
        let report = small(0.0);
        assert!(report.find_success() >= 0.99, "{report}");
        assert!(report.killed > 10 && report.left > 10, "{report}");
        assert!(!report.linked.detected.is_empty(), "{report}");
        assert_eq!(report.linked.undetected, 0, "{report}");
        assert_eq!(report.to_string(), small(0.0).to_string(), "the seed is all there is");
    }

    #[test]
    fn liars_are_survived() {
        let report = small(0.2);
        assert!(report.find_success() >= 0.98, "{report}");
    }
}
