//! Frames of `/x0x/direct/1` and their limits; `docs/protocol/direct.md` describes the exchange.
//!
//! A frame is decoded in two steps. [`FrameIn::decode`] checks sizes and field shapes;
//! [`MessageIn::verify`] then checks the sender and the recipient against what the session proved,
//! and only that makes a [`Verified`] message.

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use x0x_core::{AgentId, DecodeError, StreamClass, decode_bounded, fixed_bytes};

use crate::error::RefuseReason;

/// Names a message for ever: a receiver delivers one id of one sending machine at most once.
pub type MessageId = [u8; 16];

/// Largest payload in bytes.
pub const MAX_PAYLOAD: usize = 16 * 1024 * 1024;
/// Largest frame in bytes.
pub const MAX_FRAME: usize = StreamClass::Direct.max_message();
/// Largest encoded acknowledgement in bytes, checked before it is parsed.
pub const MAX_ACK: usize = 8 * 1024;
/// Most refusals in one acknowledgement; further ones travel in the next.
pub const MAX_REFUSALS: usize = 256;
/// Most messages that a sender may have unacknowledged in one session.
pub const MAX_IN_FLIGHT_MESSAGES: usize = 1024;
/// Most payload bytes that a sender may have unacknowledged in one session.
pub const MAX_IN_FLIGHT_BYTES: usize = 32 * 1024 * 1024;
/// Most bytes of a message frame beside its payload. The fields of this version take at most 141;
/// the rest is for fields of later versions. A payload may share the memory of its frame, so that a
/// frame must not be much larger than the payload that is accounted for.
pub const MAX_MESSAGE_OVERHEAD: usize = 512;
/// Payloads up to this length are copied out of the transport's read buffer, which is about this
/// large and would else be kept in memory by the smallest of them.
const MAX_COPIED_PAYLOAD: usize = 64 * 1024;

/// The protobuf messages as they are encoded.
mod proto {
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Frame {
        #[prost(oneof = "Body", tags = "1, 2")]
        pub(super) body: Option<Body>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Body {
        #[prost(message, tag = "1")]
        Message(Message),
        #[prost(message, tag = "2")]
        Ack(Ack),
    }

    /// A [`Frame`] whose body is still bytes, so that its size is checked by kind before it is
    /// parsed. An embedded message and a bytes field look the same on the wire.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Envelope {
        #[prost(oneof = "Sealed", tags = "1, 2")]
        pub(super) body: Option<Sealed>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Sealed {
        #[prost(bytes = "bytes", tag = "1")]
        Message(Bytes),
        #[prost(bytes = "bytes", tag = "2")]
        Ack(Bytes),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Message {
        #[prost(uint64, tag = "1")]
        pub(super) epoch: u64,
        #[prost(uint64, tag = "2")]
        pub(super) seq: u64,
        #[prost(bytes = "bytes", tag = "3")]
        pub(super) id: Bytes,
        #[prost(bytes = "bytes", tag = "4")]
        pub(super) from: Bytes,
        #[prost(bytes = "bytes", tag = "5")]
        pub(super) to: Bytes,
        #[prost(bytes = "bytes", tag = "6")]
        pub(super) payload: Bytes,
        #[prost(enumeration = "Kind", tag = "7")]
        pub(super) kind: i32,
        #[prost(bytes = "bytes", tag = "8")]
        pub(super) reply_to: Bytes,
        #[prost(enumeration = "Lane", tag = "9")]
        pub(super) lane: i32,
        #[prost(bool, tag = "10")]
        pub(super) wants_read: bool,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
    #[repr(i32)]
    pub(super) enum Kind {
        Mail = 0,
        Session = 1,
        Read = 2,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
    #[repr(i32)]
    pub(super) enum Lane {
        None = 0,
        Next = 1,
        First = 2,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Ack {
        #[prost(uint64, tag = "1")]
        pub(super) epoch: u64,
        #[prost(uint64, tag = "2")]
        pub(super) through_seq: u64,
        #[prost(message, repeated, tag = "3")]
        pub(super) refusals: Vec<Refusal>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Refusal {
        #[prost(uint64, tag = "1")]
        pub(super) seq: u64,
        #[prost(enumeration = "Reason", tag = "2")]
        pub(super) reason: i32,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
    #[repr(i32)]
    pub(super) enum Reason {
        Other = 0,
        UnknownRecipient = 1,
        SenderNotProven = 2,
        TooLarge = 3,
        InboxClosed = 4,
        Busy = 5,
        NotStored = 6,
    }
}

/// What a message is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// It is acknowledged once the receiver has stored it.
    #[default]
    Mail,
    /// It is worth nothing after a restart, and never stored.
    Session,
    /// It tells that messages were read: the payload is their ids, at most [`MAX_READ_IDS`], one
    /// after the other.
    Read,
}

/// Whether a message keeps its place behind an earlier one that was refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Lane {
    /// It stands for itself.
    #[default]
    None,
    /// It is refused as long as an earlier one of its lane is: one with the same sender and
    /// recipient that was refused in this session.
    Next,
    /// The sender has heard of the refusal and begins again with this one.
    First,
}

/// How a message is to be treated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Terms {
    /// What it is.
    pub kind: Kind,
    /// Its place behind others.
    pub lane: Lane,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
    /// The sender wants to be told when it was read.
    pub wants_read: bool,
}

/// Most ids that one [`Kind::Read`] names: each is a write at the receiver.
pub const MAX_READ_IDS: usize = 64;

/// The ids that a [`Kind::Read`] names; `None` when its payload is not a list of ids.
#[must_use]
pub fn read_ids(payload: &[u8]) -> Option<Vec<MessageId>> {
    let (ids, rest) = payload.as_chunks::<16>();
    (rest.is_empty() && !ids.is_empty() && ids.len() <= MAX_READ_IDS).then(|| ids.to_vec())
}

/// A message as the peer sent it: well formed, but nothing in it is believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageIn {
    /// The sender's number of this session; it grows from session to session.
    pub epoch: u64,
    /// 1, 2, 3... within the session.
    pub seq: u64,
    /// Names the message across sessions.
    pub id: MessageId,
    /// The sending agent, as claimed.
    pub from: AgentId,
    /// The receiving agent.
    pub to: AgentId,
    /// The content, at most [`MAX_PAYLOAD`] bytes once verified.
    pub payload: Bytes,
    /// How it is to be treated.
    pub terms: Terms,
}

/// A message of an agent that the session proved, for an agent of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    id: MessageId,
    from: AgentId,
    to: AgentId,
    payload: Bytes,
    terms: Terms,
}

impl Verified {
    /// Names the message across sessions.
    #[must_use]
    pub const fn id(&self) -> MessageId {
        self.id
    }

    /// The proven sender.
    #[must_use]
    pub const fn from(&self) -> AgentId {
        self.from
    }

    /// The local recipient.
    #[must_use]
    pub const fn to(&self) -> AgentId {
        self.to
    }

    /// The content.
    #[must_use]
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// How it is to be treated.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    #[cfg(test)]
    pub(crate) const fn set_lane(&mut self, lane: Lane) {
        self.terms.lane = lane;
    }
}

/// Everything below or equal to `through_seq` is settled: taken by the inbox, unless refused here or
/// in an earlier acknowledgement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ack {
    /// The epoch of the messages that it answers.
    pub epoch: u64,
    /// Highest settled sequence number; 0 when there is none.
    pub through_seq: u64,
    /// Messages that will not be delivered, at most [`MAX_REFUSALS`].
    pub refusals: Vec<Refusal>,
}

/// One refused message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Its sequence number.
    pub seq: u64,
    /// Why.
    pub reason: RefuseReason,
}

/// A decoded frame.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameIn {
    /// A message, to be verified.
    Message(MessageIn),
    /// An answer to messages that this end sent.
    Ack(Ack),
    /// A kind that this version does not know.
    Unknown,
}

impl FrameIn {
    /// Decodes a frame. A payload of more than 64 KiB shares the memory of `bytes`, a smaller one
    /// has its own.
    ///
    /// # Errors
    /// [`DecodeError`] naming what is too large or malformed.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let frame_len = bytes.len();
        let envelope: proto::Envelope = decode_bounded(bytes, MAX_FRAME)?;
        match envelope.body {
            Some(proto::Sealed::Message(body)) => {
                let mut message: proto::Message = decode_bounded(body, MAX_FRAME)?;
                let payload = &mut message.payload;
                let overhead = frame_len - payload.len();
                if overhead > MAX_MESSAGE_OVERHEAD {
                    return Err(DecodeError::TooLarge { len: overhead, max: MAX_MESSAGE_OVERHEAD });
                }
                if payload.len() <= MAX_COPIED_PAYLOAD {
                    *payload = Bytes::copy_from_slice(payload);
                }
                message.try_into().map(Self::Message)
            }
            Some(proto::Sealed::Ack(body)) => {
                let ack: proto::Ack = decode_bounded(body, MAX_ACK)?;
                ack.try_into().map(Self::Ack)
            }
            None => Ok(Self::Unknown),
        }
    }

    /// The frame's bytes; empty for [`FrameIn::Unknown`].
    #[must_use]
    pub fn encode(self) -> Bytes {
        let body = match self {
            Self::Message(message) => Some(proto::Body::Message(message.into())),
            Self::Ack(ack) => Some(proto::Body::Ack(ack.into())),
            Self::Unknown => None,
        };
        let frame = proto::Frame { body };
        let mut buffer = BytesMut::with_capacity(frame.encoded_len());
        // Encoding fails only when the buffer is too small, and this one grows.
        let _ = frame.encode(&mut buffer);
        buffer.freeze()
    }
}

impl MessageIn {
    /// Checks the message against what this session proved and who lives here.
    ///
    /// # Errors
    /// The reason to tell the sender.
    pub fn verify(self, proven: &[AgentId], local: &[AgentId]) -> Result<Verified, RefuseReason> {
        if self.payload.len() > MAX_PAYLOAD {
            return Err(RefuseReason::TooLarge);
        }
        if !proven.contains(&self.from) {
            return Err(RefuseReason::SenderNotProven);
        }
        if !local.contains(&self.to) {
            return Err(RefuseReason::UnknownRecipient);
        }
        let Self { id, from, to, payload, terms, .. } = self;
        Ok(Verified { id, from, to, payload, terms })
    }
}

impl From<MessageIn> for proto::Message {
    fn from(message: MessageIn) -> Self {
        Self {
            epoch: message.epoch,
            seq: message.seq,
            id: Bytes::copy_from_slice(&message.id),
            from: Bytes::copy_from_slice(message.from.as_bytes()),
            to: Bytes::copy_from_slice(message.to.as_bytes()),
            payload: message.payload,
            kind: proto::Kind::from(message.terms.kind) as i32,
            reply_to: message.terms.reply_to.map_or_else(Bytes::new, |id| id.to_vec().into()),
            lane: proto::Lane::from(message.terms.lane) as i32,
            wants_read: message.terms.wants_read,
        }
    }
}

impl TryFrom<proto::Message> for MessageIn {
    type Error = DecodeError;

    fn try_from(message: proto::Message) -> Result<Self, DecodeError> {
        if message.seq == 0 {
            return Err(DecodeError::Field("seq"));
        }
        let reply_to = match message.reply_to.is_empty() {
            true => None,
            false => Some(fixed_bytes(&message.reply_to, "reply_to")?),
        };
        let terms = Terms {
            kind: message.kind().into(),
            lane: message.lane().into(),
            reply_to,
            wants_read: message.wants_read,
        };
        Ok(Self {
            epoch: message.epoch,
            seq: message.seq,
            id: fixed_bytes(&message.id, "id")?,
            from: AgentId::new(fixed_bytes(&message.from, "from")?),
            to: AgentId::new(fixed_bytes(&message.to, "to")?),
            payload: message.payload,
            terms,
        })
    }
}

impl From<Ack> for proto::Ack {
    fn from(ack: Ack) -> Self {
        let refusals = ack.refusals.into_iter().map(|refusal| proto::Refusal {
            seq: refusal.seq,
            reason: proto::Reason::from(refusal.reason) as i32,
        });
        Self { epoch: ack.epoch, through_seq: ack.through_seq, refusals: refusals.collect() }
    }
}

impl TryFrom<proto::Ack> for Ack {
    type Error = DecodeError;

    fn try_from(ack: proto::Ack) -> Result<Self, DecodeError> {
        if ack.refusals.len() > MAX_REFUSALS {
            return Err(DecodeError::Field("refusals"));
        }
        let refusals = ack
            .refusals
            .into_iter()
            .map(|refusal| Refusal { seq: refusal.seq, reason: refusal.reason().into() });
        Ok(Self { epoch: ack.epoch, through_seq: ack.through_seq, refusals: refusals.collect() })
    }
}

impl From<RefuseReason> for proto::Reason {
    fn from(reason: RefuseReason) -> Self {
        match reason {
            RefuseReason::UnknownRecipient => Self::UnknownRecipient,
            RefuseReason::SenderNotProven => Self::SenderNotProven,
            RefuseReason::TooLarge => Self::TooLarge,
            RefuseReason::InboxClosed => Self::InboxClosed,
            RefuseReason::Busy => Self::Busy,
            RefuseReason::NotStored => Self::NotStored,
            RefuseReason::Other => Self::Other,
        }
    }
}

impl From<proto::Reason> for RefuseReason {
    fn from(reason: proto::Reason) -> Self {
        match reason {
            proto::Reason::UnknownRecipient => Self::UnknownRecipient,
            proto::Reason::SenderNotProven => Self::SenderNotProven,
            proto::Reason::TooLarge => Self::TooLarge,
            proto::Reason::InboxClosed => Self::InboxClosed,
            proto::Reason::Busy => Self::Busy,
            proto::Reason::NotStored => Self::NotStored,
            proto::Reason::Other => Self::Other,
        }
    }
}

impl From<Kind> for proto::Kind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Mail => Self::Mail,
            Kind::Session => Self::Session,
            Kind::Read => Self::Read,
        }
    }
}

impl From<proto::Kind> for Kind {
    fn from(kind: proto::Kind) -> Self {
        match kind {
            proto::Kind::Mail => Self::Mail,
            proto::Kind::Session => Self::Session,
            proto::Kind::Read => Self::Read,
        }
    }
}

impl From<Lane> for proto::Lane {
    fn from(lane: Lane) -> Self {
        match lane {
            Lane::None => Self::None,
            Lane::Next => Self::Next,
            Lane::First => Self::First,
        }
    }
}

impl From<proto::Lane> for Lane {
    fn from(lane: proto::Lane) -> Self {
        match lane {
            proto::Lane::None => Self::None,
            proto::Lane::Next => Self::Next,
            proto::Lane::First => Self::First,
        }
    }
}
