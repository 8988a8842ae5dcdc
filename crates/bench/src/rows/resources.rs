//! What a daemon costs while nothing happens.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

use super::{Scale, begin};
use crate::node::{Cluster, Node};
use crate::process::Memory;
use crate::report::{Report, Target};
use crate::stats::Samples;

/// How long a fresh cluster settles before it counts as idle.
const SETTLE: Duration = Duration::from_secs(5);

/// The size of the program.
pub(super) fn binary_size(daemon: &Path, report: &mut Report) -> Result<()> {
    let megabytes = std::fs::metadata(daemon)?.len() as f64 / 1e6;
    report.figure("binary", "x0xd", megabytes, "MB", Target::AtMost(20.0));
    Ok(())
}

/// From exec to the first answer of `/health`, with keys that exist.
pub(super) async fn start(daemon: &Path, scale: Scale, report: &mut Report) -> Result<()> {
    eprintln!("start");
    let folder = tempfile::tempdir()?;
    let (first, with_new_keys) = Node::start(daemon, folder.path(), None).await?;
    drop(first);
    let mut samples = Samples::default();
    for _ in 0..scale.starts {
        let (node, elapsed) = Node::start(daemon, folder.path(), None).await?;
        drop(node);
        samples.push(elapsed);
    }
    let milliseconds = samples.percentile_ms(50.0);
    report.figure("start", "to healthy, p50", milliseconds, "ms", Target::AtMost(15.0));
    report.note("start", "to healthy, first", with_new_keys.as_secs_f64() * 1e3, "ms");
    Ok(())
}

/// Memory and CPU of a connected cluster that nobody uses.
pub(super) async fn idle(cluster: &Cluster, scale: Scale, report: &mut Report) -> Result<()> {
    let nodes = cluster.nodes.len();
    let run = begin("idle", nodes);
    sleep(SETTLE).await;
    let (cpu, started) = (cluster.cpu_time()?, Instant::now());
    sleep(scale.idle).await;
    let busy =
        cluster.cpu_time()?.saturating_sub(cpu).as_secs_f64() / started.elapsed().as_secs_f64();
    let percent = busy / nodes as f64 * 100.0;
    report.figure(&run, "CPU of a node", percent, "%", Target::AtMost(0.05));
    let memory = largest(cluster)?;
    report.figure(&run, "resident memory", memory.resident, "MiB", Target::AtMost(14.0));
    report.figure(&run, "anonymous memory", memory.anonymous, "MiB", Target::AtMost(4.0));
    Ok(())
}

/// Memory of a cluster that has worked.
pub(super) fn after_load(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let run = begin("after load", cluster.nodes.len());
    let memory = largest(cluster)?;
    report.figure(&run, "resident memory", memory.resident, "MiB", Target::AtMost(40.0));
    report.note(&run, "anonymous memory", memory.anonymous, "MiB");
    Ok(())
}

fn largest(cluster: &Cluster) -> Result<Memory> {
    let mut largest: Option<Memory> = None;
    for node in &cluster.nodes {
        let memory = node.memory()?;
        if largest.is_none_or(|so_far| memory.resident > so_far.resident) {
            largest = Some(memory);
        }
    }
    largest.context("the cluster is empty")
}
