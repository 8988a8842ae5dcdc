//! `cargo xtask bench`: builds the daemon for release and measures it.

use anyhow::{Result, bail};
use cargo_metadata::MetadataCommand;
use clap::Args;

use crate::workspace;

/// What to measure and how to print it.
#[derive(Args)]
pub(crate) struct Options {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Fewer messages, shorter waits, no eight-node runs
    #[arg(long)]
    quick: bool,
}

/// Builds what is measured and what measures, then measures.
pub(crate) fn run(options: &Options) -> Result<()> {
    let packages = ["x0x-daemon", "x0x-cli", "x0x-bench"];
    let mut build = workspace::cargo()?;
    build.args(["build", "--release", "--locked", "--bins"]);
    for package in packages {
        build.args(["--package", package]);
    }
    if !build.status()?.success() {
        bail!("the release build failed");
    }
    let metadata = MetadataCommand::new().current_dir(workspace::root()?).no_deps().exec()?;
    let programs = metadata.target_directory.join("release");
    let mut bench = std::process::Command::new(programs.join("x0x-bench"));
    bench.arg("--daemon").arg(programs.join("x0xd"));
    for (flag, wanted) in [("--json", options.json), ("--quick", options.quick)] {
        if wanted {
            bench.arg(flag);
        }
    }
    let status = bench.status()?;
    if !status.success() {
        bail!("the bench ended with {status}");
    }
    Ok(())
}
