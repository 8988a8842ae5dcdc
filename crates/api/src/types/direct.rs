//! `/agents/connect` and `/direct/*`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::{AgentId, MachineId};

use crate::{
    encoding::{Address, Base64, Hex32, Hex64},
    flag::True,
};

/// Body of `POST /agents/connect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConnectRequest {
    /// The agent to reach.
    #[schema(value_type = Hex64)]
    pub agent_id: String,
}

/// How an attempt to connect ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[non_exhaustive]
pub enum ConnectOutcome {
    /// A new session on a direct path, if need be with the help of a common peer.
    Direct,
    /// A new session by way of a common peer, which relays it until there is a direct path.
    Coordinated,
    /// There was a session already.
    AlreadyConnected,
    /// The agent is known, and no address of it answered.
    Unreachable,
    /// Nothing is known of the agent.
    NotFound,
}

/// Answer of `POST /agents/connect`. The status is 200 also when no session came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConnectResponse {
    /// Always true.
    pub ok: True,
    /// How it ended.
    pub outcome: ConnectOutcome,
    /// The peer's address, when there is a session.
    #[schema(value_type = Option<Address>, required = true)]
    pub addr: Option<SocketAddr>,
}

/// Body of `POST /machines/connect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConnectMachineRequest {
    /// The machine to reach.
    #[schema(value_type = Hex64)]
    pub machine_id: String,
}

/// Whether a direct message outlives a restart of the recipient's daemon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DirectClass {
    /// It is acknowledged once the recipient's daemon has it on disk.
    #[default]
    Durable,
    /// It is acknowledged once the recipient's daemon has it in memory, and never stored.
    Session,
}

impl DirectClass {
    /// Whether this is what is meant when nothing is said.
    #[must_use]
    pub const fn is_durable(&self) -> bool {
        matches!(self, Self::Durable)
    }
}

/// How far a direct message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DirectState {
    /// This daemon has it on disk, and sends it as soon as the recipient can be reached.
    Queued,
    /// It is on its way.
    Sent,
    /// Others keep a sealed copy for the recipient, which cannot be reached; it is still tried.
    Held,
    /// The recipient's daemon has it.
    Received,
    /// A consumer of the recipient has acknowledged it.
    Read,
    /// The recipient will never take it.
    Failed,
    /// Its time was over before it was received.
    Expired,
    /// It was taken back.
    Cancelled,
    /// Its recipient was blocked or revoked here before it was received.
    Blocked,
}

/// Body of `POST /direct/send`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DirectSendRequest {
    /// The recipient.
    #[schema(value_type = Hex64)]
    pub agent_id: String,
    /// The message, at most 16 MiB.
    #[schema(value_type = Base64)]
    pub payload: String,
    /// Also measure the round trip; clamped to 100 to 30000 milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_ack_ms: Option<u64>,
    /// Whether it outlives a restart of the recipient's daemon.
    #[serde(default, skip_serializing_if = "DirectClass::is_durable")]
    pub class: DirectClass,
    /// Answer as soon as this daemon has the message on disk. It is sent when the recipient can be
    /// reached, also after a restart, behind those that were queued for it before. Others keep a sealed
    /// copy meanwhile, unless it or one before it is longer than 256 KiB.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub queue: bool,
    /// Names the message, so that sending it again delivers it once; a fresh id unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex32>)]
    pub id: Option<String>,
    /// The message that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex32>)]
    pub reply_to: Option<String>,
    /// Be told when a consumer of the recipient acknowledged it; for queued messages alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_receipt: bool,
    /// How long a queued message is tried, in seconds; seven days unless given, thirty at most. Refused
    /// for others, which are tried once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_secs: Option<u64>,
}

/// The way that a direct message took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DirectPath {
    /// The recipient is this daemon's own agent.
    Loopback,
    /// Left with a third party for the recipient.
    GossipInbox,
    /// Kept by this daemon until the recipient can be reached.
    Outbox,
    /// Over the session, without an acknowledgement.
    RawQuic,
    /// Over the session; the recipient's inbox took it.
    RawQuicAcked,
}

/// What `require_ack_ms` found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RequireAck {
    /// Whether the acknowledgement came in time.
    pub ok: bool,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<u64>,
    /// Why it did not come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Answer of `POST /direct/send`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DirectSendResponse {
    /// Always true.
    pub ok: True,
    /// The way that the message took.
    pub path: DirectPath,
    /// How often it was sent again.
    pub retries_used: u32,
    /// Names the message; the same for every attempt.
    #[schema(value_type = Hex32)]
    pub request_id: String,
    /// How far it came.
    pub state: DirectState,
    /// Null unless `require_ack_ms` was given.
    #[schema(required = true)]
    pub require_ack: Option<RequireAck>,
}

/// Answer of `GET /direct/connections`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DirectConnectionsResponse {
    /// Always true.
    pub ok: True,
    /// Agents whose machine has a live session.
    pub connections: Vec<DirectConnection>,
}

/// An agent that can be reached over a live session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DirectConnection {
    /// The agent.
    #[schema(value_type = Hex64)]
    pub agent_id: AgentId,
    /// Its machine.
    #[schema(value_type = Option<Hex64>, required = true)]
    pub machine_id: Option<MachineId>,
}

/// Why a queued message for somebody who is away is not left with others: it waits here alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NotLeft {
    /// It is longer than 256 KiB.
    TooLarge,
    /// One that was queued before it for the same recipient is, and it may not overtake that.
    BehindTooLarge,
    /// The recipient gave no mailbox: it never met this agent on this machine, or too long ago.
    NoMailbox,
}

/// Answer of `GET /direct/messages/{id}`: a queued message as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DirectStatusResponse {
    /// Always true.
    pub ok: True,
    /// Names the message.
    #[schema(value_type = Hex32)]
    pub request_id: String,
    /// The recipient.
    #[schema(value_type = Hex64)]
    pub agent_id: AgentId,
    /// How far it came.
    pub state: DirectState,
    /// How many others keep a sealed copy for the recipient.
    #[serde(default)]
    pub holders: u64,
    /// Why nobody else keeps one, when the recipient is away and the reason is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_left: Option<NotLeft>,
    /// Since when, milliseconds since the Unix epoch.
    pub since: u64,
    /// When it was queued, milliseconds since the Unix epoch.
    pub queued_at: u64,
    /// When it is given up, milliseconds since the Unix epoch.
    pub expires_at: u64,
}

/// Body of `POST /direct/request`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DirectRequestRequest {
    /// The recipient.
    #[schema(value_type = Hex64)]
    pub agent_id: String,
    /// The message.
    #[schema(value_type = Base64)]
    pub payload: String,
    /// How long to wait for the answer; 30000 unless given, clamped to 100 to 120000 milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Names the message, so that asking again delivers it once; a fresh one unless given. An answer that came
    /// before is in the inbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex32>)]
    pub id: Option<String>,
}
