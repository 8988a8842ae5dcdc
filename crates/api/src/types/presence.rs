//! `/presence` and `/agents/find`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::AgentId;

use super::DiscoveredAgent;
use crate::{
    encoding::{Address, Hex64},
    flag::True,
};

/// Whether an agent is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PresenceState {
    /// Nothing was ever seen of it.
    Unknown,
    /// It was there and is gone.
    Offline,
    /// It is overdue: it may be gone.
    Away,
    /// It is there.
    Online,
}

/// Answer of `GET /presence`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PresenceResponse {
    /// Always true.
    pub ok: True,
    /// The agents that are there, by id.
    #[schema(value_type = Vec<Hex64>)]
    pub agents: Vec<AgentId>,
}

/// Answer of `GET /presence/find/{agent_id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PresenceFindResponse {
    /// Always true.
    pub ok: True,
    /// The agent; null when it was not found.
    #[schema(required = true)]
    pub agent: Option<DiscoveredAgent>,
}

/// Answer of `GET /presence/status/{agent_id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PresenceStatusResponse {
    /// Always true.
    pub ok: True,
    /// Whether it is there, or merely overdue.
    pub online: bool,
    /// More precisely.
    pub state: PresenceState,
    /// When it was last known to be there, seconds since the Unix epoch; 0 when it never was.
    pub last_seen: u64,
    /// Whether there is a session with it.
    pub reachable: bool,
    /// What is known of where it is; null when nothing is.
    #[schema(required = true)]
    pub agent: Option<DiscoveredAgent>,
}

/// Answer of `POST /agents/find/{agent_id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FindResponse {
    /// Always true.
    pub ok: True,
    /// Whether it was found.
    pub found: bool,
    /// Where its machine may be reached; absent when it was not found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Address>>)]
    pub addresses: Option<Vec<SocketAddr>>,
}
