//! `/ws`, `/ws/direct` and `/ws/sessions`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{
        State,
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use serde::Deserialize;
use x0x_api::{ErrorCode, types::WsSessionsResponse};

use super::Answer;
use crate::{
    app::App,
    http::{error::ApiError, extract::Params, ws},
};

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

pub(super) async fn general(
    State(app): State<Arc<App>>,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    open(app, upgrade, false, None)
}

/// Where direct messages begin.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct DirectParams {
    since: Option<u64>,
}

pub(super) async fn direct(
    State(app): State<Arc<App>>,
    Params(DirectParams { since }): Params<DirectParams>,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    open(app, upgrade, true, since)
}

fn open(
    app: Arc<App>,
    upgrade: Upgrade,
    receives_direct: bool,
    after: Option<u64>,
) -> Result<Response, ApiError> {
    let upgrade =
        upgrade.map_err(|error| ApiError::new(ErrorCode::UpgradeRequired, error.body_text()))?;
    ws::open(app, upgrade, receives_direct, after)
}

pub(super) async fn sessions(State(app): State<Arc<App>>) -> Answer<WsSessionsResponse> {
    Ok(Json(app.sessions.list()))
}
