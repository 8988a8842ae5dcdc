//! `/agents/connect` and `/direct/*`.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State, http::HeaderMap, response::Response};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::Deserialize;
use tokio::sync::broadcast::{self, error::RecvError};
use x0x_agent::{ConnectKind, LetterEvent, LetterOptions, MessageId, Terms};
use x0x_api::{
    Base64, ErrorCode, True,
    event::{DirectMessageEvent, DirectReceipt, RECEIPT},
    limits::MAX_DIRECT_PAYLOAD,
    types::{
        ConnectMachineRequest, ConnectOutcome, ConnectRequest, ConnectResponse, DirectConnection,
        DirectConnectionsResponse, DirectPath, DirectRequestRequest, DirectSendRequest,
        DirectSendResponse, DirectState, DirectStatusResponse, OkResponse, RequireAck,
    },
};
use x0x_core::{AgentId, MachineId};

use super::Answer;
use crate::{
    app::App,
    convert,
    events::Encoded,
    http::{
        error::ApiError,
        extract::{JsonBody, Params, PathParameter},
        feeds::{self, Changes, ChangesOnly},
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
        ConnectKind::Coordinated => ConnectOutcome::Coordinated,
        ConnectKind::AlreadyConnected => ConnectOutcome::AlreadyConnected,
        ConnectKind::NotFound => ConnectOutcome::NotFound,
        _ => ConnectOutcome::Unreachable,
    }
}

pub(super) async fn connect_machine(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<ConnectMachineRequest>,
) -> Answer<ConnectResponse> {
    let machine: MachineId = request.machine_id.parse()?;
    let result = tokio::time::timeout(CONNECT_TIME, app.agent.connect_machine(machine)).await;
    let (outcome, addr) = match result {
        Ok(result) => (outcome(result.kind), result.addr),
        Err(_) => (ConnectOutcome::Unreachable, None),
    };
    Ok(Json(ConnectResponse { ok: True::default(), outcome, addr }))
}

pub(super) async fn send(
    State(app): State<Arc<App>>,
    JsonBody(mut request): JsonBody<DirectSendRequest>,
) -> Answer<DirectSendResponse> {
    let to: AgentId = request.agent_id.parse()?;
    let payload = payload(std::mem::take(&mut request.payload))?;
    let reply_to = request.reply_to.as_deref().map(convert::message_id).transpose()?;
    let id = request.id.as_deref().map(convert::message_id).transpose()?;
    if request.queue {
        return queue(&app, to, payload, (id, reply_to), &request).await;
    }
    if request.read_receipt || request.lifetime_secs.is_some() {
        let text = "read_receipt and lifetime_secs are for messages that are queued";
        return Err(ApiError::new(ErrorCode::BadRequest, text));
    }
    let started = app.uptime();
    let terms = Terms { kind: convert::kind(request.class), reply_to, ..Terms::default() };
    let id = id.unwrap_or_else(|| app.agent.new_message_id());
    let failed = |error| ApiError::from(error).of_message(&id);
    let queued = app.agent.queue_direct_as(id, to, payload, terms).await.map_err(ApiError::from)?;
    let receipt = queued.acknowledged().await.map_err(failed)?;
    let took = app.uptime().saturating_sub(started);
    let path = if receipt.loopback { DirectPath::Loopback } else { DirectPath::RawQuicAcked };
    Ok(Json(DirectSendResponse {
        ok: True::default(),
        path,
        retries_used: 0,
        request_id: HEXLOWER.encode(&receipt.id),
        state: DirectState::Received,
        require_ack: request.require_ack_ms.map(|limit| acknowledged(took, limit)),
    }))
}

/// Takes the text, which is larger than what is in it, so that it is gone before anybody waits.
fn payload(text: String) -> Result<Bytes, ApiError> {
    let payload = Base64::decode(&text)?;
    drop(text);
    if payload.len() > MAX_DIRECT_PAYLOAD {
        let detail = format!("payload of {} bytes exceeds {MAX_DIRECT_PAYLOAD}", payload.len());
        return Err(ApiError::detailed(ErrorCode::PayloadTooLarge, detail));
    }
    Ok(payload)
}

/// Keeps a message until its recipient can be reached.
async fn queue(
    app: &App,
    to: AgentId,
    payload: Bytes,
    (id, reply_to): (Option<MessageId>, Option<MessageId>),
    request: &DirectSendRequest,
) -> Answer<DirectSendResponse> {
    if !request.class.is_durable() {
        let text = "a message that is queued is a durable one";
        return Err(ApiError::new(ErrorCode::BadRequest, text));
    }
    let mut options = LetterOptions::default();
    (options.id, options.reply_to, options.wants_read) = (id, reply_to, request.read_receipt);
    options.lifetime = request.lifetime_secs.map(Duration::from_secs);
    let id = app.agent.post_letter(to, payload, options).await?;
    Ok(Json(DirectSendResponse {
        ok: True::default(),
        path: DirectPath::Outbox,
        retries_used: 0,
        request_id: HEXLOWER.encode(&id),
        state: DirectState::Queued,
        require_ack: None,
    }))
}

pub(super) async fn request(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<DirectRequestRequest>,
) -> Answer<DirectMessageEvent> {
    let to: AgentId = request.agent_id.parse()?;
    let payload = payload(request.payload)?;
    let patience = request.timeout_ms.unwrap_or(30_000).clamp(100, 120_000);
    let id = request.id.as_deref().map(convert::message_id).transpose()?;
    let id = id.unwrap_or_else(|| app.agent.new_message_id());
    let answer = app.agent.request_as(id, to, payload, Duration::from_millis(patience)).await;
    let answer = answer.map_err(|error| ApiError::from(error).of_message(&id))?;
    Ok(Json(convert::mail(&app.agent, answer)))
}

pub(super) async fn status(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<DirectStatusResponse> {
    let id = convert::message_id(&id)?;
    let letter = app.agent.letter_status(id).await?;
    let missing = || ApiError::new(ErrorCode::NotFound, "message not found");
    let letter = letter.filter(|letter| !letter.is_read_note).ok_or_else(missing)?;
    let holders = app.agent.letter_holders(id).await;
    let not_left = match holders {
        0 if letter.state.is_pending() => app.agent.letter_not_left(&letter).await,
        _ => None,
    };
    let state = match convert::letter_state(letter.state) {
        DirectState::Queued | DirectState::Sent if holders > 0 => DirectState::Held,
        state => state,
    };
    Ok(Json(DirectStatusResponse {
        ok: True::default(),
        request_id: HEXLOWER.encode(&letter.id),
        agent_id: letter.to,
        state,
        holders: holders as u64,
        not_left: not_left.and_then(convert::not_left),
        since: letter.changed_at.as_millis(),
        queued_at: letter.posted_at.as_millis(),
        expires_at: letter.expires_at.as_millis(),
    }))
}

pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<OkResponse> {
    app.agent.cancel_letter(convert::message_id(&id)?).await?;
    Ok(Json(OkResponse::default()))
}

pub(super) async fn receipts(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let changes = || ReceiptChanges(app.agent.letter_events());
    app.feeds.receipts.respond(&app, &headers, changes, ChangesOnly)
}

/// How letters come further.
#[derive(Debug)]
struct ReceiptChanges(broadcast::Receiver<LetterEvent>);

impl Changes for ReceiptChanges {
    async fn next(&mut self) -> Option<Vec<Encoded>> {
        match self.0.recv().await {
            Ok(event) => {
                let receipt = DirectReceipt {
                    request_id: HEXLOWER.encode(&event.id),
                    agent_id: event.to,
                    state: convert::letter_state(event.state),
                    at: event.at.as_millis(),
                };
                Some(vec![sse::encode(RECEIPT, &receipt)])
            }
            Err(RecvError::Lagged(missed)) => Some(vec![feeds::missed(missed)]),
            Err(RecvError::Closed) => None,
        }
    }
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

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct EventsParams {
    since: Option<u64>,
}

pub(super) async fn events(
    State(app): State<Arc<App>>,
    Params(params): Params<EventsParams>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let after = sse::last_event_id(&headers).or(params.since);
    sse::respond(&app, DirectSource::new(&app.agent, after))
}
