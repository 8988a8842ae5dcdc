//! Mail that survives a restart: the store behind it, and what goes through it.
//!
//! What is acknowledged to a sender is in the store, and what an agent posts for later is, too. The
//! store keeps two numbered lists, mail that came and letters that go, and small records of who has
//! read how far.

mod consumer;
mod history;
mod memory;
mod store;

pub use self::{
    consumer::{
        Claimed, Consumer, ConsumerError, MAX_CLAIMS, MAX_CONSUMER_NAME, Owner, is_consumer_name,
    },
    history::{HistoryEntry, HistoryList, HistoryPage, HistoryPlace, HistoryQuery, InvalidPlace},
    memory::{MAX_MEMORY_BYTES, MemoryMailStore},
    store::{
        Letter, LetterState, MailChange, MailError, MailOutcome, MailStore, PendingLetter,
        Retention, StoredMail,
    },
};
