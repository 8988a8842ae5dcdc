//! A store that keeps nothing: replicas read their logs from the beginning.

use x0x_core::TopicId;
use x0x_gossip_crdt::{BoxFuture, CrdtStore, CrdtStoreError, Descriptor, Saved};

/// Where replicas of an agent without a disk are not kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unstored;

fn done<T: Send + 'static>(value: T) -> BoxFuture<'static, Result<T, CrdtStoreError>> {
    Box::pin(std::future::ready(Ok(value)))
}

impl CrdtStore for Unstored {
    fn objects(&self) -> BoxFuture<'_, Result<Vec<Descriptor>, CrdtStoreError>> {
        done(Vec::new())
    }

    fn remember(&self, _: Descriptor) -> BoxFuture<'_, Result<(), CrdtStoreError>> {
        done(())
    }

    fn load(&self, _: TopicId) -> BoxFuture<'_, Result<Option<Saved>, CrdtStoreError>> {
        done(None)
    }

    fn save(&self, _: TopicId, _: Saved) -> BoxFuture<'_, Result<(), CrdtStoreError>> {
        done(())
    }

    fn forget(&self, _: TopicId) -> BoxFuture<'_, Result<(), CrdtStoreError>> {
        done(())
    }
}
