//! One replica as a pure machine: entries of the topic's log in, changes of the object out.
//!
//! Which operations are valid is a function of the set of operations, never of the order in which they
//! came. Where something that comes later takes back what was applied, the replica is rebuilt: it begins
//! anew, knowing what it learned, and reads the log again.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use x0x_core::{AgentId, Machine, Tick, TopicId, WallTime};

use crate::{
    checkpoint::Checkpoint,
    config::{
        MAX_AHEAD, MAX_CHAIN_BYTES, MAX_CHAIN_OPS, MAX_REFUSALS, SNAPSHOT_BYTES, SNAPSHOT_OPS,
    },
    dot::{ActorTag, Dot, Stamp},
    error::Reason,
    metrics::CrdtMetrics,
    object::{Object, OpContext, Past as _},
    policy::{Adopted, Placed, Policy, PolicyChain, PolicyChange},
    wire::{Body, Named, Operation, OperationIn},
};

mod actors;
mod base;
mod check;
#[cfg(all(test, feature = "test-util"))]
mod checkpoint_tests;
mod make;
mod own;
mod pending;
mod rebuild;
mod snapshot;
#[cfg(all(test, feature = "test-util"))]
mod tests;

pub(crate) use actors::{Actor, Actors};
use base::Checkpoints;
use own::Own;
pub use own::Prepared;
use pending::{Pending, Waiting};
use rebuild::Rebuild;

/// How long after entries were dropped the log is read again at first, and at most.
const REREAD: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// Names a local write on its way.
pub type WriteId = u64;

/// An entry of the object's topic.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Who published it; proven by signature.
    pub author: AgentId,
    /// The chain.
    pub epoch: u64,
    /// Its place there, from 1.
    pub seq: u64,
    /// When it was published.
    pub time: WallTime,
    /// The operation.
    pub payload: Bytes,
}

/// What the world tells a replica.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Input {
    /// An entry of the log.
    Entry(Entry),
    /// An entry of the log, and the bytes that it takes there: more than its payload.
    Logged {
        /// The entry.
        entry: Entry,
        /// The bytes.
        bytes: u64,
    },
    /// The log took a local write, and gave it this place.
    Accepted {
        /// The write; none for an operation that only says what was seen.
        write: Option<WriteId>,
        /// The chain.
        epoch: u64,
        /// Its place there.
        seq: u64,
    },
    /// The log did not take what was prepared last.
    NotAccepted,
}

/// A change that was applied.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Change<E> {
    /// The operation.
    pub dot: Dot,
    /// Who wrote it.
    pub author: AgentId,
    /// When.
    pub time: WallTime,
    /// What it changed.
    pub events: Vec<E>,
}

/// What a replica asks of the world.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Output<E> {
    /// Something changed.
    Changed(Change<E>),
    /// A change of the policy was applied.
    Policy(Arc<Policy>),
    /// A local write came back from the log.
    Done {
        /// The write.
        write: WriteId,
        /// Its name, or why all replicas skip it.
        result: Result<Dot, Reason>,
    },
    /// What was shown is not what holds: the state was rebuilt.
    Rebuilt,
    /// The log is to be read again from its beginning.
    Reread,
    /// The replica is worth storing.
    Save,
}

/// An operation that was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// Its name.
    pub dot: Dot,
    /// Who wrote it.
    pub author: AgentId,
    /// Why.
    pub reason: Reason,
}

/// One replica of an object.
#[derive(Debug, Clone)]
pub struct ObjectMachine<T: Object> {
    object: TopicId,
    me: AgentId,
    state: T,
    actors: Actors,
    policy: PolicyChain,
    /// When the actors began that count: the earliest [`MAX_ACTORS`] of all that ever came here.
    firsts: BTreeSet<(u64, ActorTag)>,
    /// Actors that are refused because there are too many; at most [`MAX_BARRED`].
    barred: BTreeSet<ActorTag>,
    pending: Pending,
    own: Own,
    rebuild: Option<Rebuild<T>>,
    /// How often it began anew.
    begun: u64,
    checkpoints: Checkpoints<T>,
    /// It reads only what this one covers, to check it; chains that are not covered do not count.
    limit: Option<Arc<Checkpoint>>,
    /// When the log is read again, and how long that took last.
    reread: (Option<Tick>, Duration),
    /// Operations and bytes since the replica was stored.
    unsaved: (u64, u64),
    applied: u64,
    invalid: u64,
    refusals: VecDeque<Refusal>,
    metrics: Arc<CrdtMetrics>,
    /// The hash of the replica, once it was asked for, until something changes.
    hash: OnceLock<[u8; 32]>,
    outputs: VecDeque<Output<T::Event>>,
    now: Tick,
}

impl<T: Object> ObjectMachine<T> {
    /// An empty replica.
    #[must_use]
    pub fn new(
        object: TopicId,
        owner: Option<AgentId>,
        me: AgentId,
        metrics: Arc<CrdtMetrics>,
    ) -> Self {
        Self {
            object,
            me,
            state: T::default(),
            actors: Actors::default(),
            policy: PolicyChain::new(owner),
            firsts: BTreeSet::new(),
            barred: BTreeSet::new(),
            pending: Pending::default(),
            own: Own::default(),
            rebuild: None,
            begun: 0,
            checkpoints: Checkpoints::default(),
            limit: None,
            reread: (None, REREAD.0),
            unsaved: (0, 0),
            applied: 0,
            invalid: 0,
            refusals: VecDeque::new(),
            metrics,
            hash: OnceLock::new(),
            outputs: VecDeque::new(),
            now: Tick::ZERO,
        }
    }

    /// The object.
    #[must_use]
    pub const fn object(&self) -> TopicId {
        self.object
    }

    /// The state: while it is rebuilt, the one from before.
    #[must_use]
    pub fn state(&self) -> &T {
        self.rebuild.as_ref().map_or(&self.state, |rebuild| &rebuild.shown)
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> &Arc<Policy> {
        self.policy.current()
    }

    /// Whether it is being rebuilt: local writes wait.
    #[must_use]
    pub const fn rebuilding(&self) -> bool {
        self.rebuild.is_some()
    }

    /// Operations that were applied here, those that wait, and those that are skipped.
    #[must_use]
    pub const fn counts(&self) -> (u64, usize, u64) {
        (self.applied, self.pending.len(), self.invalid)
    }

    /// Actors that wrote in it.
    #[must_use]
    pub fn actors(&self) -> usize {
        self.actors.len()
    }

    /// The operations skipped last, the oldest first.
    pub fn refusals(&self) -> impl Iterator<Item = &Refusal> {
        self.refusals.iter()
    }

    /// Whether nothing waits, so that all entries up to now need not be read again.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.pending.len() == 0
            && self.reread.0.is_none()
            && self.rebuild.is_none()
            && !self.is_checking()
    }

    fn entry(&mut self, entry: Entry, logged: u64) {
        let tag = ActorTag::of(&entry.author, entry.epoch);
        self.look(tag, &entry);
        self.read(tag, entry, logged);
        self.consider();
    }

    fn read(&mut self, tag: ActorTag, entry: Entry, logged: u64) {
        let Entry { author, epoch, seq, time, payload } = entry;
        if self.barred.contains(&tag) {
            self.metrics.barred.inc();
            return self.refuse_own(author, epoch, seq, Reason::Quota);
        }
        if seq <= self.actors.seq(&tag) {
            self.metrics.duplicates.inc();
            return self.came_back(author, epoch, Dot { actor: tag, seq }, Ok(()));
        }
        let bytes = payload.len();
        let operation = OperationIn::decode(&payload);
        let waiting = Waiting { time, bytes, logged, operation };
        let dropped = self.pending.push(tag, (author, epoch, seq), waiting);
        if dropped > 0 {
            self.metrics.pending_dropped.add(dropped);
            self.reread.0.get_or_insert(self.now + self.reread.1);
        }
        self.drain(tag);
    }

    /// Processes what waits in a chain and can be, and then what waited for it.
    fn drain(&mut self, tag: ActorTag) {
        let mut ready = VecDeque::from([tag]);
        while let Some(tag) = ready.pop_front() {
            let mut moved = false;
            while let Some(step) = self.step(&tag) {
                moved = true;
                if !step {
                    break;
                }
            }
            if moved {
                ready.extend(self.pending.woken(&tag));
            }
        }
    }

    /// Processes the next entry of a chain: none when it has to wait, false when the chain is barred.
    fn step(&mut self, tag: &ActorTag) -> Option<bool> {
        let seq = self.actors.seq(tag) + 1;
        let (line, head) = self.pending.head(tag, seq)?;
        let (author, epoch, time) = (line.author, line.epoch, head.time);
        let decoded = head.operation.as_ref().map_err(|_| Reason::Malformed);
        let operation = decoded.and_then(|operation| resolve(&self.actors, tag, seq, operation));
        if let Ok(operation) = &operation
            && let Some(on) = self.missing(tag, &operation.deps)
        {
            self.pending.wait(*tag, on);
            return None;
        }
        let Waiting { bytes, logged, .. } = self.pending.pop(tag)?;
        let bytes = bytes as u64;
        self.hash.take();
        let admitted = seq > 1 || self.admit(*tag, author, epoch, time)?;
        if !admitted {
            self.pending.drop_line(tag);
            self.refuse_own(author, epoch, seq, Reason::Quota);
            return Some(false);
        }
        let dot = Dot { actor: *tag, seq };
        let mut counts = true;
        if let Ok(operation) = &operation {
            self.actors.observe(tag, &operation.deps);
            counts = !matches!(operation.body, Body::Piece(_) | Body::Checkpoint(_));
        }
        let begun = self.begun;
        let result =
            operation.and_then(|operation| self.process(dot, author, time, bytes, operation));
        if self.begun == begun {
            self.checkpoints.went_on(if counts { logged } else { 0 });
            self.processed(dot, author, bytes, result);
        }
        Some(true)
    }

    /// An actor that operations depend on and that is not that far.
    fn missing(&self, tag: &ActorTag, deps: &[Dot]) -> Option<ActorTag> {
        let missing = |dep: &&Dot| {
            dep.actor != *tag
                && self.limit.as_ref().is_none_or(|limit| limit.covers(&dep.actor) > 0)
                && self.actors.seq(&dep.actor) < dep.seq
                && !self.barred.contains(&dep.actor)
        };
        deps.iter().find(missing).map(|dep| dep.actor)
    }

    /// Decides whether an operation is valid, and applies it.
    fn process(
        &mut self,
        dot: Dot,
        author: AgentId,
        time: WallTime,
        bytes: u64,
        operation: Operation,
    ) -> Result<(), Reason> {
        let tag = dot.actor;
        let context = self.actors.context(&tag);
        let own = |placed: Dot| placed.actor == tag && placed.seq < dot.seq;
        let before = self.actors.get(&tag).map_or(0, |actor| actor.version);
        let version = self.policy.seen(before, |placed| own(placed) || context.sees(placed));
        let millis = time.as_millis().saturating_add(operation.ahead);
        let stamp = Stamp { millis, dot };
        let Some(actor) = self.actors.get_mut(&tag) else { return Err(Reason::Quota) };
        actor.version = version;
        if operation.ahead > MAX_AHEAD {
            return Err(Reason::Time);
        }
        actor.last = actor.last.max(millis);
        self.own.latest = self.own.latest.max(millis);
        if actor.bytes.saturating_add(bytes) > MAX_CHAIN_BYTES || dot.seq > MAX_CHAIN_OPS {
            return Err(Reason::Quota);
        }
        let policy = self.policy.at(version).ok_or(Reason::Policy)?;
        if policy.role(&author).is_none() {
            return Err(Reason::NotWriter);
        }
        if !self.policy.keeps(version, &author, dot) {
            return Err(Reason::Removed);
        }
        match operation.body {
            Body::Context => Ok(()),
            // What they say is looked at in any order.
            Body::Checkpoint(_) | Body::Piece(_) => {
                let owner = self.policy.current().owner() == Some(author);
                if owner { Ok(()) } else { Err(Reason::Policy) }
            }
            Body::Change(change) => self.change_policy(author, version, Placed { stamp, change }),
            Body::Operation(bytes) => {
                let operation = T::decode_op(&bytes).map_err(|_| Reason::Malformed)?;
                let context = self.actors.context(&tag);
                let cx = OpContext { dot, author, stamp, policy: &policy, past: &context };
                self.state.check(&cx, &operation).map_err(Reason::Type)?;
                let mut events = Vec::new();
                self.state.apply(&cx, operation, &mut events);
                if self.rebuild.is_none() {
                    let time = WallTime::from_millis(millis);
                    let change = Change { dot, author, time, events };
                    self.outputs.push_back(Output::Changed(change));
                }
                Ok(())
            }
        }
    }

    fn change_policy(
        &mut self,
        author: AgentId,
        version: u32,
        placed: Placed,
    ) -> Result<(), Reason> {
        if self.policy.current().owner() != Some(author) {
            return Err(Reason::Policy);
        }
        let removed = match &placed.change {
            PolicyChange::Remove { agent, cut } => Some((*agent, cut.clone())),
            _ => None,
        };
        let dot = placed.stamp.dot;
        match self.policy.adopt(version + 1, placed) {
            Adopted::Known => return Ok(()),
            Adopted::Lost | Adopted::Refused => return Err(Reason::Policy),
            Adopted::Instead => self.begin_rebuild(dot),
            Adopted::Next => {
                if let Some((agent, cut)) = removed
                    && self.actors.iter().any(|(tag, actor)| {
                        let kept = cut.iter().filter(|last| last.actor == tag);
                        let kept = kept.map(|last| last.seq).max().unwrap_or(0);
                        actor.author == agent
                            && actor.applied > kept.max(self.checkpoints.covers(&tag))
                    })
                {
                    self.begin_rebuild(dot);
                }
            }
        }
        self.outputs.push_back(Output::Policy(Arc::clone(self.policy.current())));
        Ok(())
    }

    /// Counts an operation that was applied or skipped.
    fn processed(&mut self, dot: Dot, author: AgentId, bytes: u64, result: Result<(), Reason>) {
        let epoch = match self.actors.get_mut(&dot.actor) {
            Some(actor) => {
                actor.seq = dot.seq;
                actor.bytes = actor.bytes.saturating_add(bytes);
                if result.is_ok() {
                    actor.applied = dot.seq;
                }
                actor.epoch
            }
            None => return,
        };
        match result {
            Ok(()) => {
                self.applied += 1;
                self.metrics.applied.inc();
            }
            Err(reason) => {
                self.invalid += 1;
                self.metrics.invalid(reason);
                if self.refusals.len() >= MAX_REFUSALS {
                    self.refusals.pop_front();
                }
                self.refusals.push_back(Refusal { dot, author, reason });
            }
        }
        self.came_back(author, epoch, dot, result);
        self.reached(dot);
        self.unsaved = (self.unsaved.0 + 1, self.unsaved.1 + bytes);
        if (self.unsaved.0 >= SNAPSHOT_OPS || self.unsaved.1 >= SNAPSHOT_BYTES)
            && self.rebuild.is_none()
        {
            self.unsaved = (0, 0);
            self.outputs.push_back(Output::Save);
        }
    }

    fn refuse_own(&mut self, author: AgentId, epoch: u64, seq: u64, reason: Reason) {
        let dot = Dot { actor: ActorTag::of(&author, epoch), seq };
        self.came_back(author, epoch, dot, Err(reason));
    }

    /// Answers a local write that came back, unless it was answered.
    fn came_back(&mut self, author: AgentId, epoch: u64, dot: Dot, result: Result<(), Reason>) {
        if author == self.me
            && let Some(write) = self.own.came_back((epoch, dot.seq))
        {
            self.outputs.push_back(Output::Done { write, result: result.map(|()| dot) });
        }
    }
}

impl<T: Object> Machine for ObjectMachine<T> {
    type Input = Input;
    type Output = Output<T::Event>;

    fn handle(&mut self, now: Tick, input: Input) {
        self.now = now;
        match input {
            Input::Entry(entry) => {
                let bytes = entry.payload.len() as u64;
                self.entry(entry, bytes);
            }
            Input::Logged { entry, bytes } => self.entry(entry, bytes),
            Input::Accepted { write, epoch, seq } => {
                self.own.accepted(write, epoch, seq);
                // It may have come back before the log said where it is.
                let tag = ActorTag::of(&self.me, epoch);
                if self.actors.seq(&tag) >= seq
                    && let Some(write) = self.own.came_back((epoch, seq))
                {
                    let dot = Dot { actor: tag, seq };
                    let refused = self.refusals.iter().find(|refusal| refusal.dot == dot);
                    let result = refused.map_or(Ok(dot), |refusal| Err(refusal.reason));
                    self.outputs.push_back(Output::Done { write, result });
                }
            }
            Input::NotAccepted => self.own.forget_sent(),
        }
    }

    fn handle_timeout(&mut self, now: Tick) {
        self.now = now;
        if self.reread.0.is_some_and(|at| at <= now) {
            self.reread = (None, (2 * self.reread.1).min(REREAD.1));
            self.outputs.push_back(Output::Reread);
        }
        if self.rebuild.as_ref().is_some_and(|rebuild| rebuild.until <= now) {
            self.end_rebuild();
        }
        self.checkpoint_timeout(now);
    }

    fn poll_output(&mut self) -> Option<Self::Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Tick> {
        let rebuild = self.rebuild.as_ref().map(|rebuild| rebuild.until);
        self.reread.0.into_iter().chain(rebuild).chain(self.checkpoint_timer()).min()
    }
}

/// Resolves what an operation refers to by what its chain named before.
fn resolve(
    actors: &Actors,
    tag: &ActorTag,
    seq: u64,
    operation: &OperationIn,
) -> Result<Operation, Reason> {
    let mentions = actors.get(tag).map_or(&[][..], |actor| &actor.mentions);
    let dep = |(named, at): &(Named, u64)| {
        let actor = match named {
            Named::Tag(tag) => *tag,
            Named::Before(place) => {
                let place = usize::try_from(*place).map_err(|_| Reason::Reference)?;
                *mentions.get(place).ok_or(Reason::Reference)?
            }
        };
        let own_future = actor == *tag && *at >= seq;
        let bad = *at == 0 || *at > MAX_CHAIN_OPS || own_future;
        if bad { Err(Reason::Reference) } else { Ok(Dot { actor, seq: *at }) }
    };
    let deps = operation.deps.iter().map(dep).collect::<Result<_, _>>()?;
    Ok(Operation { ahead: operation.ahead, deps, body: operation.body.clone() })
}
