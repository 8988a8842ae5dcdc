//! `/machines/discovered`, `/users/*` and where agents run: the discovery cache by machine and by user.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use axum::{Json, extract::State};
use x0x_agent::{DiscoveredAgent, PathKind, ReachClass, Side};
use x0x_api::{
    ErrorCode, True,
    types::{
        AgentMachineResponse, DiscoveredMachine, DiscoveredMachineResponse,
        DiscoveredMachinesResponse, ReachabilityResponse, UserAgentsResponse, UserMachinesResponse,
    },
};
use x0x_core::{AgentId, MachineId, UserId};

use super::{
    Answer,
    discovery::{GetParams, ListParams, wait},
};
use crate::{
    app::App,
    convert,
    http::{
        error::ApiError,
        extract::{Params, PathParameter},
    },
};

/// Between two looks at the cache while it is waited for a machine.
const POLL: Duration = Duration::from_millis(100);

/// The machines of these agents, by id.
fn machines(
    app: &App,
    agents: impl IntoIterator<Item = DiscoveredAgent>,
) -> Vec<DiscoveredMachine> {
    let mut by_machine: BTreeMap<MachineId, Vec<DiscoveredAgent>> = BTreeMap::new();
    for agent in agents {
        by_machine.entry(agent.machine).or_default().push(agent);
    }
    let dialled = app.agent.sessions().into_iter();
    let dialled = dialled.filter(|session| session.side == Side::Dialer);
    let dialled: BTreeSet<MachineId> = dialled.map(|session| session.peer).collect();
    let machine = |(machine_id, mut agents): (MachineId, Vec<DiscoveredAgent>)| {
        agents.sort_by_key(|agent| agent.agent);
        let mut addresses: Vec<_> =
            agents.iter().flat_map(|agent| agent.addresses.iter().copied()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let users = agents.iter().filter_map(|agent| app.agent.trust().user_of(&agent.agent));
        let users: BTreeSet<UserId> = users.collect();
        let latest = |time: fn(&DiscoveredAgent) -> u64| agents.iter().map(time).max();
        DiscoveredMachine {
            machine_id,
            addresses,
            announced_at: latest(|agent| agent.announced_at.as_secs()).unwrap_or_default(),
            last_seen: latest(|agent| agent.last_seen.as_secs()).unwrap_or_default(),
            nat_type: None,
            can_receive_direct: dialled.contains(&machine_id).then_some(true),
            is_relay: None,
            is_coordinator: None,
            agent_ids: agents.iter().map(|agent| agent.agent).collect(),
            user_ids: users.into_iter().collect(),
        }
    };
    by_machine.into_iter().map(machine).collect()
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(params): Params<ListParams>,
) -> Answer<DiscoveredMachinesResponse> {
    let agents = app.agent.discovered(params.unfiltered).await;
    Ok(Json(DiscoveredMachinesResponse { ok: True::default(), machines: machines(&app, agents) }))
}

async fn one(app: &App, id: MachineId) -> Option<DiscoveredMachine> {
    let agents = app.agent.discovered(true).await;
    let agents = agents.into_iter().filter(|agent| agent.machine == id);
    machines(app, agents).pop()
}

pub(super) async fn get(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    Params(params): Params<GetParams>,
) -> Answer<DiscoveredMachineResponse> {
    let id: MachineId = id.parse()?;
    let (found, missing) = match wait(params.wait.as_deref())? {
        None => (one(&app, id).await, "machine not found"),
        Some(patience) => {
            // Machines are not announced by themselves: whoever runs there shows them.
            let shows = async {
                loop {
                    if let Some(machine) = one(&app, id).await {
                        return machine;
                    }
                    tokio::time::sleep(POLL).await;
                }
            };
            (tokio::time::timeout(patience, shows).await.ok(), "machine not found within timeout")
        }
    };
    let machine = found.ok_or_else(|| ApiError::new(ErrorCode::NotFound, missing))?;
    Ok(Json(DiscoveredMachineResponse { ok: True::default(), machine }))
}

pub(super) async fn of_agent(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<AgentMachineResponse> {
    let agent_id: AgentId = id.parse()?;
    let known = app.agent.discovered_agent(&agent_id).await;
    let machine = match known {
        Some(known) => one(&app, known.machine).await,
        None => None,
    };
    let machine =
        machine.ok_or_else(|| ApiError::new(ErrorCode::NotFound, "agent machine not found"))?;
    Ok(Json(AgentMachineResponse { ok: True::default(), agent_id, machine }))
}

pub(super) async fn reachability(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<ReachabilityResponse> {
    let id: AgentId = id.parse()?;
    let known = app.agent.discovered_agent(&id).await;
    let known =
        known.ok_or_else(|| ApiError::new(ErrorCode::NotFound, "agent not in discovery cache"))?;
    let reach = app.agent.reach_of(known.machine).await;
    let session = app.agent.session_of(id);
    let relayed = PathKind::Relayed { via: known.machine };
    let is_relay = app.agent.sessions().iter().any(|session| session.path == relayed);
    let is_direct =
        session.as_ref().is_some_and(|session| !matches!(session.path, PathKind::Relayed { .. }));
    let behind = matches!(reach, ReachClass::Punchable | ReachClass::RelayOnly);
    Ok(Json(ReachabilityResponse {
        ok: True::default(),
        likely_direct: is_direct || (!known.addresses.is_empty() && !behind),
        needs_coordination: behind,
        is_relay,
        is_coordinator: session.is_some(),
        addresses: known.addresses,
        reach: convert::reach_class(reach),
    }))
}

/// The agents that a user certified, by id.
async fn of_user(app: &App, user: UserId) -> Vec<DiscoveredAgent> {
    let mut agents = app.agent.discovered(true).await;
    agents.retain(|agent| app.agent.trust().user_of(&agent.agent) == Some(user));
    agents.sort_by_key(|agent| agent.agent);
    agents
}

fn user(id: &str) -> Result<UserId, ApiError> {
    let text = "invalid user_id: expected 64 hex characters";
    id.parse().map_err(|_| ApiError::new(ErrorCode::InvalidHex, text))
}

pub(super) async fn user_agents(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<UserAgentsResponse> {
    let user_id = user(&id)?;
    let agents = of_user(&app, user_id).await.into_iter();
    let agents = agents.map(|agent| convert::certified(app.agent.trust(), agent)).collect();
    Ok(Json(UserAgentsResponse { ok: True::default(), user_id, agents }))
}

pub(super) async fn user_machines(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<UserMachinesResponse> {
    let user_id = user(&id)?;
    let machines = machines(&app, of_user(&app, user_id).await);
    Ok(Json(UserMachinesResponse { ok: True::default(), user_id, machines }))
}
