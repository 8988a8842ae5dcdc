//! Frames of `/x0x/pubsub/1` and their bounded decoding.
//!
//! Repeated items are counted on the encoded bytes before anything is allocated for them. A run and
//! a topic's heads are carried as opaque bytes fields, which is the same on the wire as the message
//! that `docs/protocol/pubsub.proto` names there.

use bytes::{Buf, Bytes};
use prost::{
    Message,
    encoding::{DecodeContext, WireType, decode_key, skip_field},
};
use x0x_core::{AgentId, DecodeError, TopicId, fixed_bytes};
use x0x_identity::PUBLIC_KEY_LEN;

use crate::{
    config::{MAX_FRAME, MAX_HEADS, MAX_RUN_ENTRIES, MAX_SUBSCRIBED_TOPICS},
    error::WireError,
    run::RunIn,
};

/// A frame as protobuf.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FrameWire {
    #[prost(oneof = "FrameKind", tags = "1, 2, 3")]
    pub(crate) kind: Option<FrameKind>,
}

/// The kinds of frame; one this build does not know decodes as none.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum FrameKind {
    #[prost(message, tag = "1")]
    Subscriptions(SubscriptionsWire),
    #[prost(message, tag = "2")]
    Publish(PublishWire),
    #[prost(message, tag = "3")]
    Want(WantWire),
}

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
}

/// A subscribed topic and what the sender has of it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TopicHeadsWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) topic: Bytes,
    #[prost(message, repeated, tag = "2")]
    pub(crate) heads: Vec<HeadWire>,
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
}

/// One run on its way.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PublishWire {
    /// An encoded [`RunWire`], exactly as its author sent it.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) run: Bytes,
    /// The author's raw public key, the first time on this link.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) author_key: Bytes,
    /// The sender holds nothing older of this author and epoch.
    #[prost(bool, tag = "3")]
    pub(crate) floor: bool,
}

/// A request to send an author's entries again.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WantWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) topic: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) author: Bytes,
    #[prost(uint64, tag = "3")]
    pub(crate) epoch: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) from_seq: u64,
    #[prost(bool, tag = "5")]
    pub(crate) need_key: bool,
}

/// 1 to 64 consecutive entries of one author under one signature.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RunWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) network: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) topic: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) author: Bytes,
    #[prost(uint64, tag = "4")]
    pub(crate) epoch: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) first_seq: u64,
    /// Hash of the entry before the first; 32 zero bytes before entry 1.
    #[prost(bytes = "bytes", tag = "6")]
    pub(crate) prev: Bytes,
    #[prost(message, repeated, tag = "7")]
    pub(crate) entries: Vec<EntryWire>,
    #[prost(bytes = "bytes", tag = "8")]
    pub(crate) signature: Bytes,
}

/// One entry of a run.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct EntryWire {
    /// Hybrid time since the entry before it in this run; of the first entry, the time itself.
    #[prost(uint64, tag = "1")]
    pub(crate) time_delta: u64,
    #[prost(uint32, tag = "2")]
    pub(crate) class: u32,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) payload: Bytes,
}

/// A frame that is well-formed and within its bounds; nothing in it is verified.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum FrameIn {
    /// Topics that the peer subscribes.
    Subscriptions(SubscriptionsIn),
    /// A run.
    Publish(PublishIn),
    /// A request for entries.
    Want(WantIn),
    /// A kind of frame that this build does not know; skipped.
    Unknown,
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
}

/// A subscribed topic and the author heads that its subscriber has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicHeads {
    pub(crate) topic: TopicId,
    pub(crate) heads: Vec<Head>,
}

/// The last contiguous entry of one author and epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) author: AgentId,
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
}

/// A run as it arrived, with what travels beside it.
#[derive(Debug, Clone)]
pub struct PublishIn {
    pub(crate) run: RunIn,
    /// [`PUBLIC_KEY_LEN`] bytes, not yet checked against the author's id.
    pub(crate) author_key: Option<Bytes>,
    pub(crate) floor: bool,
}

/// A request to send entries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantIn {
    pub(crate) topic: TopicId,
    pub(crate) author: AgentId,
    pub(crate) epoch: u64,
    pub(crate) from_seq: u64,
    pub(crate) need_key: bool,
}

impl FrameIn {
    /// Decodes a frame of at most [`MAX_FRAME`] bytes.
    ///
    /// # Errors
    /// [`WireError`]: the peer sent something that no honest peer sends.
    pub fn decode(frame: Bytes) -> Result<Self, WireError> {
        within("frame", frame.len(), MAX_FRAME)?;
        // Counted before decoding: `add` and `remove` are the only repeated fields of a frame.
        count_nested(&frame, 1, &[2, 3], MAX_SUBSCRIBED_TOPICS)?;
        match FrameWire::decode(frame)?.kind {
            Some(FrameKind::Subscriptions(wire)) => {
                SubscriptionsIn::from_wire(wire).map(Self::Subscriptions)
            }
            Some(FrameKind::Publish(wire)) => PublishIn::from_wire(wire).map(Self::Publish),
            Some(FrameKind::Want(wire)) => WantIn::from_wire(&wire).map(Self::Want),
            None => Ok(Self::Unknown),
        }
    }
}

impl SubscriptionsIn {
    fn from_wire(wire: SubscriptionsWire) -> Result<Self, WireError> {
        let add = wire.add.into_iter().map(TopicHeads::decode).collect::<Result<_, _>>()?;
        let remove =
            wire.remove.iter().map(|topic| topic_field(topic)).collect::<Result<_, _>>()?;
        Ok(Self { set: wire.set, add, remove, again: wire.again })
    }
}

impl TopicHeads {
    fn decode(bytes: Bytes) -> Result<Self, WireError> {
        check_count(&bytes, &[2], MAX_HEADS, "heads")?;
        let wire = TopicHeadsWire::decode(bytes)?;
        let topic = topic_field(&wire.topic)?;
        let head = |head: &HeadWire| {
            let author = author_field(&head.author)?;
            Ok::<_, WireError>(Head { author, epoch: head.epoch, seq: head.seq })
        };
        let heads = wire.heads.iter().map(head).collect::<Result<_, _>>()?;
        Ok(Self { topic, heads })
    }

    pub(crate) fn encode(&self) -> Bytes {
        let heads = self.heads.iter().map(|head| HeadWire {
            author: copy(head.author.as_bytes()),
            epoch: head.epoch,
            seq: head.seq,
        });
        let wire = TopicHeadsWire { topic: copy(self.topic.as_bytes()), heads: heads.collect() };
        wire.encode_to_vec().into()
    }
}

impl PublishIn {
    fn from_wire(wire: PublishWire) -> Result<Self, WireError> {
        let author_key = match wire.author_key.len() {
            0 => None,
            PUBLIC_KEY_LEN => Some(wire.author_key),
            _ => return Err(DecodeError::Field("author_key").into()),
        };
        Ok(Self { run: RunIn::decode(wire.run)?, author_key, floor: wire.floor })
    }
}

impl WantIn {
    fn from_wire(wire: &WantWire) -> Result<Self, WireError> {
        Ok(Self {
            topic: topic_field(&wire.topic)?,
            author: author_field(&wire.author)?,
            epoch: wire.epoch,
            from_seq: wire.from_seq,
            need_key: wire.need_key,
        })
    }

    pub(crate) fn encode(&self) -> Bytes {
        encode(FrameKind::Want(WantWire {
            topic: copy(self.topic.as_bytes()),
            author: copy(self.author.as_bytes()),
            epoch: self.epoch,
            from_seq: self.from_seq,
            need_key: self.need_key,
        }))
    }
}

/// Encodes a frame.
pub(crate) fn encode(kind: FrameKind) -> Bytes {
    FrameWire { kind: Some(kind) }.encode_to_vec().into()
}

/// Owned bytes of a slice, for a field.
pub(crate) fn copy(slice: &[u8]) -> Bytes {
    Bytes::copy_from_slice(slice)
}

/// Refuses a size above its limit.
pub(crate) fn within(what: &'static str, len: usize, max: usize) -> Result<(), WireError> {
    if len > max { Err(WireError::Oversized { what, len, max }) } else { Ok(()) }
}

pub(crate) fn topic_field(field: &[u8]) -> Result<TopicId, WireError> {
    Ok(TopicId::new(fixed_bytes(field, "topic")?))
}

pub(crate) fn author_field(field: &[u8]) -> Result<AgentId, WireError> {
    Ok(AgentId::new(fixed_bytes(field, "author")?))
}

/// Refuses encoded bytes in which any field of `tags` occurs more than `max` times.
pub(crate) fn check_count(
    bytes: &[u8],
    tags: &[u32],
    max: usize,
    what: &'static str,
) -> Result<(), WireError> {
    let mut counts = [0_usize; 2];
    let mut rest = bytes;
    while rest.has_remaining() {
        let (tag, wire_type) = decode_key(&mut rest)?;
        skip_field(wire_type, tag, &mut rest, DecodeContext::default())?;
        if let Some(index) = tags.iter().position(|counted| *counted == tag)
            && let Some(count) = counts.get_mut(index)
        {
            *count += 1;
            within(what, *count, max)?;
        }
    }
    Ok(())
}

/// Refuses an encoded run with too many entries, or with fields out of order in the run or in an
/// entry: together with the length of its re-encoding, this leaves a run exactly one encoding.
pub(crate) fn check_run(run: &[u8]) -> Result<(), WireError> {
    const ENTRIES: u32 = 7;
    let (mut rest, mut last, mut count) = (run, 0, 0);
    while rest.has_remaining() {
        let (tag, wire_type) = decode_key(&mut rest)?;
        if tag < last {
            return Err(DecodeError::Malformed.into());
        }
        last = tag;
        if tag == ENTRIES && wire_type == WireType::LengthDelimited {
            count += 1;
            within("run entries", count, MAX_RUN_ENTRIES)?;
            let mut entry = take_nested(&mut rest)?;
            let mut last = 0;
            while entry.has_remaining() {
                let (tag, wire_type) = decode_key(&mut entry)?;
                if tag < last {
                    return Err(DecodeError::Malformed.into());
                }
                last = tag;
                skip_field(wire_type, tag, &mut entry, DecodeContext::default())?;
            }
        } else {
            skip_field(wire_type, tag, &mut rest, DecodeContext::default())?;
        }
    }
    Ok(())
}

/// Takes the content of a length-delimited field.
fn take_nested<'frame>(rest: &mut &'frame [u8]) -> Result<&'frame [u8], WireError> {
    let len = prost::encoding::decode_varint(rest)?;
    let len = usize::try_from(len).ok().filter(|len| *len <= rest.len());
    let (inner, after) = rest.split_at(len.ok_or(DecodeError::Malformed)?);
    *rest = after;
    Ok(inner)
}

/// As [`check_count`], inside the sub-messages `outer` of a frame. Protobuf merges repeated
/// occurrences of a sub-message, so a frame may hold only one.
fn count_nested(frame: &[u8], outer: u32, tags: &[u32], max: usize) -> Result<(), WireError> {
    let mut rest = frame;
    let mut kinds = 0;
    while rest.has_remaining() {
        let (tag, wire_type) = decode_key(&mut rest)?;
        if (1..=3).contains(&tag) {
            kinds += 1;
            within("frame kinds", kinds, 1)?;
        }
        if tag == outer && wire_type == WireType::LengthDelimited {
            check_count(take_nested(&mut rest)?, tags, max, "topics")?;
        } else {
            skip_field(wire_type, tag, &mut rest, DecodeContext::default())?;
        }
    }
    Ok(())
}
