//! Which topics a peer subscribes, and what it has of them.

use bytes::Bytes;
use prost::Message;
use x0x_core::{AgentId, DecodeError, TopicId};

use crate::{config::MAX_HEADS, error::WireError};

use super::{author_field, check_count, copy, topic_field};

/// Which topics the sender subscribes.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SubscriptionsWire {
    /// Forget all earlier subscriptions of this link first.
    #[prost(bool, tag = "1")]
    pub(crate) set: bool,
    /// Encoded [`TopicHeadsWire`]s.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(crate) add: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub(crate) remove: Vec<Bytes>,
    /// The sender did not hear the receiver's subscriptions and needs all of them.
    #[prost(bool, tag = "4")]
    pub(crate) again: bool,
    /// The session is no gossip link for the sender any more.
    #[prost(bool, tag = "5")]
    pub(crate) leave: bool,
}

/// A subscribed topic and what the sender has of it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TopicHeadsWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) topic: Bytes,
    #[prost(message, repeated, tag = "2")]
    pub(crate) heads: Vec<HeadWire>,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) fingerprint: Bytes,
    #[prost(uint32, tag = "4")]
    pub(crate) chains: u32,
}

/// The last contiguous entry of one author that the sender has.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct HeadWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) author: Bytes,
    #[prost(uint64, tag = "2")]
    pub(crate) epoch: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) seq: u64,
    /// The sender retains nothing of the chain any more.
    #[prost(bool, tag = "4")]
    pub(crate) gone: bool,
}

/// The peer's subscriptions, or a change of them.
#[derive(Debug, Clone)]
pub struct SubscriptionsIn {
    /// Forget all earlier subscriptions of this link first.
    pub(crate) set: bool,
    pub(crate) add: Vec<TopicHeads>,
    pub(crate) remove: Vec<TopicId>,
    /// The peer needs all subscriptions of this node again.
    pub(crate) again: bool,
    /// The session is no link for the peer any more.
    pub(crate) leave: bool,
}

/// A subscribed topic and what its subscriber has of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicHeads {
    pub(crate) topic: TopicId,
    /// All of them when there are as many as `chains`, else none.
    pub(crate) heads: Vec<Head>,
    pub(crate) fingerprint: [u8; 16],
    pub(crate) chains: u32,
}

/// The last contiguous entry of one author and epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) author: AgentId,
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    /// Nothing of the chain is retained there any more, so that it is of no use to ask for it.
    pub(crate) gone: bool,
}

impl SubscriptionsIn {
    pub(super) fn from_wire(wire: SubscriptionsWire) -> Result<Self, WireError> {
        let add = wire.add.into_iter().map(TopicHeads::decode).collect::<Result<_, _>>()?;
        let remove =
            wire.remove.iter().map(|topic| topic_field(topic)).collect::<Result<_, _>>()?;
        Ok(Self { set: wire.set, add, remove, again: wire.again, leave: wire.leave })
    }

    /// The topics that the peer subscribes from now on.
    pub fn added(&self) -> impl Iterator<Item = TopicId> {
        self.add.iter().map(|add| add.topic)
    }
}

impl Head {
    pub(super) fn from_wire(wire: &HeadWire) -> Result<Self, WireError> {
        let author = author_field(&wire.author)?;
        Ok(Self { author, epoch: wire.epoch, seq: wire.seq, gone: wire.gone })
    }

    pub(crate) fn to_wire(self) -> HeadWire {
        let Self { epoch, seq, gone, .. } = self;
        HeadWire { author: copy(self.author.as_bytes()), epoch, seq, gone }
    }
}

impl TopicHeads {
    fn decode(bytes: Bytes) -> Result<Self, WireError> {
        check_count(&bytes, &[2], MAX_HEADS, "heads")?;
        let wire = TopicHeadsWire::decode(bytes)?;
        Ok(Self {
            topic: topic_field(&wire.topic)?,
            heads: wire.heads.iter().map(Head::from_wire).collect::<Result<_, _>>()?,
            fingerprint: fingerprint_field(&wire.fingerprint)?,
            chains: wire.chains,
        })
    }

    pub(crate) fn encode(&self) -> Bytes {
        let wire = TopicHeadsWire {
            topic: copy(self.topic.as_bytes()),
            heads: self.heads.iter().map(|head| head.to_wire()).collect(),
            fingerprint: copy_fingerprint(&self.fingerprint),
            chains: self.chains,
        };
        wire.encode_to_vec().into()
    }
}

/// 16 bytes; empty stands for zeros, the fingerprint of nothing.
pub(super) fn fingerprint_field(field: &[u8]) -> Result<[u8; 16], WireError> {
    if field.is_empty() {
        return Ok([0; 16]);
    }
    field.try_into().map_err(|_| DecodeError::Field("fingerprint").into())
}

pub(super) fn copy_fingerprint(fingerprint: &[u8; 16]) -> Bytes {
    if *fingerprint == [0; 16] { Bytes::new() } else { copy(fingerprint) }
}
