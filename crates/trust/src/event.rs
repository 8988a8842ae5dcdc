//! What changes in trust, for the layers that act on it.

use x0x_core::{AgentId, MachineId};
use x0x_identity::Subject;

use crate::level::Level;

/// Something changed. A layer that holds something of the agent's asks the policy again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrustEvent {
    /// A contact was added or changed.
    Contact {
        /// The agent.
        agent: AgentId,
    },
    /// An agent's level changed, by a decision or by a revocation. To [`Level::Blocked`]: drop what is
    /// queued from and for it.
    Level {
        /// The agent.
        agent: AgentId,
        /// Before.
        from: Level,
        /// Now.
        to: Level,
    },
    /// A contact was removed.
    Removed {
        /// The agent.
        agent: AgentId,
    },
    /// The machines that a contact is accepted from changed.
    Pins {
        /// The agent.
        agent: AgentId,
    },
    /// A key was revoked: close its sessions.
    Revoked {
        /// Whose key.
        subject: Subject,
    },
    /// An agent proved that it moved to another machine.
    Moved {
        /// The agent.
        agent: AgentId,
        /// Where it was last.
        from: Option<MachineId>,
        /// Where it says it is.
        to: MachineId,
        /// It is a contact that is pinned elsewhere, and refused there until somebody changes the pin.
        /// Told once for each move.
        refused: bool,
    },
    /// So many events passed unread: ask the policy again about everything.
    Lagged {
        /// How many.
        missed: u64,
    },
}
