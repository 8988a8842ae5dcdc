//! `x0x direct`: private messages between two agents.

use std::time::Duration;

use x0x_api::event::{DIRECT_MESSAGE, DirectMessageEvent};
use x0x_api::types::{ConnectRequest, DirectSendRequest};
use x0x_api::{Base64, Operation};

use super::pubsub::{Printed, follow, short};
use super::show;
use crate::args::DirectCommand;
use crate::client::{Call, Client};
use crate::error::Result;
use crate::output::Output;

/// A dial may try several addresses before it gives up.
const CONNECT_PATIENCE: Duration = Duration::from_secs(60);

/// Runs a command of `x0x direct`.
pub(super) fn run(client: &Client, command: DirectCommand, output: &mut Output) -> Result<()> {
    match command {
        DirectCommand::Connect { agent } => {
            let body = ConnectRequest { agent_id: agent };
            let call = Call::new(Operation::Connect).body(&body)?.patient(CONNECT_PATIENCE);
            show(client, &call, output)
        }
        DirectCommand::Send { agent, message, require_ack_ms } => {
            let payload = Base64::encode(message.as_bytes());
            let body = DirectSendRequest { agent_id: agent, payload, require_ack_ms };
            let call = Call::new(Operation::DirectSend).body(&body)?.patient(CONNECT_PATIENCE);
            show(client, &call, output)
        }
        DirectCommand::Connections => {
            show(client, &Call::new(Operation::DirectConnections), output)
        }
        DirectCommand::Events(limit) => {
            let mut events = client.stream(Operation::DirectEvents)?;
            eprintln!("listening; Ctrl-C ends");
            follow(&mut events, limit, |event| {
                if event.name != DIRECT_MESSAGE {
                    return Ok(Printed::Notice);
                }
                if output.is_json() {
                    output.json_line(&event.data)?;
                    return Ok(Printed::Message);
                }
                let message: DirectMessageEvent = serde_json::from_str(&event.data)?;
                let text = String::from_utf8_lossy(&message.payload.0).into_owned();
                output.line(&format!("{}: {text}", short(&message.sender.to_string())))?;
                Ok(Printed::Message)
            })
        }
    }
}
