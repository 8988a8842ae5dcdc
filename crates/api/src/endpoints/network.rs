//! Rows of sessions and gossip.

use super::row::{get, json, post, stream};
use crate::{
    endpoint::{Answer, Endpoint, Parameter, SchemaOf},
    event::PeerChange,
    operation::Operation,
    types::{
        BootstrapCacheResponse, ConnectivityResponse, GossipDiagnosticsResponse,
        GroupDiagnosticsResponse, NetworkStatusResponse, PeerHealthResponse, PeersResponse,
        ProbeResponse,
    },
};

const CATEGORY: &str = "Network";

pub(super) const TABLE: &[Endpoint] = &[
    get(Operation::Peers, "/peers", CATEGORY, json::<PeersResponse>())
        .cli("peers")
        .says("Machines with a live session, and the path that it takes."),
    get(Operation::PeerHealth, "/peers/{peer_id}/health", CATEGORY, json::<PeerHealthResponse>())
        .cli("peers health")
        .says("The session with a machine: its path, and how it is protected."),
    post(Operation::ProbePeer, "/peers/{peer_id}/probe", CATEGORY, json::<ProbeResponse>())
        .cli("peers probe")
        .says("Measures the round trip to a machine over its session; 503 when no answer comes.")
        .query(&[Parameter::new(
            "timeout_ms",
            "integer",
            "How long to wait for the answer, 100 to 30000 (default 2000).",
        )]),
    stream(
        Operation::PeerEvents,
        "/peers/events",
        CATEGORY,
        Answer::Events(SchemaOf::new::<PeerChange>()),
    )
    .cli("peers events")
    .says("Sessions that begin and end, as server-sent events; those that are live come first."),
    get(Operation::NetworkStatus, "/network/status", CATEGORY, json::<NetworkStatusResponse>())
        .cli("network status")
        .says("Addresses, sessions and round-trip time."),
    get(
        Operation::BootstrapCache,
        "/network/bootstrap-cache",
        CATEGORY,
        json::<BootstrapCacheResponse>(),
    )
    .cli("network cache")
    .says(
        "Machines that are remembered over a restart, in the order in which they would be dialled.",
    ),
    get(
        Operation::Connectivity,
        "/diagnostics/connectivity",
        CATEGORY,
        json::<ConnectivityResponse>(),
    )
    .cli("diagnostics connectivity")
    .says("How this machine is reached, and what it does for others."),
    get(
        Operation::GossipDiagnostics,
        "/diagnostics/gossip",
        CATEGORY,
        json::<GossipDiagnosticsResponse>(),
    )
    .cli("diagnostics gossip")
    .says("Neighbours, links and topics, and how messages spread over them."),
    get(
        Operation::GroupDiagnostics,
        "/diagnostics/groups",
        CATEGORY,
        json::<GroupDiagnosticsResponse>(),
    )
    .cli("diagnostics groups")
    .says(
        "What came in each group's log, what of it was refused, and whether this agent is behind.",
    ),
];
