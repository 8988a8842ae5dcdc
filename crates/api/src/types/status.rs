//! `/health`, `/status`, `/shutdown` and the bare answer.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::AgentId;

use crate::{
    encoding::{Address, Hex64},
    flag::True,
};

/// An answer that says nothing but that it was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OkResponse {
    /// Always true.
    pub ok: True,
}

/// Answer of `GET /health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthResponse {
    /// Always true.
    pub ok: True,
    /// `healthy` as soon as the API answers, before the network is joined.
    pub status: String,
    /// Version of the daemon.
    pub version: String,
    /// Live QUIC sessions.
    pub peers: u64,
    /// Whole seconds since the daemon started.
    pub uptime_secs: u64,
    /// What needs attention, one word each: `database_damaged` after a damaged database was set
    /// aside, `storage_full` when its last commit failed for want of space, `contacts_lost` when contacts and their
    /// backup were damaged. Absent when there is nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// How the daemon is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ConnectionStatus {
    /// At least one peer.
    Connected,
    /// No peer yet, less than 45 seconds after the start.
    Connecting,
    /// No peer.
    Isolated,
    /// There are warnings.
    Degraded,
}

/// Answer of `GET /status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusResponse {
    /// Always true.
    pub ok: True,
    /// How the daemon is connected.
    pub status: ConnectionStatus,
    /// Version of the daemon.
    pub version: String,
    /// Whole seconds since the daemon started.
    pub uptime_secs: u64,
    /// Where this API listens.
    #[schema(value_type = Address)]
    pub api_address: SocketAddr,
    /// Addresses of the QUIC endpoint: as peers see it, then as this machine does.
    #[schema(value_type = Vec<Address>)]
    pub external_addrs: Vec<SocketAddr>,
    /// This daemon's agent.
    #[schema(value_type = Hex64)]
    pub agent_id: AgentId,
    /// Live QUIC sessions.
    pub peers: u64,
    /// What needs attention, one sentence each.
    pub warnings: Vec<String>,
    /// The file that holds what the daemon logs, when it was started in the background.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

/// Answer of `POST /shutdown`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShutdownResponse {
    /// Always true.
    pub ok: True,
    /// `shutting down`.
    pub message: String,
}
