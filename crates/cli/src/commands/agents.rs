//! `x0x agents`: who announced itself.

use std::time::Duration;

use x0x_api::Operation;

use super::show;
use crate::args::AgentsCommand;
use crate::client::{Call, Client};
use crate::error::Result;
use crate::output::Output;

/// Runs `agents list` (also without a word) and `agents get`.
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
            match wait {
                Some(seconds) => {
                    call.query("wait", seconds.to_string()).patient(Duration::from_secs(seconds))
                }
                None => call,
            }
        }
    };
    show(client, &call, output)
}
