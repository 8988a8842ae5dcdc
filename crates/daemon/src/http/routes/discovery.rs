//! `/agents/discovered`.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State};
use serde::Deserialize;
use x0x_api::{
    ErrorCode, True,
    types::{DiscoveredAgentResponse, DiscoveredAgentsResponse},
};
use x0x_core::AgentId;

use super::Answer;
use crate::{
    app::App,
    convert,
    http::{
        error::ApiError,
        extract::{Params, PathParameter},
    },
};

/// How long `wait=true` searches.
const DEFAULT_WAIT: Duration = Duration::from_secs(10);
/// How long a search may take at most.
const MAX_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(super) struct ListParams {
    pub(super) unfiltered: bool,
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(params): Params<ListParams>,
) -> Answer<DiscoveredAgentsResponse> {
    let agents = app.agent.discovered(params.unfiltered).await;
    let mut agents: Vec<_> =
        agents.into_iter().map(|agent| convert::certified(app.agent.trust(), agent)).collect();
    agents.sort_by_key(|agent| agent.agent_id);
    Ok(Json(DiscoveredAgentsResponse { ok: True::default(), agents }))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct GetParams {
    pub(super) wait: Option<String>,
}

pub(super) async fn get(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    Params(params): Params<GetParams>,
) -> Answer<DiscoveredAgentResponse> {
    let id: AgentId = id.parse()?;
    let (found, missing) = match wait(params.wait.as_deref())? {
        None => (app.agent.discovered_agent(&id).await, "agent not found"),
        Some(patience) => {
            // A daemon that stops does not wait for those who wait.
            let found = tokio::select! {
                found = app.agent.wait_for(id, patience) => found?,
                () = app.stop.cancelled() => {
                    return Err(ApiError::new(ErrorCode::ShuttingDown, "the daemon is stopping"));
                }
            };
            (found, "agent not found within timeout")
        }
    };
    let agent = found.ok_or_else(|| ApiError::new(ErrorCode::NotFound, missing))?;
    Ok(Json(DiscoveredAgentResponse {
        ok: True::default(),
        agent: convert::certified(app.agent.trust(), agent),
    }))
}

/// How long to search: `true`, `false` or a number of seconds.
pub(super) fn wait(text: Option<&str>) -> Result<Option<Duration>, ApiError> {
    match text {
        None | Some("false") => Ok(None),
        Some("true") => Ok(Some(DEFAULT_WAIT)),
        Some(text) => match text.parse() {
            Ok(0) => Ok(None),
            Ok(secs) => Ok(Some(Duration::from_secs(secs).min(MAX_WAIT))),
            Err(_) => {
                let text = "wait must be true, false or a number of seconds";
                Err(ApiError::new(ErrorCode::InvalidQuery, text))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_takes_both_forms() {
        let secs = |text| wait(Some(text)).expect("valid").map(|time| time.as_secs());
        assert_eq!(wait(None).expect("valid"), None);
        assert_eq!(secs("false"), None);
        assert_eq!(secs("0"), None);
        assert_eq!(secs("true"), Some(10));
        assert_eq!(secs("3"), Some(3));
        assert_eq!(secs("9999999"), Some(60));
        assert!(wait(Some("soon")).is_err());
    }
}
