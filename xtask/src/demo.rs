//! `cargo xtask demo`: runs the README's walk-through.
//!
//! The README holds the commands, so that what people read is what runs. Shell blocks behind the
//! comment `<!-- walkthrough -->` run one after the other in one folder that is also the home;
//! a block behind `<!-- walkthrough: second terminal -->` runs beside the block after it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use cargo_metadata::MetadataCommand;
use clap::Args;

use crate::workspace;

const MARK: &str = "<!-- walkthrough -->";
const MARK_BESIDE: &str = "<!-- walkthrough: second terminal -->";
/// What a listening command writes to standard error once it listens.
const LISTENS: &str = "Ctrl-C ends";
/// How long a listening command may take to start, and afterwards to hear what it waits for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where to find what runs.
#[derive(Args)]
pub(crate) struct Options {
    /// Use the programs in this folder instead of building them
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

/// A shell block of the walk-through.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    script: String,
    /// It waits for something that the next block does.
    beside: bool,
}

/// Builds the daemon and the command line, and runs every block of the walk-through.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = workspace::root()?;
    let readme =
        std::fs::read_to_string(root.join("README.md")).context("cannot read README.md")?;
    let blocks = blocks(&readme)?;
    let programs = match &options.bin_dir {
        Some(folder) => folder.canonicalize().with_context(|| folder.display().to_string())?,
        None => build(&root)?,
    };
    let stage = Stage { programs, home: tempfile::tempdir()? };
    stage.play(&blocks)?;
    println!("\nThe walk-through ran to its end.");
    Ok(())
}

fn build(root: &Path) -> Result<PathBuf> {
    let status = workspace::cargo()?
        .args(["build", "--package", "x0x-daemon", "--package", "x0x-cli", "--bins"])
        .status()?;
    if !status.success() {
        bail!("the build failed");
    }
    let metadata = MetadataCommand::new().current_dir(root).no_deps().exec()?;
    Ok(metadata.target_directory.join("debug").into_std_path_buf())
}

/// Takes the marked shell blocks out of a Markdown text.
fn blocks(markdown: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        let beside = match line.trim() {
            MARK => false,
            MARK_BESIDE => true,
            _ => continue,
        };
        if lines.next().map(str::trim) != Some("```sh") {
            bail!("a walkthrough mark is not followed by a shell block");
        }
        let script: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
        blocks.push(Block { script: script.join("\n"), beside });
    }
    match blocks.last() {
        None => bail!("the README holds no walkthrough"),
        Some(last) if last.beside => bail!("the last walkthrough block waits for nothing"),
        Some(_) => Ok(blocks),
    }
}

/// A home of its own, with our programs on the path. Leaving it stops the daemons that it knows.
struct Stage {
    programs: PathBuf,
    home: tempfile::TempDir,
}

impl Stage {
    fn play(&self, blocks: &[Block]) -> Result<()> {
        let mut listener: Option<Listener> = None;
        for block in blocks {
            println!();
            for line in block.script.lines() {
                println!("{} {line}", if block.beside { "(second terminal) $" } else { "$" });
            }
            if block.beside {
                listener = Some(Listener::start(self.shell(&block.script)?)?);
                continue;
            }
            let status = self.shell(&block.script)?.status()?;
            if !status.success() {
                bail!("the block ended with {status}");
            }
            if let Some(listener) = listener.take() {
                listener.finish()?;
            }
        }
        Ok(())
    }

    fn shell(&self, script: &str) -> Result<Command> {
        let mut command = Command::new("bash");
        command.args(["-e", "-u", "-o", "pipefail", "-c", script]).current_dir(self.home.path());
        let home = self.home.path();
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(
            std::iter::once(self.programs.clone()).chain(std::env::split_paths(&inherited)),
        )?;
        command
            .env("PATH", path)
            .env("HOME", home)
            .env("XDG_DATA_HOME", home.join("data"))
            .env("XDG_CONFIG_HOME", home.join("config"))
            .stdin(Stdio::null());
        for name in ["X0X_API_TOKEN", "X0X_NAME", "X0X_DATA_DIR", "X0X_CONFIG"] {
            command.env_remove(name);
        }
        Ok(command)
    }

    /// Stops what a walk-through that failed left behind.
    fn stop_instances(&self) -> Result<()> {
        let script = "x0x --json instances | sed -n 's/^ *\"name\": \"\\(.*\\)\",*$/\\1/p' \
                      | while read -r name; do x0x --name \"$name\" stop; done";
        self.shell(script)?.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = self.stop_instances() {
            eprintln!("warning: daemons may still run: {error}");
        }
    }
}

/// A command that waits for messages.
struct Listener {
    child: Child,
    /// Closes when the command ends.
    lines: mpsc::Receiver<String>,
}

impl Listener {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().context("the child's stderr is piped")?;
        let listener = Self { child, lines: lines_of(stderr) };
        listener.wait_for(|line| line.contains(LISTENS))?;
        Ok(listener)
    }

    fn wait_for(&self, found: impl Fn(&str) -> bool) -> Result<()> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if found(&line) => return Ok(()),
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the second terminal ended too early"),
                Err(RecvTimeoutError::Timeout) => bail!("the second terminal does not listen"),
            }
        }
    }

    /// Waits until the command has heard what it waited for.
    fn finish(mut self) -> Result<()> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the second terminal heard nothing in {} s", PATIENCE.as_secs())
                }
            }
        }
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(anyhow!("the listener ended with {status}")) }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It has ended already unless something went wrong.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads lines on a thread of their own and shows them; the channel closes with the stream.
fn lines_of(stderr: ChildStderr) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::sync_channel(64);
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            eprintln!("{line}");
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_blocks_are_taken_in_order() {
        let text = format!(
            "a\n```sh\nnot me\n```\n{MARK}\n```sh\none\ntwo\n```\n{MARK_BESIDE}\n```sh\nthree\n```\n\
             {MARK}\n```sh\nfour\n```\n"
        );
        let found = blocks(&text).unwrap();
        let expected = [("one\ntwo", false), ("three", true), ("four", false)]
            .map(|(script, beside)| Block { script: script.to_owned(), beside });
        assert_eq!(found, expected);
    }

    #[test]
    fn a_walkthrough_that_cannot_run_is_refused() {
        assert!(blocks("nothing").is_err());
        assert!(blocks(&format!("{MARK}\ntext\n")).is_err());
        assert!(blocks(&format!("{MARK_BESIDE}\n```sh\na\n```\n")).is_err());
    }
}
