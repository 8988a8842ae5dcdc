//! Rows of the daemon itself.

use super::row::{get, json, post};
use crate::{
    endpoint::{Answer, Auth, Endpoint},
    operation::Operation,
    types::{HealthResponse, ShutdownResponse, StatusResponse},
};

const CATEGORY: &str = "Status";

/// Media type of `GET /metrics`.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) const TABLE: &[Endpoint] = &[
    Endpoint {
        auth: Auth::None,
        ..get(Operation::Health, "/health", CATEGORY, json::<HealthResponse>())
    }
    .cli("health")
    .says("Whether the daemon runs, and with how many peers. Needs no token."),
    get(Operation::Status, "/status", CATEGORY, json::<StatusResponse>())
        .cli("status")
        .says("The daemon's state, addresses and warnings."),
    post(Operation::Shutdown, "/shutdown", CATEGORY, json::<ShutdownResponse>())
        .cli("stop")
        .says("Stops the daemon; open connections get two seconds to end."),
    get(Operation::Metrics, "/metrics", CATEGORY, Answer::Text { media_type: OPENMETRICS })
        .says("Counters and gauges of every layer, as OpenMetrics text."),
    get(
        Operation::OpenApi,
        "/openapi.json",
        CATEGORY,
        Answer::Text { media_type: "application/json" },
    )
    .says("This API as an OpenAPI 3.1 document."),
];
