//! `/publish`, `/subscribe` and `/events`.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State, http::HeaderMap, response::Response};
use x0x_agent::{AgentPublishError, PublishError, Published, Start};
use x0x_api::{
    Base64, ErrorCode, Since, True,
    limits::PUBLISH_WAIT,
    types::{
        OkResponse, PublishRequest, PublishResponse, RequireAck, SubscribeRequest,
        SubscribeResponse, SubscriptionsResponse,
    },
};

use super::Answer;
use crate::{
    app::App,
    convert,
    http::{
        error::ApiError,
        extract::{JsonBody, Params, PathParameter},
        sse::{self, BusSource},
        topic_stream::{TopicStream, Wanted},
    },
};

pub(super) async fn publish(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<PublishRequest>,
) -> Answer<PublishResponse> {
    let payload = Base64::decode(&request.payload).map_err(|error| {
        ApiError::new(ErrorCode::InvalidBase64, format!("invalid base64 in payload field: {error}"))
    })?;
    let topic = &request.topic;
    // Peers tell what they have only to those that subscribe the topic, too.
    let _subscription = match request.require_ack_ms {
        Some(_) => Some(app.agent.subscribe_from(topic, Start::Live).await?),
        None => None,
    };
    // What is cancelled before it is accepted is not published, so that a refusal is the truth.
    let retention = convert::retention(request.retention);
    let accept = app.agent.accept_as(topic, retention, payload);
    let accepted = tokio::time::timeout(PUBLISH_WAIT, accept)
        .await
        .unwrap_or(Err(AgentPublishError::Publish(PublishError::Busy)))?;
    let published = accepted.published().await.map_err(AgentPublishError::from)?;
    let require_ack = match request.require_ack_ms {
        Some(limit) => Some(acknowledged(&app, topic, &published, limit).await),
        None => None,
    };
    Ok(Json(PublishResponse {
        ok: True::default(),
        topic_peers: published.neighbors as u64,
        seq: published.seq,
        cursor: published.cursor.map(convert::cursor),
        require_ack,
    }))
}

/// Whether a peer has a message within this time.
async fn acknowledged(app: &App, topic: &str, published: &Published, limit_ms: u64) -> RequireAck {
    let limit = Duration::from_millis(limit_ms.clamp(100, 30_000));
    let started = app.uptime();
    match app.agent.first_hop(topic, published, limit).await {
        Ok(()) => {
            let rtt_ms = app.uptime().saturating_sub(started).as_millis() as u64;
            RequireAck { ok: true, rtt_ms: Some(rtt_ms), error: None }
        }
        Err(error) => RequireAck {
            ok: false,
            rtt_ms: None,
            error: Some(format!("no peer confirmed the message: {error}")),
        },
    }
}

pub(super) async fn subscribe(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<SubscribeRequest>,
) -> Answer<SubscribeResponse> {
    let since = Since::parse(request.since.as_deref())?;
    let topic = request.topic;
    let subscription_id = app.subscriptions.add(&app.agent, &app.bus, topic, since).await?;
    Ok(Json(SubscribeResponse { ok: True::default(), subscription_id }))
}

pub(super) async fn subscriptions(State(app): State<Arc<App>>) -> Answer<SubscriptionsResponse> {
    let subscriptions = app.subscriptions.list();
    Ok(Json(SubscriptionsResponse { ok: True::default(), subscriptions }))
}

pub(super) async fn unsubscribe(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<OkResponse> {
    if app.subscriptions.remove(&id).await {
        Ok(Json(OkResponse { ok: True::default() }))
    } else {
        Err(ApiError::new(ErrorCode::NotFound, "subscription not found"))
    }
}

/// The events of every subscription, or with topics in the query a stream of those.
pub(super) async fn events(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Params(query): Params<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    if let Some(wanted) = Wanted::of_query(query)? {
        let last = sse::last_event_id_text(&headers);
        let stream = TopicStream::open(&app.agent, wanted, last).await?;
        return sse::respond(&app, stream);
    }
    let client = app
        .bus
        .client(sse::last_event_id(&headers))
        .ok_or_else(|| ApiError::new(ErrorCode::LimitReached, "limit reached: event streams"))?;
    sse::respond(&app, BusSource(client))
}
