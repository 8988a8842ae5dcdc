//! `/agent` and `/announce`.

use std::sync::Arc;

use axum::{Json, extract::State};
use bytes::Bytes;
use x0x_api::{
    Base64, ErrorCode, True,
    types::{AgentResponse, AnnounceRequest, AnnounceResponse},
};

use super::Answer;
use crate::{
    app::App,
    http::{error::ApiError, extract::OptionalBody},
};

pub(super) async fn agent(State(app): State<Arc<App>>) -> Answer<AgentResponse> {
    Ok(Json(AgentResponse {
        ok: True::default(),
        agent_id: app.agent.agent_id(),
        machine_id: app.agent.machine_id(),
        user_id: app.agent.user_id(),
        kem_public_key_b64: Base64(Bytes::copy_from_slice(app.agent.kem_public_key())),
    }))
}

pub(super) async fn announce(
    State(app): State<Arc<App>>,
    OptionalBody(request): OptionalBody<AnnounceRequest>,
) -> Answer<AnnounceResponse> {
    if request.include_user_identity {
        if !request.human_consent {
            let text = "naming the user needs human_consent";
            return Err(ApiError::new(ErrorCode::BadRequest, text));
        }
        app.agent.disclose_user().await?;
    }
    app.agent.announce().await?;
    let include_user_identity = app.agent.user_disclosed();
    Ok(Json(AnnounceResponse { ok: True::default(), include_user_identity }))
}
