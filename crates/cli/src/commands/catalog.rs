//! `x0x routes`, `tree` and `completions`: what there is to call.

use std::fmt::Write as _;

use clap_complete::Shell;
use serde_json::{Value, json};
use x0x_api::{ENDPOINTS, Endpoint, EndpointInfo};

use crate::args;
use crate::error::Result;
use crate::output::{Output, table};

/// Prints the endpoint table.
pub(super) fn routes(output: &mut Output) -> Result<()> {
    let rows: Vec<EndpointInfo> = ENDPOINTS.iter().map(Endpoint::info).collect();
    if output.is_json() {
        return output.pretty(&rows);
    }
    let header = ["METHOD", "PATH", "CLI COMMAND", "DESCRIPTION"].map(str::to_owned).to_vec();
    let mut lines = vec![header];
    for row in &rows {
        lines.push(vec![
            row.method.clone(),
            row.path.clone(),
            row.cli_name.clone(),
            row.description.clone(),
        ]);
    }
    output.raw(table(&lines).as_bytes())?;
    output.raw(format!("\n{} endpoints total\n", rows.len()).as_bytes())
}

/// Prints the commands as a tree.
pub(super) fn tree(output: &mut Output) -> Result<()> {
    let command = args::command();
    if output.is_json() {
        return output.pretty(&node(&command));
    }
    let mut text = format!("x0x {}\n", env!("CARGO_PKG_VERSION"));
    branch(&mut text, &command, "");
    output.raw(text.as_bytes())
}

fn branch(text: &mut String, command: &clap::Command, indent: &str) {
    let children: Vec<_> = command.get_subcommands().filter(|sub| !sub.is_hide_set()).collect();
    for (index, child) in children.iter().enumerate() {
        let last = index + 1 == children.len();
        let (fork, next) = if last { ("└── ", "    ") } else { ("├── ", "│   ") };
        let about = child.get_about().map(|about| format!("  {about}")).unwrap_or_default();
        _ = writeln!(text, "{indent}{fork}{}{about}", child.get_name());
        branch(text, child, &format!("{indent}{next}"));
    }
}

fn node(command: &clap::Command) -> Value {
    let children: Vec<Value> =
        command.get_subcommands().filter(|sub| !sub.is_hide_set()).map(node).collect();
    let about = command.get_about().map(ToString::to_string);
    json!({ "name": command.get_name(), "about": about, "commands": children })
}

/// Prints a completion script.
pub(super) fn completions(shell: Shell, output: &mut Output) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "x0x", &mut script);
    output.raw(&script)
}
