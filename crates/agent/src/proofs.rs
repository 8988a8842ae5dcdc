//! Keeping the proofs of revocations, and when each is told again.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::Mutex;
use x0x_core::{Clock, WallTime};
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

/// The proofs and their file. Clones keep the same.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    proofs: Arc<Mutex<Proofs>>,
    file: Option<ProofsFile>,
    clock: Arc<dyn Clock>,
    /// This node's share of the spread.
    share: Duration,
}

impl Keeper {
    /// Nothing is kept yet. With a path it is kept there; the seed differs between nodes.
    pub(crate) fn new(path: Option<PathBuf>, seed: [u8; 32], clock: Arc<dyn Clock>) -> Self {
        let share = SPREAD * u32::from(seed[0]) / 256;
        Self { proofs: Arc::default(), file: path.map(ProofsFile::at), clock, share }
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
                && let Err(error) = trust.learn(signed.revocation()).await
            {
                tracing::warn!(%error, "a revocation that was kept is not believed");
            }
        }
        let mut proofs = self.proofs.lock().await;
        for signed in loaded.revocations() {
            proofs.keep(signed.clone(), due, |subject| trust.concerns_contact(subject));
        }
    }

    /// Keeps a proof that was told just now.
    pub(crate) async fn keep(&self, signed: &SignedRevocation, trust: &Trust) {
        let mut proofs = self.proofs.lock().await;
        let due = self.after(self.clock.wall());
        let new = proofs.keep(signed.clone(), due, |subject| trust.concerns_contact(subject));
        let Some(file) = self.file.clone().filter(|_| new) else { return };
        let snapshot = proofs.clone();
        // Written while the lock is held: in the order of the changes.
        let written = tokio::task::spawn_blocking(move || file.save(&snapshot)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "the proof of a revocation is not written");
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
