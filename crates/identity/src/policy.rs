//! Who decides whether a binding that holds also counts: the question that layers ask of trust.

use std::fmt;

use x0x_core::{AgentId, MachineId};

use crate::binding::AgentBinding;

/// What showed a verified binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Shown {
    /// The hello of a session with its machine.
    Session,
    /// An announcement.
    Announcement,
    /// A record that was filed with others.
    Record,
}

/// Decides whether verified bindings count. Asked for each of them, so that a change holds at once; it
/// must be quick and must not block.
pub trait BindingPolicy: Send + Sync + fmt::Debug + 'static {
    /// Whether the agent is believed to run on the machine. Whoever decides may learn from what it is
    /// shown: a greater generation ends the belief in smaller ones.
    fn accepts(&self, binding: &AgentBinding, shown: Shown) -> bool;

    /// Whether there is to be no session with a machine, whoever runs on it. By default there may be.
    fn refuses(&self, machine: &MachineId) -> bool {
        let _ = machine;
        false
    }

    /// Whether the sessions with an agent's machine, which counts as its own, come before those of
    /// strangers when there is little room. By default they do not.
    fn prefers(&self, agent: &AgentId) -> bool {
        let _ = agent;
        false
    }
}

/// Every binding that holds counts.
#[derive(Debug, Clone, Copy, Default)]
pub struct AcceptAll;

impl BindingPolicy for AcceptAll {
    fn accepts(&self, _: &AgentBinding, _: Shown) -> bool {
        true
    }
}
