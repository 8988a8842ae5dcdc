//! The fakes of this crate's traits.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::broadcast;
use x0x_core::AgentId;
use x0x_transport::BoxFuture;

use crate::{
    handle::{Events, PresenceView},
    state::Status,
    visibility::Visibility,
};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everybody may see everybody, except pairs that the test names.
#[derive(Debug, Default)]
pub struct Blocks(Mutex<BTreeSet<(AgentId, AgentId)>>);

impl Blocks {
    /// From now on `viewer` may not see `subject`.
    pub fn block(&self, viewer: AgentId, subject: AgentId) {
        lock(&self.0).insert((viewer, subject));
    }
}

impl Visibility for Blocks {
    fn may_see(&self, viewer: &AgentId, subject: &AgentId) -> bool {
        !lock(&self.0).contains(&(*viewer, *subject))
    }
}

/// A presence that is what the test says.
#[derive(Debug)]
pub struct Board {
    known: Mutex<BTreeMap<AgentId, Status>>,
    events: broadcast::Sender<Status>,
}

impl Default for Board {
    fn default() -> Self {
        Self { known: Mutex::default(), events: broadcast::channel(64).0 }
    }
}

impl Board {
    /// Sets an agent's status and tells the listeners.
    pub fn set(&self, status: Status) {
        lock(&self.known).insert(status.agent, status);
        // Nobody may be listening.
        let _ = self.events.send(status);
    }
}

impl PresenceView for Board {
    fn status(&self, agent: AgentId) -> BoxFuture<'_, Status> {
        let known = lock(&self.known).get(&agent).copied();
        Box::pin(std::future::ready(known.unwrap_or(Status::unknown(agent))))
    }

    fn events(&self) -> Events {
        Events::new(self.events.subscribe())
    }
}
