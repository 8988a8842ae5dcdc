//! One error type per public operation.

use x0x_transport::error::InboundTaken;

use crate::config::ConfigError;

/// Membership could not be started. The caller's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A parameter is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another consumer holds the transport's membership messages.
    #[error(transparent)]
    Inbound(#[from] InboundTaken),
}

/// The membership was shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("membership is closed")]
pub struct Closed;
