//! Files that are damaged, foreign or of a later release; none of them is lost or stops the node.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod support;

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use support::{Author, count, held, open};
use x0x_core::SeededRng;
use x0x_gossip_pubsub::{LogStore as _, StoreError};
use x0x_store::{Durability, MAX_DAMAGED_FILES, OpenError, SqliteStore, StoreConfig};

/// A closed database with some hundred runs of one author.
async fn written(path: &Path, runs: usize) -> Author {
    let store = open(path).await;
    let mut author = Author::new(1, "a");
    for _ in 0..runs {
        store.commit(vec![author.append(&[b"payload"])]).await.unwrap();
    }
    store.close().await.unwrap();
    author
}

fn damaged_files(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.contains(".corrupt-"));
    names.sort();
    names
}

#[tokio::test]
async fn a_cut_file_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x0x.db");
    let mut author = written(&path, 50).await;
    for (n, keep) in [100_000, 4096, 5000, 50].into_iter().enumerate() {
        let before = fs::metadata(&path).unwrap().len();
        assert!(before > keep, "{before} bytes");
        fs::File::options().write(true).open(&path).unwrap().set_len(keep).unwrap();
        let store = open(&path).await;
        assert_eq!(damaged_files(dir.path()).len(), n + 1, "cut to {keep}");
        assert_eq!(count(&store, "store_files_damaged"), 1);
        assert_eq!(held(&store, author.topic()).await, None);
        let changes: Vec<_> = (0..50).map(|_| author.append(&[b"payload"])).collect();
        store.commit(changes).await.unwrap();
        store.close().await.unwrap();
    }
    let kept = dir.path().join("x0x.db.corrupt-1");
    assert_eq!(fs::metadata(kept).unwrap().len(), 100_000, "nothing of it is lost");
}

#[tokio::test]
async fn only_so_many_damaged_files_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x0x.db");
    for _ in 0..MAX_DAMAGED_FILES + 2 {
        written(&path, 1).await;
        fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
    }
    open(&path).await;
    let names = damaged_files(dir.path());
    assert_eq!(names.len(), MAX_DAMAGED_FILES);
    assert_eq!(names[0], "x0x.db.corrupt-3", "the oldest went");
}

#[tokio::test]
async fn a_flipped_byte_costs_what_it_hits_and_no_more() {
    let seed: u64 = std::env::var("X0X_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
    println!("X0X_SEED={seed}");
    let mut rng = SeededRng::from_number(seed);
    let dir = tempfile::tempdir().unwrap();
    let pristine = dir.path().join("pristine.db");
    let author = written(&pristine, 60).await;
    let whole = {
        let store = open(&pristine).await;
        held(&store, author.topic()).await.unwrap()
    };
    let length = fs::metadata(&pristine).unwrap().len();
    let (mut partial, mut anew) = (0, 0);
    for round in 0..60 {
        let path = dir.path().join(format!("{round}.db"));
        fs::copy(&pristine, &path).unwrap();
        let at = flip(&path, &mut rng, length);
        let store = match SqliteStore::open(StoreConfig::at(&path)).await {
            Ok(store) => store,
            // What names the file and its schema cannot be told from what somebody else writes.
            Err(OpenError::Foreign { .. } | OpenError::Newer { .. }) => {
                assert!(at < 100, "byte {at}");
                continue;
            }
            Err(error) => panic!("byte {at}: {error}"),
        };
        match store.load(author.topic(), support::ALL).await {
            Ok(Some(topic)) => {
                partial += u64::from(topic != whole);
                // Whatever is given back is what was written.
                assert!(topic.runs.iter().all(|run| whole.runs.contains(run)), "byte {at}");
                assert!(topic.chains.is_empty() || topic.chains == whole.chains, "byte {at}");
                assert_eq!((topic.incarnation, topic.end), (whole.incarnation, whole.end));
            }
            Ok(None) => anew += 1,
            Err(StoreError::Corrupt(_)) => {
                anew += 1;
                // It was set aside, and the store goes on.
                let mut next = Author::new(2, "b");
                store.commit(vec![next.append(&[b"1"])]).await.unwrap();
                assert_eq!(held(&store, next.topic()).await.unwrap().runs.len(), 1);
            }
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
    assert!(partial > 0, "{partial} partly readable, {anew} begun anew");
}

/// Flips a bit of a random byte; returns where.
fn flip(path: &Path, rng: &mut SeededRng, length: u64) -> u64 {
    let at = rng.range(0, length);
    let mut file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    byte[0] ^= 1 << rng.below(8);
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&byte).unwrap();
    at
}

/// Overwrites all but the first page, with the header and the schema.
fn destroy(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[4096..].fill(0xff);
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_file_whose_pages_are_damaged_is_set_aside_when_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x0x.db");
    let author = written(&path, 50).await;
    destroy(&path);
    let store = open(&path).await;
    assert_eq!(held(&store, author.topic()).await, None);
    assert_eq!(damaged_files(dir.path()), ["x0x.db.corrupt-1"]);
    assert_eq!(count(&store, "store_files_damaged"), 1);
}

#[tokio::test]
async fn a_file_found_damaged_while_it_is_open_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x0x.db");
    let author = written(&path, 50).await;
    let store = open(&path).await;
    destroy(&path);
    let loaded = store.load(author.topic(), support::ALL).await;
    assert!(matches!(loaded, Err(StoreError::Corrupt(_))), "{loaded:?}");
    let mut next = Author::new(2, "b");
    store.commit(vec![next.append(&[b"1"])]).await.unwrap();
    assert_eq!(held(&store, author.topic()).await, None);
    assert_eq!(damaged_files(dir.path()), ["x0x.db.corrupt-1"]);
    assert_eq!(count(&store, "store_failed_corrupt"), 1);
    assert_eq!(held(&store, next.topic()).await.unwrap().runs.len(), 1);

    // The same when it is a commit that finds it.
    store.close().await.unwrap();
    let store = open(&path).await;
    destroy(&path);
    store.commit(vec![next.append(&[b"2"])]).await.unwrap();
    store.commit(vec![next.append(&[b"3"])]).await.unwrap();
    // What was committed holds, in the new file.
    assert_eq!(held(&store, next.topic()).await.unwrap().runs.len(), 2);
    assert_eq!(damaged_files(dir.path()), ["x0x.db.corrupt-1", "x0x.db.corrupt-2"]);
}

/// What a power loss leaves: a journal that ends anywhere. Commits are there up to some point, each
/// as a whole.
#[tokio::test]
async fn a_cut_journal_costs_whole_commits_from_its_end() {
    let mut rng = SeededRng::from_number(7);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x0x.db");
    // Nothing is written back beside the writer while the files are copied.
    open(&path).await.close().await.unwrap();
    // Every commit is a transaction of the journal.
    let mut config = StoreConfig::at(&path);
    config.durability = Durability::Power;
    let store = SqliteStore::open(config).await.unwrap();
    let mut author = Author::new(1, "a");
    for _ in 0..30 {
        let changes: Vec<_> = (0..3).map(|_| author.append(&[b"1"])).collect();
        store.commit(changes).await.unwrap();
    }
    let length = fs::metadata(dir.path().join("x0x.db-wal")).unwrap().len();
    let mut ends = Vec::new();
    for round in 0..30 {
        let copy = dir.path().join(format!("{round}.db"));
        fs::copy(&path, &copy).unwrap();
        let wal = dir.path().join(format!("{round}.db-wal"));
        fs::copy(dir.path().join("x0x.db-wal"), &wal).unwrap();
        let file = fs::File::options().write(true).open(&wal).unwrap();
        file.set_len(rng.range(0, length)).unwrap();
        let store = open(&copy).await;
        let Some(topic) = held(&store, author.topic()).await else { continue };
        assert_eq!(topic.end % 3, 0, "commits are whole");
        assert_eq!((topic.runs.len() as u64, topic.chains[0].head), (topic.end, topic.end));
        assert_eq!(count(&store, "store_rows_damaged"), 0);
        ends.push(topic.end);
    }
    ends.sort_unstable();
    ends.dedup();
    assert!(ends.len() > 10, "cut at different points: {ends:?}");
    assert!(damaged_files(dir.path()).is_empty());
}

#[tokio::test]
async fn files_of_others_are_refused_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("text");
    fs::write(&path, "a letter to somebody".repeat(50)).unwrap();
    assert!(matches!(refused(&path).await, OpenError::Foreign { .. }));
    assert_eq!(fs::read_to_string(&path).unwrap(), "a letter to somebody".repeat(50));

    let path = dir.path().join("other.db");
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE notes (note TEXT)").unwrap();
    drop(other);
    assert!(matches!(refused(&path).await, OpenError::Foreign { .. }));

    let path = dir.path().join("newer.db");
    written(&path, 1).await;
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    assert!(matches!(refused(&path).await, OpenError::Newer { version: 99, .. }));

    assert!(matches!(refused(dir.path()).await, OpenError::Io { .. }), "a directory");
    assert!(damaged_files(dir.path()).is_empty());
}

async fn refused(path: &Path) -> OpenError {
    let error = SqliteStore::open(StoreConfig::at(path)).await.expect_err("it is refused");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    error
}

#[cfg(unix)]
#[tokio::test]
async fn files_are_private() {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data/x0x.db");
    let store = open(&path).await;
    let mut author = Author::new(1, "a");
    store.commit(vec![author.append(&[b"1"])]).await.unwrap();
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for name in ["x0x.db", "x0x.db-wal", "x0x.db-shm"] {
        assert_eq!(mode(&path.with_file_name(name)), 0o600, "{name}");
    }
    store.close().await.unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    open(&path).await;
    assert_eq!(mode(&path), 0o600);
}
