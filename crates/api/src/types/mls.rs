//! `/mls/groups/*` and `/groups/{id}/secure/*`: groups by their keys, and content for their members.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::AgentId;

use crate::{
    encoding::{Base64, Hex64},
    flag::True,
};

/// Body of `POST /mls/groups`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreateMlsGroupRequest {
    /// Refused: an id is made with the keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex64>)]
    pub group_id: Option<String>,
}

/// Answer of `POST /mls/groups` and `GET /mls/groups/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MlsGroupResponse {
    /// Always true.
    pub ok: True,
    /// The id of the keys.
    #[schema(value_type = Hex64)]
    pub group_id: String,
    /// The group under `/groups` whose keys they are.
    #[schema(value_type = Hex64)]
    pub named_group_id: String,
    /// Their epoch.
    pub epoch: u64,
    /// Who has them.
    #[schema(value_type = Vec<Hex64>)]
    pub members: Vec<AgentId>,
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MlsGroupInfo {
    /// The id of the keys.
    #[schema(value_type = Hex64)]
    pub group_id: String,
    /// Their epoch.
    pub epoch: u64,
    /// Who has them.
    pub member_count: u64,
}

/// Answer of `GET /mls/groups`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MlsGroupsResponse {
    /// Always true.
    pub ok: True,
    /// The groups whose keys this agent has.
    pub groups: Vec<MlsGroupInfo>,
}

/// Body of what names an agent under `/mls/groups/{id}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MlsAgentRequest {
    /// Whom.
    #[schema(value_type = Hex64)]
    pub agent_id: String,
}

/// Answer to a change of who has the keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MlsMembersResponse {
    /// Always true.
    pub ok: True,
    /// The epoch now.
    pub epoch: u64,
    /// Who has the keys.
    pub member_count: u64,
}

/// Body of `POST /mls/groups/{id}/encrypt`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MlsEncryptRequest {
    /// The content.
    #[schema(value_type = Base64)]
    pub payload: String,
}

/// Answer of `POST /mls/groups/{id}/encrypt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MlsEncryptResponse {
    /// Always true.
    pub ok: True,
    /// The content, encrypted to the members of the epoch.
    #[schema(value_type = Base64)]
    pub ciphertext: String,
    /// The epoch.
    pub epoch: u64,
}

/// Body of `POST /mls/groups/{id}/decrypt`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MlsDecryptRequest {
    /// As another member's daemon gave it.
    #[schema(value_type = Base64)]
    pub ciphertext: String,
    /// The epoch in which that was; 409 when the group is in another one by now.
    pub epoch: u64,
}

/// Answer of `POST /mls/groups/{id}/decrypt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MlsDecryptResponse {
    /// Always true.
    pub ok: True,
    /// The content.
    #[schema(value_type = Base64)]
    pub payload: String,
}

/// Answer of `POST /mls/groups/{id}/welcome`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MlsWelcomeResponse {
    /// Always true.
    pub ok: True,
    /// What a member needs to come in by an own commit.
    #[schema(value_type = Base64)]
    pub welcome: String,
    /// The id of the keys.
    #[schema(value_type = Hex64)]
    pub group_id: String,
    /// Their epoch.
    pub epoch: u64,
}

/// Body of `POST /groups/{id}/secure/encrypt`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecureEncryptRequest {
    /// The content.
    #[serde(alias = "plaintext")]
    #[schema(value_type = Base64)]
    pub payload_b64: String,
}

/// Answer of `POST /groups/{id}/secure/encrypt`, and body of `POST /groups/{id}/secure/decrypt`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecureContent {
    /// True in an answer.
    #[serde(default)]
    pub ok: True,
    /// The content, encrypted to the members of the epoch.
    #[serde(alias = "ciphertext")]
    #[schema(value_type = Base64)]
    pub ciphertext_b64: String,
    /// Its nonce, 24 bytes.
    #[serde(alias = "nonce")]
    #[schema(value_type = Base64)]
    pub nonce_b64: String,
    /// The epoch of the group's keys.
    #[serde(alias = "epoch")]
    pub secret_epoch: u64,
}

/// Answer of `POST /groups/{id}/secure/decrypt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecureDecryptResponse {
    /// Always true.
    pub ok: True,
    /// The content.
    #[schema(value_type = Base64)]
    pub payload_b64: String,
    /// The epoch of the group's keys.
    pub secret_epoch: u64,
}
