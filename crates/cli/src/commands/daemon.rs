//! `x0x start`, `stop` and `instances`: the daemon's life.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde_json::json;
use x0x_api::Operation;
use x0x_api::instance::{EXIT_CONFIG, LOG_VARIABLE};

use crate::args::StartArguments;
use crate::client::{Call, Client};
use crate::discover::{Instance, Target};
use crate::error::{Failure, Result};
use crate::escape::escape;
use crate::output::{Output, table};

const DAEMON: &str = if cfg!(windows) { "x0xd.exe" } else { "x0xd" };
/// How often the daemon is looked at while it starts or stops, and how many times.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const POLLS: usize = 250;
/// Lines of its log that are shown when a daemon does not start, and bytes that are looked at for them.
const MAX_LINES: usize = 10;
const MAX_TAIL: u64 = 8 * 1024;

/// Tells glibc's allocator from which size on a buffer is a mapping of its own, which goes back to the
/// system when it is freed: else the daemon keeps what a few large messages took. A process can be told
/// only before it starts; other allocators do not read this.
const MMAP_THRESHOLD: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "1048576");

fn return_large_buffers(command: &mut Command) {
    let (name, bytes) = MMAP_THRESHOLD;
    if env::var_os(name).is_none() {
        command.env(name, bytes);
    }
}

/// Starts the daemon and waits until it answers.
pub(super) fn start(
    name: Option<&str>,
    config: Option<&Path>,
    options: &StartArguments,
    output: &mut Output,
) -> Result<()> {
    let instance = Instance::named(name, config)?;
    if instance.is_running()? {
        return join(&instance, output);
    }
    // What a killed daemon left must not be taken for the new one's.
    instance.remove_stale_port()?;
    let program = daemon_program()?;
    let mut command = Command::new(&program);
    command.args(daemon_arguments(name, config, options));
    return_large_buffers(&mut command);
    let describe = || format!("cannot run {}", program.display());
    if options.foreground {
        let status = command.status().with_context(describe)?;
        if !status.success() {
            return Err(anyhow!("x0xd ended with {status}").into());
        }
        return Ok(());
    }
    let (log, file) = instance.new_log()?;
    detach(&mut command, &log, file);
    let mut child = command.spawn().with_context(describe)?;
    match wait_until_healthy(&instance, &mut child)? {
        Started::Ended(status) => Err(ended(status, &log)),
        Started::Unreachable if instance.process().is_some_and(|pid| pid != child.id()) => {
            Err(instance.silent())
        }
        Started::Unreachable => {
            let url =
                instance.api_address()?.map_or_else(String::new, |at| format!(" at http://{at}"));
            let answer = json!({ "ok": true, "pid": child.id(), "reachable": false, "log": log });
            let sentence =
                format!("Daemon spawned but not yet reachable{url}; see {}", log.display());
            output.say(&sentence, &answer)
        }
        // Another command was faster; its daemon is as good.
        Started::Healthy(url) if instance.process().is_some_and(|pid| pid != child.id()) => {
            already_running(&url, output)
        }
        Started::Healthy(url) => {
            let pid = child.id();
            let answer = json!({
                "ok": true, "url": url, "pid": pid, "already_running": false, "log": log,
            });
            output.say(&format!("Daemon started at {url}"), &answer)
        }
    }
}

/// Waits for a daemon that runs already: it may be starting, or have no time.
fn join(instance: &Instance, output: &mut Output) -> Result<()> {
    for _ in 0..POLLS {
        if let Some(url) = healthy_url(instance) {
            return already_running(&url, output);
        }
        if !instance.is_running()? {
            break;
        }
        thread::sleep(POLL_INTERVAL);
    }
    Err(instance.silent())
}

fn already_running(url: &str, output: &mut Output) -> Result<()> {
    let answer = json!({ "ok": true, "url": url, "already_running": true });
    output.say(&format!("Daemon already running at {url}"), &answer)
}

/// What a daemon said that ended before it answered. Its last line is the reason.
fn ended(status: ExitStatus, log: &Path) -> Failure {
    let mut lines = last_lines(log);
    let reason = lines.pop().map(|line| format!(": {line}")).unwrap_or_default();
    for line in lines {
        eprintln!("{}", escape(&line));
    }
    let log = log.display();
    if status.code() == Some(EXIT_CONFIG.into()) {
        return Failure::Config(format!("x0xd does not start{reason} (all of it: {log})"));
    }
    Failure::Other(anyhow!("x0xd ended at once with {status}{reason} (all of it: {log})"))
}

/// The end of a text file, which the daemon wrote.
fn last_lines(path: &Path) -> Vec<String> {
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(MAX_TAIL)))?;
        let mut bytes = Vec::new();
        file.take(MAX_TAIL).read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(bytes)
    };
    // Without it the exit status alone has to do.
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.len().saturating_sub(MAX_LINES);
    lines.into_iter().skip(last).map(str::to_owned).collect()
}

/// Stops the daemon and waits until it is gone, so that it can be started again at once.
pub(super) fn stop(client: &Client, output: &mut Output) -> Result<()> {
    let instance = client.instance();
    let answer = client.call(&Call::new(Operation::Shutdown))?;
    for _ in 0..POLLS {
        // The daemon frees its lock last. One that was reached by its address alone is asked.
        let runs = match instance {
            Some(instance) => instance.is_running()?,
            None => client.is_healthy(),
        };
        if !runs {
            break;
        }
        thread::sleep(POLL_INTERVAL);
    }
    output.say("Daemon shutting down.", &answer)
}

/// Lists the instances that have a port file.
pub(super) fn instances(output: &mut Output) -> Result<()> {
    let mut rows = vec![["NAME", "API", "STATUS"].map(str::to_owned).to_vec()];
    let mut list = Vec::new();
    for instance in Instance::all()? {
        let name = instance.name.clone().unwrap_or_else(|| "(default)".to_owned());
        let status = match healthy_url(&instance) {
            Some(_) => "running",
            None if instance.is_running().unwrap_or(false) => "busy",
            None => "stale",
        };
        // A port file that holds no address is stale too, not a reason to hide the others.
        let address = instance.api_address().ok().flatten();
        let api = address.map_or_else(|| "-".to_owned(), |address| address.to_string());
        list.push(json!({ "name": instance.name, "api": api, "status": status }));
        rows.push(vec![name, api, status.to_owned()]);
    }
    if output.is_json() {
        return output.pretty(&json!({ "ok": true, "instances": list }));
    }
    output.raw(table(&rows).as_bytes())
}

/// The URL of an instance that answers.
fn healthy_url(instance: &Instance) -> Option<String> {
    let address = instance.api_address().ok().flatten()?;
    if !instance.is_running().ok()? {
        return None;
    }
    let client = Client::new(Target::at(instance.clone(), address).ok()?);
    client.is_healthy().then(|| client.url().to_owned())
}

/// What became of a start.
enum Started {
    /// A daemon of the instance answers at this URL.
    Healthy(String),
    /// The child runs, or another daemon that was faster, but none answers yet.
    Unreachable,
    /// The child ended, and no other daemon of the instance runs.
    Ended(ExitStatus),
}

fn wait_until_healthy(instance: &Instance, child: &mut Child) -> Result<Started> {
    for _ in 0..POLLS {
        if let Some(url) = healthy_url(instance) {
            return Ok(Started::Healthy(url));
        }
        if let Some(status) = child.try_wait()?
            && !instance.is_running()?
        {
            return Ok(Started::Ended(status));
        }
        thread::sleep(POLL_INTERVAL);
    }
    Ok(Started::Unreachable)
}

/// What the daemon is told on its command line.
fn daemon_arguments(
    name: Option<&str>,
    config: Option<&Path>,
    options: &StartArguments,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    if let Some(name) = name {
        arguments.extend(["--name".into(), name.into()]);
    }
    if let Some(config) = config {
        arguments.extend(["--config".into(), config.into()]);
    }
    for peer in &options.bootstrap {
        arguments.extend(["--bootstrap".into(), peer.to_string().into()]);
    }
    arguments
}

/// The daemon beside this program, else on PATH.
fn daemon_program() -> Result<PathBuf> {
    let beside = env::current_exe().ok().map(|program| program.with_file_name(DAEMON));
    let on_path = env::var_os("PATH").into_iter().flat_map(|path| {
        env::split_paths(&path).map(|folder| folder.join(DAEMON)).collect::<Vec<_>>()
    });
    let found = beside.into_iter().chain(on_path).find(|candidate| candidate.is_file());
    Ok(found.context("x0xd was found neither beside x0x nor on PATH")?)
}

/// The daemon outlives the terminal: it reads and writes nothing there, and a Ctrl-C is not for it.
fn detach(command: &mut Command, log: &Path, file: File) {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).env(LOG_VARIABLE, log);
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{self, Arguments};

    #[test]
    fn the_last_lines_of_a_log_are_its_reason() {
        let place = tempfile::tempdir().unwrap();
        let log = place.path().join("log");
        assert!(last_lines(&log).is_empty(), "there is none");
        let long = "x".repeat(MAX_TAIL as usize);
        let lines: String = (0..20).map(|n| format!("line {n}\n\n")).collect();
        std::fs::write(&log, format!("{long}\n{lines}error: the port is taken\n")).unwrap();
        let found = last_lines(&log);
        assert_eq!(found.len(), MAX_LINES);
        assert_eq!(found.last().unwrap(), "error: the port is taken");
    }

    #[test]
    fn what_start_is_given_reaches_the_daemon() {
        let line = ["x0x", "start", "--name=bob", "--config=bob.toml", "--bootstrap=127.0.0.1:1"];
        let line = line.into_iter().chain(["--bootstrap", "[::1]:2"]);
        let parsed = Arguments::try_parse_from(line).expect("it is a command");
        let args::Command::Start(options) = &parsed.command else { panic!("it starts") };
        let arguments = daemon_arguments(parsed.name.as_deref(), parsed.config.as_deref(), options);
        let expected = ["--name", "bob", "--config", "bob.toml"];
        let peers = ["--bootstrap", "127.0.0.1:1", "--bootstrap", "[::1]:2"];
        assert_eq!(arguments, expected.into_iter().chain(peers).collect::<Vec<_>>());
        assert!(Arguments::try_parse_from(["x0x", "start", "--bootstrap", "nowhere"]).is_err());
    }
}
