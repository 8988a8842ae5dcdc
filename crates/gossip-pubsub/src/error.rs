//! One error type per public operation.

use x0x_core::DecodeError;

/// An entry was not accepted for publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Queues ahead of this entry are full, here or on a link of the topic. Nothing was queued; try
    /// again later.
    #[error("busy: the topic's queue is full")]
    Busy,
    /// The topic holds as much of the durable class as it may.
    #[error("the topic's log is full")]
    Full,
    /// The caller's payload is larger than an entry may be.
    #[error("payload of {len} bytes exceeds the limit of {max}")]
    TooLarge {
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The store did not take the entry: it is published, but does not outlive this service.
    #[error("published, but not stored")]
    NotStored,
    /// The service was shut down.
    #[error("pubsub is closed")]
    Closed,
}

/// A subscription was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// Too many local subscriptions or subscribed topics.
    #[error("limit reached: {what} (at most {max})")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The cap.
        max: usize,
    },
    /// The service was shut down.
    #[error("pubsub is closed")]
    Closed,
}

/// What was waited for did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// It may still come later.
    #[error("not in time")]
    Timeout,
    /// Too many wait already.
    #[error("too many wait already")]
    Busy,
    /// The service was shut down.
    #[error("pubsub is closed")]
    Closed,
}

/// A service could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Another consumer holds the transport's pubsub receiver.
    #[error("the transport's pubsub receiver was taken already")]
    InboundTaken,
}

/// A frame or run that is refused before any cryptography: the sending peer is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// More bytes or more items than the format allows.
    #[error("oversized {what}: {len} exceeds {max}")]
    Oversized {
        /// What is too large.
        what: &'static str,
        /// Its size.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A run without a signature.
    #[error("unsigned run")]
    Unsigned,
    /// Not valid protobuf, or a field out of its range.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

impl From<prost::DecodeError> for WireError {
    fn from(_: prost::DecodeError) -> Self {
        Self::Malformed(DecodeError::Malformed)
    }
}

/// A run whose author did not sign it: the sending peer is at fault, since honest peers verify
/// before they forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The key given is not the author's.
    #[error("the key does not hash to the author's id")]
    KeyMismatch,
    /// The signature does not cover this content.
    #[error("bad signature")]
    BadSignature,
}
