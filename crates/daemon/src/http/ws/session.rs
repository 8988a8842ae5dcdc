//! One session from upgrade to close.

use std::{sync::Arc, time::Duration};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite;
use x0x_agent::{Accepted, Agent, AgentPublishError, PublishError, Terms};
use x0x_api::{
    Base64, ErrorCode,
    limits::WS_KEEP_ALIVE,
    types::{self, DirectClass},
    ws::{ClientFrame, FrameId, ServerFrame},
};
use x0x_core::AgentId;

use super::{
    direct::{self, Sends, Sent},
    objects::Watches,
    outbox::{self, Outbox},
    publishes::{self, Publishes, Refusal},
    registry::Entry,
    topics::Topics,
    transfers,
};
use crate::{
    app::App,
    convert,
    http::{error::ApiError, extract::is_object},
};

/// How long a client may take to read a batch of frames.
const WRITE_TIME: Duration = Duration::from_secs(20);
/// How long the end of a session may take.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// How long a publish waits for room before its client is told that it was not taken. While it
/// waits the session's next frames are not read, so that the client is slowed down.
const PUBLISH_TIME: Duration = Duration::from_secs(5);
/// Publishes after which those that are settled are told, even if more frames are there.
const MAX_UNTOLD: u64 = 256;

/// Why a session ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The client closed it, or is gone.
    Client,
    /// The client sent what is not taken: the code to close with (RFC 6455, section 7.4.1), and why.
    Refused(u16, &'static str),
    /// The client did not read.
    Stuck,
    /// The daemon stops.
    Stopping,
}

/// Aborts its task when dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs a session to its end.
pub(super) async fn run(app: Arc<App>, entry: Entry, after: Option<u64>, socket: WebSocket) {
    let (mut sink, mut stream) = socket.split();
    let outbox = Arc::new(Outbox::new(entry.opened_as));
    let session_id = entry.session_id.clone();
    let connected = ServerFrame::Connected { session_id, agent_id: app.agent.agent_id() };
    outbox.push_all([connected, ServerFrame::Pong].map(|frame| outbox::text(&frame))).await;
    let _mail = entry.receives_direct.then(|| {
        Task(tokio::spawn(direct::receive(app.agent.clone(), after, Arc::clone(&outbox))))
    });
    let mut reader = Reader::new(Arc::clone(&app), entry, Arc::clone(&outbox));
    let end = tokio::select! {
        () = app.stop.cancelled() => End::Stopping,
        end = reader.run(&mut stream) => end,
        end = write(&app, &outbox, &mut sink) => end,
    };
    drop(reader);
    close(&app, end, &mut sink).await;
}

/// Writes what the outbox holds, a batch at a time, and a `pong` now and then.
async fn write(app: &App, outbox: &Outbox, sink: &mut SplitSink<WebSocket, Message>) -> End {
    let mut keep_alive = tokio::time::interval(WS_KEEP_ALIVE);
    keep_alive.reset();
    loop {
        let batch = tokio::select! {
            batch = outbox.take() => batch,
            _ = keep_alive.tick() => vec![outbox::text(&ServerFrame::Pong)],
        };
        app.metrics.ws_sent.add(batch.len() as u64);
        let write = async {
            for frame in batch {
                sink.feed(Message::Text(frame)).await?;
            }
            sink.flush().await
        };
        match tokio::time::timeout(WRITE_TIME, write).await {
            Ok(Ok(())) => outbox.note_flushed(),
            Ok(Err(_)) => return End::Client,
            Err(_) => return End::Stuck,
        }
    }
}

async fn close(app: &App, end: End, sink: &mut SplitSink<WebSocket, Message>) {
    let (code, reason) = match end {
        End::Client => {
            // The protocol itself has answered the client's close frame into its write buffer.
            let _ = tokio::time::timeout(CLOSE_TIME, sink.flush()).await;
            return;
        }
        End::Refused(code, reason) => (code, reason),
        End::Stopping => (close_code::AWAY, "shutting down"),
        End::Stuck => {
            app.metrics.ws_stuck.inc();
            return;
        }
    };
    let frame = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    // The client may be gone; then there is nobody to tell.
    let _ = tokio::time::timeout(CLOSE_TIME, sink.send(frame)).await;
}

/// Why nothing more can be read.
fn unreadable(error: axum::Error) -> End {
    use tungstenite::Error;

    match error.into_inner().downcast_ref::<Error>() {
        Some(Error::Capacity(_)) => End::Refused(close_code::SIZE, "message too large"),
        Some(Error::Utf8(_)) => End::Refused(close_code::INVALID, "text that is not UTF-8"),
        Some(Error::Io(_) | Error::ConnectionClosed | Error::AlreadyClosed) => End::Client,
        _ => End::Refused(close_code::PROTOCOL, "protocol error"),
    }
}

/// Carries out a session's frames, in order.
struct Reader {
    app: Arc<App>,
    entry: Entry,
    outbox: Arc<Outbox>,
    topics: Topics,
    sends: Sends,
    publishes: Publishes,
    watches: Watches,
    /// Watches transfers, if the client asked for that.
    transfers: Option<Task>,
    /// Publishes since their clients were last told of some.
    untold: u64,
}

impl Reader {
    fn new(app: Arc<App>, entry: Entry, outbox: Arc<Outbox>) -> Self {
        Self {
            topics: Topics::new(app.agent.clone(), Arc::clone(&outbox)),
            sends: Sends::new(app.agent.clone()),
            watches: Watches::new(Arc::clone(&app), Arc::clone(&outbox)),
            app,
            entry,
            outbox,
            publishes: Publishes::default(),
            transfers: None,
            untold: 0,
        }
    }

    async fn run(&mut self, stream: &mut SplitStream<WebSocket>) -> End {
        loop {
            if self.publishes.is_full() {
                let frames = self.publishes.settled().await;
                self.tell(frames).await;
            } else if self.untold >= MAX_UNTOLD {
                let frames = self.publishes.ready();
                self.tell(frames).await;
            }
            if self.sends.has_much_to_tell() {
                let answers = self.sends.answers().await;
                self.outbox.push_all(answers.iter().map(outbox::text)).await;
            }
            let frame = tokio::select! {
                biased;
                frame = stream.next() => frame,
                answers = self.sends.answers() => {
                    self.outbox.push_all(answers.iter().map(outbox::text)).await;
                    continue;
                }
                frames = self.publishes.settled() => {
                    self.tell(frames).await;
                    continue;
                }
            };
            match frame {
                Some(Ok(Message::Text(text))) => self.frame(&text).await,
                Some(Ok(Message::Close(_))) | None => return End::Client,
                // The protocol itself answers pings into its write buffer. No more is read until that
                // is on its way, or a client that only asks would fill the buffer without end.
                Some(Ok(Message::Ping(_))) => self.outbox.flush().await,
                Some(Ok(Message::Binary(_))) => self.invalid("binary, not text").await,
                Some(Ok(Message::Pong(_))) => {}
                Some(Err(error)) => return unreadable(error),
            }
        }
    }

    async fn frame(&mut self, text: &Utf8Bytes) {
        self.app.metrics.ws_received.inc();
        if !is_object(text.as_str().as_bytes()) {
            self.invalid("not an object").await;
            return;
        }
        match serde_json::from_str(text.as_str()) {
            Ok(ClientFrame::Publish { topic, payload, retention, id, ack }) => {
                self.publish((&topic, retention), &payload, id, ack).await;
            }
            Ok(ClientFrame::SendDirect {
                agent_id,
                payload,
                id,
                ack,
                class,
                reply_to,
                request_id,
            }) => match sent((&agent_id, &payload), class, (reply_to, request_id)) {
                Ok(sent) => self.sends.start(Sent { id, ack, ..sent }).await,
                Err(error) => self.outbox.push(&direct::failed(&error, id)).await,
            },
            Ok(ClientFrame::Subscribe { topics, since }) => {
                self.topics.subscribe(topics, &since, &self.entry).await;
            }
            Ok(ClientFrame::Unsubscribe { topics }) => {
                self.topics.unsubscribe(topics, &self.entry).await;
            }
            Ok(ClientFrame::WatchTransfers) => {
                self.transfers.get_or_insert_with(|| {
                    let (agent, outbox) = (self.app.agent.clone(), Arc::clone(&self.outbox));
                    Task(tokio::spawn(transfers::receive(agent, outbox)))
                });
            }
            Ok(ClientFrame::Watch { kind, object, after }) => {
                self.watches.watch(kind, object, after).await;
            }
            Ok(ClientFrame::Unwatch { kind, object }) => self.watches.unwatch(kind, object).await,
            Ok(ClientFrame::Ping) => self.outbox.push(&ServerFrame::Pong).await,
            Ok(_) => self.invalid("not a command of this version").await,
            Err(error) => self.invalid(&error.to_string()).await,
        }
    }

    async fn invalid(&mut self, why: &str) {
        let message = format!("invalid command: {why}");
        self.outbox.push(&outbox::error(ErrorCode::InvalidCommand, message)).await;
    }

    async fn publish(
        &mut self,
        to: (&str, types::Retention),
        payload: &str,
        id: Option<FrameId>,
        ack: bool,
    ) {
        self.publishes.seen();
        self.untold += 1;
        match publish(&self.app.agent, to, payload).await {
            Ok(accepted) => self.publishes.accepted(id, accepted, ack),
            Err(refusal) => self.publishes.refused(id, refusal),
        }
    }

    /// Tells the client what became of publishes.
    async fn tell(&mut self, frames: Vec<ServerFrame>) {
        self.untold = 0;
        self.app.metrics.ws_publishes_refused.add(self.publishes.take_refused());
        self.outbox.push_all(frames.iter().map(outbox::text)).await;
    }
}

/// A direct message of which nothing is to be told.
fn sent(
    (to, payload): (&str, &str),
    class: DirectClass,
    (reply_to, message): (Option<String>, Option<String>),
) -> Result<Sent, ApiError> {
    let (to, payload) = (to.parse::<AgentId>()?, Base64::decode(payload)?);
    let message_id = |id: Option<String>| id.as_deref().map(convert::message_id).transpose();
    let (reply_to, message) = (message_id(reply_to)?, message_id(message)?);
    let terms = Terms { kind: convert::kind(class), reply_to, ..Terms::default() };
    Ok(Sent { to, payload, terms, message, id: None, ack: false })
}

/// Publishes; what to wait for is whether it is kept.
async fn publish(
    agent: &Agent,
    (topic, retention): (&str, types::Retention),
    payload: &str,
) -> Result<Accepted, Refusal> {
    let payload = Base64::decode(payload)
        .map_err(|_| (ErrorCode::InvalidBase64, "invalid base64 in payload".to_owned()))?;
    // What is cancelled before it is accepted is not published, so that a refusal is the truth.
    let accept = agent.accept_as(topic, convert::retention(retention), payload);
    let accepted = tokio::time::timeout(PUBLISH_TIME, accept).await;
    let busy = || Err(AgentPublishError::Publish(PublishError::Busy));
    accepted.unwrap_or_else(|_| busy()).map_err(publishes::refusal)
}
