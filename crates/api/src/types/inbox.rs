//! `/inbox/*` and `/history`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::AgentId;

use super::DirectState;
use crate::{
    encoding::{Base64, Hex32, Hex64},
    event::DirectMessageEvent,
    flag::True,
};

/// Name of the consumer that is meant when none is named.
pub const DEFAULT_CONSUMER: &str = "default";

/// Answer of `GET /inbox`, `GET /inbox/wait` and `POST /inbox/claim`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InboxResponse {
    /// Always true.
    pub ok: True,
    /// The consumer.
    pub consumer: String,
    /// Messages that it has not acknowledged and nobody has claimed, the oldest first.
    pub messages: Vec<DirectMessageEvent>,
    /// Messages that it had not acknowledged and that are not kept any more; told once.
    pub missed: u64,
    /// Everything up to this number is acknowledged.
    pub cursor: u64,
    /// Whether there may be more: an answer ends at its limit, or at 8 MiB.
    #[serde(default)]
    pub more: bool,
    /// Until when the messages are claimed, milliseconds since the Unix epoch; absent where they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_until: Option<u64>,
}

/// Body of `POST /inbox/claim`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClaimRequest {
    /// The consumer; `default` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,
    /// At most so many messages; 1 unless given, 256 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// For how long nobody else gets them; 30000 unless given, clamped to a second to a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// How long to wait for one; 0 unless given, at most 60000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Hand out nothing that comes behind a message which somebody else works on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_order: bool,
    /// Instead: hold these claimed messages for another lease, all of them or none. The answer has no
    /// messages; it is 409 `conflict` when one of them is claimed no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub renew: Vec<u64>,
    /// Who works on them, where several workers share a consumer: 1 to 64 letters, digits, `-`, `_` and `.`.
    /// Only who gives the same name renews, acknowledges or gives back what is claimed with one, or who gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// Body of `POST /inbox/ack`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InboxAckRequest {
    /// The consumer; `default` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,
    /// Numbers of single messages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub numbers: Vec<u64>,
    /// Instead: everything up to this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<u64>,
    /// Who claimed them; with `numbers`. When one of them was given back or is with somebody else by now, none is
    /// acknowledged and the answer is 409 `conflict`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// Body of `POST /inbox/release`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReleaseRequest {
    /// The consumer; `default` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,
    /// Numbers of claimed messages, which are handed out again at once.
    pub numbers: Vec<u64>,
    /// Who claimed them. What is with somebody else stays there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// Body of `POST /inbox/consumers` and `POST /inbox/seek`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsumerRequest {
    /// The consumer: 1 to 64 letters, digits, `-`, `_` and `.`.
    pub consumer: String,
    /// Where it begins: `oldest` (unless given), `unread`, `latest`, or the number after which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
}

/// How far a consumer has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsumerInfo {
    /// Its name.
    pub consumer: String,
    /// Everything up to this number is acknowledged.
    pub cursor: u64,
    /// Messages that are claimed now.
    pub claimed: usize,
    /// The first of them, at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<ClaimInfo>,
    /// Messages that are not acknowledged.
    pub waiting: u64,
    /// When it was made, milliseconds since the Unix epoch.
    pub created_at: u64,
}

/// A message that somebody works on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClaimInfo {
    /// Its number.
    pub number: u64,
    /// When it is handed out again unless the claim is renewed, milliseconds since the Unix epoch.
    pub until: u64,
    /// Who works on it, as that one says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// Answer of `GET /inbox/consumers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsumersResponse {
    /// Always true.
    pub ok: True,
    /// The consumers, by name.
    pub consumers: Vec<ConsumerInfo>,
}

/// Something that was received, or queued to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HistoryItem {
    /// Whether this daemon's agent sent it.
    pub sent: bool,
    /// Names the message.
    #[schema(value_type = Hex32)]
    pub request_id: String,
    /// The other agent.
    #[schema(value_type = Hex64)]
    pub agent_id: AgentId,
    /// The message.
    pub payload: Base64,
    /// When it came or was queued, milliseconds since the Unix epoch.
    pub at: u64,
    /// How far it came.
    pub state: DirectState,
    /// Its number in the inbox, if it came.
    #[serde(default, skip_serializing_if = "crate::event::is_zero")]
    pub number: u64,
}

/// Answer of `GET /history`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HistoryResponse {
    /// Always true.
    pub ok: True,
    /// What matches, the newest first.
    pub messages: Vec<HistoryItem>,
    /// What to give as `cursor` for the messages before these; absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
