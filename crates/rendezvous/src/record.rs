//! The record that is filed: an agent's signed statement of where it is, or that it reads a topic there.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use prost::Message;
use x0x_core::{
    AgentId, DecodeError, MAX_ADDRESSES, MachineId, TopicId, WallTime, decode_bounded, fixed_bytes,
};
use x0x_identity::{
    AgentBinding, MAX_CLOCK_SKEW, PUBLIC_KEY_LEN, PublicKey, SIGNATURE_LEN, SecretKey, Signature,
};

use crate::{config::RECORD_VALIDITY, error::RecordError, key::Subject, wire::Stamp};

/// Domain of a record's signature.
pub const RECORD_DOMAIN: &str = "x0x.rendezvous.record.1";
/// Largest record in bytes: a body, a key and a signature.
pub const MAX_RECORD: usize = MAX_BODY + PUBLIC_KEY_LEN + SIGNATURE_LEN + 64;

/// Largest body in bytes: twice what version 1 needs, so that fields can be added.
const MAX_BODY: usize = 768;

#[derive(Clone, PartialEq, Message)]
struct Body {
    #[prost(bytes = "vec", tag = "1")]
    agent_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    machine_id: Vec<u8>,
    #[prost(bytes = "vec", optional, tag = "3")]
    topic_id: Option<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    addresses: Vec<Vec<u8>>,
    #[prost(uint64, tag = "5")]
    announced_at_ms: u64,
    #[prost(uint64, tag = "6")]
    counter: u64,
    #[prost(uint64, tag = "7")]
    not_after_ms: u64,
    #[prost(uint64, tag = "8")]
    generation: u64,
}

#[derive(Clone, PartialEq, Message)]
struct SignedBody {
    #[prost(bytes = "bytes", tag = "1")]
    body: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    agent_key: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    signature: Bytes,
}

/// What an agent states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who states it.
    pub agent: AgentId,
    /// The machine that it runs on.
    pub machine: MachineId,
    /// How often the agent was moved: see [`AgentBinding::generation`].
    pub generation: u64,
    /// What it is filed under: the agent itself, or a topic that it subscribes.
    pub subject: Subject,
    /// Where the machine may be reached; at most [`MAX_ADDRESSES`].
    pub addresses: Vec<SocketAddr>,
    /// Its place in the order of the agent's records and announcements.
    pub stamp: Stamp,
    /// The end of its validity.
    pub not_after: WallTime,
}

impl Record {
    /// What it says of agent and machine, as a binding.
    #[must_use]
    pub const fn binding(&self) -> AgentBinding {
        let Self { agent, machine, generation, stamp, not_after, .. } = self;
        AgentBinding {
            agent: *agent,
            machine: *machine,
            not_before: stamp.announced_at,
            not_after: *not_after,
            generation: *generation,
        }
    }
}

/// A record whose signature holds, with its encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRecord {
    record: Record,
    encoded: Bytes,
}

impl SignedRecord {
    /// States where the agent with this key is, for [`RECORD_VALIDITY`]. The generation is that of its
    /// binding to the machine.
    #[must_use]
    pub fn issue(
        key: &SecretKey,
        machine: MachineId,
        generation: u64,
        subject: Subject,
        addresses: &[SocketAddr],
        stamp: Stamp,
    ) -> Self {
        let addresses: Vec<SocketAddr> = addresses.iter().copied().take(MAX_ADDRESSES).collect();
        let not_after = stamp.announced_at + RECORD_VALIDITY;
        let agent = key.public_key().agent_id();
        let topic = match subject {
            Subject::Topic(topic) => Some(topic),
            Subject::Agent(_) => None,
        };
        let body = Body {
            agent_id: agent.as_bytes().to_vec(),
            machine_id: machine.as_bytes().to_vec(),
            topic_id: topic.map(|topic| topic.as_bytes().to_vec()),
            addresses: addresses.iter().copied().map(pack).collect(),
            announced_at_ms: stamp.announced_at.as_millis(),
            counter: stamp.counter,
            not_after_ms: not_after.as_millis(),
            generation,
        };
        let body = body.encode_to_vec();
        let signature = key.sign(RECORD_DOMAIN, &body);
        let signed = SignedBody {
            body: body.into(),
            agent_key: Bytes::copy_from_slice(key.public_key().as_bytes()),
            signature: Bytes::copy_from_slice(signature.as_bytes()),
        };
        let subject = topic.map_or(Subject::Agent(agent), Subject::Topic);
        let record = Record { agent, machine, generation, subject, addresses, stamp, not_after };
        Self { record, encoded: signed.encode_to_vec().into() }
    }

    /// What is stated.
    #[must_use]
    pub const fn record(&self) -> &Record {
        &self.record
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
    pub fn decode(bytes: &Bytes) -> Result<RecordIn, DecodeError> {
        let signed: SignedBody = decode_bounded(bytes.clone(), MAX_RECORD)?;
        let body: Body = decode_bounded(signed.body.clone(), MAX_BODY)?;
        if body.addresses.len() > MAX_ADDRESSES {
            return Err(DecodeError::Field("addresses"));
        }
        let agent = AgentId::new(fixed_bytes(&body.agent_id, "agent_id")?);
        let topic = body.topic_id.map(|topic| fixed_bytes(&topic, "topic_id")).transpose()?;
        let subject = topic.map_or(Subject::Agent(agent), |id| Subject::Topic(TopicId::new(id)));
        let addresses = body.addresses.iter().map(|packed| unpack(packed));
        let claimed = Record {
            agent,
            machine: MachineId::new(fixed_bytes(&body.machine_id, "machine_id")?),
            generation: body.generation,
            subject,
            addresses: addresses.collect::<Result<_, _>>()?,
            stamp: Stamp {
                announced_at: WallTime::from_millis(body.announced_at_ms),
                counter: body.counter,
            },
            not_after: WallTime::from_millis(body.not_after_ms),
        };
        Ok(RecordIn { claimed, signed, encoded: bytes.clone() })
    }
}

/// A received record: well-formed, not verified.
#[derive(Debug, Clone)]
pub struct RecordIn {
    claimed: Record,
    signed: SignedBody,
    encoded: Bytes,
}

impl RecordIn {
    /// Checks that it is about `subject`, valid at `now`, and signed by its agent. The signature comes
    /// last, since it costs most.
    ///
    /// # Errors
    /// [`RecordError`] with the first thing that is wrong.
    pub fn verify(self, subject: &Subject, now: WallTime) -> Result<SignedRecord, RecordError> {
        let Self { claimed, signed, encoded } = self;
        if claimed.subject != *subject {
            return Err(RecordError::OtherSubject);
        }
        let made = claimed.stamp.announced_at;
        if made > now + MAX_CLOCK_SKEW || claimed.not_after > made + RECORD_VALIDITY {
            return Err(RecordError::Future);
        }
        if claimed.not_after + MAX_CLOCK_SKEW <= now {
            return Err(RecordError::Expired);
        }
        let key = PublicKey::from_bytes(&signed.agent_key).map_err(|_| RecordError::Key)?;
        if key.agent_id() != claimed.agent {
            return Err(RecordError::Key);
        }
        let signature =
            Signature::from_bytes(&signed.signature).map_err(|_| RecordError::Signature)?;
        let verified = key.verify(RECORD_DOMAIN, &signed.body, &signature);
        verified.map_err(|_| RecordError::Signature)?;
        Ok(SignedRecord { record: claimed, encoded })
    }
}

/// An address as 4 or 16 bytes and two of the port, in network order.
pub(crate) fn pack(address: SocketAddr) -> Vec<u8> {
    let mut packed = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    packed.extend_from_slice(&address.port().to_be_bytes());
    packed
}

pub(crate) fn unpack(packed: &[u8]) -> Result<SocketAddr, DecodeError> {
    let (ip, port) = packed.split_last_chunk::<2>().ok_or(DecodeError::Field("addresses"))?;
    let ip = match ip.len() {
        4 => IpAddr::from(fixed_bytes::<4>(ip, "addresses")?),
        16 => IpAddr::from(fixed_bytes::<16>(ip, "addresses")?),
        _ => return Err(DecodeError::Field("addresses")),
    };
    Ok(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}
