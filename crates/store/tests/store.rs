//! The store over real files: the contract, restarts, bounds and shutdown.

mod support;

use std::{collections::BTreeMap, sync::Arc};

use support::{ALL, Author, THEN, count, held, open};
use x0x_core::{SeededRng, WallTime};
use x0x_gossip_pubsub::{
    LogChange, LogStore, MemoryLogStore, StoreError, StoredTopic, check_log_store,
};
use x0x_store::{Durability, MIN_FILE_BYTES, SqliteStore, StoreConfig};

#[tokio::test]
async fn the_contract_holds_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut stores = Vec::new();
    for n in 0..11 {
        let mut config = StoreConfig::at(dir.path().join(format!("{n}.db")));
        config.durability = if n % 2 == 0 { Durability::Process } else { Durability::Power };
        stores.push(SqliteStore::open(config).await.unwrap());
    }
    check_log_store(|| Arc::new(stores.pop().expect("enough stores"))).await;
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/er/x0x.db");
    let store = open(&path).await;
    let (mut one, mut two) = (Author::new(1, "a"), Author::new(2, "b"));
    store.commit(vec![one.append(&[b"1", b"2"]), two.append(&[b"x"])]).await.unwrap();
    store.commit(vec![one.append(&[b"3"])]).await.unwrap();
    let block = LogChange::Block { topic: one.topic(), author: two.forge.author() };
    store.commit(vec![block]).await.unwrap();
    let before = [held(&store, one.topic()).await, held(&store, two.topic()).await];
    store.close().await.unwrap();
    assert_eq!(store.commit(Vec::new()).await, Err(StoreError::Closed));
    assert_eq!(store.load(one.topic(), ALL).await, Err(StoreError::Closed));
    assert_eq!(store.close().await, Err(StoreError::Closed));

    let store = open(&path).await;
    let after = [held(&store, one.topic()).await, held(&store, two.topic()).await];
    assert_eq!(before, after);
    assert_eq!(after[0].as_ref().unwrap().runs.len(), 2);
    // And goes on from there.
    store.commit(vec![one.append(&[b"4"])]).await.unwrap();
    assert_eq!(held(&store, one.topic()).await.unwrap().end, 4);
    assert_eq!(count(&store, "store_rows_damaged"), 0);
}

#[tokio::test]
async fn dropping_the_last_handle_commits_what_was_handed_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x0x.db");
    let store = open(&path).await;
    let mut author = Author::new(1, "a");
    for _ in 0..20 {
        let mut commit = store.commit(vec![author.append(&[b"1"])]);
        // Handed over, and the caller is gone.
        let polled = std::future::poll_fn(|context| {
            std::task::Poll::Ready(commit.as_mut().poll(context).is_pending())
        });
        polled.await;
    }
    drop(store);
    // The file is free once the writer has closed it; a second opener waits for locks at most.
    let store = open(&path).await;
    let topic = author.topic();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    while held(&store, topic).await.map_or(0, |held| held.runs.len()) < 20 {
        assert!(tokio::time::Instant::now() < deadline, "everything arrives");
        tokio::task::yield_now().await;
    }
}

/// Random changes do to the file what they do to the fake.
#[tokio::test]
async fn random_changes_leave_the_same_as_in_memory() {
    let seed: u64 = std::env::var("X0X_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
    println!("X0X_SEED={seed}");
    let mut rng = SeededRng::from_number(seed);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x0x.db");
    let (mut store, model) = (open(&path).await, MemoryLogStore::new());
    let mut authors: Vec<_> =
        ["a", "b", "c"].iter().flat_map(|topic| (1..4).map(|n| Author::new(n, topic))).collect();
    let mut ends = BTreeMap::new();
    for round in 0..150 {
        let mut changes = Vec::new();
        for _ in 0..rng.below(6) {
            let author = rng.below(authors.len());
            let change = random_change(&mut rng, &mut authors[author], &mut ends, round);
            changes.push(change);
        }
        store.commit(changes.clone()).await.unwrap();
        model.commit(changes).await.unwrap();
        if round % 50 == 49 {
            store.close().await.unwrap();
            store = open(&path).await;
        }
        for topic in [0, 3, 6].map(|author: usize| authors[author].topic()) {
            let mut limits = ALL;
            if rng.below(2) == 0 {
                (limits.bytes, limits.runs) = (rng.range(0, 50_000), rng.below(12));
            }
            let loaded = store.load(topic, limits).await.unwrap();
            let expected = model.load(topic, limits).await.unwrap();
            let (short, shorter) = (outline(&loaded), outline(&expected));
            assert_eq!(short, shorter, "round {round}");
            assert!(loaded == expected, "round {round}: {short}");
        }
    }
    assert_eq!(count(&store, "store_rows_damaged"), 0);
}

/// A topic without the bytes of runs and keys.
fn outline(topic: &Option<StoredTopic>) -> String {
    let Some(topic) = topic else { return "nothing".to_owned() };
    let positions: Vec<_> = topic.runs.iter().map(|run| run.position).collect();
    let heads: Vec<_> = topic.chains.iter().map(|c| (c.author.short(), c.head)).collect();
    let keys: Vec<_> = topic.keys.iter().map(|(author, _)| author.short()).collect();
    let blocked: Vec<_> = topic.blocked.iter().map(|author| author.short()).collect();
    format!("{} {} {positions:?} {heads:?} {keys:?} {blocked:?}", topic.end, topic.gone)
}

fn random_change(
    rng: &mut SeededRng,
    author: &mut Author,
    ends: &mut BTreeMap<x0x_core::TopicId, u64>,
    round: u64,
) -> LogChange {
    let topic = author.topic();
    let end = ends.entry(topic).or_insert(0);
    match rng.below(21) {
        0 => LogChange::EvictTo { topic, position: rng.range(0, *end + 1) },
        1 => LogChange::Remove { topic, position: rng.range(0, *end + 1) },
        2 => LogChange::Block { topic, author: author.forge.author() },
        3 if round.is_multiple_of(10) => LogChange::DropTopic { topic },
        4 => {
            let back = rng.range(0, 2_000);
            let at = THEN.as_millis() + round * 100;
            LogChange::Expire { before: WallTime::from_millis(at.saturating_sub(back)) }
        }
        5 => LogChange::Replace { topic, position: rng.range(0, *end + 1) },
        n => {
            // Each author's clock goes on, by its own steps.
            author.forge.wall = WallTime::from_millis(THEN.as_millis() + round * 100);
            author.position = *end;
            let payloads: Vec<&[u8]> = vec![b"payload"; n % 4 + 1];
            let change = author.append(&payloads);
            *end = author.position;
            change
        }
    }
}

#[tokio::test]
async fn commits_that_wait_share_a_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("x0x.db")).await;
    let mut author = Author::new(1, "a");
    let mut commits = tokio::task::JoinSet::new();
    for _ in 0..400 {
        let (store, change) = (store.clone(), author.append(&[b"1"]));
        commits.spawn(async move { store.commit(vec![change]).await });
    }
    while let Some(commit) = commits.join_next().await {
        commit.unwrap().unwrap();
    }
    assert_eq!(count(&store, "store_commits"), 400);
    let transactions = count(&store, "store_transactions");
    assert!(transactions < 200, "{transactions} transactions for 400 commits");
    // Tasks hand over in any order, so that heads come in any order too.
    let topic = held(&store, author.topic()).await.unwrap();
    assert_eq!((topic.runs.len(), topic.end, topic.chains[0].head), (400, 400, 400));
}

#[tokio::test]
async fn the_oldest_goes_at_the_cap() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x0x.db");
    let mut config = StoreConfig::at(&path);
    config.max_bytes = MIN_FILE_BYTES;
    let store = SqliteStore::open(config).await.unwrap();
    let (mut old, mut new) = (Author::new(1, "old"), Author::new(2, "new"));
    store.commit(vec![old.append(&[b"1"])]).await.unwrap();
    let payload = vec![7; 30_000];
    for _ in 0..150 {
        store.commit(vec![new.append(&[&payload])]).await.unwrap();
    }
    assert!(count(&store, "store_runs_evicted") > 50);
    let size = std::fs::metadata(&path).unwrap().len();
    assert!(size <= MIN_FILE_BYTES * 5 / 4, "{size} bytes");
    let topic = held(&store, old.topic()).await.unwrap();
    assert!(topic.runs.is_empty(), "the run that arrived first went first");
    assert_eq!((topic.end, topic.chains.len()), (1, 1), "what is known of it stays");
    let topic = held(&store, new.topic()).await.unwrap();
    assert_eq!(topic.end, 150);
    let positions: Vec<_> = topic.runs.iter().map(|run| run.position).collect();
    assert_eq!(positions, (150 - positions.len() as u64..150).collect::<Vec<_>>());
    assert!(positions.len() > 10, "{} runs", positions.len());
}

#[tokio::test]
async fn what_cannot_fit_is_refused_and_takes_nothing_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = StoreConfig::at(dir.path().join("x0x.db"));
    config.max_bytes = MIN_FILE_BYTES;
    let store = SqliteStore::open(config).await.unwrap();
    let (mut small, mut large) = (Author::new(1, "small"), Author::new(2, "large"));
    store.commit(vec![small.append(&[b"1"])]).await.unwrap();
    let payload = vec![7; 60_000];
    let changes: Vec<_> = (0..40).map(|_| large.append(&[&payload])).collect();
    assert_eq!(store.commit(changes).await, Err(StoreError::Full));
    assert_eq!(count(&store, "store_failed_full"), 1);
    assert_eq!(held(&store, large.topic()).await, None, "nothing of it");
    assert_eq!(held(&store, small.topic()).await.unwrap().runs.len(), 1);
    store.commit(vec![small.append(&[b"2"])]).await.unwrap();
    assert_eq!(held(&store, small.topic()).await.unwrap().runs.len(), 2);
}

#[tokio::test]
async fn expiry_of_many_is_worked_off_beside_commits() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("x0x.db")).await;
    let (mut old, mut new) = (Author::new(1, "old"), Author::new(2, "new"));
    new.forge.wall = THEN + std::time::Duration::from_secs(10);
    let run = old.append(&[b"1"]);
    // The same run at many places: what counts is their number.
    let changes: Vec<_> = (0..2500)
        .map(|at| {
            let mut run = run.clone();
            if let LogChange::Append { position, .. } = &mut run {
                *position = at;
            }
            run
        })
        .collect();
    store.commit(changes).await.unwrap();
    let expire = LogChange::Expire { before: THEN + std::time::Duration::from_secs(5) };
    store.commit(vec![expire, new.append(&[b"1"])]).await.unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    while held(&store, old.topic()).await.is_some() {
        assert!(tokio::time::Instant::now() < deadline, "everything expires");
        tokio::task::yield_now().await;
    }
    assert_eq!(count(&store, "store_runs_expired"), 2500);
    assert_eq!(held(&store, new.topic()).await.unwrap().runs.len(), 1);
}
