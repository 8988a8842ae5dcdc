//! Bounded decoding: the size is checked before a byte is parsed.

use prost::Message;

/// Bytes that are not the expected message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Larger than the message may be.
    #[error("message of {len} bytes exceeds the limit of {max}")]
    TooLarge {
        /// Bytes received.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not valid protobuf for this message.
    #[error("malformed message")]
    Malformed,
    /// A field is missing, of the wrong length, or out of range.
    #[error("invalid field: {0}")]
    Field(&'static str),
}

impl From<prost::DecodeError> for DecodeError {
    fn from(_: prost::DecodeError) -> Self {
        Self::Malformed
    }
}

/// Decodes a protobuf message of at most `max` bytes. Unknown fields are skipped.
///
/// # Errors
/// [`DecodeError::TooLarge`] before parsing, [`DecodeError::Malformed`] otherwise.
pub fn decode_bounded<M: Message + Default>(
    bytes: impl bytes::Buf,
    max: usize,
) -> Result<M, DecodeError> {
    let len = bytes.remaining();
    if len > max {
        return Err(DecodeError::TooLarge { len, max });
    }
    Ok(M::decode(bytes)?)
}

/// Takes a bytes field of exactly `N` bytes.
///
/// # Errors
/// [`DecodeError::Field`] naming the field when the length differs.
pub fn fixed_bytes<const N: usize>(
    field: &[u8],
    name: &'static str,
) -> Result<[u8; N], DecodeError> {
    field.try_into().map_err(|_| DecodeError::Field(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Sample {
        #[prost(bytes = "vec", tag = "1")]
        data: Vec<u8>,
    }

    #[test]
    fn size_is_checked_before_parsing() {
        let bytes = Sample { data: vec![1; 100] }.encode_to_vec();
        assert!(decode_bounded::<Sample>(&bytes[..], bytes.len()).is_ok());
        assert_eq!(
            decode_bounded::<Sample>(&bytes[..], 10),
            Err(DecodeError::TooLarge { len: bytes.len(), max: 10 })
        );
        assert_eq!(decode_bounded::<Sample>(&[0xff_u8; 4][..], 10), Err(DecodeError::Malformed));
        assert_eq!(fixed_bytes::<4>(&[0; 3], "nonce"), Err(DecodeError::Field("nonce")));
    }
}
