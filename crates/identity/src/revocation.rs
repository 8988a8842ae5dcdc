//! A signed statement that a key is not to be trusted any more: of a machine, an agent or a user.
//!
//! It is signed by the key itself, or, for an agent, by a user whose certificate the agent had
//! accepted. Permanent: it has no end, nothing takes it back, and its time is for people to read; a
//! clock that is wrong must not make it void. That the certificate has expired meanwhile changes
//! nothing.

use bytes::Bytes;
use prost::Message;
use x0x_core::{AgentId, DecodeError, MachineId, UserId, WallTime, decode_bounded, fixed_bytes};

use crate::{
    certificate::{AcceptedCertificate, AcceptedCertificateIn, MAX_ACCEPTED_CERTIFICATE},
    envelope::{self, OVERHEAD, SignedIn},
    error::{RevocationError, TextError},
    keys::SecretKey,
    text::{check_text, read_text},
};

#[cfg(test)]
mod tests;

/// Domain of a revocation's signature.
pub const REVOCATION_DOMAIN: &str = "x0x.identity.revocation.1";
/// Longest reason in bytes.
pub const MAX_REASON: usize = 256;
/// Largest encoding of a signed revocation in bytes: with an accepted certificate in it.
pub const MAX_SIGNED_REVOCATION: usize = MAX_BODY + OVERHEAD;
/// Largest body in bytes, with room for fields to come.
const MAX_BODY: usize = MAX_ACCEPTED_CERTIFICATE + MAX_REASON + 192;

/// Whose key is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Subject {
    /// A machine.
    Machine(MachineId),
    /// An agent, wherever it runs.
    Agent(AgentId),
    /// A user, and with them every agent that acts for them.
    User(UserId),
}

impl Subject {
    /// The raw id.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        match self {
            Self::Machine(id) => id.as_bytes(),
            Self::Agent(id) => id.as_bytes(),
            Self::User(id) => id.as_bytes(),
        }
    }

    /// What it is: `machine`, `agent` or `user`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Machine(_) => "machine",
            Self::Agent(_) => "agent",
            Self::User(_) => "user",
        }
    }

    const fn number(self) -> u32 {
        match self {
            Self::Machine(_) => 1,
            Self::Agent(_) => 2,
            Self::User(_) => 3,
        }
    }

    fn read(kind: u32, id: &[u8]) -> Result<Self, DecodeError> {
        let id = fixed_bytes(id, "subject_id")?;
        match kind {
            1 => Ok(Self::Machine(MachineId::new(id))),
            2 => Ok(Self::Agent(AgentId::new(id))),
            3 => Ok(Self::User(UserId::new(id))),
            _ => Err(DecodeError::Field("subject")),
        }
    }
}

/// What is revoked, by whom and why. A received one comes only from [`SignedRevocationIn::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Whose key.
    pub subject: Subject,
    /// The user who revoked their agent; `None` when the key revoked itself.
    pub by_user: Option<UserId>,
    /// When, by the clock of who did.
    pub revoked_at: WallTime,
    /// Why, for people to read; at most [`MAX_REASON`] bytes, perhaps none.
    pub reason: String,
}

#[derive(Clone, PartialEq, Message)]
struct RevocationBody {
    #[prost(uint32, tag = "1")]
    subject: u32,
    #[prost(bytes = "vec", tag = "2")]
    subject_id: Vec<u8>,
    #[prost(uint64, tag = "3")]
    revoked_at_ms: u64,
    #[prost(string, tag = "4")]
    reason: String,
    #[prost(bytes = "bytes", optional, tag = "5")]
    certificate: Option<Bytes>,
}

/// A revocation that this process issued, with its encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRevocation {
    revocation: Revocation,
    encoded: Bytes,
}

impl SignedRevocation {
    /// The machine's key revokes itself.
    ///
    /// # Errors
    /// [`TextError`] for a reason that nobody would accept.
    pub fn of_machine(key: &SecretKey, now: WallTime, reason: &str) -> Result<Self, TextError> {
        Self::issue(key, Subject::Machine(key.public_key().machine_id()), None, now, reason)
    }

    /// The agent's key revokes itself.
    ///
    /// # Errors
    /// [`TextError`] for a reason that nobody would accept.
    pub fn of_agent(key: &SecretKey, now: WallTime, reason: &str) -> Result<Self, TextError> {
        Self::issue(key, Subject::Agent(key.public_key().agent_id()), None, now, reason)
    }

    /// The user's key revokes itself, and with it all that it has certified.
    ///
    /// # Errors
    /// [`TextError`] for a reason that nobody would accept.
    pub fn of_user(key: &SecretKey, now: WallTime, reason: &str) -> Result<Self, TextError> {
        Self::issue(key, Subject::User(key.public_key().user_id()), None, now, reason)
    }

    /// The user revokes an agent that accepted their certificate. Nobody believes it when the
    /// certificate is another user's.
    ///
    /// # Errors
    /// [`TextError`] for a reason that nobody would accept.
    pub fn of_certified(
        user: &SecretKey,
        certificate: &AcceptedCertificate,
        now: WallTime,
        reason: &str,
    ) -> Result<Self, TextError> {
        let agent = certificate.certificate().certificate().agent;
        Self::issue(user, Subject::Agent(agent), Some(certificate), now, reason)
    }

    fn issue(
        key: &SecretKey,
        subject: Subject,
        certificate: Option<&AcceptedCertificate>,
        now: WallTime,
        reason: &str,
    ) -> Result<Self, TextError> {
        check_text("reason", reason, MAX_REASON)?;
        let body = RevocationBody {
            subject: subject.number(),
            subject_id: subject.as_bytes().to_vec(),
            revoked_at_ms: now.as_millis(),
            reason: reason.to_owned(),
            certificate: certificate.map(AcceptedCertificate::encode),
        };
        let revocation = Revocation {
            subject,
            by_user: certificate.map(|accepted| accepted.certificate().certificate().user),
            revoked_at: now,
            reason: reason.to_owned(),
        };
        let encoded = envelope::seal(key, REVOCATION_DOMAIN, body.encode_to_vec());
        Ok(Self { revocation, encoded })
    }

    /// What is revoked.
    #[must_use]
    pub const fn revocation(&self) -> &Revocation {
        &self.revocation
    }

    /// The wire form, at most [`MAX_SIGNED_REVOCATION`] bytes. Cheap: it is kept.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.encoded.clone()
    }

    /// Reads a revocation's fields. Nothing is verified yet.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or a field is out of range.
    pub fn decode(bytes: &[u8]) -> Result<SignedRevocationIn, DecodeError> {
        let signed = envelope::open(bytes, MAX_BODY, "key")?;
        let body: RevocationBody = decode_bounded(signed.body.clone(), MAX_BODY)?;
        let certificate = body.certificate.map(|bytes| AcceptedCertificate::decode(&bytes));
        let certificate = certificate.transpose()?;
        let claimed = Revocation {
            subject: Subject::read(body.subject, &body.subject_id)?,
            by_user: certificate.as_ref().map(|certificate| certificate.claimed().user),
            revoked_at: WallTime::from_millis(body.revoked_at_ms),
            reason: read_text("reason", body.reason, MAX_REASON)?,
        };
        Ok(SignedRevocationIn {
            claimed,
            certificate: certificate.map(Box::new),
            signed,
            encoded: Bytes::copy_from_slice(bytes),
        })
    }
}

/// A received revocation: well-formed, not verified.
#[derive(Debug, Clone)]
pub struct SignedRevocationIn {
    claimed: Revocation,
    certificate: Option<Box<AcceptedCertificateIn>>,
    signed: SignedIn,
    encoded: Bytes,
}

impl SignedRevocationIn {
    /// Whose key it claims to revoke. Only for looking up what is known already: a subject that is
    /// revoked needs no second proof.
    #[must_use]
    pub const fn claimed_subject(&self) -> Subject {
        self.claimed.subject
    }

    /// The wire form as it was received. Only for looking up whether it is one that is known.
    #[must_use]
    pub const fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// Checks everything, at whatever time.
    ///
    /// # Errors
    /// [`RevocationError`] with the first thing that is wrong.
    pub fn verify(self) -> Result<SignedRevocation, RevocationError> {
        let signer = match (self.certificate, self.claimed.subject) {
            (None, subject) => *subject.as_bytes(),
            (Some(certificate), Subject::Agent(agent)) if certificate.claimed().agent == agent => {
                *certificate.verify()?.certificate().certificate().user.as_bytes()
            }
            (Some(_), _) => return Err(RevocationError::NoRight),
        };
        self.signed.verify(REVOCATION_DOMAIN, &signer)?;
        Ok(SignedRevocation { revocation: self.claimed, encoded: self.encoded })
    }
}
