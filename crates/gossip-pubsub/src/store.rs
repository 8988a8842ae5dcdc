//! Where topic logs survive a restart: the trait, and what goes through it.
//!
//! The log in memory is what is served; a store only follows it, so it knows nothing of links or
//! subscribers. It gets batches of changes and gives a topic back when the topic is first used.
//!
//! The actor holds a `Follower`: it pushes what the machine changed, asks for a topic, and
//! hears when a change is committed and what is held of the topic. The latter is a [`StoredTopic`]
//! that was checked, a [`RestoredTopic`], which is all that the machine accepts.

use std::sync::Arc;

use bytes::Bytes;
use x0x_core::{AgentId, TopicId, WallTime};
use x0x_identity::PublicKey;
#[cfg(feature = "tokio")]
use x0x_transport::BoxFuture;

use crate::{
    config::{FREE_EPOCHS, Limits},
    run::Run,
    time::HybridTime,
};

#[cfg(feature = "test-util")]
mod contract;
#[cfg(feature = "tokio")]
pub(crate) mod follow;
#[cfg(feature = "test-util")]
mod memory;
mod restore;
#[cfg(test)]
mod tests;

#[cfg(feature = "test-util")]
pub use contract::check_log_store;
#[cfg(feature = "test-util")]
pub use memory::MemoryLogStore;
pub use restore::RestoredTopic;

/// Keeps topic logs. `x0x-store` implements it on disk; `MemoryLogStore` (feature `test-util`) is
/// its fake.
///
/// A cursor that was handed out may be used after a restart. It names the same place then only if
/// the entries before it were committed, so messages are delivered after the commit. A store that fails
/// does not stop deliveries: what it did not take may be delivered again after a crash.
#[cfg(feature = "tokio")]
pub trait LogStore: Send + Sync + std::fmt::Debug + 'static {
    /// What is held of a topic, the newest that fits the limits; `None` when nothing is. Includes
    /// every change handed to [`commit`](Self::commit) before this is first polled.
    ///
    /// What it returns was written by this machine but may have been damaged since: nothing of it
    /// is used before [`StoredTopic::check`].
    ///
    /// # Errors
    /// [`StoreError`]: the topic cannot be read. With [`StoreError::Corrupt`] it begins empty; anything
    /// else may pass, and the topic is read again.
    fn load(
        &self,
        topic: TopicId,
        limits: LoadLimits,
    ) -> BoxFuture<'_, Result<Option<StoredTopic>, StoreError>>;

    /// Of which topics something of an author is held, as [`load`](Self::load) would find it.
    ///
    /// # Errors
    /// [`StoreError`]: it cannot be read.
    fn held_of(&self, author: AgentId, most: usize) -> BoxFuture<'_, Result<HeldOf, StoreError>>;

    /// Applies changes in their order, all of them or none. Once this returns, they outlive the end
    /// of the process at any point. Commits that wait at the same time may share one transaction;
    /// dropping the future after its first poll withdraws nothing.
    ///
    /// # Errors
    /// [`StoreError`]: none of the changes holds after a restart.
    fn commit(&self, changes: Vec<LogChange>) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// A change of a topic's log. Repeating one changes nothing more.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LogChange {
    /// A run joined the log, and is its chain's head now. If the topic is held under another
    /// incarnation, that goes first.
    Append {
        /// Which life of the topic's log the positions count from; a cursor names it.
        incarnation: u64,
        /// Position of the run's first entry.
        position: u64,
        /// Entries of the author that are missing just before the run.
        missed: u64,
        /// Nothing was known of the author's epoch before the run.
        begins: bool,
        /// The run.
        run: Arc<Run>,
        /// Its author's key, stored once.
        key: PublicKey,
    },
    /// The runs that begin before a position are retained no more; the heads of their chains stay.
    EvictTo {
        /// The topic.
        topic: TopicId,
        /// The position.
        position: u64,
    },
    /// One run is retained no more, though older ones are: a reader who had not come to it misses it.
    Remove {
        /// The topic.
        topic: TopicId,
        /// Position of the run's first entry.
        position: u64,
    },
    /// One run is retained no more: a newer one of its author took its place, so that nobody misses it.
    Replace {
        /// The topic.
        topic: TopicId,
        /// Position of the run's first entry.
        position: u64,
    },
    /// Positions of a topic were given out up to here, though what is there is not stored. Of a topic
    /// that is not held under this incarnation nothing changes.
    Reach {
        /// The topic.
        topic: TopicId,
        /// Which life of the topic's log the position is of.
        incarnation: u64,
        /// The position after the last entry.
        position: u64,
    },
    /// An author is blocked in a topic.
    Block {
        /// The topic.
        topic: TopicId,
        /// The author.
        author: AgentId,
    },
    /// Nothing of a topic is kept.
    DropTopic {
        /// The topic.
        topic: TopicId,
    },
    /// What is from before this time goes, but for the durable class, in every topic, loaded or not: runs, then
    /// the chains whose head is as old, and topics without a chain. A store does this in steps, beside other work.
    Expire {
        /// The time.
        before: WallTime,
    },
}

#[cfg(feature = "tokio")]
impl LogChange {
    /// The topic that it is of; none when it is of all.
    pub(crate) fn topic(&self) -> Option<TopicId> {
        match self {
            Self::Append { run, .. } => Some(run.body().topic()),
            Self::EvictTo { topic, .. }
            | Self::Remove { topic, .. }
            | Self::Replace { topic, .. }
            | Self::Reach { topic, .. }
            | Self::Block { topic, .. }
            | Self::DropTopic { topic } => Some(*topic),
            Self::Expire { .. } => None,
        }
    }
}

/// How much of a topic is loaded at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadLimits {
    /// Encoded bytes of runs.
    pub bytes: u64,
    /// Runs.
    pub runs: usize,
    /// Heads of chains, the most recent first.
    pub chains: usize,
}

impl From<&Limits> for LoadLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            // What is kept for ever is taken up to twice as much as is published.
            bytes: limits.topic_bytes as u64 + 2 * limits.durable_topic_bytes,
            runs: limits.topic_entries,
            // All that is kept: what is left out could be replayed.
            chains: (limits.authors + limits.former_authors) * FREE_EPOCHS + limits.spare_chains,
        }
    }
}

/// What a store holds of a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredTopic {
    /// Which life of the topic's log this is.
    pub incarnation: u64,
    /// Position after the last entry that was ever appended.
    pub end: u64,
    /// Position after the last entry that [`LogChange::Remove`], [`LogChange::Expire`] or the store itself took; 0
    /// when there was none. A reader who stopped before it misses something.
    pub gone: u64,
    /// The newest retained runs, in the order of their positions.
    pub runs: Vec<StoredRun>,
    /// The heads of chains, those of former content included, in the order of author and epoch.
    pub chains: Vec<StoredChain>,
    /// Keys of the runs' authors, by author.
    pub keys: Vec<(AgentId, Bytes)>,
    /// Authors that are blocked, in order.
    pub blocked: Vec<AgentId>,
}

/// What a store holds of an author.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldOf {
    /// The topics with a chain of the author, the one with its latest entry first; at most as many as
    /// were asked for.
    pub topics: Vec<TopicId>,
    /// The greatest epoch of its chains; 0 when there is none.
    pub epoch: u64,
}

/// A run that a store holds; the fields are those of [`LogChange::Append`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRun {
    /// Position of the run's first entry.
    pub position: u64,
    /// Entries of the author that are missing just before the run.
    pub missed: u64,
    /// Nothing was known of the author's epoch before the run.
    pub begins: bool,
    /// The run as its author sent it.
    pub run: Bytes,
}

/// The head of an author's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredChain {
    /// The author.
    pub author: AgentId,
    /// The author's epoch.
    pub epoch: u64,
    /// Sequence number of its last entry.
    pub head: u64,
    /// Hash of its last entry.
    pub hash: [u8; 32],
    /// Time of its last entry.
    pub time: HybridTime,
}

impl StoredChain {
    /// The head that a chain has after a run.
    #[must_use]
    pub fn after(run: &Run) -> Self {
        let body = run.body();
        Self {
            author: body.author(),
            epoch: body.epoch(),
            head: body.last_seq(),
            hash: *run.hash().as_bytes(),
            time: body.last_time(),
        }
    }
}

/// A store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk or the file system failed, or refuses access.
    #[error("the store cannot be read or written: {0}")]
    Io(Arc<str>),
    /// The stored data is damaged. It was set aside, and the store begins anew.
    #[error("the stored data is damaged: {0}")]
    Corrupt(Arc<str>),
    /// The disk is full, or the store is at its cap and nothing in it can go.
    #[error("the store is full")]
    Full,
    /// The store was shut down.
    #[error("the store is closed")]
    Closed,
    /// A mistake in the store itself.
    #[error("the store failed: {0}")]
    Internal(Arc<str>),
}
