//! Operations on a task list, and their encoding: `TaskOp` in `docs/protocol/objects.proto`.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use x0x_core::{AgentId, DecodeError, WallTime, bytes32, decode_bounded, fixed_bytes};

use super::{
    life::{Action, MAX_LEASE, MIN_LEASE},
    place::is_place,
};
use crate::MAX_OP;

/// Longest title in bytes.
pub const MAX_TITLE: usize = 1024;
/// Longest description in bytes.
pub const MAX_DESCRIPTION: usize = 16 * 1024;
/// Most labels that one operation adds or removes, and that an agent may give a task.
pub const MAX_LABELS: usize = 16;
/// Longest label in bytes.
pub const MAX_LABEL: usize = 64;

bytes32! {
    /// Names a task: a hash of the operation that adds it, so that no two tasks share one.
    TaskId
}

/// Fields of a task, as far as an operation sets them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// What is to be done.
    pub title: Option<String>,
    /// More about it.
    pub description: Option<String>,
    /// How urgent it is; the least urgent is 0.
    pub priority: Option<u8>,
    /// Who is to do it.
    pub assignee: Option<Option<AgentId>>,
    /// When it is due.
    pub due: Option<Option<WallTime>>,
    /// Labels that it gets.
    pub add_labels: Vec<String>,
    /// Labels that it loses.
    pub remove_labels: Vec<String>,
    /// Where it stands.
    pub place: Option<Vec<u8>>,
}

/// One change of a task list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskOp {
    /// A new task.
    Add(Fields),
    /// Other fields.
    Edit(TaskId, Fields),
    /// Something is done with it.
    Step(TaskId, Action),
    /// It is gone, with all that others do with it at the same time.
    Delete(TaskId),
}

/// The protobuf messages as they are encoded.
mod proto {
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct TaskOp {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) task: Bytes,
        #[prost(oneof = "Change", tags = "2, 3, 4, 5")]
        pub(super) change: Option<Change>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Change {
        #[prost(message, tag = "2")]
        Add(Fields),
        #[prost(message, tag = "3")]
        Edit(Fields),
        #[prost(message, tag = "4")]
        Step(Step),
        #[prost(message, tag = "5")]
        Delete(Delete),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Fields {
        #[prost(string, optional, tag = "1")]
        pub(super) title: Option<String>,
        #[prost(string, optional, tag = "2")]
        pub(super) description: Option<String>,
        #[prost(uint32, optional, tag = "3")]
        pub(super) priority: Option<u32>,
        #[prost(bytes = "bytes", optional, tag = "4")]
        pub(super) assignee: Option<Bytes>,
        #[prost(uint64, optional, tag = "5")]
        pub(super) due_ms: Option<u64>,
        #[prost(string, repeated, tag = "6")]
        pub(super) add_labels: Vec<String>,
        #[prost(string, repeated, tag = "7")]
        pub(super) remove_labels: Vec<String>,
        #[prost(bytes = "vec", optional, tag = "8")]
        pub(super) place: Option<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Step {
        #[prost(uint32, tag = "1")]
        pub(super) action: u32,
        #[prost(uint64, tag = "2")]
        pub(super) lease_ms: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Delete {}
}

/// The number of an action on the wire, and in states.
pub(super) const fn action_code(action: Action) -> (u32, u64) {
    match action {
        Action::Claim(lease) => (1, lease.as_millis() as u64),
        Action::Renew(lease) => (2, lease.as_millis() as u64),
        Action::Release => (3, 0),
        Action::Complete => (4, 0),
        Action::Reopen => (5, 0),
    }
}

/// The action with this number.
pub(super) fn action_of(code: u32, lease_ms: u64) -> Result<Action, DecodeError> {
    let lease = Duration::from_millis(lease_ms);
    let in_range = (MIN_LEASE..=MAX_LEASE).contains(&lease);
    match code {
        1 if in_range => Ok(Action::Claim(lease)),
        2 if in_range => Ok(Action::Renew(lease)),
        1 | 2 => Err(DecodeError::Field("lease")),
        // One form of each: what stands for nothing is nothing.
        3..=5 if lease_ms != 0 => Err(DecodeError::Field("lease")),
        3 => Ok(Action::Release),
        4 => Ok(Action::Complete),
        5 => Ok(Action::Reopen),
        _ => Err(DecodeError::Field("action")),
    }
}

/// Whether a text may be a label.
pub(crate) fn is_label(label: &str) -> bool {
    !label.is_empty() && label.len() <= MAX_LABEL && !label.chars().any(char::is_control)
}

/// Whether a text may be a title.
pub(crate) fn is_title(title: &str) -> bool {
    !title.trim().is_empty() && title.len() <= MAX_TITLE
}

impl Fields {
    /// Whether an operation with these sets nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn read(wire: proto::Fields) -> Result<Self, DecodeError> {
        let proto::Fields { title, description, priority, assignee, due_ms, .. } = wire;
        if title.as_ref().is_some_and(|title| !is_title(title)) {
            return Err(DecodeError::Field("title"));
        }
        if description.as_ref().is_some_and(|text| text.len() > MAX_DESCRIPTION) {
            return Err(DecodeError::Field("description"));
        }
        let priority = priority.map(u8::try_from).transpose();
        let assignee = assignee.map(|agent| match &agent[..] {
            [] => Ok(None),
            agent => fixed_bytes(agent, "assignee").map(|agent| Some(AgentId::new(agent))),
        });
        for labels in [&wire.add_labels, &wire.remove_labels] {
            if labels.len() > MAX_LABELS || !labels.iter().all(|label| is_label(label)) {
                return Err(DecodeError::Field("labels"));
            }
        }
        if wire.place.as_ref().is_some_and(|place| !is_place(place)) {
            return Err(DecodeError::Field("place"));
        }
        Ok(Self {
            title,
            description,
            priority: priority.map_err(|_| DecodeError::Field("priority"))?,
            assignee: assignee.transpose()?,
            due: due_ms.map(|due| (due > 0).then(|| WallTime::from_millis(due))),
            add_labels: wire.add_labels,
            remove_labels: wire.remove_labels,
            place: wire.place,
        })
    }

    fn write(&self) -> proto::Fields {
        let agent = |agent: &Option<AgentId>| {
            agent.map(|agent| Bytes::copy_from_slice(agent.as_bytes())).unwrap_or_default()
        };
        proto::Fields {
            title: self.title.clone(),
            description: self.description.clone(),
            priority: self.priority.map(u32::from),
            assignee: self.assignee.as_ref().map(agent),
            due_ms: self.due.map(|due| due.map_or(0, WallTime::as_millis)),
            add_labels: self.add_labels.clone(),
            remove_labels: self.remove_labels.clone(),
            place: self.place.clone(),
        }
    }
}

impl TaskOp {
    pub(super) fn encode(&self) -> Vec<u8> {
        use proto::Change;
        let (task, change) = match self {
            Self::Add(fields) => (None, Change::Add(fields.write())),
            Self::Edit(task, fields) => (Some(task), Change::Edit(fields.write())),
            Self::Step(task, action) => {
                let (action, lease_ms) = action_code(*action);
                (Some(task), Change::Step(proto::Step { action, lease_ms }))
            }
            Self::Delete(task) => (Some(task), Change::Delete(proto::Delete {})),
        };
        let task = task.map(|task| Bytes::copy_from_slice(task.as_bytes())).unwrap_or_default();
        proto::TaskOp { task, change: Some(change) }.encode_to_vec()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        use proto::Change;
        let proto::TaskOp { task, change } = decode_bounded(bytes, MAX_OP)?;
        let task = || fixed_bytes(&task, "task").map(TaskId::new);
        match change.ok_or(DecodeError::Field("change"))? {
            Change::Add(fields) if fields.title.is_none() || fields.place.is_none() => {
                Err(DecodeError::Field("title"))
            }
            Change::Add(fields) => Ok(Self::Add(Fields::read(fields)?)),
            Change::Edit(fields) => Ok(Self::Edit(task()?, Fields::read(fields)?)),
            Change::Step(step) => Ok(Self::Step(task()?, action_of(step.action, step.lease_ms)?)),
            Change::Delete(_) => Ok(Self::Delete(task()?)),
        }
    }
}
