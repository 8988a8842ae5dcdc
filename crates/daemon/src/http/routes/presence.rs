//! `/presence` and `/agents/find`.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State, http::HeaderMap, response::Response};
use serde::Deserialize;
use x0x_agent::{Agent, PresenceEvent, PresenceEvents, PresenceStatus};
use x0x_api::{
    ErrorCode, True,
    event::{PRESENCE, PresenceChange, PresenceEventKind},
    types::{
        DiscoveredAgentsResponse, FindResponse, PresenceFindResponse, PresenceResponse,
        PresenceStatusResponse,
    },
};
use x0x_core::AgentId;

use super::Answer;
use crate::{
    app::App,
    convert,
    events::Encoded,
    http::{
        error::ApiError,
        extract::{Params, PathParameter},
        feeds::{self, Changes, Standing},
        sse,
    },
};

/// How long `POST /agents/find` searches.
const FIND_PATIENCE: Duration = Duration::from_secs(10);
/// Bounds of `timeout_ms`.
const MIN_TIMEOUT: u64 = 100;
const MAX_TIMEOUT: u64 = 30_000;

#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct WalkParams {
    ttl: u32,
    timeout_ms: u64,
}

impl Default for WalkParams {
    fn default() -> Self {
        Self { ttl: 3, timeout_ms: 5000 }
    }
}

impl WalkParams {
    fn patience(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.clamp(MIN_TIMEOUT, MAX_TIMEOUT))
    }
}

/// Those that are there, this daemon's own agent included.
async fn present(agent: &Agent) -> Vec<PresenceStatus> {
    let mut agents = agent.presence_network().await;
    agents.retain(|status| status.state.is_present());
    agents.push(agent.presence_of(agent.agent_id()).await);
    agents.sort_by_key(|status| status.agent);
    agents
}

pub(super) async fn all(State(app): State<Arc<App>>) -> Answer<PresenceResponse> {
    let agents = present(&app.agent).await.into_iter().map(|status| status.agent).collect();
    Ok(Json(PresenceResponse { ok: True::default(), agents }))
}

pub(super) async fn online(State(app): State<Arc<App>>) -> Answer<DiscoveredAgentsResponse> {
    let agents = present(&app.agent).await;
    Ok(Json(places(&app, agents).await))
}

/// With where they are, as far as that is known.
async fn places(app: &App, agents: Vec<PresenceStatus>) -> DiscoveredAgentsResponse {
    let mut shown = Vec::with_capacity(agents.len());
    for status in agents {
        let known = app.agent.discovered_agent(&status.agent).await;
        shown.extend(convert::present(&status, known));
    }
    DiscoveredAgentsResponse { ok: True::default(), agents: shown }
}

pub(super) async fn foaf(
    State(app): State<Arc<App>>,
    Params(params): Params<WalkParams>,
) -> Answer<DiscoveredAgentsResponse> {
    let walk = app.agent.presence_walk(Vec::new(), params.ttl, params.patience());
    let found = walk.await.map_err(refused)?;
    Ok(Json(places(&app, found).await))
}

fn refused(error: x0x_agent::WalkError) -> ApiError {
    let code = match error {
        x0x_agent::WalkError::Busy => ErrorCode::Busy,
        _ => ErrorCode::ShuttingDown,
    };
    ApiError::new(code, error.to_string())
}

/// Known to be there, else found by id.
pub(super) async fn find(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    Params(params): Params<WalkParams>,
) -> Answer<PresenceFindResponse> {
    let id: AgentId = id.parse()?;
    let known = app.agent.find(id, params.patience()).await?;
    let mut status = app.agent.presence_of(id).await;
    if known.is_none() && !status.state.is_present() {
        let walk = app.agent.presence_walk(vec![id], params.ttl, params.patience());
        let found = walk.await.map_err(refused)?;
        status = found.into_iter().next().unwrap_or(status);
    }
    let agent = convert::present(&status, known);
    Ok(Json(PresenceFindResponse { ok: True::default(), agent }))
}

pub(super) async fn status(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<PresenceStatusResponse> {
    let id: AgentId = id.parse()?;
    let status = app.agent.presence_of(id).await;
    let known = app.agent.discovered_agent(&id).await;
    Ok(Json(PresenceStatusResponse {
        ok: True::default(),
        online: status.state.is_present(),
        state: convert::presence_state(status.state),
        last_seen: status.last_seen.as_secs(),
        reachable: status.reachable,
        agent: convert::present(&status, known),
    }))
}

pub(super) async fn find_agent(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<FindResponse> {
    let id: AgentId = id.parse()?;
    let found = app.agent.find(id, FIND_PATIENCE).await?;
    let addresses = found.map(|known| known.addresses);
    Ok(Json(FindResponse { ok: True::default(), found: addresses.is_some(), addresses }))
}

pub(super) async fn events(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let changes = || PresenceChanges(app.agent.presence_events());
    app.feeds.presence.respond(&app, &headers, changes, Present(app.agent.clone()))
}

/// Who comes and goes.
#[derive(Debug)]
struct PresenceChanges(PresenceEvents);

impl Changes for PresenceChanges {
    async fn next(&mut self) -> Option<Vec<Encoded>> {
        match self.0.next().await? {
            PresenceEvent::Changed(status) => Some(vec![change(&status)]),
            PresenceEvent::Lagged(missed) => Some(vec![feeds::missed(missed)]),
            // A later kind of event says nothing to clients of this API.
            _ => Some(Vec::new()),
        }
    }
}

/// Who is there.
#[derive(Debug)]
struct Present(Agent);

impl Standing for Present {
    async fn tell(&self) -> Vec<Encoded> {
        present(&self.0).await.iter().map(change).collect()
    }
}

fn change(status: &PresenceStatus) -> Encoded {
    let event = match convert::presence_state(status.state) {
        x0x_api::types::PresenceState::Online => PresenceEventKind::Online,
        x0x_api::types::PresenceState::Away => PresenceEventKind::Away,
        _ => PresenceEventKind::Offline,
    };
    let reachable = status.state.is_present().then_some(status.reachable);
    let change = PresenceChange { event, agent_id: status.agent, reachable };
    sse::encode(PRESENCE, &change)
}
