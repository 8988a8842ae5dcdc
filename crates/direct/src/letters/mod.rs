//! Letters for the offline: sealed messages that others keep until their recipient fetches them.
//!
//! A message of the [outbox](crate::outbox) whose recipient cannot be reached is signed, sealed to the
//! recipient and left with a few *holders*, each of which knows it by a [`Tag`](x0x_identity::Tag) that
//! tells nobody whose it is. The recipient computes the tags of all who may have written to it, asks the
//! machines that it meets, and has what it gets delivered like any other mail: in order, once.
//! `docs/protocol/letters.md` has the exchange and what it hides from whom.
//!
//! Three pure machines decide: [`Holder`] keeps for others, [`Depositor`] leaves letters with holders,
//! and [`Collector`] fetches one's own. `Letters` runs them over a transport (feature `tokio`).

mod collector;
mod config;
mod depositor;
#[cfg(feature = "tokio")]
mod driver;
#[cfg(feature = "tokio")]
mod handle;
mod holder;
mod letter;
mod metrics;
#[cfg(feature = "tokio")]
mod store;
pub mod wire;

pub use self::{
    collector::{
        Collector, CollectorInput, CollectorOutput, Gap, MAX_COLLECTED, MAX_SENDER_COLLECTED,
        MAX_SENDER_WAITING_BYTES, MAX_WAITING_BYTES, Mailbox, Taken,
    },
    config::{LettersConfig, MAX_CORRESPONDENTS, MAX_GRANTS, MAX_MACHINES},
    depositor::{
        Deposit, Depositor, DepositorInput, DepositorOutput, MAX_LANES, NotLeft, PendingEntry,
        place_rank,
    },
    holder::{Held, Holder, HolderInput, HolderOutput, MAX_DEPOSITORS},
    letter::{
        After, Draft, LETTER_DOMAIN, MAX_LETTER_PAYLOAD, MAX_SEALED, OpenLetterError, Opened,
        SealLetterError, open, seal,
    },
    metrics::LettersMetrics,
    wire::{Digest, Grant, GrantIn},
};
#[cfg(feature = "tokio")]
pub use self::{
    handle::{Letters, LettersParts, LettersStatus, Places, Trusts},
    store::{LetterChange, LetterStore, MemoryLetterStore, Met, StoredLetters},
};
