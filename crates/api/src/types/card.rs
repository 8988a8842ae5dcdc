//! `/agent/user-id`, `/agent/card`, `/introduction`, `/agent/export`, `/agent/import` and
//! `/identity/revoke`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::{AgentId, MachineId, UserId};

use crate::{
    encoding::{Address, Base64, Hex64},
    flag::True,
};

/// Answer of `GET /agent/user-id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserIdResponse {
    /// Always true.
    pub ok: True,
    /// The person or organisation behind the agent.
    #[schema(value_type = Option<Hex64>, required = true)]
    pub user_id: Option<UserId>,
    /// Whether others are told.
    pub disclosed: bool,
}

/// Optional body of `POST /agent/user-id`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CreateUserRequest {
    /// Absolute path of the key file to make; `user.key` beside the agent's key when it is absent. The
    /// configuration must name any other as `user_key_path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Answer of `POST /agent/user-id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreateUserResponse {
    /// Always true.
    pub ok: True,
    /// The new user.
    #[schema(value_type = Hex64)]
    pub user_id: UserId,
    /// Where its key is. Keep a copy.
    pub path: String,
    /// Always true: the daemon uses the key from its next start on.
    pub restart_required: bool,
}

/// What an agent's card says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentCard {
    /// What to call the agent.
    pub display_name: String,
    /// The agent.
    #[schema(value_type = Hex64)]
    pub agent_id: AgentId,
    /// The machine where it runs.
    #[schema(value_type = Hex64)]
    pub machine_id: MachineId,
    /// The user behind it, proven by the certificate in the card. Absent when it is not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex64>)]
    pub user_id: Option<UserId>,
    /// Where the machine may be reached.
    #[schema(value_type = Vec<Address>)]
    pub addresses: Vec<SocketAddr>,
    /// When it was made, seconds since the Unix epoch.
    pub created_at: u64,
    /// When it ends, seconds since the Unix epoch.
    pub expires_at: u64,
    /// The ML-KEM-768 key that letters to the agent are sealed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kem_public_key_b64: Option<Base64>,
}

/// Answer of `GET /agent/card`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentCardResponse {
    /// Always true.
    pub ok: True,
    /// What the card says.
    pub card: AgentCard,
    /// The card, signed by the agent: `x0x://agent/...`, about 9,000 characters.
    pub link: String,
    /// Ids and addresses alone: `x0x://agent/...`, up to 240 characters, to paste or to show as a QR code.
    pub short_link: String,
}

/// Body of `POST /agent/card/import`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportCardRequest {
    /// A link of either kind, with or without `x0x://agent/`.
    pub card: String,
    /// `blocked`, `unknown`, `known` or `trusted`. When it is absent a new contact is `known`, one that is
    /// there keeps its level, and a blocked one is refused with 409.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_level: Option<String>,
}

/// Answer of `POST /agent/card/import`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportCardResponse {
    /// Always true.
    pub ok: True,
    /// The agent, a contact now.
    #[schema(value_type = Hex64)]
    pub agent_id: AgentId,
    /// What it calls itself; empty for a short link.
    pub display_name: String,
    /// The level of the contact: `Blocked`, `Unknown`, `Known` or `Trusted`.
    pub trust_level: String,
    /// Always 0: cards carry no groups.
    pub groups: u64,
    /// Always 0: cards carry no stores.
    pub stores: u64,
}

/// A service of an introduction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IntroductionService {
    /// A short name.
    pub name: String,
    /// For people.
    pub description: String,
    /// The least trust that it takes: `unknown`, `known` or `trusted`.
    pub min_trust: String,
}

/// Answer of `GET /introduction`: what a peer of a given trust may be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IntroductionResponse {
    /// Always true.
    pub ok: True,
    /// The agent.
    #[schema(value_type = Hex64)]
    pub agent_id: AgentId,
    /// The machine. For peers that are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex64>)]
    pub machine_id: Option<MachineId>,
    /// The user, if others are told. For peers that are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex64>)]
    pub user_id: Option<UserId>,
    /// What to call the agent.
    #[schema(required = true)]
    pub display_name: Option<String>,
    /// What the peer may use.
    pub services: Vec<IntroductionService>,
    /// The introduction, signed by the machine: `x0x://agent/...`. For peers that are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

/// Body of `POST /agent/export`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExportRequest {
    /// What opens the export; at least 8 characters.
    pub passphrase: String,
}

impl std::fmt::Debug for ExportRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExportRequest").finish_non_exhaustive()
    }
}

/// Answer of `POST /agent/export`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExportResponse {
    /// Always true.
    pub ok: True,
    /// The agent.
    #[schema(value_type = Hex64)]
    pub agent_id: AgentId,
    /// Its keys, which only the passphrase opens.
    pub keys: Base64,
}

/// Body of `POST /agent/import`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportRequest {
    /// The keys, as `POST /agent/export` gave them.
    #[schema(value_type = Base64)]
    pub keys: String,
    /// What opens them.
    pub passphrase: String,
    /// Put them in the place of this installation's agent, whose key files are kept under other names.
    #[serde(default)]
    pub replace: bool,
}

impl std::fmt::Debug for ImportRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImportRequest").field("replace", &self.replace).finish_non_exhaustive()
    }
}

/// Answer of `POST /agent/import`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportResponse {
    /// Always true.
    pub ok: True,
    /// The agent that this installation has from its next start on.
    #[schema(value_type = Hex64)]
    pub agent_id: AgentId,
    /// Always true: until then the daemon goes on as the agent it was.
    pub restart_required: bool,
}

/// Whose key `POST /identity/revoke` revokes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RevokeKind {
    /// This agent's, by itself.
    Agent,
    /// This agent's, by its user.
    AgentByUser,
    /// This machine's.
    Machine,
    /// The user's, and with it every agent that named them.
    User,
}

/// Body of `POST /identity/revoke`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// Whose key.
    pub what: RevokeKind,
    /// Why, at most 256 bytes.
    #[serde(default)]
    pub reason: String,
    /// The id whose key is revoked, to be sure: it is for ever.
    #[schema(value_type = Hex64)]
    pub id: String,
}
