//! What an open store that nobody uses holds in memory.
//!
//! `cargo run -p x0x-store --example idle` (add `--release` for figures to compare).

use std::{fs, sync::Arc, time::Duration};

use x0x_core::WallTime;
use x0x_gossip_pubsub::{
    LoadLimits, LogChange, LogStore as _, NetworkId, testing::RunForge, topic_id,
};
use x0x_identity::testing::key;
use x0x_store::{SqliteStore, StoreConfig};

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let wall = WallTime::from_millis(1_800_000_000_000);
    let forge = RunForge::new(key(1), NetworkId::from_name("idle"), topic_id("idle"), wall);
    let run = Arc::new(forge.run(None, &[&[7; 256]]));
    let key = forge.key.public_key().clone();
    let before = resident()?;
    let show = |what: &str| -> Result<(), Failure> {
        let (all, anonymous) = resident()?;
        let (all, anonymous) = (all.saturating_sub(before.0), anonymous.saturating_sub(before.1));
        println!("{what:<28} {all:>6} KiB more, {anonymous:>6} of them anonymous");
        Ok(())
    };
    let store = SqliteStore::open(StoreConfig::at(dir.path().join("x0x.db"))).await?;
    show("opened")?;
    let append = |position| LogChange::Append {
        incarnation: 1,
        position,
        missed: 0,
        begins: position == 0,
        run: Arc::clone(&run),
        key: key.clone(),
    };
    store.commit(vec![append(0)]).await?;
    show("one run committed")?;
    let limits = LoadLimits { bytes: u64::MAX, runs: usize::MAX, chains: usize::MAX };
    store.load(topic_id("idle"), limits).await?;
    show("one topic loaded")?;
    for position in 1..5000 {
        store.commit(vec![append(position)]).await?;
    }
    show("5000 runs committed")?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    show("idle again")?;
    store.close().await?;
    show("closed")
}

/// `VmRSS` and its anonymous part, in KiB.
fn resident() -> Result<(u64, u64), Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let value = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
    };
    Ok((value("VmRSS:"), value("RssAnon:")))
}
