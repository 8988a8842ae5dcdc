//! One error type per operation.

use x0x_core::AgentId;

/// An agent could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Key files are unreadable, corrupt or too open, or the folder cannot be written.
    #[error("identity: {0}")]
    Identity(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The UDP socket could not be opened or the TLS set-up failed.
    #[error("transport: {0}")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A layer refused to start.
    #[error("{layer}: {source}")]
    Layer {
        /// Which one.
        layer: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A direct message was not acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SendDirectError {
    /// Nothing is known about where that agent is.
    #[error("agent {0} is not known")]
    NotFound(AgentId),
    /// The agent's machine is known but does not answer, or no longer proves that agent.
    #[error("agent {agent} cannot be reached: {reason}")]
    Unreachable {
        /// The agent.
        agent: AgentId,
        /// What was tried.
        reason: String,
    },
    /// The trust rules forbid it here: the agent is blocked, revoked, or not where it may be.
    #[error("agent is {0}")]
    Forbidden(x0x_trust::Reason),
    /// A letter was not posted.
    #[error(transparent)]
    Post(#[from] x0x_direct::outbox::PostError),
    /// The direct layer's answer.
    #[error(transparent)]
    Direct(#[from] x0x_direct::DirectError),
}
