//! `x0x presence` and `x0x find`: who is there.

use std::time::Duration;

use serde_json::Value;
use x0x_api::Operation;
use x0x_api::event::{PRESENCE, PresenceChange};

use super::pubsub::{Printed, follow};
use super::show;
use crate::args::PresenceCommand;
use crate::client::{Call, Client};
use crate::error::{Failure, Result};
use crate::output::Output;

/// What the daemon takes beside the time that it is given.
const SLACK: Duration = Duration::from_secs(15);

/// Runs a command of `x0x presence`; without a word it lists who is there.
pub(super) fn run(
    client: &Client,
    command: Option<PresenceCommand>,
    output: &mut Output,
) -> Result<()> {
    let call = match command {
        None | Some(PresenceCommand::Online) => Call::new(Operation::PresenceOnline),
        Some(PresenceCommand::List) => Call::new(Operation::Presence),
        Some(PresenceCommand::Status { agent }) => {
            Call::new(Operation::PresenceStatus).parameter("agent_id", &agent)
        }
        Some(PresenceCommand::Foaf { ttl, timeout_ms }) => {
            walk(Call::new(Operation::PresenceFoaf), ttl, timeout_ms)
        }
        Some(PresenceCommand::Find { agent, ttl, timeout_ms }) => {
            let call = Call::new(Operation::PresenceFind).parameter("agent_id", &agent);
            let call = walk(call, ttl, timeout_ms);
            return found(client, &call, output, |answer| {
                answer.get("agent").is_some_and(Value::is_object)
            });
        }
        Some(PresenceCommand::Events(limit)) => {
            let mut events = client.stream(Operation::PresenceEvents)?;
            eprintln!("listening; Ctrl-C ends");
            return follow(&mut events, limit, |event| {
                if event.name != PRESENCE {
                    return Ok(Printed::Notice);
                }
                if output.is_json() {
                    output.json_line(&event.data)?;
                    return Ok(Printed::Message);
                }
                let change: PresenceChange = serde_json::from_str(&event.data)?;
                output.line(&format!("{} {}", change.event.as_str(), change.agent_id))?;
                Ok(Printed::Message)
            });
        }
    };
    show(client, &call, output)
}

fn walk(call: Call, ttl: u32, timeout_ms: u64) -> Call {
    call.query("ttl", ttl.to_string())
        .query("timeout_ms", timeout_ms.to_string())
        .patient(Duration::from_millis(timeout_ms) * 2 + SLACK)
}

/// Runs `x0x find`, which fails when nobody is found: scripts ask for no more than that.
pub(super) fn find(client: &Client, agent: &str, output: &mut Output) -> Result<()> {
    let call = Call::new(Operation::FindAgent).parameter("agent_id", agent).patient(SLACK);
    found(client, &call, output, |answer| answer.get("found").is_some_and(|found| *found == true))
}

/// Shows the answer to a search; it is a failure when it says that nobody was found.
fn found(
    client: &Client,
    call: &Call,
    output: &mut Output,
    is_found: impl FnOnce(&Value) -> bool,
) -> Result<()> {
    let answer = client.call(call)?;
    output.answer(&answer)?;
    let text = "the agent was not found".to_owned();
    if is_found(&answer) { Ok(()) } else { Err(Failure::Reported { text, answers: true }) }
}
