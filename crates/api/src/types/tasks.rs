//! `/task-lists/*`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::AgentId;

use super::ObjectInfo;
use crate::{encoding::Hex64, flag::True};

/// Answer of `GET /task-lists`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskListsResponse {
    /// Always true.
    pub ok: True,
    /// The task lists of this daemon, by id.
    pub task_lists: Vec<ObjectInfo>,
}

/// Body of `POST /task-lists/{id}/tasks`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddTaskRequest {
    /// What is to be done, at most 1024 bytes.
    pub title: String,
    /// More about it, at most 16 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// 0 to 255; 128 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Labels, at most 16 of at most 64 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Who is to do it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex64>)]
    pub assignee: Option<String>,
    /// When it is due, milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<u64>,
    /// The task behind which it goes; at the end unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex64>)]
    pub after: Option<String>,
    /// The task before which it goes, in place of `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex64>)]
    pub before: Option<String>,
}

/// Answer of `POST /task-lists/{id}/tasks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddTaskResponse {
    /// Always true.
    pub ok: True,
    /// The task's id.
    #[schema(value_type = Hex64)]
    pub task_id: String,
}

/// What is done with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TaskAction {
    /// Takes it, until the lease is over.
    Claim,
    /// Holds it for another lease; of its holder only.
    Renew,
    /// Gives it back; of its holder only.
    Release,
    /// Says that it is done; somebody must have claimed it.
    Complete,
    /// Opens it again after it was done.
    Reopen,
}

/// Body of `PATCH /task-lists/{id}/tasks/{task_id}`: an action, or fields to change, not both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeTaskRequest {
    /// What is done with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<TaskAction>,
    /// With `claim` and `renew`: how long it is held; an hour unless given, a second to 7 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// What is to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// 0 to 255.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Its labels, in place of those that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    /// Who is to do it; nobody when empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex64>)]
    pub assignee: Option<String>,
    /// When it is due, milliseconds since the Unix epoch; never when 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<u64>,
    /// The task behind which it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex64>)]
    pub after: Option<String>,
    /// The task before which it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex64>)]
    pub before: Option<String>,
}

/// Who holds a task, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskClaim {
    /// The holder.
    #[schema(value_type = Hex64)]
    pub agent: AgentId,
    /// Since when, milliseconds since the Unix epoch.
    pub since: u64,
    /// Until when. Whoever claims it after that holds it.
    pub until: u64,
    /// Whether that is past.
    pub expired: bool,
    /// Agents whose claims at the same time lost against this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Hex64>)]
    pub lost: Vec<AgentId>,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Task {
    /// Its id.
    #[schema(value_type = Hex64)]
    pub id: String,
    /// What is to be done.
    pub title: String,
    /// More about it.
    pub description: String,
    /// `empty`, `claimed:` or `done:` with the agent's id. A claim whose lease is over counts as `empty`.
    pub state: String,
    /// Who is to do it, else who holds it or did it.
    #[schema(value_type = Option<Hex64>, required = true)]
    pub assignee: Option<AgentId>,
    /// 0 to 255; the least urgent is 0.
    pub priority: u8,
    /// Labels, sorted.
    pub labels: Vec<String>,
    /// When it is due, milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<u64>,
    /// Who holds it, or held it last and let the lease pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<TaskClaim>,
    /// When it was done, milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_at: Option<u64>,
    /// Who added it.
    #[schema(value_type = Hex64)]
    pub created_by: AgentId,
    /// When, milliseconds since the Unix epoch.
    pub created_at: u64,
    /// When something of it changed last.
    pub updated_at: u64,
}

/// Answer of `GET /task-lists/{id}/tasks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TasksResponse {
    /// Always true.
    pub ok: True,
    /// The tasks, in their order.
    pub tasks: Vec<Task>,
    /// Present when there are more: the `cursor` of the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Answer of `PATCH /task-lists/{id}/tasks/{task_id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeTaskResponse {
    /// Always true.
    pub ok: True,
    /// The task as it is now.
    pub task: Task,
}

/// Answer of `GET /task-lists/{id}/tasks/{task_id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskResponse {
    /// Always true.
    pub ok: True,
    /// The task.
    pub task: Task,
    /// What was done with it, the oldest first: actions to 1024, and the last 64 changes of fields.
    pub history: Vec<TaskStep>,
}

/// Something that was done with a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskStep {
    /// When, milliseconds since the Unix epoch.
    pub at: u64,
    /// By whom.
    #[schema(value_type = Hex64)]
    pub agent: AgentId,
    /// `add`, `edit`, or the action.
    pub action: String,
    /// Whether it took effect. A claim that another one forestalled did not.
    pub applied: bool,
    /// With `edit`: the fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// With `claim` and `renew`: until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}
