//! Rows of sessions and gossip.

use super::row::{get, json};
use crate::{
    endpoint::Endpoint,
    operation::Operation,
    types::{GossipDiagnosticsResponse, NetworkStatusResponse, PeersResponse},
};

const CATEGORY: &str = "Network";

pub(super) const TABLE: &[Endpoint] = &[
    get(Operation::Peers, "/peers", CATEGORY, json::<PeersResponse>())
        .cli("peers")
        .says("Machines with a live session."),
    get(Operation::NetworkStatus, "/network/status", CATEGORY, json::<NetworkStatusResponse>())
        .cli("network status")
        .says("Addresses, sessions and round-trip time."),
    get(
        Operation::GossipDiagnostics,
        "/diagnostics/gossip",
        CATEGORY,
        json::<GossipDiagnosticsResponse>(),
    )
    .cli("diagnostics gossip")
    .says("Neighbours, links and topics, and how messages spread over them."),
];
