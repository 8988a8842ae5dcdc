//! `x0x subscribe` and `events`.

use std::process;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, anyhow};
use x0x_api::Operation;
use x0x_api::event::{Event, GAP, LAGGED, Lagged};
use x0x_api::types::{SubscribeRequest, SubscribeResponse};

use crate::args::Limit;
use crate::client::{Call, Client};
use crate::error::Result;
use crate::events::{EventReader, ServerEvent};
use crate::output::Output;

/// Prints the messages of a topic until interrupted; the subscription ends with the command.
pub(super) fn subscribe(
    client: Client,
    request: &SubscribeRequest,
    limit: Limit,
    output: &mut Output,
) -> Result<()> {
    // The stream is open before the subscription exists, so that no message falls between.
    let mut events = client.stream(Operation::Events)?;
    let subscription = Subscription::new(client);
    subscription.end_when_interrupted()?;
    let id = subscription.open(request)?;
    let result = follow(&mut events, limit, |event| {
        let parsed: Event = serde_json::from_str(&event.data)?;
        match &parsed {
            Event::Message(message) if message.subscription_id == id => {
                print_event(output, event, &parsed)
            }
            _ => Ok(Printed::Nothing),
        }
    });
    subscription.end();
    result
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

/// A subscription of the daemon that is removed once, whoever ends it.
#[derive(Clone)]
struct Subscription {
    client: Arc<Client>,
    id: Arc<Mutex<Option<String>>>,
}

impl Subscription {
    fn new(client: Client) -> Self {
        Self { client: Arc::new(client), id: Arc::default() }
    }

    fn open(&self, request: &SubscribeRequest) -> Result<String> {
        let call = Call::new(Operation::Subscribe).body(request)?;
        // Held meanwhile, so that whoever interrupts waits for the id and can still remove it.
        let mut opened = self.id.lock().unwrap_or_else(PoisonError::into_inner);
        let answer: SubscribeResponse = self.client.fetch(&call)?;
        let id = answer.subscription_id;
        *opened = Some(id.clone());
        drop(opened);
        eprintln!("subscribed ({id}); Ctrl-C ends");
        Ok(id)
    }

    /// Ctrl-C and SIGTERM end the subscription, then the process: that is how this command ends.
    fn end_when_interrupted(&self) -> Result<()> {
        let subscription = self.clone();
        let handler = move || {
            subscription.end();
            process::exit(0);
        };
        Ok(ctrlc::set_handler(handler).context("cannot listen for Ctrl-C")?)
    }

    fn end(&self) {
        let id = self.id.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(id) = id {
            // A daemon that is gone has no subscriptions left to remove.
            let _ = self.client.call(&Call::new(Operation::Unsubscribe).parameter("id", &id));
        }
    }
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
