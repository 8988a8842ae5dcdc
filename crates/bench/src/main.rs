//! `x0x-bench`: what real daemons on loopback cost and carry, beside raw quinn.

mod http;
mod node;
mod process;
mod quinn_echo;
mod report;
mod rows;
mod socket;
mod stats;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

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
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let scale = if arguments.quick { rows::Scale::QUICK } else { rows::Scale::FULL };
    let mut report = Report::default();
    rows::run(&arguments.daemon.canonicalize()?, scale, &mut report).await?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}
