//! What a daemon costs at rest: size, start, memory, idle CPU.

use std::{path::Path, time::Duration};

use crate::{
    cluster::{Cluster, Daemon, now},
    process,
    report::{Better, Report, quantile},
};

/// Binary size, start to healthy, idle memory and CPU with 2 and 8 nodes.
pub(crate) async fn measure(report: &mut Report, x0xd: &Path, quick: bool) -> anyhow::Result<()> {
    if !report.wants("footprint") {
        return Ok(());
    }
    let megabytes = std::fs::metadata(x0xd)?.len() as f64 / 1e6;
    report.add("x0xd binary", megabytes, "MB", (20.0, Better::Less), "");
    start_to_healthy(report, x0xd, if quick { 5 } else { 20 }).await?;
    for nodes in [2, 8] {
        idle(report, x0xd, nodes, if quick { 10 } else { 60 }).await?;
    }
    Ok(())
}

async fn start_to_healthy(report: &mut Report, x0xd: &Path, runs: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut fresh, mut again) = (Vec::new(), Vec::new());
    for run in 0..runs {
        let dir = folder.path().join(run.to_string());
        for times in [&mut fresh, &mut again] {
            let daemon = Daemon::start(x0xd, &dir, None).await?;
            times.push(daemon.start.as_secs_f64() * 1000.0);
        }
    }
    let (fresh, again) = (quantile(&mut fresh, 0.5), quantile(&mut again, 0.5));
    let note = format!("median of {runs}; {again:.1} ms with keys present");
    report.add("start to healthy", fresh, "ms", (15.0, Better::Less), note);
    Ok(())
}

async fn idle(report: &mut Report, x0xd: &Path, nodes: usize, seconds: u64) -> anyhow::Result<()> {
    let cluster = Cluster::start(x0xd, nodes).await?;
    // Joining and the first announcements are not idleness.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let (cpu, begin) = (cluster.cpu_seconds()?, now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let cpu = cluster.cpu_seconds()? - cpu;
    let share = 100.0 * cpu / begin.elapsed().as_secs_f64() / nodes as f64;
    let (mut rss, mut anon) = (0.0_f64, 0.0_f64);
    for daemon in &cluster.daemons {
        let (all, private) = process::memory_mib(daemon.pid())?;
        (rss, anon) = (rss.max(all), anon.max(private));
    }
    let note = format!("over {seconds} s");
    report.add(format!("idle CPU per node, {nodes} nodes"), share, "%", (0.05, Better::Less), note);
    report.add(format!("idle RSS, {nodes} nodes"), rss, "MiB", (14.0, Better::Less), "the largest");
    let name = format!("idle anonymous memory, {nodes} nodes");
    report.add(name, anon, "MiB", (4.0, Better::Less), "the largest");
    Ok(())
}
