//! `/agent` and `/announce`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::{AgentId, MachineId, UserId};

use crate::{
    encoding::{Base64, Hex64},
    flag::True,
};

/// Answer of `GET /agent`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentResponse {
    /// Always true.
    pub ok: True,
    /// The agent: SHA-256 of its ML-DSA-65 public key.
    #[schema(value_type = Hex64)]
    pub agent_id: AgentId,
    /// The machine: SHA-256 of its ML-DSA-65 public key.
    #[schema(value_type = Hex64)]
    pub machine_id: MachineId,
    /// The person or organisation behind the agent, if it has one.
    #[schema(value_type = Option<Hex64>, required = true)]
    pub user_id: Option<UserId>,
    /// The agent's ML-KEM-768 encapsulation key, 1184 bytes.
    pub kem_public_key_b64: Base64,
}

/// Optional body of `POST /announce`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct AnnounceRequest {
    /// Also tell who stands behind the agent. Needs `human_consent` and a user key.
    pub include_user_identity: bool,
    /// That the user agreed to being named.
    pub human_consent: bool,
}

/// Answer of `POST /announce`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AnnounceResponse {
    /// Always true.
    pub ok: True,
    /// Whether the announcement named the user.
    pub include_user_identity: bool,
}
