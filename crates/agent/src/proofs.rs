//! Keeping the proofs of revocations, and when each is told again.

use std::{
    path::PathBuf,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::Mutex;
use x0x_core::{Clock, Counter, TokenBucket, WallTime};
use x0x_identity::{SignedRevocation, Subject};
use x0x_trust::{Proofs, ProofsFile, Trust};

/// The proofs in the data folder.
pub(crate) const PROOFS: &str = "revocations.bin";
/// How long after it was told a revocation is told again: before gossip forgets it, after a day.
const PERIOD: Duration = Duration::from_secs(18 * 3600);
/// The turns of different nodes spread over this time, so that one of them tells it and the others hear.
const SPREAD: Duration = Duration::from_secs(4 * 3600);
/// How long after a start those that were not heard by then are told.
const AFTER_START: Duration = Duration::from_secs(600);

/// Revocations of keys that nobody here has to do with: a burst, then one in ten seconds. Keys cost nothing,
/// and whoever revokes many of their own is to wear out neither disk nor processor. One that is not taken is
/// told again by others within a day.
const OF_STRANGERS: (u32, Duration) = (64, Duration::from_secs(10));

/// The proofs and their file. Clones keep the same.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    proofs: Arc<Mutex<Proofs>>,
    file: Option<ProofsFile>,
    clock: Arc<dyn Clock>,
    /// This node's share of the spread.
    share: Duration,
    /// The keys of this installation.
    own: Arc<[Subject]>,
    of_strangers: Arc<std::sync::Mutex<TokenBucket>>,
    /// Whether proofs of strangers are kept that are not on disk.
    unwritten: Arc<AtomicBool>,
    /// Revocations of strangers that were too many.
    limited: Arc<Counter>,
}

impl Keeper {
    /// Nothing is kept yet. With a path it is kept there; the seed differs between nodes. Proofs about the
    /// own keys never make room.
    pub(crate) fn new(
        path: Option<PathBuf>,
        seed: [u8; 32],
        own: &[Subject],
        clock: Arc<dyn Clock>,
    ) -> Self {
        let share = SPREAD * u32::from(seed[0]) / 256;
        let bucket = TokenBucket::new(OF_STRANGERS.0, OF_STRANGERS.1, clock.now());
        Self {
            proofs: Arc::default(),
            file: path.map(ProofsFile::at),
            clock,
            share,
            own: own.into(),
            of_strangers: Arc::new(std::sync::Mutex::new(bucket)),
            unwritten: Arc::default(),
            limited: Arc::default(),
        }
    }

    /// Revocations of strangers that were not taken.
    pub(crate) fn limited(&self) -> &Counter {
        &self.limited
    }

    /// Whether a key is one of this installation's, or has to do with a contact.
    pub(crate) fn concerns(&self, subject: &Subject, trust: &Trust) -> bool {
        self.own.contains(subject) || trust.concerns_contact(subject)
    }

    /// Whether a revocation may be looked at: always one that is of concern here, others at a rate.
    pub(crate) fn admits(&self, subject: &Subject, trust: &Trust) -> bool {
        let mut bucket = self.of_strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = self.concerns(subject, trust) || bucket.take(self.clock.now());
        if !admitted {
            self.limited.inc();
        }
        admitted
    }

    fn after(&self, told: WallTime) -> WallTime {
        told + PERIOD + self.share
    }

    /// Reads what was kept, and believes it.
    pub(crate) async fn load(&self, trust: &Trust) {
        let Some(file) = self.file.clone() else { return };
        let due = self.clock.wall() + AFTER_START + self.share / 4;
        let loaded = match tokio::task::spawn_blocking(move || file.load(due)).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the proofs of revocations cannot be read");
                return;
            }
            // The runtime is shutting down.
            Err(_) => return,
        };
        for signed in loaded.revocations() {
            if !trust.is_revoked_for_all(&signed.revocation().subject)
                && let Err(error) = trust.note(signed.revocation()).await
            {
                tracing::warn!(%error, "a revocation that was kept is not believed");
            }
        }
        let mut proofs = self.proofs.lock().await;
        for signed in loaded.revocations() {
            proofs.keep(signed.clone(), due, |subject| self.concerns(subject, trust));
        }
    }

    /// Keeps a proof that was told just now: on disk if it is of concern here, and otherwise with the next
    /// [`flush`](Self::flush).
    pub(crate) async fn keep(&self, signed: &SignedRevocation, trust: &Trust) {
        let mut proofs = self.proofs.lock().await;
        let due = self.after(self.clock.wall());
        if !proofs.keep(signed.clone(), due, |subject| self.concerns(subject, trust)) {
            return;
        }
        self.unwritten.store(true, Ordering::Relaxed);
        if self.concerns(&signed.revocation().subject, trust) {
            self.write(&proofs).await;
        }
    }

    /// Writes what is not on disk yet.
    pub(crate) async fn flush(&self) {
        let proofs = self.proofs.lock().await;
        if self.unwritten.load(Ordering::Relaxed) {
            self.write(&proofs).await;
        }
    }

    /// Writes while the caller holds the lock: in the order of the changes.
    async fn write(&self, proofs: &Proofs) {
        let Some(file) = self.file.clone() else { return };
        let snapshot = proofs.clone();
        match tokio::task::spawn_blocking(move || file.save(&snapshot)).await {
            Ok(Ok(())) => self.unwritten.store(false, Ordering::Relaxed),
            Ok(Err(error)) => tracing::warn!(%error, "the proof of a revocation is not written"),
            // The runtime is shutting down.
            Err(_) => {}
        }
    }

    /// Whether there is a proof.
    pub(crate) async fn has(&self, subject: &Subject) -> bool {
        self.proofs.lock().await.contains(subject)
    }

    /// Somebody told a proof at this time.
    pub(crate) async fn told(&self, encoded: &Bytes, at: WallTime) {
        let due = self.after(at);
        self.proofs.lock().await.told(encoded, due);
    }

    /// What is to be told now.
    pub(crate) async fn due(&self) -> Vec<SignedRevocation> {
        self.proofs.lock().await.due(self.clock.wall())
    }
}

#[cfg(test)]
mod tests {
    use x0x_core::SystemClock;
    use x0x_identity::testing::key;
    use x0x_trust::{Change, Level, MAX_PROOFS};

    use super::*;

    fn proof(n: u64) -> SignedRevocation {
        SignedRevocation::of_agent(&key(n), WallTime::from_millis(1), "lost").expect("short")
    }

    #[tokio::test]
    async fn strangers_push_out_nobody_and_are_written_together() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(PROOFS);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let trust = Trust::in_memory(Arc::clone(&clock));
        let own = proof(0);
        let subject = own.revocation().subject;
        let keeper = Keeper::new(Some(path.clone()), [0; 32], &[subject], clock);
        keeper.keep(&own, &trust).await;
        let written = std::fs::read(&path).expect("written at once");
        for n in 1..=MAX_PROOFS as u64 + 3 {
            keeper.keep(&proof(n), &trust).await;
        }
        assert_eq!(std::fs::read(&path).expect("read"), written, "strangers wait");
        keeper.flush().await;
        assert!(std::fs::read(&path).expect("read").len() > written.len() * 200);
        assert!(keeper.has(&subject).await, "the own proof stays");
        assert!(!keeper.has(&proof(1).revocation().subject).await, "the oldest stranger went");
    }

    #[tokio::test]
    async fn only_strangers_are_slowed() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let trust = Trust::in_memory(Arc::clone(&clock));
        let contact = key(1).public_key().agent_id();
        let add = Change::Add { agent: contact, level: Some(Level::Known), label: None };
        trust.change(add).await.expect("added");
        let own = Subject::Agent(key(0).public_key().agent_id());
        let keeper = Keeper::new(None, [0; 32], &[own], clock);
        let stranger = |n: u8| Subject::Agent(x0x_core::AgentId::new([n; 32]));
        let admitted = (0..200).filter(|n| keeper.admits(&stranger(*n), &trust)).count();
        assert!((64..200).contains(&admitted), "{admitted}");
        assert_eq!(keeper.limited().value(), 200 - admitted as u64);
        for _ in 0..200 {
            assert!(keeper.admits(&own, &trust) && keeper.admits(&Subject::Agent(contact), &trust));
        }
    }
}
