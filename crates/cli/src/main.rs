//! `x0x`: drives a running `x0xd` from the command line.
//!
//! Every command is one call of the local API, whose endpoint table (`x0x_api`) gives the paths and
//! the help texts. Answers go to standard output, everything else to standard error; with `--json` a
//! failure is an answer too.

mod args;
mod client;
mod commands;
mod discover;
mod error;
mod escape;
mod events;
mod output;

use std::process::ExitCode;

use clap::FromArgMatches;

use crate::args::Arguments;
use crate::escape::escape;
use crate::output::Output;

fn main() -> ExitCode {
    let parsed = args::command().try_get_matches();
    let arguments = match parsed.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(usage) => {
            // Help and the version are asked for, and are no failures.
            if usage.use_stderr() && args::ask_for_json(std::env::args_os().skip(1)) {
                let text = usage.to_string();
                let text = text.trim().trim_start_matches("error: ");
                tell(&mut Output::to_stdout(true, None), &error::body("usage", text));
            }
            usage.exit()
        }
    };
    let mut output = Output::to_stdout(arguments.wants_json(), arguments.field.clone());
    match commands::run(arguments, &mut output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", shown(&failure));
            if output.is_json() && !failure.is_reported() {
                tell(&mut output, &failure.body());
            }
            failure.exit_code()
        }
    }
}

/// What went wrong, for people. Text of our own may have lines, as that about a configuration file has;
/// text of a daemon stays on one, so that nothing in it looks like another message.
fn shown(failure: &error::Failure) -> String {
    let text = failure.to_string();
    if failure.is_our_own() {
        text.trim_end().lines().map(escape).collect::<Vec<_>>().join("\n")
    } else {
        escape(&text)
    }
}

/// Prints what went wrong for the program that asked for JSON, on one line: a stream may have gone on
/// before. Whether that program still reads changes nothing.
fn tell(output: &mut Output, failure: &serde_json::Value) {
    let _ = output.json_line(&failure.to_string());
}
