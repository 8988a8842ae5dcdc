//! Beginning anew: when a removal takes back what was applied, or an earlier actor takes the place of a
//! later one.

use std::{collections::BTreeMap, time::Duration};

use x0x_core::{AgentId, Tick, WallTime};

use crate::{
    codec::Encoder,
    config::{MAX_ACTORS, MAX_BARRED},
    dot::{ActorTag, Dot},
    object::Object,
};

use super::{Actor, ObjectMachine, Output, pending::Pending};

/// How long the state from before a rebuild is shown at most.
const REBUILD: Duration = Duration::from_secs(30);

/// What a rebuild goes back to.
#[derive(Debug, Clone)]
pub(super) struct Rebuild<T> {
    pub(super) shown: T,
    /// How far the replica was, of those that it has not reached again.
    pub(super) target: BTreeMap<ActorTag, u64>,
    pub(super) until: Tick,
}

impl<T: Object> ObjectMachine<T> {
    /// Takes a new actor in, unless there are [`MAX_ACTORS`] that began earlier. None when it takes the place
    /// of another one, without which the replica begins anew.
    pub(super) fn admit(
        &mut self,
        tag: ActorTag,
        author: AgentId,
        epoch: u64,
        time: WallTime,
    ) -> Option<bool> {
        let first = time.as_millis();
        self.firsts.insert((first, tag));
        if self.firsts.len() > MAX_ACTORS
            && let Some((_, latest)) = self.firsts.pop_last()
        {
            self.bar(latest);
            if latest == tag {
                return Some(false);
            }
            if self.actors.get(&latest).is_some() {
                self.begin_rebuild(Dot { actor: tag, seq: 1 });
                return None;
            }
        }
        let actor = Actor {
            author,
            epoch,
            seq: 0,
            applied: 0,
            first,
            last: 0,
            bytes: 0,
            version: 0,
            mentions: Vec::new(),
        };
        self.actors.insert(tag, actor);
        Some(true)
    }

    fn bar(&mut self, tag: ActorTag) {
        self.metrics.barred.inc();
        if self.barred.len() < MAX_BARRED {
            self.barred.insert(tag);
        }
        if let Some(rebuild) = &mut self.rebuild {
            rebuild.target.remove(&tag);
        }
    }

    /// Begins anew where nothing is final yet, with what was learned of the policy and of barred actors. It
    /// ends when all that was ever handed over is here again.
    pub(super) fn begin_rebuild(&mut self, cause: Dot) {
        let base = self.checkpoints.base.as_ref();
        // What it stands on was read before.
        if let Some(replica) = self.standing_on(base) {
            self.begin_again(replica, Some(cause));
        }
    }

    /// Goes on from another replica of this object, and reads the log again.
    pub(super) fn begin_again(&mut self, replica: Self, cause: Option<Dot>) {
        self.metrics.rebuilds.inc();
        self.begun += 1;
        self.hash.take();
        let reached = self.actors.vector().chain(cause).chain(self.pending.last());
        let mut target: BTreeMap<ActorTag, u64> = BTreeMap::new();
        for dot in reached {
            let seq = target.entry(dot.actor).or_default();
            *seq = dot.seq.max(*seq);
        }
        let state = std::mem::replace(&mut self.state, replica.state);
        let (shown, until) = match self.rebuild.take() {
            Some(before) => {
                for (tag, seq) in before.target {
                    let further = target.entry(tag).or_default();
                    *further = seq.max(*further);
                }
                (before.shown, before.until)
            }
            None => (state, self.now + REBUILD),
        };
        self.actors = replica.actors;
        let actors = &self.actors;
        target.retain(|tag, seq| *seq > actors.seq(tag) && !self.barred.contains(tag));
        let done = target.is_empty();
        self.rebuild = Some(Rebuild { shown, target, until });
        self.pending = Pending::default();
        (self.applied, self.invalid) = (0, 0);
        self.refusals.clear();
        self.outputs.push_back(Output::Reread);
        if done {
            self.end_rebuild();
        }
    }

    /// Ends a rebuild once everything that was here is here again.
    pub(super) fn reached(&mut self, dot: Dot) {
        let Some(rebuild) = &mut self.rebuild else { return };
        if rebuild.target.get(&dot.actor).is_some_and(|seq| *seq <= dot.seq) {
            rebuild.target.remove(&dot.actor);
        }
        if rebuild.target.is_empty() {
            self.end_rebuild();
        }
    }

    pub(super) fn end_rebuild(&mut self) {
        let Some(rebuild) = self.rebuild.take() else { return };
        self.unsaved = (0, 0);
        self.outputs.push_back(Output::Save);
        // A checkpoint changes nothing that anybody sees.
        let encoded = |state: &T| {
            let mut encoder = Encoder::new();
            state.encode_state(&mut encoder);
            encoder.finish()
        };
        if encoded(&rebuild.shown) != encoded(&self.state) {
            self.outputs.push_back(Output::Rebuilt);
        }
    }
}
