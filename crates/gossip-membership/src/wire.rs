//! Messages of `/x0x/membership/1`, as `docs/protocol/membership.proto` has them.
//!
//! Bytes decode into a [`MessageIn`], which is bounded but not trusted; [`MessageIn::verify`] gives
//! the [`Message`] that the machine accepts. No message names its sender: the session does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use prost::Message as _;
use x0x_core::{DecodeError, MAX_ADDRESSES, MachineId, decode_bounded, fixed_bytes};

use crate::{
    config::{MAX_SHUFFLE_ENTRIES, MAX_WALK},
    peer::Peer,
};

/// Largest message in bytes. A shuffle of [`MAX_SHUFFLE_ENTRIES`] peers with [`MAX_ADDRESSES`] IPv6
/// addresses each takes about 3.2 KB.
pub const MAX_MESSAGE: usize = 4096;

/// A membership message that passed every check which needs no state.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Message {
    /// A newcomer asks its contact for a place in the overlay.
    Join,
    /// A newcomer is walked through the overlay.
    ForwardJoin {
        /// Hops left, at most [`MAX_WALK`].
        ttl: u8,
        /// The newcomer.
        joiner: Peer,
    },
    /// Asks for an active link.
    Neighbor {
        /// A high-priority request is granted even at the cost of another neighbour.
        high: bool,
    },
    /// Answers [`Message::Neighbor`] and [`Message::Join`].
    NeighborReply {
        /// Whether the sender has taken the receiver into its active view.
        accept: bool,
        /// In answer to a join: at most [`MAX_SHUFFLE_ENTRIES`] peers to go on with.
        entries: Vec<Peer>,
    },
    /// Offers a sample of peers to a random node some hops away.
    Shuffle {
        /// Names the exchange on this link; the reply carries it back.
        id: u64,
        /// Hops left, at most [`MAX_WALK`].
        ttl: u8,
        /// At most [`MAX_SHUFFLE_ENTRIES`] peers, the origin first.
        entries: Vec<Peer>,
    },
    /// Answers a shuffle, hop by hop along the path it came.
    ShuffleReply {
        /// The exchange on this link.
        id: u64,
        /// At most [`MAX_SHUFFLE_ENTRIES`] peers.
        entries: Vec<Peer>,
    },
    /// Ends an active link; the session may stay.
    Disconnect {
        /// False when the machine is going away.
        alive: bool,
    },
}

impl Message {
    /// The message as bytes, at most [`MAX_MESSAGE`].
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let body = match self {
            Self::Join => Body::Join(JoinWire {}),
            Self::ForwardJoin { ttl, joiner } => Body::ForwardJoin(ForwardJoinWire {
                ttl: u32::from(*ttl),
                joiner: Some(PeerWire::from(joiner)),
            }),
            Self::Neighbor { high } => Body::Neighbor(NeighborWire { high: *high }),
            Self::NeighborReply { accept, entries } => Body::NeighborReply(NeighborReplyWire {
                accept: *accept,
                entries: entries.iter().map(PeerWire::from).collect(),
            }),
            Self::Shuffle { id, ttl, entries } => Body::Shuffle(ShuffleWire {
                id: *id,
                ttl: u32::from(*ttl),
                entries: entries.iter().map(PeerWire::from).collect(),
            }),
            Self::ShuffleReply { id, entries } => Body::ShuffleReply(ShuffleReplyWire {
                id: *id,
                entries: entries.iter().map(PeerWire::from).collect(),
            }),
            Self::Disconnect { alive } => Body::Disconnect(DisconnectWire { alive: *alive }),
        };
        FrameWire { body: Some(body) }.encode_to_vec().into()
    }
}

/// A message as it arrived: of bounded size and well-formed, nothing more.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageIn(FrameWire);

/// A message that may be handed to the machine, and what was cut from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The message.
    pub message: Message,
    /// Peer entries left out, because they name the receiver or hold no usable address.
    pub refused_entries: u64,
}

impl MessageIn {
    /// Parses at most [`MAX_MESSAGE`] bytes.
    ///
    /// # Errors
    /// [`DecodeError`]: too large, or not this protobuf message. The peer's fault.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_bounded(bytes, MAX_MESSAGE).map(Self)
    }

    /// Checks every field. Entries that are no use to `local` are left out; a walk that is too long
    /// is cut.
    ///
    /// # Errors
    /// [`DecodeError::Field`] when a field is missing, of the wrong length or too long, or the kind
    /// of message is not known to this version. The peer's fault, unless it is newer.
    pub fn verify(self, local: MachineId) -> Result<Verified, DecodeError> {
        let mut refused_entries = 0;
        let mut list = |entries: Vec<PeerWire>| {
            if entries.len() > MAX_SHUFFLE_ENTRIES {
                return Err(DecodeError::Field("entries"));
            }
            let given = entries.len();
            let mut kept = Vec::with_capacity(given);
            for entry in entries {
                let peer = entry.verify()?;
                if peer.is_dialable() && peer.id() != local {
                    kept.push(peer);
                }
            }
            refused_entries += (given - kept.len()) as u64;
            Ok(kept)
        };
        let message = match self.0.body.ok_or(DecodeError::Field("body"))? {
            Body::Join(JoinWire {}) => Message::Join,
            Body::ForwardJoin(wire) => {
                let joiner = wire.joiner.ok_or(DecodeError::Field("joiner"))?;
                let joiner = list(vec![joiner])?.pop().ok_or(DecodeError::Field("joiner"))?;
                Message::ForwardJoin { ttl: walk(wire.ttl), joiner }
            }
            Body::Neighbor(wire) => Message::Neighbor { high: wire.high },
            Body::NeighborReply(wire) => {
                Message::NeighborReply { accept: wire.accept, entries: list(wire.entries)? }
            }
            Body::Shuffle(wire) => {
                Message::Shuffle { id: wire.id, ttl: walk(wire.ttl), entries: list(wire.entries)? }
            }
            Body::ShuffleReply(wire) => {
                Message::ShuffleReply { id: wire.id, entries: list(wire.entries)? }
            }
            Body::Disconnect(wire) => Message::Disconnect { alive: wire.alive },
        };
        Ok(Verified { message, refused_entries })
    }
}

fn walk(ttl: u32) -> u8 {
    u8::try_from(ttl).unwrap_or(MAX_WALK).min(MAX_WALK)
}

#[derive(Clone, PartialEq, prost::Message)]
struct FrameWire {
    #[prost(oneof = "Body", tags = "1, 2, 3, 4, 5, 6, 7")]
    body: Option<Body>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Body {
    #[prost(message, tag = "1")]
    Join(JoinWire),
    #[prost(message, tag = "2")]
    ForwardJoin(ForwardJoinWire),
    #[prost(message, tag = "3")]
    Neighbor(NeighborWire),
    #[prost(message, tag = "4")]
    NeighborReply(NeighborReplyWire),
    #[prost(message, tag = "5")]
    Shuffle(ShuffleWire),
    #[prost(message, tag = "6")]
    ShuffleReply(ShuffleReplyWire),
    #[prost(message, tag = "7")]
    Disconnect(DisconnectWire),
}

#[derive(Clone, PartialEq, prost::Message)]
struct JoinWire {}

#[derive(Clone, PartialEq, prost::Message)]
struct ForwardJoinWire {
    #[prost(uint32, tag = "1")]
    ttl: u32,
    #[prost(message, optional, tag = "2")]
    joiner: Option<PeerWire>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NeighborWire {
    #[prost(bool, tag = "1")]
    high: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NeighborReplyWire {
    #[prost(bool, tag = "1")]
    accept: bool,
    #[prost(message, repeated, tag = "2")]
    entries: Vec<PeerWire>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ShuffleWire {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint32, tag = "2")]
    ttl: u32,
    #[prost(message, repeated, tag = "3")]
    entries: Vec<PeerWire>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ShuffleReplyWire {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "2")]
    entries: Vec<PeerWire>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DisconnectWire {
    #[prost(bool, tag = "1")]
    alive: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PeerWire {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    /// IPv4 or IPv6 address and port, both in network byte order: 6 or 18 bytes.
    #[prost(bytes = "vec", repeated, tag = "2")]
    addresses: Vec<Vec<u8>>,
}

impl From<&Peer> for PeerWire {
    fn from(peer: &Peer) -> Self {
        let address = |address: &SocketAddr| {
            let mut bytes = match address.ip() {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            bytes.extend(address.port().to_be_bytes());
            bytes
        };
        Self {
            id: peer.id().as_bytes().to_vec(),
            addresses: peer.addresses().iter().map(address).collect(),
        }
    }
}

impl PeerWire {
    fn verify(self) -> Result<Peer, DecodeError> {
        let id = MachineId::new(fixed_bytes(&self.id, "id")?);
        if self.addresses.len() > MAX_ADDRESSES {
            return Err(DecodeError::Field("addresses"));
        }
        let addresses: Vec<SocketAddr> =
            self.addresses.iter().map(|bytes| address(bytes)).collect::<Result<_, _>>()?;
        Ok(Peer::new(id, addresses))
    }
}

fn address(bytes: &[u8]) -> Result<SocketAddr, DecodeError> {
    const MALFORMED: DecodeError = DecodeError::Field("address");
    let (ip, port) = bytes.split_last_chunk::<2>().ok_or(MALFORMED)?;
    let ip: IpAddr = if let Ok(octets) = <[u8; 4]>::try_from(ip) {
        Ipv4Addr::from(octets).into()
    } else {
        Ipv6Addr::from(<[u8; 16]>::try_from(ip).map_err(|_| MALFORMED)?).into()
    };
    Ok(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}
