//! Authenticated post-quantum sessions between machines.

pub mod error;
#[cfg(feature = "tokio")]
pub mod link;
#[cfg(feature = "tokio")]
mod transport;
pub mod wire;

#[cfg(feature = "tokio")]
pub use transport::{BoxFuture, Inbound, InboundEvent, SessionInfo, Side, Transport};

/// Most agents that one machine may prove in a session hello.
pub const MAX_AGENTS: usize = 8;
