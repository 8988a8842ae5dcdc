//! Anchors: a few neighbours of long standing that are remembered beyond a restart.
//!
//! They are chosen at random among those known for long and then kept while they are neighbours, so that
//! nobody becomes one by coming at the right moment (E. Heilman et al., 2015).

use std::time::Duration;

use x0x_core::{MachineId, Tick};

use super::HyParView;
use crate::cache::MAX_ANCHORS;

/// For how long an anchor has been a neighbour when it is chosen.
const LONG_STANDING: Duration = Duration::from_secs(600);

impl HyParView {
    /// The neighbours to go back to first after a restart, at most [`MAX_ANCHORS`].
    pub fn anchors(&self) -> impl Iterator<Item = MachineId> {
        self.anchors.iter().copied()
    }

    /// Drops anchors that are no neighbours any more, and chooses others.
    pub(super) fn choose_anchors(&mut self, now: Tick) {
        self.anchors.retain(|id| self.active.contains(*id));
        while self.anchors.len() < MAX_ANCHORS {
            let mut candidates: Vec<MachineId> = self.active.ids().collect();
            candidates.retain(|id| {
                let since = self.linked_since(*id);
                let long_standing = since.is_some_and(|since| now.since(since) >= LONG_STANDING);
                long_standing && !self.anchors.contains(id)
            });
            let Some(id) = candidates.get(self.rng.below(candidates.len())) else { return };
            self.anchors.push(*id);
        }
    }
}
