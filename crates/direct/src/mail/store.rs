//! The trait, and what goes through it.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use x0x_core::{AgentId, WallTime};
use x0x_transport::BoxFuture;

use super::history::{HistoryPage, HistoryQuery};
use crate::{
    admission::{Quotas, Share, Unread},
    inbox::DirectMessage,
    wire::MessageId,
};

/// Keeps mail. `x0x-store` implements it on disk, [`MemoryMailStore`](super::MemoryMailStore) in
/// memory.
pub trait MailStore: Send + Sync + fmt::Debug + 'static {
    /// What a service needs to go on where an earlier run ended.
    ///
    /// # Errors
    /// [`MailError`]: nothing can be read now.
    fn load(&self) -> BoxFuture<'_, Result<StoredMail, MailError>>;

    /// Applies changes in their order, all of them or none, and tells what each came to. Once this
    /// returns, they outlive the end of the process at any point. Commits that wait at the same time
    /// may share one transaction; dropping the future after its first poll withdraws nothing.
    ///
    /// # Errors
    /// [`MailError`]: none of the changes holds after a restart.
    fn commit(
        &self,
        changes: Vec<MailChange>,
    ) -> BoxFuture<'_, Result<Vec<MailOutcome>, MailError>>;

    /// Mail with a number above `after`, by number: at most `limit` messages, and no more once their
    /// payloads reach `bytes`. What is damaged or pruned is left out.
    ///
    /// # Errors
    /// [`MailError`]: nothing can be read now.
    fn mail(
        &self,
        after: u64,
        limit: usize,
        bytes: u64,
    ) -> BoxFuture<'_, Result<Vec<DirectMessage>, MailError>>;

    /// Mail with these numbers, as far as it is kept, in that order.
    ///
    /// # Errors
    /// [`MailError`]: nothing can be read now.
    fn mail_by_number(
        &self,
        numbers: Vec<u64>,
    ) -> BoxFuture<'_, Result<Vec<DirectMessage>, MailError>>;

    /// Letters with these numbers, as far as they are kept, in that order.
    ///
    /// # Errors
    /// [`MailError`]: nothing can be read now.
    fn letters(&self, numbers: Vec<u64>) -> BoxFuture<'_, Result<Vec<Letter>, MailError>>;

    /// The letter with this id.
    ///
    /// # Errors
    /// [`MailError`]: nothing can be read now.
    fn letter(&self, id: MessageId) -> BoxFuture<'_, Result<Option<Letter>, MailError>>;

    /// What matches, the newest first.
    ///
    /// # Errors
    /// [`MailError`]: nothing can be read now.
    fn history(&self, query: HistoryQuery) -> BoxFuture<'_, Result<HistoryPage, MailError>>;
}

/// A change. Repeating one changes nothing more.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum MailChange {
    /// Mail came; its number is given by the store.
    Receive(DirectMessage),
    /// All mail up to this number was handed to somebody.
    Seen(u64),
    /// A letter is to be sent; its number is given by the store.
    Post(Letter),
    /// What became of a letter. A state never goes back.
    Advance {
        /// The letter.
        id: MessageId,
        /// Its recipient, when it is the recipient who says so.
        by: Option<AgentId>,
        /// Its state now.
        state: LetterState,
        /// Since when.
        at: WallTime,
    },
    /// The record of a consumer, made or replaced.
    Consumer {
        /// Its name.
        name: String,
        /// The record.
        record: Bytes,
    },
    /// A consumer is gone.
    DropConsumer(String),
    /// What retention does not keep goes: a store does this in steps, beside other work. What is too old goes, then
    /// what was handed to somebody: strangers' mail beyond [its part](Retention::of_strangers), the oldest that
    /// every consumer has acknowledged, strangers', and the oldest. What nobody was handed goes last; there is
    /// never too much of that while the [quotas](crate::Quotas::within) are within the retention.
    Prune {
        /// What is kept.
        retention: Retention,
        /// Now.
        now: WallTime,
    },
}

/// What a change came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MailOutcome {
    /// It is kept under this number.
    Stored(u64),
    /// The same message is kept already: nothing changed.
    Duplicate,
    /// It is done.
    Done,
    /// There is nothing that it could change.
    Missing,
}

/// What is kept of what was received and what was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// Messages of each list.
    pub messages: u64,
    /// Payload bytes of each list.
    pub bytes: u64,
    /// Age.
    pub age: Duration,
}

impl Retention {
    /// What is kept of strangers' mail: a quarter. Whoever nobody knows pushes out what others like it left, and
    /// nothing else.
    #[must_use]
    pub const fn of_strangers(&self) -> Self {
        Self { messages: self.messages / 4, bytes: self.bytes / 4, age: self.age }
    }
}

impl Quotas {
    /// The same, and no more than a store keeps: what is acknowledged is not let go before somebody was handed it.
    /// One message always fits, as large as it is.
    #[must_use]
    pub fn within(mut self, retention: &Retention) -> Self {
        let of = |kept: &Retention| Share {
            messages: usize::try_from(kept.messages).unwrap_or(usize::MAX),
            bytes: kept.bytes,
        };
        let least = |one: Share, other: Share| Share {
            messages: one.messages.min(other.messages).max(1),
            bytes: one.bytes.min(other.bytes).max(1),
        };
        let (all, strangers) = (of(retention), of(&retention.of_strangers()));
        self.all = least(self.all, all);
        self.contact = least(self.contact, all);
        self.strangers = least(self.strangers, strangers);
        self.stranger = least(self.stranger, strangers);
        self
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            messages: 100_000,
            bytes: 256 * 1024 * 1024,
            age: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

/// What a store holds for a service that starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredMail {
    /// Highest number that mail ever had.
    pub last: u64,
    /// Highest number of mail that is not kept any more.
    pub floor: u64,
    /// All mail up to this number was handed to somebody.
    pub seen: u64,
    /// Mail above it.
    pub unread: Vec<Unread>,
    /// Letters that are not settled, by number.
    pub pending: Vec<PendingLetter>,
    /// Consumers and their records, by name.
    pub consumers: Vec<(String, Bytes)>,
}

impl StoredMail {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// What a machine needs to know of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores make them")]
pub struct PendingLetter {
    /// Its number.
    pub number: u64,
    /// Its id.
    pub id: MessageId,
    /// Its recipient.
    pub to: AgentId,
    /// Payload bytes.
    pub bytes: u64,
    /// When it is given up.
    pub expires_at: WallTime,
}

/// A message that this machine sends, now or later.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores make them")]
pub struct Letter {
    /// Its number among letters; 0 before it is stored.
    pub number: u64,
    /// Names the message.
    pub id: MessageId,
    /// The sending agent.
    pub from: AgentId,
    /// The receiving agent.
    pub to: AgentId,
    /// The content; empty once it is pruned.
    pub payload: Bytes,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
    /// The sender wants to know when it was read.
    pub wants_read: bool,
    /// It says which messages were read, and is no message itself.
    pub is_read_note: bool,
    /// When it was posted.
    pub posted_at: WallTime,
    /// When it is given up.
    pub expires_at: WallTime,
    /// How far it came.
    pub state: LetterState,
    /// Since when.
    pub changed_at: WallTime,
}

impl Letter {
    /// What a machine needs to know of it.
    #[must_use]
    pub const fn pending(&self) -> PendingLetter {
        PendingLetter {
            number: self.number,
            id: self.id,
            to: self.to,
            bytes: self.payload.len() as u64,
            expires_at: self.expires_at,
        }
    }
}

/// How far a letter came. A later state is greater; of the last five, only one is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum LetterState {
    /// It is stored here.
    Queued = 0,
    /// It is on its way; not stored, since a restart sends it again.
    Sent = 1,
    /// The recipient's machine has stored it.
    Received = 2,
    /// The recipient has read it.
    Read = 3,
    /// The recipient will never take it.
    Failed = 4,
    /// Its time was over.
    Expired = 5,
    /// Its sender took it back; the recipient may have it all the same.
    Cancelled = 6,
    /// Its recipient was blocked or revoked here before it was received.
    Blocked = 7,
}

impl LetterState {
    /// The state with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Queued,
            1 => Self::Sent,
            2 => Self::Received,
            3 => Self::Read,
            4 => Self::Failed,
            5 => Self::Expired,
            6 => Self::Cancelled,
            7 => Self::Blocked,
            _ => return None,
        })
    }

    /// Whether it still may be sent.
    #[must_use]
    pub const fn is_pending(self) -> bool {
        matches!(self, Self::Queued | Self::Sent)
    }

    /// Whether this state may follow another one.
    #[must_use]
    pub fn may_follow(self, other: Self) -> bool {
        match other {
            Self::Queued | Self::Sent => self > other,
            // Whoever reads it has it.
            Self::Received | Self::Failed | Self::Expired | Self::Cancelled | Self::Blocked => {
                self == Self::Read
            }
            Self::Read => false,
        }
    }

    /// As text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Received => "received",
            Self::Read => "read",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Blocked => "blocked",
        }
    }
}

/// A store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MailError {
    /// The disk is full, or the store is at its cap and nothing in it can go.
    #[error("the store is full")]
    Full,
    /// The disk or the file system failed, or the data is damaged and was set aside.
    #[error("the store cannot be read or written: {0}")]
    Failed(Arc<str>),
    /// The store was shut down.
    #[error("the store is closed")]
    Closed,
}
