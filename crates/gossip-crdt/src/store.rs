//! Where replicas survive a restart. The log holds the operations; a stored replica only saves reading
//! them all again, and remembers which objects there are.

use std::{fmt, future::Future, pin::Pin};

use bytes::Bytes;
use x0x_core::TopicId;
use x0x_gossip_pubsub::Cursor;

use crate::{descriptor::Descriptor, error::CrdtStoreError};

/// A boxed future, as traits return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A replica as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Saved {
    /// Where in the log to go on; none to read it all.
    pub cursor: Option<Cursor>,
    /// The replica.
    pub replica: Bytes,
}

impl Saved {
    /// A replica that has read the log up to a place.
    #[must_use]
    pub const fn new(cursor: Option<Cursor>, replica: Bytes) -> Self {
        Self { cursor, replica }
    }
}

/// Keeps objects and their replicas. `x0x-store` implements it on disk;
/// `testing::MemoryCrdtStore` (feature `test-util`) is its fake.
///
/// What a call wrote holds once it returned, and all of it or nothing.
pub trait CrdtStore: Send + Sync + fmt::Debug + 'static {
    /// The objects that are known, in the order of their ids; at most
    /// [`MAX_OBJECTS`](crate::MAX_OBJECTS).
    fn objects(&self) -> BoxFuture<'_, Result<Vec<Descriptor>, CrdtStoreError>>;

    /// Makes an object known.
    fn remember(&self, object: Descriptor) -> BoxFuture<'_, Result<(), CrdtStoreError>>;

    /// The replica of an object that was saved last. It may have been damaged since.
    fn load(&self, object: TopicId) -> BoxFuture<'_, Result<Option<Saved>, CrdtStoreError>>;

    /// Saves the replica of an object that is known; of others nothing is saved.
    fn save(&self, object: TopicId, saved: Saved) -> BoxFuture<'_, Result<(), CrdtStoreError>>;

    /// Forgets an object and its replica.
    fn forget(&self, object: TopicId) -> BoxFuture<'_, Result<(), CrdtStoreError>>;
}
