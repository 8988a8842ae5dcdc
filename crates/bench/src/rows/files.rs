//! Files between two daemons, beside one stream of raw quinn.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};
use x0x_api::types::TransferStatus;

use super::{Scale, begin};
use crate::node::{Cluster, Node};
use crate::quinn_stream;
use crate::report::{Report, Target};
use crate::transfer;

const MIB: u64 = 1024 * 1024;
/// How long a file may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Runs of each file up to 256 MiB, of which the fastest counts, for both.
const RUNS: usize = 3;

pub(super) async fn measure(cluster: &Cluster, scale: Scale, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    for mebibytes in scale.files {
        let run = begin(&format!("file of {mebibytes} MiB"), 2);
        let path = folder.path().join(format!("{mebibytes}.bin"));
        transfer::write_random(&path, mebibytes * MIB)?;
        let runs = if *mebibytes > 256 { 1 } else { RUNS };
        let (mut raw, mut best) = (Duration::MAX, Moved::default());
        let mut rise: f64 = 0.0;
        for _ in 0..runs {
            raw = raw.min(quinn_stream::time(mebibytes * MIB).await?);
            let moved = send(cluster, &path).await?;
            rise = rise.max(moved.rise);
            if best.took.is_zero() || moved.took < best.took {
                best = moved;
            }
        }
        let rate = |took: Duration| *mebibytes as f64 / took.as_secs_f64();
        report.note(&run, "raw quinn stream", rate(raw), "MiB/s");
        report.note(&run, "file, from accept to stored", rate(best.took), "MiB/s");
        let share = 100.0 * raw.as_secs_f64() / best.took.as_secs_f64();
        report.figure(&run, "share of raw quinn", share, "%", Target::AtLeast(80.0));
        report.figure(&run, "memory rise", rise, "MiB", Target::AtMost(32.0));
        report.note(&run, "offer, hashes included", best.offer.as_secs_f64() * 1000.0, "ms");
        let gibibytes = *mebibytes as f64 / 1024.0;
        report.note(&run, "CPU of both", best.cpu.as_secs_f64() / gibibytes, "s/GiB");
        std::fs::remove_file(path)?;
    }
    Ok(())
}

#[derive(Default)]
struct Moved {
    /// From the call to the offer at the other end.
    offer: Duration,
    /// From the acceptance to the whole file with its name.
    took: Duration,
    cpu: Duration,
    /// The most that either daemon's memory rose, in MiB.
    rise: f64,
}

async fn send(cluster: &Cluster, path: &Path) -> Result<Moved> {
    let [sender, receiver] = &cluster.nodes[..] else { anyhow::bail!("two nodes are needed") };
    let to = receiver.agent_id().await?;
    let before = memory(sender)?.max(memory(receiver)?);
    let cpu = cluster.cpu_time()?;
    let started = Instant::now();
    let id = transfer::send(sender, &to, path).await?;
    let mut http = receiver.http().await?;
    transfer::accept(&mut http, &id, PATIENCE).await?;
    let accepted = Instant::now();
    let mut peak = before;
    let done = transfer::wait(&mut http, &id, PATIENCE, |transfer| {
        transfer.status == TransferStatus::Complete
    });
    tokio::pin!(done);
    let stored = loop {
        tokio::select! {
            stored = &mut done => break stored?,
            () = sleep(LOOK) => peak = peak.max(memory(sender)?).max(memory(receiver)?),
        }
    };
    let took = accepted.elapsed();
    let output = stored.output_path.context("a received file has a path")?;
    std::fs::remove_file(output)?;
    let cpu = cluster.cpu_time()?.saturating_sub(cpu);
    Ok(Moved { offer: accepted - started, took, cpu, rise: peak - before })
}

fn memory(node: &Node) -> Result<f64> {
    Ok(node.memory()?.resident)
}
