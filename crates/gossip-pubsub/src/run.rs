//! Entries, their hash chain, and runs: 1 to 64 consecutive entries under one signature.
//!
//! A run exists in three types. [`UnsignedRun`] is what the publisher wants signed, [`RunIn`] is
//! what a peer sent, and [`Run`] is what the logs accept: it can be made only by
//! [`UnsignedRun::sign`] and [`RunIn::verify`].

use bytes::Bytes;
use prost::Message;
use x0x_core::{AgentId, DecodeError, TopicId, WallTime, bytes32, fixed_bytes};
use x0x_identity::{PublicKey, SIGNATURE_LEN, SecretKey, Signature};

use crate::{
    config::{ENTRY_OVERHEAD, MAX_PAYLOAD, MAX_RUN_BYTES, RUN_OVERHEAD},
    error::{VerifyError, WireError},
    retention::{Retention, class_code},
    time::HybridTime,
    wire::{self, Before, EntryWire, FrameKind, PublishWire, RunWire},
};

/// The domain of a run's signature. The signed message is the hash of the run's last entry.
pub const RUN_DOMAIN: &str = "x0x/pubsub/run/1";

/// Key of the BLAKE3 hash over an entry's header, so that it collides with no other use of BLAKE3.
const ENTRY_HASH_KEY: [u8; 32] = *b"x0x/pubsub/entry/1\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Bytes of the canonical header: five 32-byte fields, three 8-byte numbers, the class.
const HEADER_LEN: usize = 5 * 32 + 3 * 8 + 1;

/// Encoded bytes that a run adds to its entries' own, at most: ids, numbers and the signature.
pub(crate) const RUN_FRAME_BYTES: usize = SIGNATURE_LEN + 4 * 34 + 2 * 11 + 16;

/// Encoded bytes that an entry adds to its payload, at most.
pub(crate) const ENTRY_FRAME_BYTES: usize = 4 + 11 + 6 + 6;

bytes32! {
    /// Separates networks: runs of another network are refused.
    NetworkId
}

impl NetworkId {
    /// The id of a named network.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        Self(blake3::derive_key("x0x 2026-11 network id v1", name.as_bytes()))
    }
}

/// The topic of a name.
///
/// ```
/// use x0x_gossip_pubsub::topic_id;
///
/// assert_eq!(topic_id("news"), topic_id("news"));
/// assert_ne!(topic_id("news"), topic_id("News"));
/// ```
#[must_use]
pub fn topic_id(name: &str) -> TopicId {
    TopicId::new(blake3::derive_key("x0x 2026-11 topic id v1", name.as_bytes()))
}

bytes32! {
    /// The hash of an entry, which the next entry of its author names.
    EntryHash
}

impl EntryHash {
    /// What the first entry of a log names as its predecessor.
    pub const GENESIS: Self = Self([0; 32]);
}

/// One entry of a run. Its sequence number follows from its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When its author published it; strictly increasing along a log.
    pub time: HybridTime,
    /// The content, at most [`MAX_PAYLOAD`] bytes.
    pub payload: Bytes,
}

/// What a run says, whoever vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunBody {
    pub(crate) network: NetworkId,
    pub(crate) topic: TopicId,
    pub(crate) author: AgentId,
    pub(crate) epoch: u64,
    pub(crate) first_seq: u64,
    pub(crate) prev: EntryHash,
    pub(crate) entries: Vec<Entry>,
}

impl RunBody {
    /// The topic it belongs to.
    #[must_use]
    pub const fn topic(&self) -> TopicId {
        self.topic
    }

    /// Who wrote it.
    #[must_use]
    pub const fn author(&self) -> AgentId {
        self.author
    }

    /// The lifetime of the author's log that it belongs to.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How long its entries are kept.
    #[must_use]
    pub const fn retention(&self) -> Retention {
        Retention::of_epoch(self.epoch)
    }

    /// Entries that are missing before it where the author's chain ends at `head`. Nothing is missing
    /// before what takes the place of all that was.
    pub(crate) fn missed_after(&self, head: u64) -> u64 {
        match self.retention() {
            Retention::Latest => 0,
            _ => (self.first_seq - 1).saturating_sub(head),
        }
    }

    /// Sequence number of the first entry; a log starts at 1.
    #[must_use]
    pub const fn first_seq(&self) -> u64 {
        self.first_seq
    }

    /// Sequence number of the last entry.
    #[must_use]
    pub const fn last_seq(&self) -> u64 {
        (self.first_seq + self.entries.len() as u64).saturating_sub(1)
    }

    /// The entries, in order; never empty.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn first_time(&self) -> HybridTime {
        self.entries.first().map_or_else(HybridTime::default, |entry| entry.time)
    }

    /// Whether it is past a retention that reaches back to this time.
    pub(crate) fn is_expired(&self, oldest: WallTime) -> bool {
        self.retention() != Retention::Durable && self.last_time().wall() < oldest
    }

    pub(crate) fn last_time(&self) -> HybridTime {
        self.entries.last().map_or_else(HybridTime::default, |entry| entry.time)
    }

    /// The hash of each entry, in order.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = EntryHash> {
        let mut header = [0_u8; HEADER_LEN];
        header[..32].copy_from_slice(self.network.as_bytes());
        header[32..64].copy_from_slice(self.topic.as_bytes());
        header[64..96].copy_from_slice(self.author.as_bytes());
        header[96..104].copy_from_slice(&self.epoch.to_be_bytes());
        header[152] = self.retention().code();
        let mut prev = self.prev;
        (self.first_seq..).zip(&self.entries).map(move |(seq, entry)| {
            header[104..112].copy_from_slice(&seq.to_be_bytes());
            header[112..144].copy_from_slice(prev.as_bytes());
            header[144..152].copy_from_slice(&entry.time.as_u64().to_be_bytes());
            header[153..].copy_from_slice(blake3::hash(&entry.payload).as_bytes());
            prev = EntryHash(*blake3::keyed_hash(&ENTRY_HASH_KEY, &header).as_bytes());
            prev
        })
    }

    /// The hash of the entry with this sequence number, if it is in the run.
    pub(crate) fn hash_at(&self, seq: u64) -> Option<EntryHash> {
        let index = usize::try_from(seq.checked_sub(self.first_seq)?).ok()?;
        self.hashes().nth(index)
    }

    pub(crate) fn last_hash(&self) -> EntryHash {
        self.hashes().last().unwrap_or(self.prev)
    }

    fn encode(&self, signature: Bytes) -> Bytes {
        let mut before = 0;
        let class = self.retention().code().into();
        let entries = self.entries.iter().map(|entry| {
            let time_delta = entry.time.as_u64() - before;
            before = entry.time.as_u64();
            EntryWire { time_delta, class, payload: entry.payload.clone() }
        });
        let wire = RunWire {
            network: wire::copy(self.network.as_bytes()),
            topic: wire::copy(self.topic.as_bytes()),
            author: wire::copy(self.author.as_bytes()),
            epoch: self.epoch,
            first_seq: self.first_seq,
            prev: wire::copy(self.prev.as_bytes()),
            entries: entries.collect(),
            signature,
        };
        wire.encode_to_vec().into()
    }
}

/// Entries that the publisher took from its queue, ready to be signed.
#[derive(Debug, Clone)]
pub struct UnsignedRun(pub(crate) RunBody);

impl UnsignedRun {
    /// Signs as the author. Takes about 0.2 ms, so not on the actor's thread.
    ///
    /// # Errors
    /// [`VerifyError::KeyMismatch`] when the key is not the author's: a mistake of the caller.
    pub fn sign(self, key: &SecretKey) -> Result<Run, VerifyError> {
        if key.public_key().agent_id() != self.0.author {
            return Err(VerifyError::KeyMismatch);
        }
        let hash = self.0.last_hash();
        let signature = key.sign(RUN_DOMAIN, hash.as_bytes());
        let encoded = self.0.encode(wire::copy(signature.as_bytes()));
        // Decoded again from its own encoding, so that the payloads share its memory.
        let run = RunIn::decode(encoded).map_err(|_| VerifyError::BadSignature)?;
        run.seal(hash, 0).map_err(|_| VerifyError::BadSignature)
    }
}

/// A run as a peer sent it: within its bounds, but nothing in it is verified.
#[derive(Debug, Clone)]
pub struct RunIn {
    body: RunBody,
    signature: Bytes,
    encoded: Bytes,
}

impl RunIn {
    /// Decodes a run of at most [`MAX_RUN_BYTES`] bytes. A run has exactly one encoding, so that
    /// nobody can attach unsigned bytes to it.
    ///
    /// # Errors
    /// [`WireError`]: the peer sent something that no honest peer sends.
    pub fn decode(encoded: Bytes) -> Result<Self, WireError> {
        wire::within("run", encoded.len(), MAX_RUN_BYTES)?;
        wire::check_run(&encoded)?;
        let run = RunWire::decode(encoded.clone())?;
        // Anything but the canonical encoding of the same fields, in their order, is longer.
        if run.encoded_len() != encoded.len() {
            return Err(DecodeError::Malformed.into());
        }
        match run.signature.len() {
            SIGNATURE_LEN => {}
            0 => return Err(WireError::Unsigned),
            _ => return Err(DecodeError::Field("signature").into()),
        }
        let first_seq = run.first_seq;
        if run.entries.is_empty() || first_seq == 0 || first_seq > u64::MAX / 2 {
            return Err(DecodeError::Field("first_seq").into());
        }
        let body = RunBody {
            network: NetworkId(fixed_bytes(&run.network, "network")?),
            topic: wire::topic_field(&run.topic)?,
            author: wire::author_field(&run.author)?,
            epoch: run.epoch,
            first_seq,
            prev: EntryHash(fixed_bytes(&run.prev, "prev")?),
            entries: decode_entries(run.entries, run.epoch)?,
        };
        Ok(Self { body, signature: run.signature, encoded })
    }

    /// What the run claims.
    #[must_use]
    pub const fn body(&self) -> &RunBody {
        &self.body
    }

    /// The run as it arrived.
    #[must_use]
    pub const fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    pub(crate) const fn signature(&self) -> &Bytes {
        &self.signature
    }

    /// Rebuilds and hashes the entry headers and checks the author's signature over the last one.
    ///
    /// # Errors
    /// [`VerifyError`]: the peer forwarded a forgery.
    pub fn verify(self, key: &PublicKey) -> Result<Run, VerifyError> {
        self.verify_after(key, 0)
    }

    /// As [`verify`](Self::verify), for a run that crossed this many links.
    pub(crate) fn verify_after(self, key: &PublicKey, hops: u32) -> Result<Run, VerifyError> {
        if key.agent_id() != self.body.author {
            return Err(VerifyError::KeyMismatch);
        }
        let signature =
            Signature::from_bytes(&self.signature).map_err(|_| VerifyError::BadSignature)?;
        let hash = self.body.last_hash();
        key.verify(RUN_DOMAIN, hash.as_bytes(), &signature)
            .map_err(|_| VerifyError::BadSignature)?;
        self.seal(hash, hops).map_err(|_| VerifyError::BadSignature)
    }

    /// Moves the run into one allocation of its own, framed as links send it: what it was read from
    /// may be a large buffer shared with other messages.
    pub(crate) fn seal(self, hash: EntryHash, hops: u32) -> Result<Run, WireError> {
        let run_len = self.encoded.len();
        let frame = publish_frame(self.encoded, Bytes::new(), Before::Held, hops + 1);
        // Behind the run there is only the number of hops, with its tag.
        let trailer = 1 + prost::length_delimiter_len(hops as usize + 1);
        let start = frame.len() - trailer - run_len;
        let owned = Self::decode(frame.slice(start..start + run_len))?;
        Ok(Run {
            body: owned.body,
            hash,
            signature: owned.signature,
            encoded: owned.encoded,
            frame,
            hops,
        })
    }
}

/// The frame that carries a run; `hops` counts the link that it is for.
pub(crate) fn publish_frame(run: Bytes, author_key: Bytes, before: Before, hops: u32) -> Bytes {
    let (floor, removed) = (before != Before::Held, before == Before::Removed);
    wire::encode(FrameKind::Publish(PublishWire { run, author_key, floor, hops, removed }))
}

fn decode_entries(wire: Vec<EntryWire>, epoch: u64) -> Result<Vec<Entry>, WireError> {
    let class = class_code(epoch);
    let mut time = 0_u64;
    wire.into_iter()
        .map(|entry| {
            wire::within("payload", entry.payload.len(), MAX_PAYLOAD)?;
            if entry.time_delta == 0 {
                return Err(DecodeError::Field("time_delta").into());
            }
            if u64::from(entry.class) != class {
                return Err(DecodeError::Field("class").into());
            }
            let sum = time.checked_add(entry.time_delta);
            time = sum.ok_or(DecodeError::Field("time_delta"))?;
            Ok(Entry { time: HybridTime::from_u64(time), payload: entry.payload })
        })
        .collect()
}

/// A run that its author signed.
#[derive(Debug, Clone)]
pub struct Run {
    body: RunBody,
    hash: EntryHash,
    signature: Bytes,
    encoded: Bytes,
    frame: Bytes,
    /// Links that it had crossed when its frame was made.
    hops: u32,
}

impl Run {
    /// What the run says.
    #[must_use]
    pub const fn body(&self) -> &RunBody {
        &self.body
    }

    /// The hash of its last entry.
    #[must_use]
    pub const fn hash(&self) -> EntryHash {
        self.hash
    }

    /// The run as its author sent it: an encoded `Run` of `docs/protocol/pubsub.proto`.
    #[must_use]
    pub const fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    pub(crate) const fn signature(&self) -> &Bytes {
        &self.signature
    }

    /// The publish frame without key or floor of a node that the run reached over this many links;
    /// one that its links share, unless the run is shared with other nodes.
    pub(crate) fn frame(&self, hops: u32) -> Bytes {
        if hops == self.hops {
            return self.frame.clone();
        }
        publish_frame(self.encoded.clone(), Bytes::new(), Before::Held, hops + 1)
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> u64 {
        self.body.entries.len() as u64
    }

    /// Bytes that retaining the run accounts for.
    pub(crate) fn size(&self) -> usize {
        self.frame.len() + RUN_OVERHEAD + self.body.entries.len() * ENTRY_OVERHEAD
    }
}
