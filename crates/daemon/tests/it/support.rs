//! Daemons in temporary directories, and plain clients for them. The HTTP client writes its requests
//! byte by byte, so that tests can also send what no library would.

use std::{fmt::Write as _, future::Future, net::SocketAddr, time::Duration};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};
use x0x_daemon::{Config, Daemon};

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a condition.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let wait = async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "in vain: {what}");
}

/// Fails the test when a future takes too long.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("in vain: {what}"))
}

/// A daemon in this process.
pub(crate) struct Node {
    pub(crate) daemon: Daemon,
    pub(crate) api: Api,
    pub(crate) directory: TempDir,
}

impl Node {
    pub(crate) async fn start(bootstrap: &[SocketAddr]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut config = Config::isolated(directory.path());
        config.bootstrap_peers = bootstrap.to_vec();
        Self::start_in(directory, config).await
    }

    pub(crate) async fn start_in(directory: TempDir, config: Config) -> Self {
        let daemon = Box::pin(Daemon::start(config)).await.expect("the daemon starts");
        let api = Api::new(daemon.api_address(), daemon.token().as_str());
        Self { daemon, api, directory }
    }

    /// Daemons that all know the first one, once each has a session with it.
    pub(crate) async fn cluster(size: usize) -> Vec<Self> {
        let mut nodes = vec![Self::start(&[]).await];
        let bootstrap = nodes[0].daemon.agent().local_addresses();
        for _ in 1..size {
            nodes.push(Self::start(&bootstrap).await);
        }
        for node in &nodes {
            eventually("every daemon has a peer", || async { node.api.peers().await >= 1 }).await;
        }
        nodes
    }

    pub(crate) fn agent_id(&self) -> String {
        self.daemon.agent().agent_id().to_string()
    }

    /// What `x0x --json` prints, driven at this daemon.
    pub(crate) async fn cli(&self, arguments: &[&str]) -> Value {
        self.api.cli(arguments).await
    }
}

pub(crate) async fn stop(nodes: Vec<Node>) {
    for node in nodes {
        within("the daemon stops", node.daemon.shutdown()).await;
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// A daemon's API.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
}

impl Api {
    pub(crate) fn new(address: SocketAddr, token: &str) -> Self {
        Self { address, token: token.to_owned() }
    }

    /// The headers of an ordinary request.
    pub(crate) fn headers(&self) -> Vec<(String, String)> {
        vec![
            ("Host".to_owned(), self.address.to_string()),
            ("Authorization".to_owned(), format!("Bearer {}", self.token)),
        ]
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &self.headers(), b"").await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &self.headers(), b"").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        let mut headers = self.headers();
        headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
        self.send("POST", path, &headers, body.to_string().as_bytes()).await
    }

    /// A request with its length declared.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) -> Answer {
        let mut head = request_head(method, path, headers);
        if !body.is_empty() {
            let _ = writeln!(head, "Content-Length: {}\r", body.len());
        }
        head.push_str("\r\n");
        self.raw(&[head.as_bytes(), body].concat()).await
    }

    /// Sends bytes, and reads one answer.
    pub(crate) async fn raw(&self, request: &[u8]) -> Answer {
        let exchange = async {
            let mut socket = TcpStream::connect(self.address).await.expect("the API listens");
            // A daemon that refuses early may close before all is sent; its answer counts.
            let _ = socket.write_all(request).await;
            read_answer(&mut BufReader::new(socket)).await
        };
        within("an answer", exchange).await
    }

    /// What `x0x --json` prints, driven at this daemon. The program lies beside `x0xd`.
    pub(crate) async fn cli(&self, arguments: &[&str]) -> Value {
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_x0xd")).with_file_name("x0x");
        let mut command = tokio::process::Command::new(&program);
        command.args(["--json", "--api", &self.address.to_string()]).args(arguments);
        command.env_clear().env("X0X_API_TOKEN", &self.token);
        let output = within("x0x ends", command.output()).await;
        let output = output.unwrap_or_else(|error| {
            panic!("{}: {error}; build it with: cargo build -p x0x-cli", program.display())
        });
        assert!(output.status.success(), "x0x {arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    pub(crate) async fn peers(&self) -> u64 {
        self.get("/health").await.json()["peers"].as_u64().expect("a number")
    }

    /// The value of a counter or gauge, without its prefix.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let text = String::from_utf8(self.get("/metrics").await.body).expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("x0x_{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().expect("a number")
    }
}

pub(crate) fn request_head(method: &str, path: &str, headers: &[(String, String)]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    for (name, value) in headers {
        let _ = writeln!(head, "{name}: {value}\r");
    }
    head
}

async fn read_head(reader: &mut BufReader<TcpStream>) -> Answer {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        let read = reader.read_line(&mut line).await.expect("the socket can be read");
        assert!(read > 0, "closed without an answer");
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let status = lines[0].split(' ').nth(1).and_then(|code| code.parse().ok());
    let headers = lines[1..].iter().filter_map(|line| line.split_once(": "));
    Answer {
        status: status.expect("a status line"),
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        body: Vec::new(),
    }
}

async fn read_answer(reader: &mut BufReader<TcpStream>) -> Answer {
    let mut answer = read_head(reader).await;
    let length = answer.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    answer.body.resize(length, 0);
    reader.read_exact(&mut answer.body).await.expect("the whole body");
    answer
}

/// An event as it came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SseEvent {
    pub(crate) id: Option<String>,
    pub(crate) name: String,
    pub(crate) data: Value,
}

impl SseEvent {
    /// The id, where ids are numbers.
    pub(crate) fn number(&self) -> u64 {
        self.id.as_deref().and_then(|id| id.parse().ok()).expect("a number as id")
    }

    /// The payload of a message.
    pub(crate) fn payload(&self) -> Vec<u8> {
        payload(&self.data["data"])
    }
}

/// The payload of a message, in an event or a frame.
pub(crate) fn payload(message: &Value) -> Vec<u8> {
    let payload = message["payload"].as_str().unwrap_or_else(|| panic!("no message: {message}"));
    data_encoding::BASE64.decode(payload.as_bytes()).expect("base64")
}

/// A client of an event stream.
pub(crate) struct EventStream {
    reader: BufReader<TcpStream>,
    text: String,
    pub(crate) head: Answer,
    /// The `retry` that the stream asked for.
    pub(crate) retry: Option<u64>,
}

impl EventStream {
    pub(crate) async fn open(api: &Api, path: &str, last_event_id: Option<&str>) -> Self {
        let mut headers = api.headers();
        if let Some(id) = last_event_id {
            headers.push(("Last-Event-ID".to_owned(), id.to_string()));
        }
        let open = async {
            let mut socket = TcpStream::connect(api.address).await.expect("the API listens");
            let head = request_head("GET", path, &headers) + "\r\n";
            socket.write_all(head.as_bytes()).await.expect("the request is sent");
            let mut reader = BufReader::new(socket);
            let head = read_head(&mut reader).await;
            assert_eq!(head.status, 200, "{head:?}");
            assert_eq!(head.header("content-type"), Some("text/event-stream"));
            Self { reader, text: String::new(), head, retry: None }
        };
        within("an event stream", open).await
    }

    /// The next event; `None` when the daemon ended the stream properly.
    pub(crate) async fn next(&mut self) -> Option<SseEvent> {
        within("an event", async {
            loop {
                while let Some((block, rest)) = self.text.split_once("\n\n") {
                    let (block, rest) = (block.to_owned(), rest.to_owned());
                    self.text = rest;
                    if let Some(event) = self.parse(&block) {
                        return Some(event);
                    }
                }
                if !self.read_chunk().await {
                    return None;
                }
            }
        })
        .await
    }

    fn parse(&mut self, block: &str) -> Option<SseEvent> {
        let mut event = SseEvent { id: None, name: String::new(), data: Value::Null };
        for line in block.lines() {
            match line.split_once(": ").expect("a field") {
                ("id", id) => event.id = Some(id.to_owned()),
                ("event", name) => event.name = name.to_owned(),
                ("data", data) => event.data = serde_json::from_str(data).expect("JSON"),
                ("retry", time) => self.retry = Some(time.parse().expect("a number")),
                ("", _) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
        (!event.name.is_empty()).then_some(event)
    }

    async fn read_chunk(&mut self) -> bool {
        let mut size = String::new();
        self.reader.read_line(&mut size).await.expect("a chunk");
        let size = usize::from_str_radix(size.trim(), 16).expect("the size of a chunk");
        let mut chunk = vec![0; size + 2];
        self.reader.read_exact(&mut chunk).await.expect("the chunk");
        self.text.push_str(std::str::from_utf8(&chunk[..size]).expect("text"));
        size > 0
    }
}

/// A client of a WebSocket session.
pub(crate) struct Ws {
    pub(crate) socket: tokio_tungstenite::WebSocketStream<TcpStream>,
    pub(crate) session_id: String,
}

impl Ws {
    /// Opens a session and reads its first two frames.
    pub(crate) async fn open(api: &Api, path: &str) -> Self {
        use tokio_tungstenite::tungstenite::client::IntoClientRequest;

        let url = format!("ws://{}{path}?token={}", api.address, api.token);
        let socket = TcpStream::connect(api.address).await.expect("the API listens");
        let request = url.into_client_request().expect("a valid request");
        let (socket, _) =
            tokio_tungstenite::client_async(request, socket).await.expect("an upgrade");
        let mut ws = Self { socket, session_id: String::new() };
        let connected = ws.next().await;
        assert_eq!(connected["type"], "connected");
        ws.session_id = connected["session_id"].as_str().expect("text").to_owned();
        assert_eq!(ws.next().await["type"], "pong");
        ws
    }

    pub(crate) async fn send(&mut self, frame: &Value) {
        use futures_util::SinkExt;
        let text = tokio_tungstenite::tungstenite::Message::text(frame.to_string());
        self.socket.send(text).await.expect("the frame is sent");
    }

    /// The next frame.
    pub(crate) async fn next(&mut self) -> Value {
        self.try_next().await.expect("the session is open")
    }

    /// The next frame; `None` at the end.
    pub(crate) async fn try_next(&mut self) -> Option<Value> {
        use futures_util::StreamExt;
        use tokio_tungstenite::tungstenite::Message;
        within("a frame", async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return Some(serde_json::from_str(text.as_str()).expect("JSON"));
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                    Some(Ok(_)) => {}
                }
            }
        })
        .await
    }

    pub(crate) async fn subscribe(&mut self, topic: &str) {
        self.subscribe_since(topic, None).await;
    }

    /// Subscribes from a place on.
    pub(crate) async fn subscribe_since(&mut self, topic: &str, since: Option<&str>) {
        let mut frame = serde_json::json!({"type": "subscribe", "topics": [topic]});
        if let Some(since) = since {
            frame["since"] = serde_json::json!({topic: since});
        }
        self.send(&frame).await;
        let frame = self.next().await;
        assert_eq!(frame, serde_json::json!({"type": "subscribed", "topics": [topic]}));
    }
}
