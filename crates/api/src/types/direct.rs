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
    /// A new session on a direct path.
    Direct,
    /// A new session with the help of another peer.
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

/// Body of `POST /direct/send`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
