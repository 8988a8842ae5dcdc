//! `cargo xtask fuzz`: builds the fuzz targets with the pinned compiler and runs each for a while.
//!
//! libFuzzer wants coverage instrumentation, which the compiler's own passes give. No sanitizer is added:
//! the code under test forbids `unsafe`, so that what a run finds are panics, broken promises (the targets'
//! assertions), hangs and memory without bound.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use toml::Table;

use crate::workspace;

/// Coverage counters for every edge, and the operands of comparisons.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Cdebug-assertions=yes";
/// Longer inputs are no frame of any protocol's usual size, and slow every run.
const MAX_INPUT_BYTES: u32 = 16 * 1024;
/// Above this much memory a run ends as a finding.
const MAX_MEMORY_MIB: u32 = 1024;

/// What to run, and for how long.
#[derive(Args)]
pub(crate) struct Options {
    /// The targets to run; all of them when none is named
    targets: Vec<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Build the targets and run none
    #[arg(long)]
    build_only: bool,
    /// Print the targets' names, and do nothing else
    #[arg(long)]
    list: bool,
}

/// What a run of one target came to.
#[derive(Default)]
struct Outcome {
    runs: u64,
    seconds: u64,
    coverage: u64,
    /// It ended by itself, without a finding.
    clean: bool,
}

/// Builds and runs the targets; an error names those that found something.
pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = workspace::root()?.join("fuzz");
    let known = known(&folder)?;
    if options.list {
        known.iter().for_each(|target| println!("{target}"));
        return Ok(());
    }
    let chosen = chosen(&known, &options.targets)?;
    let platform = platform()?;
    build(&folder, &platform, &chosen)?;
    if options.build_only {
        return Ok(());
    }
    let mut found = Vec::new();
    println!("{:<24}{:>14}{:>10}{:>10}  result", "target", "runs", "seconds", "edges");
    for target in chosen {
        let program = folder.join("target").join(&platform).join("release").join(target);
        let outcome = fuzz(&folder, &program, target, options.seconds)?;
        let result = if outcome.clean { "no finding" } else { "FINDING" };
        println!(
            "{target:<24}{:>14}{:>10}{:>10}  {result}",
            outcome.runs, outcome.seconds, outcome.coverage
        );
        if !outcome.clean {
            found.push(target);
        }
    }
    if !found.is_empty() {
        bail!("findings of {}: see fuzz/artifacts/<target>/ and its log", found.join(", "));
    }
    Ok(())
}

/// The targets that fuzz/Cargo.toml names.
fn known(folder: &Path) -> Result<BTreeSet<String>> {
    let path = folder.join("Cargo.toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let manifest: Table = text.parse()?;
    let targets = manifest.get("bin").and_then(|value| value.as_array()).into_iter().flatten();
    Ok(targets.filter_map(|bin| bin.get("name")?.as_str().map(str::to_owned)).collect())
}

fn chosen<'a>(known: &'a BTreeSet<String>, named: &[String]) -> Result<Vec<&'a str>> {
    if named.is_empty() {
        return Ok(known.iter().map(String::as_str).collect());
    }
    let find = |name: &String| match known.get(name) {
        Some(target) => Ok(target.as_str()),
        None => bail!("no target is called {name}; `cargo xtask fuzz --list` names them"),
    };
    named.iter().map(find).collect()
}

/// This machine's platform. Naming it keeps the instrumentation out of build scripts and procedural macros.
fn platform() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot run rustc")?;
    let text = String::from_utf8(output.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say for which platform it builds")?.to_owned())
}

fn build(folder: &Path, platform: &str, targets: &[&str]) -> Result<()> {
    let mut cargo = workspace::cargo()?;
    cargo.current_dir(folder).env("RUSTFLAGS", INSTRUMENTATION);
    cargo.args(["build", "--release", "--target", platform]).arg("--target-dir").arg("target");
    for target in targets {
        cargo.args(["--bin", target]);
    }
    if !cargo.status()?.success() {
        bail!("the fuzz targets do not build");
    }
    Ok(())
}

fn fuzz(folder: &Path, program: &Path, target: &str, seconds: u64) -> Result<Outcome> {
    let corpus = folder.join("corpus").join(target);
    let artifacts = folder.join("artifacts").join(target);
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;
    let log = artifacts.join("log");
    let status = Command::new(program)
        .arg(&corpus)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={MAX_INPUT_BYTES}"))
        .arg(format!("-rss_limit_mb={MAX_MEMORY_MIB}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log)?)
        .status()
        .with_context(|| format!("cannot run {target}"))?;
    let mut outcome = read(BufReader::new(File::open(&log)?))?;
    outcome.clean = status.success();
    Ok(outcome)
}

/// Takes the figures out of what libFuzzer prints: `#2048 pulse cov: 310 ft: …` as it goes, and
/// `Done 2048 runs in 301 second(s)` at its end.
fn read(log: impl BufRead) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for line in log.lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["Done", runs, "runs", "in", seconds, ..] = words[..] {
            outcome.runs = runs.parse()?;
            outcome.seconds = seconds.parse()?;
            continue;
        }
        let Some(count) = words.first().and_then(|word| word.strip_prefix('#')) else { continue };
        // Lines like "#0 0x55… in main" are a stack, not a count.
        if let Some(at) = words.iter().position(|word| *word == "cov:") {
            outcome.runs = count.parse().unwrap_or(outcome.runs);
            outcome.coverage = words.get(at + 1).and_then(|n| n.parse().ok()).unwrap_or(0);
        }
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_the_log() {
        let log = "INFO: Running with entropic power schedule\n\
                   #2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 40Mb\n\
                   #4096\tpulse  cov: 310 ft: 900 corp: 40/1Kb exec/s: 2048 rss: 52Mb\n\
                   Done 5000 runs in 3 second(s)\n";
        let outcome = read(log.as_bytes()).expect("figures");
        assert_eq!((outcome.runs, outcome.seconds, outcome.coverage), (5000, 3, 310));
    }

    #[test]
    fn a_finding_keeps_the_figures_it_had() {
        let log = "#4096\tpulse  cov: 310 ft: 900 corp: 40/1Kb exec/s: 2048 rss: 52Mb\n\
                   #0 0x55d0 in rust_begin_unwind\n";
        let outcome = read(log.as_bytes()).expect("figures");
        assert_eq!((outcome.runs, outcome.coverage, outcome.clean), (4096, 310, false));
    }

    #[test]
    fn every_target_has_its_file_and_its_line_in_the_readme() {
        let folder = workspace::root().expect("root").join("fuzz");
        let readme = fs::read_to_string(folder.join("README.md")).expect("README");
        for target in known(&folder).expect("targets") {
            assert!(folder.join("fuzz_targets").join(format!("{target}.rs")).exists(), "{target}");
            assert!(readme.contains(&format!("| `{target}` |")), "{target} is not in the README");
        }
    }

    #[test]
    fn an_unknown_target_is_refused() {
        let known = BTreeSet::from(["mls".to_owned()]);
        assert!(chosen(&known, &["msl".to_owned()]).is_err());
        assert_eq!(chosen(&known, &[]).expect("all"), ["mls"]);
    }
}
