//! Messages of public groups: signed, and readable to anybody whom the policy lets read.

use bytes::Bytes;
use prost::Message;
use x0x_core::{AgentId, DecodeError, WallTime, decode_bounded, fixed_bytes};
use x0x_identity::SecretKey;

use super::{GroupId, OpId, action::parents, hash, is_text, signed::SignedWire};
use crate::{
    error::SignedError,
    limits::{MAX_NAME, MAX_PARENTS, MAX_PUBLIC_MESSAGE},
};

/// Domain of a public message's signature.
pub const MESSAGE_DOMAIN: &str = "x0x.groups.message.1";
const MAX_MESSAGE_BODY: usize = MAX_PUBLIC_MESSAGE + 2048;

/// What kind of message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageKind {
    /// Talk.
    Chat,
    /// An announcement.
    Announcement,
}

impl MessageKind {
    const fn code(self) -> u32 {
        match self {
            Self::Chat => 1,
            Self::Announcement => 2,
        }
    }

    /// The word in the API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Announcement => "announcement",
        }
    }

    /// What a word in the API means.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Chat, Self::Announcement].into_iter().find(|kind| kind.word() == word)
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MessageWire {
    #[prost(bytes = "bytes", tag = "1")]
    group: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    author: Bytes,
    #[prost(uint64, tag = "3")]
    at_ms: u64,
    #[prost(uint32, tag = "4")]
    kind: u32,
    #[prost(string, tag = "5")]
    room: String,
    #[prost(bytes = "bytes", tag = "6")]
    thread: Bytes,
    #[prost(string, tag = "7")]
    text: String,
    #[prost(uint64, tag = "8")]
    revision: u64,
    #[prost(bytes = "bytes", tag = "9")]
    state_hash: Bytes,
    #[prost(bytes = "bytes", repeated, tag = "10")]
    heads: Vec<Bytes>,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicMessage {
    /// To which group.
    pub group: GroupId,
    /// Who wrote it.
    pub author: AgentId,
    /// When.
    pub at: WallTime,
    /// What kind it is.
    pub kind: MessageKind,
    /// In which room; empty for the first.
    pub room: String,
    /// The message that it answers to, in a thread.
    pub thread: Option<[u8; 32]>,
    /// The text.
    pub text: String,
    /// The revision and hash of the state that its author knew.
    pub state: (u64, [u8; 32]),
    /// The last operations that its author knew: by what follows from them it is judged.
    pub heads: Vec<OpId>,
}

/// A received message: well-formed, not verified.
#[derive(Debug, Clone)]
pub struct PublicMessageIn {
    message: PublicMessage,
    id: [u8; 32],
    signed: SignedWire,
}

impl PublicMessage {
    /// Signs it: its id, and its wire form.
    #[must_use]
    pub fn sign(&self, key: &SecretKey) -> ([u8; 32], Bytes) {
        let body = MessageWire {
            group: Bytes::copy_from_slice(self.group.as_bytes()),
            author: Bytes::copy_from_slice(self.author.as_bytes()),
            at_ms: self.at.as_millis(),
            kind: self.kind.code(),
            room: self.room.clone(),
            thread: self.thread.map(|id| Bytes::copy_from_slice(&id)).unwrap_or_default(),
            text: self.text.clone(),
            revision: self.state.0,
            state_hash: Bytes::copy_from_slice(&self.state.1),
            heads: self.heads.iter().map(|id| Bytes::copy_from_slice(id.as_bytes())).collect(),
        }
        .encode_to_vec();
        let id = hash("x0x.groups.message.id.1", &[&body]);
        (id, SignedWire::sign(key, MESSAGE_DOMAIN, body).encode_to_vec().into())
    }
}

impl PublicMessageIn {
    /// Reads a message. Nothing is verified yet.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or a field is out of range.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let signed = SignedWire::decode_bounded(bytes, MAX_MESSAGE_BODY)?;
        let wire: MessageWire = decode_bounded(signed.body.clone(), MAX_MESSAGE_BODY)?;
        if wire.text.len() > MAX_PUBLIC_MESSAGE {
            return Err(DecodeError::TooLarge { len: wire.text.len(), max: MAX_PUBLIC_MESSAGE });
        }
        if !is_text(&wire.room, MAX_NAME) {
            return Err(DecodeError::Field("room"));
        }
        let thread =
            if wire.thread.is_empty() { None } else { Some(fixed_bytes(&wire.thread, "thread")?) };
        let message = PublicMessage {
            group: GroupId::new(fixed_bytes(&wire.group, "group")?),
            author: AgentId::new(fixed_bytes(&wire.author, "author")?),
            at: WallTime::from_millis(wire.at_ms),
            kind: match wire.kind {
                1 => MessageKind::Chat,
                2 => MessageKind::Announcement,
                _ => return Err(DecodeError::Field("kind")),
            },
            room: wire.room,
            thread,
            text: wire.text,
            state: (wire.revision, fixed_bytes(&wire.state_hash, "state_hash")?),
            heads: parents(&wire.heads, MAX_PARENTS)?,
        };
        let id = hash("x0x.groups.message.id.1", &[&signed.body]);
        Ok(Self { message, id, signed })
    }

    /// The id it has.
    #[must_use]
    pub const fn id(&self) -> [u8; 32] {
        self.id
    }

    /// Checks that its author signed it. Whether it may write is another matter: see
    /// [`Wall`](crate::Wall).
    ///
    /// # Errors
    /// [`SignedError`] with the first thing that is wrong.
    pub fn verify(self) -> Result<([u8; 32], PublicMessage), SignedError> {
        self.signed.verify(MESSAGE_DOMAIN, &self.message.author)?;
        Ok((self.id, self.message))
    }
}
