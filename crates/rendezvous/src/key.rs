//! Lookup keys: what a holder files a record under, without saying of whom it is.
//!
//! A key is a hash of the id and the day, so that whoever sees a lookup learns nothing of an id that it
//! does not know already, and the keys of two days cannot be put together. From the id follows, in
//! another way, the key that opens the record: holders keep what they cannot read. The last bit of a key tells its
//! kind, so that nothing is filed in an agent's place under another name.

use std::time::Duration;

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
/// Of the last byte of a key: set in those of topics, and not in those of agents.
const TOPIC_BIT: u8 = 1;

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
    const fn is_topic(&self) -> bool {
        matches!(self, Self::Topic(_))
    }

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

x0x_core::bytes32! {
    /// What a record is filed under for a day.
    LookupKey
}

impl LookupKey {
    /// That of a subject in an epoch.
    #[must_use]
    pub fn of(subject: &Subject, epoch: u64) -> Self {
        let mut key = subject.derive(KEY_CONTEXT, epoch);
        key[31] = key[31] & !TOPIC_BIT | if subject.is_topic() { TOPIC_BIT } else { 0 };
        Self(key)
    }

    /// Whether topics have such keys; agents have the others.
    #[must_use]
    pub const fn is_topic(&self) -> bool {
        self.0[31] & TOPIC_BIT != 0
    }

    /// How far a machine is from the key: the nearer, the better it suits to hold the record. P. Maymounkov,
    /// D. Mazières, *Kademlia*, IPTPS 2002, §2.1: what is near to a key is near to each other, so that
    /// whoever is near knows who is nearer.
    #[must_use]
    pub fn distance(&self, machine: &MachineId) -> Distance {
        Distance::between(&self.0, machine.as_bytes())
    }
}

/// The bitwise difference of two places in the space of keys and machine ids, read as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Distance([u8; 32]);

impl Distance {
    pub(crate) fn between(a: &[u8; 32], b: &[u8; 32]) -> Self {
        Self(std::array::from_fn(|at| a[at] ^ b[at]))
    }

    /// The bits that both places begin with.
    pub(crate) fn shared_bits(&self) -> usize {
        let equal = self.0.iter().take_while(|byte| **byte == 0).count();
        equal * 8 + self.0.get(equal).map_or(0, |byte| byte.leading_zeros() as usize)
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
        assert_ne!(keys[0].distance(&a), keys[0].distance(&b));
        assert_ne!(keys[0].distance(&a), keys[1].distance(&a));
        assert_eq!(epoch(WallTime::from_millis(86_400_000 * 7 + 5)), 7);
    }

    #[test]
    fn a_key_tells_its_kind() {
        for day in 0..64 {
            assert!(!LookupKey::of(&AGENT, day).is_topic(), "day {day}");
            assert!(LookupKey::of(&TOPIC, day).is_topic(), "day {day}");
        }
    }

    #[test]
    fn near_places_share_bits() {
        let shared = |n: u8| {
            let mut id = [1; 32];
            id[1] ^= n;
            LookupKey::new([1; 32]).distance(&MachineId::new(id))
        };
        assert_eq!([0, 1, 0x80].map(|n| shared(n).shared_bits()), [256, 15, 8]);
        assert!(shared(0) < shared(1) && shared(1) < shared(2) && shared(3) < shared(4));
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
