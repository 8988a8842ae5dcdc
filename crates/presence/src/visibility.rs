//! Who may be told of whom: the question that presence asks of the layer that knows trust.

use std::fmt;

use x0x_core::{AgentId, MachineId};

/// Decides who may be told of whose presence. Asked at every telling, so that a change holds at once;
/// it must be quick and must not block.
pub trait Visibility: Send + Sync + fmt::Debug + 'static {
    /// Whether `viewer` may be told that `subject` is there. The local agent is one or the other, or
    /// neither when this node passes on what it knows.
    fn may_see(&self, viewer: &AgentId, subject: &AgentId) -> bool;

    /// Whether what `viewer` asks is answered here at all: its walks, and its interest in the local
    /// agent. By default that of everybody is.
    fn may_ask(&self, viewer: &AgentId) -> bool {
        let _ = viewer;
        true
    }

    /// Whether an agent counts at the other end of a session with a machine, so that the peer is told what
    /// anybody there would be. By default it does where it is believed to be. Whoever must not learn that
    /// it is refused counts as well: its session shows this node anyway, and silence would tell.
    fn counts(&self, viewer: &AgentId, machine: &MachineId) -> bool {
        self.believes(viewer, machine)
    }

    /// Whether an agent is believed to be on a machine, which its signed session names. By default it
    /// is.
    fn believes(&self, agent: &AgentId, machine: &MachineId) -> bool {
        let _ = (agent, machine);
        true
    }
}

/// Everybody may see everybody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Open;

impl Visibility for Open {
    fn may_see(&self, _: &AgentId, _: &AgentId) -> bool {
        true
    }
}
