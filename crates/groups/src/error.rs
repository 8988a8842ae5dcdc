//! One error type per public operation.

use x0x_core::DecodeError;
use x0x_identity::{BadSignature, KeyError};

/// A signed statement that does not hold. Whoever presented it is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignedError {
    /// Malformed.
    #[error("malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// The key is not of who is named.
    #[error("the key belongs to another agent")]
    WrongKey,
    /// The key or the signature is malformed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Not signed by who is named.
    #[error(transparent)]
    Signature(#[from] BadSignature),
    /// What is said in it cannot be: the reason.
    #[error("{0}")]
    Content(&'static str),
}

/// An operation that was not taken into a group's state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// Of another group.
    #[error("an operation of another group")]
    OtherGroup,
    /// The group is full of operations, or its author's are too many that nobody built upon.
    #[error("limit reached: {0}")]
    Limit(&'static str),
    /// It claims a place in the order that its parents do not bear out.
    #[error("an operation that does not fit its parents")]
    Shape,
}

/// Something that this agent may not do, or that cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ActError {
    /// This agent's role does not allow it.
    #[error("insufficient role: {0}")]
    Role(&'static str),
    /// The policy of the group does not allow it.
    #[error("the group's policy does not allow it: {0}")]
    Policy(&'static str),
    /// Nothing to be done: who or what is named is not there, or is already as wanted.
    #[error("{0}")]
    Target(&'static str),
    /// A limit of the group.
    #[error("limit reached: {0}")]
    Limit(&'static str),
    /// The group is withdrawn.
    #[error("the group is withdrawn")]
    Withdrawn,
    /// A text that is empty, too long, or does not show as it is written.
    #[error("invalid text: {0}")]
    Text(&'static str),
}

/// What a session failed in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// This agent may not.
    #[error(transparent)]
    Act(#[from] ActError),
    /// What was received does not verify. Its sender is at fault.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// What was received is not taken.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// MLS refused or failed.
    #[error(transparent)]
    Mls(#[from] x0x_mls::GroupError),
    /// What was received is malformed. Its sender is at fault.
    #[error("malformed: {0}")]
    Decode(#[from] DecodeError),
    /// Sealed with another secret, or altered.
    #[error("sealed with another secret")]
    Sealed,
}

#[cfg(feature = "tokio")]
/// Something that was asked of the service failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupsError {
    /// The group, its rules or its keys.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The agent that was asked, or the way to it.
    #[error(transparent)]
    Courier(#[from] crate::courier::CourierError),
    /// The agent that was asked refused.
    #[error("refused: {0}")]
    Refused(String),
    /// Where groups are kept.
    #[error(transparent)]
    Store(#[from] x0x_mls::StoreError),
    /// The group's log.
    #[error("the group's log: {0}")]
    Log(String),
    /// Where groups are kept cannot be opened.
    #[error("groups cannot be opened: {0}")]
    Unusable(String),
    /// The agent is stopping, or its groups could not be opened.
    #[error("closed")]
    Closed,
}

#[cfg(feature = "tokio")]
impl GroupsError {
    /// What another agent is told of it.
    pub(crate) fn told(&self) -> String {
        match self {
            Self::Session(SessionError::Act(error)) => error.to_string(),
            Self::Session(
                SessionError::Signed(_) | SessionError::Offer(_) | SessionError::Decode(_),
            ) => "it does not verify".to_owned(),
            // Nothing else is its business.
            _ => "refused".to_owned(),
        }
    }
}

#[cfg(feature = "tokio")]
impl From<x0x_mls::GroupError> for GroupsError {
    fn from(error: x0x_mls::GroupError) -> Self {
        Self::Session(error.into())
    }
}

#[cfg(feature = "tokio")]
impl From<ActError> for GroupsError {
    fn from(error: ActError) -> Self {
        Self::Session(error.into())
    }
}

#[cfg(feature = "tokio")]
impl From<SignedError> for GroupsError {
    fn from(error: SignedError) -> Self {
        Self::Session(error.into())
    }
}

#[cfg(feature = "tokio")]
impl From<DecodeError> for GroupsError {
    fn from(error: DecodeError) -> Self {
        Self::Session(error.into())
    }
}
