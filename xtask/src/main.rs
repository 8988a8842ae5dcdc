//! The project's development tasks: `cargo xtask <task>`.
//!
//! Dispatch only; each task is a file of its own.

mod bench;
mod ci;
mod demo;
mod fuzz;
mod sim;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Development tasks of the x0x workspace")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure release daemons on loopback against the design's targets and raw quinn
    Bench(bench::Options),
    /// Run every check and every test, in the order the project's CI does
    Ci(ci::Options),
    /// Run the README's walk-through: two daemons, a first gossip and a first direct message
    Demo(demo::Options),
    /// Build the fuzz targets and run each for a while (5 minutes unless told)
    Fuzz(fuzz::Options),
    /// Have release daemons meet through address translators, or take them through stalls, crashes and
    /// partitions and count every delivery
    Lab(bench::LabOptions),
    /// Run a scenario of the gossip simulator: `sim <scenario> --nodes N --seed S [--mode M] [--json]`,
    /// or a table of its figures: `sim --table <table>`
    Sim(sim::Options),
    /// Check the house rules: dependency direction, sizes, pure files, crate skeleton
    Tidy,
}

fn main() -> ExitCode {
    match dispatch(&Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(task: &Task) -> Result<()> {
    match task {
        Task::Bench(options) => bench::run(options),
        Task::Ci(options) => ci::run(options),
        Task::Demo(options) => demo::run(options),
        Task::Fuzz(options) => fuzz::run(options),
        Task::Lab(options) => bench::lab(options),
        Task::Sim(options) => sim::run(options),
        Task::Tidy => tidy::run(),
    }
}
