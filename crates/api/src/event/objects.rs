//! Data of the events of shared objects.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::AgentId;

use crate::encoding::{Hex32, Hex64};

/// SSE event name of a [`TaskEvent`].
pub const TASK: &str = "task";
/// SSE event name of a [`StoreEvent`].
pub const STORE: &str = "store";

/// What happened to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TaskEventKind {
    /// It is new.
    Added,
    /// Fields of it changed.
    Edited,
    /// An agent holds it now.
    Claimed,
    /// An agent's claim does not hold: another one came before it.
    ClaimLost,
    /// Its holder holds it longer.
    Renewed,
    /// Its holder gave it back.
    Released,
    /// It is done.
    Completed,
    /// It is open again.
    Reopened,
    /// It is gone.
    Deleted,
}

impl TaskEventKind {
    /// As in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Edited => "edited",
            Self::Claimed => "claimed",
            Self::ClaimLost => "claim_lost",
            Self::Renewed => "renewed",
            Self::Released => "released",
            Self::Completed => "completed",
            Self::Reopened => "reopened",
            Self::Deleted => "deleted",
        }
    }
}

/// Something happened to a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskEvent {
    /// The list.
    pub list_id: String,
    /// The task.
    #[schema(value_type = Hex64)]
    pub task_id: String,
    /// What happened.
    pub event: TaskEventKind,
    /// Who did it; with `claim_lost`, whose claim it was.
    #[schema(value_type = Hex64)]
    pub agent: AgentId,
    /// With `claim_lost`: who holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex64>)]
    pub holder: Option<AgentId>,
    /// When, milliseconds since the Unix epoch.
    pub at: u64,
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StoreEventKind {
    /// A value was put.
    Put,
    /// A value was put at the same time as another one: the key has both.
    Conflict,
    /// It was deleted.
    Deleted,
    /// Its time was over.
    Expired,
}

impl StoreEventKind {
    /// As in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Conflict => "conflict",
            Self::Deleted => "deleted",
            Self::Expired => "expired",
        }
    }
}

/// Something happened to a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreEvent {
    /// The store.
    pub store_id: String,
    /// The key.
    pub key: String,
    /// What happened.
    pub event: StoreEventKind,
    /// Who did it.
    #[schema(value_type = Hex64)]
    pub agent: AgentId,
    /// When, milliseconds since the Unix epoch.
    pub at: u64,
    /// The key's version now; absent when it has no value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex32>)]
    pub version: Option<String>,
}
