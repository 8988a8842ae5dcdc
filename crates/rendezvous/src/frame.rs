//! Frames of `/x0x/rendezvous/1` and their limits; `docs/protocol/rendezvous.md` describes the exchange.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use x0x_core::{DecodeError, MachineId, decode_bounded, fixed_bytes};

use crate::{
    key::{LookupKey, SEAL_OVERHEAD},
    record::{MAX_RECORD, pack, unpack},
};

/// Largest frame in bytes.
pub const MAX_FRAME: usize = 64 * 1024;
/// Largest sealed record in bytes.
pub const MAX_SEALED: usize = MAX_RECORD + SEAL_OVERHEAD;
/// Most records in one answer.
pub const MAX_FOUND: usize = 8;
/// Most other holders that one answer names, and most addresses of each.
pub const MAX_REFERRALS: usize = 8;
/// See [`MAX_REFERRALS`].
pub const MAX_REFERRED: usize = 2;
/// Most links that a lookup crosses.
pub const MAX_HOPS: u32 = 3;

mod proto {
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Frame {
        #[prost(oneof = "Kind", tags = "1, 2, 3, 4")]
        pub(super) kind: Option<Kind>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Kind {
        #[prost(message, tag = "1")]
        Lookup(Lookup),
        #[prost(message, tag = "2")]
        Found(Found),
        #[prost(message, tag = "3")]
        Store(Store),
        #[prost(message, tag = "4")]
        Stored(Stored),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Lookup {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) key: Bytes,
        #[prost(uint64, tag = "2")]
        pub(super) id: u64,
        #[prost(uint32, tag = "3")]
        pub(super) hops: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Found {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) key: Bytes,
        #[prost(uint64, tag = "2")]
        pub(super) id: u64,
        #[prost(bytes = "bytes", repeated, tag = "3")]
        pub(super) sealed: Vec<Bytes>,
        #[prost(message, repeated, tag = "4")]
        pub(super) referrals: Vec<Referral>,
        #[prost(bool, tag = "5")]
        pub(super) holds: bool,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Referral {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) machine_id: Bytes,
        #[prost(bytes = "vec", repeated, tag = "2")]
        pub(super) addresses: Vec<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Store {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) key: Bytes,
        #[prost(bool, tag = "2")]
        pub(super) topic: bool,
        #[prost(bytes = "bytes", tag = "3")]
        pub(super) sealed: Bytes,
        #[prost(uint32, tag = "4")]
        pub(super) lifetime_s: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Stored {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) key: Bytes,
        #[prost(bool, tag = "2")]
        pub(super) kept: bool,
    }
}

use proto::Kind;

/// A machine that may hold more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referral {
    /// Which.
    pub machine: MachineId,
    /// Where it may be reached; at most [`MAX_REFERRED`].
    pub addresses: Vec<SocketAddr>,
}

/// What nodes say to each other. Records are sealed and referrals hearsay: whoever uses them checks
/// them, so that a received frame needs no form of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// Who knows a record of this key?
    Lookup {
        /// The key.
        key: LookupKey,
        /// Names the question on its way.
        id: u64,
        /// Links that it may cross, this one included.
        hops: u32,
    },
    /// The answer, back over the link that the question came by.
    Found {
        /// The key.
        key: LookupKey,
        /// Of the question.
        id: u64,
        /// Records; at most [`MAX_FOUND`].
        sealed: Vec<Bytes>,
        /// Who suits the key better; at most [`MAX_REFERRALS`].
        referrals: Vec<Referral>,
        /// Whether the sender itself keeps records for others.
        holds: bool,
    },
    /// Please keep this record.
    Store {
        /// The key.
        key: LookupKey,
        /// Whether it is a topic's, as [`LookupKey::is_topic`] says: an agent's must be of an agent that
        /// the sender proved.
        topic: bool,
        /// The record; at most [`MAX_SEALED`] bytes.
        sealed: Bytes,
        /// For how long.
        lifetime: Duration,
    },
    /// Whether it is kept.
    Stored {
        /// The key.
        key: LookupKey,
        /// Whether it is.
        kept: bool,
    },
    /// A kind that this version does not know.
    Unknown,
}

impl Frame {
    /// The wire form, at most [`MAX_FRAME`] bytes within the limits of each kind.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let bytes = |key: &LookupKey| Bytes::copy_from_slice(key.as_bytes());
        let kind = match self {
            Self::Lookup { key, id, hops } => {
                Some(Kind::Lookup(proto::Lookup { key: bytes(key), id: *id, hops: *hops }))
            }
            Self::Found { key, id, sealed, referrals, holds } => {
                let referral = |referral: &Referral| proto::Referral {
                    machine_id: Bytes::copy_from_slice(referral.machine.as_bytes()),
                    addresses: referral.addresses.iter().copied().map(pack).collect(),
                };
                Some(Kind::Found(proto::Found {
                    key: bytes(key),
                    id: *id,
                    sealed: sealed.clone(),
                    referrals: referrals.iter().map(referral).collect(),
                    holds: *holds,
                }))
            }
            Self::Store { key, topic, sealed, lifetime } => Some(Kind::Store(proto::Store {
                key: bytes(key),
                topic: *topic,
                sealed: sealed.clone(),
                lifetime_s: u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX),
            })),
            Self::Stored { key, kept } => {
                Some(Kind::Stored(proto::Stored { key: bytes(key), kept: *kept }))
            }
            Self::Unknown => None,
        };
        proto::Frame { kind }.encode_to_vec().into()
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or a field is out of range.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let frame: proto::Frame = decode_bounded(bytes.clone(), MAX_FRAME)?;
        let key = |bytes: &Bytes| Ok::<_, DecodeError>(LookupKey::new(fixed_bytes(bytes, "key")?));
        Ok(match frame.kind {
            None => Self::Unknown,
            Some(Kind::Lookup(lookup)) => {
                if !(1..=MAX_HOPS).contains(&lookup.hops) {
                    return Err(DecodeError::Field("hops"));
                }
                Self::Lookup { key: key(&lookup.key)?, id: lookup.id, hops: lookup.hops }
            }
            Some(Kind::Found(found)) => {
                if found.sealed.len() > MAX_FOUND
                    || found.sealed.iter().any(|sealed| sealed.len() > MAX_SEALED)
                {
                    return Err(DecodeError::Field("sealed"));
                }
                if found.referrals.len() > MAX_REFERRALS {
                    return Err(DecodeError::Field("referrals"));
                }
                let referrals = found.referrals.iter().map(decode_referral);
                Self::Found {
                    key: key(&found.key)?,
                    id: found.id,
                    sealed: found.sealed,
                    referrals: referrals.collect::<Result<_, _>>()?,
                    holds: found.holds,
                }
            }
            Some(Kind::Store(store)) => {
                if store.sealed.len() > MAX_SEALED {
                    return Err(DecodeError::Field("sealed"));
                }
                Self::Store {
                    key: key(&store.key)?,
                    topic: store.topic,
                    // Kept for long: its frame must not be.
                    sealed: Bytes::copy_from_slice(&store.sealed),
                    lifetime: Duration::from_secs(store.lifetime_s.into()),
                }
            }
            Some(Kind::Stored(stored)) => {
                Self::Stored { key: key(&stored.key)?, kept: stored.kept }
            }
        })
    }
}

fn decode_referral(referral: &proto::Referral) -> Result<Referral, DecodeError> {
    if referral.addresses.len() > MAX_REFERRED {
        return Err(DecodeError::Field("addresses"));
    }
    let addresses = referral.addresses.iter().map(|packed| unpack(packed));
    Ok(Referral {
        machine: MachineId::new(fixed_bytes(&referral.machine_id, "machine_id")?),
        addresses: addresses.collect::<Result<_, _>>()?,
    })
}
