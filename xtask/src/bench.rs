//! `cargo xtask bench` and `cargo xtask lab`: build the daemon for release, then measure it or take it
//! through trouble.

use std::path::{Path, PathBuf};

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
    /// This x0xd, in place of one that is built for release
    #[arg(long, value_name = "PATH")]
    x0xd: Option<PathBuf>,
    /// Kinds of translators, for the pairs that meet without a scenario
    #[arg(long, value_name = "KIND,...")]
    only: Option<String>,
    /// How often each of these pairs meets
    #[arg(long, value_name = "N")]
    runs: Option<u32>,
    /// `nat`, which is taken where none is named, `nine` or `partition`, with their options; `help` lists
    /// them
    #[arg(trailing_var_arg = true, value_name = "SCENARIO")]
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
    bench(None, &arguments)
}

/// Runs a scenario of the lab.
pub(crate) fn lab(options: &LabOptions) -> Result<()> {
    let runs = options.runs.map(|runs| runs.to_string());
    bench(options.x0xd.as_deref(), &lab_arguments(options, runs.as_deref()))
}

fn lab_arguments<'a>(options: &'a LabOptions, runs: Option<&'a str>) -> Vec<&'a str> {
    let mut arguments = Vec::new();
    if options.json {
        arguments.push("--json");
    }
    arguments.push("lab");
    if options.scenario.is_empty() {
        arguments.push("nat");
    }
    arguments.extend(options.scenario.iter().map(String::as_str));
    for (flag, value) in [("--only", options.only.as_deref()), ("--runs", runs)] {
        arguments.extend(value.into_iter().flat_map(|value| [flag, value]));
    }
    arguments
}

/// Builds what is measured and what measures, then runs it. A daemon that is given is not built, and what
/// measures needs no optimisation then.
fn bench(daemon: Option<&Path>, arguments: &[&str]) -> Result<()> {
    let (profile, packages): (_, &[_]) = match daemon {
        Some(_) => ("debug", &["x0x-bench"]),
        None => ("release", &["x0x-daemon", "x0x-cli", "x0x-bench"]),
    };
    let mut build = workspace::cargo()?;
    build.args(["build", "--locked", "--bins"]);
    if daemon.is_none() {
        build.arg("--release");
    }
    for package in packages {
        build.args(["--package", package]);
    }
    if !build.status()?.success() {
        bail!("the {profile} build failed");
    }
    let metadata = MetadataCommand::new().current_dir(workspace::root()?).no_deps().exec()?;
    let programs = metadata.target_directory.join(profile);
    let built = programs.join("x0xd");
    let mut bench = std::process::Command::new(programs.join("x0x-bench"));
    bench.arg("--daemon").arg(daemon.unwrap_or(built.as_std_path())).args(arguments);
    let status = bench.status()?;
    if !status.success() {
        bail!("x0x-bench ended with {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_scenario_pairs_meet() {
        let mut options =
            LabOptions { json: true, x0xd: None, only: None, runs: Some(3), scenario: Vec::new() };
        options.only = Some("none,symmetric".to_owned());
        let expected = ["--json", "lab", "nat", "--only", "none,symmetric", "--runs", "3"];
        assert_eq!(lab_arguments(&options, Some("3")), expected);
        let scenario = vec!["nine".to_owned(), "--messages".to_owned(), "9".to_owned()];
        let options = LabOptions { json: false, x0xd: None, only: None, runs: None, scenario };
        assert_eq!(lab_arguments(&options, None), ["lab", "nine", "--messages", "9"]);
    }
}
