//! `x0x direct`: private messages between two agents.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use x0x_api::event::{DIRECT_MESSAGE, DirectMessageEvent, DirectReceipt, RECEIPT};
use x0x_api::limits::MAX_DIRECT_PAYLOAD;
use x0x_api::types::{
    ConnectMachineRequest, ConnectRequest, DirectClass, DirectRequestRequest, DirectSendRequest,
};
use x0x_api::{Base64, Operation};

use super::pubsub::{Printed, follow, short};
use super::{inbox, show};
use crate::args::{DirectCommand, Limit, SendArguments};
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
        DirectCommand::ConnectMachine { machine } => {
            let body = ConnectMachineRequest { machine_id: machine };
            let call = Call::new(Operation::ConnectMachine).body(&body)?.patient(CONNECT_PATIENCE);
            show(client, &call, output)
        }
        DirectCommand::Send(arguments) => {
            let call = Call::new(Operation::DirectSend).body(&send(arguments)?)?;
            show(client, &call.patient(CONNECT_PATIENCE), output)
        }
        DirectCommand::Request { agent, message, timeout_ms, id } => {
            let payload = Base64::encode(message.as_bytes());
            let patience = CONNECT_PATIENCE + Duration::from_millis(timeout_ms);
            let timeout_ms = Some(timeout_ms);
            let body = DirectRequestRequest { agent_id: agent, payload, timeout_ms, id };
            let call = Call::new(Operation::DirectRequest).body(&body)?.patient(patience);
            let answer: DirectMessageEvent = client.fetch(&call)?;
            inbox::print(&answer, output)
        }
        DirectCommand::Status { id } => {
            show(client, &Call::new(Operation::DirectStatus).parameter("id", &id), output)
        }
        DirectCommand::Cancel { id } => {
            show(client, &Call::new(Operation::DirectCancel).parameter("id", &id), output)
        }
        DirectCommand::Receipts(limit) => receipts(client, limit, output),
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
                inbox::print(&serde_json::from_str(&event.data)?, output)?;
                Ok(Printed::Message)
            })
        }
    }
}

/// The message: as given, from a file, or from standard input.
fn message(text: Option<&str>, file: Option<&Path>) -> Result<Vec<u8>> {
    match (file, text) {
        (Some(path), _) => {
            let named = || format!("cannot read {}", path.display());
            bounded(File::open(path).with_context(named)?).with_context(named)
        }
        (None, Some("-")) => bounded(io::stdin().lock()).context("cannot read standard input"),
        (None, text) => Ok(text.unwrap_or_default().as_bytes().to_vec()),
    }
    .map_err(Into::into)
}

/// All of it, unless it is longer than a message may be.
fn bounded(source: impl Read) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_DIRECT_PAYLOAD as u64 + 1).read_to_end(&mut bytes)?;
    anyhow::ensure!(
        bytes.len() <= MAX_DIRECT_PAYLOAD,
        "a message has at most {MAX_DIRECT_PAYLOAD} bytes; `x0x send-file` sends files of any size"
    );
    Ok(bytes)
}

fn send(arguments: SendArguments) -> Result<DirectSendRequest> {
    let payload = message(arguments.message.as_deref(), arguments.file.as_deref())?;
    Ok(DirectSendRequest {
        agent_id: arguments.agent,
        payload: Base64::encode(&payload),
        require_ack_ms: arguments.require_ack_ms,
        class: if arguments.session { DirectClass::Session } else { DirectClass::Durable },
        queue: arguments.queue,
        id: arguments.id,
        reply_to: arguments.reply_to,
        read_receipt: arguments.read_receipt,
        lifetime_secs: arguments.lifetime,
    })
}

fn receipts(client: &Client, limit: Limit, output: &mut Output) -> Result<()> {
    let mut events = client.stream(Operation::DirectReceipts)?;
    eprintln!("listening; Ctrl-C ends");
    follow(&mut events, limit, |event| {
        if event.name != RECEIPT {
            return Ok(Printed::Notice);
        }
        if output.is_json() {
            output.json_line(&event.data)?;
        } else {
            let receipt: DirectReceipt = serde_json::from_str(&event.data)?;
            let DirectReceipt { request_id, agent_id, .. } = &receipt;
            let state = serde_json::to_value(receipt.state)?;
            let state = state.as_str().unwrap_or_default();
            output.line(&format!("{request_id} {} {state}", short(&agent_id.to_string())))?;
        }
        Ok(Printed::Message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_from_the_command_line_or_a_file() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("message");
        std::fs::write(&path, [0xff, 0, 1]).expect("written");
        assert_eq!(message(None, Some(&path)).expect("read"), [0xff, 0, 1]);
        assert_eq!(message(Some("hello"), None).expect("given"), b"hello");
        assert!(message(None, Some(folder.path())).is_err());
        assert!(bounded(io::repeat(0)).is_err(), "longer than a message may be");
    }
}
