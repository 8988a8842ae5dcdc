//! What consumers are asked, and what they answer.

use std::{sync::Arc, time::Duration};

use x0x_core::WallTime;
use x0x_direct::{
    DirectMessage,
    mail::{Claimed, ConsumerError, MailError, Owner, is_consumer_name},
};

use super::MAX_CONSUMERS;

/// Where a new consumer begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Begin {
    /// With the oldest mail that is kept.
    #[default]
    Oldest,
    /// With the oldest mail that nobody has read.
    Unread,
    /// With what comes from now on.
    Latest,
    /// After this number.
    After(u64),
}

/// How messages are claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// For how long nobody else gets them.
    pub time: Duration,
    /// Nothing is handed out that comes behind a message which somebody else works on.
    pub in_order: bool,
    /// Who works on them: nobody who gives another name acknowledges, renews or gives back what is claimed.
    pub owner: Owner,
}

impl Lease {
    /// For a while, whoever works on what is before.
    #[must_use]
    pub const fn of(time: Duration) -> Self {
        Self { time, in_order: false, owner: None }
    }

    /// For a while, and only what has nothing claimed before it.
    #[must_use]
    pub const fn in_order(time: Duration) -> Self {
        Self { time, in_order: true, owner: None }
    }
}

/// What a consumer is to acknowledge.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ack {
    /// Single messages.
    Numbers(Vec<u64>),
    /// Everything up to this number.
    Through(u64),
}

/// How far a consumer has come.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerStatus {
    /// Its name.
    pub name: String,
    /// Everything up to this number is acknowledged.
    pub cursor: u64,
    /// Messages that somebody works on.
    pub claimed: usize,
    /// The first of them: until when, and who.
    pub claims: Vec<Claimed>,
    /// Messages that it has not acknowledged.
    pub waiting: u64,
    /// When it was made.
    pub created_at: WallTime,
}

/// What a consumer gets.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Taken {
    /// Messages, by number.
    pub messages: Vec<DirectMessage>,
    /// Messages that the consumer had not acknowledged and that are not kept any more, since it was
    /// told last.
    pub missed: u64,
    /// Everything up to this number is acknowledged.
    pub cursor: u64,
    /// Whether there may be more.
    pub more: bool,
    /// Until when the messages are claimed, if they are.
    pub until: Option<WallTime>,
}

/// A consumer did not get what it asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    /// The caller's name for a consumer, or for itself.
    #[error("the name of a consumer or an owner has 1 to 64 letters, digits, `-`, `_` and `.`")]
    Name,
    /// There is no consumer of this name.
    #[error(
        "consumer not found; one is made when it first waits or claims, or with `inbox create-consumer`"
    )]
    NotFound,
    /// A claim is over: the message was acknowledged or given back, or somebody else has claimed it.
    #[error("the message is not claimed any more")]
    NotClaimed,
    /// There are too many.
    #[error("limit reached: consumers (at most {MAX_CONSUMERS})")]
    TooManyConsumers,
    /// The caller has to acknowledge something first.
    #[error(transparent)]
    Consumer(ConsumerError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] MailError),
}

impl From<ConsumerError> for InboxError {
    fn from(error: ConsumerError) -> Self {
        match error {
            ConsumerError::NotClaimed => Self::NotClaimed,
            error => Self::Consumer(error),
        }
    }
}

/// The name of an owner, if it is one.
pub(super) fn owner(name: Option<&str>) -> Result<Owner, InboxError> {
    match name {
        Some(name) if !is_consumer_name(name) => Err(InboxError::Name),
        name => Ok(name.map(Arc::from)),
    }
}
