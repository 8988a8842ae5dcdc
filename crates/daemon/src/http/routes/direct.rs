//! `/agents/connect` and `/direct/*`.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State, http::HeaderMap, response::Response};
use data_encoding::HEXLOWER;
use x0x_agent::ConnectKind;
use x0x_api::{
    Base64, ErrorCode, True,
    limits::MAX_DIRECT_PAYLOAD,
    types::{
        ConnectOutcome, ConnectRequest, ConnectResponse, DirectConnection,
        DirectConnectionsResponse, DirectPath, DirectSendRequest, DirectSendResponse, RequireAck,
    },
};
use x0x_core::AgentId;

use super::Answer;
use crate::{
    app::App,
    http::{
        error::ApiError,
        extract::JsonBody,
        sse::{self, DirectSource},
    },
};

/// How long an attempt to connect may take.
const CONNECT_TIME: Duration = Duration::from_secs(60);

pub(super) async fn connect(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<ConnectRequest>,
) -> Answer<ConnectResponse> {
    let agent: AgentId = request.agent_id.parse()?;
    let result = tokio::time::timeout(CONNECT_TIME, app.agent.connect(agent)).await;
    let (outcome, addr) = match result {
        Ok(result) => (outcome(result.kind), result.addr),
        Err(_) => (ConnectOutcome::Unreachable, None),
    };
    Ok(Json(ConnectResponse { ok: True::default(), outcome, addr }))
}

const fn outcome(kind: ConnectKind) -> ConnectOutcome {
    match kind {
        ConnectKind::Direct => ConnectOutcome::Direct,
        ConnectKind::AlreadyConnected => ConnectOutcome::AlreadyConnected,
        ConnectKind::NotFound => ConnectOutcome::NotFound,
        _ => ConnectOutcome::Unreachable,
    }
}

pub(super) async fn send(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<DirectSendRequest>,
) -> Answer<DirectSendResponse> {
    let to: AgentId = request.agent_id.parse()?;
    let payload = Base64::decode(&request.payload)?;
    if payload.len() > MAX_DIRECT_PAYLOAD {
        let detail = format!("payload of {} bytes exceeds {MAX_DIRECT_PAYLOAD}", payload.len());
        return Err(ApiError::detailed(ErrorCode::PayloadTooLarge, detail));
    }
    let started = app.uptime();
    let receipt = app.agent.send_direct(to, payload).await?;
    let took = app.uptime().saturating_sub(started);
    let path = if receipt.loopback { DirectPath::Loopback } else { DirectPath::RawQuicAcked };
    Ok(Json(DirectSendResponse {
        ok: True::default(),
        path,
        retries_used: 0,
        request_id: HEXLOWER.encode(&receipt.id),
        require_ack: request.require_ack_ms.map(|limit| acknowledged(took, limit)),
    }))
}

/// The receipt is the acknowledgement: what is left to tell is whether it came in time.
fn acknowledged(took: Duration, limit_ms: u64) -> RequireAck {
    let limit = Duration::from_millis(limit_ms.clamp(100, 30_000));
    let rtt_ms = took.as_millis() as u64;
    if took <= limit {
        RequireAck { ok: true, rtt_ms: Some(rtt_ms), error: None }
    } else {
        let error = format!("acknowledged after {rtt_ms} ms");
        RequireAck { ok: false, rtt_ms: None, error: Some(error) }
    }
}

pub(super) async fn connections(State(app): State<Arc<App>>) -> Answer<DirectConnectionsResponse> {
    let connections = app
        .agent
        .connected_agents()
        .into_iter()
        .map(|(agent_id, machine)| DirectConnection { agent_id, machine_id: Some(machine) });
    Ok(Json(DirectConnectionsResponse { ok: True::default(), connections: connections.collect() }))
}

pub(super) async fn events(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let after = sse::last_event_id(&headers);
    let source = DirectSource::new(app.agent.direct_events(), app.event_base, after);
    sse::respond(&app, source)
}
