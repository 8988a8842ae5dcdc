//! `cargo xtask sim`: builds the gossip simulator and runs a scenario of `simulations/`.

use anyhow::{Context, Result, bail};
use cargo_metadata::MetadataCommand;
use clap::Args;

use crate::workspace;

/// The profile that the simulator is built with: see the workspace's manifest.
const PROFILE: &str = "sim";

/// Which scenario to run, and how.
#[derive(Args)]
pub(crate) struct Options {
    /// Name of a scenario in simulations/, without `.toml`; `list` shows them
    scenario: String,
    /// What the simulator takes: --nodes N --seed S --mode M --json, see --help after the name
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds the simulator if need be, then runs it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = workspace::root()?;
    let folder = root.join("simulations");
    let known = scenarios(&folder)?;
    if options.scenario == "list" {
        known.iter().for_each(|name| println!("{name}"));
        return Ok(());
    }
    if !known.contains(&options.scenario) {
        bail!("no scenario `{}`; there are {}", options.scenario, known.join(", "));
    }
    let mut build = workspace::cargo()?;
    build.args(["build", "--quiet", "--locked", "--profile", PROFILE]);
    build.args(["--package", "x0x-testkit", "--bin", "x0x-sim"]);
    if !build.status()?.success() {
        bail!("the build of the simulator failed");
    }
    let metadata = MetadataCommand::new().current_dir(root).no_deps().exec()?;
    let program = metadata.target_directory.join(PROFILE).join("x0x-sim");
    let status = std::process::Command::new(program)
        .arg(folder.join(format!("{}.toml", options.scenario)))
        .args(&options.rest)
        .status()?;
    if !status.success() {
        bail!("the simulation ended with {status}");
    }
    Ok(())
}

/// Names of all scenarios, in order.
fn scenarios(folder: &std::path::Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort_unstable();
    Ok(names)
}
