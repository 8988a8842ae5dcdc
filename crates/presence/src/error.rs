//! One error type per public operation.

/// A received record or query does not hold. The fault of its maker, or of a clock.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The key in it is none, or not that of the agent it names.
    #[error("malformed or foreign key")]
    Key,
    /// The signature is not by that key over these bytes.
    #[error("the signature does not hold")]
    Signature,
    /// It begins further in the future than clocks may differ.
    #[error("from the future")]
    Future,
    /// It ended.
    #[error("expired")]
    Expired,
}

/// Presence did not start.
#[cfg(feature = "tokio")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Another consumer reads the transport's presence messages.
    #[error(transparent)]
    InboundTaken(#[from] x0x_transport::error::InboundTaken),
}

/// An operation of a handle came too late.
#[cfg(feature = "tokio")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// Too many walks at once.
    #[error("busy: too many walks at once")]
    Busy,
    /// Presence was shut down.
    #[error("presence is closed")]
    Closed,
}
