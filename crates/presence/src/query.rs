//! The question of a walk, signed by the agent that asks, since what it is told depends on who it is.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use x0x_core::{AgentId, DecodeError, WallTime, decode_bounded, fixed_bytes};
use x0x_identity::{MAX_CLOCK_SKEW, PUBLIC_KEY_LEN, SIGNATURE_LEN, SecretKey};

use crate::{error::VerifyError, session::Signed};

/// Domain of a query's signature.
pub const QUERY_DOMAIN: &str = "x0x.presence.query.1";
/// Most agents in one query.
pub const MAX_TARGETS: usize = 16;
/// Largest encoding of a signed query in bytes.
pub const MAX_QUERY: usize = MAX_BODY + PUBLIC_KEY_LEN + SIGNATURE_LEN + 64;
/// How long a query is answered, clocks being equal.
pub const QUERY_VALIDITY: Duration = Duration::from_secs(60);

const MAX_BODY: usize = 1024;

/// Names a walk.
pub type WalkId = [u8; 16];

#[derive(Clone, PartialEq, Message)]
struct Body {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    targets: Vec<Vec<u8>>,
    #[prost(uint64, tag = "3")]
    asked_at_ms: u64,
}

/// Who looks for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Query {
    /// Names the walk.
    pub id: WalkId,
    /// Who asks.
    pub origin: AgentId,
    /// For whom, at most [`MAX_TARGETS`]; empty for whoever is there.
    pub targets: Vec<AgentId>,
}

/// A query whose signature holds, with its encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedQuery {
    query: Query,
    encoded: Bytes,
}

impl SignedQuery {
    /// Asks as the agent with this key. Targets beyond [`MAX_TARGETS`] are left out.
    #[must_use]
    pub fn ask(key: &SecretKey, id: WalkId, targets: &[AgentId], wall: WallTime) -> Self {
        let targets: Vec<AgentId> = targets.iter().copied().take(MAX_TARGETS).collect();
        let body = Body {
            id: id.to_vec(),
            targets: targets.iter().map(|target| target.as_bytes().to_vec()).collect(),
            asked_at_ms: wall.as_millis(),
        };
        let encoded = Signed::sign(key, QUERY_DOMAIN, body.encode_to_vec());
        Self { query: Query { id, origin: key.public_key().agent_id(), targets }, encoded }
    }

    /// What is asked.
    #[must_use]
    pub const fn query(&self) -> &Query {
        &self.query
    }

    /// The wire form, at most [`MAX_QUERY`] bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.encoded.clone()
    }

    /// Reads a query's fields. Nothing is verified yet.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or a field is out of range.
    pub fn decode(bytes: &Bytes) -> Result<QueryIn, DecodeError> {
        let signed: Signed = decode_bounded(bytes.clone(), MAX_QUERY)?;
        let body: Body = decode_bounded(signed.body.clone(), MAX_BODY)?;
        if body.targets.len() > MAX_TARGETS {
            return Err(DecodeError::Field("targets"));
        }
        let target = |id: &Vec<u8>| Ok(AgentId::new(fixed_bytes(id, "targets")?));
        Ok(QueryIn {
            id: fixed_bytes(&body.id, "id")?,
            targets: body.targets.iter().map(target).collect::<Result<_, DecodeError>>()?,
            asked_at: WallTime::from_millis(body.asked_at_ms),
            signed,
            encoded: bytes.clone(),
        })
    }
}

/// A received query: well-formed, not verified.
#[derive(Debug, Clone)]
pub struct QueryIn {
    id: WalkId,
    targets: Vec<AgentId>,
    asked_at: WallTime,
    signed: Signed,
    encoded: Bytes,
}

impl QueryIn {
    /// Names the walk. Only to skip one that was seen.
    #[must_use]
    pub const fn claimed_id(&self) -> WalkId {
        self.id
    }

    /// Checks that it was asked lately, by the agent whose key is in it.
    ///
    /// # Errors
    /// [`VerifyError`] with the first thing that is wrong.
    pub fn verify(self, wall: WallTime) -> Result<SignedQuery, VerifyError> {
        if self.asked_at > wall + MAX_CLOCK_SKEW {
            return Err(VerifyError::Future);
        }
        if wall > self.asked_at + MAX_CLOCK_SKEW + QUERY_VALIDITY {
            return Err(VerifyError::Expired);
        }
        let origin = self.signed.verify(QUERY_DOMAIN)?;
        let query = Query { id: self.id, origin, targets: self.targets };
        Ok(SignedQuery { query, encoded: self.encoded })
    }
}
