//! The one shape of what is signed here: a body, the signer's key, the signature over the body's bytes.

use bytes::Bytes;
use prost::Message;
use x0x_core::{AgentId, DecodeError, decode_bounded};
use x0x_identity::{PUBLIC_KEY_LEN, PublicKey, SIGNATURE_LEN, SecretKey, Signature};

use crate::error::SignedError;

/// Bytes that the envelope adds to a body.
pub(super) const OVERHEAD: usize = PUBLIC_KEY_LEN + SIGNATURE_LEN + 64;

#[derive(Clone, PartialEq, Message)]
pub(super) struct SignedWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) body: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) key: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) signature: Bytes,
}

impl SignedWire {
    pub(super) fn sign(key: &SecretKey, domain: &'static str, body: Vec<u8>) -> Self {
        let signature = Bytes::copy_from_slice(key.sign(domain, &body).as_bytes());
        let key = Bytes::copy_from_slice(key.public_key().as_bytes());
        Self { body: body.into(), key, signature }
    }

    pub(super) fn decode_bounded(bytes: &[u8], max_body: usize) -> Result<Self, DecodeError> {
        let wire: Self = decode_bounded(bytes, max_body + OVERHEAD)?;
        if wire.body.len() > max_body {
            return Err(DecodeError::TooLarge { len: wire.body.len(), max: max_body });
        }
        for (field, len, name) in
            [(&wire.key, PUBLIC_KEY_LEN, "key"), (&wire.signature, SIGNATURE_LEN, "signature")]
        {
            if field.len() != len {
                return Err(DecodeError::Field(name));
            }
        }
        Ok(wire)
    }

    /// That `agent` signed the body.
    pub(super) fn verify(&self, domain: &'static str, agent: &AgentId) -> Result<(), SignedError> {
        verify(&self.key, &self.signature, domain, agent, &self.body)
    }
}

/// That the key is the agent's and signed the body.
pub(super) fn verify(
    key: &[u8],
    signature: &[u8],
    domain: &'static str,
    agent: &AgentId,
    body: &[u8],
) -> Result<(), SignedError> {
    let key = PublicKey::from_bytes(key)?;
    if key.agent_id() != *agent {
        return Err(SignedError::WrongKey);
    }
    key.verify(domain, body, &Signature::from_bytes(signature)?)?;
    Ok(())
}
