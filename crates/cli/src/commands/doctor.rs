//! `x0x doctor`: looks at what often is wrong around a daemon, and at what it says itself.

use std::fs::{self, Metadata};
use std::path::Path;

use serde_json::json;
use x0x_api::instance::{LOG_FILE, TOKEN_FILE};
use x0x_api::types::{ConnectivityResponse, HealthResponse, StatusResponse};
use x0x_api::{Operation, VERSION};

use crate::client::{Call, Client};
use crate::discover::{Instance, key_folder};
use crate::error::{Failure, Result};
use crate::output::{Output, table};

/// Free bytes below which the database may soon take nothing more.
#[cfg(unix)]
const LOW_SPACE: u64 = 256 * 1024 * 1024;
/// Below which it takes nothing.
#[cfg(unix)]
const NO_SPACE: u64 = 16 * 1024 * 1024;
/// Most files of a folder that are looked at.
const MAX_FILES: usize = 1024;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    /// It works, but not as well as it could, or for now.
    Warning,
    /// It does not work, or secrets are not safe.
    Bad,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Bad => "failed",
        }
    }
}

/// What was looked at, and what was found.
struct Check {
    name: &'static str,
    verdict: Verdict,
    text: String,
}

#[derive(Default)]
struct Report(Vec<Check>);

impl Report {
    fn add(&mut self, name: &'static str, verdict: Verdict, text: impl Into<String>) {
        self.0.push(Check { name, verdict, text: text.into() });
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.0.iter().filter(|check| check.verdict == verdict).count()
    }
}

/// Looks at everything and prints what it found. Fails when something is wrong, not for warnings.
pub(super) fn run(
    name: Option<&str>,
    config: Option<&Path>,
    client: Result<Client>,
    output: &mut Output,
) -> Result<()> {
    let instance = Instance::named(name, config)?;
    let mut report = Report::default();
    data(&mut report, &instance.folder);
    keys(&mut report, &key_folder(name, config)?);
    let answers = daemon(&mut report, client);
    let (bad, warnings) = (report.count(Verdict::Bad), report.count(Verdict::Warning));
    let shown = |check: &Check| json!({ "name": check.name, "status": check.verdict.as_str(), "text": check.text });
    let checks: Vec<_> = report.0.iter().map(shown).collect();
    let answer = json!({ "ok": bad == 0, "failed": bad, "warnings": warnings, "checks": checks });
    let row =
        |check: Check| vec![check.verdict.as_str().to_owned(), check.name.to_owned(), check.text];
    let rows: Vec<_> = report.0.into_iter().map(row).collect();
    output.report(&table(&rows), &answer)?;
    if bad == 0 {
        return Ok(());
    }
    Err(Failure::Reported { text: format!("{bad} checks failed"), answers })
}

/// The data folder: who may write there, the token, the database, the disk.
fn data(report: &mut Report, folder: &Path) {
    let Ok(found) = fs::metadata(folder) else {
        let text = format!("{} is not there: no daemon was started yet", folder.display());
        return report.add("data", Verdict::Warning, text);
    };
    if is_open(&found, 0o022) {
        let text = format!("others may write to {}", folder.display());
        report.add("data", Verdict::Bad, text);
    } else {
        report.add("data", Verdict::Good, folder.display().to_string());
    }
    let token = folder.join(TOKEN_FILE);
    match fs::metadata(&token) {
        Ok(found) if is_open(&found, 0o077) => {
            let text = format!("others may read {}: remove it, and start anew", token.display());
            report.add("token", Verdict::Bad, text);
        }
        Ok(_) => report.add("token", Verdict::Good, "only its owner may read it"),
        Err(error) => {
            report.add("token", Verdict::Warning, format!("{}: {error}", token.display()))
        }
    }
    let damaged = names(folder).into_iter().find(|name| name.contains(".db.corrupt-"));
    match damaged {
        Some(name) => {
            let text = format!("a damaged one was set aside: {}", folder.join(name).display());
            report.add("database", Verdict::Warning, text);
        }
        None => report.add("database", Verdict::Good, "none was found damaged"),
    }
    space(report, folder);
    let log = folder.join(LOG_FILE);
    if fs::metadata(&log).is_ok_and(|found| found.len() > 0) {
        let text = format!("the daemon said something: {}", log.display());
        report.add("log", Verdict::Warning, text);
    }
}

#[cfg(unix)]
fn space(report: &mut Report, folder: &Path) {
    match rustix::fs::statvfs(folder) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let verdict = match free {
                ..NO_SPACE => Verdict::Bad,
                NO_SPACE..LOW_SPACE => Verdict::Warning,
                _ => Verdict::Good,
            };
            report.add("disk", verdict, format!("{} MiB are free", free >> 20));
        }
        Err(error) => report.add("disk", Verdict::Warning, error.to_string()),
    }
}

/// Nothing is known of the disk.
#[cfg(not(unix))]
fn space(_: &mut Report, _: &Path) {}

/// The keys: nobody but their owner may read them.
fn keys(report: &mut Report, folder: &Path) {
    let files = names(folder);
    if files.is_empty() {
        let text = format!("{} holds none: they are made at the first start", folder.display());
        return report.add("keys", Verdict::Warning, text);
    }
    let open = |name: &String| {
        let found = fs::metadata(folder.join(name));
        found.is_ok_and(|found| found.is_file() && is_open(&found, 0o077))
    };
    let open: Vec<_> = files.into_iter().filter(open).collect();
    if !open.is_empty() {
        let text = format!("others may read {} in {}", open.join(", "), folder.display());
        return report.add("keys", Verdict::Bad, text);
    }
    if fs::metadata(folder).is_ok_and(|found| is_open(&found, 0o022)) {
        let text = format!("others may write to {}", folder.display());
        return report.add("keys", Verdict::Bad, text);
    }
    report.add("keys", Verdict::Good, format!("only their owner may read {}", folder.display()));
}

/// What the daemon says. False when it does not answer.
fn daemon(report: &mut Report, client: Result<Client>) -> bool {
    let asked = client.and_then(|client| {
        let health: HealthResponse = client.fetch(&Call::new(Operation::Health))?;
        Ok((client, health))
    });
    let (client, health) = match asked {
        Ok(found) => found,
        Err(failure) => {
            report.add("daemon", Verdict::Bad, failure.to_string());
            return false;
        }
    };
    match health.version == VERSION {
        true => report.add("daemon", Verdict::Good, format!("answers at {}", client.url())),
        false => {
            let text = format!("it has version {}, and this command {VERSION}", health.version);
            report.add("daemon", Verdict::Warning, text);
        }
    }
    for problem in health.problems {
        report.add("problem", Verdict::Bad, problem);
    }
    match client.fetch::<StatusResponse>(&Call::new(Operation::Status)) {
        Ok(status) => {
            for warning in status.warnings {
                report.add("status", Verdict::Warning, warning);
            }
            match status.peers {
                0 => {
                    report.add("peers", Verdict::Warning, "none: name one with `start --bootstrap`")
                }
                peers => report.add("peers", Verdict::Good, format!("{peers} sessions")),
            }
        }
        Err(failure) => report.add("status", Verdict::Bad, failure.to_string()),
    }
    match client.fetch::<ConnectivityResponse>(&Call::new(Operation::Connectivity)) {
        Ok(found) if found.direct_reachability_scope == "none" => {
            let text = "nobody has dialled this machine yet; it may be out of reach of others";
            report.add("reachability", Verdict::Warning, text);
        }
        Ok(found) => report.add("reachability", Verdict::Good, found.direct_reachability_scope),
        Err(failure) => report.add("reachability", Verdict::Warning, failure.to_string()),
    }
    true
}

/// The names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().take(MAX_FILES);
    let mut names: Vec<_> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Whether others than the owner have one of these rights.
#[cfg(unix)]
fn is_open(found: &Metadata, rights: u32) -> bool {
    use std::os::unix::fs::PermissionsExt;
    found.permissions().mode() & rights != 0
}

/// Rights are not looked at here.
#[cfg(not(unix))]
fn is_open(_: &Metadata, _: u32) -> bool {
    false
}
