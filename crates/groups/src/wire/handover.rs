//! What a member hands to one that comes in, comes back, or is behind: in an authenticated session or a
//! sealed letter.

use bytes::Bytes;
use prost::Message;
use x0x_core::{DecodeError, decode_bounded};

use crate::limits::MAX_OPERATIONS;

/// Largest handover in bytes: a full group's operations, a welcome and a tree.
pub const MAX_HANDOVER: usize = 192 * 1024 * 1024;

/// What is handed over. Nothing of it is believed before it is verified.
#[derive(Clone, PartialEq, Message)]
pub struct Handover {
    /// Operations, each after those that it builds upon.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub operations: Vec<Bytes>,
    /// The group's keys, for who was added.
    #[prost(bytes = "bytes", tag = "2")]
    pub welcome: Bytes,
    /// What is needed to come in by an own commit.
    #[prost(bytes = "bytes", tag = "3")]
    pub info: Bytes,
    /// The ratchet tree, when the welcome or the info names one.
    #[prost(bytes = "bytes", tag = "4")]
    pub tree: Bytes,
}

impl Handover {
    /// Reads one.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or a field is out of range.
    pub fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let read: Self = decode_bounded(Bytes::copy_from_slice(bytes), MAX_HANDOVER)?;
        if read.operations.len() > MAX_OPERATIONS {
            return Err(DecodeError::Field("operations"));
        }
        Ok(read)
    }
}
