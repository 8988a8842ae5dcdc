//! Direct messages of a session: sends in flight, and what arrives.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

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

/// Says in the end whether a message was taken.
type Acknowledged = BoxFuture<'static, Result<(), ApiError>>;

/// A message that did not get on its way.
pub(super) struct Failure {
    error: ApiError,
    /// The recipient itself was not found or not reached, which those behind it need not try again.
    nobody: bool,
}

/// What carries messages.
pub(super) trait Post: Send {
    fn new_id(&self) -> MessageId;

    /// Ends when the message has its place in the order of its recipient.
    fn queue(
        &self,
        id: MessageId,
        to: AgentId,
        payload: Bytes,
        terms: Terms,
    ) -> BoxFuture<'static, Result<Acknowledged, Failure>>;
}

impl Post for Agent {
    fn new_id(&self) -> MessageId {
        self.new_message_id()
    }

    fn queue(
        &self,
        id: MessageId,
        to: AgentId,
        payload: Bytes,
        terms: Terms,
    ) -> BoxFuture<'static, Result<Acknowledged, Failure>> {
        let agent = self.clone();
        let queue = async move {
            match agent.queue_direct_as(id, to, payload, terms).await {
                Ok(queued) => Ok(async move { queued.acknowledged().await.map(drop) }
                    .map(|taken| taken.map_err(ApiError::from))
                    .boxed()),
                Err(error) => {
                    use SendDirectError::{Forbidden, NotFound, Unreachable};
                    let nobody = matches!(error, Forbidden(_) | NotFound(_) | Unreachable { .. });
                    Err(Failure { error: error.into(), nobody })
                }
            }
        };
        queue.boxed()
    }
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

/// What remains of a message that is on its way.
struct Slip {
    to: AgentId,
    bytes: usize,
    id: Option<FrameId>,
    ack: bool,
    message: MessageId,
}

enum Step {
    /// It has its place, so that the next one to this recipient may go.
    Queued(Slip, Result<Acknowledged, Failure>),
    /// It was taken, or not.
    Ended(Slip, Result<(), ApiError>),
}

/// Sends that wait for their acknowledgement. Those to one recipient go one behind the other, those to
/// others pass them: a search for somebody keeps nobody else waiting.
pub(super) struct Sends<P = Agent> {
    post: P,
    in_flight: FuturesUnordered<BoxFuture<'static, Step>>,
    /// By recipient to whom a message is being queued, what waits behind it.
    lines: BTreeMap<AgentId, VecDeque<Sent>>,
    /// Messages in flight and in lines.
    count: usize,
    /// Their bytes.
    bytes: usize,
    answers: VecDeque<ServerFrame>,
}

impl<P: Post> Sends<P> {
    pub(super) fn new(post: P) -> Self {
        Self {
            post,
            in_flight: FuturesUnordered::new(),
            lines: BTreeMap::new(),
            count: 0,
            bytes: 0,
            answers: VecDeque::new(),
        }
    }

    /// Starts a send, after those before it to the same recipient. Waits while too many are in flight.
    pub(super) async fn start(&mut self, mut sent: Sent) {
        let bytes = sent.payload.len();
        let full = |sends: &Self| {
            sends.count >= MAX_IN_FLIGHT
                || (sends.bytes + bytes > MAX_IN_FLIGHT_BYTES && sends.count > 0)
        };
        while full(self) {
            self.step().await;
        }
        self.count += 1;
        self.bytes += bytes;
        sent.message.get_or_insert_with(|| self.post.new_id());
        match self.lines.get_mut(&sent.to) {
            Some(line) => line.push_back(sent),
            None => {
                self.lines.insert(sent.to, VecDeque::new());
                self.queue(sent);
            }
        }
        // Most get their place at once.
        self.advance();
    }

    fn queue(&mut self, sent: Sent) {
        let Sent { to, payload, terms, message, id, ack } = sent;
        let message = message.unwrap_or_else(|| self.post.new_id());
        let slip = Slip { to, bytes: payload.len(), id, ack, message };
        let queue = self.post.queue(message, to, payload, terms);
        self.in_flight.push(queue.map(move |result| Step::Queued(slip, result)).boxed());
    }

    fn note(&mut self, step: Step) {
        match step {
            Step::Queued(slip, result) => {
                let to = slip.to;
                match result {
                    Ok(taken) => {
                        let ended = taken.map(move |result| Step::Ended(slip, result));
                        self.in_flight.push(ended.boxed());
                    }
                    Err(Failure { error, nobody }) => {
                        let line = self.lines.get_mut(&to).filter(|_| nobody);
                        let line = line.map(std::mem::take).unwrap_or_default();
                        self.fail(slip.bytes, slip.id, &slip.message, error.clone());
                        for sent in line {
                            let message = sent.message.unwrap_or(slip.message);
                            self.fail(sent.payload.len(), sent.id, &message, error.clone());
                        }
                    }
                }
                match self.lines.get_mut(&to).and_then(VecDeque::pop_front) {
                    Some(next) => self.queue(next),
                    None => _ = self.lines.remove(&to),
                }
            }
            Step::Ended(slip, Err(error)) => self.fail(slip.bytes, slip.id, &slip.message, error),
            Step::Ended(Slip { bytes, id, ack, message, .. }, Ok(())) => {
                self.settle(bytes);
                let request_id = HEXLOWER.encode(&message);
                self.answers.extend(ack.then_some(ServerFrame::Sent { id, request_id }));
            }
        }
    }

    fn fail(&mut self, bytes: usize, id: Option<FrameId>, message: &MessageId, error: ApiError) {
        self.settle(bytes);
        self.answers.push_back(failed(&error.of_message(message), id));
    }

    fn settle(&mut self, bytes: usize) {
        self.count -= 1;
        self.bytes -= bytes;
    }

    async fn step(&mut self) {
        if let Some(step) = self.in_flight.next().await {
            self.note(step);
        }
    }

    /// Does what can be done without waiting.
    fn advance(&mut self) {
        while let Some(Some(step)) = self.in_flight.next().now_or_never() {
            self.note(step);
        }
    }

    /// Whether no more may be started before the client is told of some.
    pub(super) fn has_much_to_tell(&self) -> bool {
        self.answers.len() >= MAX_IN_FLIGHT
    }

    /// The next answers, all that are there; waits while there is none. Cancel safe.
    pub(super) async fn answers(&mut self) -> Vec<ServerFrame> {
        while self.answers.is_empty() {
            if self.in_flight.is_empty() {
                std::future::pending::<()>().await;
            }
            self.step().await;
        }
        self.advance();
        self.answers.drain(..).collect()
    }
}

/// A send that failed, as a frame.
pub(super) fn failed(error: &ApiError, id: Option<FrameId>) -> ServerFrame {
    let code = error.code();
    let message = format!("send failed: {}", error.0);
    let request_id = error.0.request_id.clone();
    ServerFrame::Error { message, code, id, index: None, request_id, topic: None }
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

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use tokio::sync::oneshot;
    use x0x_api::ErrorCode;

    use super::*;

    type Place = oneshot::Sender<bool>;

    /// Gives places when the test says so, and takes what has one.
    #[derive(Clone, Default)]
    struct Fake(Arc<Mutex<Vec<(AgentId, Bytes, Place)>>>);

    impl Fake {
        /// Who waits for a place, in order.
        fn waiting(&self) -> Vec<(AgentId, Bytes)> {
            let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.iter().map(|(to, payload, _)| (*to, payload.clone())).collect()
        }

        /// Gives the first in line to somebody a place, or finds nobody.
        fn place(&self, to: AgentId, found: bool) {
            let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let at = waiting.iter().position(|(whom, ..)| *whom == to).expect("one waits");
            waiting.remove(at).2.send(found).expect("waited for");
        }
    }

    impl Post for Fake {
        fn new_id(&self) -> MessageId {
            MessageId::default()
        }

        fn queue(
            &self,
            _: MessageId,
            to: AgentId,
            payload: Bytes,
            _: Terms,
        ) -> BoxFuture<'static, Result<Acknowledged, Failure>> {
            let (place, found) = oneshot::channel();
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((to, payload, place));
            let queue = async move {
                if found.await == Ok(true) {
                    return Ok(std::future::ready(Ok(())).boxed());
                }
                let error = ApiError::new(ErrorCode::PeerDisconnected, "nobody");
                Err(Failure { error, nobody: true })
            };
            queue.boxed()
        }
    }

    fn sent(to: AgentId, number: u8) -> Sent {
        let (payload, id) = (Bytes::from(vec![number]), Some(FrameId::Number(number.into())));
        Sent { to, payload, terms: Terms::default(), message: None, id, ack: true }
    }

    fn ids(frames: &[ServerFrame]) -> Vec<(bool, u64)> {
        let id = |frame: &ServerFrame| match frame {
            ServerFrame::Sent { id: Some(FrameId::Number(id)), .. } => (true, *id),
            ServerFrame::Error { id: Some(FrameId::Number(id)), .. } => (false, *id),
            other => panic!("unexpected {other:?}"),
        };
        frames.iter().map(id).collect()
    }

    #[tokio::test]
    async fn one_recipient_keeps_its_order_and_nobody_else_waiting() {
        let (lost, found) = (AgentId::new([1; 32]), AgentId::new([2; 32]));
        let post = Fake::default();
        let mut sends = Sends::new(post.clone());
        for message in [sent(lost, 1), sent(lost, 2), sent(found, 3), sent(found, 4)] {
            sends.start(message).now_or_never().expect("nobody waits");
        }
        let one = |to, number| (to, Bytes::from(vec![number]));
        assert_eq!(post.waiting(), [one(lost, 1), one(found, 3)]);
        post.place(found, true);
        assert_eq!(ids(&sends.answers().await), [(true, 3)]);
        assert_eq!(post.waiting(), [one(lost, 1), one(found, 4)]);
        post.place(lost, false);
        assert_eq!(ids(&sends.answers().await), [(false, 1), (false, 2)], "one search is enough");
        post.place(found, true);
        assert_eq!(ids(&sends.answers().await), [(true, 4)]);
        assert!(sends.lines.is_empty() && (sends.count, sends.bytes) == (0, 0));
        assert!(sends.answers().now_or_never().is_none());
    }

    #[tokio::test]
    async fn sends_are_bounded() {
        let to = AgentId::new([1; 32]);
        let post = Fake::default();
        let mut sends = Sends::new(post.clone());
        for _ in 0..MAX_IN_FLIGHT {
            sends.start(sent(to, 0)).now_or_never().expect("there is room");
        }
        assert!(sends.start(sent(to, 1)).now_or_never().is_none(), "there is no more");
        post.place(to, false);
        sends.start(sent(to, 2)).now_or_never().expect("all have ended");
        assert!(sends.has_much_to_tell());
        assert_eq!(sends.answers().await.len(), MAX_IN_FLIGHT);
        assert!(!sends.has_much_to_tell());
    }
}
