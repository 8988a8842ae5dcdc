//! What somebody outside a group says to it: that it redeems an invite, wants to join, or does not want
//! to any more. A member brings it before the group within an operation of its own.

use bytes::Bytes;
use prost::Message;
use x0x_core::{AgentId, DecodeError, WallTime, decode_bounded, fixed_bytes};
use x0x_identity::{PUBLIC_KEY_LEN, SIGNATURE_LEN, SecretKey};

use super::{GroupId, hash, is_text, signed};
use crate::{
    error::SignedError,
    limits::{MAX_DISPLAY_NAME, MAX_TEXT},
};

/// Domain of a statement's signature.
pub const STATEMENT_DOMAIN: &str = "x0x.groups.statement.1";
/// Domain of an invite's signature over the statement that redeems it.
pub const INVITE_DOMAIN: &str = "x0x.groups.invite.1";

const MAX_BODY: usize = 2048;
const MAX_STATEMENT: usize = MAX_BODY + 2 * (PUBLIC_KEY_LEN + SIGNATURE_LEN) + 64;

#[derive(Clone, PartialEq, Message)]
pub(super) struct StatementWire {
    #[prost(bytes = "bytes", tag = "1")]
    body: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    signature: Bytes,
    /// Of a redemption: the invite's key and its signature over the body.
    #[prost(bytes = "bytes", tag = "4")]
    invite_key: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    invite_signature: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StatementBody {
    #[prost(bytes = "bytes", tag = "1")]
    group: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    agent: Bytes,
    #[prost(uint64, tag = "3")]
    at_ms: u64,
    /// The id of the invite's key, of a redemption.
    #[prost(bytes = "bytes", tag = "4")]
    invite: Bytes,
    /// The request, when it is taken back.
    #[prost(bytes = "bytes", tag = "5")]
    request: Bytes,
    /// The display name of who redeems; what a request says.
    #[prost(string, tag = "6")]
    text: String,
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claim {
    /// It redeems an invite.
    Redeem {
        /// The id of the invite's key.
        invite: AgentId,
        /// Its name in the group; may be empty.
        display_name: String,
    },
    /// It asks to be admitted.
    Request {
        /// What it says to it; may be empty.
        message: String,
    },
    /// It takes a request back.
    Cancel {
        /// The request's id.
        request: [u8; 32],
    },
}

/// A statement.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statement {
    /// To which group.
    pub group: GroupId,
    /// Who says it.
    pub agent: AgentId,
    /// When.
    pub at: WallTime,
    /// What.
    pub claim: Claim,
    encoded: Bytes,
    id: [u8; 32],
}

/// A received statement: well-formed, not verified.
#[derive(Debug, Clone)]
pub struct StatementIn(Statement);

fn body_of(group: GroupId, agent: AgentId, at: WallTime, claim: &Claim) -> Vec<u8> {
    let (invite, request, text) = match claim {
        Claim::Redeem { invite, display_name } => {
            (invite.as_bytes().as_slice(), &[][..], display_name)
        }
        Claim::Request { message } => (&[][..], &[][..], message),
        Claim::Cancel { request } => (&[][..], request.as_slice(), &String::new()),
    };
    StatementBody {
        group: Bytes::copy_from_slice(group.as_bytes()),
        agent: Bytes::copy_from_slice(agent.as_bytes()),
        at_ms: at.as_millis(),
        invite: Bytes::copy_from_slice(invite),
        request: Bytes::copy_from_slice(request),
        text: text.clone(),
    }
    .encode_to_vec()
}

impl Statement {
    fn make(
        group: GroupId,
        key: &SecretKey,
        at: WallTime,
        claim: Claim,
        invite: Option<&SecretKey>,
    ) -> Self {
        let agent = key.public_key().agent_id();
        let body = body_of(group, agent, at, &claim);
        let by = |key: &SecretKey, domain| {
            let signature = key.sign(domain, &body);
            let key = Bytes::copy_from_slice(key.public_key().as_bytes());
            (key, Bytes::copy_from_slice(signature.as_bytes()))
        };
        let (invite_key, invite_signature) =
            invite.map(|invite| by(invite, INVITE_DOMAIN)).unwrap_or_default();
        let (key, signature) = by(key, STATEMENT_DOMAIN);
        let id = hash("x0x.groups.statement.id.1", &[&body]);
        let wire =
            StatementWire { body: body.into(), key, signature, invite_key, invite_signature };
        Self { group, agent, at, claim, encoded: wire.encode_to_vec().into(), id }
    }

    /// Redeems an invite, whose key follows from the link's secret.
    #[must_use]
    pub fn redeem(
        group: GroupId,
        key: &SecretKey,
        invite: &SecretKey,
        display_name: &str,
        at: WallTime,
    ) -> Self {
        let id = invite.public_key().agent_id();
        let claim = Claim::Redeem { invite: id, display_name: display_name.to_owned() };
        Self::make(group, key, at, claim, Some(invite))
    }

    /// Asks to be admitted.
    #[must_use]
    pub fn request(group: GroupId, key: &SecretKey, message: &str, at: WallTime) -> Self {
        Self::make(group, key, at, Claim::Request { message: message.to_owned() }, None)
    }

    /// Takes a request back.
    #[must_use]
    pub fn cancel(group: GroupId, key: &SecretKey, request: [u8; 32], at: WallTime) -> Self {
        Self::make(group, key, at, Claim::Cancel { request }, None)
    }

    /// The hash of what is said: the id of a request.
    #[must_use]
    pub const fn id(&self) -> [u8; 32] {
        self.id
    }

    /// The wire form.
    #[must_use]
    pub const fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// Checks the agent's signature, and of a redemption the invite's.
    pub(crate) fn check(&self) -> Result<(), SignedError> {
        let wire: StatementWire = decode_bounded(self.encoded.clone(), MAX_STATEMENT)?;
        signed::verify(&wire.key, &wire.signature, STATEMENT_DOMAIN, &self.agent, &wire.body)?;
        if let Claim::Redeem { invite, .. } = &self.claim {
            let (key, signature) = (&wire.invite_key, &wire.invite_signature);
            signed::verify(key, signature, INVITE_DOMAIN, invite, &wire.body)?;
        }
        Ok(())
    }
}

impl StatementIn {
    /// Reads a statement. Nothing is verified yet.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or a field is out of range.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let wire: StatementWire = decode_bounded(bytes, MAX_STATEMENT)?;
        let body: StatementBody = decode_bounded(wire.body.clone(), MAX_BODY)?;
        let claim = match (body.invite.is_empty(), body.request.is_empty()) {
            (false, true) if is_text(&body.text, MAX_DISPLAY_NAME) => Claim::Redeem {
                invite: AgentId::new(fixed_bytes(&body.invite, "invite")?),
                display_name: body.text,
            },
            (true, true) if is_text(&body.text, MAX_TEXT) => Claim::Request { message: body.text },
            (true, false) if body.text.is_empty() => {
                Claim::Cancel { request: fixed_bytes(&body.request, "request")? }
            }
            _ => return Err(DecodeError::Field("claim")),
        };
        Ok(Self(Statement {
            group: GroupId::new(fixed_bytes(&body.group, "group")?),
            agent: AgentId::new(fixed_bytes(&body.agent, "agent")?),
            at: WallTime::from_millis(body.at_ms),
            claim,
            id: hash("x0x.groups.statement.id.1", &[&wire.body]),
            encoded: Bytes::copy_from_slice(bytes),
        }))
    }

    /// Checks that the agent said it, and of a redemption that it holds the invite's key.
    ///
    /// # Errors
    /// [`SignedError`] with the first thing that is wrong.
    pub fn verify(self) -> Result<Statement, SignedError> {
        self.0.check()?;
        Ok(self.0)
    }

    /// As it is, for an operation that carries it and verifies it with itself.
    pub(super) fn unverified(self) -> Statement {
        self.0
    }
}
