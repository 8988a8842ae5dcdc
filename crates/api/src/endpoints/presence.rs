//! Rows of who is there.

use super::row::{get, json, stream};
use crate::{
    endpoint::{Answer, Endpoint, Parameter, SchemaOf},
    event::PresenceChange,
    operation::Operation,
    types::{
        DiscoveredAgentsResponse, PresenceFindResponse, PresenceResponse, PresenceStatusResponse,
    },
};

const CATEGORY: &str = "Presence";

/// How far and how long friends of friends are asked.
const WALK: &[Parameter] = &[
    Parameter::new("ttl", "integer", "Links that the question crosses: 1 to 3 (default 3)."),
    Parameter::new(
        "timeout_ms",
        "integer",
        "How long to wait for answers, 100 to 30000 (default 5000); friends are asked for 10 s at most.",
    ),
];

pub(super) const TABLE: &[Endpoint] = &[
    get(Operation::Presence, "/presence", CATEGORY, json::<PresenceResponse>())
        .cli("presence list")
        .says("Ids of the agents that are there."),
    get(
        Operation::PresenceOnline,
        "/presence/online",
        CATEGORY,
        json::<DiscoveredAgentsResponse>(),
    )
    .cli("presence online")
    .says("The agents that are there, and where."),
    get(
        Operation::PresenceStatus,
        "/presence/status/{agent_id}",
        CATEGORY,
        json::<PresenceStatusResponse>(),
    )
    .cli("presence status")
    .says("Whether an agent is there, and when it was last seen."),
    get(
        Operation::PresenceFind,
        "/presence/find/{agent_id}",
        CATEGORY,
        json::<PresenceFindResponse>(),
    )
    .cli("presence find")
    .says("Looks for an agent by its id, then among friends of friends. Read `agent`.")
    .query(WALK),
    get(Operation::PresenceFoaf, "/presence/foaf", CATEGORY, json::<DiscoveredAgentsResponse>())
        .cli("presence foaf")
        .says("Agents that friends of friends see. Takes as long as `timeout_ms`.")
        .query(WALK),
    stream(
        Operation::PresenceEvents,
        "/presence/events",
        CATEGORY,
        Answer::Events(SchemaOf::new::<PresenceChange>()),
    )
    .cli("presence events")
    .says("Agents coming and going, as server-sent events; those that are there come first."),
];
