//! Rows of private messages.

use super::row::{delete, get, json, post, stream};
use crate::{
    endpoint::{Answer, Endpoint, Parameter, SchemaOf},
    event::{DirectMessageEvent, DirectReceipt},
    limits::MAX_DIRECT_BODY,
    operation::Operation,
    types::{
        ConnectMachineRequest, ConnectRequest, ConnectResponse, DirectConnectionsResponse,
        DirectRequestRequest, DirectSendRequest, DirectSendResponse, DirectStatusResponse,
        OkResponse,
    },
};

const CATEGORY: &str = "Direct messages";

pub(super) const TABLE: &[Endpoint] = &[
    post(Operation::Connect, "/agents/connect", CATEGORY, json::<ConnectResponse>())
        .cli("direct connect")
        .says("Opens a session with an agent's machine. Read `outcome`: the status is always 200.")
        .takes::<ConnectRequest>(),
    post(Operation::ConnectMachine, "/machines/connect", CATEGORY, json::<ConnectResponse>())
        .cli("direct connect-machine")
        .says("Opens a session with a machine. Read `outcome`: the status is always 200.")
        .takes::<ConnectMachineRequest>(),
    Endpoint {
        max_body: MAX_DIRECT_BODY,
        ..post(Operation::DirectSend, "/direct/send", CATEGORY, json::<DirectSendResponse>())
    }
    .cli("direct send")
    .says("Sends a direct message; answers once the recipient's daemon has stored it (a loss of power may take the last ones, unless that daemon flushes its mail), and fails when that cannot be reached now. With `queue` it answers once this daemon has stored it, and sends it when the recipient can be reached.")
    .takes::<DirectSendRequest>(),
    get(
        Operation::DirectConnections,
        "/direct/connections",
        CATEGORY,
        json::<DirectConnectionsResponse>(),
    )
    .cli("direct connections")
    .says("Agents that can be reached over a live session."),
    post(
        Operation::DirectRequest,
        "/direct/request",
        CATEGORY,
        json::<DirectMessageEvent>(),
    )
    .cli("direct request")
    .says("Sends a direct message and waits for the one that answers it, which is the answer; 504 when none comes.")
    .takes::<DirectRequestRequest>(),
    get(
        Operation::DirectStatus,
        "/direct/messages/{id}",
        CATEGORY,
        json::<DirectStatusResponse>(),
    )
    .cli("direct status")
    .says("How far a queued message came, who else keeps it for a recipient that is away, and why nobody does."),
    delete(
        Operation::DirectCancel,
        "/direct/messages/{id}",
        CATEGORY,
        json::<OkResponse>(),
    )
    .cli("direct cancel")
    .says("Takes a queued message back; one that is on its way may arrive all the same."),
    stream(
        Operation::DirectReceipts,
        "/direct/receipts",
        CATEGORY,
        Answer::Events(SchemaOf::new::<DirectReceipt>()),
    )
    .cli("direct receipts")
    .says("How queued messages come further from now on, as server-sent events."),
    stream(
        Operation::DirectEvents,
        "/direct/events",
        CATEGORY,
        Answer::Events(SchemaOf::new::<DirectMessageEvent>()),
    )
    .cli("direct events")
    .says("Direct messages to this daemon's agent, as server-sent events: those that nobody has read, then those that come.")
    .query(&[Parameter::new(
        "since",
        "integer",
        "Begin after the message with this number; `Last-Event-ID` comes first.",
    )]),
];
