//! Who stands behind a leaf: an agent's signature over the leaf's key.
//!
//! MLS knows leaf keys; x0x knows agents. The credential of a leaf is a statement, signed by the
//! agent's ML-DSA-65 key, that this key of this suite acts for it in groups. Every member verifies it
//! on every welcome, added member and commit. The agent's own key never signs for MLS.

use std::time::Duration;

use openmls::prelude::{Credential, CredentialType, CredentialWithKey};
use prost::Message;
use sha2::{Digest, Sha256};
use x0x_core::{AgentId, DecodeError, WallTime, decode_bounded, fixed_bytes};
use x0x_identity::{
    MAX_CLOCK_SKEW, PUBLIC_KEY_LEN, PublicKey, SIGNATURE_LEN, SecretKey, Signature,
};

use crate::{error::CredentialError, suite::Suite};

#[cfg(test)]
mod tests;

/// Domain of a credential's signature.
pub const CREDENTIAL_DOMAIN: &str = "x0x.mls.credential.1";
/// The credential's type in MLS; of the range for private use (RFC 9420 §17.5).
pub const CREDENTIAL_TYPE: u16 = 0xF0A1;
/// Longest validity of a credential.
pub const MAX_CREDENTIAL_VALIDITY: Duration = Duration::from_secs(366 * 24 * 3600);
/// Largest encoding in bytes.
pub const MAX_CREDENTIAL: usize = MAX_BODY + PUBLIC_KEY_LEN + SIGNATURE_LEN + 64;
const MAX_BODY: usize = 160;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SignedCredential {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) body: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) agent_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) signature: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CredentialBody {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) agent_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) leaf_key_hash: Vec<u8>,
    #[prost(uint32, tag = "3")]
    pub(crate) suite: u32,
    #[prost(uint64, tag = "4")]
    pub(crate) not_before_ms: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) not_after_ms: u64,
}

/// What an agent states about a leaf's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafCredential {
    /// Whose leaf it is.
    pub agent: AgentId,
    /// SHA-256 of the leaf's public signature key.
    pub leaf_key_hash: [u8; 32],
    /// The suite the key is for.
    pub suite: Suite,
    /// Start of the validity.
    pub not_before: WallTime,
    /// End of the validity; not part of it.
    pub not_after: WallTime,
}

/// States that `leaf_key` acts for the agent in groups of `suite`, from `now` on.
#[must_use]
pub fn issue_credential(
    agent: &SecretKey,
    suite: Suite,
    leaf_key: &[u8],
    now: WallTime,
    validity: Duration,
) -> Vec<u8> {
    let body = CredentialBody {
        agent_id: agent.public_key().agent_id().as_bytes().to_vec(),
        leaf_key_hash: Sha256::digest(leaf_key).to_vec(),
        suite: u32::from(suite.code()),
        not_before_ms: now.as_millis(),
        not_after_ms: (now + validity.min(MAX_CREDENTIAL_VALIDITY)).as_millis(),
    }
    .encode_to_vec();
    let signature = agent.sign(CREDENTIAL_DOMAIN, &body).as_bytes().to_vec();
    let agent_key = agent.public_key().as_bytes().to_vec();
    SignedCredential { body, agent_key, signature }.encode_to_vec()
}

/// A received credential: well-formed, not verified.
#[derive(Debug, Clone)]
pub struct LeafCredentialIn {
    claimed: LeafCredential,
    signed: SignedCredential,
}

impl LeafCredentialIn {
    /// Reads the fields of an encoded credential. Nothing is verified yet.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or a field is out of range.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let signed: SignedCredential = decode_bounded(bytes, MAX_CREDENTIAL)?;
        let body: CredentialBody = decode_bounded(signed.body.as_slice(), MAX_BODY)?;
        let code = u16::try_from(body.suite).ok();
        let claimed = LeafCredential {
            agent: AgentId::new(fixed_bytes(&body.agent_id, "agent_id")?),
            leaf_key_hash: fixed_bytes(&body.leaf_key_hash, "leaf_key_hash")?,
            suite: code.and_then(Suite::from_code).ok_or(DecodeError::Field("suite"))?,
            not_before: WallTime::from_millis(body.not_before_ms),
            not_after: WallTime::from_millis(body.not_after_ms),
        };
        Ok(Self { claimed, signed })
    }

    /// Checks that it is for this leaf key and suite, that its agent signed it, and that its span is
    /// one a credential may have. With `at`, also that it is valid then.
    ///
    /// Members that process a commit pass no time: two of them would judge by two clocks and part.
    /// The time is judged by whoever adds a member, and by the layer above from the log's own time.
    ///
    /// # Errors
    /// [`CredentialError`] with the first thing that is wrong.
    pub fn verify(
        self,
        suite: Suite,
        leaf_key: &[u8],
        at: Option<WallTime>,
    ) -> Result<LeafCredential, CredentialError> {
        let claimed = self.claimed;
        if claimed.suite != suite || claimed.leaf_key_hash != *Sha256::digest(leaf_key) {
            return Err(CredentialError::OtherKey);
        }
        let (start, end) = (claimed.not_before, claimed.not_after);
        if end <= start || end > start + MAX_CREDENTIAL_VALIDITY {
            return Err(CredentialError::Validity);
        }
        if at.is_some_and(|at| start > at + MAX_CLOCK_SKEW || end <= at) {
            return Err(CredentialError::NotValidNow);
        }
        let key = PublicKey::from_bytes(&self.signed.agent_key)?;
        if key.agent_id() != claimed.agent {
            return Err(CredentialError::WrongAgent);
        }
        let signature = Signature::from_bytes(&self.signed.signature)?;
        key.verify(CREDENTIAL_DOMAIN, &self.signed.body, &signature)?;
        Ok(claimed)
    }
}

/// The credential as MLS carries it.
pub(crate) fn with_key(encoded: Vec<u8>, leaf_key: &[u8]) -> CredentialWithKey {
    CredentialWithKey {
        credential: Credential::new(CredentialType::Other(CREDENTIAL_TYPE), encoded),
        signature_key: leaf_key.into(),
    }
}

/// Verifies the credential of a leaf as MLS carries it.
pub(crate) fn verify(
    credential: &Credential,
    suite: Suite,
    leaf_key: &[u8],
    at: Option<WallTime>,
) -> Result<LeafCredential, CredentialError> {
    if credential.credential_type() != CredentialType::Other(CREDENTIAL_TYPE) {
        return Err(CredentialError::Kind);
    }
    LeafCredentialIn::decode(credential.serialized_content())?.verify(suite, leaf_key, at)
}

/// The agent of a leaf whose credential was verified when it entered the group.
pub(crate) fn agent_of(credential: &Credential) -> Option<AgentId> {
    LeafCredentialIn::decode(credential.serialized_content()).ok().map(|c| c.claimed.agent)
}
