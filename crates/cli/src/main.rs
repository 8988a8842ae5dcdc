//! `x0x`: drives a running `x0xd` from the command line.
//!
//! Every command is one call of the local API, whose endpoint table (`x0x_api`) gives the paths and
//! the help texts. Answers go to standard output, everything else to standard error.

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
    let matches = args::command().get_matches();
    let arguments = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let mut output = Output::to_stdout(arguments.wants_json(), arguments.field.clone());
    match commands::run(arguments, &mut output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", escape(&failure.to_string()));
            failure.exit_code()
        }
    }
}
