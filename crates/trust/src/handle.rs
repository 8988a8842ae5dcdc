//! What users hold: the policy, with the file behind it.

use std::{
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{Mutex, broadcast};
use x0x_core::{AgentId, Clock, MachineId, UserId, WallTime};
use x0x_identity::{AgentBinding, Revocation, Subject, private_file::FileError};

use crate::{
    contacts::{Contact, Sighting},
    error::{ChangeError, OpenError, TrustError},
    event::TrustEvent,
    file::{ContactsFile, Loaded},
    level::Level,
    metrics::TrustMetrics,
    policy::{Action, Decision, Policy},
    revocations::{RevocationRecord, Revoker},
    state::{Assessment, Change, Observation, Outcome, TrustState},
};

/// Events that a reader may fall behind before it is told that it missed some.
pub const MAX_UNREAD_EVENTS: usize = 256;

/// Contacts, revocations and the policy over them. Cheap to clone; all clones are the same.
///
/// Deciding and observing never wait. A [change](Self::change) returns when it is on disk; what was
/// [observed](Self::observe) is written with the next change or [flush](Self::flush).
#[derive(Debug, Clone)]
pub struct Trust {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: RwLock<TrustState>,
    /// Held while something is written, so that files are written in the order of changes.
    file: Mutex<Option<ContactsFile>>,
    loaded: Loaded,
    /// Whether something was observed that is not on disk.
    unsaved: AtomicBool,
    events: broadcast::Sender<TrustEvent>,
    metrics: TrustMetrics,
    clock: Arc<dyn Clock>,
}

impl Trust {
    /// Reads the contacts at `path`, whose folder is there. Damage is repaired or told: see
    /// [`loaded`](Self::loaded).
    ///
    /// # Errors
    /// [`OpenError`] when the disk fails, or when other users may read or change the file.
    pub async fn open(path: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let file = ContactsFile::at(path);
        let reader = file.clone();
        let (state, loaded) = match tokio::task::spawn_blocking(move || reader.load()).await {
            Ok(result) => result?,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        match &loaded {
            Loaded::Fresh | Loaded::Whole => {}
            Loaded::FromBackup { damaged } => {
                tracing::warn!(?damaged, "contacts were damaged; the backup is in use");
            }
            Loaded::Lost { damaged, .. } => {
                tracing::error!(
                    ?damaged,
                    "contacts were damaged, and so was the backup: none are known"
                );
            }
        }
        Ok(Self::new(state, Some(file), loaded, clock))
    }

    /// No contacts, kept nowhere.
    #[must_use]
    pub fn in_memory(clock: Arc<dyn Clock>) -> Self {
        Self::new(TrustState::default(), None, Loaded::Fresh, clock)
    }

    fn new(
        state: TrustState,
        file: Option<ContactsFile>,
        loaded: Loaded,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let inner = Inner {
            state: RwLock::new(state),
            file: Mutex::new(file),
            loaded,
            unsaved: AtomicBool::new(false),
            events: broadcast::Sender::new(MAX_UNREAD_EVENTS),
            metrics: TrustMetrics::default(),
            clock,
        };
        let trust = Self { inner: Arc::new(inner) };
        trust.gauge();
        trust
    }

    fn read(&self) -> RwLockReadGuard<'_, TrustState> {
        self.inner.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, TrustState> {
        self.inner.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names the keys of this installation, few: what revokes them never makes room for other revocations, and
    /// always finds it.
    pub fn claim(&self, own: &[Subject]) {
        self.write().claim(own);
    }

    /// How the contacts were found at the start.
    #[must_use]
    pub fn loaded(&self) -> &Loaded {
        &self.inner.loaded
    }

    /// How an agent on a machine stands, for whoever asks about trust as such.
    #[must_use]
    pub fn assess(&self, agent: &AgentId, machine: Option<&MachineId>) -> Assessment {
        self.read().reason(agent, machine).into()
    }

    /// The level of an agent; blocked when it was revoked.
    #[must_use]
    pub fn level(&self, agent: &AgentId) -> Level {
        self.read().level(agent)
    }

    /// One contact.
    #[must_use]
    pub fn contact(&self, agent: &AgentId) -> Option<Contact> {
        self.read().contact(agent).cloned()
    }

    /// The contacts, by id.
    #[must_use]
    pub fn contacts(&self) -> Vec<Contact> {
        self.read().contacts().cloned().collect()
    }

    /// The revocations, by subject.
    #[must_use]
    pub fn revocations(&self) -> Vec<RevocationRecord> {
        self.read().revocations().cloned().collect()
    }

    /// Whether a key was revoked, here or for everybody.
    #[must_use]
    pub fn is_revoked(&self, subject: &Subject) -> bool {
        self.read().revocation(subject).is_some()
    }

    /// Whether a key was revoked for everybody: by itself, or by its user.
    #[must_use]
    pub fn is_revoked_for_all(&self, subject: &Subject) -> bool {
        self.read().revocation(subject).is_some_and(|record| record.by != Revoker::Local)
    }

    /// Where an agent runs, as far as its bindings were seen.
    #[must_use]
    pub fn sighting(&self, agent: &AgentId) -> Option<Sighting> {
        self.read().sighting(agent).cloned()
    }

    /// The user behind an agent, while the certificate that showed them holds.
    #[must_use]
    pub fn user_of(&self, agent: &AgentId) -> Option<UserId> {
        let now = self.inner.clock.wall();
        self.read().sighting(agent).and_then(|sighting| sighting.user(now))
    }

    /// The machine that a pinned contact says it moved to, while that is refused.
    #[must_use]
    pub fn refused_move(&self, agent: &AgentId) -> Option<MachineId> {
        self.read().refused_move(agent)
    }

    /// Pinned contacts that say that they moved, by id, with the machine that is refused.
    #[must_use]
    pub fn refused_moves(&self) -> Vec<(AgentId, MachineId)> {
        self.read().refused_moves().collect()
    }

    /// Whether a key has to do with a contact: is its own, of a machine it runs on, of its user.
    #[must_use]
    pub fn concerns_contact(&self, subject: &Subject) -> bool {
        self.read().concerns_contact(subject)
    }

    /// Makes a change and waits until it is on disk. Only then does anybody see it.
    ///
    /// # Errors
    /// [`TrustError`]; nothing is changed then.
    pub async fn change(&self, change: Change) -> Result<Outcome, TrustError> {
        let now = self.inner.clock.wall();
        let file = self.inner.file.lock().await;
        let mut next = self.read().clone();
        let mut events = Vec::new();
        let outcome = next.apply(now, &change, &mut events);
        if let (Change::Learn(_), Err(ChangeError::Full { .. })) = (&change, &outcome) {
            self.inner.metrics.refused_full.inc();
        }
        let outcome = outcome?;
        if matches!(outcome, Outcome::Created | Outcome::Changed) {
            self.save(file.as_ref(), next).await?;
            // Again on what is there now, since more may have been observed meanwhile. It cannot fail
            // where the same change did not: only changes add and remove, and the lock orders them.
            events.clear();
            self.write().apply(now, &change, &mut events)?;
            self.tell(&events);
            self.gauge();
        }
        Ok(outcome)
    }

    /// Keeps a revocation that was verified, and waits until it is on disk.
    ///
    /// # Errors
    /// [`TrustError`]; it is not kept then.
    pub async fn learn(&self, revocation: &Revocation) -> Result<Outcome, TrustError> {
        self.change(Change::Learn(revocation.clone())).await
    }

    /// Believes a revocation that was verified from now on, without waiting for the disk: it is written with
    /// the next change or [flush](Self::flush). For keys that nobody here has to do with, which cost nothing
    /// to make.
    ///
    /// # Errors
    /// [`ChangeError`]; it is not believed then.
    pub async fn note(&self, revocation: &Revocation) -> Result<Outcome, ChangeError> {
        let now = self.inner.clock.wall();
        // In the order of the changes, each of which is made twice.
        let _turn = self.inner.file.lock().await;
        let mut events = Vec::new();
        let outcome = self.write().apply(now, &Change::Learn(revocation.clone()), &mut events);
        if let Err(ChangeError::Full { .. }) = &outcome {
            self.inner.metrics.refused_full.inc();
        }
        let outcome = outcome?;
        if matches!(outcome, Outcome::Created | Outcome::Changed) {
            self.inner.unsaved.store(true, Ordering::Relaxed);
            self.tell(&events);
            self.gauge();
        }
        Ok(outcome)
    }

    /// A verified binding says that an agent runs on a machine.
    #[must_use]
    pub fn observe(&self, binding: &AgentBinding) -> Observation {
        let mut events = Vec::new();
        let now = self.inner.clock.wall();
        let mut state = self.write();
        let observation = state.observe(binding, now, &mut events);
        let kept = state.contact(&binding.agent).is_some();
        drop(state);
        match observation {
            Observation::Superseded => self.inner.metrics.superseded.inc(),
            Observation::Refused => self.inner.metrics.refused_pin.inc(),
            // Of strangers nothing is written.
            Observation::Current | Observation::Moved if kept => {
                self.inner.unsaved.store(true, Ordering::Relaxed);
            }
            Observation::Current | Observation::Moved => {}
        }
        self.tell(&events);
        observation
    }

    /// An agent showed a verified certificate of its user, which ends at `until`.
    pub fn observe_user(&self, agent: AgentId, user: UserId, until: WallTime) {
        self.write().observe_user(agent, user, until);
        self.inner.unsaved.store(true, Ordering::Relaxed);
    }

    /// Writes what was observed since the last write. Call it now and then, and before the end.
    ///
    /// # Errors
    /// [`FileError`]; it is tried again with the next call.
    pub async fn flush(&self) -> Result<(), FileError> {
        let file = self.inner.file.lock().await;
        if !self.inner.unsaved.load(Ordering::Relaxed) {
            return Ok(());
        }
        let state = self.read().clone();
        self.gauge();
        self.save(file.as_ref(), state).await
    }

    async fn save(&self, file: Option<&ContactsFile>, state: TrustState) -> Result<(), FileError> {
        let Some(file) = file.cloned() else { return Ok(()) };
        // Before the write: what is observed during it is not in it.
        self.inner.unsaved.store(false, Ordering::Relaxed);
        let written = tokio::task::spawn_blocking(move || file.save(&state)).await;
        let written = match written {
            Ok(written) => written,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        if written.is_err() {
            self.inner.unsaved.store(true, Ordering::Relaxed);
            self.inner.metrics.save_failed.inc();
        } else {
            self.inner.metrics.saved.inc();
        }
        written
    }

    fn tell(&self, events: &[TrustEvent]) {
        for event in events {
            match event {
                TrustEvent::Moved { refused: false, .. } => self.inner.metrics.moved.inc(),
                TrustEvent::Revoked { .. } => self.inner.metrics.revoked.inc(),
                _ => {}
            }
            // Without readers nobody needs to know.
            let _ = self.inner.events.send(*event);
        }
    }

    fn gauge(&self) {
        let [contacts, blocked, revocations, strangers] = self.read().counts();
        let metrics = &self.inner.metrics;
        metrics.contacts.set(contacts as u64);
        metrics.blocked.set(blocked as u64);
        metrics.revocations.set(revocations as u64);
        metrics.strangers.set(strangers as u64);
    }

    /// What changes from now on.
    #[must_use]
    pub fn events(&self) -> TrustEvents {
        TrustEvents(self.inner.events.subscribe())
    }

    /// Counters.
    #[must_use]
    pub fn metrics(&self) -> &TrustMetrics {
        &self.inner.metrics
    }
}

impl Policy for Trust {
    fn decide(&self, agent: &AgentId, machine: Option<&MachineId>, action: Action) -> Decision {
        let decision = self.read().decide(agent, machine, action);
        self.inner.metrics.count(decision);
        decision
    }
}

/// A reader of changes.
#[derive(Debug)]
pub struct TrustEvents(broadcast::Receiver<TrustEvent>);

impl TrustEvents {
    /// The next change; `None` when the last handle is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<TrustEvent> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(TrustEvent::Lagged { missed }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
