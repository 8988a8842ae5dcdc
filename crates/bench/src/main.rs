//! Real `x0xd` daemons measured on loopback, with a raw-quinn yardstick in the same run.
//!
//! `cargo xtask bench` builds the daemons in release and runs this. Each row prints what was measured
//! beside the figure to reach; nothing is asserted, since machines are shared and noisy. The rows and
//! their figures are those of the README's table.

mod client;
mod cluster;
mod direct;
mod footprint;
mod process;
mod publish;
mod report;
mod yardstick;

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;

use crate::report::Report;

/// Measures x0xd daemons on this machine.
#[derive(Debug, Parser)]
struct Options {
    /// The daemon to measure; a release build.
    #[arg(long)]
    x0xd: PathBuf,
    /// Prints one JSON document instead of a table.
    #[arg(long)]
    json: bool,
    /// Smaller loads: a tenth of the messages.
    #[arg(long)]
    quick: bool,
    /// Only rows whose name contains this text.
    #[arg(long)]
    only: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    anyhow::ensure!(options.x0xd.is_file(), "{} is not a file", options.x0xd.display());
    // One worker, so that the load generator takes at most one of two cores.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let report = runtime.block_on(run(&options))?;
    if options.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    Ok(())
}

async fn run(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::new(options.only.clone(), options.json);
    let scale = if options.quick { 10 } else { 1 };
    let x0xd = &options.x0xd;
    footprint::measure(&mut report, x0xd, options.quick).await?;
    for nodes in [2, 5, 8] {
        publish::ws_burst(&mut report, x0xd, nodes, 10_000 / scale).await?;
    }
    for nodes in [2, 3, 8] {
        publish::rest_burst(&mut report, x0xd, nodes, 8_000 / scale).await?;
    }
    for nodes in [2, 8] {
        publish::paced(&mut report, x0xd, nodes, 400 / scale.min(4)).await?;
    }
    direct::measure(&mut report, x0xd, 20_000 / scale).await?;
    Ok(report)
}
