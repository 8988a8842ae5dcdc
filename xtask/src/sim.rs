//! `cargo xtask sim`: builds the gossip simulator and runs a scenario of `simulations/`, or the list of
//! runs of a table in `simulations/tables/`.

use anyhow::{Context, Result, bail};
use cargo_metadata::MetadataCommand;
use clap::Args;

use crate::workspace;

/// The profile that the simulator is built with: see the workspace's manifest.
const PROFILE: &str = "sim";

/// Lets the C library's allocator use huge pages: a fifth of the time at thousands of nodes goes into
/// address translation without them. Other systems ignore it.
const HUGE_PAGES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");

/// Which scenario to run, and how.
#[derive(Args)]
pub(crate) struct Options {
    /// The name is that of a table: prints rows of markdown, as docs/gossip-figures.md has them
    #[arg(long)]
    table: bool,
    /// Name of a scenario in simulations/, or of a table in simulations/tables/, without `.toml`;
    /// `list` shows them
    name: String,
    /// What the simulator takes: --nodes N --seed S --mode M --json, for a table --jobs N --save FILE;
    /// see --help after the name
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds the simulator if need be, then runs it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = workspace::root()?;
    let folder = root.join("simulations");
    let folder = if options.table { folder.join("tables") } else { folder };
    let known = names(&folder)?;
    if options.name == "list" {
        known.iter().for_each(|name| println!("{name}"));
        return Ok(());
    }
    if !known.contains(&options.name) {
        bail!("no `{}`; there are {}", options.name, known.join(", "));
    }
    let mut build = workspace::cargo()?;
    build.args(["build", "--quiet", "--locked", "--profile", PROFILE]);
    build.args(["--package", "x0x-testkit", "--bin", "x0x-sim"]);
    if !build.status()?.success() {
        bail!("the build of the simulator failed");
    }
    let metadata = MetadataCommand::new().current_dir(root).no_deps().exec()?;
    let program = metadata.target_directory.join(PROFILE).join("x0x-sim");
    let mut simulator = std::process::Command::new(program);
    simulator.arg(folder.join(format!("{}.toml", options.name)));
    if options.table {
        simulator.arg("--table");
    }
    let (variable, value) = HUGE_PAGES;
    if std::env::var_os(variable).is_none() {
        simulator.env(variable, value);
    }
    let status = simulator.args(&options.rest).status()?;
    if !status.success() {
        bail!("the simulation ended with {status}");
    }
    Ok(())
}

/// Names of all scenarios or tables in a folder, in order.
fn names(folder: &std::path::Path) -> Result<Vec<String>> {
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
