//! `/peers` and `/network/bootstrap-cache`.

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
    /// The session with it.
    #[serde(flatten)]
    pub session: PeerSession,
}

/// A session and the path that its packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerSession {
    /// What the packets go over now.
    pub path: PathKind,
    /// The machine that relays them; null on a direct path.
    #[schema(value_type = Option<Hex64>, required = true)]
    pub via: Option<MachineId>,
    /// Where they come from.
    #[schema(value_type = Address)]
    pub address: SocketAddr,
    /// Who opened it.
    pub opened_by: OpenedBy,
    /// Smoothed round-trip time of the path in microseconds.
    pub rtt_us: u64,
    /// Counts this daemon's sessions: a later one with the same machine has a greater number.
    pub generation: u64,
}

/// What the packets of a session go over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PathKind {
    /// From machine to machine, whatever address translators are between them.
    Direct,
    /// In a TCP stream to that machine, where packets of their own do not pass.
    Stream,
    /// By way of another machine, which sees ciphertext alone.
    Relayed,
}

/// Who opened a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OpenedBy {
    /// This machine dialled.
    Us,
    /// The peer did.
    Peer,
}

/// Answer of `GET /peers/{peer_id}/health`. The status is 200 also for machines without a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerHealthResponse {
    /// Always true.
    pub ok: True,
    /// The machine.
    #[schema(value_type = Hex64)]
    pub peer_id: MachineId,
    /// `connected` or `not connected`.
    pub health: String,
    /// The session with it.
    pub snapshot: PeerSnapshot,
}

/// A session as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerSnapshot {
    /// Whether there is one.
    pub connected: bool,
    /// Its number; null without a session.
    #[schema(required = true)]
    pub generation: Option<u64>,
    /// Whether what comes is read; as long as there is a session.
    pub reader_task_active: bool,
    /// Packets that came over it so far; null without a session.
    #[schema(required = true)]
    pub packets_received: Option<u64>,
    /// The path; null without a session.
    #[schema(required = true)]
    pub session: Option<PeerSession>,
    /// The post-quantum key exchange groups that this daemon accepts, one of which the session uses.
    pub key_exchange_groups: Vec<String>,
    /// The signature scheme with which both machines prove themselves. There is no other.
    pub signature_scheme: String,
}

/// Answer of `POST /peers/{peer_id}/probe`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProbeResponse {
    /// Always true.
    pub ok: True,
    /// The round trip over the session and back, in whole milliseconds.
    pub rtt_ms: u64,
    /// The same in microseconds.
    pub rtt_us: u64,
    /// How long an answer was waited for at most.
    pub timeout_ms: u64,
}

/// Answer of `GET /network/bootstrap-cache`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BootstrapCacheResponse {
    /// Always true.
    pub ok: True,
    /// Live sessions.
    pub connection_count: u64,
    /// The machines with one.
    #[schema(value_type = Vec<Hex64>)]
    pub connected_peers: Vec<MachineId>,
    /// The machines that are remembered over a restart, in the order in which they would be dialled.
    pub cached_peers: Vec<CachedPeer>,
}

/// A machine that is remembered over a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CachedPeer {
    /// The machine's id.
    #[schema(value_type = Hex64)]
    pub peer_id: MachineId,
    /// Where it may be dialled.
    #[schema(value_type = Vec<Address>)]
    pub addresses: Vec<SocketAddr>,
    /// When it was met last, in Unix seconds.
    pub last_seen: u64,
    /// Whether this machine found it; else it only ever came by itself.
    pub dialled: bool,
    /// Whether it is a neighbour of long standing, dialled first.
    pub anchor: bool,
    /// Dials that failed since it was met. From five on it is dialled after the others.
    pub failures: u32,
}
