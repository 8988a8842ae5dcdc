//! `/stores/*`.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use bytes::Bytes;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::Deserialize;
use x0x_agent::{
    WallTime,
    kv::{
        Content, FileReference, If, KeyView, KvChange, KvError, KvEvent, KvStore, Put, Version,
        VersionTag,
    },
    objects::SharedObject,
};
use x0x_api::{
    Base64, ErrorCode, True,
    event::{STORE, StoreEvent, StoreEventKind},
    types::{
        self, CreateObjectRequest, JoinStoreRequest, KeyInfo, KeysResponse, ObjectResponse,
        ObjectStatusResponse, OkResponse, PolicyRequest, PutValueRequest, PutValueResponse,
        StoredValue, StoresResponse, ValueResponse,
    },
};

use super::{Answer, objects};
use crate::{
    app::App,
    http::{
        error::ApiError,
        extract::{JsonBody, OptionalBody, Params, PathPair, PathParameter},
        object_stream::ObjectSource,
        sse,
    },
};

/// The `if_version` of a key without a value.
const ABSENT: &str = "absent";

pub(in crate::http) async fn find(app: &App, id: &str) -> Result<SharedObject<KvStore>, ApiError> {
    let found = app.agent.stores().get(id).await?;
    found.ok_or_else(|| ApiError::new(ErrorCode::NotFound, "store not found"))
}

impl From<KvError> for ApiError {
    fn from(error: KvError) -> Self {
        let code = match &error {
            KvError::NotFound(_) => ErrorCode::NotFound,
            KvError::Changed { tag } => {
                let detail = match tag {
                    Some(tag) => format!("the key is at version {}", HEXLOWER.encode(tag)),
                    None => "the key has no value".to_owned(),
                };
                let body = Self::new(ErrorCode::Conflict, error.to_string());
                return Self(x0x_api::ErrorBody { detail: Some(detail), ..body.0 });
            }
            KvError::TooLarge(_) => ErrorCode::PayloadTooLarge,
            KvError::Rules(_) => ErrorCode::NotPermitted,
            KvError::TooManyKeys => ErrorCode::LimitReached,
            _ => ErrorCode::BadRequest,
        };
        Self::new(code, error.to_string())
    }
}

pub(super) async fn list(State(app): State<Arc<App>>) -> Answer<StoresResponse> {
    let stores = objects::list(app.agent.stores());
    Ok(Json(StoresResponse { ok: True::default(), stores }))
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<CreateObjectRequest>,
) -> Result<(StatusCode, Json<ObjectResponse>), ApiError> {
    let (status, response) = objects::create(app.agent.stores(), request).await?;
    Ok((status, Json(response)))
}

pub(super) async fn join(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    OptionalBody(request): OptionalBody<JoinStoreRequest>,
) -> Answer<ObjectResponse> {
    let (store, _) = app.agent.stores().join(&id, request.name).await?;
    objects::response(&store).await.map(Json)
}

pub(super) async fn status(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<ObjectStatusResponse> {
    objects::status(&find(&app, &id).await?).await.map(Json)
}

pub(super) async fn leave(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<OkResponse> {
    let store = find(&app, &id).await?;
    app.agent.stores().leave(&store).await?;
    Ok(Json(OkResponse::default()))
}

pub(super) async fn policy(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    JsonBody(request): JsonBody<PolicyRequest>,
) -> Answer<ObjectStatusResponse> {
    objects::change_policy(&find(&app, &id).await?, request).await.map(Json)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct KeysParams {
    prefix: String,
    limit: Option<usize>,
    cursor: Option<String>,
}

pub(super) async fn keys(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    Params(params): Params<KeysParams>,
) -> Answer<KeysResponse> {
    let store = find(&app, &id).await?;
    let KeysParams { prefix, limit, cursor } = params;
    let limit = objects::page(limit);
    let page = store.read(move |state, now| {
        let mut views = state.range(&prefix, cursor.as_deref(), now);
        let keys: Vec<KeyInfo> = views.by_ref().take(limit).map(|view| key_info(&view)).collect();
        let more = views.next().is_some();
        let next = keys.last().filter(|_| more).map(|last| last.key.clone());
        drop(views);
        (keys, next)
    });
    let (keys, next) = page.await?;
    Ok(Json(KeysResponse { ok: True::default(), keys, next }))
}

fn key_info(view: &KeyView<'_>) -> KeyInfo {
    let value = view.value();
    KeyInfo {
        key: view.key().to_owned(),
        content_type: value.content_type().to_owned(),
        content_hash: HEXLOWER.encode(&value.content().hash()),
        size: value.content().size(),
        updated_at: value.updated().as_millis(),
        version: HEXLOWER.encode(&view.tag()),
        conflicts: view.conflicts().len(),
    }
}

fn stored(version: &Version) -> StoredValue {
    let (value, file) = match version.content() {
        Content::Inline(value) => (Some(Base64(value.clone())), None),
        Content::File(FileReference { hash, size, name }) => {
            let (hash, size, name) = (HEXLOWER.encode(hash), *size, name.clone());
            (None, Some(types::FileReference { hash, size, name }))
        }
        // A content of a later kind cannot be shown.
        _ => (None, None),
    };
    StoredValue {
        value,
        file,
        content_type: version.content_type().to_owned(),
        content_hash: HEXLOWER.encode(&version.content().hash()),
        metadata: version.metadata().clone(),
        created_at: version.created().as_millis(),
        updated_at: version.updated().as_millis(),
        author: version.author(),
        expires_at: version.expires().map(WallTime::as_millis),
    }
}

pub(super) async fn get(
    State(app): State<Arc<App>>,
    PathPair(id, key): PathPair,
) -> Answer<ValueResponse> {
    let store = find(&app, &id).await?;
    let found = store.read(move |state, now| {
        state.get(&key, now).map(|view| ValueResponse {
            ok: True::default(),
            key: view.key().to_owned(),
            value: stored(view.value()),
            version: HEXLOWER.encode(&view.tag()),
            conflicts: view.conflicts().iter().map(|version| stored(version)).collect(),
        })
    });
    let not_found = || ApiError::new(ErrorCode::NotFound, "key not found");
    found.await?.map(Json).ok_or_else(not_found)
}

fn condition(text: Option<&str>) -> Result<If, ApiError> {
    let Some(text) = text else { return Ok(If::Always) };
    if text == ABSENT {
        return Ok(If::Absent);
    }
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).unwrap_or_default();
    let tag = VersionTag::try_from(bytes);
    let text = "if_version: expected the version of a key (32 hex chars), or absent";
    tag.map(If::Holds).map_err(|_| ApiError::new(ErrorCode::InvalidHex, text))
}

fn content(request: &PutValueRequest) -> Result<Content, ApiError> {
    match (&request.value, &request.file) {
        (Some(value), None) => Ok(Content::Inline(Base64::decode(value)?)),
        (None, Some(types::FileReference { hash, size, name })) => {
            let bytes = HEXLOWER_PERMISSIVE.decode(hash.as_bytes()).unwrap_or_default();
            let text = "hash: expected 32 bytes (64 hex chars)";
            let hash = bytes.try_into().map_err(|_| ApiError::new(ErrorCode::InvalidHex, text))?;
            Ok(Content::File(FileReference { hash, size: *size, name: name.clone() }))
        }
        _ => Err(ApiError::new(ErrorCode::InvalidBody, "invalid body: give value or file")),
    }
}

pub(super) async fn put(
    State(app): State<Arc<App>>,
    PathPair(id, key): PathPair,
    JsonBody(request): JsonBody<PutValueRequest>,
) -> Answer<PutValueResponse> {
    let store = find(&app, &id).await?;
    let when = condition(request.if_version.as_deref())?;
    let content = content(&request)?;
    let put = Put {
        content,
        content_type: request.content_type.unwrap_or_default(),
        metadata: request.metadata,
        ttl: request.ttl_ms.map(Duration::from_millis),
        ..Put::new(key.clone(), Bytes::new())
    };
    let written = store.write_part(&key, move |state, cx| state.set(cx, put, when)).await;
    written.map_err(objects::refused)?;
    let tag = store.read(move |state, now| state.get(&key, now).map(|view| view.tag()));
    // Another agent may have deleted it meanwhile: then it is at no version.
    let version = HEXLOWER.encode(&tag.await?.unwrap_or_default());
    Ok(Json(PutValueResponse { ok: True::default(), version }))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct DeleteParams {
    if_version: Option<String>,
}

pub(super) async fn delete(
    State(app): State<Arc<App>>,
    PathPair(id, key): PathPair,
    Params(params): Params<DeleteParams>,
) -> Answer<OkResponse> {
    let store = find(&app, &id).await?;
    let when = condition(params.if_version.as_deref())?;
    let part = key.clone();
    let written = store.write_part(&part, move |state, cx| state.delete_key(cx, &key, when)).await;
    written.map_err(objects::refused)?;
    Ok(Json(OkResponse::default()))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WatchParams {
    prefix: String,
}

pub(super) async fn watch(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    headers: HeaderMap,
    Params(WatchParams { prefix }): Params<WatchParams>,
) -> Result<Response, ApiError> {
    let store = find(&app, &id).await?;
    let id = store.name().to_string();
    let encode = move |event: &KvEvent| {
        let wanted = event.key.starts_with(&prefix);
        let event = wanted.then(|| event_data(&id, event)).flatten()?;
        Some(sse::encode(STORE, &event))
    };
    sse::respond(
        &app,
        ObjectSource::<KvStore, _>::new(store.watch(sse::last_event_id(&headers)), encode),
    )
}

/// An event as the API shows it.
pub(in crate::http) fn event_data(store_id: &str, event: &KvEvent) -> Option<StoreEvent> {
    let kind = match event.change {
        KvChange::Put => StoreEventKind::Put,
        KvChange::Conflict => StoreEventKind::Conflict,
        KvChange::Deleted => StoreEventKind::Deleted,
        KvChange::Expired => StoreEventKind::Expired,
        // A later kind of change says nothing to clients of this API.
        _ => return None,
    };
    Some(StoreEvent {
        store_id: store_id.to_owned(),
        key: event.key.clone(),
        event: kind,
        agent: event.agent,
        at: event.at.as_millis(),
        version: event.tag.map(|tag| HEXLOWER.encode(&tag)),
    })
}
