//! Key-value stores.
//!
//! A put takes the place of the values that its author had seen under the key; values that saw nothing
//! of each other stay side by side, and the latest counts on every replica. A deletion removes what its author
//! had seen, so that a value which is put at the same time stays. A value with a time to live is
//! hidden when that is over, and removed by the first operation that is later and whose author had seen it.

mod entry;
mod op;
#[cfg(test)]
mod tests;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use x0x_core::{AgentId, DecodeError, WallTime};

use crate::{Decoder, Encoder, Invalid, Object, OpContext, Policy, Stamp};

use entry::Entry;
pub use entry::{KeyView, Version, VersionTag};
pub use op::{
    Content, DEFAULT_CONTENT_TYPE, FileReference, KvOp, MAX_CONTENT_TYPE, MAX_FILE_NAME, MAX_KEY,
    MAX_METADATA, MAX_METADATA_BYTES, MAX_TTL, MAX_VALUE, MIN_TTL, Put,
};
pub use write::{If, KvError, MAX_KEYS};

/// What the numbers of [`Policy::kind`] mean in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rules {
    /// Writers write every key.
    Shared,
    /// Each writes below its own prefix: its id in 64 hex characters, then `/`.
    SelfKeyed,
    /// A key that has a value keeps it.
    AppendOnly,
}

impl Rules {
    /// The number.
    #[must_use]
    pub const fn kind(self) -> u32 {
        match self {
            Self::Shared => 0,
            Self::SelfKeyed => 1,
            Self::AppendOnly => 2,
        }
    }

    /// The rules of a policy; those of a number that this version does not know are none.
    #[must_use]
    pub const fn of(policy: &Policy) -> Option<Self> {
        match policy.kind() {
            0 => Some(Self::Shared),
            1 => Some(Self::SelfKeyed),
            2 => Some(Self::AppendOnly),
            _ => None,
        }
    }
}

/// Whether a key is in an agent's own part of a self-keyed store.
#[must_use]
pub fn is_own_key(agent: &AgentId, key: &str) -> bool {
    key.strip_prefix(&agent.to_string()).is_some_and(|rest| rest.starts_with('/'))
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvChange {
    /// A value was put.
    Put,
    /// A value was put, and another one at the same time stays beside it.
    Conflict,
    /// It was deleted, as far as the author had seen.
    Deleted,
    /// A value's time was over.
    Expired,
}

/// Something happened to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvEvent {
    /// The key.
    pub key: String,
    /// Who did it; who had put it, where it expired.
    pub agent: AgentId,
    /// When.
    pub at: WallTime,
    /// What happened.
    pub change: KvChange,
    /// What the key holds now; none when it has no value.
    pub tag: Option<VersionTag>,
}

/// The state of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KvStore {
    entries: BTreeMap<String, Entry>,
    /// Values with a time to live, the first to end first.
    expiring: BTreeSet<(WallTime, Stamp, String)>,
    size: usize,
}

impl KvStore {
    /// Keys that hold something, expired or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no key holds anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What a key holds.
    #[must_use]
    pub fn get(&self, key: &str, now: WallTime) -> Option<KeyView<'_>> {
        let (key, entry) = self.entries.get_key_value(key)?;
        KeyView::new(key, entry, now)
    }

    /// Keys with a prefix, behind another key, in byte order.
    pub fn range<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        now: WallTime,
    ) -> impl Iterator<Item = KeyView<'a>> {
        let start = match after.filter(|after| *after >= prefix) {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix),
        };
        let keys = self.entries.range::<str, _>((start, Bound::Unbounded));
        keys.take_while(move |(key, _)| key.starts_with(prefix))
            .filter_map(move |(key, entry)| KeyView::new(key, entry, now))
    }

    fn put(&mut self, cx: &OpContext<'_>, put: Put, events: &mut Vec<KvEvent>) {
        let kept = Rules::of(cx.policy()) == Some(Rules::AppendOnly);
        let key = put.key.clone();
        let version = Version::new(cx, put, kept);
        let entry = self.entries.entry(key.clone()).or_default();
        let gone = entry.supersede(cx);
        if entry.versions.is_empty() && gone.is_empty() {
            self.size += key.len();
        }
        self.size += version.size();
        if let Some(expires) = version.expires {
            self.expiring.insert((expires, version.stamp, key.clone()));
        }
        entry.insert(version);
        let change = if entry.versions.len() > 1 { KvChange::Conflict } else { KvChange::Put };
        let tag = KeyView::new(&key, entry, cx.time()).map(|view| view.tag());
        self.forget(&key, &gone);
        events.push(KvEvent { key, agent: cx.author(), at: cx.time(), change, tag });
    }

    fn delete(&mut self, cx: &OpContext<'_>, key: String, events: &mut Vec<KvEvent>) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let gone = entry.supersede(cx);
        if gone.is_empty() {
            return;
        }
        let tag = KeyView::new(&key, entry, cx.time()).map(|view| view.tag());
        self.forget(&key, &gone);
        let change = KvChange::Deleted;
        events.push(KvEvent { key, agent: cx.author(), at: cx.time(), change, tag });
    }

    /// Removes values whose time was over when an operation was written whose author had seen them.
    fn expire(&mut self, cx: &OpContext<'_>, events: &mut Vec<KvEvent>) {
        let due = self.expiring.iter().take_while(|(expires, ..)| *expires <= cx.time());
        let due: Vec<_> = due.filter(|(_, stamp, _)| cx.sees(stamp.dot)).cloned().collect();
        for (at, stamp, key) in due {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            let over = |version: &mut Version| version.stamp == stamp;
            let gone: Vec<_> = entry.versions.extract_if(.., over).collect();
            let tag = KeyView::new(&key, entry, cx.time()).map(|view| view.tag());
            self.forget(&key, &gone);
            let agents = gone.iter().map(Version::author);
            let change = KvChange::Expired;
            events.extend(agents.map(|agent| KvEvent { key: key.clone(), agent, at, change, tag }));
        }
    }

    /// Drops what is known of values that are gone from their entry, and an entry that is empty.
    fn forget(&mut self, key: &str, gone: &[Version]) {
        for version in gone {
            self.size -= version.size();
            if let Some(expires) = version.expires {
                self.expiring.remove(&(expires, version.stamp, key.to_owned()));
            }
        }
        if self.entries.get(key).is_some_and(|entry| entry.versions.is_empty()) {
            self.entries.remove(key);
            self.size -= key.len();
        }
    }
}

impl Object for KvStore {
    const KIND: &'static str = "kv/1";

    type Op = KvOp;
    type Event = KvEvent;

    fn encode_op(op: &KvOp) -> Vec<u8> {
        op.encode()
    }

    fn decode_op(bytes: &[u8]) -> Result<KvOp, DecodeError> {
        KvOp::decode(bytes)
    }

    fn check(&self, cx: &OpContext<'_>, op: &KvOp) -> Result<(), Invalid> {
        let (KvOp::Put(Put { key, .. }) | KvOp::Delete(key)) = op;
        let rules = Rules::of(cx.policy()).ok_or(Invalid("rules of a later version"))?;
        if rules == Rules::SelfKeyed && !is_own_key(&cx.author(), key) {
            return Err(Invalid("a key of another writer"));
        }
        if rules == Rules::AppendOnly {
            match op {
                KvOp::Delete(_) => return Err(Invalid("values stay")),
                KvOp::Put(put) if put.ttl.is_some() => return Err(Invalid("values stay")),
                KvOp::Put(_) => {}
            }
        }
        // What stays is never removed, so that every replica that looks here has it.
        if self.entries.get(key).is_some_and(|entry| entry.is_kept(cx)) {
            return Err(Invalid("the key has a value that stays"));
        }
        Ok(())
    }

    fn apply(&mut self, cx: &OpContext<'_>, op: KvOp, events: &mut Vec<KvEvent>) {
        self.expire(cx, events);
        match op {
            KvOp::Put(put) => self.put(cx, put, events),
            KvOp::Delete(key) => self.delete(cx, key, events),
        }
    }

    fn encode_state(&self, encoder: &mut Encoder) {
        encoder.count(self.entries.len());
        for (key, entry) in &self.entries {
            encoder.text(key);
            encoder.count(entry.versions.len());
            entry.versions.iter().for_each(|version| version.encode(encoder));
        }
    }

    fn decode_state(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let mut store = Self::default();
        for _ in 0..decoder.count(60)? {
            let key = decoder.text(MAX_KEY)?.to_owned();
            if store.entries.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(DecodeError::Field("keys"));
            }
            let mut versions: Vec<Version> = Vec::new();
            for _ in 0..decoder.count(56)? {
                let version = Version::decode(decoder)?;
                if versions.last().is_some_and(|last| last.stamp >= version.stamp) {
                    return Err(DecodeError::Field("versions"));
                }
                store.size += version.size();
                if let Some(expires) = version.expires {
                    store.expiring.insert((expires, version.stamp, key.clone()));
                }
                versions.push(version);
            }
            if versions.is_empty() || !op::is_key(&key) {
                return Err(DecodeError::Field("key"));
            }
            store.size += key.len();
            store.entries.insert(key, Entry { versions });
        }
        Ok(store)
    }

    fn size(&self) -> usize {
        self.size
    }
}
