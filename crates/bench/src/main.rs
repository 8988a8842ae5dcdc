//! `x0x-bench`: what real daemons cost and carry, beside raw quinn, and what they withstand.

mod capture;
mod groups;
mod http;
mod lab;
mod node;
mod place;
mod process;
mod quinn_echo;
mod quinn_stream;
mod report;
mod rows;
mod socket;
mod stats;
mod transfer;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

use report::Report;

/// Measure x0xd
#[derive(Parser, Debug)]
#[command(name = "x0x-bench", version)]
struct Arguments {
    /// The x0xd to measure
    #[arg(long, value_name = "PATH", default_value = "target/release/x0xd")]
    daemon: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Fewer messages, shorter waits, no eight-node runs
    #[arg(long)]
    quick: bool,
    /// Measure this group only; may be given more than once
    #[arg(long, value_enum, value_name = "GROUP")]
    only: Vec<rows::Group>,
    #[command(subcommand)]
    task: Option<Task>,
}

/// What to do instead of measuring.
#[derive(Subcommand, Debug)]
enum Task {
    /// Take daemons through trouble and count every delivery
    Lab {
        #[command(subcommand)]
        scenario: lab::Scenario,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let scale = if arguments.quick { rows::Scale::QUICK } else { rows::Scale::FULL };
    let mut report = Report::default();
    let daemon = arguments.daemon.canonicalize().with_context(|| {
        format!("no daemon at {}: build it, or say --daemon PATH", arguments.daemon.display())
    })?;
    let passed = match &arguments.task {
        Some(Task::Lab { scenario }) => lab::run(&daemon, scenario, &mut report).await?,
        None => {
            rows::run(&daemon, scale, &arguments.only, &mut report).await?;
            true
        }
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    if !passed {
        bail!("the scenario failed");
    }
    Ok(())
}
