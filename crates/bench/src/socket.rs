//! WebSocket clients: a publisher that learns what became of its publishes, and a subscriber that
//! checks what it gets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use x0x_api::types::Retention;
use x0x_api::ws::{ClientFrame, FrameId, ServerFrame};
use x0x_api::{Base64, Operation, endpoint};

use crate::node::Node;

type Stream = WebSocketStream<TcpStream>;

pub(crate) async fn connect(node: &Node, operation: Operation) -> Result<Stream> {
    let url = format!("ws://{}{}", node.api, endpoint(operation).path);
    let mut request = url.into_client_request()?;
    request.headers_mut().insert("authorization", format!("Bearer {}", node.token).parse()?);
    let stream = node.place.connect(node.api).await?;
    Ok(tokio_tungstenite::client_async(request, stream).await?.0)
}

pub(crate) async fn next_frame(stream: &mut SplitStream<Stream>) -> Option<ServerFrame> {
    while let Some(Ok(message)) = stream.next().await {
        if let Message::Text(text) = message {
            return serde_json::from_str(&text).ok();
        }
    }
    None
}

/// A message of the bench: its number, then filler.
pub(crate) fn payload(number: u64, size: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(size.max(8), 0xa5);
    bytes
}

fn number_of(payload: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(payload.get(..8)?.try_into().ok()?))
}

/// Publishes on one topic.
pub(crate) struct Publisher {
    sink: SplitSink<Stream, Message>,
    topic: String,
    fate: watch::Receiver<Fate>,
    reader: JoinHandle<()>,
}

/// What became of the publishes so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct Fate {
    pub(crate) taken: u64,
    pub(crate) refused: BTreeSet<u64>,
    /// When the last of these was told.
    pub(crate) told_at: Option<Instant>,
}

impl Publisher {
    pub(crate) async fn connect(node: &Node, topic: &str) -> Result<Self> {
        let (sink, mut stream) = connect(node, Operation::Ws).await?.split();
        let (sender, fate) = watch::channel(Fate::default());
        let reader = tokio::spawn(async move {
            while let Some(frame) = next_frame(&mut stream).await {
                sender.send_modify(|fate| match frame {
                    ServerFrame::Published { count, .. } => {
                        fate.taken = count;
                        fate.told_at = Some(Instant::now());
                    }
                    ServerFrame::Error { id: Some(FrameId::Number(id)), .. } => {
                        fate.refused.insert(id);
                        fate.told_at = Some(Instant::now());
                    }
                    _ => {}
                });
            }
        });
        Ok(Self { sink, topic: topic.to_owned(), fate, reader })
    }

    /// Hands a message to the socket, which may still hold it.
    pub(crate) async fn feed(&mut self, number: u64, size: usize) -> Result<()> {
        let frame = ClientFrame::Publish {
            topic: self.topic.clone(),
            payload: Base64::encode(&payload(number, size)),
            retention: Retention::Standard,
            id: Some(FrameId::Number(number)),
            ack: true,
        };
        Ok(self.sink.feed(Message::text(serde_json::to_string(&frame)?)).await?)
    }

    pub(crate) async fn flush(&mut self) -> Result<()> {
        Ok(self.sink.flush().await?)
    }

    /// Waits until the daemon has told the fate of `count` publishes.
    pub(crate) async fn settled(&mut self, count: u64, patience: Duration) -> Result<Fate> {
        let settled = |fate: &Fate| fate.taken + fate.refused.len() as u64 >= count;
        let fate = timeout(patience, self.fate.wait_for(settled)).await;
        let fate = fate.context("the daemon did not tell the fate of every publish")??;
        Ok(fate.clone())
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// What a subscriber has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// When each number arrived, in order of arrival.
    pub(crate) arrivals: Vec<(u64, Instant)>,
    numbers: BTreeSet<u64>,
    pub(crate) duplicates: u64,
    /// Numbers that arrived behind a greater one.
    pub(crate) disordered: u64,
    /// What the daemon says this session missed.
    pub(crate) lagged: u64,
}

impl Seen {
    /// Takes note of a message; how many different ones there are now.
    fn record(&mut self, number: u64) -> u64 {
        if self.numbers.insert(number) {
            if self.numbers.last() != Some(&number) {
                self.disordered += 1;
            }
            self.arrivals.push((number, Instant::now()));
        } else {
            self.duplicates += 1;
        }
        self.numbers.len() as u64
    }

    pub(crate) fn last_arrival(&self) -> Option<Instant> {
        self.arrivals.last().map(|(_, at)| *at)
    }
}

/// Listens on one node.
pub(crate) struct Subscriber {
    seen: Arc<Mutex<Seen>>,
    count: watch::Receiver<u64>,
    reader: JoinHandle<()>,
}

impl Subscriber {
    /// Subscribes to a topic.
    pub(crate) async fn to_topic(node: &Node, topic: &str) -> Result<Self> {
        let (sink, stream) = Self::subscribed(node, topic).await?;
        Ok(Self::listen(sink, stream))
    }

    /// Subscribes to a topic, and reads nothing more.
    pub(crate) async fn that_stalls(
        node: &Node,
        topic: &str,
    ) -> Result<(SplitSink<Stream, Message>, SplitStream<Stream>)> {
        Self::subscribed(node, topic).await
    }

    async fn subscribed(
        node: &Node,
        topic: &str,
    ) -> Result<(SplitSink<Stream, Message>, SplitStream<Stream>)> {
        let (mut sink, mut stream) = connect(node, Operation::Ws).await?.split();
        let frame =
            ClientFrame::Subscribe { topics: vec![topic.to_owned()], since: BTreeMap::new() };
        sink.send(Message::text(serde_json::to_string(&frame)?)).await?;
        loop {
            match next_frame(&mut stream).await {
                Some(ServerFrame::Subscribed { .. }) => break,
                Some(ServerFrame::Error { message, .. }) => bail!("cannot subscribe: {message}"),
                Some(_) => {}
                None => bail!("the daemon closed the socket"),
            }
        }
        Ok((sink, stream))
    }

    /// Receives the direct messages of a node.
    pub(crate) async fn to_direct(node: &Node) -> Result<Self> {
        let (sink, stream) = connect(node, Operation::WsDirect).await?.split();
        Ok(Self::listen(sink, stream))
    }

    fn listen(sink: SplitSink<Stream, Message>, mut stream: SplitStream<Stream>) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (sender, count) = watch::channel(0);
        let shared = Arc::clone(&seen);
        let reader = tokio::spawn(async move {
            // The sink keeps the connection's other half open.
            let _sink = sink;
            while let Some(frame) = next_frame(&mut stream).await {
                let bytes = match frame {
                    ServerFrame::Message { payload, .. } => payload.0,
                    ServerFrame::DirectMessage(message) => message.payload.0,
                    ServerFrame::Lagged { missed, .. } => {
                        lock(&shared).lagged += missed;
                        continue;
                    }
                    _ => continue,
                };
                if let Some(number) = number_of(&bytes) {
                    let distinct = lock(&shared).record(number);
                    sender.send_replace(distinct);
                }
            }
        });
        Self { seen, count, reader }
    }

    /// Waits until this many different messages have arrived; false when they do not in time.
    pub(crate) async fn received(&mut self, count: u64, patience: Duration) -> bool {
        matches!(timeout(patience, self.count.wait_for(|seen| *seen >= count)).await, Ok(Ok(_)))
    }

    /// What has arrived so far.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_carry_their_number() {
        assert_eq!(number_of(&payload(7, 256)), Some(7));
        assert_eq!(payload(7, 256).len(), 256);
        assert_eq!(number_of(b"short"), None);
    }

    #[test]
    fn order_and_duplicates_are_seen() {
        let mut seen = Seen::default();
        for number in [0, 1, 3, 2, 3, 4] {
            seen.record(number);
        }
        assert_eq!((seen.arrivals.len(), seen.duplicates, seen.disordered), (5, 1, 1));
    }
}
