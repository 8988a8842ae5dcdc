//! Rows of the WebSocket.

use super::row::{get, json, stream};
use crate::{
    endpoint::{Answer, Endpoint, Parameter, SchemaOf},
    operation::Operation,
    types::WsSessionsResponse,
    ws::{ClientFrame, ServerFrame},
};

const CATEGORY: &str = "WebSocket";

const FRAMES: Answer = Answer::Frames {
    client: SchemaOf::new::<ClientFrame>(),
    server: SchemaOf::new::<ServerFrame>(),
};

pub(super) const TABLE: &[Endpoint] = &[
    stream(Operation::Ws, "/ws", CATEGORY, FRAMES)
        .says("Publish, subscribe and send over one WebSocket."),
    stream(Operation::WsDirect, "/ws/direct", CATEGORY, FRAMES)
        .says("The same, and direct messages to this daemon's agent come by themselves: those that nobody has read, then those that come.")
    .query(&[Parameter::new("since", "integer", "Direct messages begin after the one with this number.")]),
    get(Operation::WsSessions, "/ws/sessions", CATEGORY, json::<WsSessionsResponse>())
        .cli("ws sessions")
        .says("The open WebSocket sessions and their topics."),
];
