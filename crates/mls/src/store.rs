//! Where the state of groups is kept: a key-value store with transactions, in *spaces*.
//!
//! Each epoch of a group has a space of its own. A commit writes a new one and leaves the old one as
//! it was, so that late messages of the epoch before stay readable without a copy of them in the hot
//! state, and a commit that lost can be undone. See [ADR 13](../../docs/adr/0013-encrypted-groups.md).

use zeroize::Zeroizing;

/// Largest key of an entry in bytes.
pub const MAX_KEY: usize = 8 * 1024;
/// Largest value of an entry in bytes: the ratchet tree of a very large group in one chunk.
pub const MAX_VALUE: usize = 64 * 1024 * 1024;

/// Where an entry belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Space {
    /// What belongs to no single epoch: keys, key packages, the list of groups.
    Member,
    /// Messages on their way to or from the layer above.
    Journal,
    /// One epoch of one group, by the id of its state.
    Epoch([u8; 32]),
    /// What the layer above keeps of its groups, in the same transactions.
    Named,
    /// What was written in one of these, by its id.
    History([u8; 32]),
}

impl Space {
    /// The stored form: a kind, and the id of the state if it is one.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::Member => vec![0],
            Self::Journal => vec![1],
            Self::Epoch(id) => [&[2], id.as_slice()].concat(),
            Self::Named => vec![3],
            Self::History(id) => [&[4], id.as_slice()].concat(),
        }
    }
}

/// One piece of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which value.
    pub key: Vec<u8>,
    /// Which piece of it, from 0.
    pub chunk: u32,
    /// The piece. Holds secrets.
    pub value: Zeroizing<Vec<u8>>,
}

/// One change of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Writes a piece, over what is there.
    Put(Space, Entry),
    /// Deletes the pieces of a value from this one on.
    Cut(Space, Vec<u8>, u32),
    /// Deletes a space.
    Drop(Space),
}

/// What is written in one transaction, in order.
pub type Batch = Vec<Change>;

/// The store failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the store of groups: {0}")]
pub struct StoreError(pub String);

/// A key-value store with transactions. Synchronous, as openmls' storage is.
pub trait MlsStore: Send {
    /// All entries of a space, the pieces of a value in order.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    fn load(&self, space: Space) -> Result<Vec<Entry>, StoreError>;

    /// Writes all of the batch or nothing. When it returns `Ok`, an end of the process loses none of it.
    ///
    /// # Errors
    /// [`StoreError`] when nothing was written.
    fn commit(&self, batch: Batch) -> Result<(), StoreError>;
}

impl<S: MlsStore + Sync + ?Sized> MlsStore for std::sync::Arc<S> {
    fn load(&self, space: Space) -> Result<Vec<Entry>, StoreError> {
        (**self).load(space)
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        (**self).commit(batch)
    }
}
