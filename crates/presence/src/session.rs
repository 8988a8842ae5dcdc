//! The session record: what an agent signs once, so that its beacons need no signature.

use std::{fmt, time::Duration};

use bytes::Bytes;
use prost::Message;
use x0x_core::{AgentId, DecodeError, MachineId, WallTime, decode_bounded, fixed_bytes};
use x0x_identity::{
    MAX_CLOCK_SKEW, PUBLIC_KEY_LEN, PublicKey, SIGNATURE_LEN, SecretKey, Signature,
};
use zeroize::Zeroizing;

use crate::{
    chain::{Chain, MAX_CHAIN, Value, advance},
    config::{MAX_PERIOD, MIN_PERIOD},
    error::VerifyError,
};

/// Domain of a session record's signature.
pub const SESSION_DOMAIN: &str = "x0x.presence.session.1";
/// Largest encoding of a signed record in bytes: a body, a key and a signature.
pub const MAX_RECORD: usize = MAX_BODY + PUBLIC_KEY_LEN + SIGNATURE_LEN + 64;
/// Largest body in bytes. Room for fields to come.
const MAX_BODY: usize = 384;
const ID_CONTEXT: &str = "x0x presence session id 1";

/// Names a session among all: the start of its record's hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 8]);

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({:016x})", u64::from_be_bytes(self.0))
    }
}

#[derive(Clone, PartialEq, Message)]
struct Body {
    #[prost(bytes = "vec", tag = "1")]
    agent_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    machine_id: Vec<u8>,
    #[prost(uint64, tag = "3")]
    started_ms: u64,
    #[prost(uint32, tag = "4")]
    period_ms: u32,
    #[prost(uint32, tag = "5")]
    length: u32,
    #[prost(bytes = "vec", tag = "6")]
    anchor: Vec<u8>,
    #[prost(bytes = "vec", tag = "7")]
    farewell: Vec<u8>,
    #[prost(bool, tag = "8")]
    shared: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Signed {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) body: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) agent_key: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) signature: Bytes,
}

impl Signed {
    pub(crate) fn sign(key: &SecretKey, domain: &'static str, body: Vec<u8>) -> Bytes {
        let signature = key.sign(domain, &body);
        let signed = Self {
            body: body.into(),
            agent_key: Bytes::copy_from_slice(key.public_key().as_bytes()),
            signature: Bytes::copy_from_slice(signature.as_bytes()),
        };
        signed.encode_to_vec().into()
    }

    /// Whether the key is that of its agent, and it signed the body. The costly check comes last.
    pub(crate) fn verify(&self, domain: &'static str) -> Result<AgentId, VerifyError> {
        let key = PublicKey::from_bytes(&self.agent_key).map_err(|_| VerifyError::Key)?;
        let signature =
            Signature::from_bytes(&self.signature).map_err(|_| VerifyError::Signature)?;
        let verified = key.verify(domain, &self.body, &signature);
        verified.map_err(|_| VerifyError::Signature)?;
        Ok(key.agent_id())
    }
}

/// What an agent states about its beacons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The agent.
    pub agent: AgentId,
    /// The machine that it runs on.
    pub machine: MachineId,
    /// When it began. Of two sessions of one agent the later one counts.
    pub started: WallTime,
    /// Beacon `i` says that the agent was there `i - 1` periods after the start.
    pub period: Duration,
    /// How many beacons there are; at most [`MAX_CHAIN`].
    pub length: u32,
    /// Whether others may pass on that the agent is there.
    pub shared: bool,
    anchor: Value,
    farewell: Value,
}

impl Session {
    /// When a beacon was made.
    #[must_use]
    pub fn said_at(&self, index: u32) -> WallTime {
        self.started + self.period * index.saturating_sub(1)
    }

    /// When the last beacon is a period old.
    #[must_use]
    pub fn ends(&self) -> WallTime {
        self.started + self.period * self.length
    }

    /// What the value of every beacon leads to.
    #[must_use]
    pub const fn anchor(&self) -> Value {
        self.anchor
    }

    /// Whether a value is the goodbye of this session.
    #[must_use]
    pub fn is_farewell(&self, value: Value) -> bool {
        advance(value, 1) == self.farewell
    }
}

/// A record whose signature holds, with its encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedSession {
    session: Session,
    id: SessionId,
    encoded: Bytes,
}

impl SignedSession {
    /// What was stated.
    #[must_use]
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// Names it.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// The wire form, at most [`MAX_RECORD`] bytes. Cheap: it is kept.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.encoded.clone()
    }

    /// Reads a record's fields. Nothing is verified yet.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or a field is out of range.
    pub fn decode(bytes: &Bytes) -> Result<SessionIn, DecodeError> {
        // Copied, since it is kept for long and would else keep its frame.
        let encoded = Bytes::copy_from_slice(bytes);
        let signed: Signed = decode_bounded(encoded.clone(), MAX_RECORD)?;
        let body: Body = decode_bounded(signed.body.clone(), MAX_BODY)?;
        let period = Duration::from_millis(body.period_ms.into());
        if !(MIN_PERIOD..=MAX_PERIOD).contains(&period) {
            return Err(DecodeError::Field("period_ms"));
        }
        if !(1..=MAX_CHAIN).contains(&body.length) {
            return Err(DecodeError::Field("length"));
        }
        let session = Session {
            agent: AgentId::new(fixed_bytes(&body.agent_id, "agent_id")?),
            machine: MachineId::new(fixed_bytes(&body.machine_id, "machine_id")?),
            started: WallTime::from_millis(body.started_ms),
            period,
            length: body.length,
            shared: body.shared,
            anchor: fixed_bytes(&body.anchor, "anchor")?,
            farewell: fixed_bytes(&body.farewell, "farewell")?,
        };
        Ok(SessionIn { session, id: id(&signed.body), signed, encoded })
    }
}

fn id(body: &[u8]) -> SessionId {
    let mut id = [0; 8];
    id.copy_from_slice(&blake3::derive_key(ID_CONTEXT, body)[..8]);
    SessionId(id)
}

/// A received record: well-formed, not verified.
#[derive(Debug, Clone)]
pub struct SessionIn {
    session: Session,
    id: SessionId,
    signed: Signed,
    encoded: Bytes,
}

impl SessionIn {
    /// What it claims. Only to refuse what would be of no use.
    #[must_use]
    pub const fn claimed(&self) -> &Session {
        &self.session
    }

    /// Names it, whatever it is worth.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// Checks that the agent named in it signed it, and that it is its time.
    ///
    /// # Errors
    /// [`VerifyError`] with the first thing that is wrong.
    pub fn verify(self, wall: WallTime) -> Result<SignedSession, VerifyError> {
        let Self { session, id, signed, encoded } = self;
        if session.started > wall + MAX_CLOCK_SKEW {
            return Err(VerifyError::Future);
        }
        if wall >= session.ends() + MAX_CLOCK_SKEW {
            return Err(VerifyError::Expired);
        }
        if signed.verify(SESSION_DOMAIN)? != session.agent {
            return Err(VerifyError::Key);
        }
        Ok(SignedSession { session, id, encoded })
    }
}

/// This node's own session: its record and the chain behind it.
#[derive(Debug)]
pub struct LocalSession {
    signed: SignedSession,
    chain: Chain,
}

impl LocalSession {
    /// Begins a session of [`MAX_CHAIN`] beacons. The secret must come from the operating system and be
    /// used once.
    #[must_use]
    pub fn begin(
        key: &SecretKey,
        machine: MachineId,
        secret: &Zeroizing<[u8; 32]>,
        wall: WallTime,
        period: Duration,
        shared: bool,
    ) -> Self {
        let chain = Chain::new(secret, MAX_CHAIN);
        let period = period.clamp(MIN_PERIOD, MAX_PERIOD);
        let session = Session {
            agent: key.public_key().agent_id(),
            machine,
            started: wall,
            period,
            length: MAX_CHAIN,
            shared,
            anchor: chain.anchor(),
            farewell: advance(chain.farewell(), 1),
        };
        let body = Body {
            agent_id: session.agent.as_bytes().to_vec(),
            machine_id: machine.as_bytes().to_vec(),
            started_ms: wall.as_millis(),
            period_ms: u32::try_from(period.as_millis()).unwrap_or(u32::MAX),
            length: session.length,
            anchor: session.anchor.to_vec(),
            farewell: session.farewell.to_vec(),
            shared,
        }
        .encode_to_vec();
        let id = id(&body);
        let encoded = Signed::sign(key, SESSION_DOMAIN, body);
        Self { signed: SignedSession { session, id, encoded }, chain }
    }

    /// Its record.
    #[must_use]
    pub const fn signed(&self) -> &SignedSession {
        &self.signed
    }

    /// The value of a beacon; none past the session's end.
    pub(crate) fn reveal(&self, index: u32) -> Option<Value> {
        self.chain.reveal(index)
    }

    /// The goodbye.
    pub(crate) fn farewell(&self) -> Value {
        self.chain.farewell()
    }
}
