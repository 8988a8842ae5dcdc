//! How the state of a group is kept: a compact, self-describing encoding for serde.
//!
//! openmls leaves the encoding to its store and needs one that describes itself. Text costs four
//! bytes for each byte of a key; this one costs a tag for each value and keeps byte strings as they
//! are. A long list is cut into *chunks* of [`CHUNK_ITEMS`] items, so that a store writes only those
//! that changed: one message moves one ratchet of a group, and the other chunks stay.

use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

mod de;
mod ser;
#[cfg(test)]
mod tests;

/// Items of a long list that make one chunk.
pub const CHUNK_ITEMS: usize = 16;
/// Deepest nesting that is read. openmls' own types need less than a third.
const MAX_DEPTH: usize = 96;

/// One tag before each value.
mod tag {
    pub(super) const UNIT: u8 = 0;
    pub(super) const FALSE: u8 = 1;
    pub(super) const TRUE: u8 = 2;
    pub(super) const UNSIGNED: u8 = 3;
    pub(super) const NEGATIVE: u8 = 4;
    pub(super) const BYTES: u8 = 5;
    pub(super) const TEXT: u8 = 6;
    pub(super) const NONE: u8 = 7;
    pub(super) const SOME: u8 = 8;
    pub(super) const LIST: u8 = 9;
    pub(super) const MAP: u8 = 10;
    pub(super) const VARIANT: u8 = 11;
    pub(super) const OCTET: u8 = 12;
}

/// Why a value could not be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stored value: {0}")]
pub struct CodecError(String);

impl CodecError {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl serde::ser::Error for CodecError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl serde::de::Error for CodecError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// An encoded value, cut where long lists allow it. Erased when dropped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoded {
    /// The pieces; together they are the encoding.
    pub chunks: Vec<Zeroizing<Vec<u8>>>,
}

/// Encodes a value.
///
/// # Errors
/// [`CodecError`] when it holds what no state of a group holds: a float, or a list of unknown length.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Encoded, CodecError> {
    let mut writer = ser::Writer::default();
    value.serialize(&mut writer)?;
    Ok(writer.finish())
}

/// Reads a value from its chunks.
///
/// # Errors
/// [`CodecError`] when the bytes are not an encoding of a `T`, the whole of them.
pub fn decode<T: DeserializeOwned>(encoded: &Encoded) -> Result<T, CodecError> {
    match encoded.chunks.as_slice() {
        [one] => decode_slice(one),
        many => {
            let mut whole = Zeroizing::new(Vec::with_capacity(many.iter().map(|c| c.len()).sum()));
            for chunk in many {
                whole.extend_from_slice(chunk);
            }
            decode_slice(&whole)
        }
    }
}

fn decode_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let mut reader = de::Reader::new(bytes);
    let value = T::deserialize(&mut reader)?;
    if reader.is_empty() { Ok(value) } else { Err(CodecError::new("bytes left over")) }
}
