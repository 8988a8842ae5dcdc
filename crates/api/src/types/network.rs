//! `/peers` and `/network/status`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::MachineId;

use crate::{
    encoding::{Address, Hex64},
    flag::True,
};

/// Answer of `GET /peers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeersResponse {
    /// Always true.
    pub ok: True,
    /// One entry for each live QUIC session.
    pub peers: Vec<Peer>,
}

/// A machine with a live session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// The machine's id.
    #[schema(value_type = Hex64)]
    pub id: MachineId,
}

/// Answer of `GET /network/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NetworkStatusResponse {
    /// Always true.
    pub ok: True,
    /// Where the QUIC endpoint listens; null when it has no address yet.
    #[schema(value_type = Option<Address>, required = true)]
    pub local_addr: Option<SocketAddr>,
    /// Addresses as peers see this machine.
    #[schema(value_type = Vec<Address>)]
    pub external_addrs: Vec<SocketAddr>,
    /// Kind of address translation in front of this machine, `Unknown` until it is found out.
    pub nat_type: String,
    /// Whether one of the addresses is globally routable.
    pub has_global_address: bool,
    /// Whether peers can dial this machine; null until one did.
    #[schema(required = true)]
    pub can_receive_direct: Option<bool>,
    /// Live sessions.
    pub connected_peers: u64,
    /// Live sessions on a direct path.
    pub direct_connections: u64,
    /// Live sessions through a relay.
    pub relayed_connections: u64,
    /// Share of hole punches that worked, 0 to 1.
    pub hole_punch_success_rate: f64,
    /// Whether this machine relays for others.
    pub is_relaying: bool,
    /// Sessions that it relays.
    pub relay_sessions: u64,
    /// Whether this machine coordinates hole punches for others.
    pub is_coordinating: bool,
    /// Punches that it coordinates now.
    pub coordination_sessions: u64,
    /// Mean smoothed round-trip time of the sessions.
    pub avg_rtt_ms: u64,
    /// Whole seconds since the daemon started.
    pub uptime_secs: u64,
}
