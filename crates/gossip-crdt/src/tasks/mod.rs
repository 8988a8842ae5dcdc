//! Task lists: what is to be done, in what order, and who holds what.
//!
//! A task is named by the operation that adds it. Its fields are registers in which the last writer
//! wins, its labels a set in which an addition wins, its place a key between those of its neighbours.
//! Whoever claims a task holds it for a lease. Of claims that saw nothing of each other the earlier one
//! counts, by the operations' stamps, and the other one's author is told by [`TaskChange::ClaimLost`].
//! A deletion wins over all that is done with the task at the same time.

mod life;
mod op;
mod place;
mod task;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;

use x0x_core::{AgentId, DecodeError, WallTime};

use crate::{Decoder, Dot, Encoder, Invalid, Object, OpContext};

pub use life::{Action, DEFAULT_LEASE, MAX_LEASE, MAX_STEPS, MIN_LEASE, Phase, Step};
pub use op::{Fields, MAX_DESCRIPTION, MAX_LABEL, MAX_LABELS, MAX_TITLE, TaskId, TaskOp};
pub use place::MAX_PLACE;
use task::Task;
pub use task::{DEFAULT_PRIORITY, Edit, MAX_EDITS, TaskView};
pub use write::{MAX_TASKS, Spot, TaskError};

/// Key of the hash that names a task, so that it collides with no other use of BLAKE3.
const ID_KEY: [u8; 32] = *b"x0x/crdt/task/1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

impl TaskId {
    /// The task that an operation adds.
    #[must_use]
    pub fn of(dot: Dot) -> Self {
        let mut name = [0_u8; 24];
        name[..16].copy_from_slice(dot.actor.as_bytes());
        name[16..].copy_from_slice(&dot.seq.to_be_bytes());
        Self::new(*blake3::keyed_hash(&ID_KEY, &name).as_bytes())
    }
}

/// What happened to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskChange {
    /// It is new.
    Added,
    /// Fields of it changed.
    Edited,
    /// The agent holds it now.
    Claimed,
    /// The agent's claim does not hold.
    ClaimLost {
        /// Who holds it, or did it.
        holder: Option<AgentId>,
    },
    /// The agent holds it longer.
    Renewed,
    /// The agent gave it back.
    Released,
    /// It is done.
    Completed,
    /// It is open again.
    Reopened,
    /// It is gone.
    Deleted,
}

/// Something happened to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskEvent {
    /// The task.
    pub task: TaskId,
    /// Who did it; whose claim it was, where that was lost.
    pub agent: AgentId,
    /// When they did.
    pub at: WallTime,
    /// What happened.
    pub change: TaskChange,
}

/// The state of a task list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskList {
    tasks: BTreeMap<TaskId, Task>,
    size: usize,
}

impl TaskList {
    /// How many tasks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// One task.
    #[must_use]
    pub fn get(&self, id: &TaskId) -> Option<TaskView<'_>> {
        self.tasks.get(id).map(|task| TaskView { id: *id, task })
    }

    /// The tasks in their order.
    #[must_use]
    pub fn in_order(&self) -> Vec<TaskView<'_>> {
        let mut views: Vec<_> =
            self.tasks.iter().map(|(id, task)| TaskView { id: *id, task }).collect();
        views.sort_by_key(|view| (view.place(), view.id));
        views
    }

    /// A task that an operation's author had seen. What names a task that it had not seen is without
    /// effect: else it would matter which of the two comes first.
    fn seen(&mut self, cx: &OpContext<'_>, id: &TaskId) -> Option<&mut Task> {
        self.tasks.get_mut(id).filter(|task| cx.sees(task.dot))
    }

    fn step(
        &mut self,
        cx: &OpContext<'_>,
        id: TaskId,
        action: Action,
        events: &mut Vec<TaskEvent>,
    ) {
        let Some(task) = self.seen(cx, &id) else { return };
        task.touch(cx);
        let before = task.life.steps().len();
        let changed = task.life.insert(cx.stamp(), cx.author(), action);
        let holder = match task.life.phase() {
            Phase::Open => None,
            Phase::Held { agent, .. } | Phase::Done { agent, .. } => Some(agent),
        };
        let grown = (task.life.steps().len() - before) * size_of::<Step>();
        self.size += grown;
        for step in changed {
            if let Some(change) = told(&step, holder) {
                events.push(TaskEvent { task: id, agent: step.author, at: step.time(), change });
            }
        }
    }
}

/// What watchers are told of a step that is new, or whose effect changed.
fn told(step: &Step, holder: Option<AgentId>) -> Option<TaskChange> {
    match (step.action, step.applied) {
        (Action::Claim(_), true) => Some(TaskChange::Claimed),
        (Action::Claim(_), false) => Some(TaskChange::ClaimLost { holder }),
        (Action::Renew(_), true) => Some(TaskChange::Renewed),
        (Action::Release, true) => Some(TaskChange::Released),
        (Action::Complete, true) => Some(TaskChange::Completed),
        (Action::Reopen, true) => Some(TaskChange::Reopened),
        _ => None,
    }
}

impl Object for TaskList {
    const KIND: &'static str = "task-list/1";

    type Op = TaskOp;
    type Event = TaskEvent;

    fn encode_op(op: &TaskOp) -> Vec<u8> {
        op.encode()
    }

    fn decode_op(bytes: &[u8]) -> Result<TaskOp, DecodeError> {
        TaskOp::decode(bytes)
    }

    fn check(&self, _: &OpContext<'_>, _: &TaskOp) -> Result<(), Invalid> {
        // What its shape does not forbid is valid: what a step is worth depends on the steps before
        // it in time, which may not be known yet.
        Ok(())
    }

    fn apply(&mut self, cx: &OpContext<'_>, op: TaskOp, events: &mut Vec<TaskEvent>) {
        let tell = |task, change| TaskEvent { task, agent: cx.author(), at: cx.time(), change };
        match op {
            TaskOp::Add(fields) => {
                let id = TaskId::of(cx.dot());
                let task = Task::new(cx, fields);
                self.size += task.size();
                self.tasks.insert(id, task);
                events.push(tell(id, TaskChange::Added));
            }
            TaskOp::Edit(id, fields) => {
                let Some(task) = self.seen(cx, &id) else { return };
                let before = task.size();
                task.edit(cx, fields);
                let after = task.size();
                self.size = self.size + after - before;
                events.push(tell(id, TaskChange::Edited));
            }
            TaskOp::Step(id, action) => self.step(cx, id, action, events),
            TaskOp::Delete(id) => {
                if self.seen(cx, &id).is_some()
                    && let Some(task) = self.tasks.remove(&id)
                {
                    self.size -= task.size();
                    events.push(tell(id, TaskChange::Deleted));
                }
            }
        }
    }

    fn encode_state(&self, encoder: &mut Encoder) {
        encoder.count(self.tasks.len());
        // Their ids follow from their dots; their order is that of the ids.
        self.tasks.values().for_each(|task| task.encode(encoder));
    }

    fn decode_state(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let mut list = Self::default();
        for _ in 0..decoder.count(160)? {
            let task = Task::decode(decoder)?;
            let id = TaskId::of(task.dot);
            if list.tasks.last_key_value().is_some_and(|(last, _)| *last >= id) {
                return Err(DecodeError::Field("tasks"));
            }
            list.size += task.size();
            list.tasks.insert(id, task);
        }
        Ok(list)
    }

    fn size(&self) -> usize {
        self.size
    }
}
