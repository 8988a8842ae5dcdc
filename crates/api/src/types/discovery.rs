//! `/agents/discovered`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::{AgentId, MachineId, UserId};

use crate::{
    encoding::{Address, Hex64},
    flag::True,
};

/// What is known of an agent from its announcements.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiscoveredAgent {
    /// The agent.
    #[schema(value_type = Hex64)]
    pub agent_id: AgentId,
    /// The machine where it runs.
    #[schema(value_type = Hex64)]
    pub machine_id: MachineId,
    /// Who stands behind it, if it said so.
    #[schema(value_type = Option<Hex64>, required = true)]
    pub user_id: Option<UserId>,
    /// Where its machine may be reached.
    #[schema(value_type = Vec<Address>)]
    pub addresses: Vec<SocketAddr>,
    /// When it announced itself, seconds since the Unix epoch by its own clock.
    pub announced_at: u64,
    /// When it was last heard of, seconds since the Unix epoch.
    pub last_seen: u64,
}

/// Answer of `GET /agents/discovered`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiscoveredAgentsResponse {
    /// Always true.
    pub ok: True,
    /// The agents, by id.
    pub agents: Vec<DiscoveredAgent>,
}

/// Answer of `GET /agents/discovered/{agent_id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiscoveredAgentResponse {
    /// Always true.
    pub ok: True,
    /// The agent.
    pub agent: DiscoveredAgent,
}
