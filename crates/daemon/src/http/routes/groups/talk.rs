//! What is written in groups, and what happens in them.

use std::sync::Arc;

use axum::{Json, extract::State, http::HeaderMap, response::Response};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use tokio::sync::broadcast::{self, error::RecvError};
use x0x_agent::named_groups::{
    GroupEvent as Event, GroupEventKind as Kind, GroupId, MessageKind, Text,
};
use x0x_api::{
    Base64, ErrorCode, True,
    event::{GROUP, GroupEvent, GroupEventKind},
    types::{GroupMessageInfo, GroupMessagesResponse, GroupSendRequest, GroupSendResponse},
};

use super::{Answer, bad, find, info};
use crate::{
    app::App,
    events::Encoded,
    http::{
        error::ApiError,
        extract::{JsonBody, PathParameter},
        feeds::{self, Changes, ChangesOnly},
        sse,
    },
};

pub(in super::super) async fn send(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    JsonBody(request): JsonBody<GroupSendRequest>,
) -> Answer<GroupSendResponse> {
    let state = find(&app, &id).await?;
    let (group, groups) = (state.group, app.agent.groups());
    let GroupSendRequest { body, payload, kind, room } = request;
    let message_id = if info(&state).encrypted {
        let payload = match (body, payload) {
            (Some(body), None) => Bytes::from(body),
            (None, Some(payload)) => Base64::decode(&payload)?,
            _ => return Err(bad(ErrorCode::BadRequest, "one of `body` and `payload` is needed")),
        };
        HEXLOWER.encode(&groups.send(group, room, payload).await?)
    } else {
        let text = "a group that is not encrypted takes text in `body`";
        let body = body.ok_or_else(|| bad(ErrorCode::BadRequest, text))?;
        let kind = kind.as_deref().unwrap_or("chat");
        let kind = MessageKind::from_word(kind).ok_or_else(|| {
            let text = format!("unknown kind '{kind}' (expected 'chat' or 'announcement')");
            ApiError::new(ErrorCode::BadRequest, text)
        })?;
        HEXLOWER.encode(&groups.write(group, kind, room, None, body).await?)
    };
    Ok(Json(GroupSendResponse {
        ok: True::default(),
        group_id: group.to_string(),
        message_id,
        topic: state.topic,
        timestamp: x0x_core::Clock::wall(&x0x_core::SystemClock::new()).as_millis(),
    }))
}

/// Bytes as text where they are one, else in base64.
fn shown(payload: &Bytes) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(payload) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(Base64::encode(payload))),
    }
}

fn text_info(group: GroupId, text: &Text) -> GroupMessageInfo {
    let (body, payload) = shown(&text.payload);
    GroupMessageInfo {
        message_id: HEXLOWER.encode(&text.id),
        group_id: group.to_string(),
        author_agent_id: text.author,
        kind: MessageKind::Chat.word().to_owned(),
        room: text.room.clone(),
        body,
        payload,
        timestamp: text.at.as_millis(),
        handed_by: text.handed_by,
    }
}

pub(in super::super) async fn messages(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<GroupMessagesResponse> {
    let state = find(&app, &id).await?;
    let (group, groups) = (state.group, app.agent.groups());
    let mut messages: Vec<GroupMessageInfo> =
        groups.texts(group).await?.iter().map(|text| text_info(group, text)).collect();
    for (id, message) in groups.messages(group).await? {
        messages.push(GroupMessageInfo {
            message_id: HEXLOWER.encode(&id),
            group_id: group.to_string(),
            author_agent_id: message.author,
            kind: message.kind.word().to_owned(),
            room: message.room,
            body: Some(message.text),
            payload: None,
            timestamp: message.at.as_millis(),
            handed_by: None,
        });
    }
    Ok(Json(GroupMessagesResponse { ok: True::default(), messages }))
}

/// What happens in groups.
struct GroupChanges(broadcast::Receiver<Event>);

fn event(Event { group, kind }: Event) -> GroupEvent {
    let mut event = GroupEvent {
        group_id: group.to_string(),
        event: GroupEventKind::State,
        author_agent_id: None,
        room: None,
        body: None,
        payload: None,
        message_id: None,
        epoch: None,
    };
    match kind {
        Kind::Entered => event.event = GroupEventKind::Entered,
        Kind::Left => event.event = GroupEventKind::Left,
        Kind::Epoch { epoch } => {
            (event.event, event.epoch) = (GroupEventKind::Epoch, Some(epoch));
        }
        Kind::Unreadable { epoch } => {
            (event.event, event.epoch) = (GroupEventKind::Unreadable, Some(epoch));
        }
        Kind::Past { by, .. } => {
            (event.event, event.author_agent_id) = (GroupEventKind::History, Some(by));
        }
        Kind::Message { id } => {
            event.event = GroupEventKind::Message;
            event.message_id = Some(HEXLOWER.encode(&id));
        }
        Kind::Text { author, room, payload } => {
            event.event = GroupEventKind::Message;
            (event.author_agent_id, event.room) = (Some(author), Some(room));
            (event.body, event.payload) = shown(&payload);
        }
        _ => {}
    }
    event
}

impl Changes for GroupChanges {
    async fn next(&mut self) -> Option<Vec<Encoded>> {
        match self.0.recv().await {
            Ok(happened) => Some(vec![sse::encode(GROUP, &event(happened))]),
            Err(RecvError::Lagged(missed)) => Some(vec![feeds::missed(missed)]),
            Err(RecvError::Closed) => None,
        }
    }
}

pub(in super::super) async fn events(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let changes = || GroupChanges(app.agent.groups().events());
    app.feeds.groups.respond(&app, &headers, changes, ChangesOnly)
}
