//! How groups are doing, and what changes of their state led to.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::AgentId;

use crate::{encoding::Hex64, flag::True};

/// The state that a change of a group led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupCommit {
    /// The group.
    #[schema(value_type = Hex64)]
    pub group_id: String,
    /// Operations that stand.
    pub revision: u64,
    /// Always null: a state follows from a set of operations, not from one before it.
    #[schema(value_type = Option<Hex64>, required = true)]
    pub prev_state_hash: Option<String>,
    /// Who is in it, as a hash.
    #[schema(value_type = Hex64)]
    pub roster_root: String,
    /// Its rules, as a hash.
    #[schema(value_type = Hex64)]
    pub policy_hash: String,
    /// Name, description and the rest of what it shows, as a hash.
    #[schema(value_type = Hex64)]
    pub public_meta_hash: String,
    /// `mls:epoch=N`, when it is encrypted and this agent has its keys.
    #[schema(required = true)]
    pub security_binding: Option<String>,
    /// What all members that have the same operations agree upon.
    #[schema(value_type = Hex64)]
    pub state_hash: String,
    /// Whether it was ended.
    pub withdrawn: bool,
    /// This agent.
    #[schema(value_type = Hex64)]
    pub committed_by: AgentId,
    /// When its state changed last, milliseconds since the Unix epoch.
    pub committed_at: u64,
}

/// Answer of `POST /groups/{id}/state/seal` and `POST /groups/{id}/state/withdraw`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupCommitResponse {
    /// Always true.
    pub ok: True,
    /// The state.
    pub commit: GroupCommit,
}

/// How a group is doing; counts are since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupDiagnosis {
    /// The group.
    #[schema(value_type = Hex64)]
    pub group_id: String,
    /// Who is in it.
    pub members_v2_size: u64,
    /// Whether its log is followed.
    pub subscribed_metadata: bool,
    /// The same, of a group that is not encrypted.
    pub subscribed_public: bool,
    /// Messages that came and are shown.
    pub messages_received: u64,
    /// Items that do not open, or are malformed.
    pub messages_dropped_decode_failed: u64,
    /// Items whose author was banned.
    pub messages_dropped_author_banned: u64,
    /// Items whose author may not do that.
    pub messages_dropped_write_policy_violation: u64,
    /// Items whose signature does not hold.
    pub messages_dropped_signature_failed: u64,
    /// Items refused for another reason, by MLS among others.
    pub messages_dropped_other: u64,
    /// When the last message came, milliseconds since the Unix epoch.
    #[schema(required = true)]
    pub last_message_at_ms: Option<u64>,
    /// Operations that were new.
    pub member_joined_events_applied: u64,
    /// Items of its log.
    pub items: u64,
    /// Messages that cannot be read here.
    pub messages_unreadable: u64,
    /// Times that it had other keys.
    pub epochs: u64,
    /// The epoch of its keys, when it is encrypted and this agent has them.
    #[schema(required = true)]
    pub epoch: Option<u64>,
    /// Operations that stand.
    pub revision: u64,
    /// Those that do not.
    pub fallen: u64,
    /// Whether others seem to be further; they are asked.
    pub behind: bool,
}

/// Answer of `GET /diagnostics/groups`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupDiagnosticsResponse {
    /// Always true.
    pub ok: True,
    /// The groups, by id.
    pub groups: Vec<GroupDiagnosis>,
}
