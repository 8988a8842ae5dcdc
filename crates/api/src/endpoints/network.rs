//! Rows of sessions and gossip.

use super::row::{get, json, stream};
use crate::{
    endpoint::{Answer, Endpoint, SchemaOf},
    event::PeerChange,
    operation::Operation,
    types::{
        ConnectivityResponse, GossipDiagnosticsResponse, NetworkStatusResponse, PeersResponse,
    },
};

const CATEGORY: &str = "Network";

pub(super) const TABLE: &[Endpoint] = &[
    get(Operation::Peers, "/peers", CATEGORY, json::<PeersResponse>())
        .cli("peers")
        .says("Machines with a live session."),
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
];
