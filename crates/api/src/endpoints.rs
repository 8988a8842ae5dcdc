//! The table of endpoints: routes, the OpenAPI document, `docs/api.md` and `x0x routes` derive from
//! it.

use crate::{
    endpoint::{Answer, Auth, Body, Endpoint, Kind, Method, Parameter, SchemaOf},
    event::{DirectMessageEvent, Event, PresenceChange},
    limits::{MAX_BODY, MAX_DIRECT_BODY},
    operation::Operation,
    types::{
        AddContactRequest, AddContactResponse, AddMachineRequest, AgentCardResponse, AgentResponse,
        AnnounceRequest, AnnounceResponse, ConnectRequest, ConnectResponse, ContactMachineResponse,
        ContactMachinesResponse, ContactsResponse, CreateUserRequest, CreateUserResponse,
        DirectConnectionsResponse, DirectSendRequest, DirectSendResponse, DiscoveredAgentResponse,
        DiscoveredAgentsResponse, EvaluateRequest, EvaluateResponse, ExportRequest, ExportResponse,
        FindResponse, GossipDiagnosticsResponse, HealthResponse, ImportCardRequest,
        ImportCardResponse, ImportRequest, ImportResponse, IntroductionResponse,
        NetworkStatusResponse, OkResponse, PeersResponse, PinResponse, PresenceFindResponse,
        PresenceResponse, PresenceStatusResponse, PublishRequest, PublishResponse,
        RevocationsResponse, RevokeContactRequest, RevokeRequest, SetTrustRequest,
        ShutdownResponse, StatusResponse, SubscribeRequest, SubscribeResponse, UnpinResponse,
        UpdateContactRequest, UserIdResponse, WsSessionsResponse,
    },
    ws::{ClientFrame, ServerFrame},
};

const STATUS: &str = "Status";
const IDENTITY: &str = "Identity";
const CONTACTS: &str = "Contacts and trust";
const NETWORK: &str = "Network";
const DISCOVERY: &str = "Discovery";
const PRESENCE: &str = "Presence";
const PUBSUB: &str = "Publish and subscribe";
const DIRECT: &str = "Direct messages";
const WEBSOCKET: &str = "WebSocket";

/// Media type of `GET /metrics`.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const fn rest(
    operation: Operation,
    method: Method,
    path: &'static str,
    category: &'static str,
    answer: Answer,
) -> Endpoint {
    Endpoint {
        operation,
        method,
        path,
        cli: None,
        summary: "",
        category,
        auth: Auth::Bearer,
        body: Body::None,
        request: None,
        max_body: MAX_BODY,
        query: &[],
        kind: Kind::Rest,
        answer,
    }
}

const fn get(
    operation: Operation,
    path: &'static str,
    category: &'static str,
    answer: Answer,
) -> Endpoint {
    rest(operation, Method::Get, path, category, answer)
}

const fn post(
    operation: Operation,
    path: &'static str,
    category: &'static str,
    answer: Answer,
) -> Endpoint {
    rest(operation, Method::Post, path, category, answer)
}

const fn patch(
    operation: Operation,
    path: &'static str,
    category: &'static str,
    answer: Answer,
) -> Endpoint {
    rest(operation, Method::Patch, path, category, answer)
}

const fn delete(
    operation: Operation,
    path: &'static str,
    category: &'static str,
    answer: Answer,
) -> Endpoint {
    rest(operation, Method::Delete, path, category, answer)
}

const fn stream(
    operation: Operation,
    path: &'static str,
    category: &'static str,
    answer: Answer,
) -> Endpoint {
    let kind = match answer {
        Answer::Frames { .. } => Kind::WebSocket,
        _ => Kind::Sse,
    };
    Endpoint { auth: Auth::BearerOrQuery, kind, ..get(operation, path, category, answer) }
}

const fn json<T: utoipa::ToSchema>() -> Answer {
    Answer::Json(SchemaOf::new::<T>())
}

const fn created<T: utoipa::ToSchema>() -> Answer {
    Answer::Created(SchemaOf::new::<T>())
}

const FRAMES: Answer = Answer::Frames {
    client: SchemaOf::new::<ClientFrame>(),
    server: SchemaOf::new::<ServerFrame>(),
};

/// How far and how long friends of friends are asked.
const WALK: &[Parameter] = &[
    Parameter::new("ttl", "integer", "Links that the question crosses: 1 to 3 (default 3)."),
    Parameter::new(
        "timeout_ms",
        "integer",
        "How long to wait for answers, 100 to 30000 (default 5000); friends are asked for 10 s at most.",
    ),
];

impl Endpoint {
    const fn cli(self, cli: &'static str) -> Self {
        Self { cli: Some(cli), ..self }
    }

    const fn says(self, summary: &'static str) -> Self {
        Self { summary, ..self }
    }

    const fn takes<T: utoipa::ToSchema>(self) -> Self {
        Self { body: Body::Json, request: Some(SchemaOf::new::<T>()), ..self }
    }

    const fn may_take<T: utoipa::ToSchema>(self) -> Self {
        Self { body: Body::Optional, request: Some(SchemaOf::new::<T>()), ..self }
    }

    const fn query(self, query: &'static [Parameter]) -> Self {
        Self { query, ..self }
    }
}

/// Every endpoint, in the order in which documents show them.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        auth: Auth::None,
        ..get(Operation::Health, "/health", STATUS, json::<HealthResponse>())
    }
    .cli("health")
    .says("Whether the daemon runs, and with how many peers. Needs no token."),
    get(Operation::Status, "/status", STATUS, json::<StatusResponse>())
        .cli("status")
        .says("The daemon's state, addresses and warnings."),
    post(Operation::Shutdown, "/shutdown", STATUS, json::<ShutdownResponse>())
        .cli("stop")
        .says("Stops the daemon; open connections get two seconds to end."),
    get(Operation::Metrics, "/metrics", STATUS, Answer::Text { media_type: OPENMETRICS })
        .says("Counters and gauges of every layer, as OpenMetrics text."),
    get(
        Operation::OpenApi,
        "/openapi.json",
        STATUS,
        Answer::Text { media_type: "application/json" },
    )
    .says("This API as an OpenAPI 3.1 document."),
    get(Operation::Agent, "/agent", IDENTITY, json::<AgentResponse>())
        .cli("agent")
        .says("Ids and public keys of this daemon."),
    get(Operation::UserId, "/agent/user-id", IDENTITY, json::<UserIdResponse>())
        .cli("agent user-id")
        .says("The user behind the agent, and whether others are told."),
    post(Operation::CreateUser, "/agent/user-id", IDENTITY, json::<CreateUserResponse>())
        .cli("user-id create")
        .says("Makes a user key where there is none; it is used from the next start on.")
        .may_take::<CreateUserRequest>(),
    get(Operation::AgentCard, "/agent/card", IDENTITY, json::<AgentCardResponse>())
        .cli("agent card")
        .says("The agent's signed card, and links to hand to others.")
        .query(&[Parameter::new("display_name", "string", "What to call the agent, at most 64 bytes.")]),
    post(Operation::ImportCard, "/agent/card/import", IDENTITY, json::<ImportCardResponse>())
        .cli("agent import")
        .says("Makes a contact of whoever a card or link is about; a card that was changed is refused.")
        .takes::<ImportCardRequest>(),
    post(Operation::ExportKeys, "/agent/export", IDENTITY, json::<ExportResponse>())
        .cli("agent export-keys")
        .says("The agent's keys for another machine, which only a passphrase opens.")
        .takes::<ExportRequest>(),
    post(Operation::ImportKeys, "/agent/import", IDENTITY, json::<ImportResponse>())
        .cli("agent import-keys")
        .says("Makes an exported agent the one of this installation, from the next start on; the machine that it came from is refused by others then.")
        .takes::<ImportRequest>(),
    get(Operation::Introduction, "/introduction", IDENTITY, json::<IntroductionResponse>())
        .cli("agent introduction")
        .says("What a peer may be told of the agent, by its trust level here; 403 when it is blocked.")
        .query(&[
            Parameter::new("peer", "string", "The peer's agent id; somebody unknown when it is absent."),
            Parameter::new("display_name", "string", "What to call the agent, at most 64 bytes."),
        ]),
    post(Operation::Announce, "/announce", IDENTITY, json::<AnnounceResponse>())
        .cli("announce")
        .says("Announces the agent to the network now.")
        .may_take::<AnnounceRequest>(),
    post(Operation::RevokeIdentity, "/identity/revoke", IDENTITY, json::<OkResponse>())
        .cli("identity revoke")
        .says("Revokes a key of this installation for ever, for everybody who hears of it.")
        .takes::<RevokeRequest>(),
    get(Operation::Revocations, "/identity/revocations", IDENTITY, json::<RevocationsResponse>())
        .cli("identity revocations")
        .says("Every revocation that is known here."),
    get(Operation::Contacts, "/contacts", CONTACTS, json::<ContactsResponse>())
        .cli("contacts list")
        .says("The contacts."),
    post(Operation::AddContact, "/contacts", CONTACTS, created::<AddContactResponse>())
        .cli("contacts add")
        .says("Adds a contact, or sets its level and label; always with status 201.")
        .takes::<AddContactRequest>(),
    post(Operation::SetTrust, "/contacts/trust", CONTACTS, json::<OkResponse>())
        .cli("trust set")
        .says("Sets the level of a contact, adding it when it is none.")
        .takes::<SetTrustRequest>(),
    patch(Operation::UpdateContact, "/contacts/{agent_id}", CONTACTS, json::<OkResponse>())
        .cli("contacts update")
        .says("Sets the level or the identity type of a contact, adding it when it is none.")
        .takes::<UpdateContactRequest>(),
    delete(Operation::RemoveContact, "/contacts/{agent_id}", CONTACTS, json::<OkResponse>())
        .cli("contacts remove")
        .says("Removes a contact; what was revoked stays so."),
    post(Operation::RevokeContact, "/contacts/{agent_id}/revoke", CONTACTS, json::<OkResponse>())
        .cli("contacts revoke")
        .says("Blocks an agent for ever, for this installation.")
        .takes::<RevokeContactRequest>(),
    get(
        Operation::ContactRevocations,
        "/contacts/{agent_id}/revocations",
        CONTACTS,
        json::<RevocationsResponse>(),
    )
    .cli("contacts revocations")
    .says("The revocations of an agent and of its user."),
    get(
        Operation::ContactMachines,
        "/contacts/{agent_id}/machines",
        CONTACTS,
        json::<ContactMachinesResponse>(),
    )
    .cli("machines list")
    .says("The machines of a contact."),
    post(
        Operation::AddMachine,
        "/contacts/{agent_id}/machines",
        CONTACTS,
        created::<ContactMachineResponse>(),
    )
    .cli("machines add")
    .says("Puts a machine of a contact on record, and pins the contact to it if asked.")
    .takes::<AddMachineRequest>(),
    delete(
        Operation::RemoveMachine,
        "/contacts/{agent_id}/machines/{machine_id}",
        CONTACTS,
        Answer::Nothing,
    )
    .cli("machines remove")
    .says("Forgets a machine of a contact, and its pin."),
    post(
        Operation::PinMachine,
        "/contacts/{agent_id}/machines/{machine_id}/pin",
        CONTACTS,
        json::<PinResponse>(),
    )
    .cli("machines pin")
    .says("Accepts a contact from this machine, and from no other that is not pinned too."),
    delete(
        Operation::UnpinMachine,
        "/contacts/{agent_id}/machines/{machine_id}/pin",
        CONTACTS,
        json::<UnpinResponse>(),
    )
    .cli("machines unpin")
    .says("Takes the pin off; after the last one the contact is accepted from any machine."),
    post(Operation::EvaluateTrust, "/trust/evaluate", CONTACTS, json::<EvaluateResponse>())
        .cli("trust evaluate")
        .says("What the trust rules say of an agent on a machine.")
        .takes::<EvaluateRequest>(),
    get(Operation::Peers, "/peers", NETWORK, json::<PeersResponse>())
        .cli("peers")
        .says("Machines with a live session."),
    get(Operation::NetworkStatus, "/network/status", NETWORK, json::<NetworkStatusResponse>())
        .cli("network status")
        .says("Addresses, sessions and round-trip time."),
    get(
        Operation::GossipDiagnostics,
        "/diagnostics/gossip",
        NETWORK,
        json::<GossipDiagnosticsResponse>(),
    )
    .cli("diagnostics gossip")
    .says("Neighbours, links and topics, and how messages spread over them."),
    get(
        Operation::DiscoveredAgents,
        "/agents/discovered",
        DISCOVERY,
        json::<DiscoveredAgentsResponse>(),
    )
    .cli("agents list")
    .says("Agents that announced themselves lately.")
    .query(&[Parameter::new("unfiltered", "boolean", "Also list those whose announcement expired.")]),
    get(
        Operation::DiscoveredAgent,
        "/agents/discovered/{agent_id}",
        DISCOVERY,
        json::<DiscoveredAgentResponse>(),
    )
    .cli("agents get")
    .says("One agent; 404 when it is not known.")
    .query(&[Parameter::new(
        "wait",
        "string",
        "Search for an unknown agent first: `true` for 10 seconds, or how many seconds (at most 60).",
    )]),
    post(Operation::FindAgent, "/agents/find/{agent_id}", DISCOVERY, json::<FindResponse>())
        .cli("find")
        .says("Looks for an agent for up to ten seconds. Read `found`: the status is always 200."),
    get(Operation::Presence, "/presence", PRESENCE, json::<PresenceResponse>())
        .cli("presence list")
        .says("Ids of the agents that are there."),
    get(
        Operation::PresenceOnline,
        "/presence/online",
        PRESENCE,
        json::<DiscoveredAgentsResponse>(),
    )
    .cli("presence online")
    .says("The agents that are there, and where."),
    get(
        Operation::PresenceStatus,
        "/presence/status/{agent_id}",
        PRESENCE,
        json::<PresenceStatusResponse>(),
    )
    .cli("presence status")
    .says("Whether an agent is there, and when it was last seen."),
    get(
        Operation::PresenceFind,
        "/presence/find/{agent_id}",
        PRESENCE,
        json::<PresenceFindResponse>(),
    )
    .cli("presence find")
    .says("Looks for an agent by its id, then among friends of friends. Read `agent`.")
    .query(WALK),
    get(Operation::PresenceFoaf, "/presence/foaf", PRESENCE, json::<DiscoveredAgentsResponse>())
        .cli("presence foaf")
        .says("Agents that friends of friends see. Takes as long as `timeout_ms`.")
        .query(WALK),
    stream(
        Operation::PresenceEvents,
        "/presence/events",
        PRESENCE,
        Answer::Events(SchemaOf::new::<PresenceChange>()),
    )
    .cli("presence events")
    .says("Agents coming and going, as server-sent events; those that are there come first."),
    post(Operation::Publish, "/publish", PUBSUB, json::<PublishResponse>())
        .cli("publish")
        .says("Publishes a message; 429 when there is no room for it within two seconds.")
        .takes::<PublishRequest>(),
    post(Operation::Subscribe, "/subscribe", PUBSUB, json::<SubscribeResponse>())
        .cli("subscribe")
        .says("Lets the messages of a topic come to `/events`.")
        .takes::<SubscribeRequest>(),
    Endpoint {
        method: Method::Delete,
        ..get(Operation::Unsubscribe, "/subscribe/{id}", PUBSUB, json::<OkResponse>())
    }
    .cli("unsubscribe")
    .says("Ends a subscription; its messages stop."),
    stream(Operation::Events, "/events", PUBSUB, Answer::Events(SchemaOf::new::<Event>()))
        .cli("events")
        .says("Messages of every subscription of the daemon, or of some topics, as server-sent events.")
        .query(&[
            Parameter::new(
                "topic",
                "string",
                "A topic of which this stream is, instead of the daemon's subscriptions; up to 16 times.",
            ),
            Parameter::new(
                "since",
                "string",
                "Where a stream of topics begins: the id of one of its events, for one topic also a \
                 message's `cursor`, or `now`; otherwise with the oldest messages that the daemon keeps.",
            ),
        ]),
    post(Operation::Connect, "/agents/connect", DIRECT, json::<ConnectResponse>())
        .cli("direct connect")
        .says("Opens a session with an agent's machine. Read `outcome`: the status is always 200.")
        .takes::<ConnectRequest>(),
    Endpoint {
        max_body: MAX_DIRECT_BODY,
        ..post(Operation::DirectSend, "/direct/send", DIRECT, json::<DirectSendResponse>())
    }
    .cli("direct send")
    .says("Sends a direct message; answers once the recipient's inbox took it.")
    .takes::<DirectSendRequest>(),
    get(
        Operation::DirectConnections,
        "/direct/connections",
        DIRECT,
        json::<DirectConnectionsResponse>(),
    )
    .cli("direct connections")
    .says("Agents that can be reached over a live session."),
    stream(
        Operation::DirectEvents,
        "/direct/events",
        DIRECT,
        Answer::Events(SchemaOf::new::<DirectMessageEvent>()),
    )
    .cli("direct events")
    .says("Direct messages to this daemon's agent, as server-sent events."),
    stream(Operation::Ws, "/ws", WEBSOCKET, FRAMES)
        .says("Publish, subscribe and send over one WebSocket."),
    stream(Operation::WsDirect, "/ws/direct", WEBSOCKET, FRAMES)
        .says("The same, and direct messages to this daemon's agent come by themselves."),
    get(Operation::WsSessions, "/ws/sessions", WEBSOCKET, json::<WsSessionsResponse>())
        .cli("ws sessions")
        .says("The open WebSocket sessions and their topics."),
];

/// The table row of an operation.
///
/// # Panics
/// Never: a test holds that every operation has a row.
#[must_use]
pub fn endpoint(operation: Operation) -> &'static Endpoint {
    ENDPOINTS
        .iter()
        .find(|endpoint| endpoint.operation == operation)
        .expect("every operation has a row")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_operation_has_one_row_and_each_row_a_route_of_its_own() {
        let operations: BTreeSet<_> = ENDPOINTS.iter().map(|row| row.operation).collect();
        assert_eq!(operations.len(), ENDPOINTS.len());
        assert_eq!(operations, Operation::ALL.iter().copied().collect());
        let routes: BTreeSet<_> =
            ENDPOINTS.iter().map(|row| (row.method.as_str(), row.path)).collect();
        assert_eq!(routes.len(), ENDPOINTS.len());
        for row in ENDPOINTS {
            assert!(row.summary.ends_with('.'), "{} has no summary", row.path);
            assert_eq!(row.request.is_some(), row.body != Body::None, "{}", row.path);
            assert_eq!(endpoint(row.operation).path, row.path);
        }
    }

    #[test]
    fn streams_take_the_token_in_the_query() {
        for row in ENDPOINTS {
            let streams = row.kind != Kind::Rest;
            assert_eq!(row.auth == Auth::BearerOrQuery, streams, "{}", row.path);
        }
    }
}
