//! Letters that wait until their recipient can be reached.
//!
//! A letter is posted once it is stored here. It is sent again until the recipient's machine has
//! stored it, in the order of posting for each recipient, and given up when its time is over.
//! [`OutboxMachine`] decides when; a [`Courier`] sends.

#[cfg(feature = "tokio")]
mod driver;
mod state;

#[cfg(feature = "tokio")]
pub use self::driver::{
    CancelError, Courier, MAX_OUTBOX_BYTES, MAX_OUTBOX_LETTERS, Outbox, PostError,
};
pub use self::state::{
    Entry, Input, MAX_BATCH_BYTES, MAX_BATCH_LETTERS, MAX_BATCHES, MAX_REPEATED_BATCHES,
    MAX_SENDING_BYTES, OutboxMachine, Outcome, Output,
};
