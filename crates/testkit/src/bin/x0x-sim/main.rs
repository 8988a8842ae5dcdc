//! Runs a scenario of the gossip simulator and prints what it measured: `cargo xtask sim`.

mod table;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use clap::{Parser, ValueEnum};
use x0x_testkit::gossip::{self, Event, Mode, Report, Scenario};

#[derive(Parser)]
#[command(name = "x0x-sim", about = "Runs a scenario of the gossip simulator")]
struct Arguments {
    /// The file of the scenario, or of the table
    file: PathBuf,
    /// The file is a table: makes each run of its list and prints the rows
    #[arg(long)]
    table: bool,
    /// Runs of a table at once, at most 2
    #[arg(long, default_value_t = 1, requires = "table")]
    jobs: usize,
    /// Where a table's full reports go, one JSON object a line
    #[arg(long, requires = "table")]
    save: Option<PathBuf>,
    /// Honest nodes, in place of the scenario's
    #[arg(long)]
    nodes: Option<u32>,
    /// The seed; the same seed gives the same run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How messages are spread, in place of the scenario's
    #[arg(long, value_enum)]
    mode: Option<ModeName>,
    /// Eager links beyond one for each author, in place of the scenario's
    #[arg(long)]
    redundant_links: Option<u8>,
    /// Measured messages, in place of the scenario's
    #[arg(long)]
    messages: Option<u32>,
    /// Share of the nodes that `kill` events kill, in place of the scenario's
    #[arg(long)]
    kill: Option<f64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum ModeName {
    Tree,
    Flood,
    EagerFloor6,
    Gossipsub,
    Iroh,
}

impl From<ModeName> for Mode {
    fn from(name: ModeName) -> Self {
        match name {
            ModeName::Tree => Self::Tree,
            ModeName::Flood => Self::Flood,
            ModeName::EagerFloor6 => Self::EagerFloor6,
            ModeName::Gossipsub => Self::Gossipsub,
            ModeName::Iroh => Self::Iroh,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.table {
        let (jobs, save) = (arguments.jobs, arguments.save.as_deref());
        return match table::run(&arguments.file, jobs, save) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("error: {}: {error}", arguments.file.display());
                ExitCode::FAILURE
            }
        };
    }
    let scenario = match read(&arguments) {
        Ok(scenario) => scenario,
        Err(error) => {
            eprintln!("error: {}: {error}", arguments.file.display());
            return ExitCode::FAILURE;
        }
    };
    let started = now();
    let report = match gossip::run(&scenario, arguments.seed) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("error: {}: {error}", arguments.file.display());
            return ExitCode::FAILURE;
        }
    };
    let taken = started.elapsed().as_secs_f64();
    print(&report, taken, arguments.json);
    if report.is_correct() {
        return ExitCode::SUCCESS;
    }
    eprintln!("failed with seed {}; replay it with:", arguments.seed);
    let name = &report.scenario;
    eprintln!("    cargo xtask sim {name} --nodes {} --seed {}", report.nodes, report.seed);
    ExitCode::FAILURE
}

fn read(arguments: &Arguments) -> Result<Scenario, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string(&arguments.file)?;
    let mut scenario = Scenario::parse(&text)?;
    scenario.nodes = arguments.nodes.unwrap_or(scenario.nodes);
    scenario.traffic.senders = scenario.traffic.senders.min(scenario.subscribers());
    scenario.traffic.messages = arguments.messages.unwrap_or(scenario.traffic.messages);
    scenario.gossip.mode = arguments.mode.map_or(scenario.gossip.mode, Into::into);
    if arguments.redundant_links.is_some() {
        scenario.gossip.redundant_links = arguments.redundant_links;
    }
    for event in &mut scenario.events {
        if let (Event::Kill { share, .. }, Some(kill)) = (event, arguments.kill) {
            *share = kill;
        }
    }
    Ok(scenario)
}

fn print(report: &Report, taken: f64, json: bool) {
    // Other processes share the machine, so that the processor's time says more than the wall clock.
    let cpu = cpu_seconds().unwrap_or(taken);
    let speed = report.events as f64 / cpu.max(1e-9);
    if !json {
        println!(
            "{report}  {:<30} {cpu:.1} / {taken:.1} ({speed:.0} events per CPU s, {} MiB)",
            "CPU / wall-clock s",
            peak_mib()
        );
        return;
    }
    let mut value = serde_json::json!(report);
    value["wall_s"] = taken.into();
    value["cpu_s"] = cpu.into();
    value["events_per_s"] = speed.into();
    value["peak_mib"] = peak_mib().into();
    println!("{value}");
}

/// Processor time of this process, where the system tells.
fn cpu_seconds() -> Option<f64> {
    /// Clock ticks a second: the kernel's interface is fixed to this on Linux.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in parentheses; user and system time are the 14th and 15th.
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let user: f64 = fields.get(11)?.parse().ok()?;
    let system: f64 = fields.get(12)?.parse().ok()?;
    Some((user + system) / TICKS)
}

/// The most memory that this process had, where the system tells; else 0.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

#[expect(
    clippy::disallowed_methods,
    reason = "measures the simulator itself, not what it simulates"
)]
fn now() -> Instant {
    Instant::now()
}
