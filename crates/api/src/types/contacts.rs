//! `/contacts/*` and `/trust/*`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::{AgentId, MachineId, UserId};

use crate::{encoding::Hex64, event::TrustLevel, flag::True};

/// What a contact is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum IdentityType {
    /// By nothing but its id.
    Anonymous,
    /// By its user's word.
    Known,
    /// By its user's word, and trusted.
    Trusted,
    /// By its id and the machines it is pinned to.
    Pinned,
}

/// A contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Contact {
    /// The agent.
    #[schema(value_type = Hex64)]
    pub agent_id: AgentId,
    /// How much it is trusted; `blocked` also when it was revoked.
    pub trust_level: TrustLevel,
    /// What it is known by.
    pub identity_type: IdentityType,
    /// A name for it.
    #[schema(required = true)]
    pub label: Option<String>,
    /// When it became a contact, seconds since the Unix epoch.
    pub added_at: u64,
    /// When it was last proven on any machine, seconds since the Unix epoch.
    #[schema(required = true)]
    pub last_seen: Option<u64>,
    /// The user who certified it, when it said so itself.
    #[schema(value_type = Option<Hex64>, required = true)]
    pub user_id: Option<UserId>,
    /// Whether its key, or its user's, was revoked.
    pub revoked: bool,
    /// The machine that it says it moved to, when it is pinned to others and refused there. Absent
    /// otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex64>)]
    pub moved_to: Option<MachineId>,
}

/// Answer of `GET /contacts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContactsResponse {
    /// Always true.
    pub ok: True,
    /// The contacts, by id.
    pub contacts: Vec<Contact>,
}

/// Body of `POST /contacts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddContactRequest {
    /// The agent.
    #[schema(value_type = Hex64)]
    pub agent_id: String,
    /// `blocked`, `unknown`, `known` or `trusted`. When it is absent a new contact is `known`, one that is
    /// there keeps its level, and a blocked one is refused with 409.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_level: Option<String>,
    /// A name for it, at most 128 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// Answer of `POST /contacts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddContactResponse {
    /// Always true.
    pub ok: True,
    /// The agent.
    #[schema(value_type = Hex64)]
    pub agent_id: AgentId,
}

/// Body of `POST /contacts/trust`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetTrustRequest {
    /// The agent.
    #[schema(value_type = Hex64)]
    pub agent_id: String,
    /// `blocked`, `unknown`, `known` or `trusted`.
    pub level: String,
}

/// Body of `PATCH /contacts/{agent_id}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateContactRequest {
    /// `blocked`, `unknown`, `known` or `trusted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_level: Option<String>,
    /// `anonymous`, `known`, `trusted` or `pinned`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_type: Option<String>,
}

/// Body of `POST /contacts/{agent_id}/revoke`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevokeContactRequest {
    /// Why, at most 128 bytes.
    pub reason: String,
}

/// A revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Revocation {
    /// `agent`, `machine` or `user`.
    pub kind: String,
    /// The agent, machine or user whose key is revoked.
    #[schema(value_type = Hex64)]
    pub id: AgentId,
    /// The same when it is an agent.
    #[schema(value_type = Option<Hex64>, required = true)]
    pub agent_id: Option<AgentId>,
    /// Why.
    pub reason: String,
    /// When, seconds since the Unix epoch by the clock of who did.
    pub timestamp: u64,
    /// The user who revoked it, if it was neither the key itself nor this installation.
    #[schema(value_type = Option<Hex64>, required = true)]
    pub revoker_id: Option<UserId>,
    /// Made here, for this installation alone.
    pub local: bool,
}

/// Answer of `GET /contacts/{agent_id}/revocations` and `GET /identity/revocations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevocationsResponse {
    /// Always true.
    pub ok: True,
    /// The revocations.
    pub revocations: Vec<Revocation>,
}

/// A machine of a contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContactMachine {
    /// The machine.
    #[schema(value_type = Hex64)]
    pub machine_id: MachineId,
    /// A name for it.
    #[schema(required = true)]
    pub label: Option<String>,
    /// When it was put on record, seconds since the Unix epoch.
    pub first_seen: u64,
    /// When the contact was last proven on it, seconds since the Unix epoch.
    pub last_seen: u64,
    /// Whether the contact is pinned to it.
    pub pinned: bool,
}

/// Answer of `GET /contacts/{agent_id}/machines`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContactMachinesResponse {
    /// Always true.
    pub ok: True,
    /// The machines; none for an agent that is no contact.
    pub machines: Vec<ContactMachine>,
}

/// Body of `POST /contacts/{agent_id}/machines`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddMachineRequest {
    /// The machine.
    #[schema(value_type = Hex64)]
    pub machine_id: String,
    /// A name for it, at most 128 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Also pin the contact to it.
    #[serde(default)]
    pub pinned: bool,
}

/// Answer of `POST /contacts/{agent_id}/machines`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContactMachineResponse {
    /// Always true.
    pub ok: True,
    /// The machine.
    pub machine: ContactMachine,
}

/// Answer of `POST /contacts/{agent_id}/machines/{machine_id}/pin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PinResponse {
    /// Always true.
    pub ok: True,
    /// Whether it is pinned now; false when the machine is not on record and the agent was never proven on
    /// it.
    pub pinned: bool,
}

/// Answer of `DELETE /contacts/{agent_id}/machines/{machine_id}/pin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnpinResponse {
    /// Always true.
    pub ok: True,
    /// Whether it is on record, and so unpinned now.
    pub unpinned: bool,
}

/// Body of `POST /trust/evaluate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EvaluateRequest {
    /// The agent.
    #[schema(value_type = Hex64)]
    pub agent_id: String,
    /// The machine that it comes from.
    #[schema(value_type = Hex64)]
    pub machine_id: String,
}

/// What the trust rules say of an agent on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[non_exhaustive]
pub enum Decision {
    /// Trusted, or pinned to the machine.
    Accept,
    /// Known, but not trusted.
    AcceptWithFlag,
    /// Pinned to another machine, or moved away from this one.
    RejectMachineMismatch,
    /// Blocked or revoked.
    RejectBlocked,
    /// Nothing is known of it.
    Unknown,
}

/// Answer of `POST /trust/evaluate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EvaluateResponse {
    /// Always true.
    pub ok: True,
    /// The decision.
    pub decision: Decision,
    /// What it rests on: `revoked`, `blocked`, `wrong_machine`, `superseded`, `unknown`, `known`,
    /// `trusted` or `pinned`.
    pub reason: String,
}
