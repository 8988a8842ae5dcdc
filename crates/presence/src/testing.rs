//! The fakes of this crate's traits.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::broadcast;
use x0x_core::{AgentId, MachineId};
use x0x_transport::BoxFuture;

use crate::{
    handle::{Events, PresenceView},
    state::Status,
    visibility::Visibility,
};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everybody may see and ask everybody and is believed, except as the test says.
#[derive(Debug, Default)]
pub struct Blocks {
    pairs: Mutex<BTreeSet<(AgentId, AgentId)>>,
    muted: Mutex<BTreeSet<AgentId>>,
    doubted: Mutex<BTreeSet<(AgentId, MachineId)>>,
}

impl Blocks {
    /// From now on `viewer` may not see `subject`.
    pub fn block(&self, viewer: AgentId, subject: AgentId) {
        lock(&self.pairs).insert((viewer, subject));
    }

    /// From now on it may again.
    pub fn unblock(&self, viewer: AgentId, subject: AgentId) {
        lock(&self.pairs).remove(&(viewer, subject));
    }

    /// From now on nothing that `viewer` asks is answered.
    pub fn mute(&self, viewer: AgentId) {
        lock(&self.muted).insert(viewer);
    }

    /// From now on the agent is not believed to be on the machine.
    pub fn doubt(&self, agent: AgentId, machine: MachineId) {
        lock(&self.doubted).insert((agent, machine));
    }

    /// From now on it is again.
    pub fn believe(&self, agent: AgentId, machine: MachineId) {
        lock(&self.doubted).remove(&(agent, machine));
    }
}

impl Visibility for Blocks {
    fn may_see(&self, viewer: &AgentId, subject: &AgentId) -> bool {
        !lock(&self.pairs).contains(&(*viewer, *subject))
    }

    fn may_ask(&self, viewer: &AgentId) -> bool {
        !lock(&self.muted).contains(viewer)
    }

    fn believes(&self, agent: &AgentId, machine: &MachineId) -> bool {
        !lock(&self.doubted).contains(&(*agent, *machine))
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
