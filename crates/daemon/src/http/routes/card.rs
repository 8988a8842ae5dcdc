//! `/agent/user-id`, `/agent/card`, `/introduction`, `/agent/export`, `/agent/import` and
//! `/identity/revoke`.

use std::{path::PathBuf, sync::Arc};

use axum::{Json, extract::State};
use bytes::Bytes;
use serde::Deserialize;
use x0x_agent::{Audience, Card, IdentityError, Replace, RevokeWhat, trust::Level};
use x0x_api::{
    Base64, ErrorCode, True,
    types::{
        AgentCard, AgentCardResponse, CreateUserRequest, CreateUserResponse, ExportRequest,
        ExportResponse, ImportCardRequest, ImportCardResponse, ImportRequest, ImportResponse,
        IntroductionResponse, IntroductionService, OkResponse, RevokeKind, RevokeRequest,
        UserIdResponse,
    },
};
use x0x_core::AgentId;

use super::{Answer, contacts::level};
use crate::{
    app::App,
    http::{
        error::ApiError,
        extract::{JsonBody, OptionalBody, Params},
    },
};

pub(super) async fn user_id(State(app): State<Arc<App>>) -> Answer<UserIdResponse> {
    let (user_id, disclosed) = (app.agent.user_id(), app.agent.user_disclosed());
    Ok(Json(UserIdResponse { ok: True::default(), user_id, disclosed }))
}

pub(super) async fn create_user(
    State(app): State<Arc<App>>,
    OptionalBody(request): OptionalBody<CreateUserRequest>,
) -> Answer<CreateUserResponse> {
    let path = request.path.map(PathBuf::from);
    let named = path.is_some();
    let created = app.agent.create_user(path).await;
    let (user_id, path) = created.map_err(|error| match error {
        // The caller chose a place where no file can be made.
        IdentityError::Store(error) if named => {
            ApiError::new(ErrorCode::InvalidValue, error.to_string())
        }
        error => error.into(),
    })?;
    let path = path.display().to_string();
    Ok(Json(CreateUserResponse { ok: True::default(), user_id, path, restart_required: true }))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CardParams {
    display_name: String,
    lan: bool,
}

pub(super) async fn card(
    State(app): State<Arc<App>>,
    Params(params): Params<CardParams>,
) -> Answer<AgentCardResponse> {
    let (agent, name) = (&app.agent, &params.display_name);
    let (signed, link) = match params.lan {
        true => (agent.lan_card(name), agent.lan_link()),
        false => (agent.card(name), agent.link()),
    };
    let signed = signed.map_err(bad_text)?;
    Ok(Json(AgentCardResponse {
        ok: True::default(),
        card: shown(signed.card()),
        link: signed.to_link(),
        short_link: link.to_text(),
    }))
}

fn shown(card: &Card) -> AgentCard {
    AgentCard {
        display_name: card.display_name.clone(),
        agent_id: card.agent,
        machine_id: card.machine,
        user_id: card.user(),
        addresses: card.addresses.clone(),
        created_at: card.issued_at.as_secs(),
        expires_at: card.expires_at.as_secs(),
        kem_public_key_b64: card
            .kem_key
            .as_ref()
            .map(|key| Base64(Bytes::copy_from_slice(key.as_bytes()))),
    }
}

pub(super) async fn import_card(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<ImportCardRequest>,
) -> Answer<ImportCardResponse> {
    let level = request.trust_level.as_deref().map(level).transpose()?;
    let imported = app.agent.import_card(&request.card, level).await?;
    Ok(Json(ImportCardResponse {
        ok: True::default(),
        agent_id: imported.agent,
        display_name: imported.display_name,
        // Clients expect the name of the level in this form here, and in lower case elsewhere.
        trust_level: format!("{:?}", imported.level),
        groups: 0,
        stores: 0,
    }))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct IntroductionParams {
    peer: Option<String>,
    display_name: String,
}

/// What a peer may be told, by the level that it has here.
pub(super) async fn introduction(
    State(app): State<Arc<App>>,
    Params(params): Params<IntroductionParams>,
) -> Answer<IntroductionResponse> {
    let level = match params.peer {
        Some(peer) => app.agent.trust().level(&peer.parse()?),
        None => Level::Unknown,
    };
    if level == Level::Blocked {
        return Err(ApiError::new(ErrorCode::Blocked, "blocked"));
    }
    let signed = app.agent.introduction(&params.display_name).map_err(bad_text)?;
    let (card, known) = (signed.card(), level >= Level::Known);
    let services = card.services.iter().filter(|service| least(service.audience) <= level);
    let services = services.map(|service| IntroductionService {
        name: service.name.clone(),
        description: service.description.clone(),
        min_trust: least(service.audience).to_string(),
    });
    Ok(Json(IntroductionResponse {
        ok: True::default(),
        agent_id: card.agent,
        machine_id: known.then_some(card.machine),
        user_id: app.agent.user_id().filter(|_| known && app.agent.user_disclosed()),
        display_name: (!card.display_name.is_empty()).then(|| card.display_name.clone()),
        services: services.collect(),
        link: known.then(|| signed.to_link()),
    }))
}

fn least(audience: Audience) -> Level {
    match audience {
        Audience::Unknown => Level::Unknown,
        Audience::Known => Level::Known,
        _ => Level::Trusted,
    }
}

pub(super) async fn export(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<ExportRequest>,
) -> Answer<ExportResponse> {
    let keys = app.agent.export_keys(request.passphrase).await?;
    Ok(Json(ExportResponse {
        ok: True::default(),
        agent_id: app.agent.agent_id(),
        keys: Base64(keys.into()),
    }))
}

pub(super) async fn import(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<ImportRequest>,
) -> Answer<ImportResponse> {
    let file = Base64::decode(&request.keys)?.to_vec();
    let replace = if request.replace { Replace::KeepCopy } else { Replace::Never };
    let imported = app.agent.import_keys(file, request.passphrase, replace).await;
    let agent_id = imported.map_err(|error| match &error {
        IdentityError::Exists(_) => {
            let text = format!(
                "{error}; `replace` (--replace) keeps a copy of it and puts these in its place"
            );
            ApiError::new(ErrorCode::AlreadyExists, text)
        }
        _ => error.into(),
    })?;
    Ok(Json(ImportResponse { ok: True::default(), agent_id, restart_required: true }))
}

pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<RevokeRequest>,
) -> Answer<OkResponse> {
    let agent = &app.agent;
    let (what, own) = match request.what {
        RevokeKind::Agent => (RevokeWhat::Agent, Some(*agent.agent_id().as_bytes())),
        RevokeKind::AgentByUser => (RevokeWhat::AgentByUser, Some(*agent.agent_id().as_bytes())),
        RevokeKind::Machine => (RevokeWhat::Machine, Some(*agent.machine_id().as_bytes())),
        RevokeKind::User => (RevokeWhat::User, agent.user_id().map(|user| *user.as_bytes())),
        _ => return Err(ApiError::new(ErrorCode::BadRequest, "nothing of that kind is known")),
    };
    let named: AgentId = request.id.parse()?;
    if own != Some(*named.as_bytes()) {
        let text = "the id is not that of this installation's key of that kind";
        return Err(ApiError::new(ErrorCode::BadRequest, text));
    }
    agent.revoke(what, &request.reason).await?;
    Ok(Json(OkResponse { ok: True::default() }))
}

fn bad_text(error: x0x_agent::TextError) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, error.to_string())
}
