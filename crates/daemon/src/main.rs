//! `x0xd`: runs a [`Daemon`] until a signal or a client ends it.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Parser;
use tokio::time::sleep;
use x0x_api::instance::EXIT_CONFIG;
use x0x_daemon::{
    Args, Config, ConfigError, Daemon, Paths, instances, logging, open_files, signals,
};

/// Signals that come within this time count as one.
const TOGETHER: Duration = Duration::from_millis(300);

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", causes(&error));
            match error.is::<ConfigError>() {
                true => ExitCode::from(EXIT_CONFIG),
                false => ExitCode::FAILURE,
            }
        }
    }
}

/// An error and its causes, each once: some errors tell their cause in their own text already.
fn causes(error: &anyhow::Error) -> String {
    let causes = error.chain().map(ToString::to_string);
    causes.fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        known if known.contains(&cause) => text,
        known => format!("{known}: {cause}"),
    })
}

fn run(args: &Args) -> anyhow::Result<()> {
    for note in args.notes() {
        eprintln!("note: {note}");
    }
    if args.only_asks() {
        return Ok(());
    }
    if args.list {
        println!("{:<24} {:<24} STATUS", "NAME", "API");
        for instance in instances::list(&Paths::of_platform()?) {
            println!("{instance}");
        }
        return Ok(());
    }
    let config = Config::load(&args.overrides())?;
    for key in &config.unknown_keys {
        eprintln!("warning: configuration key `{key}` is not known and is ignored");
    }
    for key in &config.keys_without_effect {
        eprintln!("note: configuration key `{key}` has no effect in this version");
    }
    if args.only_checks() {
        print!("{config}");
        return Ok(());
    }
    logging::start(&config)?;
    open_files::raise();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let daemon = Box::pin(Daemon::start(config)).await?;
    tokio::select! {
        result = signals::terminated() => result.context("cannot handle signals")?,
        () = daemon.stop_requested() => {}
    }
    tokio::select! {
        () = daemon.shutdown() => Ok(()),
        // A second signal: whoever sends it does not want to wait.
        _ = second_signal() => anyhow::bail!("stopped at once by a second signal"),
    }
}

/// A signal that comes after the first one, and not with it: some programs send it to a process and to its group.
async fn second_signal() {
    sleep(TOGETHER).await;
    // The handlers were installed before.
    let _ = signals::terminated().await;
}
