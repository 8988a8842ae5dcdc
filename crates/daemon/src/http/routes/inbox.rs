//! `/inbox/*` and `/history`.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State, http::StatusCode};
use data_encoding::HEXLOWER;
use serde::Deserialize;
use x0x_agent::{
    Ack, Begin, Claimed, HistoryEntry, HistoryPlace, HistoryQuery, InboxError, Lease, MAX_TAKEN,
    Taken, WallTime,
};
use x0x_api::{
    Base64, ErrorCode, True,
    limits::MAX_INBOX_WAIT,
    types::{
        ClaimInfo, ClaimRequest, ConsumerInfo, ConsumerRequest, ConsumersResponse,
        DEFAULT_CONSUMER, DirectState, HistoryItem, HistoryResponse, InboxAckRequest,
        InboxResponse, OkResponse, ReleaseRequest,
    },
};
use x0x_core::AgentId;

use super::Answer;
use crate::{
    app::App,
    convert,
    http::{
        error::ApiError,
        extract::{JsonBody, Params, PathParameter},
    },
};

/// Messages of one answer unless the client says otherwise.
const DEFAULT_LIMIT: usize = 50;
/// How long a wait is unless the client says otherwise.
const DEFAULT_WAIT_MS: u64 = 30_000;
/// How long a claim holds unless the client says otherwise.
const DEFAULT_LEASE_MS: u64 = 30_000;
/// Most words of a search.
const MAX_WORDS: usize = 16;
/// Longest search in bytes.
const MAX_SEARCH: usize = 1024;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct InboxParams {
    consumer: Option<String>,
    limit: Option<usize>,
    timeout_ms: Option<u64>,
}

pub(super) async fn peek(
    State(app): State<Arc<App>>,
    Params(InboxParams { consumer, limit, .. }): Params<InboxParams>,
) -> Answer<InboxResponse> {
    let (consumer, limit) = (named(consumer), limit.unwrap_or(DEFAULT_LIMIT));
    if consumer == DEFAULT_CONSUMER {
        return take(&app, Some(consumer), limit, Duration::ZERO, None).await;
    }
    let taken = app.agent.peek_mail(&consumer, limit).await?;
    Ok(answer(&app, consumer, taken))
}

pub(super) async fn wait(
    State(app): State<Arc<App>>,
    Params(InboxParams { consumer, limit, timeout_ms }): Params<InboxParams>,
) -> Answer<InboxResponse> {
    let patience = Duration::from_millis(timeout_ms.unwrap_or(DEFAULT_WAIT_MS));
    take(&app, consumer, limit.unwrap_or(DEFAULT_LIMIT), patience, None).await
}

pub(super) async fn claim(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<ClaimRequest>,
) -> Answer<InboxResponse> {
    let ClaimRequest { consumer, limit, lease_ms, timeout_ms, in_order, renew, owner } = request;
    let time = Duration::from_millis(lease_ms.unwrap_or(DEFAULT_LEASE_MS));
    let mut lease = if in_order { Lease::in_order(time) } else { Lease::of(time) };
    lease.owner = owner.map(Arc::from);
    if !renew.is_empty() {
        let consumer = named(consumer);
        let cursor = app.agent.renew_mail(&consumer, &renew, &lease).await?;
        let (messages, ok) = (Vec::new(), True::default());
        let claimed_until = None;
        return Ok(Json(InboxResponse {
            ok,
            consumer,
            messages,
            missed: 0,
            cursor,
            more: false,
            claimed_until,
        }));
    }
    let patience = Duration::from_millis(timeout_ms.unwrap_or(0));
    take(&app, consumer, limit.unwrap_or(1), patience, Some(lease)).await
}

fn named(consumer: Option<String>) -> String {
    consumer.unwrap_or_else(|| DEFAULT_CONSUMER.to_owned())
}

async fn take(
    app: &App,
    consumer: Option<String>,
    limit: usize,
    patience: Duration,
    lease: Option<Lease>,
) -> Answer<InboxResponse> {
    let consumer = named(consumer);
    let patience = patience.min(MAX_INBOX_WAIT);
    // A daemon that stops does not wait for those who wait.
    let taken = tokio::select! {
        taken = app.agent.take_mail(&consumer, limit.min(MAX_TAKEN), patience, lease) => taken?,
        () = app.stop.cancelled() => {
            return Err(ApiError::new(ErrorCode::ShuttingDown, "the daemon is stopping"));
        }
    };
    Ok(answer(app, consumer, taken))
}

fn answer(app: &App, consumer: String, taken: Taken) -> Json<InboxResponse> {
    let Taken { messages, missed, cursor, more, until, .. } = taken;
    let claimed_until = until.map(WallTime::as_millis);
    let messages = messages.into_iter().map(|message| convert::mail(&app.agent, message)).collect();
    let ok = True::default();
    Json(InboxResponse { ok, consumer, messages, missed, cursor, more, claimed_until })
}

pub(super) async fn ack(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<InboxAckRequest>,
) -> Answer<OkResponse> {
    let InboxAckRequest { consumer, numbers, through, owner } = request;
    let ack = match (through, numbers.is_empty(), &owner) {
        (Some(number), true, None) => Ack::Through(number),
        (None, false, _) => Ack::Numbers(numbers),
        _ => {
            let text = "either `numbers` or `through` is needed, and `owner` goes with `numbers`";
            return Err(ApiError::new(ErrorCode::InvalidBody, text));
        }
    };
    app.agent.ack_mail_of(&named(consumer), ack, owner.as_deref()).await?;
    Ok(Json(OkResponse::default()))
}

pub(super) async fn release(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<ReleaseRequest>,
) -> Answer<OkResponse> {
    let ReleaseRequest { consumer, numbers, owner } = request;
    app.agent.release_mail(&named(consumer), &numbers, owner.as_deref()).await?;
    Ok(Json(OkResponse::default()))
}

pub(super) async fn seek(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<ConsumerRequest>,
) -> Answer<OkResponse> {
    app.agent.seek_mail(&request.consumer, begin(request.start.as_deref())?).await?;
    Ok(Json(OkResponse::default()))
}

fn begin(start: Option<&str>) -> Result<Begin, ApiError> {
    Ok(match start {
        None | Some("oldest") => Begin::Oldest,
        Some("unread") => Begin::Unread,
        Some("latest") => Begin::Latest,
        Some(number) => Begin::After(number.parse().map_err(|_| {
            let text = "`start` is `oldest`, `unread`, `latest` or a number";
            ApiError::new(ErrorCode::InvalidBody, text)
        })?),
    })
}

pub(super) async fn consumers(State(app): State<Arc<App>>) -> Answer<ConsumersResponse> {
    let consumers = app.agent.consumers().await.into_iter().map(info).collect();
    Ok(Json(ConsumersResponse { ok: True::default(), consumers }))
}

fn info(status: x0x_agent::ConsumerStatus) -> ConsumerInfo {
    ConsumerInfo {
        consumer: status.name,
        cursor: status.cursor,
        claimed: status.claimed,
        claims: status.claims.into_iter().map(claim_info).collect(),
        waiting: status.waiting,
        created_at: status.created_at.as_millis(),
    }
}

fn claim_info(claimed: Claimed) -> ClaimInfo {
    let Claimed { number, until, owner } = claimed;
    ClaimInfo { number, until: until.as_millis(), owner: owner.as_deref().map(str::to_owned) }
}

pub(super) async fn create_consumer(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<ConsumerRequest>,
) -> Result<(StatusCode, Json<ConsumerInfo>), ApiError> {
    let ConsumerRequest { consumer, start } = request;
    app.agent.create_consumer(&consumer, begin(start.as_deref())?).await?;
    let all = app.agent.consumers().await;
    let made = all.into_iter().find(|status| status.name == consumer);
    let made = made.ok_or(InboxError::NotFound)?;
    Ok((StatusCode::CREATED, Json(info(made))))
}

pub(super) async fn remove_consumer(
    State(app): State<Arc<App>>,
    PathParameter(name): PathParameter,
) -> Answer<OkResponse> {
    app.agent.remove_consumer(&name).await?;
    Ok(Json(OkResponse::default()))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct HistoryParams {
    q: String,
    agent: Option<String>,
    before: Option<u64>,
    cursor: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn history(
    State(app): State<Arc<App>>,
    Params(params): Params<HistoryParams>,
) -> Answer<HistoryResponse> {
    let HistoryParams { q, agent, before, cursor, limit } = params;
    if q.len() > MAX_SEARCH {
        let text = format!("a search has at most {MAX_SEARCH} bytes");
        return Err(ApiError::new(ErrorCode::InvalidQuery, text));
    }
    if q.chars().any(|letter| letter.is_control() && !letter.is_whitespace()) {
        let text = "a search holds no control characters";
        return Err(ApiError::new(ErrorCode::InvalidQuery, text));
    }
    let query = HistoryQuery {
        words: q.split_whitespace().take(MAX_WORDS).map(str::to_owned).collect(),
        agent: agent.map(|agent| agent.parse::<AgentId>()).transpose()?,
        before: before.map(WallTime::from_millis),
        from: cursor.map(|cursor| place(&cursor)).transpose()?,
        limit: limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_TAKEN),
    };
    let page = app.agent.history(query).await?;
    let messages = page.entries.into_iter().map(item).collect();
    let next = page.next.map(|place| place.to_string());
    Ok(Json(HistoryResponse { ok: True::default(), messages, next }))
}

fn place(cursor: &str) -> Result<HistoryPlace, ApiError> {
    cursor.parse().map_err(|_| {
        let text = "`cursor` is the `next` of an earlier answer";
        ApiError::new(ErrorCode::InvalidQuery, text)
    })
}

fn item(entry: HistoryEntry) -> HistoryItem {
    match entry {
        HistoryEntry::Received(message) => HistoryItem {
            sent: false,
            request_id: HEXLOWER.encode(&message.id),
            agent_id: message.from,
            at: message.received_at.as_millis(),
            state: DirectState::Received,
            number: message.number,
            payload: Base64(message.payload),
        },
        HistoryEntry::Sent(letter) => HistoryItem {
            sent: true,
            request_id: HEXLOWER.encode(&letter.id),
            agent_id: letter.to,
            at: letter.posted_at.as_millis(),
            state: convert::letter_state(letter.state),
            number: 0,
            payload: Base64(letter.payload),
        },
    }
}
