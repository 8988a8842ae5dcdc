//! What an agent tells everybody about identities, outside of sessions and announcements.
//!
//! A notice is either the agent's own standing, where it runs and who stands behind it, or a
//! revocation, which anybody may pass on. It travels as the payload of a gossip message on
//! [`NOTICE_TOPIC`]; what is in it proves itself, so the messenger need not be trusted.

use bytes::Bytes;
use prost::Message;
use x0x_core::{AgentId, DecodeError, WallTime, decode_bounded};

use crate::{
    binding::{MAX_SIGNED_BINDING, SignedBinding, SignedBindingIn, VerifiedBinding},
    certificate::{
        MAX_SIGNED_CERTIFICATE, SignedCertificate, SignedCertificateIn, VerifiedCertificate,
    },
    error::NoticeError,
    revocation::{MAX_SIGNED_REVOCATION, SignedRevocation, SignedRevocationIn},
};

#[cfg(test)]
mod tests;

/// Name of the topic of notices.
pub const NOTICE_TOPIC: &str = "x0x.identity.notices.1";
/// Largest notice in bytes.
pub const MAX_NOTICE: usize = MAX_SIGNED_REVOCATION + 64;

const _: () = assert!(MAX_SIGNED_BINDING + MAX_SIGNED_CERTIFICATE <= MAX_SIGNED_REVOCATION);

#[derive(Clone, PartialEq, Message)]
struct NoticeMessage {
    #[prost(bytes = "bytes", optional, tag = "1")]
    binding: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    certificate: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    revocation: Option<Bytes>,
}

/// Something to tell everybody.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Notice {
    /// The agent's own standing.
    Agent {
        /// Where it runs.
        binding: SignedBinding,
        /// Who stands behind it, if it is to be told.
        certificate: Option<SignedCertificate>,
    },
    /// A key that is not to be trusted any more.
    Revocation(SignedRevocation),
}

impl Notice {
    /// The wire form, at most [`MAX_NOTICE`] bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let message = match self {
            Self::Agent { binding, certificate } => NoticeMessage {
                binding: Some(binding.encode()),
                certificate: certificate.as_ref().map(SignedCertificate::encode),
                revocation: None,
            },
            Self::Revocation(revocation) => {
                NoticeMessage { revocation: Some(revocation.encode()), ..NoticeMessage::default() }
            }
        };
        message.encode_to_vec().into()
    }

    /// Reads a notice. Nothing is verified yet.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or says nothing.
    pub fn decode(bytes: &[u8]) -> Result<NoticeIn, DecodeError> {
        let message: NoticeMessage = decode_bounded(bytes, MAX_NOTICE)?;
        match (message.binding, message.certificate, message.revocation) {
            (Some(binding), certificate, None) => {
                let certificate = certificate.map(|bytes| SignedCertificate::decode(&bytes));
                Ok(NoticeIn::Agent(Box::new(AgentNoticeIn {
                    binding: SignedBinding::decode(&binding)?,
                    certificate: certificate.transpose()?,
                })))
            }
            (None, None, Some(revocation)) => {
                Ok(NoticeIn::Revocation(Box::new(SignedRevocation::decode(&revocation)?)))
            }
            _ => Err(DecodeError::Field("notice")),
        }
    }
}

/// A received notice: well-formed, not verified.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum NoticeIn {
    /// An agent's standing.
    Agent(Box<AgentNoticeIn>),
    /// A revocation.
    Revocation(Box<SignedRevocationIn>),
}

/// A received standing: well-formed, not verified.
#[derive(Debug, Clone)]
pub struct AgentNoticeIn {
    binding: SignedBindingIn,
    certificate: Option<SignedCertificateIn>,
}

impl AgentNoticeIn {
    /// Checks that the agent is the `author` whose signature brought the notice, and both statements
    /// at time `now`. That the machine agrees only a session shows.
    ///
    /// # Errors
    /// [`NoticeError`] with the first thing that is wrong.
    pub fn verify(
        self,
        author: AgentId,
        now: WallTime,
    ) -> Result<(VerifiedBinding, Option<VerifiedCertificate>), NoticeError> {
        if self.binding.claimed_agent() != author {
            return Err(NoticeError::WrongAuthor);
        }
        let machine = self.binding.claimed_machine();
        let binding = self.binding.verify(machine, now)?;
        let certificate = self.certificate.map(|certificate| certificate.verify(author, now));
        Ok((binding, certificate.transpose()?))
    }
}
