//! Runs the discovery simulator and prints one row of a table: `docs/discovery-figures.md`.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use x0x_testkit::discovery::{self, Config, Report};

#[derive(Parser)]
#[command(name = "x0x-sim-find", about = "Measures finding and presence in a simulated network")]
struct Arguments {
    /// Nodes that run at a time
    #[arg(long, default_value_t = 10_000)]
    nodes: usize,
    /// Percent of the nodes that end in a minute; others come
    #[arg(long, default_value_t = 10.0)]
    churn: f64,
    /// Percent of the nodes that lie or say nothing as holders
    #[arg(long, default_value_t = 0.0)]
    bad: f64,
    /// How long is measured, in simulated minutes
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// How long a search may take, in simulated seconds
    #[arg(long, default_value_t = 2)]
    patience: u64,
    /// Searches begun in a simulated second
    #[arg(long, default_value_t = 50)]
    finds: u32,
    /// The seed; the same seed gives the same run
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut config = Config::new(arguments.nodes, arguments.seed);
    config.churn = arguments.churn / 100.0;
    config.bad = arguments.bad / 100.0;
    config.time = Duration::from_secs(arguments.minutes * 60);
    config.patience = Duration::from_secs(arguments.patience);
    config.finds = arguments.finds;
    let report = discovery::run(&config);
    println!("{}\n{report}", Report::COLUMNS);
    ExitCode::SUCCESS
}
