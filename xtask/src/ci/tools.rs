//! The tools that CI needs besides the toolchain.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Result;

use super::step::run_plain;
use crate::workspace;

/// A cargo subcommand, pinned to the version that is built when the machine has none.
struct Tool {
    name: &'static str,
    subcommand: &'static str,
    version: &'static str,
}

const DENY: Tool = Tool { name: "cargo-deny", subcommand: "deny", version: "0.20.2" };
const NEXTEST: Tool = Tool { name: "cargo-nextest", subcommand: "nextest", version: "0.9.143" };

/// `cargo deny`, ready for its arguments.
pub(super) fn deny() -> Result<Command> {
    DENY.command()
}

/// `cargo nextest`, ready for its arguments.
pub(super) fn nextest() -> Result<Command> {
    NEXTEST.command()
}

impl Tool {
    /// The program on PATH, else the one below `target/tools`, where it is built when missing.
    ///
    /// A debug build is enough for what these tools do here and takes a third of the time.
    fn command(&self) -> Result<Command> {
        let root = workspace::root()?;
        let mut program = PathBuf::from(self.name);
        if !self.answers(&program) {
            let tools = root.join("target/tools");
            program = tools.join("bin").join(self.name);
            if !self.answers(&program) {
                run_plain(
                    workspace::cargo()?
                        .args(["install", self.name, "--locked", "--debug"])
                        .args(["--version", self.version, "--root"])
                        .arg(&tools)
                        .env("CARGO_TARGET_DIR", tools.join("build")),
                )?;
            }
        }
        let mut command = Command::new(program);
        command.current_dir(root).arg(self.subcommand);
        Ok(command)
    }

    fn answers(&self, program: &PathBuf) -> bool {
        let mut command = Command::new(program);
        command.args([self.subcommand, "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }
}
