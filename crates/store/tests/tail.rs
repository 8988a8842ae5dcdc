//! A file of the tail that is in the tables and could not be emptied.

mod support;

use std::{fs, path::PathBuf};

use support::{Author, count, held, open};
use x0x_gossip_pubsub::{LogChange, LogStore as _};

#[tokio::test]
async fn what_was_applied_is_not_applied_again_over_what_came_since() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x0x.db");
    let tails = ["x0x.db-tail0", "x0x.db-tail1"].map(|name| dir.path().join(name));
    let read = || tails.clone().map(|path| fs::read(path).unwrap());
    let store = open(&path).await;
    let mut author = Author::new(1, "news");
    let topic = author.topic();
    store.commit(vec![author.append(&[b"one"])]).await.unwrap();
    let written = read();
    assert!(written.iter().any(|bytes| !bytes.is_empty()), "the commit is one write");
    assert!(held(&store, topic).await.is_some(), "it is in the tables now");
    store.commit(vec![LogChange::DropTopic { topic }]).await.unwrap();
    assert!(held(&store, topic).await.is_none());
    store.close().await.unwrap();

    // As if neither file could be cut, ever.
    let put_back = |files: &[Vec<u8>; 2]| {
        tails.iter().zip(files).for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    };
    put_back(&written);
    let store = open(&path).await;
    assert!(held(&store, topic).await.is_none(), "the topic was dropped since");
    assert_eq!(count(&store, "store_replayed"), 0);

    // What comes after it still counts, also when the files are the only ones to know.
    store.commit(vec![author.append(&[b"two"])]).await.unwrap();
    let copy = dir.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let from: PathBuf = entry.unwrap().path();
        if from.is_file() {
            fs::copy(&from, copy.join(from.file_name().unwrap())).unwrap();
        }
    }
    let crashed = open(&copy.join("x0x.db")).await;
    assert_eq!(count(&crashed, "store_replayed"), 1);
    crashed.close().await.unwrap();
    store.close().await.unwrap();
}
