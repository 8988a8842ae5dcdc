//! `cargo xtask bench` and `cargo xtask lab`: build the daemon for release, then measure it or take it
//! through trouble.

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

/// Which scenario to run, and its options.
#[derive(Args)]
pub(crate) struct LabOptions {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// `nine` or `partition`, with their options; `help` lists them
    #[arg(trailing_var_arg = true, required = true, value_name = "SCENARIO")]
    scenario: Vec<String>,
}

/// Measures.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut arguments = Vec::new();
    for (flag, wanted) in [("--json", options.json), ("--quick", options.quick)] {
        if wanted {
            arguments.push(flag);
        }
    }
    bench(&arguments)
}

/// Runs a scenario of the lab.
pub(crate) fn lab(options: &LabOptions) -> Result<()> {
    let mut arguments = Vec::new();
    if options.json {
        arguments.push("--json");
    }
    arguments.push("lab");
    arguments.extend(options.scenario.iter().map(String::as_str));
    bench(&arguments)
}

/// Builds what is measured and what measures, then runs it.
fn bench(arguments: &[&str]) -> Result<()> {
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
    bench.arg("--daemon").arg(programs.join("x0xd")).args(arguments);
    let status = bench.status()?;
    if !status.success() {
        bail!("x0x-bench ended with {status}");
    }
    Ok(())
}
