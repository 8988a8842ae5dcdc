//! `/agents/discovered`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::{AgentId, MachineId, UserId};

use crate::{
    encoding::{Address, Hex64},
    flag::True,
    types::network::ReachClass,
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

/// A machine on which discovered agents run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiscoveredMachine {
    /// The machine.
    #[schema(value_type = Hex64)]
    pub machine_id: MachineId,
    /// Where it may be reached.
    #[schema(value_type = Vec<Address>)]
    pub addresses: Vec<SocketAddr>,
    /// When the latest of its agents announced itself, seconds since the Unix epoch by its own clock.
    pub announced_at: u64,
    /// When one of its agents was last heard of, seconds since the Unix epoch.
    pub last_seen: u64,
    /// Kind of address translation in front of it; null, since machines do not tell.
    #[schema(required = true)]
    pub nat_type: Option<String>,
    /// Whether it can be dialled: true while there is a session that this machine opened, else null.
    #[schema(required = true)]
    pub can_receive_direct: Option<bool>,
    /// Whether it relays for others; null, since machines do not tell.
    #[schema(required = true)]
    pub is_relay: Option<bool>,
    /// Whether it coordinates hole punches; null, since machines do not tell.
    #[schema(required = true)]
    pub is_coordinator: Option<bool>,
    /// Its agents, by id.
    #[schema(value_type = Vec<Hex64>)]
    pub agent_ids: Vec<AgentId>,
    /// The users behind them, as far as certificates confirm them, by id.
    #[schema(value_type = Vec<Hex64>)]
    pub user_ids: Vec<UserId>,
}

/// Answer of `GET /machines/discovered`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiscoveredMachinesResponse {
    /// Always true.
    pub ok: True,
    /// The machines, by id.
    pub machines: Vec<DiscoveredMachine>,
}

/// Answer of `GET /machines/discovered/{machine_id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiscoveredMachineResponse {
    /// Always true.
    pub ok: True,
    /// The machine.
    pub machine: DiscoveredMachine,
}

/// Answer of `GET /agents/{agent_id}/machine`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentMachineResponse {
    /// Always true.
    pub ok: True,
    /// The agent.
    #[schema(value_type = Hex64)]
    pub agent_id: AgentId,
    /// The machine where it runs.
    pub machine: DiscoveredMachine,
}

/// Answer of `GET /agents/reachability/{agent_id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReachabilityResponse {
    /// Always true.
    pub ok: True,
    /// Whether there is a session on a direct path, or its machine can be dialled as far as is known.
    pub likely_direct: bool,
    /// Whether the machine says that it is behind an address translator, so that a common peer has to help.
    pub needs_coordination: bool,
    /// Whether its machine relays one of this machine's sessions now.
    pub is_relay: bool,
    /// Whether its machine would coordinate hole punches for this one: every machine with a session does.
    pub is_coordinator: bool,
    /// Where its machine may be reached.
    #[schema(value_type = Vec<Address>)]
    pub addresses: Vec<SocketAddr>,
    /// How the machine says that it is reached, in a record that it signed.
    pub reach: ReachClass,
}

/// Answer of `GET /users/{user_id}/agents`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserAgentsResponse {
    /// Always true.
    pub ok: True,
    /// The user.
    #[schema(value_type = Hex64)]
    pub user_id: UserId,
    /// The agents that showed a certificate of theirs which holds, by id.
    pub agents: Vec<DiscoveredAgent>,
}

/// Answer of `GET /users/{user_id}/machines`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserMachinesResponse {
    /// Always true.
    pub ok: True,
    /// The user.
    #[schema(value_type = Hex64)]
    pub user_id: UserId,
    /// The machines on which agents of theirs run, by id.
    pub machines: Vec<DiscoveredMachine>,
}
