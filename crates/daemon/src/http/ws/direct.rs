//! Direct messages of a session: sends in flight, and what arrives.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use x0x_agent::{Agent, DirectEvent, MessageId, SendDirectError, Terms};
use x0x_api::ws::{FrameId, ServerFrame};
use x0x_core::AgentId;

use super::outbox::Outbox;
use crate::{convert, http::error::ApiError};

/// Most sends of a session that wait for their acknowledgement.
const MAX_IN_FLIGHT: usize = 256;
/// Most of their bytes; one larger message is sent alone.
const MAX_IN_FLIGHT_BYTES: usize = 32 * 1024 * 1024;

#[derive(Debug)]
struct Done {
    bytes: usize,
    answer: Option<ServerFrame>,
}

/// A direct message of a client.
pub(super) struct Sent {
    pub(super) to: AgentId,
    pub(super) payload: Bytes,
    pub(super) terms: Terms,
    /// The message's id, if the client gave one.
    pub(super) message: Option<MessageId>,
    /// The client's name for the command.
    pub(super) id: Option<FrameId>,
    /// The client wants to be told when it was taken.
    pub(super) ack: bool,
}

/// Sends that wait for their acknowledgement.
pub(super) struct Sends {
    agent: Agent,
    in_flight: FuturesUnordered<BoxFuture<'static, Done>>,
    bytes: usize,
    answers: VecDeque<ServerFrame>,
}

impl Sends {
    pub(super) fn new(agent: Agent) -> Self {
        Self { agent, in_flight: FuturesUnordered::new(), bytes: 0, answers: VecDeque::new() }
    }

    /// Starts a send, after those before it.
    pub(super) async fn start(&mut self, sent: Sent) {
        let Sent { to, payload, terms, message, id, ack } = sent;
        let bytes = payload.len();
        let full = |sends: &Self| {
            sends.in_flight.len() >= MAX_IN_FLIGHT
                || (sends.bytes + bytes > MAX_IN_FLIGHT_BYTES && !sends.in_flight.is_empty())
        };
        while full(self) {
            self.finish_one().await;
        }
        // Awaited, since this is what fixes its place among the others.
        let message = message.unwrap_or_else(|| self.agent.new_message_id());
        let failed = move |error: SendDirectError, id| {
            failed(&ApiError::from(error).of_message(&message), id)
        };
        match self.agent.queue_direct_as(message, to, payload, terms).await {
            Err(error) => self.answers.push_back(failed(error, id)),
            Ok(queued) => {
                self.bytes += bytes;
                let send = async move {
                    let answer = match queued.acknowledged().await {
                        Err(error) => Some(failed(error, id)),
                        Ok(_) => ack.then(|| ServerFrame::Sent {
                            id,
                            request_id: HEXLOWER.encode(&message),
                        }),
                    };
                    Done { bytes, answer }
                };
                self.in_flight.push(send.boxed());
            }
        }
    }

    fn note(&mut self, done: Done) {
        self.bytes -= done.bytes;
        self.answers.extend(done.answer);
    }

    async fn finish_one(&mut self) {
        if let Some(done) = self.in_flight.next().await {
            self.note(done);
        }
    }

    /// The next answers, all that are there; waits while there is none. Cancel safe.
    pub(super) async fn answers(&mut self) -> Vec<ServerFrame> {
        while self.answers.is_empty() {
            if self.in_flight.is_empty() {
                std::future::pending::<()>().await;
            }
            self.finish_one().await;
        }
        while let Some(Some(done)) = self.in_flight.next().now_or_never() {
            self.note(done);
        }
        self.answers.drain(..).collect()
    }
}

/// A send that failed, as a frame.
pub(super) fn failed(error: &ApiError, id: Option<FrameId>) -> ServerFrame {
    let code = error.code();
    let message = format!("send failed: {}", error.0);
    ServerFrame::Error { message, code, id, index: None, request_id: error.0.request_id.clone() }
}

/// Carries direct messages to the outbox until the agent ends.
pub(super) async fn receive(agent: Agent, after: Option<u64>, outbox: Arc<Outbox>) {
    let events = agent.direct_events();
    let mut events = match after {
        Some(number) => events.resume_after(number),
        None => events,
    };
    while let Some(event) = events.next().await {
        let frame = match event {
            DirectEvent::Message(message) => {
                let (stands, level) = (events.assess(&message), agent.trust().level(&message.from));
                ServerFrame::DirectMessage(convert::direct_event(message, stands, level))
            }
            DirectEvent::Lagged { missed } => ServerFrame::Lagged { missed, topic: None },
            // A later kind of event says nothing to clients of this API.
            _ => continue,
        };
        outbox.push(&frame).await;
    }
}
