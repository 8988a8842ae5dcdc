//! A user's signed statement that an agent acts for them, and the agent's acceptance of it.
//!
//! A certificate alone proves the user's side: anybody can certify anybody. The agent's side shows
//! when the agent itself presents the certificate, in its announcement or its card. Where that is not
//! the case, an [`AcceptedCertificate`] has both: the agent signs the certificate too. It is kept with
//! the keys and shown only in a revocation, which must convince machines that never met the agent.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use x0x_core::{AgentId, DecodeError, UserId, WallTime, decode_bounded, fixed_bytes};

use crate::{
    envelope::{self, OVERHEAD, SignedIn},
    error::{CertificateError, SignerError},
    keys::{PublicKey, SecretKey},
};

#[cfg(test)]
mod tests;

/// Domain of a certificate's signature.
pub const CERTIFICATE_DOMAIN: &str = "x0x.identity.certificate.1";
/// Domain of the signature by which the agent accepts a certificate.
pub const ACCEPTANCE_DOMAIN: &str = "x0x.identity.acceptance.1";
/// Longest validity of a certificate. A user who lost their key cannot revoke; this ends it anyway.
pub const MAX_CERTIFICATE_VALIDITY: Duration = Duration::from_secs(400 * 24 * 3600);
/// Validity that is given unless another is asked for.
pub const CERTIFICATE_VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);
/// Largest encoding of a signed certificate in bytes: a body, a key and a signature.
pub const MAX_SIGNED_CERTIFICATE: usize = MAX_BODY + OVERHEAD;
/// Largest encoding of an accepted certificate in bytes.
pub const MAX_ACCEPTED_CERTIFICATE: usize = MAX_SIGNED_CERTIFICATE + OVERHEAD;
/// Largest body in bytes. Twice what version 1 needs, so that fields can be added.
const MAX_BODY: usize = 192;

/// What a user states about an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AgentCertificate {
    /// Who states it.
    pub user: UserId,
    /// Who acts for the user.
    pub agent: AgentId,
    /// Grows with each renewal: of two certificates for one agent the greater counts.
    pub serial: u64,
    /// Start of the validity.
    pub not_before: WallTime,
    /// End of the validity; not part of it.
    pub not_after: WallTime,
}

impl AgentCertificate {
    /// Whether a third of the validity or less is left, so that it should be renewed: often enough
    /// that a machine which was off for months still shows a good one.
    #[must_use]
    pub fn renewal_due(&self, now: WallTime) -> bool {
        let whole = self.not_after.as_millis().saturating_sub(self.not_before.as_millis());
        let left = self.not_after.as_millis().saturating_sub(now.as_millis());
        left <= whole / 3 || now < self.not_before
    }
}

#[derive(Clone, PartialEq, Message)]
struct CertificateBody {
    #[prost(bytes = "vec", tag = "1")]
    user_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    agent_id: Vec<u8>,
    #[prost(uint64, tag = "3")]
    serial: u64,
    #[prost(uint64, tag = "4")]
    not_before_ms: u64,
    #[prost(uint64, tag = "5")]
    not_after_ms: u64,
}

/// A certificate that this process issued, with its encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCertificate {
    certificate: AgentCertificate,
    encoded: Bytes,
}

impl SignedCertificate {
    /// States that `agent` acts for the user, from `now` on. The serial is the time in milliseconds,
    /// which orders renewals without a counter to keep. A validity above
    /// [`MAX_CERTIFICATE_VALIDITY`] is cut to it, since nobody would accept it.
    #[must_use]
    pub fn issue(user: &SecretKey, agent: AgentId, now: WallTime, validity: Duration) -> Self {
        let certificate = AgentCertificate {
            user: user.public_key().user_id(),
            agent,
            serial: now.as_millis(),
            not_before: now,
            not_after: now + validity.min(MAX_CERTIFICATE_VALIDITY),
        };
        let encoded = envelope::seal(user, CERTIFICATE_DOMAIN, encode_body(&certificate));
        Self { certificate, encoded }
    }

    /// What was stated.
    #[must_use]
    pub const fn certificate(&self) -> &AgentCertificate {
        &self.certificate
    }

    /// The wire form, at most [`MAX_SIGNED_CERTIFICATE`] bytes. Cheap: it is kept.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.encoded.clone()
    }

    /// Reads a certificate's fields. Nothing is verified yet.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or a field has the wrong length.
    pub fn decode(bytes: &[u8]) -> Result<SignedCertificateIn, DecodeError> {
        let signed = envelope::open(bytes, MAX_BODY, "user_key")?;
        let body: CertificateBody = decode_bounded(signed.body.clone(), MAX_BODY)?;
        let claimed = AgentCertificate {
            user: UserId::new(fixed_bytes(&body.user_id, "user_id")?),
            agent: AgentId::new(fixed_bytes(&body.agent_id, "agent_id")?),
            serial: body.serial,
            not_before: WallTime::from_millis(body.not_before_ms),
            not_after: WallTime::from_millis(body.not_after_ms),
        };
        Ok(SignedCertificateIn { claimed, signed, encoded: Bytes::copy_from_slice(bytes) })
    }
}

fn encode_body(certificate: &AgentCertificate) -> Vec<u8> {
    CertificateBody {
        user_id: certificate.user.as_bytes().to_vec(),
        agent_id: certificate.agent.as_bytes().to_vec(),
        serial: certificate.serial,
        not_before_ms: certificate.not_before.as_millis(),
        not_after_ms: certificate.not_after.as_millis(),
    }
    .encode_to_vec()
}

/// A received certificate: well-formed, not verified.
#[derive(Debug, Clone)]
pub struct SignedCertificateIn {
    claimed: AgentCertificate,
    signed: SignedIn,
    encoded: Bytes,
}

impl SignedCertificateIn {
    /// What it claims. Only for looking up what is known already.
    #[must_use]
    pub const fn claimed(&self) -> &AgentCertificate {
        &self.claimed
    }

    /// Checks everything: that it is for `agent`, the one who presents it, valid at `now`, and signed
    /// by its user. The signature comes last, since it costs most.
    ///
    /// # Errors
    /// [`CertificateError`] with the first thing that is wrong.
    pub fn verify(
        self,
        agent: AgentId,
        now: WallTime,
    ) -> Result<VerifiedCertificate, CertificateError> {
        let (start, end) = (self.claimed.not_before, self.claimed.not_after);
        if self.claimed.agent != agent {
            return Err(CertificateError::WrongAgent);
        }
        envelope::check_validity(start, end, MAX_CERTIFICATE_VALIDITY, now)?;
        self.verify_signature().map_err(CertificateError::Signer)
    }

    /// Checks that the user signed it, at whatever time.
    fn verify_signature(self) -> Result<VerifiedCertificate, SignerError> {
        let user_key = self.signed.verify(CERTIFICATE_DOMAIN, self.claimed.user.as_bytes())?;
        Ok(VerifiedCertificate { certificate: self.claimed, user_key, encoded: self.encoded })
    }
}

/// A certificate that holds. Only [`SignedCertificateIn::verify`] makes one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VerifiedCertificate {
    /// What the user stated.
    pub certificate: AgentCertificate,
    /// The user's key.
    pub user_key: PublicKey,
    encoded: Bytes,
}

impl VerifiedCertificate {
    /// The wire form, as it was received.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.encoded.clone()
    }
}

impl From<VerifiedCertificate> for SignedCertificate {
    fn from(verified: VerifiedCertificate) -> Self {
        Self { certificate: verified.certificate, encoded: verified.encoded }
    }
}

/// A certificate that its agent has signed too, with its encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedCertificate {
    certificate: SignedCertificate,
    encoded: Bytes,
}

impl AcceptedCertificate {
    /// The agent accepts a certificate. `None` when it is another agent's.
    #[must_use]
    pub fn accept(agent: &SecretKey, certificate: SignedCertificate) -> Option<Self> {
        if certificate.certificate.agent != agent.public_key().agent_id() {
            return None;
        }
        let encoded = envelope::seal(agent, ACCEPTANCE_DOMAIN, certificate.encode());
        Some(Self { certificate, encoded })
    }

    /// The certificate.
    #[must_use]
    pub const fn certificate(&self) -> &SignedCertificate {
        &self.certificate
    }

    /// The wire form, at most [`MAX_ACCEPTED_CERTIFICATE`] bytes. Cheap: it is kept.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.encoded.clone()
    }

    /// Reads an accepted certificate's fields. Nothing is verified yet.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or a field has the wrong length.
    pub fn decode(bytes: &[u8]) -> Result<AcceptedCertificateIn, DecodeError> {
        let accepted = envelope::open(bytes, MAX_SIGNED_CERTIFICATE, "agent_key")?;
        let certificate = SignedCertificate::decode(&accepted.body)?;
        Ok(AcceptedCertificateIn { certificate, accepted, encoded: Bytes::copy_from_slice(bytes) })
    }
}

/// A received accepted certificate: well-formed, not verified.
#[derive(Debug, Clone)]
pub struct AcceptedCertificateIn {
    certificate: SignedCertificateIn,
    accepted: SignedIn,
    encoded: Bytes,
}

impl AcceptedCertificateIn {
    /// What the certificate in it claims. Only for looking up what is known already.
    #[must_use]
    pub const fn claimed(&self) -> &AgentCertificate {
        &self.certificate.claimed
    }

    /// Checks both signatures, at whatever time: the bond between user and agent was real, even if
    /// its validity is over.
    ///
    /// # Errors
    /// [`CertificateError`] with the first signature that is wrong.
    pub fn verify(self) -> Result<AcceptedCertificate, CertificateError> {
        let agent = self.certificate.claimed.agent;
        let accepted = self.accepted.verify(ACCEPTANCE_DOMAIN, agent.as_bytes());
        accepted.map_err(CertificateError::Acceptance)?;
        let certificate = self.certificate.verify_signature()?.into();
        Ok(AcceptedCertificate { certificate, encoded: self.encoded })
    }
}
