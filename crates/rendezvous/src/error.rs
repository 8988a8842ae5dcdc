//! One error type per public operation.

use x0x_identity::BindingError;

/// A well-formed announcement that is not believed. Its author is at fault, or a clock.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// Signed by another agent than the one it announces.
    #[error("announced by another agent")]
    WrongAuthor,
    /// Made further in the future than clocks may differ.
    #[error("the announcement is from the future")]
    FromTheFuture,
    /// The agent does not prove that it runs on the machine.
    #[error(transparent)]
    Binding(#[from] BindingError),
}

/// An announcement was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnnounceError {
    /// Too much is waiting to be published, or too many callers wait for an announcement. It is
    /// tried again in a moment without being asked.
    #[error("busy: publishing is behind")]
    Busy,
    /// Discovery was shut down.
    #[error("discovery is closed")]
    Closed,
}
