//! Making checkpoints: the owner's part.

use std::{sync::Arc, time::Duration};

use x0x_core::WallTime;

use crate::{
    checkpoint::{Checkpoint, cut},
    config::{CHECKPOINT_BYTES, MAX_CHECKPOINT, MAX_UNCOVERED},
    object::Object,
    wire::{Body, OperationIn},
};

use super::{ObjectMachine, Prepared, base::Base, snapshot::hash_of};

/// How long the owner waits before it makes another one: as long as one takes to come back, and if it does not,
/// until it is tried again.
const REST: Duration = Duration::from_secs(60);

impl<T: Object> ObjectMachine<T> {
    /// Whether this agent is to make a checkpoint, by what was written since the last one.
    #[must_use]
    pub fn checkpoint_due(&self) -> bool {
        let least = CHECKPOINT_BYTES.max(2 * self.state.size() as u64);
        self.checkpoints.since >= least && self.checkpoints.next <= self.now && self.may_make()
    }

    /// Whether so much was written since the checkpoint before the last that nothing more may be, until the owner
    /// makes another one. What nobody owns, or is too large for one, has none.
    #[must_use]
    pub fn is_uncovered(&self) -> bool {
        let held = &self.checkpoints;
        let may_have =
            self.policy.current().owner().is_some() && self.state.size() <= MAX_CHECKPOINT;
        may_have && held.since + held.period > MAX_UNCOVERED
    }

    fn may_make(&self) -> bool {
        let owner = self.policy.current().owner() == Some(self.me);
        owner && self.limit.is_none() && self.rebuild.is_none() && !self.is_checking()
    }

    /// A checkpoint of all that is here; none when it is not this agent's to make, something is missing
    /// here, or the object is too large for one.
    pub fn prepare_checkpoint(&mut self, now: WallTime) -> Option<Prepared> {
        self.checkpoints.next = self.now + REST;
        let cover: Vec<_> = self.actors.vector().filter(|dot| dot.seq > 0).collect();
        if !self.may_make() || cover.is_empty() {
            return None;
        }
        // What was learned of the policy, and is not here, is not covered.
        if self.policy.dots().any(|dot| self.actors.seq(&dot.actor) < dot.seq) {
            return None;
        }
        let replica = self.encode().into();
        let pieces = cut(&replica)?;
        let base = self.checkpoints.base.as_ref();
        let checkpoint = Checkpoint {
            number: base.map_or(0, |base| base.checkpoint.number) + 1,
            before: base.map(|base: &Base| base.at),
            hash: hash_of(&replica),
            pieces: u32::try_from(pieces.len()).ok()?,
            cover,
        };
        // All that was seen is said before, so that nothing comes between the pieces and what they are of.
        let Prepared { mut payloads } = self.place(now, Body::Context);
        let ahead = self.ahead(now);
        let checkpoint = Body::Checkpoint(Arc::new(checkpoint));
        let bodies = pieces.into_iter().map(Body::Piece).chain([checkpoint]);
        payloads.extend(bodies.map(|body| OperationIn { ahead, deps: Vec::new(), body }.encode()));
        Some(Prepared { payloads })
    }
}
