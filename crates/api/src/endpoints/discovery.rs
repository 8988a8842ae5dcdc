//! Rows of agents that announced themselves.

use super::row::{get, json, post};
use crate::{
    endpoint::{Endpoint, Parameter},
    operation::Operation,
    types::{
        AgentMachineResponse, DiscoveredAgentResponse, DiscoveredAgentsResponse,
        DiscoveredMachineResponse, DiscoveredMachinesResponse, FindResponse, ReachabilityResponse,
        UserAgentsResponse, UserMachinesResponse,
    },
};

const CATEGORY: &str = "Discovery";

pub(super) const TABLE: &[Endpoint] = &[
    get(
        Operation::DiscoveredAgents,
        "/agents/discovered",
        CATEGORY,
        json::<DiscoveredAgentsResponse>(),
    )
    .cli("agents list")
    .says("Agents that announced themselves lately.")
    .query(&[Parameter::new("unfiltered", "boolean", "Also list those whose announcement expired.")]),
    get(
        Operation::DiscoveredAgent,
        "/agents/discovered/{agent_id}",
        CATEGORY,
        json::<DiscoveredAgentResponse>(),
    )
    .cli("agents get")
    .says("One agent; 404 when it is not known.")
    .query(&[Parameter::new(
        "wait",
        "string",
        "Search for an unknown agent, and wait for it to show: `true` for 10 seconds, or how many seconds (at most 60).",
    )]),
    get(
        Operation::Reachability,
        "/agents/reachability/{agent_id}",
        CATEGORY,
        json::<ReachabilityResponse>(),
    )
    .cli("agents reachability")
    .says("How a known agent may be reached; 404 when it is not known."),
    get(
        Operation::AgentMachine,
        "/agents/{agent_id}/machine",
        CATEGORY,
        json::<AgentMachineResponse>(),
    )
    .cli("agents machine")
    .says("The machine where a known agent runs; 404 when it is not known."),
    get(
        Operation::DiscoveredMachines,
        "/machines/discovered",
        CATEGORY,
        json::<DiscoveredMachinesResponse>(),
    )
    .cli("machines discovered")
    .says("Machines of the agents that announced themselves lately.")
    .query(&[Parameter::new("unfiltered", "boolean", "Also those of agents whose announcement expired.")]),
    get(
        Operation::DiscoveredMachine,
        "/machines/discovered/{machine_id}",
        CATEGORY,
        json::<DiscoveredMachineResponse>(),
    )
    .cli("machines get")
    .says("One machine; 404 when no agent on it is known.")
    .query(&[Parameter::new(
        "wait",
        "string",
        "Wait for an agent on it to show: `true` for 10 seconds, or how many seconds (at most 60).",
    )]),
    get(Operation::UserAgents, "/users/{user_id}/agents", CATEGORY, json::<UserAgentsResponse>())
        .cli("users agents")
        .says("Agents that a user certified, as far as they said so."),
    get(
        Operation::UserMachines,
        "/users/{user_id}/machines",
        CATEGORY,
        json::<UserMachinesResponse>(),
    )
    .cli("users machines")
    .says("Machines on which agents of a user run."),
    post(Operation::FindAgent, "/agents/find/{agent_id}", CATEGORY, json::<FindResponse>())
        .cli("find")
        .says("Looks for an agent for up to ten seconds. Read `found`: the status is always 200."),
];
