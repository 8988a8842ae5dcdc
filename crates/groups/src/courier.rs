//! The narrow trait by which agents ask each other about groups, and its in-memory fake.

use std::{fmt, pin::Pin};

use x0x_core::AgentId;

use crate::wire::{Answer, Question};

/// A future that is sent between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// No answer came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CourierError {
    /// The agent is not reached.
    #[error("the agent is not reached: {0}")]
    Unreachable(String),
    /// It did not answer in time.
    #[error("the agent does not answer")]
    Silent,
    /// The question is larger than a message may be.
    #[error("too large for a message")]
    TooLarge,
    /// Too much is asked at once, or this agent is stopping.
    #[error("busy")]
    Busy,
}

/// Asks other agents, each in an authenticated session.
pub trait Courier: Send + Sync + fmt::Debug + 'static {
    /// Asks an agent, and waits for its answer.
    fn ask(
        &self,
        agent: AgentId,
        question: Question,
    ) -> BoxFuture<'_, Result<Answer, CourierError>>;

    /// The agents that there are sessions with.
    fn near(&self) -> Vec<AgentId>;
}
