//! The tools that CI needs besides the toolchain.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use super::step::run_plain;
use crate::workspace;

const CARGO_DENY_VERSION: &str = "0.20.2";
const NEXTEST_VERSION: &str = "0.9.143";

/// Fails with the command that installs cargo-nextest, if it is missing.
pub(super) fn require_nextest() -> Result<()> {
    let mut command = workspace::cargo()?;
    command.args(["nextest", "--version"]);
    if !answers(&mut command) {
        bail!(
            "cargo-nextest is missing: cargo install cargo-nextest --locked --version \
             {NEXTEST_VERSION}"
        );
    }
    Ok(())
}

/// Where cargo-deny is: on PATH, else below `target/tools`, where it is built when missing.
///
/// A debug build is enough for a check of some hundred crates and takes a third of the time.
pub(super) fn cargo_deny() -> Result<PathBuf> {
    let on_path = PathBuf::from("cargo-deny");
    if answers(Command::new(&on_path).arg("--version")) {
        return Ok(on_path);
    }
    let tools = workspace::root()?.join("target/tools");
    let installed = tools.join("bin/cargo-deny");
    if !answers(Command::new(&installed).arg("--version")) {
        run_plain(
            workspace::cargo()?
                .args(["install", "cargo-deny", "--locked", "--debug"])
                .args(["--version", CARGO_DENY_VERSION])
                .arg("--root")
                .arg(&tools)
                .env("CARGO_TARGET_DIR", tools.join("build")),
        )?;
    }
    Ok(installed)
}

fn answers(command: &mut Command) -> bool {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
