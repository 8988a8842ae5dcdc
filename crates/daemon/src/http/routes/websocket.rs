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
use x0x_api::{ErrorCode, types::WsSessionsResponse};

use super::Answer;
use crate::{
    app::App,
    http::{error::ApiError, ws},
};

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

pub(super) async fn general(
    State(app): State<Arc<App>>,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    open(app, upgrade, false)
}

pub(super) async fn direct(
    State(app): State<Arc<App>>,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    open(app, upgrade, true)
}

fn open(app: Arc<App>, upgrade: Upgrade, receives_direct: bool) -> Result<Response, ApiError> {
    let upgrade =
        upgrade.map_err(|error| ApiError::new(ErrorCode::UpgradeRequired, error.body_text()))?;
    ws::open(app, upgrade, receives_direct)
}

pub(super) async fn sessions(State(app): State<Arc<App>>) -> Answer<WsSessionsResponse> {
    Ok(Json(app.sessions.list()))
}
