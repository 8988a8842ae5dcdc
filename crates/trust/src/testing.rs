//! A policy that tests set by hand.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use x0x_core::{AgentId, MachineId};

use crate::policy::{Action, Decision, Policy, Reason};

/// A policy with a reason for each agent, [`Reason::Unknown`] unless it was set, and the real table of
/// effects. Clones are the same policy.
#[derive(Debug, Clone, Default)]
pub struct FakePolicy {
    reasons: Arc<Mutex<BTreeMap<AgentId, Reason>>>,
    asked: Arc<Mutex<Vec<(AgentId, Action)>>>,
}

impl FakePolicy {
    /// Every agent is unknown.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on an agent stands like this.
    pub fn set(&self, agent: AgentId, reason: Reason) {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner).insert(agent, reason);
    }

    /// What was asked so far, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<(AgentId, Action)> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Policy for FakePolicy {
    fn decide(&self, agent: &AgentId, _: Option<&MachineId>, action: Action) -> Decision {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push((*agent, action));
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        Decision::of(reasons.get(agent).copied().unwrap_or(Reason::Unknown), action)
    }
}
