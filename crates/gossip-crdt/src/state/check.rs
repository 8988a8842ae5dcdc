//! Which checkpoint a replica stands on: checked by who holds what it covers, taken by who does not.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use x0x_core::{Machine as _, Tick, WallTime};

use crate::{
    checkpoint::{Checkpoint, Pieces},
    dot::{ActorTag, Dot},
    object::Object,
    wire::{Body, OperationIn},
};

use super::{
    Entry, Input, ObjectMachine, Output,
    base::{Base, Known, Rank},
    snapshot::hash_of,
};

/// How long nothing went on when a checkpoint is taken whose operations are not here.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long its pieces are waited for.
const TAKING: Duration = Duration::from_secs(30);

/// After how long the log is read again for a check that lacks something at first, and when it is given up: the
/// log has lost what was processed.
const AGAIN: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(240));

/// One checkpoint on the way to the one that is to be stood on.
#[derive(Debug, Clone)]
struct Step {
    at: Dot,
    time: WallTime,
    checkpoint: Arc<Checkpoint>,
}

/// A second replica that reads what checkpoints cover, to see whether it makes what they say.
#[derive(Debug, Clone)]
pub(super) struct Check<T: Object> {
    replica: ObjectMachine<T>,
    /// What the replica stands on.
    base: Option<Base>,
    step: Step,
    /// The steps after it.
    steps: VecDeque<Step>,
    pieces: Pieces,
    /// Of the cover, the actors that the replica reached since it began for the last time.
    reached: usize,
    begun: u64,
    again: (Tick, Duration),
}

/// What came of a check.
enum Verdict {
    Open,
    Right(Bytes),
    Wrong,
}

impl<T: Object> Check<T> {
    fn new(
        mut replica: ObjectMachine<T>,
        base: Option<Base>,
        (step, steps): (Step, VecDeque<Step>),
        now: Tick,
    ) -> Self {
        let pieces = Pieces::of(step.at, &step.checkpoint);
        replica.limit = Some(Arc::clone(&step.checkpoint));
        let again = (now + AGAIN.0, AGAIN.0);
        Self { replica, base, step, steps, pieces, reached: 0, begun: 0, again }
    }

    /// Reads an entry, if the checkpoint covers it. True when the log is to be read again.
    fn read(&mut self, now: Tick, tag: &ActorTag, entry: &Entry) -> bool {
        if entry.seq > self.step.checkpoint.covers(tag) {
            return false;
        }
        self.replica.handle(now, Input::Entry(entry.clone()));
        self.outputs()
    }

    fn outputs(&mut self) -> bool {
        let outputs = std::iter::from_fn(|| self.replica.poll_output());
        outputs.filter(|output| matches!(output, Output::Reread)).count() > 0
    }

    fn verdict(&mut self) -> Verdict {
        let joined = match self.pieces.joined() {
            Some(Err(_)) => return Verdict::Wrong,
            joined => joined.and_then(Result::ok),
        };
        let checkpoint = &self.step.checkpoint;
        if self.begun != self.replica.begun {
            (self.begun, self.reached) = (self.replica.begun, 0);
        }
        while let Some(dot) = checkpoint.cover.get(self.reached) {
            if self.replica.actors.seq(&dot.actor) < dot.seq {
                return Verdict::Open;
            }
            self.reached += 1;
        }
        match joined {
            None => Verdict::Open,
            Some(joined) if joined != self.replica.encode() => Verdict::Wrong,
            Some(joined) if hash_of(&joined) != checkpoint.hash => Verdict::Wrong,
            Some(joined) => Verdict::Right(joined),
        }
    }
}

/// A checkpoint that is taken once its pieces are here.
#[derive(Debug, Clone)]
pub(super) struct Taking {
    step: Step,
    pieces: Pieces,
    until: Tick,
}

impl<T: Object> ObjectMachine<T> {
    /// Looks at an entry for what it says of checkpoints, in whatever order it came.
    pub(super) fn look(&mut self, tag: ActorTag, entry: &Entry) {
        if self.limit.is_some() || self.policy.current().owner().is_none() {
            return;
        }
        if self.policy.current().owner() == Some(entry.author) {
            let dot = Dot { actor: tag, seq: entry.seq };
            let operation = OperationIn::decode(&entry.payload).ok();
            let piece = match operation.as_ref().map(OperationIn::body) {
                Some(Body::Piece(piece)) => Some(piece),
                Some(Body::Checkpoint(checkpoint)) => {
                    self.checkpoints.note(dot, entry.time, checkpoint);
                    None
                }
                _ => None,
            };
            let check = self.checkpoints.check.iter_mut().map(|check| &mut check.pieces);
            let taking = self.checkpoints.taking.iter_mut().map(|taking| &mut taking.pieces);
            check.chain(taking).for_each(|pieces| pieces.offer(dot, piece));
        }
        let now = self.now;
        if let Some(check) = &mut self.checkpoints.check
            && check.read(now, &tag, entry)
        {
            self.outputs.push_back(Output::Reread);
        }
    }

    /// Goes on with what is to be done about checkpoints, after anything happened.
    pub(super) fn consider(&mut self) {
        if self.limit.is_some() || self.checkpoints.known.is_empty() {
            return;
        }
        self.end_check();
        self.end_taking();
        let free = self.checkpoints.check.is_none() && self.checkpoints.taking.is_none();
        if free && self.rebuild.is_none() {
            self.begin_check();
        }
        let waits = self.checkpoints.check.is_none() && self.checkpoints.taking.is_none();
        let lacks = self.pending.len() > 0
            || self.checkpoints.known.values().any(|known| known.unchecked && !known.untaken);
        if waits && lacks && self.takeable().is_some() {
            self.checkpoints.stuck.get_or_insert(self.now + PATIENCE);
        } else {
            self.checkpoints.stuck = None;
        }
    }

    /// Whether checkpoints keep it busy.
    pub(super) const fn is_checking(&self) -> bool {
        self.checkpoints.check.is_some() || self.checkpoints.taking.is_some()
    }

    pub(super) fn checkpoint_timer(&self) -> Option<Tick> {
        let held = &self.checkpoints;
        let check = held
            .check
            .iter()
            .flat_map(|check| check.replica.poll_timeout().into_iter().chain([check.again.0]));
        let taking = held.taking.iter().map(|taking| taking.until);
        check.chain(taking).chain(held.stuck).min()
    }

    pub(super) fn checkpoint_timeout(&mut self, now: Tick) {
        let mut reread = false;
        if let Some(check) = &mut self.checkpoints.check {
            check.replica.handle_timeout(now);
            reread = check.outputs();
            if check.again.0 <= now {
                let wait = 2 * check.again.1;
                check.again = (now + wait, wait);
                reread = true;
            }
        }
        if let Some(check) = self.checkpoints.check.take_if(|check| check.again.1 >= AGAIN.1)
            && let Some(known) = self.checkpoints.known.get_mut(&check.step.at)
        {
            known.unchecked = true;
        }
        if let Some(taking) = self.checkpoints.taking.take_if(|taking| taking.until <= now)
            && let Some(known) = self.checkpoints.known.get_mut(&taking.step.at)
        {
            known.untaken = true;
        }
        if self.checkpoints.stuck.take_if(|at| *at <= now).is_some()
            && let Some(step) = self.takeable()
        {
            let pieces = Pieces::of(step.at, &step.checkpoint);
            self.checkpoints.taking = Some(Taking { step, pieces, until: now + TAKING });
            reread = true;
        }
        if reread {
            self.outputs.push_back(Output::Reread);
        }
        self.consider();
    }

    /// Begins with the checkpoint that counts most, of those whose operations are all here.
    fn begin_check(&mut self) {
        let current = self.checkpoints.base.as_ref().map(Base::rank);
        let known = self.checkpoints.known.iter();
        let better = known.filter(|(at, known)| {
            !known.refused
                && !known.unchecked
                && current.is_none_or(|current| known.rank(**at) > current)
        });
        let mut better: Vec<(Rank, Dot)> =
            better.map(|(at, known)| (known.rank(*at), *at)).collect();
        better.sort_unstable();
        let way = better.into_iter().rev().find_map(|(_, at)| self.way(at));
        let Some((base, mut steps)) = way else { return };
        let (Some(replica), Some(step)) = (self.standing_on(base.as_ref()), steps.pop_front())
        else {
            return;
        };
        let check = Check::new(replica, base, (step, steps), self.now);
        self.checkpoints.check = Some(Box::new(check));
        self.outputs.push_back(Output::Reread);
    }

    /// The steps to a checkpoint from one that this replica stood on, or from nothing.
    fn way(&self, to: Dot) -> Option<(Option<Base>, VecDeque<Step>)> {
        let held = &self.checkpoints;
        let mut steps: VecDeque<Step> = VecDeque::new();
        let mut at = to;
        loop {
            let known = held.known.get(&at).filter(|known| !known.refused)?;
            let checkpoint = Arc::clone(&known.checkpoint);
            let follows = steps.front().is_none_or(|next| {
                let numbers = checkpoint.number + 1 == next.checkpoint.number;
                numbers && next.checkpoint.contains(&checkpoint.cover)
            });
            if !follows || (steps.is_empty() && !self.holds(&checkpoint)) {
                return None;
            }
            let before = checkpoint.before;
            let step = Step { at, time: known.time, checkpoint };
            let last = Arc::clone(&step.checkpoint);
            steps.push_front(step);
            let Some(before) = before else {
                return (!held.settled).then_some((None, steps));
            };
            let bases = [&held.base, &held.before].into_iter().flatten();
            if let Some(base) = bases.into_iter().find(|base| base.at == before) {
                let numbers = base.checkpoint.number + 1 == last.number;
                let follows = numbers && last.contains(&base.checkpoint.cover);
                return follows.then(|| (Some(base.clone()), steps));
            }
            at = before;
        }
    }

    /// Whether all that a checkpoint covers was processed here.
    fn holds(&self, checkpoint: &Checkpoint) -> bool {
        checkpoint
            .cover
            .iter()
            .all(|dot| self.actors.seq(&dot.actor) >= dot.seq || self.barred.contains(&dot.actor))
    }

    fn end_check(&mut self) {
        let Some(check) = &mut self.checkpoints.check else { return };
        match check.verdict() {
            Verdict::Open => {}
            Verdict::Wrong => {
                self.metrics.checkpoints_refused.inc();
                if let Some(known) = self.checkpoints.known.get_mut(&check.step.at) {
                    known.refused = true;
                }
                self.checkpoints.check = None;
            }
            Verdict::Right(replica) => {
                if let Some(check) = self.checkpoints.check.take() {
                    self.passed(*check, replica);
                }
            }
        }
    }

    /// Goes on to the next step, or stands on the last one.
    fn passed(&mut self, check: Check<T>, replica: Bytes) {
        let Check { base: before, step, mut steps, .. } = check;
        let Step { at, time, checkpoint } = step;
        let checked = true;
        let base = Base { at, time, checkpoint, replica, checked };
        let Some(next) = steps.pop_front() else { return self.stand_on(base, before) };
        let Some(replica) = self.standing_on(Some(&base)) else { return };
        let check = Check::new(replica, Some(base), (next, steps), self.now);
        self.checkpoints.check = Some(Box::new(check));
        self.outputs.push_back(Output::Reread);
    }

    /// The checkpoint to take: of those that the one stands on that counts most, the first that can be.
    fn takeable(&self) -> Option<Step> {
        let known = self.checkpoints.known.iter();
        let mut known: Vec<(Rank, Dot)> = known.map(|(at, known)| (known.rank(*at), *at)).collect();
        known.sort_unstable();
        known.into_iter().rev().find_map(|(_, at)| self.takeable_below(at))
    }

    fn takeable_below(&self, mut at: Dot) -> Option<Step> {
        let known = &self.checkpoints.known;
        let mut found = None;
        // Each stands on one of a lesser number, or the way ends.
        for _ in 0..known.len() {
            let Some(held) = known.get(&at) else { break };
            if !held.untaken && !held.refused && self.can_take(at, held) {
                let checkpoint = Arc::clone(&held.checkpoint);
                found = Some(Step { at, time: held.time, checkpoint });
            }
            let Some(before) = held.checkpoint.before else { break };
            at = before;
        }
        found
    }

    /// Whether a checkpoint waits for what does not come, and covers what is known only from another one.
    fn can_take(&self, at: Dot, known: &Known) -> bool {
        let (held, checkpoint) = (&self.checkpoints, &known.checkpoint);
        let stuck = self.actors.seq(&at.actor) < at.seq && !self.holds(checkpoint);
        let base = held.before.as_ref().or(held.base.as_ref()).filter(|_| held.settled);
        let base = base.map_or(&[][..], |base| &base.checkpoint.cover);
        let more = checkpoint.number > held.number() && checkpoint.contains(base);
        more && (stuck || known.unchecked)
    }

    fn end_taking(&mut self) {
        let Some(taking) = &self.checkpoints.taking else { return };
        let Some(joined) = taking.pieces.joined() else { return };
        let Step { at, time, checkpoint } = taking.step.clone();
        self.checkpoints.taking = None;
        if let Some(known) = self.checkpoints.known.get_mut(&at) {
            known.untaken = true;
        }
        let right = joined.ok().filter(|joined| hash_of(joined) == checkpoint.hash);
        let Some(replica) = right else {
            return self.metrics.checkpoints_refused.inc();
        };
        // The log may have come further in the meantime.
        let unchecked = self.checkpoints.known.get(&at).is_some_and(|known| known.unchecked);
        let lacks = unchecked || !self.holds(&checkpoint);
        let base = Base { at, time, checkpoint, replica, checked: false };
        if lacks && base.checkpoint.number > self.checkpoints.number() {
            self.stand_on(base, None);
            self.checkpoints.settle();
        }
    }
}
