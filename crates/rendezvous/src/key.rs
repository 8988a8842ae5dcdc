//! Lookup keys: what a holder files a record under, without saying of whom it is.
//!
//! A key is a hash of the id and the day, so that whoever sees a lookup learns nothing of an id that it
//! does not know already, and the keys of two days cannot be put together. From the id follows, in
//! another way, the key that opens the record: holders keep what they cannot read.

use std::{fmt, time::Duration};

use bytes::Bytes;
use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use x0x_core::{AgentId, MachineId, TopicId, WallTime};

/// How long keys last.
pub const EPOCH: Duration = Duration::from_secs(24 * 3600);
/// Bytes that a sealed record is longer than the record.
pub const SEAL_OVERHEAD: usize = SALT_LEN + TAG_LEN;

const SALT_LEN: usize = 16;
const TAG_LEN: usize = 16;
const KEY_CONTEXT: &str = "x0x rendezvous lookup key 1";
const SEAL_CONTEXT: &str = "x0x rendezvous seal 1";
const RANK_CONTEXT: &str = "x0x rendezvous rank 1";

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Subject {
    /// An agent.
    Agent(AgentId),
    /// Subscribers of a topic.
    Topic(TopicId),
}

impl Subject {
    const fn parts(&self) -> (u8, &[u8; 32]) {
        match self {
            Self::Agent(agent) => (1, agent.as_bytes()),
            Self::Topic(topic) => (2, topic.as_bytes()),
        }
    }

    fn derive(&self, context: &str, epoch: u64) -> [u8; 32] {
        let (kind, id) = self.parts();
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&[kind]).update(id).update(&epoch.to_be_bytes());
        *hasher.finalize().as_bytes()
    }
}

/// The number of the day of a time.
#[must_use]
pub const fn epoch(at: WallTime) -> u64 {
    at.as_secs() / EPOCH.as_secs()
}

/// What a record is filed under for a day.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupKey([u8; 32]);

impl LookupKey {
    /// That of a subject in an epoch.
    #[must_use]
    pub fn of(subject: &Subject, epoch: u64) -> Self {
        Self(subject.derive(KEY_CONTEXT, epoch))
    }

    /// As received.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// How well a machine suits to hold the record: the higher the better. D. Thaler, C. Ravishankar,
    /// *Using name-based mappings to increase hit rates*, IEEE/ACM ToN 6(1), 1998.
    #[must_use]
    pub fn rank(&self, machine: &MachineId) -> u64 {
        self.ranker().rank(machine)
    }

    /// Ranks many machines, hashing the key once.
    pub(crate) fn ranker(&self) -> Ranker {
        Ranker(blake3::derive_key(RANK_CONTEXT, &self.0))
    }
}

/// The ranks of one key.
#[derive(Debug)]
pub(crate) struct Ranker([u8; 32]);

impl Ranker {
    pub(crate) fn rank(&self, machine: &MachineId) -> u64 {
        let hash = blake3::keyed_hash(&self.0, machine.as_bytes());
        u64::from_be_bytes(hash.as_bytes().first_chunk().copied().unwrap_or_default())
    }
}

impl fmt::Debug for LookupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LookupKey({})", MachineId::new(self.0).short())
    }
}

/// Seals a record to whoever knows the subject. Deterministic, with a key of its own for each content
/// (a salt from the content, as in RFC 8452's construction), so that no nonce is ever used twice.
#[must_use]
pub fn seal(subject: &Subject, epoch: u64, record: &[u8]) -> Bytes {
    let key = subject.derive(SEAL_CONTEXT, epoch);
    let digest = blake3::keyed_hash(&key, record);
    let mut sealed = digest.as_bytes()[..SALT_LEN].to_vec();
    let cipher = cipher(&key, &sealed);
    let aad = &sealed;
    // Encryption in memory fails only for sizes that no record has.
    let text = cipher.encrypt(&Nonce::default(), Payload { msg: record, aad }).unwrap_or_default();
    sealed.extend_from_slice(&text);
    sealed.into()
}

/// Opens a sealed record; none when it was not sealed to this subject in this epoch.
#[must_use]
pub fn open(subject: &Subject, epoch: u64, sealed: &[u8]) -> Option<Bytes> {
    let (salt, text) = sealed.split_at_checked(SALT_LEN)?;
    let key = subject.derive(SEAL_CONTEXT, epoch);
    let payload = Payload { msg: text, aad: salt };
    cipher(&key, salt).decrypt(&Nonce::default(), payload).ok().map(Bytes::from)
}

fn cipher(key: &[u8; 32], salt: &[u8]) -> ChaCha20Poly1305 {
    let once = blake3::keyed_hash(key, salt);
    ChaCha20Poly1305::new(once.as_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: Subject = Subject::Agent(AgentId::new([1; 32]));
    const TOPIC: Subject = Subject::Topic(TopicId::new([1; 32]));

    #[test]
    fn keys_differ_by_kind_and_day() {
        let keys = [(AGENT, 1), (AGENT, 2), (TOPIC, 1)].map(|(of, day)| LookupKey::of(&of, day));
        assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2]);
        let (a, b) = (MachineId::new([1; 32]), MachineId::new([2; 32]));
        assert_ne!(keys[0].rank(&a), keys[0].rank(&b));
        assert_ne!(keys[0].rank(&a), keys[1].rank(&a));
        assert_eq!(keys[0].ranker().rank(&a), keys[0].rank(&a));
        assert_eq!(epoch(WallTime::from_millis(86_400_000 * 7 + 5)), 7);
    }

    #[test]
    fn only_the_subject_opens_and_nothing_may_be_changed() {
        let sealed = seal(&AGENT, 5, b"a record");
        assert_eq!(sealed.len(), 8 + SEAL_OVERHEAD);
        assert_eq!(open(&AGENT, 5, &sealed).as_deref(), Some(&b"a record"[..]));
        assert_eq!(open(&AGENT, 6, &sealed), None);
        assert_eq!(open(&TOPIC, 5, &sealed), None);
        for at in 0..sealed.len() {
            let mut forged = sealed.to_vec();
            forged[at] ^= 1;
            assert_eq!(open(&AGENT, 5, &forged), None, "byte {at}");
            assert_eq!(open(&AGENT, 5, &sealed[..at]), None, "cut at {at}");
        }
        assert_ne!(seal(&AGENT, 5, b"b record"), sealed);
    }
}
