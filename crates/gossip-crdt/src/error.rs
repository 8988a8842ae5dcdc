//! One error type per public operation, and the reasons for which operations are skipped.

use std::sync::Arc;

use crate::{
    config::{MAX_NAME, MAX_OBJECTS, MAX_OP, MAX_OPEN},
    object::Invalid,
};

/// Why all replicas skip an operation: its author is at fault, or was not up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// It is no operation.
    #[error("malformed")]
    Malformed,
    /// It refers to what its chain did not name, or to itself.
    #[error("it refers to an operation that its chain did not name")]
    Reference,
    /// Its author may not write, by the policy that it had seen.
    #[error("its author is no writer")]
    NotWriter,
    /// Its author was removed, and the owner had not seen it by then.
    #[error("its author was removed")]
    Removed,
    /// A change of the policy by somebody else than the owner, or in a place that another change has.
    #[error("the policy is not its author's to change so")]
    Policy,
    /// Its author's clock is too far from its time.
    #[error("its time is too far ahead")]
    Time,
    /// Its chain brought in more than a chain may.
    #[error("its author's chain is over its quota")]
    Quota,
    /// It breaks a rule of its type.
    #[error(transparent)]
    Type(Invalid),
}

impl Reason {
    /// Reasons without those of types, as metrics number them; types are the last.
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Malformed => 0,
            Self::Reference => 1,
            Self::NotWriter => 2,
            Self::Removed => 3,
            Self::Policy => 4,
            Self::Time => 5,
            Self::Quota => 6,
            Self::Type(_) => 7,
        }
    }
}

/// A local write was refused: no replica has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError<R> {
    /// What the caller wants does not fit the state, by the caller's own condition.
    #[error("{0}")]
    Condition(R),
    /// The other replicas would skip it.
    #[error("the other replicas would skip it: {0}")]
    Refused(Reason),
    /// The caller's operation is too large.
    #[error("operation of {len} bytes exceeds the limit of {MAX_OP}")]
    TooLarge {
        /// Its size.
        len: usize,
    },
    /// The object, or its log, holds as much as it may.
    #[error("the object is full")]
    Full,
    /// Too many writes are under way; try again later.
    #[error("busy")]
    Busy,
    /// Its chain ended while it was under way, since the clock was set: try again.
    #[error("interrupted by a change of the clock: try again")]
    Interrupted,
    /// The log did not take it.
    #[error("the log did not take it: {0}")]
    Log(x0x_gossip_pubsub::PublishError),
    /// The object, or the service, was closed. The write may have happened.
    #[error("the object is closed")]
    Closed,
}

/// An object was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The name is empty or too long.
    #[error("a name has 1 to {MAX_NAME} bytes")]
    Name,
    /// Too many are open, or known.
    #[error("too many objects (at most {MAX_OPEN} open, {MAX_OBJECTS} known)")]
    Limit,
    /// It is open with another type.
    #[error("the object is open as another type")]
    Type,
    /// No object of this id is known here.
    #[error("no such object")]
    Unknown,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] CrdtStoreError),
    /// The log cannot be read.
    #[error("the log cannot be read: {0}")]
    Log(x0x_gossip_pubsub::SubscribeError),
    /// The service was closed.
    #[error("the objects are closed")]
    Closed,
}

/// A store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store failed: {0}")]
pub struct CrdtStoreError(pub Arc<str>);
