//! `/files/*`.

use std::{path::PathBuf, sync::Arc};

use axum::{Json, extract::State, http::HeaderMap, response::Response};
use data_encoding::HEXLOWER_PERMISSIVE;
use x0x_agent::{Agent, FileEvents, SendFile, TransferChange, TransferId};
use x0x_api::{
    ErrorCode, True,
    event::TRANSFER,
    types::{
        AcceptFileRequest, ChangeTransferResponse, RejectFileRequest, SendFileRequest,
        SendFileResponse, TransferResponse, TransfersResponse,
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
        extract::{JsonBody, OptionalBody, PathParameter},
        feeds::{self, Changes, Standing},
        sse,
    },
};

/// What the other end is told when the user gives no reason.
const REJECTED: &str = "rejected by user";
const NOT_TOLD: &str = "the other end is not connected; it is told when it is met again";

pub(super) async fn send(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<SendFileRequest>,
) -> Answer<SendFileResponse> {
    let to: AgentId = request.agent_id.parse()?;
    let path = request.path.ok_or_else(|| {
        let text = "path is required: the daemon sends files of its own machine";
        ApiError::new(ErrorCode::BadRequest, text)
    })?;
    let mut file = SendFile::new(to, path);
    file.sha256 =
        request.sha256.as_deref().filter(|hex| !hex.is_empty()).map(sha256).transpose()?;
    file.name = request.filename;
    file.media_type = request.media_type.unwrap_or_default();
    let id = app.agent.send_file(file).await?;
    Ok(Json(SendFileResponse { ok: True::default(), transfer_id: id.to_string() }))
}

fn sha256(hex: &str) -> Result<[u8; 32], ApiError> {
    let bytes = HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).unwrap_or_default();
    let text = "sha256: expected 32 bytes (64 hex chars)";
    bytes.try_into().map_err(|_| ApiError::new(ErrorCode::InvalidHex, text))
}

/// An id that is none names no transfer.
fn id(text: &str) -> Result<TransferId, ApiError> {
    text.parse().map_err(|_| not_found())
}

fn not_found() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "transfer not found")
}

pub(super) async fn list(State(app): State<Arc<App>>) -> Answer<TransfersResponse> {
    let mut all = app.agent.transfers().await;
    all.sort_by_key(|info| (info.record.started, info.record.id));
    let transfers = all.into_iter().map(convert::transfer).collect();
    Ok(Json(TransfersResponse { ok: True::default(), transfers }))
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    PathParameter(text): PathParameter,
) -> Answer<TransferResponse> {
    let info = app.agent.transfer(id(&text)?).await.ok_or_else(not_found)?;
    Ok(Json(TransferResponse { ok: True::default(), transfer: convert::transfer(info) }))
}

async fn change(
    app: &App,
    text: &str,
    change: TransferChange,
    warning: &str,
) -> Answer<ChangeTransferResponse> {
    let changed = app.agent.change_transfer(id(text)?, change).await?;
    let warning = (!changed.told).then(|| warning.to_owned());
    Ok(Json(ChangeTransferResponse { ok: True::default(), warning }))
}

pub(super) async fn accept(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    OptionalBody(request): OptionalBody<AcceptFileRequest>,
) -> Answer<ChangeTransferResponse> {
    let folder = request.output_dir.map(PathBuf::from);
    if folder.as_ref().is_some_and(|folder| !folder.is_absolute()) {
        return Err(ApiError::new(ErrorCode::BadRequest, "output_dir must be absolute"));
    }
    change(&app, &id, TransferChange::Accept { folder }, NOT_TOLD).await
}

pub(super) async fn reject(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    OptionalBody(request): OptionalBody<RejectFileRequest>,
) -> Answer<ChangeTransferResponse> {
    let reason = request.reason.unwrap_or_else(|| REJECTED.to_owned());
    let warning = "rejected locally but failed to notify sender";
    change(&app, &id, TransferChange::Reject { reason }, warning).await
}

pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<ChangeTransferResponse> {
    change(&app, &id, TransferChange::Cancel, NOT_TOLD).await
}

pub(super) async fn pause(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<ChangeTransferResponse> {
    change(&app, &id, TransferChange::Pause, NOT_TOLD).await
}

pub(super) async fn resume(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<ChangeTransferResponse> {
    change(&app, &id, TransferChange::Resume, NOT_TOLD).await
}

pub(super) async fn events(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let changes = || TransferChanges(app.agent.file_events());
    app.feeds.transfers.respond(&app, &headers, changes, Moving(app.agent.clone()))
}

/// What happens to transfers.
#[derive(Debug)]
struct TransferChanges(FileEvents);

impl Changes for TransferChanges {
    async fn next(&mut self) -> Option<Vec<Encoded>> {
        let event = match self.0.next().await? {
            Ok(event) => sse::encode(TRANSFER, &convert::transfer(event.info().clone())),
            Err(missed) => feeds::missed(missed),
        };
        Some(vec![event])
    }
}

/// Those that have not ended.
#[derive(Debug)]
struct Moving(Agent);

impl Standing for Moving {
    async fn tell(&self) -> Vec<Encoded> {
        let moving = self.0.transfers().await.into_iter().filter(|info| !info.record.phase.ended());
        moving.map(|info| sse::encode(TRANSFER, &convert::transfer(info))).collect()
    }
}
