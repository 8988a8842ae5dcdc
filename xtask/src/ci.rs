//! `cargo xtask ci`: what the project's CI runs, step by step.
//!
//! Steps share one target folder and one profile, and the passes over other feature sets only check,
//! so that a clean checkout is through in minutes on two cores.

mod step;
mod tools;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{tidy, workspace};
use step::{Counts, run_counting, run_plain};

/// Crates whose pure part builds without their default features, lowest layer first.
const PURE_CRATES: [&str; 12] = [
    "x0x-core",
    "x0x-identity",
    "x0x-trust",
    "x0x-transport",
    "x0x-gossip-membership",
    "x0x-gossip-pubsub",
    "x0x-gossip-crdt",
    "x0x-presence",
    "x0x-rendezvous",
    "x0x-direct",
    "x0x-files",
    "x0x-groups",
];

/// Layers without such a part, which stand alone as they are.
const WHOLE_CRATES: [&str; 2] = ["x0x-mls", "x0x-store"];

/// What to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Run only this step (may be repeated); `alone` runs only when named
    #[arg(long = "step", value_enum)]
    steps: Vec<Step>,
}

/// A step of the run, in order.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Formatting
    Fmt,
    /// House rules
    Tidy,
    /// Licences, bans and sources of the dependencies
    Deny,
    /// Clippy over every target with the default features
    Clippy,
    /// Clippy over each layer's pure part, crate by crate
    Pure,
    /// Documentation builds without a warning
    Docs,
    /// Every test
    Test,
    /// Every example in the documentation
    Doctest,
    /// Every layer's tests, crate by crate, each with its own feature resolution
    Alone,
}

const DEFAULT_STEPS: [Step; 8] = [
    Step::Fmt,
    Step::Tidy,
    Step::Deny,
    Step::Clippy,
    Step::Pure,
    Step::Docs,
    Step::Test,
    Step::Doctest,
];

/// Runs the steps, stopping at the first that fails; ends with a line that counts the tests.
pub(crate) fn run(options: &Options) -> Result<()> {
    let steps = if options.steps.is_empty() { &DEFAULT_STEPS[..] } else { &options.steps };
    let mut counts = Counts::default();
    let mut times = Vec::with_capacity(steps.len());
    let mut outcome = Ok(());
    for step in steps {
        println!("\n== {} ==", step.name());
        let started = now();
        outcome = step.run(&mut counts).with_context(|| format!("step `{}`", step.name()));
        times.push((step.name(), started.elapsed()));
        if outcome.is_err() {
            break;
        }
    }
    summarise(&times, outcome.is_ok());
    if let Err(error) = &outcome {
        println!("failed: {error:#}");
    }
    println!("tests: {} passed, {} failed", counts.passed, counts.failed);
    if outcome.is_err() {
        bail!("ci failed");
    }
    Ok(())
}

fn summarise(times: &[(String, Duration)], passed: bool) {
    println!("\n== summary ==");
    for (index, (name, time)) in times.iter().enumerate() {
        let state = if passed || index + 1 < times.len() { "ok" } else { "FAILED" };
        println!("{name:<8} {:>7.1} s  {state}", time.as_secs_f64());
    }
    let total: Duration = times.iter().map(|(_, time)| *time).sum();
    println!("{:<8} {:>7.1} s", "total", total.as_secs_f64());
}

#[expect(
    clippy::disallowed_methods,
    reason = "a task runner times its steps; nothing is simulated"
)]
fn now() -> Instant {
    Instant::now()
}

impl Step {
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    fn run(self, counts: &mut Counts) -> Result<()> {
        match self {
            Self::Fmt => run_plain(workspace::cargo()?.args(["fmt", "--all", "--check"])),
            Self::Tidy => tidy::run(),
            Self::Deny => deny(),
            Self::Clippy => run_plain(
                workspace::cargo()?
                    .args(["clippy", "--workspace", "--all-targets", "--locked"])
                    .args(["--", "-D", "warnings"]),
            ),
            Self::Pure => pure(),
            Self::Docs => run_plain(
                workspace::cargo()?
                    .args(["doc", "--workspace", "--no-deps", "--locked"])
                    .env("RUSTDOCFLAGS", "-D warnings"),
            ),
            Self::Test => {
                let mut command = tools::nextest()?;
                command.args(["run", "--workspace", "--locked", "--no-fail-fast"]);
                run_counting(&mut command, counts)
            }
            Self::Doctest => run_counting(
                workspace::cargo()?.args(["test", "--doc", "--workspace", "--locked"]),
                counts,
            ),
            Self::Alone => alone(counts),
        }
    }
}

/// The advisory database is left to a job with the open internet.
fn deny() -> Result<()> {
    let mut command = tools::deny()?;
    command.args(["check", "bans", "licenses", "sources"]);
    run_plain(&mut command)
}

fn pure() -> Result<()> {
    for package in PURE_CRATES {
        run_plain(
            workspace::cargo()?
                .args(["clippy", "--package", package, "--lib", "--no-default-features"])
                .args(["--locked", "--", "-D", "warnings"]),
        )?;
    }
    Ok(())
}

fn alone(counts: &mut Counts) -> Result<()> {
    for package in PURE_CRATES.into_iter().chain(WHOLE_CRATES) {
        let mut command = tools::nextest()?;
        command.args(["run", "--package", package, "--locked", "--no-fail-fast"]);
        run_counting(&mut command, counts)?;
    }
    Ok(())
}
