//! One error type per public operation.

/// A change was not made. The caller is at fault, or the list is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// There are as many as there may be.
    #[error("no room for more than {max}")]
    Full {
        /// How many.
        max: usize,
    },
    /// A label or a reason that could not be shown.
    #[error(
        "labels and reasons have at most {max} bytes and no characters that steer or turn round text"
    )]
    Label {
        /// Bytes allowed.
        max: usize,
    },
    /// The agent is blocked, and adding it did not say at what level.
    #[error("the agent is blocked; name a level to change that")]
    Blocked,
}

/// The file of contacts could not be used at all. Damage is no such error: see
/// [`Loaded`](crate::Loaded).
#[cfg(feature = "fs")]
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct OpenError(#[from] pub(crate) x0x_identity::private_file::FileError);

/// A change was not made, or not kept.
#[cfg(feature = "tokio")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The change itself.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The disk did not take it; nothing is changed.
    #[error("contacts are not kept: {0}")]
    Keep(#[from] x0x_identity::private_file::FileError),
}
