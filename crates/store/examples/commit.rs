//! Commits a second: alone, many runs in one, and many callers at once.
//!
//! `cargo run -p x0x-store --example commit` (add `--release` for figures to compare).

use std::{path::Path, sync::Arc, time::Duration};

use x0x_core::{Clock as _, SystemClock, Tick, WallTime};
use x0x_gossip_pubsub::{
    LoadLimits, LogChange, LogStore as _, NetworkId, Run, StoreError, testing::RunForge, topic_id,
};
use x0x_identity::testing::key;
use x0x_store::{Durability, OpenError, SqliteStore, StoreConfig};

/// Runs of each measurement.
const RUNS: usize = 2048;

/// How runs are handed to the store.
#[derive(Debug, Clone, Copy)]
enum Mode {
    /// This many runs in each commit, one commit after the other.
    Batch(usize),
    /// One run in each commit, this many callers at once.
    Callers(usize),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let clock = SystemClock::new();
    let dir = tempfile::tempdir()?;
    let changes = changes();
    for durability in [Durability::Process, Durability::Power] {
        println!("{durability:?}, {RUNS} runs of one 256-byte entry");
        let modes = [Mode::Batch(1), Mode::Batch(16), Mode::Batch(64), Mode::Callers(64)];
        let mut alone = 0.0;
        for (n, mode) in modes.into_iter().enumerate() {
            let path = dir.path().join(format!("{durability:?}-{n}.db"));
            let store = open(&path, durability).await?;
            let start = clock.now();
            let slowest = write(&clock, &store, &changes, mode).await?;
            let took = clock.now().since(start);
            let transactions = store.metrics().transactions.value();
            let per_run = took.as_secs_f64() * 1e6 / RUNS as f64;
            if n == 0 {
                alone = per_run;
            }
            println!(
                "  {:<12} {transactions:>5} transactions, {:>6.0} a second, {per_run:>7.1} µs a run, {:>5.1}x, slowest {slowest:?}",
                format!("{mode:?}"),
                f64::from(u32::try_from(transactions).unwrap_or(u32::MAX)) / took.as_secs_f64(),
                alone / per_run,
            );
            store.close().await?;
        }
    }
    reopen(&clock, &dir.path().join("Process-0.db")).await?;
    let new = clock.now();
    open(&dir.path().join("new.db"), Durability::Process).await?;
    println!("opened a new file in {:?}", since(&clock, new));
    Ok(())
}

/// Opens what was written, and loads it.
async fn reopen(clock: &SystemClock, path: &Path) -> Result<(), Failure> {
    let start = clock.now();
    let store = open(path, Durability::Process).await?;
    println!("opened an existing file in {:?}", since(clock, start));
    let start = clock.now();
    let limits = LoadLimits { bytes: u64::MAX, runs: usize::MAX, chains: usize::MAX };
    let topic = store.load(topic_id("bench"), limits).await?;
    let runs = topic.map_or(0, |topic| topic.runs.len());
    println!("loaded {runs} runs in {:?}", since(clock, start));
    Ok(())
}

async fn open(path: &Path, durability: Durability) -> Result<SqliteStore, OpenError> {
    let mut config = StoreConfig::at(path);
    config.durability = durability;
    SqliteStore::open(config).await
}

/// Writes everything; returns how long the slowest commit of a single caller took.
async fn write(
    clock: &SystemClock,
    store: &SqliteStore,
    changes: &[LogChange],
    mode: Mode,
) -> Result<Duration, Failure> {
    let mut slowest = Duration::ZERO;
    match mode {
        Mode::Batch(size) => {
            for batch in changes.chunks(size) {
                let start = clock.now();
                store.commit(batch.to_vec()).await?;
                slowest = slowest.max(since(clock, start));
            }
        }
        Mode::Callers(callers) => {
            let mut tasks = tokio::task::JoinSet::new();
            for part in changes.chunks(RUNS / callers) {
                let (store, part) = (store.clone(), part.to_vec());
                tasks.spawn(async move {
                    for change in part {
                        store.commit(vec![change]).await?;
                    }
                    Ok::<_, StoreError>(())
                });
            }
            while let Some(task) = tasks.join_next().await {
                task??;
            }
        }
    }
    Ok(slowest)
}

fn changes() -> Vec<LogChange> {
    let wall = WallTime::from_millis(1_800_000_000_000);
    let forge = RunForge::new(key(1), NetworkId::from_name("bench"), topic_id("bench"), wall);
    let mut last: Option<Arc<Run>> = None;
    let changes = (0..RUNS as u64).map(|position| {
        let run = Arc::new(forge.run(last.as_deref(), &[&[7; 256]]));
        last = Some(Arc::clone(&run));
        let key = forge.key.public_key().clone();
        LogChange::Append { incarnation: 1, position, missed: 0, begins: position == 0, run, key }
    });
    changes.collect()
}

fn since(clock: &SystemClock, start: Tick) -> Duration {
    clock.now().since(start)
}

type Failure = Box<dyn std::error::Error>;
