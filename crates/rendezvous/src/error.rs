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

/// A filed record that is not believed. Its maker or its holder is at fault, or a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// About something else than what was looked for.
    #[error("the record is about another subject")]
    OtherSubject,
    /// Made further in the future than clocks may differ, or for longer than records last.
    #[error("the record is from the future or lasts too long")]
    Future,
    /// Its validity is over.
    #[error("the record is expired")]
    Expired,
    /// The key in it is none, or not that of the agent it names.
    #[error("malformed or foreign key")]
    Key,
    /// The signature is not by that key over these bytes.
    #[error("the signature does not hold")]
    Signature,
}

/// A search did not take place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// Too many searches at once; try again.
    #[error("busy: too many searches at once")]
    Busy,
    /// Rendezvous was shut down.
    #[error("rendezvous is closed")]
    Closed,
}
