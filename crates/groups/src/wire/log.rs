//! Items of a group's log, and what members say within MLS.

use bytes::Bytes;
use prost::{Message, Oneof};
use x0x_core::{DecodeError, decode_bounded, fixed_bytes};
use x0x_mls::MAX_FRAME;

use super::is_text;
use crate::limits::MAX_NAME;

/// Largest item of a log in bytes.
pub const MAX_LOG_ITEM: usize = MAX_FRAME + 64;

#[derive(Clone, PartialEq, Message)]
pub(super) struct LogItemWire {
    #[prost(oneof = "ItemWire", tags = "1, 2, 3")]
    item: Option<ItemWire>,
}

#[derive(Clone, PartialEq, Oneof)]
enum ItemWire {
    #[prost(bytes = "bytes", tag = "1")]
    Operation(Bytes),
    #[prost(bytes = "bytes", tag = "2")]
    Message(Bytes),
    #[prost(bytes = "bytes", tag = "3")]
    Frame(Bytes),
}

/// An item of a group's log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogItem {
    /// An operation, in a group that is not encrypted.
    Operation(Bytes),
    /// A public message, in a group that is not encrypted.
    Message(Bytes),
    /// A frame of MLS.
    Frame(Bytes),
}

impl LogItem {
    /// The wire form.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let item = match self.clone() {
            Self::Operation(bytes) => ItemWire::Operation(bytes),
            Self::Message(bytes) => ItemWire::Message(bytes),
            Self::Frame(bytes) => ItemWire::Frame(bytes),
        };
        LogItemWire { item: Some(item) }.encode_to_vec().into()
    }

    /// Reads an item.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large or malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let wire: LogItemWire = decode_bounded(Bytes::copy_from_slice(bytes), MAX_LOG_ITEM)?;
        Ok(match wire.item.ok_or(DecodeError::Field("item"))? {
            ItemWire::Operation(bytes) => Self::Operation(bytes),
            ItemWire::Message(bytes) => Self::Message(bytes),
            ItemWire::Frame(bytes) => Self::Frame(bytes),
        })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MemberItemWire {
    #[prost(oneof = "MemberWire", tags = "1, 2")]
    item: Option<MemberWire>,
    #[prost(string, tag = "3")]
    room: String,
    #[prost(bytes = "bytes", tag = "4")]
    id: Bytes,
}

#[derive(Clone, PartialEq, Oneof)]
enum MemberWire {
    #[prost(bytes = "bytes", tag = "1")]
    Operation(Bytes),
    #[prost(bytes = "bytes", tag = "2")]
    Text(Bytes),
}

/// What a member says within MLS.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberItem {
    /// An operation on the group's state.
    Operation(Bytes),
    /// A message.
    Text {
        /// In which room; empty for the first.
        room: String,
        /// Its author's name for it, by which it is known when it has to be sent again.
        id: [u8; 16],
        /// What it says.
        payload: Bytes,
    },
}

impl MemberItem {
    /// The wire form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (item, room, id) = match self.clone() {
            Self::Operation(bytes) => (MemberWire::Operation(bytes), String::new(), Bytes::new()),
            Self::Text { room, id, payload } => {
                (MemberWire::Text(payload), room, Bytes::copy_from_slice(&id))
            }
        };
        MemberItemWire { item: Some(item), room, id }.encode_to_vec()
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`DecodeError`] when it is malformed.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let wire: MemberItemWire = decode_bounded(bytes.clone(), x0x_mls::MAX_PAYLOAD)?;
        Ok(match wire.item.ok_or(DecodeError::Field("item"))? {
            MemberWire::Operation(bytes) => Self::Operation(bytes),
            MemberWire::Text(payload) => {
                if !is_text(&wire.room, MAX_NAME) {
                    return Err(DecodeError::Field("room"));
                }
                Self::Text { room: wire.room, id: fixed_bytes(&wire.id, "id")?, payload }
            }
        })
    }
}
