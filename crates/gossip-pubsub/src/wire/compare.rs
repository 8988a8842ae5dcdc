//! What two peers have of a topic: one number, all heads, or ranges of chains.

use bytes::Bytes;
use prost::Message;
use x0x_core::{AgentId, DecodeError, TopicId};

use crate::{config::MAX_HEADS, error::WireError};

use super::{
    FrameKind, Head, HeadWire, author_field, check_count, copy, encode, topic_field,
    topics::{copy_fingerprint, fingerprint_field},
};

/// What the sender has of a topic, in one number.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DigestWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) topic: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) fingerprint: Bytes,
    #[prost(uint32, tag = "3")]
    pub(crate) chains: u32,
}

/// What the sender has of a topic, chain by chain.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct HeadsWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) topic: Bytes,
    #[prost(message, repeated, tag = "2")]
    pub(crate) heads: Vec<HeadWire>,
    /// These are all, and the receiver is to answer with those that it has more of.
    #[prost(bool, tag = "3")]
    pub(crate) reply: bool,
}

/// What the sender has of a topic, in ranges of chains.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RangesWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) topic: Bytes,
    /// Encoded [`RangeWire`]s, each from where the one before it ends.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(crate) ranges: Vec<Bytes>,
}

/// The chains before a bound, in the order of author and epoch.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RangeWire {
    /// The first author beyond the range; empty when there is no bound.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) end_author: Bytes,
    #[prost(uint64, tag = "2")]
    pub(crate) end_epoch: u64,
    /// 0 skip, 1 fingerprint, 2 heads with an answer wanted, 3 heads as an answer.
    #[prost(uint32, tag = "3")]
    pub(crate) mode: u32,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) fingerprint: Bytes,
    #[prost(message, repeated, tag = "5")]
    pub(crate) heads: Vec<HeadWire>,
}

/// What the peer has of a topic, in one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestIn {
    pub(crate) topic: TopicId,
    pub(crate) fingerprint: [u8; 16],
    pub(crate) chains: u32,
}

/// What the peer has of a topic, chain by chain.
#[derive(Debug, Clone)]
pub struct HeadsIn {
    pub(crate) topic: TopicId,
    pub(crate) heads: Vec<Head>,
    pub(crate) reply: bool,
}

/// What the peer has of a topic, in ranges of chains.
#[derive(Debug, Clone)]
pub struct RangesIn {
    pub(crate) topic: TopicId,
    /// In increasing order of their ends.
    pub(crate) ranges: Vec<RangeIn>,
}

/// One range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RangeIn {
    /// The first chain beyond it.
    pub(crate) end: Option<(AgentId, u64)>,
    pub(crate) body: RangeBody,
}

/// What is said of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RangeBody {
    Skip,
    Fingerprint([u8; 16]),
    /// At most [`MAX_HEADS`].
    Heads {
        heads: Vec<Head>,
        reply: bool,
    },
}

impl DigestIn {
    pub(super) fn from_wire(wire: &DigestWire) -> Result<Self, WireError> {
        Ok(Self {
            topic: topic_field(&wire.topic)?,
            fingerprint: fingerprint_field(&wire.fingerprint)?,
            chains: wire.chains,
        })
    }

    pub(crate) fn encode(&self) -> Bytes {
        encode(FrameKind::Digest(DigestWire {
            topic: copy(self.topic.as_bytes()),
            fingerprint: copy_fingerprint(&self.fingerprint),
            chains: self.chains,
        }))
    }
}

impl HeadsIn {
    pub(super) fn from_wire(wire: &HeadsWire) -> Result<Self, WireError> {
        let heads = wire.heads.iter().map(Head::from_wire).collect::<Result<_, _>>()?;
        Ok(Self { topic: topic_field(&wire.topic)?, heads, reply: wire.reply })
    }

    pub(crate) fn encode(&self) -> Bytes {
        encode(FrameKind::Heads(HeadsWire {
            topic: copy(self.topic.as_bytes()),
            heads: self.heads.iter().map(|head| head.to_wire()).collect(),
            reply: self.reply,
        }))
    }
}

impl RangesIn {
    pub(super) fn from_wire(wire: RangesWire) -> Result<Self, WireError> {
        let topic = topic_field(&wire.topic)?;
        let mut ranges: Vec<RangeIn> = Vec::new();
        for bytes in wire.ranges {
            let range = RangeIn::decode(bytes)?;
            let grows = match (ranges.last().map(|range| range.end), range.end) {
                (Some(None), _) => false,
                (Some(Some(last)), Some(end)) => last < end,
                _ => true,
            };
            if !grows {
                return Err(DecodeError::Field("end").into());
            }
            ranges.push(range);
        }
        Ok(Self { topic, ranges })
    }

    /// Ranges and heads in them.
    pub(crate) fn items(&self) -> usize {
        self.ranges.len() + self.ranges.iter().map(RangeIn::heads).sum::<usize>()
    }

    pub(crate) fn encode(&self) -> Bytes {
        encode(FrameKind::Ranges(RangesWire {
            topic: copy(self.topic.as_bytes()),
            ranges: self.ranges.iter().map(RangeIn::encode).collect(),
        }))
    }
}

impl RangeIn {
    /// Heads in it.
    pub(crate) const fn heads(&self) -> usize {
        match &self.body {
            RangeBody::Heads { heads, .. } => heads.len(),
            RangeBody::Skip | RangeBody::Fingerprint(_) => 0,
        }
    }

    fn decode(bytes: Bytes) -> Result<Self, WireError> {
        check_count(&bytes, &[5], MAX_HEADS, "heads")?;
        let wire = RangeWire::decode(bytes)?;
        let end = match wire.end_author.len() {
            0 => None,
            _ => Some((author_field(&wire.end_author)?, wire.end_epoch)),
        };
        let body = match wire.mode {
            0 => RangeBody::Skip,
            1 => RangeBody::Fingerprint(fingerprint_field(&wire.fingerprint)?),
            2 | 3 => RangeBody::Heads {
                heads: wire.heads.iter().map(Head::from_wire).collect::<Result<_, _>>()?,
                reply: wire.mode == 2,
            },
            _ => return Err(DecodeError::Field("mode").into()),
        };
        Ok(Self { end, body })
    }

    fn encode(&self) -> Bytes {
        let (end_author, end_epoch) = match &self.end {
            Some((author, epoch)) => (copy(author.as_bytes()), *epoch),
            None => Default::default(),
        };
        let mut wire = RangeWire { end_author, end_epoch, ..RangeWire::default() };
        match &self.body {
            RangeBody::Skip => {}
            RangeBody::Fingerprint(fingerprint) => {
                wire.mode = 1;
                wire.fingerprint = copy_fingerprint(fingerprint);
            }
            RangeBody::Heads { heads, reply } => {
                wire.mode = if *reply { 2 } else { 3 };
                wire.heads = heads.iter().map(|head| head.to_wire()).collect();
            }
        }
        wire.encode_to_vec().into()
    }
}
