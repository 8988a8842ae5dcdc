//! `/network/status` and `/diagnostics/connectivity`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::MachineId;

use crate::{
    encoding::{Address, Hex64},
    flag::True,
};

/// Answer of `GET /network/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NetworkStatusResponse {
    /// Always true.
    pub ok: True,
    /// Where the QUIC endpoint listens; null when it has no address yet.
    #[schema(value_type = Option<Address>, required = true)]
    pub local_addr: Option<SocketAddr>,
    /// Addresses as peers see this machine, those that several networks agree on first.
    #[schema(value_type = Vec<Address>)]
    pub external_addrs: Vec<SocketAddr>,
    /// Kind of address translation in front of this machine: `None`, `FullCone` (it lets everybody in),
    /// `EndpointIndependent` (one address for all peers), `Symmetric` (another port for each), `Firewall` (none, but
    /// only answers get in), and `Unknown` until it is found out.
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
    /// Whether this machine relays for others now.
    pub is_relaying: bool,
    /// Pairs of machines whose sessions it relays now.
    pub relay_sessions: u64,
    /// Whether this machine coordinated hole punches for others.
    pub is_coordinating: bool,
    /// Punches that it brought about since the start.
    pub coordination_sessions: u64,
    /// Mean smoothed round-trip time of the sessions.
    pub avg_rtt_ms: u64,
    /// Whole seconds since the daemon started.
    pub uptime_secs: u64,
}

/// Answer of `GET /diagnostics/connectivity`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConnectivityResponse {
    /// Always true.
    pub ok: True,
    /// This machine's id.
    #[schema(value_type = Hex64)]
    pub peer_id: MachineId,
    /// Where the QUIC endpoint listens; null when it has no address yet.
    #[schema(value_type = Option<Address>, required = true)]
    pub local_addr: Option<SocketAddr>,
    /// Addresses as peers see this machine, those that several networks agree on first.
    #[schema(value_type = Vec<Address>)]
    pub external_addrs: Vec<SocketAddr>,
    /// Kind of address translation in front of this machine: `None`, `FullCone` (it lets everybody in),
    /// `EndpointIndependent` (one address for all peers), `Symmetric` (another port for each), `Firewall` (none, but
    /// only answers get in), and `Unknown` until it is found out.
    pub nat_type: String,
    /// Whether peers can dial this machine; null until one did.
    #[schema(required = true)]
    pub can_receive_direct: Option<bool>,
    /// From how far away peers have dialled it: `global`, `local` or `none`.
    pub direct_reachability_scope: String,
    /// Whether one of the addresses is globally routable.
    pub has_global_address: bool,
    /// What a gateway forwards.
    pub port_mapping: PortMapping,
    /// Discovery on the local network.
    pub mdns: LocalDiscovery,
    /// What this machine does for others.
    pub services: Services,
    /// Live sessions.
    pub connections: Connections,
    /// What it relays.
    pub relay: Relaying,
    /// What it coordinates.
    pub coordinator: Coordinating,
    /// Mean smoothed round-trip time of the sessions.
    pub avg_rtt_ms: u64,
    /// Whole seconds since the daemon started.
    pub uptime_s: u64,
    /// How this machine is reached, as far as its peers let it know.
    pub reach: Reach,
    /// What every session is protected with.
    pub crypto: Crypto,
}

/// How this machine is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reach {
    /// In short.
    pub class: ReachClass,
    /// Its addresses on the internet, the surest first.
    pub external: Vec<ExternalAddress>,
    /// How IPv4 ports are mapped.
    pub mapping_v4: Mapping,
    /// How IPv6 ports are mapped.
    pub mapping_v6: Mapping,
    /// Where others are told to dial this machine, best first.
    #[schema(value_type = Vec<Address>)]
    pub told: Vec<SocketAddr>,
}

/// An address of this machine as the internet sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExternalAddress {
    /// The address.
    #[schema(value_type = Address)]
    pub address: SocketAddr,
    /// Whether peers of two networks say so; one peer's word is a hint.
    pub confirmed: bool,
    /// How many networks say so.
    pub networks: u64,
}

/// How a machine can be reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReachClass {
    /// It is not known.
    #[default]
    Unknown,
    /// By a plain dial.
    Public,
    /// Behind an address translator, with the help of a common peer.
    Punchable,
    /// Through a relay only.
    RelayOnly,
}

/// How an address translator chooses ports (RFC 4787).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Mapping {
    /// Too few peers have said anything.
    #[default]
    Unknown,
    /// One port for all destinations.
    Independent,
    /// Another port for each destination.
    Dependent,
}

/// What every session is protected with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Crypto {
    /// The key exchange groups that are offered and accepted, preferred ones first.
    pub key_exchange_groups: Vec<String>,
    /// The signature schemes that are accepted.
    pub signature_schemes: Vec<String>,
}

/// What a gateway forwards to this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortMapping {
    /// Whether it does.
    pub active: bool,
    /// To which of its own addresses; null when it does not.
    #[schema(value_type = Option<Address>, required = true)]
    pub external_addr: Option<SocketAddr>,
}

/// Discovery on the local network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LocalDiscovery {
    /// Whether others are looked for.
    pub browsing: bool,
    /// Whether this machine is announced.
    pub advertising: bool,
    /// Machines found since the start.
    pub discovered_peers: u64,
}

/// What this machine does for others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Services {
    /// It relays packets of peers that cannot reach each other.
    pub relay_enabled: bool,
    /// It coordinates hole punches.
    pub coordinator_enabled: bool,
    /// Its role is that of a bootstrap node.
    pub bootstrap_enabled: bool,
}

/// Live sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Connections {
    /// Machines with one.
    pub connected_peers: u64,
    /// Sessions.
    pub active: u64,
    /// Of these on a direct path.
    pub direct: u64,
    /// In TCP streams, since UDP does not pass.
    pub streamed: u64,
    /// Through a relay.
    pub relayed: u64,
    /// Hole punches that were tried.
    pub hole_punches: u64,
    /// Share of hole punches that worked, 0 to 1.
    pub hole_punch_success_rate: f64,
}

/// What this machine relays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Relaying {
    /// Whether it relays for others now.
    pub is_relaying: bool,
    /// Pairs of machines whose sessions it relays now.
    pub sessions: u64,
    /// Bytes that it passed on.
    pub bytes_forwarded: u64,
}

/// What this machine coordinates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Coordinating {
    /// Whether it coordinated hole punches for others.
    pub is_coordinating: bool,
    /// Punches that it brought about since the start.
    pub sessions: u64,
}
