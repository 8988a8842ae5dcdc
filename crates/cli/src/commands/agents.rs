//! `x0x agents`, `x0x machines` and `x0x users`: who announced itself, where, and for whom.

use std::time::Duration;

use x0x_api::Operation;

use super::show;
use crate::args::{AgentsCommand, UsersCommand};
use crate::client::{Call, Client};
use crate::error::Result;
use crate::output::Output;

/// Runs the commands of `agents`; without a word, `agents list`.
pub(super) fn run(
    client: &Client,
    command: Option<AgentsCommand>,
    output: &mut Output,
) -> Result<()> {
    let call = match command {
        None | Some(AgentsCommand::List { unfiltered: false }) => {
            Call::new(Operation::DiscoveredAgents)
        }
        Some(AgentsCommand::List { unfiltered: true }) => {
            Call::new(Operation::DiscoveredAgents).query("unfiltered", true.to_string())
        }
        Some(AgentsCommand::Get { agent, wait }) => {
            let call = Call::new(Operation::DiscoveredAgent).parameter("agent_id", &agent);
            waiting(call, wait)
        }
        Some(AgentsCommand::Reachability { agent }) => {
            Call::new(Operation::Reachability).parameter("agent_id", &agent)
        }
        Some(AgentsCommand::Machine { agent }) => {
            Call::new(Operation::AgentMachine).parameter("agent_id", &agent)
        }
    };
    show(client, &call, output)
}

/// Waits as long as the user does.
pub(super) fn waiting(call: Call, wait: Option<u64>) -> Call {
    match wait {
        Some(seconds) => {
            call.query("wait", seconds.to_string()).patient(Duration::from_secs(seconds))
        }
        None => call,
    }
}

/// Runs the commands of `users`.
pub(super) fn users(client: &Client, command: UsersCommand, output: &mut Output) -> Result<()> {
    let (operation, user) = match command {
        UsersCommand::Agents { user } => (Operation::UserAgents, user),
        UsersCommand::Machines { user } => (Operation::UserMachines, user),
    };
    show(client, &Call::new(operation).parameter("user_id", &user), output)
}
