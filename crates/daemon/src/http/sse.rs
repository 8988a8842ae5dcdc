//! Server-sent events: framing, keep-alive, resumption.

use std::{convert::Infallible, fmt::Display, future::Future, sync::Arc};

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderName, HeaderValue,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use x0x_agent::{Agent, DirectEvent, DirectEvents, trust::Trust};
use x0x_api::{
    ErrorCode,
    event::{DIRECT_MESSAGE, Event, GAP, LAGGED, Lagged},
    limits::{SSE_KEEP_ALIVE, SSE_RETRY},
};

use super::error::ApiError;
use crate::{
    app::App,
    convert,
    events::{Client, Encoded, Taken},
};

/// Most streams at once; one that is idle takes less than 20 KiB.
pub(crate) const MAX_STREAMS: usize = 1024;
/// Bytes that are sent at once, unless one event is larger.
pub(crate) const MAX_CHUNK: usize = 64 * 1024;
/// Direct messages that are sent at once.
const MAX_DIRECT_BATCH: usize = 64;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Name and data of an event, ready to be sent after its id.
pub(crate) fn encode(name: &str, data: &impl Serialize) -> Encoded {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    if serde_json::to_writer(&mut out, data).is_err() {
        // Types of this API always serialise; an empty object keeps the framing intact if not.
        out.extend_from_slice(b"{}");
    }
    out.extend_from_slice(b"\n\n");
    out.into()
}

/// The id after which a client wants to resume, as it gives it.
pub(crate) fn last_event_id_text(headers: &HeaderMap) -> Option<&str> {
    Some(headers.get(LAST_EVENT_ID)?.to_str().ok()?.trim())
}

/// The same where ids are numbers.
pub(crate) fn last_event_id(headers: &HeaderMap) -> Option<u64> {
    last_event_id_text(headers)?.parse().ok()
}

/// Where a stream's bytes come from.
pub(crate) trait Source: Send + 'static {
    /// The next events as they go over the wire; `None` at the end. Cancel safe.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
}

pub(crate) fn append(out: &mut BytesMut, id: impl Display, event: &Encoded) {
    out.extend_from_slice(format!("id: {id}\n").as_bytes());
    out.extend_from_slice(event);
}

/// The events of the bus.
#[derive(Debug)]
pub(crate) struct BusSource(pub(crate) Client);

impl Source for BusSource {
    async fn next(&mut self) -> Option<Bytes> {
        let Taken { missed, events } = self.0.take(MAX_CHUNK).await;
        let mut out = BytesMut::with_capacity(MAX_CHUNK.min(events.len() * 1024 + 128));
        if let Some(missed) = missed {
            let event = Event::Lagged(Lagged { missed, ..Lagged::default() });
            out.extend_from_slice(&encode(LAGGED, &event));
        }
        for (id, event) in &events {
            append(&mut out, *id, event);
        }
        Some(out.freeze())
    }
}

/// Direct messages.
#[derive(Debug)]
pub(crate) struct DirectSource {
    events: DirectEvents,
    trust: Trust,
}

impl DirectSource {
    /// Reads on after the message with this number, else with those that nobody has read.
    pub(crate) fn new(agent: &Agent, after: Option<u64>) -> Self {
        let events = agent.direct_events();
        let events = match after {
            Some(number) => events.resume_after(number),
            None => events,
        };
        Self { events, trust: agent.trust().clone() }
    }

    fn append(&self, out: &mut BytesMut, event: DirectEvent) {
        match event {
            DirectEvent::Message(message) => {
                let (number, stands) = (message.number, self.events.assess(&message));
                let level = self.trust.level(&message.from);
                let event = encode(DIRECT_MESSAGE, &convert::direct_event(message, stands, level));
                // What is not stored cannot be resumed from.
                match number {
                    0 => out.extend_from_slice(&event),
                    number => append(out, number, &event),
                }
            }
            DirectEvent::Lagged { missed } => {
                out.extend_from_slice(&encode(GAP, &Lagged { missed, ..Lagged::default() }));
            }
            // A later kind of event says nothing to clients of this API.
            _ => {}
        }
    }
}

impl Source for DirectSource {
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        let first = self.events.next().await?;
        self.append(&mut out, first);
        for _ in 1..MAX_DIRECT_BATCH {
            if out.len() >= MAX_CHUNK {
                break;
            }
            let Some(Some(event)) = self.events.next().now_or_never() else { break };
            self.append(&mut out, event);
        }
        Some(out.freeze())
    }
}

/// Streams a source until it or the daemon ends.
pub(crate) fn respond(app: &App, source: impl Source) -> Result<Response, ApiError> {
    let room = Arc::clone(&app.streams).try_acquire_owned().map_err(|_| {
        let text = format!("limit reached: event streams (at most {MAX_STREAMS})");
        ApiError::new(ErrorCode::LimitReached, text)
    })?;
    let retry = format!("retry: {}\n\n", SSE_RETRY.as_millis());
    let start = State { source, head: Some(retry.into()), stop: app.stop.clone(), _room: room };
    let stream = futures_util::stream::unfold(start, State::next);
    let stream = futures_util::StreamExt::map(stream, Ok::<_, Infallible>);
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

/// An open stream.
struct State<S> {
    source: S,
    head: Option<Bytes>,
    stop: CancellationToken,
    _room: OwnedSemaphorePermit,
}

impl<S: Source> State<S> {
    async fn next(mut self) -> Option<(Bytes, Self)> {
        if let Some(head) = self.head.take() {
            return Some((head, self));
        }
        let chunk = tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            chunk = self.source.next() => chunk,
            () = tokio::time::sleep(SSE_KEEP_ALIVE) => Some(Bytes::from_static(b": keep-alive\n\n")),
        };
        chunk.map(|chunk| (chunk, self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing() {
        let mut out = BytesMut::new();
        append(&mut out, 7, &encode("lagged", &Lagged { missed: 3, ..Lagged::default() }));
        assert_eq!(out, "id: 7\nevent: lagged\ndata: {\"missed\":3}\n\n");
    }

    #[test]
    fn last_event_id_is_a_number_or_nothing() {
        let with = |text: &'static str| {
            HeaderMap::from_iter([(LAST_EVENT_ID, HeaderValue::from_static(text))])
        };
        assert_eq!(last_event_id(&with("12")), Some(12));
        assert_eq!(last_event_id(&with("x")), None);
        assert_eq!(last_event_id(&HeaderMap::new()), None);
    }
}
