//! Runs a command, passing its output on and counting the tests it reports.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};

/// Tests reported by the runners so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: u64,
    pub(super) failed: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Runs a command; fails if it does.
pub(super) fn run_plain(command: &mut Command) -> Result<()> {
    announce(command);
    let status = command.status().with_context(|| describe(command))?;
    if !status.success() {
        bail!("{} ended with {status}", describe(command));
    }
    Ok(())
}

/// Runs a test command and adds what its summary lines say to `counts`; fails if the command does.
pub(super) fn run_counting(command: &mut Command, counts: &mut Counts) -> Result<()> {
    announce(command);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| describe(command))?;
    let stdout = child.stdout.take().context("the child's stdout is piped")?;
    let stderr = child.stderr.take().context("the child's stderr is piped")?;
    let errors = thread::spawn(move || pass_on(stderr, std::io::stderr()));
    let outputs = pass_on(stdout, std::io::stdout());
    counts.add(outputs);
    counts.add(errors.join().unwrap_or_default());
    let status = child.wait()?;
    if !status.success() {
        bail!("{} ended with {status}", describe(command));
    }
    Ok(())
}

fn announce(command: &Command) {
    println!("$ {}", describe(command));
}

fn describe(command: &Command) -> String {
    let arguments = command.get_args().map(|argument| argument.to_string_lossy());
    let words: Vec<_> = std::iter::once("cargo".into()).chain(arguments).collect();
    words.join(" ").replacen("cargo deny", "cargo-deny", 1)
}

/// Copies lines from a child to ours, counting. A reader that fails ends the copy: the child's exit
/// status decides.
///
/// The summary of nextest is the whole truth: it is repeated after failures, whose output holds
/// libtest's lines.
fn pass_on(from: impl Read, mut to: impl Write) -> Counts {
    let (mut libtest, mut nextest) = (Counts::default(), None);
    for line in BufReader::new(from).split(b'\n') {
        let Ok(line) = line else { break };
        let _ = to.write_all(&line).and_then(|()| to.write_all(b"\n"));
        match count(&String::from_utf8_lossy(&line)) {
            Some((Runner::Libtest, found)) => libtest.add(found),
            Some((Runner::Nextest, found)) => nextest = Some(found),
            None => {}
        }
    }
    nextest.unwrap_or(libtest)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runner {
    Nextest,
    Libtest,
}

/// Reads the closing line of cargo-nextest or of libtest.
fn count(line: &str) -> Option<(Runner, Counts)> {
    let line = line.trim_start();
    let (runner, summary) = match line.strip_prefix("test result:") {
        Some(summary) => (Runner::Libtest, summary),
        None => (Runner::Nextest, line.strip_prefix("Summary [")?),
    };
    if runner == Runner::Nextest && !summary.contains("tests run:") {
        return None;
    }
    let number = |word| number_before(summary, word).unwrap_or(0);
    let counts =
        Counts { passed: number("passed"), failed: number("failed") + number("timed out") };
    Some((runner, counts))
}

fn number_before(line: &str, word: &str) -> Option<u64> {
    let (before, _) = line.split_once(&format!(" {word}"))?;
    before.rsplit(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_runners_are_understood() {
        let nextest =
            "     Summary [   2.107s] 41 tests run: 39 passed (1 slow), 2 failed, 3 skipped";
        let of = |runner, passed, failed| Some((runner, Counts { passed, failed }));
        assert_eq!(count(nextest), of(Runner::Nextest, 39, 2));
        let timed_out = "Summary [ 9.1s] 4/9 tests run: 3 passed, 1 timed out, 0 skipped";
        assert_eq!(count(timed_out), of(Runner::Nextest, 3, 1));
        let libtest = "test result: ok. 7 passed; 0 failed; 1 ignored; finished in 0.10s";
        assert_eq!(count(libtest), of(Runner::Libtest, 7, 0));
        assert_eq!(count("running 7 tests"), None);
    }

    #[test]
    fn output_passes_through_unchanged() {
        let mut copy = Vec::new();
        let text = b"a\ntest result: ok. 2 passed; 1 failed\n";
        assert_eq!(pass_on(&text[..], &mut copy), Counts { passed: 2, failed: 1 });
        assert_eq!(copy, text);
    }

    #[test]
    fn a_failure_is_counted_once() {
        let text = b"test result: FAILED. 0 passed; 1 failed\nSummary [ 1s] 9 tests run: 8 passed, 1 failed\n\
            test result: FAILED. 0 passed; 1 failed\nSummary [ 1s] 9 tests run: 8 passed, 1 failed\n";
        assert_eq!(pass_on(&text[..], &mut Vec::new()), Counts { passed: 8, failed: 1 });
    }
}
