//! `/ws/sessions`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::flag::True;

/// Answer of `GET /ws/sessions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WsSessionsResponse {
    /// Always true.
    pub ok: True,
    /// The open sessions, oldest first.
    pub sessions: Vec<WsSession>,
    /// How many sessions each topic has.
    pub shared_subscriptions: BTreeMap<String, u64>,
}

/// An open WebSocket session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WsSession {
    /// As in the session's `connected` frame.
    pub session_id: String,
    /// Its topics, sorted.
    pub subscribed_topics: Vec<String>,
    /// Whether it gets direct messages, as `/ws/direct` does.
    pub receives_direct: bool,
}
