//! WebSocket sessions.
//!
//! One task reads a session's frames and carries them out in order, and writes what the session's
//! outbox holds; one task a topic turns deliveries into frames for the outbox. The outbox is bounded:
//! while a client does not read, its topics wait in their logs, where a subscription has a place of
//! its own, and the session is told `lagged` if the log is cut before it reads on.

mod direct;
mod objects;
mod outbox;
mod publishes;
mod registry;
mod session;
mod topics;
mod transfers;

use std::sync::Arc;

use axum::{extract::ws::WebSocketUpgrade, response::Response};
use x0x_api::{ErrorCode, limits::MAX_WS_MESSAGE, ws::MAX_COMMAND};

pub(crate) use registry::Sessions;

use super::error::ApiError;
use crate::app::App;
use registry::MAX_SESSIONS;

/// Buffer for reading from the socket, which every session has: twenty small publishes.
const READ_BUFFER: usize = 8 * 1024;
/// Frames are written to the socket when this much is buffered, and at the end of each batch.
const WRITE_BUFFER: usize = 64 * 1024;
/// Most bytes that are buffered for the socket: the largest frame behind a full buffer, and answers
/// of the protocol itself. What does not fit ends the session.
const MAX_WRITE_BUFFER: usize = MAX_WS_MESSAGE + 4 * WRITE_BUFFER;

/// Answers an upgrade, and runs the session.
pub(crate) fn open(
    app: Arc<App>,
    upgrade: WebSocketUpgrade,
    receives_direct: bool,
    after: Option<u64>,
) -> Result<Response, ApiError> {
    let entry = app.sessions.open(receives_direct)?.ok_or_else(|| {
        let text = format!("limit reached: WebSocket sessions (at most {MAX_SESSIONS})");
        ApiError::new(ErrorCode::LimitReached, text)
    })?;
    // Held from now on, so that a stopping daemon waits for a session that is about to start.
    let running = app.tasks.token();
    let upgrade = upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
        .max_message_size(MAX_COMMAND)
        .max_frame_size(MAX_COMMAND);
    Ok(upgrade.on_upgrade(move |socket| async move {
        Box::pin(session::run(app, entry, after, socket)).await;
        drop(running);
    }))
}
