//! `kill -9` at random points: everything acknowledged is there, and nothing is torn.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod support;

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use support::{Author, count, held, open};
use x0x_core::SeededRng;
use x0x_gossip_pubsub::{LogChange, LogStore as _, RunIn};
use x0x_store::{SqliteStore, StoreConfig};

/// Names the file to the child.
const PATH: &str = "X0X_STORE_CRASH_PATH";

const ROUNDS: u64 = 24;

/// The other process: goes on with the log where the file ends, and tells what is acknowledged.
#[tokio::test]
async fn child() {
    let Ok(path) = env::var(PATH) else { return };
    let store = open(Path::new(&path)).await;
    let mut author = Author::new(1, "a");
    if let Some(topic) = held(&store, author.topic()).await {
        author.position = topic.end;
        let last = topic.runs.last().expect("the newest run is held");
        let run = RunIn::decode(last.run.clone()).unwrap();
        author.last = Some(run.verify(author.forge.key.public_key()).unwrap().into());
    }
    let mut out = std::io::stdout().lock();
    for n in 0_u64.. {
        // Alone, in groups, and with evictions between.
        let mut changes: Vec<_> = (0..n % 5 + 1).map(|_| author.append(&[b"1", b"2"])).collect();
        if n % 7 == 0 {
            let position = author.position.saturating_sub(400);
            changes.push(LogChange::EvictTo { topic: author.topic(), position });
        }
        store.commit(changes).await.unwrap();
        writeln!(out, "\nacknowledged {}", author.position).unwrap();
        out.flush().unwrap();
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_kill_9() {
    let seed: u64 = env::var("X0X_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
    println!("X0X_SEED={seed}");
    let mut rng = SeededRng::from_number(seed);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x0x.db");
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let before = acknowledged;
        // Some are killed at once, some in the middle of writing the journal back.
        let commits = rng.range(0, 1 << (2 + round % 6));
        acknowledged = crashed(&path, commits, acknowledged);
        assert!(acknowledged > before || commits == 0, "round {round}");
        check(&path, acknowledged, round).await;
    }
    let last = rusqlite::Connection::open(&path).unwrap();
    let sound: String = last.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    println!("{acknowledged} entries acknowledged over {ROUNDS} kills");
}

/// Runs the child until it has acknowledged so many commits, and kills it at some point after that.
fn crashed(path: &Path, commits: u64, mut acknowledged: u64) -> u64 {
    let mut child = start(path);
    let out = child.stdout.take().expect("its output is piped");
    let mut lines = BufReader::new(out).lines();
    let mut seen = 0;
    while seen < commits {
        let line = lines.next().expect("the child goes on").unwrap();
        if let Some(position) = told(&line) {
            acknowledged = position;
            seen += 1;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it told before it died counts too; the last line may be cut.
    let mut rest: Vec<_> = lines.map_while(Result::ok).collect();
    rest.pop();
    rest.iter().filter_map(|line| told(line)).next_back().unwrap_or(acknowledged)
}

fn told(line: &str) -> Option<u64> {
    line.strip_prefix("acknowledged ").map(|position| position.parse().expect("a position"))
}

fn start(path: &Path) -> Child {
    let program = env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env(PATH, path);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

async fn check(path: &Path, acknowledged: u64, round: u64) {
    let store = SqliteStore::open(StoreConfig::at(path)).await.unwrap();
    let author = Author::new(1, "a");
    let Some(topic) = held(&store, author.topic()).await else {
        assert_eq!(acknowledged, 0, "round {round}");
        return store.close().await.unwrap();
    };
    assert!(topic.end >= acknowledged, "round {round}: {} < {acknowledged}", topic.end);
    assert_eq!(count(&store, "store_rows_damaged"), 0);
    assert_eq!(count(&store, "store_files_damaged"), 0);
    // The log is whole from its oldest retained run to its end, and so is the head.
    let mut position = topic.runs.first().map_or(topic.end, |run| run.position);
    assert!(position <= topic.end.saturating_sub(400), "round {round}: evicted up to {position}");
    for run in &topic.runs {
        assert_eq!(run.position, position, "round {round}");
        let run = RunIn::decode(run.run.clone()).unwrap();
        let run = run.verify(author.forge.key.public_key()).unwrap();
        assert_eq!(run.body().first_seq(), position + 1);
        position += run.body().entries().len() as u64;
    }
    assert_eq!((position, topic.chains[0].head), (topic.end, topic.end), "round {round}");
    store.close().await.unwrap();
}
