//! Direct messages of a session: sends in flight, and what arrives.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use x0x_agent::{Agent, DirectEvent};
use x0x_api::ws::{FrameId, ServerFrame};
use x0x_core::AgentId;

use super::outbox::Outbox;
use crate::{convert, http::error::ApiError};

/// Most sends of a session that wait for their acknowledgement.
const MAX_IN_FLIGHT: usize = 64;
/// Most of their bytes; one larger message is sent alone.
const MAX_IN_FLIGHT_BYTES: usize = 32 * 1024 * 1024;

#[derive(Debug)]
struct Done {
    bytes: usize,
    failure: Option<ServerFrame>,
}

/// Sends that wait for their acknowledgement.
pub(super) struct Sends {
    agent: Agent,
    in_flight: FuturesUnordered<BoxFuture<'static, Done>>,
    bytes: usize,
    failures: VecDeque<ServerFrame>,
}

impl Sends {
    pub(super) fn new(agent: Agent) -> Self {
        Self { agent, in_flight: FuturesUnordered::new(), bytes: 0, failures: VecDeque::new() }
    }

    /// Starts a send, after those before it.
    pub(super) async fn start(&mut self, to: AgentId, payload: Bytes, id: Option<FrameId>) {
        let bytes = payload.len();
        let full = |sends: &Self| {
            sends.in_flight.len() >= MAX_IN_FLIGHT
                || (sends.bytes + bytes > MAX_IN_FLIGHT_BYTES && !sends.in_flight.is_empty())
        };
        while full(self) {
            self.finish_one().await;
        }
        // Awaited, since this is what fixes its place among the others.
        match self.agent.queue_direct(to, payload).await {
            Err(error) => self.failures.push_back(failed(&error.into(), id)),
            Ok(queued) => {
                self.bytes += bytes;
                let send = async move {
                    let failure = queued.acknowledged().await.err();
                    Done { bytes, failure: failure.map(|error| failed(&error.into(), id)) }
                };
                self.in_flight.push(send.boxed());
            }
        }
    }

    fn note(&mut self, done: Done) {
        self.bytes -= done.bytes;
        self.failures.extend(done.failure);
    }

    async fn finish_one(&mut self) {
        if let Some(done) = self.in_flight.next().await {
            self.note(done);
        }
    }

    /// The next failure; waits while there is none. Cancel safe.
    pub(super) async fn failure(&mut self) -> ServerFrame {
        loop {
            if let Some(failure) = self.failures.pop_front() {
                return failure;
            }
            if self.in_flight.is_empty() {
                std::future::pending::<()>().await;
            }
            self.finish_one().await;
        }
    }
}

/// A send that failed, as a frame.
pub(super) fn failed(error: &ApiError, id: Option<FrameId>) -> ServerFrame {
    let code = error.code();
    ServerFrame::Error { message: format!("send failed: {}", error.0), code, id, index: None }
}

/// Carries direct messages to the outbox until the agent ends.
pub(super) async fn receive(agent: Agent, outbox: Arc<Outbox>) {
    let mut events = agent.direct_events();
    while let Some(event) = events.next().await {
        let frame = match event {
            DirectEvent::Message { message, .. } => {
                let stands = events.assess(&message);
                ServerFrame::DirectMessage(convert::direct_event(message, stands))
            }
            DirectEvent::Lagged { missed } => ServerFrame::Lagged { missed, topic: None },
            // A later kind of event says nothing to clients of this API.
            _ => continue,
        };
        outbox.push(&frame).await;
    }
}
