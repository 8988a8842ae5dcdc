//! Messages of `/x0x/membership/1`, as `docs/protocol/membership.proto` has them.
//!
//! Bytes decode into a [`MessageIn`], which is bounded but not trusted; [`MessageIn::verify`] gives
//! the [`Message`] that the machine accepts. No message names its sender: the session does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use prost::Message as _;
use x0x_core::{DecodeError, MAX_ADDRESSES, MachineId, decode_bounded, fixed_bytes};
use x0x_transport::{ReachClass, SignedRecord, record::MAX_RECORD};

use crate::{
    config::{MAX_SHUFFLE_ENTRIES, MAX_WALK},
    peer::{Hint, Peer},
};

/// Largest message in bytes: one with a signed record. A shuffle of [`MAX_SHUFFLE_ENTRIES`] peers with
/// [`MAX_ADDRESSES`] IPv6 addresses each takes about 3.6 KB.
pub const MAX_MESSAGE: usize = MAX_RECORD + 16;

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
        /// In answer to a join or an urgent request: at most [`MAX_SHUFFLE_ENTRIES`] peers to go on
        /// with.
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
    /// Asks whether the receiver is there.
    Ping {
        /// The answer carries it back.
        nonce: u64,
        /// The incarnation of the receiver that is suspected to have failed, if one is.
        suspected: Option<u64>,
        /// Whether the answer should say whom the receiver knows.
        sample: bool,
    },
    /// Answers a ping.
    Ack {
        /// As in the ping.
        nonce: u64,
        /// The sender's incarnation, later than one that was suspected. The upper 32 bits are those of
        /// its run.
        incarnation: u64,
        /// If the ping asked for it: at most [`MAX_SHUFFLE_ENTRIES`] peers.
        entries: Vec<Peer>,
    },
    /// Asks a neighbour to ping another one.
    PingRequest {
        /// The report carries it back.
        nonce: u64,
        /// Whom to ping.
        target: MachineId,
        /// As in the ping.
        suspected: Option<u64>,
    },
    /// Answers a ping request.
    PingReport {
        /// As in the request.
        nonce: u64,
        /// What came of it.
        outcome: Outcome,
    },
    /// The sender's own record, whose signature holds.
    Record(SignedRecord),
}

/// What a neighbour finds out about another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It has no link with that one, or too much to do.
    Unknown,
    /// No answer came in time.
    Silent,
    /// It answered, and this is its incarnation.
    Alive(u64),
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
            Self::Ping { nonce, suspected, sample } => {
                Body::Ping(PingWire { nonce: *nonce, suspected: *suspected, sample: *sample })
            }
            Self::Ack { nonce, incarnation, entries } => Body::Ack(AckWire {
                nonce: *nonce,
                incarnation: *incarnation,
                entries: entries.iter().map(PeerWire::from).collect(),
            }),
            Self::PingRequest { nonce, target, suspected } => {
                let (nonce, target) = (*nonce, target.as_bytes().to_vec());
                Body::PingRequest(PingRequestWire { nonce, target, suspected: *suspected })
            }
            Self::PingReport { nonce, outcome } => {
                Body::PingReport(PingReportWire::new(*nonce, *outcome))
            }
            Self::Record(record) => Body::Record(record.encode()),
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

    /// Whether it holds a record, whose signature is costly to check.
    #[must_use]
    pub const fn has_record(&self) -> bool {
        matches!(self.0.body, Some(Body::Record(_)))
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
            Body::Ping(PingWire { nonce, suspected, sample }) => {
                Message::Ping { nonce, suspected, sample }
            }
            Body::Ack(wire) => Message::Ack {
                nonce: wire.nonce,
                incarnation: wire.incarnation,
                entries: list(wire.entries)?,
            },
            Body::PingRequest(PingRequestWire { nonce, target, suspected }) => {
                let target = MachineId::new(fixed_bytes(&target, "target")?);
                Message::PingRequest { nonce, target, suspected }
            }
            Body::PingReport(wire) => {
                Message::PingReport { nonce: wire.nonce, outcome: wire.outcome()? }
            }
            Body::Record(bytes) => {
                let record = SignedRecord::decode(&bytes)?.verify();
                Message::Record(record.map_err(|_| DecodeError::Field("record"))?)
            }
        };
        Ok(Verified { message, refused_entries })
    }
}

fn walk(ttl: u32) -> u8 {
    u8::try_from(ttl).unwrap_or(MAX_WALK).min(MAX_WALK)
}

#[derive(Clone, PartialEq, prost::Message)]
struct FrameWire {
    #[prost(oneof = "Body", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12")]
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
    #[prost(message, tag = "8")]
    Ping(PingWire),
    #[prost(message, tag = "9")]
    Ack(AckWire),
    #[prost(message, tag = "10")]
    PingRequest(PingRequestWire),
    #[prost(message, tag = "11")]
    PingReport(PingReportWire),
    #[prost(bytes = "bytes", tag = "12")]
    Record(Bytes),
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
struct PingWire {
    #[prost(uint64, tag = "1")]
    nonce: u64,
    #[prost(uint64, optional, tag = "2")]
    suspected: Option<u64>,
    #[prost(bool, tag = "3")]
    sample: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AckWire {
    #[prost(uint64, tag = "1")]
    nonce: u64,
    #[prost(uint64, tag = "2")]
    incarnation: u64,
    #[prost(message, repeated, tag = "3")]
    entries: Vec<PeerWire>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PingRequestWire {
    #[prost(uint64, tag = "1")]
    nonce: u64,
    #[prost(bytes = "vec", tag = "2")]
    target: Vec<u8>,
    #[prost(uint64, optional, tag = "3")]
    suspected: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PingReportWire {
    #[prost(uint64, tag = "1")]
    nonce: u64,
    /// 0 unknown, 1 silent, 2 alive.
    #[prost(uint32, tag = "2")]
    outcome: u32,
    /// Of the one that is alive.
    #[prost(uint64, tag = "3")]
    incarnation: u64,
}

impl PingReportWire {
    const fn new(nonce: u64, outcome: Outcome) -> Self {
        let (outcome, incarnation) = match outcome {
            Outcome::Unknown => (0, 0),
            Outcome::Silent => (1, 0),
            Outcome::Alive(incarnation) => (2, incarnation),
        };
        Self { nonce, outcome, incarnation }
    }

    const fn outcome(&self) -> Result<Outcome, DecodeError> {
        match self.outcome {
            0 => Ok(Outcome::Unknown),
            1 => Ok(Outcome::Silent),
            2 => Ok(Outcome::Alive(self.incarnation)),
            _ => Err(DecodeError::Field("outcome")),
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct PeerWire {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    /// IPv4 or IPv6 address and port, both in network byte order: 6 or 18 bytes.
    #[prost(bytes = "vec", repeated, tag = "2")]
    addresses: Vec<Vec<u8>>,
    #[prost(uint32, tag = "3")]
    reach: u32,
    #[prost(bytes = "vec", tag = "4")]
    record: Vec<u8>,
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
            reach: peer.hint().reach.number(),
            record: peer.hint().record.map(Vec::from).unwrap_or_default(),
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
        let record = match self.record.as_slice() {
            [] => None,
            hash => Some(fixed_bytes(hash, "record")?),
        };
        let hint = Hint::new(ReachClass::from_number(self.reach), record);
        Ok(Peer::new(id, addresses).with_hint(hint))
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
