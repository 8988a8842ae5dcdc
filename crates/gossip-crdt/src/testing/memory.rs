//! The fake of the store, and what every store has to do.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use x0x_core::{AgentId, TopicId};
use x0x_gossip_pubsub::Cursor;

use crate::{
    config::MAX_OBJECTS,
    descriptor::Descriptor,
    error::CrdtStoreError,
    store::{BoxFuture, CrdtStore, Saved},
};

type Held = BTreeMap<TopicId, (Descriptor, Option<Saved>)>;

/// A store in memory; clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryCrdtStore(Arc<Mutex<(Held, bool)>>);

impl MemoryCrdtStore {
    /// Makes every call fail, or no longer.
    pub fn set_failing(&self, failing: bool) {
        self.held().1 = failing;
    }

    fn held(&self) -> MutexGuard<'_, (Held, bool)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Held) -> T + Send + 'static,
    ) -> BoxFuture<'_, Result<T, CrdtStoreError>> {
        Box::pin(async move {
            let mut held = self.held();
            if held.1 {
                Err(CrdtStoreError("told to fail".into()))
            } else {
                Ok(change(&mut held.0))
            }
        })
    }
}

impl CrdtStore for MemoryCrdtStore {
    fn objects(&self) -> BoxFuture<'_, Result<Vec<Descriptor>, CrdtStoreError>> {
        self.with(|held| {
            held.values().map(|(object, _)| object.clone()).take(MAX_OBJECTS).collect()
        })
    }

    fn remember(&self, object: Descriptor) -> BoxFuture<'_, Result<(), CrdtStoreError>> {
        self.with(|held| {
            held.entry(object.id()).or_insert((object, None));
        })
    }

    fn load(&self, object: TopicId) -> BoxFuture<'_, Result<Option<Saved>, CrdtStoreError>> {
        self.with(move |held| held.get(&object).and_then(|(_, saved)| saved.clone()))
    }

    fn save(&self, object: TopicId, saved: Saved) -> BoxFuture<'_, Result<(), CrdtStoreError>> {
        self.with(move |held| {
            if let Some(held) = held.get_mut(&object) {
                held.1 = Some(saved);
            }
        })
    }

    fn forget(&self, object: TopicId) -> BoxFuture<'_, Result<(), CrdtStoreError>> {
        self.with(move |held| drop(held.remove(&object)))
    }
}

/// What every store does. `reopen` gives the store as it is after a restart.
///
/// # Panics
/// When the store does otherwise.
pub async fn check_crdt_store<S: CrdtStore>(store: S, reopen: impl AsyncFnOnce(S) -> S) {
    let open = Descriptor::open("sample/1", "a");
    let owned = Descriptor::owned("sample/1", "a", AgentId::new([7; 32]));
    assert_eq!(store.objects().await, Ok(Vec::new()));
    let saved =
        |cursor, text: &'static str| Saved::new(cursor, Bytes::from_static(text.as_bytes()));
    store.save(open.id(), saved(None, "unknown")).await.expect("it is no error");
    assert_eq!(store.load(open.id()).await, Ok(None), "an object that is not known is not saved");
    for object in [&open, &owned, &open] {
        store.remember(object.clone()).await.expect("it is remembered");
    }
    store.save(open.id(), saved(Some(Cursor::new(3, 1)), "first")).await.expect("it is saved");
    let last = saved(Some(Cursor::new(u64::MAX, u64::MAX)), "second");
    store.save(open.id(), last.clone()).await.expect("it is saved again");
    store.remember(open.clone()).await.expect("it is known already");
    let store = reopen(store).await;
    let mut all = vec![open.clone(), owned.clone()];
    all.sort_by_key(Descriptor::id);
    assert_eq!(store.objects().await, Ok(all));
    assert_eq!(store.load(open.id()).await, Ok(Some(last)));
    assert_eq!(store.load(owned.id()).await, Ok(None));
    store.forget(open.id()).await.expect("it is forgotten");
    assert_eq!(store.load(open.id()).await, Ok(None));
    assert_eq!(store.objects().await, Ok(vec![owned]));
}
