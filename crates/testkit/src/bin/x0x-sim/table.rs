//! Tables of the figures: a list of runs, each in a process of its own, as rows of markdown.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use serde::Deserialize;
use serde_json::Value;

/// Largest table file.
const MAX_FILE: usize = 64 * 1024;
/// Most runs of a table.
const MAX_RUNS: usize = 1000;
/// Most processes at once.
const MAX_JOBS: usize = 2;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A table's file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// What it shows, in a line.
    about: String,
    form: Form,
    #[serde(rename = "run")]
    runs: Vec<Runs>,
}

/// Which columns.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Form {
    /// How messages spread when nothing happens.
    Spread,
    /// How complete everything is when something happens.
    Trouble,
    /// How the survivors of a kill find together again.
    Kill,
    /// How fast the simulator is.
    Speed,
}

/// Runs of one scenario: each seed with each mode and each share of killed nodes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Runs {
    scenario: String,
    nodes: u32,
    #[serde(default = "Runs::first_seed")]
    seeds: Vec<u64>,
    #[serde(default = "Runs::tree")]
    modes: Vec<String>,
    #[serde(default)]
    kill: Vec<f64>,
}

impl Runs {
    fn first_seed() -> Vec<u64> {
        vec![1]
    }

    fn tree() -> Vec<String> {
        vec!["tree".to_owned()]
    }

    /// The arguments of each run.
    fn arguments(&self, folder: &Path) -> Vec<Vec<String>> {
        let file = folder.join(format!("{}.toml", self.scenario)).to_string_lossy().into_owned();
        let kills: Vec<Option<f64>> = if self.kill.is_empty() {
            vec![None]
        } else {
            self.kill.iter().copied().map(Some).collect()
        };
        let mut all = Vec::new();
        for mode in &self.modes {
            for seed in &self.seeds {
                for kill in &kills {
                    let mut run = vec![file.clone(), "--json".to_owned()];
                    let mut option =
                        |name: &str, value: String| run.extend([name.to_owned(), value]);
                    option("--nodes", self.nodes.to_string());
                    option("--seed", seed.to_string());
                    option("--mode", mode.clone());
                    if let Some(kill) = kill {
                        option("--kill", kill.to_string());
                    }
                    all.push(run);
                }
            }
        }
        all
    }
}

/// Runs a table's list, `jobs` processes at a time, and prints its rows in order as they come; the
/// full reports go to `save`, one JSON object a line. True when no run was wrong.
pub(crate) fn run(file: &Path, jobs: usize, save: Option<&Path>) -> Result<bool, Failure> {
    let text = std::fs::read_to_string(file)?;
    if text.len() > MAX_FILE {
        return Err(format!("a table has at most {MAX_FILE} bytes").into());
    }
    let table: Table = toml::from_str(&text)?;
    // Tables lie in a folder beside the scenarios.
    let folder = file.parent().and_then(Path::parent).map_or_else(PathBuf::new, Path::to_path_buf);
    let runs: Vec<_> = table.runs.iter().flat_map(|runs| runs.arguments(&folder)).collect();
    if runs.len() > MAX_RUNS {
        return Err(format!("a table has at most {MAX_RUNS} runs").into());
    }
    let mut saved = save.map(std::fs::File::create).transpose()?;
    println!("<!-- {} -->", table.about);
    println!("{}", table.form.head());
    let mut correct = true;
    each(&runs, jobs.clamp(1, MAX_JOBS), |report| {
        println!("{}", table.form.row(&Row(report)));
        correct &= report["violations"] == 0;
        match &mut saved {
            Some(saved) => Ok(writeln!(saved, "{report}")?),
            None => Ok(()),
        }
    })?;
    Ok(correct)
}

/// Makes all runs, and takes their reports in the order of the list.
fn each(
    runs: &[Vec<String>],
    jobs: usize,
    mut take: impl FnMut(&Value) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let program = std::env::current_exe()?;
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (done, reports) = mpsc::sync_channel(MAX_JOBS);
        for _ in 0..jobs {
            let (done, next, program) = (done.clone(), &next, &program);
            scope.spawn(move || {
                while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let place = runs.iter().position(|other| std::ptr::eq(other, run));
                    if done.send((place.unwrap_or(0), report(program, run))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        let mut early: Vec<Option<Value>> = vec![None; runs.len()];
        let mut printed = 0;
        for (place, report) in reports {
            early[place] = Some(report.inspect_err(|_| next.store(runs.len(), Ordering::Relaxed))?);
            while let Some(report) = early.get_mut(printed).and_then(Option::take) {
                take(&report)?;
                printed += 1;
            }
        }
        Ok(())
    })
}

fn report(program: &Path, arguments: &[String]) -> Result<Value, Failure> {
    let output = Command::new(program).args(arguments).stderr(Stdio::inherit()).output()?;
    // A run with violations fails, and reports them all the same.
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{}: {}: {error}", arguments.join(" "), output.status).into())
}

/// A run's report, with its figures as cells.
struct Row<'report>(&'report Value);

impl Row<'_> {
    fn number(&self, name: &str) -> f64 {
        self.0[name].as_f64().unwrap_or(f64::NAN)
    }

    fn count(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap_or(0)
    }

    fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or("?")
    }

    /// A share in percent, never rounded up to all.
    fn percent(&self, name: &str) -> String {
        let share = self.number(name);
        if share >= 1.0 {
            "100 %".to_owned()
        } else {
            format!("{:.3} %", (share * 1e5).floor() / 1e3)
        }
    }

    fn seconds(&self, name: &str) -> String {
        self.0[name].as_f64().map_or("–".to_owned(), |seconds| format!("{seconds:.1} s"))
    }

    /// The component and the delivery at a look.
    fn look(&self, shuffles: u64) -> String {
        let looks = self.0["connectivity"].as_array().map_or(&[][..], Vec::as_slice);
        let look = looks.iter().find(|look| look["shuffles"] == shuffles);
        look.map_or("–".to_owned(), |look| {
            let percent = |name: &str| look[name].as_f64().unwrap_or(f64::NAN) * 100.0;
            format!("{:.1} % / {:.1} %", percent("largest"), percent("delivery"))
        })
    }
}

impl Form {
    const fn head(self) -> &'static str {
        match self {
            Self::Spread => {
                "| scenario | mode | nodes | seed | delivery | RMR mean / p99 | hops / of a flood | \
                 last ms / of a flood | bytes per delivery | trace hash |\n\
                 |---|---|---|---|---|---|---|---|---|---|"
            }
            Self::Trouble => {
                "| scenario | nodes | seed | delivery | missing | within 5 s | equal sets after | \
                 catch-up, longest | all complete after | RMR mean | MiB of all nodes | trace hash |\n\
                 |---|---|---|---|---|---|---|---|---|---|---|---|"
            }
            Self::Kill => {
                "| nodes | survivors | at once | 1 shuffle | 2 shuffles | 5 shuffles | \
                 delivery at the end | trace hash |\n|---|---|---|---|---|---|---|---|"
            }
            Self::Speed => {
                "| scenario | nodes | messages | events | frames / timers / commands | CPU s | wall s | \
                 events per CPU s | MiB |\n|---|---|---|---|---|---|---|---|---|"
            }
        }
    }

    fn row(self, row: &Row<'_>) -> String {
        let (scenario, nodes, seed) = (row.text("scenario"), row.count("nodes"), row.count("seed"));
        let (delivery, hash) = (row.percent("delivery"), row.text("trace_hash"));
        match self {
            Self::Spread => format!(
                "| {scenario} | {} | {nodes} | {seed} | {delivery} | {:.3} / {:.3} | {} / {} | \
                 {:.0} / {:.0} | {:.0} | `{hash}` |",
                row.text("mode"),
                row.number("rmr"),
                row.number("rmr_p99"),
                row.number("ldh_p99"),
                row.number("flood_ldh_p99"),
                row.number("last_ms_p99"),
                row.number("flood_last_ms_p99"),
                row.number("bytes_per_delivery"),
            ),
            Self::Trouble => format!(
                "| {scenario} | {nodes} | {seed} | {delivery} | {} | {} | {} | {} | {} | {:.2} | {} | \
                 `{hash}` |",
                row.count("missing"),
                row.percent("delivery_5s"),
                row.seconds("heal_s"),
                row.seconds("catch_up_s_max"),
                row.seconds("complete_s"),
                row.number("rmr"),
                row.count("peak_mib"),
            ),
            Self::Kill => format!(
                "| {nodes} | {} | {} | {} | {} | {} | {delivery} | `{hash}` |",
                row.count("nodes_at_end"),
                row.look(0),
                row.look(1),
                row.look(2),
                row.look(5),
            ),
            Self::Speed => format!(
                "| {scenario} | {nodes} | {} | {} | {} / {} / {} | {:.0} | {:.0} | {:.0} | {} |",
                row.count("messages"),
                row.count("events"),
                row.count("events_frames"),
                row.count("events_timers"),
                row.count("events_commands"),
                row.number("cpu_s"),
                row.number("wall_s"),
                row.number("events_per_s"),
                row.count("peak_mib"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_every_seed_with_every_mode_and_share() {
        let text = "about = \"x\"\nform = \"kill\"\n[[run]]\nscenario = \"a\"\nnodes = 9\n\
                    seeds = [1, 2]\nkill = [0.1, 0.2]\n[[run]]\nscenario = \"b\"\nnodes = 8\n\
                    modes = [\"tree\", \"flood\"]";
        let table: Table = toml::from_str(text).expect("valid");
        let runs: Vec<_> =
            table.runs.iter().flat_map(|runs| runs.arguments(Path::new("s"))).collect();
        assert_eq!(runs.len(), 6);
        let first = "s/a.toml --json --nodes 9 --seed 1 --mode tree --kill 0.1";
        assert_eq!(runs[0].join(" "), first);
        assert!(runs[5].join(" ").ends_with("--mode flood"));
    }

    #[test]
    fn a_share_is_not_rounded_up_to_all_and_what_is_not_there_is_a_dash() {
        let report = serde_json::json!({
            "delivery": 0.999_999_9, "heal_s": null,
            "connectivity": [{"shuffles": 2, "largest": 1.0, "delivery": 0.5}],
        });
        let row = Row(&report);
        assert_eq!(row.percent("delivery"), "99.999 %");
        assert_eq!(row.seconds("heal_s"), "–");
        assert_eq!((row.look(2).as_str(), row.look(1).as_str()), ("100.0 % / 50.0 %", "–"));
        for form in [Form::Spread, Form::Trouble, Form::Kill, Form::Speed] {
            let columns = |line: &str| line.matches('|').count();
            let head = form.head().lines().next().map(columns);
            assert_eq!(head, Some(columns(&form.row(&row))), "{form:?}");
        }
    }
}
