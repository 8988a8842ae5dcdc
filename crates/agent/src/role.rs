//! What a node is for.

use crate::Agent;

/// What a node is for, beside its own agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Role {
    /// Nothing: it serves others as everybody does.
    #[default]
    Agent,
    /// It is a well-known first contact: it keeps more records for others, and takes no files.
    ///
    /// Others need it only to join: who knows somebody else already goes on without it.
    Bootstrap,
}

impl Role {
    /// Bytes of records kept for others: eight times as many as elsewhere.
    pub(crate) const fn held_bytes(self, default: usize) -> usize {
        match self {
            Self::Agent => default,
            Self::Bootstrap => default * 8,
        }
    }
}

impl Agent {
    /// What this node is for.
    #[must_use]
    pub fn role(&self) -> Role {
        self.inner.role
    }
}
