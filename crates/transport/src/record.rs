//! A machine's signed statement of where it may be reached, for third parties: what others pass on of
//! it holds without trusting them. The newest one counts.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use prost::Message;
use x0x_core::{DecodeError, MachineId, WallTime, decode_bounded, dialable, fixed_bytes};
use x0x_identity::{PUBLIC_KEY_LEN, PublicKey, SIGNATURE_LEN, SecretKey, Signature};

use crate::wire::{pack, unpack};

/// Domain of a record's signature.
pub const RECORD_DOMAIN: &str = "x0x.transport.record.1";
/// Most addresses of one record.
pub const MAX_RECORD_ADDRESSES: usize = 4;
/// How long a record holds.
pub const RECORD_VALIDITY: Duration = Duration::from_secs(24 * 3600);
/// Largest encoding of a signed record in bytes: a body, a key and a signature.
pub const MAX_RECORD: usize = MAX_BODY + PUBLIC_KEY_LEN + SIGNATURE_LEN + 64;

/// Largest body in bytes. Twice what version 1 needs, so that fields can be added.
const MAX_BODY: usize = 256;
/// How far ahead the signer's clock may be.
const MAX_SKEW: Duration = Duration::from_secs(300);
/// BLAKE3 context of a record's hash.
const HASH_CONTEXT: &str = "x0x transport peer record 1";

/// How a machine can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ReachClass {
    /// It does not know, or does not say.
    #[default]
    Unknown,
    /// By a plain dial.
    Public,
    /// Behind an address translator that can be punched.
    Punchable,
    /// Through a relay only.
    RelayOnly,
}

impl ReachClass {
    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The class of a number. Those of later versions are unknown.
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Public,
            2 => Self::Punchable,
            3 => Self::RelayOnly,
            _ => Self::Unknown,
        }
    }
}

/// What a machine states.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PeerRecord {
    /// Which machine.
    pub machine: MachineId,
    /// Where it listens, at most [`MAX_RECORD_ADDRESSES`], best first.
    pub addresses: Vec<SocketAddr>,
    /// How it can be reached there.
    pub reach: ReachClass,
    /// The greater number is the newer record.
    pub seq: u64,
    /// The end of its validity; not part of it.
    pub not_after: WallTime,
}

/// A record whose signature holds, with its encoding.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SignedRecord {
    record: PeerRecord,
    hash: [u8; 16],
    encoded: Bytes,
}

/// A received record: well-formed, not verified.
#[derive(Debug, Clone)]
pub struct RecordIn {
    record: PeerRecord,
    body: Bytes,
    key: Box<[u8; PUBLIC_KEY_LEN]>,
    signature: Signature,
    encoded: Bytes,
}

/// Why a record does not hold. The fault of whoever sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The key is none.
    #[error("malformed key")]
    Key,
    /// The signature is not by that key over these bytes.
    #[error("the signature does not hold")]
    Signature,
}

#[derive(Clone, PartialEq, Message)]
struct Body {
    #[prost(bytes = "vec", tag = "1")]
    machine: Vec<u8>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    addresses: Vec<Bytes>,
    #[prost(uint32, tag = "3")]
    reach: u32,
    #[prost(uint64, tag = "4")]
    seq: u64,
    #[prost(uint64, tag = "5")]
    not_after_ms: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(bytes = "bytes", tag = "1")]
    body: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    signature: Bytes,
}

fn hash(body: &[u8]) -> [u8; 16] {
    let mut hash = [0; 16];
    hash.copy_from_slice(&blake3::derive_key(HASH_CONTEXT, body)[..16]);
    hash
}

impl SignedRecord {
    /// States where the machine with this key listens, as of `now`. The time is the sequence number, so
    /// that a machine needs no memory of the records it made.
    #[must_use]
    pub fn issue(
        key: &SecretKey,
        addresses: impl IntoIterator<Item = SocketAddr>,
        reach: ReachClass,
        now: WallTime,
    ) -> Self {
        let machine = key.public_key().machine_id();
        let addresses: Vec<SocketAddr> =
            addresses.into_iter().filter_map(dialable).take(MAX_RECORD_ADDRESSES).collect();
        let (seq, not_after) = (now.as_millis(), now + RECORD_VALIDITY);
        let body = Body {
            machine: machine.as_bytes().to_vec(),
            addresses: addresses.iter().map(|address| pack(*address)).collect(),
            reach: reach.number(),
            seq,
            not_after_ms: not_after.as_millis(),
        };
        let body = Bytes::from(body.encode_to_vec());
        let signature = key.sign(RECORD_DOMAIN, &body);
        let hash = hash(&body);
        let envelope = Envelope {
            body,
            key: Bytes::copy_from_slice(key.public_key().as_bytes()),
            signature: Bytes::copy_from_slice(signature.as_bytes()),
        };
        let record = PeerRecord { machine, addresses, reach, seq, not_after };
        Self { record, hash, encoded: envelope.encode_to_vec().into() }
    }

    /// What was stated.
    #[must_use]
    pub const fn record(&self) -> &PeerRecord {
        &self.record
    }

    /// Names this record among all of the machine.
    #[must_use]
    pub const fn hash(&self) -> [u8; 16] {
        self.hash
    }

    /// The wire form, at most [`MAX_RECORD`] bytes. Cheap: it is kept.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.encoded.clone()
    }

    /// Whether it holds at a time: not for longer than records do, and not from a clock far ahead.
    #[must_use]
    pub fn is_valid(&self, now: WallTime) -> bool {
        let latest = now + RECORD_VALIDITY + MAX_SKEW;
        now < self.record.not_after && self.record.not_after <= latest
    }

    /// Reads a record's fields. Nothing is verified yet.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or a field is out of range.
    pub fn decode(bytes: &Bytes) -> Result<RecordIn, DecodeError> {
        let envelope: Envelope = decode_bounded(bytes.clone(), MAX_RECORD)?;
        let body: Body = decode_bounded(envelope.body.clone(), MAX_BODY)?;
        if body.addresses.len() > MAX_RECORD_ADDRESSES {
            return Err(DecodeError::Field("addresses"));
        }
        let addresses: Vec<SocketAddr> =
            body.addresses.iter().map(|address| unpack(address)).collect::<Result<_, _>>()?;
        let record = PeerRecord {
            machine: MachineId::new(fixed_bytes(&body.machine, "machine")?),
            addresses: addresses.into_iter().filter_map(dialable).collect(),
            reach: ReachClass::from_number(body.reach),
            seq: body.seq,
            not_after: WallTime::from_millis(body.not_after_ms),
        };
        Ok(RecordIn {
            record,
            key: Box::new(fixed_bytes(&envelope.key, "key")?),
            signature: Signature::from_bytes(&envelope.signature)
                .map_err(|_| DecodeError::Field("signature"))?,
            body: envelope.body,
            encoded: bytes.clone(),
        })
    }
}

impl RecordIn {
    /// The machine that it claims to be of.
    #[must_use]
    pub const fn claimed_machine(&self) -> MachineId {
        self.record.machine
    }

    /// Checks that the machine named in it signed it; the costly check comes last.
    ///
    /// # Errors
    /// [`RecordError`] with the first thing that is wrong.
    pub fn verify(self) -> Result<SignedRecord, RecordError> {
        let key = PublicKey::from_bytes(self.key.as_slice()).map_err(|_| RecordError::Key)?;
        if key.machine_id() != self.record.machine {
            return Err(RecordError::Key);
        }
        let signed = key.verify(RECORD_DOMAIN, &self.body, &self.signature);
        signed.map_err(|_| RecordError::Signature)?;
        Ok(SignedRecord { hash: hash(&self.body), record: self.record, encoded: self.encoded })
    }
}
