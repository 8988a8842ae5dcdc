//! `x0x subscribe` and `events`.

use std::process;

use anyhow::{Context, anyhow};
use x0x_api::Operation;
use x0x_api::event::{Event, GAP, LAGGED, Lagged};

use crate::args::Limit;
use crate::client::{Call, Client};
use crate::error::Result;
use crate::events::{EventReader, ServerEvent};
use crate::output::Output;

/// Prints the messages of a topic until interrupted. The subscription ends with the stream, however this process does.
pub(super) fn subscribe(
    client: &Client,
    topic: String,
    since: Option<String>,
    limit: Limit,
    output: &mut Output,
) -> Result<()> {
    let call = Call::new(Operation::Events).query("topic", topic);
    let call = since.into_iter().fold(call, |call, since| call.query("since", since));
    let mut events = client.stream_of(&call)?;
    // Ctrl-C is how this command ends.
    ctrlc::set_handler(|| process::exit(0)).context("cannot listen for Ctrl-C")?;
    eprintln!("subscribed; Ctrl-C ends");
    follow(&mut events, limit, |event| {
        let parsed: Event = serde_json::from_str(&event.data)?;
        match &parsed {
            Event::Message(_) => print_event(output, event, &parsed),
            _ => Ok(Printed::Nothing),
        }
    })
}

/// Prints the messages of every subscription of the daemon.
pub(super) fn events(client: &Client, limit: Limit, output: &mut Output) -> Result<()> {
    let mut events = client.stream(Operation::Events)?;
    eprintln!("listening; Ctrl-C ends");
    follow(&mut events, limit, |event| {
        // A daemon of another version may send events that we do not know.
        match serde_json::from_str(&event.data) {
            Ok(parsed) => print_event(output, event, &parsed),
            Err(_) if output.is_json() => {
                output.json_line(&event.data)?;
                Ok(Printed::Notice)
            }
            Err(_) => Ok(Printed::Nothing),
        }
    })
}

fn print_event(output: &mut Output, event: &ServerEvent, parsed: &Event) -> Result<Printed> {
    let message = match parsed {
        Event::Message(message) => message,
        Event::FileOffer(_) | Event::FileComplete(_) => return print_file(output, event, parsed),
        _ => return Ok(Printed::Notice),
    };
    if output.is_json() {
        output.json_line(&event.data)?;
        return Ok(Printed::Message);
    }
    let sender = message.sender.map_or_else(|| "-".to_owned(), |id| short(&id.to_string()));
    let text = String::from_utf8_lossy(&message.payload.0);
    let gap = match message.gap {
        0 => String::new(),
        missing => format!(" ({missing} missing before)"),
    };
    output.line(&format!("[{}] {sender}{gap}: {text}", message.topic))?;
    Ok(Printed::Message)
}

fn print_file(output: &mut Output, event: &ServerEvent, parsed: &Event) -> Result<Printed> {
    if output.is_json() {
        output.json_line(&event.data)?;
        return Ok(Printed::Message);
    }
    let line = match parsed {
        Event::FileOffer(offer) => {
            let (sender, id) = (short(&offer.sender.to_string()), &offer.transfer_id);
            format!("{sender} offers {} ({} bytes): {id}", offer.filename, offer.size)
        }
        Event::FileComplete(file) => format!("received {}", file.path),
        _ => return Ok(Printed::Nothing),
    };
    output.line(&line)?;
    Ok(Printed::Message)
}

/// What became of an event.
pub(super) enum Printed {
    /// It was a message, and counts.
    Message,
    /// It was something else worth knowing.
    Notice,
    /// It was not for us.
    Nothing,
}

/// Hands each event to `print` until the limit is reached. A stream that ends before is a failure:
/// the daemon stopped.
pub(super) fn follow(
    events: &mut EventReader,
    limit: Limit,
    mut print: impl FnMut(&ServerEvent) -> Result<Printed>,
) -> Result<()> {
    let mut seen = 0;
    while limit.count.is_none_or(|count| seen < count) {
        let event = events.next()?.ok_or_else(|| anyhow!("the daemon closed the stream"))?;
        if [LAGGED, GAP].contains(&&*event.name) {
            eprintln!("warning: {}", lag(&event.data));
            continue;
        }
        if matches!(print(&event)?, Printed::Message) {
            seen += 1;
        }
    }
    Ok(())
}

/// `/events` wraps its data in a type, `/direct/events` does not.
fn lag(data: &str) -> String {
    let lagged = match serde_json::from_str(data) {
        Ok(Event::Lagged(lagged)) => Some(lagged),
        _ => serde_json::from_str::<Lagged>(data).ok(),
    };
    match lagged {
        Some(lagged) if lagged.missed > 0 => format!("{} messages were missed", lagged.missed),
        _ => "messages were missed".to_owned(),
    }
}

/// Enough of an id for a person to tell it from others.
pub(super) fn short(id: &str) -> String {
    id.chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_counted_when_known() {
        let wrapped = r#"{"type":"lagged","data":{"missed":3}}"#;
        assert_eq!(lag(wrapped), "3 messages were missed");
        assert_eq!(lag(r#"{"missed":2}"#), "2 messages were missed");
        assert_eq!(lag("?"), "messages were missed");
    }

    #[test]
    fn following_counts_messages_only() {
        let text = "event: a\ndata: 1\n\nevent: b\ndata: 2\n\nevent: b\ndata: 3\n\n";
        let mut reader = EventReader::new(text.as_bytes());
        let mut seen = Vec::new();
        let limit = Limit { count: Some(1) };
        let result = follow(&mut reader, limit, |event| {
            seen.push(event.data.clone());
            Ok(if event.name == "b" { Printed::Message } else { Printed::Nothing })
        });
        assert!(result.is_ok());
        assert_eq!(seen, ["1", "2"]);
        let mut rest = EventReader::new("".as_bytes());
        assert!(follow(&mut rest, limit, |_| Ok(Printed::Notice)).is_err());
    }
}
