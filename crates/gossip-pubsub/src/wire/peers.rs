//! The search for subscribers of a topic that are no neighbours.

use std::net::SocketAddr;

use bytes::Bytes;
use prost::Message;
use x0x_core::{DecodeError, MAX_ADDRESSES, MachineId, PeerAddr, TopicId, fixed_bytes};

use crate::error::WireError;

use super::{FrameKind, copy, encode, topic_field, within};

/// Most peers in one answer.
pub const MAX_FOUND: usize = 8;

/// Most links that a search crosses.
pub(crate) const MAX_TTL: u32 = 3;

/// Longest socket address as text, IPv6 with scope and port.
const MAX_ADDRESS: usize = 64;

/// A search for subscribers.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FindPeersWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) topic: Bytes,
    /// Names the search on its way; drawn by who began it.
    #[prost(uint64, tag = "2")]
    pub(crate) id: u64,
    /// Links that it may still cross.
    #[prost(uint32, tag = "3")]
    pub(crate) ttl: u32,
}

/// Subscribers that were found; goes back the way that the search came.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PeersFoundWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) topic: Bytes,
    #[prost(uint64, tag = "2")]
    pub(crate) id: u64,
    #[prost(message, repeated, tag = "3")]
    pub(crate) peers: Vec<FoundPeerWire>,
}

/// A subscriber and where it listens.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FoundPeerWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) peer: Bytes,
    /// Socket addresses as text, separated by spaces.
    #[prost(string, tag = "2")]
    pub(crate) addresses: String,
}

/// A search for subscribers of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FindPeersIn {
    pub(crate) topic: TopicId,
    pub(crate) id: u64,
    pub(crate) ttl: u32,
}

/// Subscribers of a topic; at most [`MAX_FOUND`].
#[derive(Debug, Clone)]
pub struct PeersFoundIn {
    pub(crate) topic: TopicId,
    pub(crate) id: u64,
    pub(crate) peers: Vec<PeerAddr>,
}

impl FindPeersIn {
    pub(super) fn from_wire(wire: &FindPeersWire) -> Result<Self, WireError> {
        Ok(Self { topic: topic_field(&wire.topic)?, id: wire.id, ttl: wire.ttl.min(MAX_TTL) })
    }

    pub(crate) fn encode(&self) -> Bytes {
        let topic = copy(self.topic.as_bytes());
        encode(FrameKind::FindPeers(FindPeersWire { topic, id: self.id, ttl: self.ttl }))
    }
}

impl PeersFoundIn {
    pub(super) fn from_wire(wire: &PeersFoundWire) -> Result<Self, WireError> {
        let peers = wire.peers.iter().map(peer_field).collect::<Result<_, _>>()?;
        Ok(Self { topic: topic_field(&wire.topic)?, id: wire.id, peers })
    }

    pub(crate) fn encode(&self) -> Bytes {
        let peers = self.peers.iter().filter_map(|peer| {
            let addresses: Vec<String> = peer.addresses.iter().map(SocketAddr::to_string).collect();
            let id = peer.id?;
            Some(FoundPeerWire { peer: copy(id.as_bytes()), addresses: addresses.join(" ") })
        });
        encode(FrameKind::PeersFound(PeersFoundWire {
            topic: copy(self.topic.as_bytes()),
            id: self.id,
            peers: peers.collect(),
        }))
    }
}

fn peer_field(wire: &FoundPeerWire) -> Result<PeerAddr, WireError> {
    within("addresses", wire.addresses.len(), MAX_ADDRESSES * MAX_ADDRESS)?;
    let peer = MachineId::new(fixed_bytes(&wire.peer, "peer")?);
    let addresses = wire.addresses.split_ascii_whitespace().take(MAX_ADDRESSES);
    let addresses: Vec<SocketAddr> = addresses
        .map(|address| address.parse().map_err(|_| DecodeError::Field("addresses")))
        .collect::<Result<_, _>>()?;
    Ok(PeerAddr::known(peer, addresses))
}
