//! Fakes: a store in memory that can fail and be copied, and a probe of every AEAD call.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use sha2::{Digest, Sha256};

use crate::{
    provider::AeadProbe,
    store::{Batch, Change, Entry, MlsStore, Space, StoreError},
};

type Entries = BTreeMap<(Space, Vec<u8>, u32), zeroize::Zeroizing<Vec<u8>>>;

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    entries: Mutex<Entries>,
    commits_left: AtomicU64,
    limited: std::sync::atomic::AtomicBool,
    commits: AtomicU64,
    bytes: AtomicU64,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of what it holds now: a backup, or what a crash left.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self { entries: Mutex::new(self.lock().clone()), ..Self::default() }
    }

    /// Every commit after the next `n` fails, as when the process ends there.
    pub fn fail_after(&self, n: u64) {
        self.commits_left.store(n, Ordering::SeqCst);
        self.limited.store(true, Ordering::SeqCst);
    }

    /// Commits work again.
    pub fn heal(&self) {
        self.limited.store(false, Ordering::SeqCst);
    }

    /// Transactions written.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::SeqCst)
    }

    /// Bytes of keys and values written.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    /// Bytes of values held.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        self.lock().values().map(|value| value.len()).sum()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl MlsStore for MemoryStore {
    fn load(&self, space: Space) -> Result<Vec<Entry>, StoreError> {
        let entries = self.lock();
        let of_space = entries.range((space, Vec::new(), 0)..).take_while(|(k, _)| k.0 == space);
        Ok(of_space
            .map(|((_, key, chunk), value)| Entry {
                key: key.clone(),
                chunk: *chunk,
                value: value.clone(),
            })
            .collect())
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        if self.limited.load(Ordering::SeqCst) {
            let left = self.commits_left.load(Ordering::SeqCst);
            if left == 0 {
                return Err(StoreError("failed on purpose".into()));
            }
            self.commits_left.store(left - 1, Ordering::SeqCst);
        }
        let mut entries = self.lock();
        self.commits.fetch_add(1, Ordering::SeqCst);
        for change in batch {
            match change {
                Change::Put(space, entry) => {
                    let size = entry.key.len() + entry.value.len();
                    self.bytes.fetch_add(size as u64, Ordering::SeqCst);
                    entries.insert((space, entry.key, entry.chunk), entry.value);
                }
                Change::Cut(space, key, from) => {
                    let cut: Vec<_> = entries
                        .range((space, key.clone(), from)..=(space, key, u32::MAX))
                        .map(|(k, _)| k.clone())
                        .collect();
                    cut.iter().for_each(|k| drop(entries.remove(k)));
                }
                Change::Drop(space) => entries.retain(|key, _| key.0 != space),
            }
        }
        Ok(())
    }
}

/// Remembers every key and nonce that something was encrypted with.
#[derive(Debug, Default)]
pub struct NonceProbe {
    seen: Mutex<HashMap<[u8; 32], [u8; 32]>>,
    keys: Mutex<HashMap<[u8; 32], u64>>,
    reused: AtomicU64,
}

impl NonceProbe {
    /// Encryptions with a key and a nonce that were used before, for another plaintext or the same.
    #[must_use]
    pub fn reused(&self) -> u64 {
        self.reused.load(Ordering::SeqCst)
    }

    /// Encryptions seen.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.lock_keys().values().sum()
    }

    /// Encryptions under a key that had encrypted already. A key is of one generation of one sender,
    /// so that this counts generations used again even where the reuse guard makes the nonce differ.
    #[must_use]
    pub fn keys_reused(&self) -> u64 {
        self.lock_keys().values().map(|uses| uses - 1).sum()
    }

    fn lock_keys(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], u64>> {
        self.keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl AeadProbe for NonceProbe {
    fn encrypting(&self, key: &[u8], nonce: &[u8], plaintext: &[u8]) {
        let pair = Sha256::new().chain_update(key).chain_update(nonce).finalize().into();
        let text = Sha256::digest(plaintext).into();
        *self.lock_keys().entry(Sha256::digest(key).into()).or_default() += 1;
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if seen.insert(pair, text).is_some() {
            self.reused.fetch_add(1, Ordering::SeqCst);
        }
    }
}
