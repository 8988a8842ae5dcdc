//! What happens in groups.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::AgentId;

use crate::encoding::{Base64, Hex64};

/// SSE event name of a [`GroupEvent`].
pub const GROUP: &str = "group";

/// Kinds of [`GroupEvent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GroupEventKind {
    /// This agent came into it, or founded it.
    Entered,
    /// Its members, rules or name changed: read it again.
    State,
    /// It has other keys.
    Epoch,
    /// Somebody wrote.
    Message,
    /// Somebody wrote in an epoch of which there are no keys here any more, or on a side that fell; then its author
    /// writes it again.
    Unreadable,
    /// A member handed over what was written before this agent came in: read the messages again.
    History,
    /// This agent is not in it any more.
    Left,
}

/// Something happened in a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupEvent {
    /// The group.
    #[schema(value_type = Hex64)]
    pub group_id: String,
    /// What happened.
    pub event: GroupEventKind,
    /// Who wrote, of an encrypted message; of `history`, who handed it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex64>)]
    pub author_agent_id: Option<AgentId>,
    /// In which room, of an encrypted message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    /// The text of an encrypted message, when it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Its bytes, when they are no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Base64>)]
    pub payload: Option<String>,
    /// The message, in a group that is not encrypted: see its messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// The epoch of its keys now; of what is unreadable, that in which it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
}
