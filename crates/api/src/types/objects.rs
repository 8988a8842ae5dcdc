//! What task lists and key-value stores have in common.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::AgentId;

use crate::{encoding::Hex64, flag::True};

/// Who may write to a shared object, and what.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ObjectPolicy {
    /// Whoever knows its name. It has no owner.
    #[default]
    Open,
    /// Its owner alone.
    Signed,
    /// Its owner, and those that the owner lists.
    Allowlisted,
    /// Stores only: each below its own prefix, its agent id and `/`: those that the owner lists, or
    /// everyone when it lists nobody.
    SelfKeyed,
    /// Stores only: its owner and those that it lists; a key that has a value keeps it.
    AppendOnly,
    /// Stores only: values are sealed to a group. Refused as `needs_group` outside of one.
    Encrypted,
}

/// Body of `POST /task-lists` and `POST /stores`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreateObjectRequest {
    /// What people call it. Only this daemon remembers it.
    pub name: String,
    /// What names it on the network: 1 to 128 bytes without `@`, `/` and control characters.
    pub topic: String,
    /// Who may write.
    #[serde(default)]
    pub policy: ObjectPolicy,
    /// Agents that may write besides its owner.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Hex64>)]
    pub writers: Vec<String>,
}

/// Answer of the calls that create or join an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ObjectResponse {
    /// Always true.
    pub ok: True,
    /// What names it in paths, and what others join: its topic, for an object with an owner followed by
    /// `@` and the owner's id.
    pub id: String,
    /// Its topic.
    pub topic: String,
    /// Who may write.
    pub policy: ObjectPolicy,
}

/// A shared object that this daemon holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ObjectInfo {
    /// What names it in paths.
    pub id: String,
    /// What names it on the network.
    pub topic: String,
    /// What it is called here.
    pub name: String,
    /// Whose it is; absent for an open one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex64>)]
    pub owner: Option<AgentId>,
}

/// How an object stands here. Two daemons with the same `hash` hold the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ObjectStatusResponse {
    /// Always true.
    pub ok: True,
    /// What names it in paths.
    pub id: String,
    /// What names it on the network.
    pub topic: String,
    /// What it is called here.
    pub name: String,
    /// Whose it is; absent for an open one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex64>)]
    pub owner: Option<AgentId>,
    /// Who may write, as far as it is known here: a daemon that joined has it from others.
    pub policy: ObjectPolicy,
    /// Agents that may write besides the owner.
    #[schema(value_type = Vec<Hex64>)]
    pub writers: Vec<AgentId>,
    /// Whether this daemon's agent may.
    pub writable: bool,
    /// Operations that are applied.
    pub applied: u64,
    /// Operations that wait for others which they build on.
    pub pending: u64,
    /// Operations that every replica skips, since their author might not do them.
    pub invalid: u64,
    /// Bytes of content, nearly.
    pub bytes: u64,
    /// Number of the owner's checkpoint that it stands on; 0 for none. What the one before covers, the log may have
    /// let go.
    pub checkpoint: u64,
    /// BLAKE3 of what it holds.
    #[schema(value_type = Hex64)]
    pub hash: String,
}

/// Body of `POST /task-lists/{id}/policy` and `POST /stores/{id}/policy`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyRequest {
    /// Agents that may write from now on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Hex64>)]
    pub add_writers: Vec<String>,
    /// Agents that may not any more. What the owner has seen of them stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Hex64>)]
    pub remove_writers: Vec<String>,
}
