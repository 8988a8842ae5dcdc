//! Local changes: refused with a reason where they would be without effect.

use x0x_core::AgentId;

use super::{
    Action, Fields, MAX_DESCRIPTION, MAX_LABEL, MAX_LABELS, MAX_TITLE, Phase, TaskId, TaskList,
    TaskOp, TaskView,
    op::{is_label, is_title},
    place,
};
use crate::WriteContext;

/// Most tasks of a list, counted where one is added.
pub const MAX_TASKS: usize = 10_000;

/// Where a task goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Spot {
    /// Behind all others.
    #[default]
    End,
    /// Before all others.
    Start,
    /// Right behind this task.
    After(TaskId),
    /// Right before this task.
    Before(TaskId),
}

/// A change of a task list that is not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The list has no such task.
    #[error("task not found")]
    NotFound,
    /// A field is empty or too long.
    #[error("{0}")]
    Field(&'static str),
    /// Somebody else holds the task.
    #[error("the task is claimed by {0}")]
    Held(AgentId),
    /// Only who holds the task may do that.
    #[error("the task is not claimed by this agent")]
    NotHolder,
    /// Nobody holds the task.
    #[error("the task is not claimed")]
    NotClaimed,
    /// The task is done.
    #[error("the task is done")]
    Done,
    /// The task is not done.
    #[error("the task is not done")]
    NotDone,
    /// The list has as many tasks as it may.
    #[error("limit reached: tasks of a list (at most {MAX_TASKS})")]
    TooManyTasks,
    /// As much was done with the task as it keeps.
    #[error("limit reached: steps of a task (at most {max})", max = super::MAX_STEPS)]
    TooManySteps,
    /// There is no room between the tasks where it is to go.
    #[error("no room at that place of the list: move a neighbour first")]
    NoRoom,
}

impl TaskList {
    /// A new task. Its id is that of the operation, [`TaskId::of`].
    ///
    /// # Errors
    /// [`TaskError`].
    pub fn add(&self, mut fields: Fields, spot: Spot) -> Result<TaskOp, TaskError> {
        if self.len() >= MAX_TASKS {
            return Err(TaskError::TooManyTasks);
        }
        if fields.title.is_none() {
            return Err(TaskError::Field(BAD_TITLE));
        }
        validate(&fields)?;
        fields.place = Some(self.place(spot, None)?);
        Ok(TaskOp::Add(fields))
    }

    /// Other fields, and another place. With `labels` the task has these in place of those that it has.
    ///
    /// # Errors
    /// [`TaskError`].
    pub fn edit(
        &self,
        id: TaskId,
        mut fields: Fields,
        labels: Option<Vec<String>>,
        spot: Option<Spot>,
    ) -> Result<TaskOp, TaskError> {
        let task = self.get(&id).ok_or(TaskError::NotFound)?;
        if let Some(labels) = labels {
            if labels.len() > MAX_LABELS {
                return Err(TaskError::Field(BAD_LABELS));
            }
            let has = |label: &String| task.labels().any(|known| known == label);
            let gone = task.labels().filter(|known| !labels.iter().any(|label| label == known));
            fields.remove_labels = gone.take(MAX_LABELS).map(str::to_owned).collect();
            fields.add_labels = labels.iter().filter(|label| !has(label)).cloned().collect();
        }
        validate(&fields)?;
        fields.place = spot.map(|spot| self.place(spot, Some(id))).transpose()?;
        Ok(TaskOp::Edit(id, fields))
    }

    /// Something that is done with a task.
    ///
    /// # Errors
    /// [`TaskError`]: its state does not allow it.
    pub fn act(
        &self,
        cx: &WriteContext<'_>,
        id: TaskId,
        action: Action,
    ) -> Result<TaskOp, TaskError> {
        let task = self.get(&id).ok_or(TaskError::NotFound)?;
        if task.task.life.is_full() {
            return Err(TaskError::TooManySteps);
        }
        let phase = task.phase();
        if phase.after(cx.me(), cx.now(), action).is_some() {
            return Ok(TaskOp::Step(id, action));
        }
        Err(match (phase, action) {
            (Phase::Done { .. }, _) => TaskError::Done,
            (_, Action::Reopen) => TaskError::NotDone,
            (Phase::Held { agent, .. }, Action::Claim(_)) => TaskError::Held(agent),
            (Phase::Held { .. }, _) => TaskError::NotHolder,
            (Phase::Open, _) => TaskError::NotClaimed,
        })
    }

    /// A deletion.
    ///
    /// # Errors
    /// [`TaskError::NotFound`].
    pub fn delete(&self, id: TaskId) -> Result<TaskOp, TaskError> {
        self.get(&id).map(|_| TaskOp::Delete(id)).ok_or(TaskError::NotFound)
    }

    /// The key of a spot, for a task that is added or moved.
    fn place(&self, spot: Spot, moved: Option<TaskId>) -> Result<Vec<u8>, TaskError> {
        let others = || self.tasks.iter().filter(|(id, _)| moved != Some(**id));
        let place = |view: &TaskView<'_>| view.place().to_vec();
        if spot == Spot::End {
            // The common case, without sorting.
            let last = others().map(|(_, task)| task.place.get()).max();
            return Ok(place::behind(last.map(|last| &last[..])));
        }
        let order = self.in_order();
        let order: Vec<_> = order.iter().filter(|view| moved != Some(view.id)).collect();
        let at = |id| {
            let found = order.iter().position(|view| view.id == id);
            found.ok_or(TaskError::NotFound)
        };
        let index = match spot {
            Spot::Start | Spot::End => 0,
            Spot::After(id) => at(id)? + 1,
            Spot::Before(id) => at(id)?,
        };
        let low = index.checked_sub(1).and_then(|index| order.get(index)).map(|view| place(view));
        let high = order.get(index).map(|view| place(view));
        place::between(low.as_deref(), high.as_deref()).ok_or(TaskError::NoRoom)
    }
}

// The texts name the numbers.
const _: () = assert!(MAX_TITLE == 1024 && MAX_LABEL == 64 && MAX_LABELS == 16);
const BAD_TITLE: &str = "a title has 1 to 1024 bytes and is not blank";
const BAD_LABELS: &str = "a task has at most 16 labels of 1 to 64 bytes without control characters";

fn validate(fields: &Fields) -> Result<(), TaskError> {
    if fields.title.as_ref().is_some_and(|title| !is_title(title)) {
        return Err(TaskError::Field(BAD_TITLE));
    }
    if fields.description.as_ref().is_some_and(|text| text.len() > MAX_DESCRIPTION) {
        return Err(TaskError::Field("a description has at most 16 KiB"));
    }
    let labels = [&fields.add_labels, &fields.remove_labels];
    if labels.iter().any(|labels| labels.len() > MAX_LABELS)
        || !labels.iter().all(|labels| labels.iter().all(|label| is_label(label)))
    {
        return Err(TaskError::Field(BAD_LABELS));
    }
    Ok(())
}
