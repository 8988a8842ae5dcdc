//! Frames of the protocol, with their limits. Decoding is syntactic; `verify` decides what is believed.
//!
//! Control frames travel with direct messages, where they overtake content; content has a stream class
//! of its own.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use x0x_core::{AgentId, DecodeError, decode_bounded, fixed_bytes};

use crate::{
    id::TransferId,
    name::safe_name,
    tree::{self, BadContent, GROUP_LEN, MAX_LEVELS, VALUE, Value},
};

/// Largest control frame in bytes.
pub const MAX_FRAME: usize = 8 * 1024;
/// Longest offered name in bytes; it is made [safe](crate::safe_name) before anybody sees it.
pub const MAX_OFFERED_NAME: usize = 1024;
/// Longest media type in bytes.
pub const MAX_MEDIA_TYPE: usize = 128;
/// Longest reason in bytes; what comes behind is cut off.
pub const MAX_REASON: usize = 256;
/// Most ranges in one request.
pub const MAX_RANGES: usize = 64;
/// Largest content frame in bytes: a group, its proof and its header.
pub const MAX_SLICE: usize = GROUP_LEN + MAX_LEVELS * VALUE + 64;

/// The protobuf messages as they are encoded. Field numbers are never reused.
mod proto {
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Frame {
        #[prost(oneof = "Body", tags = "1, 2, 3")]
        pub(super) body: Option<Body>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Body {
        #[prost(message, tag = "1")]
        Offer(Offer),
        #[prost(message, tag = "2")]
        Want(Want),
        #[prost(message, tag = "3")]
        Status(Status),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Offer {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) id: Bytes,
        #[prost(bytes = "bytes", tag = "2")]
        pub(super) from: Bytes,
        #[prost(bytes = "bytes", tag = "3")]
        pub(super) to: Bytes,
        #[prost(string, tag = "4")]
        pub(super) name: String,
        #[prost(uint64, tag = "5")]
        pub(super) size: u64,
        #[prost(bytes = "bytes", tag = "6")]
        pub(super) root: Bytes,
        #[prost(bytes = "bytes", tag = "7")]
        pub(super) sha256: Bytes,
        #[prost(string, tag = "8")]
        pub(super) media_type: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Want {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) id: Bytes,
        #[prost(message, repeated, tag = "2")]
        pub(super) ranges: Vec<Range>,
        #[prost(uint64, tag = "3")]
        pub(super) verified: u64,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct Range {
        #[prost(uint64, tag = "1")]
        pub(super) first: u64,
        #[prost(uint64, tag = "2")]
        pub(super) count: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Status {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) id: Bytes,
        #[prost(enumeration = "Standing", tag = "2")]
        pub(super) standing: i32,
        #[prost(uint64, tag = "3")]
        pub(super) verified: u64,
        #[prost(string, tag = "4")]
        pub(super) reason: String,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
    #[repr(i32)]
    pub(super) enum Standing {
        Unknown = 0,
        Offered = 1,
        Active = 2,
        Paused = 3,
        Complete = 4,
        Failed = 5,
        Rejected = 6,
        Cancelled = 7,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Slice {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) id: Bytes,
        #[prost(uint64, tag = "2")]
        pub(super) group: u64,
        #[prost(bytes = "bytes", tag = "3")]
        pub(super) proof: Bytes,
        #[prost(bytes = "bytes", tag = "4")]
        pub(super) content: Bytes,
    }
}

/// How a transfer stands at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Standing {
    /// It is not known there, or stands in a way that this version does not know.
    Unknown,
    /// It waits to be accepted.
    Offered,
    /// It was accepted.
    Active,
    /// It was accepted and is stopped.
    Paused,
    /// The recipient has all of it.
    Complete,
    /// It was given up.
    Failed,
    /// It is not wanted.
    Rejected,
    /// It was withdrawn.
    Cancelled,
}

impl Standing {
    const PAIRS: [(Self, proto::Standing); 8] = [
        (Self::Unknown, proto::Standing::Unknown),
        (Self::Offered, proto::Standing::Offered),
        (Self::Active, proto::Standing::Active),
        (Self::Paused, proto::Standing::Paused),
        (Self::Complete, proto::Standing::Complete),
        (Self::Failed, proto::Standing::Failed),
        (Self::Rejected, proto::Standing::Rejected),
        (Self::Cancelled, proto::Standing::Cancelled),
    ];

    fn number(self) -> i32 {
        Self::PAIRS.iter().find(|(own, _)| *own == self).map_or(0, |(_, wire)| *wire as i32)
    }

    fn from_wire(wire: proto::Standing) -> Self {
        Self::PAIRS.iter().find(|(_, other)| *other == wire).map_or(Self::Unknown, |(own, _)| *own)
    }
}

/// An offer as the peer made it: well formed, but nothing in it is believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferIn {
    /// Names the transfer.
    pub id: TransferId,
    /// The offering agent, as claimed.
    pub from: AgentId,
    /// The agent that is to have the file.
    pub to: AgentId,
    /// The file's name, as the peer wrote it.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its BLAKE3 hash.
    pub root: Value,
    /// Its SHA-256, if stated.
    pub sha256: Option<[u8; 32]>,
    /// What kind of file it is said to be.
    pub media_type: String,
}

/// An offer by an agent that the session proved, to an agent of this machine. Size and hashes are the
/// sender's word, to which the content is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer(OfferIn);

/// Why an offer is not looked at any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// The offering agent was not proven in the session.
    #[error("sender agent not proven in this session")]
    NotProven,
    /// No such agent on this machine.
    #[error("unknown recipient")]
    UnknownRecipient,
}

impl OfferIn {
    /// Checks who offers to whom, and makes the texts harmless.
    ///
    /// # Errors
    /// [`OfferError`].
    pub fn verify(mut self, proven: &[AgentId], local: &[AgentId]) -> Result<Offer, OfferError> {
        if !proven.contains(&self.from) {
            return Err(OfferError::NotProven);
        }
        if !local.contains(&self.to) {
            return Err(OfferError::UnknownRecipient);
        }
        self.name = safe_name(&self.name);
        let plain = |c: char| c.is_ascii_graphic() || c == ' ';
        if !self.media_type.chars().all(plain) {
            self.media_type.clear();
        }
        Ok(Offer(self))
    }
}

impl Offer {
    /// What was offered, with a name that is safe to use.
    #[must_use]
    pub fn into_inner(self) -> OfferIn {
        self.0
    }

    /// Names the transfer.
    #[must_use]
    pub const fn id(&self) -> TransferId {
        self.0.id
    }
}

/// Asks for groups of a file, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The transfer.
    pub id: TransferId,
    /// First group and count, at most [`MAX_RANGES`]; each ends within the numbers that there are.
    pub ranges: Vec<(u64, u64)>,
    /// Bytes stored and verified so far.
    pub verified: u64,
}

/// Says how a transfer stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The transfer.
    pub id: TransferId,
    /// How it stands here.
    pub standing: Standing,
    /// Bytes stored and verified so far.
    pub verified: u64,
    /// Why, for people; at most [`MAX_REASON`] bytes.
    pub reason: String,
}

/// A decoded control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameIn {
    /// An offer, to be verified.
    Offer(OfferIn),
    /// A request for content.
    Want(Want),
    /// How a transfer stands at the other end.
    Status(Status),
    /// A kind that this version does not know.
    Unknown,
}

impl FrameIn {
    /// Decodes a control frame.
    ///
    /// # Errors
    /// [`DecodeError`] naming what is too large or malformed.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let frame: proto::Frame = decode_bounded(bytes, MAX_FRAME)?;
        match frame.body {
            Some(proto::Body::Offer(offer)) => offer.try_into().map(Self::Offer),
            Some(proto::Body::Want(want)) => want.try_into().map(Self::Want),
            Some(proto::Body::Status(status)) => status.try_into().map(Self::Status),
            None => Ok(Self::Unknown),
        }
    }

    /// The frame's bytes; empty for [`FrameIn::Unknown`].
    #[must_use]
    pub fn encode(self) -> Bytes {
        let body = match self {
            Self::Offer(offer) => Some(proto::Body::Offer(offer.into())),
            Self::Want(want) => Some(proto::Body::Want(want.into())),
            Self::Status(status) => Some(proto::Body::Status(status.into())),
            Self::Unknown => None,
        };
        proto::Frame { body }.encode_to_vec().into()
    }
}

fn id(bytes: &[u8]) -> Result<TransferId, DecodeError> {
    fixed_bytes(bytes, "id").map(TransferId::new)
}

impl From<OfferIn> for proto::Offer {
    fn from(offer: OfferIn) -> Self {
        let sha256 = offer.sha256.map(|hash| Bytes::copy_from_slice(&hash));
        Self {
            id: Bytes::copy_from_slice(offer.id.as_bytes()),
            from: Bytes::copy_from_slice(offer.from.as_bytes()),
            to: Bytes::copy_from_slice(offer.to.as_bytes()),
            name: offer.name,
            size: offer.size,
            root: Bytes::copy_from_slice(&offer.root),
            sha256: sha256.unwrap_or_default(),
            media_type: offer.media_type,
        }
    }
}

impl TryFrom<proto::Offer> for OfferIn {
    type Error = DecodeError;

    fn try_from(offer: proto::Offer) -> Result<Self, DecodeError> {
        if offer.name.len() > MAX_OFFERED_NAME {
            return Err(DecodeError::Field("name"));
        }
        if offer.media_type.len() > MAX_MEDIA_TYPE {
            return Err(DecodeError::Field("media_type"));
        }
        let sha256 = (!offer.sha256.is_empty()).then(|| fixed_bytes(&offer.sha256, "sha256"));
        Ok(Self {
            id: id(&offer.id)?,
            from: AgentId::new(fixed_bytes(&offer.from, "from")?),
            to: AgentId::new(fixed_bytes(&offer.to, "to")?),
            name: offer.name,
            size: offer.size,
            root: fixed_bytes(&offer.root, "root")?,
            sha256: sha256.transpose()?,
            media_type: offer.media_type,
        })
    }
}

impl From<Want> for proto::Want {
    fn from(want: Want) -> Self {
        let ranges = want.ranges.into_iter().map(|(first, count)| proto::Range { first, count });
        Self {
            id: Bytes::copy_from_slice(want.id.as_bytes()),
            ranges: ranges.collect(),
            verified: want.verified,
        }
    }
}

impl TryFrom<proto::Want> for Want {
    type Error = DecodeError;

    fn try_from(want: proto::Want) -> Result<Self, DecodeError> {
        if want.ranges.len() > MAX_RANGES {
            return Err(DecodeError::Field("ranges"));
        }
        let range = |range: proto::Range| {
            let end = range.first.checked_add(range.count);
            end.map(|_| (range.first, range.count)).ok_or(DecodeError::Field("ranges"))
        };
        let ranges = want.ranges.into_iter().map(range).collect::<Result<_, _>>()?;
        Ok(Self { id: id(&want.id)?, ranges, verified: want.verified })
    }
}

impl From<Status> for proto::Status {
    fn from(status: Status) -> Self {
        Self {
            id: Bytes::copy_from_slice(status.id.as_bytes()),
            standing: status.standing.number(),
            verified: status.verified,
            reason: cut(status.reason),
        }
    }
}

impl TryFrom<proto::Status> for Status {
    type Error = DecodeError;

    fn try_from(status: proto::Status) -> Result<Self, DecodeError> {
        Ok(Self {
            id: id(&status.id)?,
            standing: Standing::from_wire(status.standing()),
            verified: status.verified,
            reason: cut(status.reason),
        })
    }
}

/// A reason of bounded length in which nothing steers a terminal.
fn cut(mut reason: String) -> String {
    reason.retain(|c| !crate::name::is_hidden(c));
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.truncate(end);
    reason
}

/// A group of a file as the peer sent it: well formed, not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceIn {
    /// The transfer.
    pub id: TransferId,
    /// Which group.
    pub group: u64,
    /// What proves it.
    pub proof: Bytes,
    /// Its bytes, sharing the memory of the frame.
    pub content: Bytes,
}

/// A group that belongs to the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    group: u64,
    content: Bytes,
    value: Value,
}

impl SliceIn {
    /// Decodes a content frame.
    ///
    /// # Errors
    /// [`DecodeError`] naming what is too large or malformed.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let slice: proto::Slice = decode_bounded(bytes, MAX_SLICE)?;
        if slice.content.len() > GROUP_LEN {
            return Err(DecodeError::Field("content"));
        }
        let id = id(&slice.id)?;
        Ok(Self { id, group: slice.group, proof: slice.proof, content: slice.content })
    }

    /// The frame's bytes.
    #[must_use]
    pub fn encode(self) -> Bytes {
        let Ok(frame) =
            encode_slice(self.id, self.group, &self.proof, self.content.len(), |room| {
                room.copy_from_slice(&self.content);
                Ok::<_, std::convert::Infallible>(())
            });
        frame
    }

    /// Checks the group against the hash of a file of some size.
    ///
    /// # Errors
    /// [`BadContent`]: the peer does not send what it offered.
    pub fn verify(self, root: &Value, size: u64) -> Result<Slice, BadContent> {
        let value = tree::verify(root, size, self.group, &self.content, &self.proof)?;
        Ok(Slice { group: self.group, content: self.content, value })
    }
}

/// A content frame whose content is written where it is sent from, without a copy.
///
/// # Errors
/// What `fill` answers.
pub fn encode_slice<E>(
    id: TransferId,
    group: u64,
    proof: &[u8],
    len: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
) -> Result<Bytes, E> {
    let head = proto::Slice {
        id: Bytes::copy_from_slice(id.as_bytes()),
        group,
        proof: Bytes::copy_from_slice(proof),
        content: Bytes::new(),
    };
    let mut frame = BytesMut::with_capacity(head.encoded_len() + len + 8);
    // Encoding fails only when the buffer is too small, and this one grows.
    let _ = head.encode(&mut frame);
    if len > 0 {
        frame.put_u8(CONTENT_KEY);
        prost::encoding::encode_varint(len as u64, &mut frame);
        let start = frame.len();
        frame.resize(start + len, 0);
        fill(&mut frame[start..])?;
    }
    Ok(frame.freeze())
}

/// Field 4, length-delimited.
const CONTENT_KEY: u8 = 4 << 3 | 2;

impl Slice {
    /// Which group.
    #[must_use]
    pub const fn group(&self) -> u64 {
        self.group
    }

    /// Its bytes.
    #[must_use]
    pub const fn content(&self) -> &Bytes {
        &self.content
    }

    /// Its value in the tree.
    #[must_use]
    pub const fn value(&self) -> &Value {
        &self.value
    }
}
