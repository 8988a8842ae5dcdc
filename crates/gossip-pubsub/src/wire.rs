//! Frames of `/x0x/pubsub/1` and their bounded decoding.
//!
//! Repeated items are counted on the encoded bytes before anything is allocated for them. A run and
//! lists within lists are carried as opaque bytes fields, which is the same on the wire as the
//! messages that `docs/protocol/pubsub.proto` names there.

use bytes::{Buf, Bytes};
use prost::{
    Message,
    encoding::{DecodeContext, WireType, decode_key, skip_field},
};
use x0x_core::{AgentId, DecodeError, TopicId, fixed_bytes};

use crate::{
    config::{
        MAX_ANNOUNCED, MAX_FRAME, MAX_HEADS, MAX_RANGES, MAX_RUN_ENTRIES, MAX_SUBSCRIBED_TOPICS,
    },
    error::WireError,
};

mod compare;
mod peers;
mod runs;
mod topics;
mod tree;

pub use compare::{DigestIn, HeadsIn, RangesIn};
pub(crate) use compare::{DigestWire, HeadsWire, RangeBody, RangeIn, RangesWire};
pub use peers::{FindPeersIn, MAX_FOUND, PeersFoundIn};
pub(crate) use peers::{FindPeersWire, MAX_TTL, PeersFoundWire};
pub use runs::PublishIn;
pub(crate) use runs::{Before, EntryWire, PublishWire, RunWire};
pub use topics::SubscriptionsIn;
pub(crate) use topics::{Head, HeadWire, SubscriptionsWire, TopicHeads};
pub use tree::{AnnounceIn, GraftIn, PruneIn, WantIn};
pub(crate) use tree::{AnnounceWire, Announced, GraftWire, PruneWire, WantWire};

/// A frame as protobuf.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FrameWire {
    #[prost(oneof = "FrameKind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11")]
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
    #[prost(message, tag = "4")]
    Announce(AnnounceWire),
    #[prost(message, tag = "5")]
    Prune(PruneWire),
    #[prost(message, tag = "6")]
    Graft(GraftWire),
    #[prost(message, tag = "7")]
    Digest(DigestWire),
    #[prost(message, tag = "8")]
    Heads(HeadsWire),
    #[prost(message, tag = "9")]
    Ranges(RangesWire),
    #[prost(message, tag = "10")]
    FindPeers(FindPeersWire),
    #[prost(message, tag = "11")]
    PeersFound(PeersFoundWire),
}

/// Tags of the frame kinds.
const KINDS: std::ops::RangeInclusive<u32> = 1..=11;

/// Which repeated fields a kind of frame has, and how often they may occur.
fn repeated(kind: u32) -> (&'static [u32], usize, &'static str) {
    match kind {
        1 => (&[2, 3], MAX_SUBSCRIBED_TOPICS, "topics"),
        4 => (&[1], MAX_ANNOUNCED, "announced topics"),
        8 => (&[2], MAX_HEADS, "heads"),
        9 => (&[2], MAX_RANGES, "ranges"),
        11 => (&[3], MAX_FOUND, "peers"),
        _ => (&[], 0, ""),
    }
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
    /// Heads of chains that the peer has, without the entries.
    Announce(AnnounceIn),
    /// The peer gets an author's runs from another link too.
    Prune(PruneIn),
    /// The peer wants runs pushed to it.
    Graft(GraftIn),
    /// What the peer has of a topic, in one number.
    Digest(DigestIn),
    /// What the peer has of a topic, chain by chain.
    Heads(HeadsIn),
    /// What the peer has of a topic, in ranges of chains.
    Ranges(RangesIn),
    /// A search for subscribers of a topic.
    FindPeers(FindPeersIn),
    /// Subscribers of a topic.
    PeersFound(PeersFoundIn),
    /// A kind of frame that this build does not know; skipped.
    Unknown,
}

impl FrameIn {
    /// Decodes a frame of at most [`MAX_FRAME`] bytes.
    ///
    /// # Errors
    /// [`WireError`]: the peer sent something that no honest peer sends.
    pub fn decode(frame: Bytes) -> Result<Self, WireError> {
        within("frame", frame.len(), MAX_FRAME)?;
        count_nested(&frame)?;
        let Some(kind) = FrameWire::decode(frame)?.kind else { return Ok(Self::Unknown) };
        match kind {
            FrameKind::Subscriptions(wire) => {
                SubscriptionsIn::from_wire(wire).map(Self::Subscriptions)
            }
            FrameKind::Publish(wire) => PublishIn::from_wire(wire).map(Self::Publish),
            FrameKind::Want(wire) => WantIn::from_wire(&wire).map(Self::Want),
            FrameKind::Announce(wire) => AnnounceIn::from_wire(wire).map(Self::Announce),
            FrameKind::Prune(wire) => PruneIn::from_wire(&wire).map(Self::Prune),
            FrameKind::Graft(wire) => GraftIn::from_wire(&wire).map(Self::Graft),
            FrameKind::Digest(wire) => DigestIn::from_wire(&wire).map(Self::Digest),
            FrameKind::Heads(wire) => HeadsIn::from_wire(&wire).map(Self::Heads),
            FrameKind::Ranges(wire) => RangesIn::from_wire(wire).map(Self::Ranges),
            FrameKind::FindPeers(wire) => FindPeersIn::from_wire(&wire).map(Self::FindPeers),
            FrameKind::PeersFound(wire) => PeersFoundIn::from_wire(&wire).map(Self::PeersFound),
        }
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

/// Refuses a frame with too many repeated items in its kind. Protobuf merges repeated occurrences of
/// a sub-message, so a frame may hold only one.
fn count_nested(frame: &[u8]) -> Result<(), WireError> {
    let mut rest = frame;
    let mut kinds = 0;
    while rest.has_remaining() {
        let (tag, wire_type) = decode_key(&mut rest)?;
        if KINDS.contains(&tag) {
            kinds += 1;
            within("frame kinds", kinds, 1)?;
        }
        let (tags, max, what) = repeated(tag);
        if !tags.is_empty() && wire_type == WireType::LengthDelimited {
            check_count(take_nested(&mut rest)?, tags, max, what)?;
        } else {
            skip_field(wire_type, tag, &mut rest, DecodeContext::default())?;
        }
    }
    Ok(())
}
