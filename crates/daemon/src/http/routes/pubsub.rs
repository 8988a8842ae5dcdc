//! `/publish`, `/subscribe` and `/events`.

use std::sync::Arc;

use axum::{Json, extract::State, http::HeaderMap, response::Response};
use x0x_agent::{AgentPublishError, PublishError};
use x0x_api::{
    Base64, ErrorCode, True,
    limits::PUBLISH_WAIT,
    types::{OkResponse, PublishRequest, SubscribeRequest, SubscribeResponse},
};

use super::Answer;
use crate::{
    app::App,
    http::{
        error::ApiError,
        extract::{JsonBody, PathParameter},
        sse::{self, BusSource},
    },
};

pub(super) async fn publish(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<PublishRequest>,
) -> Answer<OkResponse> {
    let payload = Base64::decode(&request.payload).map_err(|error| {
        ApiError::new(ErrorCode::InvalidBase64, format!("invalid base64 in payload field: {error}"))
    })?;
    // A publish that is cancelled has published nothing, so that a refusal is the truth.
    tokio::time::timeout(PUBLISH_WAIT, app.agent.publish(&request.topic, payload))
        .await
        .unwrap_or(Err(AgentPublishError::Publish(PublishError::Busy)))?;
    Ok(Json(OkResponse { ok: True::default() }))
}

pub(super) async fn subscribe(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<SubscribeRequest>,
) -> Answer<SubscribeResponse> {
    let subscription_id = app.subscriptions.add(&app.agent, &app.bus, request.topic).await?;
    Ok(Json(SubscribeResponse { ok: True::default(), subscription_id }))
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

pub(super) async fn events(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let client = app
        .bus
        .client(sse::last_event_id(&headers))
        .ok_or_else(|| ApiError::new(ErrorCode::LimitReached, "limit reached: event streams"))?;
    sse::respond(&app, BusSource(client))
}
