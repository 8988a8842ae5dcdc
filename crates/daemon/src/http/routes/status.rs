//! `/health`, `/status`, `/shutdown`, `/metrics`, `/openapi.json`.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use x0x_agent::trust::Loaded;
use x0x_api::{
    ErrorCode, True, VERSION,
    endpoints::OPENMETRICS,
    types::{ConnectionStatus, HealthResponse, ShutdownResponse, StatusResponse},
};

use super::Answer;
use crate::{
    app::App,
    http::{error::ApiError, metrics as text},
    logging, warnings,
};

/// How long a daemon without peers counts as connecting.
const CONNECTING_SECS: u64 = 45;

pub(super) async fn health(State(app): State<Arc<App>>) -> Json<HealthResponse> {
    Json(HealthResponse {
        ok: True::default(),
        status: "healthy".to_owned(),
        version: VERSION.to_owned(),
        peers: app.peers(),
        uptime_secs: app.uptime().as_secs(),
        problems: problems(&app),
    })
}

/// What needs attention, without a word that only the owner may read.
fn problems(app: &App) -> Vec<String> {
    let problems = [
        ("database_damaged", app.agent.databases_damaged() > 0),
        ("storage_full", app.agent.storage_full()),
        ("contacts_lost", matches!(app.agent.trust().loaded(), Loaded::Lost { .. })),
    ];
    problems.iter().filter(|(_, is)| *is).map(|(name, _)| (*name).to_owned()).collect()
}

pub(super) async fn status(State(app): State<Arc<App>>) -> Answer<StatusResponse> {
    let (peers, uptime_secs) = (app.peers(), app.uptime().as_secs());
    let warnings = warnings::of(&app);
    let status = match (warnings.is_empty(), peers) {
        (false, _) => ConnectionStatus::Degraded,
        (true, 1..) => ConnectionStatus::Connected,
        (true, 0) if uptime_secs < CONNECTING_SECS => ConnectionStatus::Connecting,
        (true, 0) => ConnectionStatus::Isolated,
    };
    let mut external_addrs = app.agent.observed_addresses();
    for address in app.agent.local_addresses() {
        if !external_addrs.contains(&address) {
            external_addrs.push(address);
        }
    }
    Ok(Json(StatusResponse {
        ok: True::default(),
        status,
        version: VERSION.to_owned(),
        uptime_secs,
        api_address: app.api_address,
        external_addrs,
        agent_id: app.agent.agent_id(),
        peers,
        warnings,
        log: logging::background_log().map(|path| path.display().to_string()),
    }))
}

pub(super) async fn shutdown(State(app): State<Arc<App>>) -> Json<ShutdownResponse> {
    // This connection ends gracefully: the answer still goes out.
    app.stop.cancel();
    Json(ShutdownResponse { ok: True::default(), message: "shutting down".to_owned() })
}

pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let text = text::render(&app.agent, &app.metrics, app.gauges())
        .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
    Ok(([(CONTENT_TYPE, HeaderValue::from_static(OPENMETRICS))], text).into_response())
}

pub(super) async fn openapi() -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, json)], x0x_api::OPENAPI).into_response()
}
