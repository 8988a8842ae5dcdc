//! Replicated objects on disk.

use std::path::Path;

use x0x_gossip_crdt::{CrdtStore as _, Descriptor, Saved, testing::check_crdt_store};
use x0x_store::{SqliteStore, StoreConfig};

async fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(StoreConfig::at(folder.join("x0x.db"))).await.expect("it opens")
}

#[tokio::test]
async fn the_database_does_what_every_store_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path()).await;
    check_crdt_store(store, async |store| {
        store.close().await.expect("it closes");
        drop(store);
        open(folder.path()).await
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_is_damaged_is_left_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let (object, store) = (Descriptor::open("sample/1", "a"), open(folder.path()).await);
    store.remember(object.clone()).await.expect("it is remembered");
    let saved = Saved::new(None, vec![7; 100_000].into());
    store.save(object.id(), saved.clone()).await.expect("it is saved");
    assert_eq!(store.load(object.id()).await, Ok(Some(saved)));
    store.close().await.expect("it closes");
    let file = rusqlite::Connection::open(folder.path().join("x0x.db")).expect("it opens");
    file.execute("UPDATE replica SET data = zeroblob(9)", []).expect("it is damaged");
    drop(file);
    let store = open(folder.path()).await;
    assert_eq!(store.load(object.id()).await, Ok(None));
    assert_eq!(store.objects().await, Ok(vec![object]));
    assert_eq!(store.metrics().rows_damaged.value(), 1);
}
