//! The user's certificate for the agent while it runs: renewed in time, and not shown beyond its end.

use std::sync::{Mutex, PoisonError};

use x0x_core::WallTime;
use x0x_identity::{AcceptedCertificate, Identity, IdentityStore, SignedCertificate};

/// The last certificate that there is.
#[derive(Debug)]
pub(crate) struct Certified(Mutex<Option<AcceptedCertificate>>);

impl Certified {
    pub(crate) const fn new(kept: Option<AcceptedCertificate>) -> Self {
        Self(Mutex::new(kept))
    }

    /// It, whatever its state.
    pub(crate) fn kept(&self) -> Option<AcceptedCertificate> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It, while it holds.
    pub(crate) fn shown(&self, now: WallTime) -> Option<SignedCertificate> {
        let kept = self.kept()?;
        let certificate = kept.certificate();
        (now < certificate.certificate().not_after).then(|| certificate.clone())
    }

    /// Renews it when it is time and the user's key is there. What fails is tried again with the next call.
    pub(crate) async fn renew(&self, store: &IdentityStore, identity: &Identity, now: WallTime) {
        let (store, kept) = (store.clone(), self.kept());
        let identity = Identity { certificate: kept.clone(), ..identity.clone() };
        match tokio::task::spawn_blocking(move || store.certify(&identity, now)).await {
            Ok(Ok(renewed)) if renewed != kept => {
                *self.0.lock().unwrap_or_else(PoisonError::into_inner) = renewed;
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the user's certificate is not renewed"),
            // The runtime is shutting down.
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);

    #[tokio::test]
    async fn a_certificate_that_ends_is_renewed_and_until_then_not_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = IdentityStore::open(folder.path().join("identity")).expect("opened");
        store.load_or_create().expect("made");
        store.create_user().expect("made");
        let identity = store.load_or_create().expect("loaded");
        let first = store.certify(&identity, NOW).expect("certified");
        let certified = Certified::new(first.clone());
        let end = certified.shown(NOW).expect("it holds").certificate().not_after;
        assert!(certified.shown(end).is_none(), "its end is no part of it");
        certified.renew(&store, &identity, NOW).await;
        assert_eq!(certified.kept(), first, "it is not time");
        let late = end + Duration::from_secs(1);
        certified.renew(&store, &identity, late).await;
        assert!(certified.shown(late).is_some());
        let kept = store.load_or_create().expect("loaded").certificate;
        assert_eq!(kept, certified.kept(), "it is on disk");
        // Without the user's key nothing is renewed, and nothing shown.
        let without = Identity { user: None, ..identity };
        let old = Certified::new(first);
        old.renew(&store, &without, late).await;
        assert!(old.shown(late).is_none() && old.kept().is_some());
    }
}
