//! A keep-alive HTTP client and a WebSocket client, thin enough not to be what is measured.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, bail};
use data_encoding::BASE64;
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest},
};

/// One HTTP/1.1 connection, used for one request at a time.
#[derive(Debug)]
pub(crate) struct Http {
    stream: TcpStream,
    address: SocketAddr,
    token: String,
    buffer: Vec<u8>,
}

impl Http {
    pub(crate) async fn connect(address: SocketAddr, token: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, address, token: token.to_owned(), buffer: Vec::new() })
    }

    pub(crate) async fn get(&mut self, path: &str) -> anyhow::Result<Value> {
        let (status, body) = self.call("GET", path, None).await?;
        anyhow::ensure!(status == 200, "GET {path}: {status}");
        Ok(serde_json::from_slice(&body)?)
    }

    /// Posts JSON; the status and the body.
    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        let (status, body) = self.call("POST", path, Some(body.to_string())).await?;
        Ok((status, serde_json::from_slice(&body)?))
    }

    /// The raw text of a page.
    pub(crate) async fn text(&mut self, path: &str) -> anyhow::Result<String> {
        Ok(String::from_utf8(self.call("GET", path, None).await?.1)?)
    }

    async fn call(
        &mut self,
        method: &str,
        path: &str,
        body: Option<String>,
    ) -> anyhow::Result<(u16, Vec<u8>)> {
        let body = body.unwrap_or_default();
        let (host, token, len) = (self.address, &self.token, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {len}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> anyhow::Result<(u16, Vec<u8>)> {
        self.buffer.clear();
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
                let status = head.get(9..12).context("short status line")?.parse()?;
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length:"))
                    .context("no content-length")?
                    .trim()
                    .parse::<usize>()?;
                while self.buffer.len() < end + 4 + length {
                    self.fill().await?;
                }
                return Ok((status, self.buffer[end + 4..end + 4 + length].to_vec()));
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("the daemon closed the connection");
        }
        Ok(())
    }
}

/// A WebSocket session, split so that it can send and receive at once.
#[derive(Debug)]
pub(crate) struct Ws {
    pub(crate) sink: SplitSink<WebSocketStream<TcpStream>, Message>,
    pub(crate) stream: SplitStream<WebSocketStream<TcpStream>>,
}

impl Ws {
    pub(crate) async fn connect(
        address: SocketAddr,
        token: &str,
        path: &str,
    ) -> anyhow::Result<Self> {
        let mut request = format!("ws://{address}{path}").into_client_request()?;
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let (ws, _) = tokio_tungstenite::client_async(request, socket).await?;
        let (sink, stream) = ws.split();
        Ok(Self { sink, stream })
    }

    /// Subscribes and waits until the daemon says so.
    pub(crate) async fn subscribe(&mut self, topic: &str) -> anyhow::Result<()> {
        let frame = serde_json::json!({ "type": "subscribe", "topics": [topic] });
        self.sink.send(Message::text(frame.to_string())).await?;
        loop {
            let frame = self.next().await?.context("closed before the subscription")?;
            if frame["type"] == "subscribed" {
                return Ok(());
            }
            anyhow::ensure!(frame["type"] != "error", "refused: {frame}");
        }
    }

    /// The next JSON frame; `None` at the end.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        next_frame(&mut self.stream).await
    }
}

/// The next JSON frame of a session; `None` at the end, or after silence of 30 s.
pub(crate) async fn next_frame(
    stream: &mut SplitStream<WebSocketStream<TcpStream>>,
) -> anyhow::Result<Option<Value>> {
    loop {
        let wait = tokio::time::timeout(Duration::from_secs(30), stream.next());
        match wait.await {
            Ok(Some(Ok(Message::Text(text)))) => return Ok(Some(serde_json::from_str(&text)?)),
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(error))) => return Err(error.into()),
            Ok(None) | Err(_) => return Ok(None),
        }
    }
}

/// A payload of `size` bytes that begins with a number and the send time in microseconds.
pub(crate) fn payload(number: u64, sent_micros: u64, size: usize) -> String {
    let mut bytes = vec![b'.'; size.max(16)];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..16].copy_from_slice(&sent_micros.to_be_bytes());
    BASE64.encode(&bytes)
}

/// The number and the send time of a payload.
pub(crate) fn parse_payload(text: &str) -> Option<(u64, u64)> {
    let bytes = BASE64.decode(text.as_bytes()).ok()?;
    let word = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    Some((word(0)?, word(8)?))
}
