//! `x0x inbox` and `x0x history`: direct messages that came.

use std::time::Duration;

use x0x_api::event::{DirectMessageEvent, TrustLevel};
use x0x_api::limits::MAX_INBOX_WAIT;
use x0x_api::types::{
    ClaimRequest, ConsumerRequest, HistoryResponse, InboxAckRequest, InboxResponse, ReleaseRequest,
};
use x0x_api::{Base64, Operation};

use super::pubsub::short;
use super::show;
use crate::args::{HistoryArguments, InboxCommand, Reader};
use crate::client::{Call, Client};
use crate::error::{Failure, Result};
use crate::output::Output;

/// Runs a command of `x0x inbox`; without one, what waits is shown.
pub(super) fn run(
    client: &Client,
    command: Option<InboxCommand>,
    output: &mut Output,
) -> Result<()> {
    match command.unwrap_or_else(|| InboxCommand::Peek(Reader::default())) {
        InboxCommand::Peek(reader) => {
            show_messages(client, &read(Operation::Inbox, &reader), output).map(|_| ())
        }
        InboxCommand::Wait { reader, timeout, ack } => wait(client, &reader, timeout, ack, output),
        InboxCommand::Claim { reader, lease, owner } => {
            let body = ClaimRequest {
                consumer: Some(reader.consumer),
                limit: Some(reader.limit),
                lease_ms: Some(lease.saturating_mul(1000)),
                owner,
                ..ClaimRequest::default()
            };
            let call = Call::new(Operation::InboxClaim).body(&body)?;
            show_messages(client, &call, output).map(|_| ())
        }
        InboxCommand::Ack { numbers, through, consumer, owner } => {
            let body = InboxAckRequest { consumer: Some(consumer), numbers, through, owner };
            show(client, &Call::new(Operation::InboxAck).body(&body)?, output)
        }
        InboxCommand::Release { numbers, consumer, owner } => {
            let body = ReleaseRequest { consumer: Some(consumer), numbers, owner };
            show(client, &Call::new(Operation::InboxRelease).body(&body)?, output)
        }
        InboxCommand::Seek { start, consumer } => {
            let body = ConsumerRequest { consumer, start: Some(start) };
            show(client, &Call::new(Operation::InboxSeek).body(&body)?, output)
        }
        InboxCommand::Consumers => show(client, &Call::new(Operation::InboxConsumers), output),
        InboxCommand::CreateConsumer { consumer, start } => {
            let body = ConsumerRequest { consumer, start };
            show(client, &Call::new(Operation::InboxCreateConsumer).body(&body)?, output)
        }
        InboxCommand::RemoveConsumer { consumer } => {
            let call = Call::new(Operation::InboxRemoveConsumer).parameter("name", &consumer);
            show(client, &call, output)
        }
    }
}

fn read(operation: Operation, reader: &Reader) -> Call {
    Call::new(operation)
        .query("consumer", reader.consumer.clone())
        .query("limit", reader.limit.to_string())
}

/// Waits for messages, for ever unless told otherwise.
fn wait(
    client: &Client,
    reader: &Reader,
    timeout: Option<u64>,
    ack: bool,
    output: &mut Output,
) -> Result<()> {
    let mut left = timeout.map(Duration::from_secs);
    loop {
        let patience = left.unwrap_or(MAX_INBOX_WAIT).min(MAX_INBOX_WAIT);
        // The daemon waits as long as it is asked to.
        left = left.map(|left| left - patience);
        let call = read(Operation::InboxWait, reader)
            .query("timeout_ms", patience.as_millis().to_string())
            .patient(MAX_INBOX_WAIT);
        let found = client.fetch::<InboxResponse>(&call)?;
        if found.messages.is_empty() && found.missed == 0 && left != Some(Duration::ZERO) {
            continue;
        }
        let numbers = found.messages.iter().map(|message| message.number).collect();
        print_all(&found, output)?;
        if ack && !found.messages.is_empty() {
            let consumer = Some(reader.consumer.clone());
            let body = InboxAckRequest { consumer, numbers, ..InboxAckRequest::default() };
            client.call(&Call::new(Operation::InboxAck).body(&body)?)?;
        }
        return if found.messages.is_empty() { Err(Failure::Nothing) } else { Ok(()) };
    }
}

fn show_messages(client: &Client, call: &Call, output: &mut Output) -> Result<InboxResponse> {
    let found = client.fetch::<InboxResponse>(call)?;
    print_all(&found, output)?;
    Ok(found)
}

fn print_all(found: &InboxResponse, output: &mut Output) -> Result<()> {
    if output.is_json() {
        return output.answer(&serde_json::to_value(found)?);
    }
    if found.missed > 0 {
        eprintln!("warning: {} messages are not kept any more", found.missed);
    }
    found.messages.iter().try_for_each(|message| print(message, output))?;
    if found.more {
        eprintln!("there may be more after these");
    }
    Ok(())
}

/// Prints a message: who says so, then what, which is never more than text.
pub(super) fn print(message: &DirectMessageEvent, output: &mut Output) -> Result<()> {
    if output.is_json() {
        return output.json_line(&serde_json::to_string(message)?);
    }
    let number = match message.number {
        0 => "-".to_owned(),
        number => number.to_string(),
    };
    let sender = short(&message.sender.to_string());
    let trust = trust(message.trust_level);
    let verified = if message.verified { "" } else { ", not verified" };
    let text = text(&message.payload);
    output.line(&format!("#{number} {sender} ({trust}{verified}): {text}"))
}

/// How far a sender is trusted, in a word.
pub(super) const fn trust(level: Option<TrustLevel>) -> &'static str {
    match level {
        Some(TrustLevel::Blocked) => "blocked",
        Some(TrustLevel::Known) => "known",
        Some(TrustLevel::Trusted) => "trusted",
        _ => "unknown",
    }
}

fn text(payload: &Base64) -> String {
    match std::str::from_utf8(&payload.0) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("({} bytes that are no text)", payload.0.len()),
    }
}

/// Runs `x0x history`.
pub(super) fn history(
    client: &Client,
    arguments: HistoryArguments,
    output: &mut Output,
) -> Result<()> {
    let HistoryArguments { words, agent, before, cursor, limit } = arguments;
    let mut call = Call::new(Operation::History).query("limit", limit.to_string());
    if !words.is_empty() {
        call = call.query("q", words.join(" "));
    }
    if let Some(agent) = agent {
        call = call.query("agent", agent);
    }
    if let Some(before) = before {
        call = call.query("before", before.to_string());
    }
    if let Some(cursor) = cursor {
        call = call.query("cursor", cursor);
    }
    let found: HistoryResponse = client.fetch(&call)?;
    if output.is_json() {
        return output.answer(&serde_json::to_value(&found)?);
    }
    for item in found.messages {
        let direction = if item.sent { "to" } else { "from" };
        let state = serde_json::to_value(item.state)?;
        let state = if item.sent { state.as_str().unwrap_or_default() } else { "received" };
        let agent = short(&item.agent_id.to_string());
        let text = text(&item.payload);
        output.line(&format!("{} {direction} {agent} ({state}): {text}", item.at))?;
    }
    if let Some(next) = found.next {
        eprintln!("there may be more before these: --cursor {next}");
    }
    Ok(())
}
