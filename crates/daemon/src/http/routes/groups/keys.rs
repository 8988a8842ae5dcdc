//! Groups by their keys (`/mls/groups/*`), and content that is sealed to their members (`/groups/{id}/secure/*`).

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use x0x_agent::named_groups::{
    Action, GroupPolicy, GroupState, Profile, Role, SEALED_NONCE, Sealed,
};
use x0x_api::{
    Base64, ErrorCode, True,
    types::{
        CreateMlsGroupRequest, MlsAgentRequest, MlsDecryptRequest, MlsDecryptResponse,
        MlsEncryptRequest, MlsEncryptResponse, MlsGroupInfo, MlsGroupResponse, MlsGroupsResponse,
        MlsMembersResponse, MlsWelcomeResponse, SecureContent, SecureDecryptResponse,
        SecureEncryptRequest,
    },
};
use x0x_core::AgentId;

use super::{Answer, bad, find, hex32};
use crate::{
    app::App,
    http::{
        error::ApiError,
        extract::{JsonBody, PathPair, PathParameter},
    },
};

/// What a group is called that is founded by its keys.
const NAME: &str = "mls";

fn keys_of(state: &GroupState) -> Option<(String, u64, Vec<AgentId>)> {
    let (epoch, members) = state.keys.clone()?;
    Some((HEXLOWER.encode(&state.view.mls_group?.0), epoch, members))
}

fn response(state: &GroupState) -> Result<MlsGroupResponse, ApiError> {
    let missing = || bad(ErrorCode::NotFound, "group not found");
    let (group_id, epoch, members) = keys_of(state).ok_or_else(missing)?;
    let (ok, named_group_id) = (True::default(), state.group.to_string());
    Ok(MlsGroupResponse { ok, group_id, named_group_id, epoch, members })
}

async fn by_keys(app: &App, id: &str) -> Result<GroupState, ApiError> {
    Ok(app.agent.groups().by_keys(hex32(id, "a group id")?).await?)
}

async fn changed(app: &App, id: &str) -> Answer<MlsMembersResponse> {
    let MlsGroupResponse { epoch, members, .. } = response(&by_keys(app, id).await?)?;
    let (ok, member_count) = (True::default(), members.len() as u64);
    Ok(Json(MlsMembersResponse { ok, epoch, member_count }))
}

pub(in super::super) async fn list(State(app): State<Arc<App>>) -> Answer<MlsGroupsResponse> {
    let groups = app.agent.groups().list().await?;
    let groups = groups.iter().filter_map(keys_of).map(|(group_id, epoch, members)| {
        let member_count = members.len() as u64;
        MlsGroupInfo { group_id, epoch, member_count }
    });
    Ok(Json(MlsGroupsResponse { ok: True::default(), groups: groups.collect() }))
}

pub(in super::super) async fn create(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<CreateMlsGroupRequest>,
) -> Result<(StatusCode, Json<MlsGroupResponse>), ApiError> {
    if request.group_id.is_some() {
        return Err(bad(ErrorCode::InvalidValue, "a group's id is made with its keys"));
    }
    let profile = Profile { name: NAME.to_owned(), ..Profile::default() };
    let groups = app.agent.groups();
    let group = groups.found(GroupPolicy::PRIVATE_SECURE, profile, String::new()).await?;
    Ok((StatusCode::CREATED, Json(response(&groups.get(group).await?)?)))
}

pub(in super::super) async fn show(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<MlsGroupResponse> {
    response(&by_keys(&app, &id).await?).map(Json)
}

pub(in super::super) async fn add(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    JsonBody(request): JsonBody<MlsAgentRequest>,
) -> Answer<MlsMembersResponse> {
    let (agent, state): (AgentId, _) = (request.agent_id.parse()?, by_keys(&app, &id).await?);
    let groups = app.agent.groups();
    groups.admit(state.group, agent, Role::Member, None, String::new()).await?;
    changed(&app, &id).await
}

pub(in super::super) async fn remove(
    State(app): State<Arc<App>>,
    PathPair(id, agent): PathPair,
) -> Answer<MlsMembersResponse> {
    let (agent, state): (AgentId, _) = (agent.parse()?, by_keys(&app, &id).await?);
    app.agent.groups().act(state.group, Action::Remove { agent }).await?;
    changed(&app, &id).await
}

pub(in super::super) async fn encrypt(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    JsonBody(request): JsonBody<MlsEncryptRequest>,
) -> Answer<MlsEncryptResponse> {
    let state = by_keys(&app, &id).await?;
    let content = Base64::decode(&request.payload)?;
    let Sealed { epoch, nonce, ciphertext } = app.agent.groups().seal(state.group, content).await?;
    let ciphertext = Base64::encode(&[&nonce[..], &ciphertext].concat());
    Ok(Json(MlsEncryptResponse { ok: True::default(), ciphertext, epoch }))
}

fn sealed(epoch: u64, nonce: &[u8], ciphertext: Bytes) -> Result<Sealed, ApiError> {
    let nonce: [u8; SEALED_NONCE] =
        nonce.try_into().map_err(|_| bad(ErrorCode::BadRequest, "nonce must be 24 bytes"))?;
    Ok(Sealed { epoch, nonce, ciphertext })
}

pub(in super::super) async fn decrypt(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    JsonBody(request): JsonBody<MlsDecryptRequest>,
) -> Answer<MlsDecryptResponse> {
    let state = by_keys(&app, &id).await?;
    let bytes = Base64::decode(&request.ciphertext)?;
    let nonce = bytes.slice(..bytes.len().min(SEALED_NONCE));
    let sealed = sealed(request.epoch, &nonce, bytes.slice(nonce.len()..))?;
    let payload = Base64::encode(&app.agent.groups().unseal(state.group, sealed).await?);
    Ok(Json(MlsDecryptResponse { ok: True::default(), payload }))
}

pub(in super::super) async fn welcome(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    JsonBody(request): JsonBody<MlsAgentRequest>,
) -> Answer<MlsWelcomeResponse> {
    let (agent, state): (AgentId, _) = (request.agent_id.parse()?, by_keys(&app, &id).await?);
    let MlsGroupResponse { ok, group_id, epoch, .. } = response(&state)?;
    let welcome = Base64::encode(&app.agent.groups().welcome(state.group, agent).await?);
    Ok(Json(MlsWelcomeResponse { ok, welcome, group_id, epoch }))
}

pub(in super::super) async fn secure_encrypt(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    JsonBody(request): JsonBody<SecureEncryptRequest>,
) -> Answer<SecureContent> {
    let group = find(&app, &id).await?.group;
    let content = Base64::decode(&request.payload_b64)?;
    let Sealed { epoch, nonce, ciphertext } = app.agent.groups().seal(group, content).await?;
    Ok(Json(SecureContent {
        ok: True::default(),
        ciphertext_b64: Base64::encode(&ciphertext),
        nonce_b64: Base64::encode(&nonce),
        secret_epoch: epoch,
    }))
}

pub(in super::super) async fn secure_decrypt(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    JsonBody(request): JsonBody<SecureContent>,
) -> Answer<SecureDecryptResponse> {
    let group = find(&app, &id).await?.group;
    let nonce = Base64::decode(&request.nonce_b64)?;
    let ciphertext = Base64::decode(&request.ciphertext_b64)?;
    let sealed = sealed(request.secret_epoch, &nonce, ciphertext)?;
    let payload_b64 = Base64::encode(&app.agent.groups().unseal(group, sealed).await?);
    let secret_epoch = request.secret_epoch;
    Ok(Json(SecureDecryptResponse { ok: True::default(), payload_b64, secret_epoch }))
}
