//! The one shape of everything that this layer signs: a body, the signer's key, the signature.
//!
//! The signature covers the received body bytes exactly, since protobuf has no canonical form. A
//! reader takes the parts out first ([`open`]), reads the body, checks what costs nothing, and
//! verifies the signature last ([`SignedIn::verify`]).

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use x0x_core::{DecodeError, WallTime, decode_bounded, fixed_bytes};

use crate::{
    error::{SignerError, ValidityError},
    keys::{PUBLIC_KEY_LEN, PublicKey, SIGNATURE_LEN, SecretKey, Signature},
};

/// How far ahead the issuer's clock may be.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// Bytes that an envelope adds to its body, with room for the tags and lengths of its fields.
pub(crate) const OVERHEAD: usize = PUBLIC_KEY_LEN + SIGNATURE_LEN + 64;

/// The wire form. Each kind of statement has its own name for it in the schema.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Envelope {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) body: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) key: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) signature: Bytes,
}

/// Signs a body and wraps it.
pub(crate) fn seal(signer: &SecretKey, domain: &'static str, body: impl Into<Bytes>) -> Bytes {
    let body = body.into();
    let signature = signer.sign(domain, &body);
    let envelope = Envelope {
        body,
        key: Bytes::copy_from_slice(signer.public_key().as_bytes()),
        signature: Bytes::copy_from_slice(signature.as_bytes()),
    };
    envelope.encode_to_vec().into()
}

/// Takes an envelope apart whose body has at most `max_body` bytes. Nothing is verified yet.
pub(crate) fn open(
    bytes: &[u8],
    max_body: usize,
    key_field: &'static str,
) -> Result<SignedIn, DecodeError> {
    let envelope: Envelope = decode_bounded(bytes, max_body + OVERHEAD)?;
    let len = envelope.body.len();
    if len > max_body {
        return Err(DecodeError::TooLarge { len, max: max_body });
    }
    let signature =
        Signature::from_bytes(&envelope.signature).map_err(|_| DecodeError::Field("signature"))?;
    let key = Box::new(fixed_bytes(&envelope.key, key_field)?);
    Ok(SignedIn { body: envelope.body, key, signature })
}

/// A received envelope: well-formed, not verified.
#[derive(Debug, Clone)]
pub(crate) struct SignedIn {
    pub(crate) body: Bytes,
    key: Box<[u8; PUBLIC_KEY_LEN]>,
    signature: Signature,
}

impl SignedIn {
    /// Checks that the key hashes to `signer`, the raw bytes of an id, and that it signed the body.
    pub(crate) fn verify(
        &self,
        domain: &'static str,
        signer: &[u8; 32],
    ) -> Result<PublicKey, SignerError> {
        let key = PublicKey::from_bytes(self.key.as_slice())?;
        if key.agent_id().as_bytes() != signer {
            return Err(SignerError::WrongKey);
        }
        key.verify(domain, &self.body, &self.signature)?;
        Ok(key)
    }
}

/// Checks a span of time against the longest that its kind of statement may have, and against `now`.
pub(crate) fn check_validity(
    start: WallTime,
    end: WallTime,
    longest: Duration,
    now: WallTime,
) -> Result<(), ValidityError> {
    if end <= start || end > start + longest {
        return Err(ValidityError::Length);
    }
    if start > now + MAX_CLOCK_SKEW {
        return Err(ValidityError::NotYetValid);
    }
    if end <= now {
        return Err(ValidityError::Expired);
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod testing {
    //! What the tests of every signed statement need.

    use data_encoding::HEXLOWER;

    use super::*;

    /// The bytes of a vector in `tests/vectors/`.
    pub(crate) fn vector(text: &str) -> Vec<u8> {
        HEXLOWER.decode(text.replace('\n', "").as_bytes()).expect("hex")
    }

    /// The parts of an encoding that do not depend on the randomness of a signature.
    pub(crate) fn fixed_parts(bytes: &[u8]) -> (Bytes, Bytes) {
        let envelope = Envelope::decode(bytes).expect("own form");
        (envelope.body, envelope.key)
    }

    /// The same statement with another body, the signature left as it was.
    pub(crate) fn with_body(bytes: &[u8], body: Vec<u8>) -> Vec<u8> {
        let envelope = Envelope::decode(bytes).expect("own form");
        Envelope { body: body.into(), ..envelope }.encode_to_vec()
    }
}
