//! Authenticated post-quantum sessions between machines.

pub mod config;
#[cfg(feature = "tokio")]
mod driver;
pub mod error;
pub mod frame;
#[cfg(feature = "tokio")]
mod handle;
#[cfg(feature = "tokio")]
mod inbound;
pub mod link;
pub mod metrics;
#[cfg(feature = "tokio")]
mod queue;
pub mod state;
#[cfg(feature = "tokio")]
mod table;
#[cfg(feature = "test-util")]
pub mod testing;
#[cfg(feature = "tokio")]
mod transport;
pub mod wire;

#[cfg(feature = "quic")]
mod engine;

pub use config::SessionConfig;
pub use metrics::TransportMetrics;
#[cfg(feature = "quic")]
pub mod quic {
    //! The [`Engine`](crate::link::Engine) over QUIC with post-quantum TLS.
    pub use crate::engine::{BindError, QuicConfig, QuicEngine, QuicLimits, QuicMetrics};
}
#[cfg(feature = "tokio")]
pub use handle::{LocalHello, Node};
#[cfg(feature = "tokio")]
pub use transport::{BoxFuture, Inbound, InboundEvent, SessionInfo, Side, Transport};

/// Most agents that one machine may prove in a session hello.
pub const MAX_AGENTS: usize = 8;
