//! Clients that take what they can: connections, bodies, buffers.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Api, Node, Ws, eventually, request_head, stop, within};

/// Longer than a daemon that reads at all lets a writer wait.
const STALL: Duration = Duration::from_millis(500);

async fn connect(api: &Api) -> TcpStream {
    TcpStream::connect(api.address).await.expect("the API listens")
}

/// What comes until the daemon closes the connection.
async fn read_to_end(socket: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset is an end too.
    let _ = within("the end", socket.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// One request of several over a connection; reads all of its answer.
async fn request_over(socket: &mut TcpStream, api: &Api, path: &str) {
    let request = request_head("GET", path, &api.headers()) + "\r\n";
    socket.write_all(request.as_bytes()).await.expect("sent");
    let exchange = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.expect("the head"));
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.and_then(|text| text.parse().ok()).expect("a length");
        socket.read_exact(&mut vec![0; length]).await.expect("the body");
    };
    within("an answer", exchange).await;
}

#[tokio::test]
async fn a_refused_connection_is_closed() {
    let node = Node::start(&[]).await;
    let (api, own) = (&node.api, node.api.address);
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: evil\r\n\r\n".to_owned(), 403),
        (format!("GET /status HTTP/1.1\r\nHost: {own}\r\n\r\n"), 401),
        (format!("POST /health HTTP/1.1\r\nHost: {own}\r\n\r\n"), 405),
        (format!("OPTIONS / HTTP/1.1\r\nHost: {own}\r\n\r\n"), 405),
    ] {
        let mut socket = connect(api).await;
        socket.write_all(request.as_bytes()).await.expect("sent");
        let answer = read_to_end(&mut socket).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
    stop(vec![node]).await;
}

#[tokio::test]
async fn silent_connections_make_room_and_proven_ones_stay() {
    let node = Node::start(&[]).await;
    let api = &node.api;
    let mut proven = connect(api).await;
    request_over(&mut proven, api, "/status").await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(connect(api).await);
    }
    assert_eq!(api.get("/health").await.status, 200);
    assert_eq!(read_to_end(&mut silent[0]).await, "", "the oldest is closed");
    assert!(api.metric("api_connections_evicted_total").await >= 300 - 256);
    request_over(&mut proven, api, "/status").await;
    stop(vec![node]).await;
}

#[tokio::test]
async fn unfinished_bodies_are_bounded_together() {
    let node = Node::start(&[]).await;
    let mut headers = node.api.headers();
    headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
    let length = 22 * 1024 * 1024;
    let head = request_head("POST", "/direct/send", &headers)
        + &format!("Content-Length: {length}\r\n\r\n");
    let half = vec![b' '; length - 1];
    // Those that there is no room for wait a moment before they are refused; all at once.
    let send = async || {
        let mut socket = connect(&node.api).await;
        socket.write_all(head.as_bytes()).await.expect("sent");
        // A refused one may be closed before all is sent.
        let _ = within("the body to be taken", socket.write_all(&half)).await;
        socket
    };
    let open = futures_util::future::join_all((0..8).map(|_| send())).await;
    eventually("a body is refused", || async {
        node.api.metric("api_refused_total{code=\"busy\"}").await > 0
    })
    .await;
    let small = serde_json::json!({"topic": "t", "payload": ""});
    assert_eq!(node.api.post("/publish", &small).await.status, 200);
    drop(open);
    stop(vec![node]).await;
}

/// Bodies that nobody with a token sent take no room from those that somebody did.
#[tokio::test]
async fn bodies_without_a_token_take_no_room() {
    let node = Node::start(&[]).await;
    let head = format!(
        "GET /health HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{{",
        node.api.address,
        1024 * 1024
    );
    let mut open = Vec::new();
    for _ in 0..160 {
        let mut socket = connect(&node.api).await;
        socket.write_all(head.as_bytes()).await.expect("sent");
        open.push(socket);
    }
    // Each of them has been taken by now: connections are taken in turn.
    let payload = "A".repeat(512 * 1024);
    let body = serde_json::json!({"topic": "t", "payload": payload});
    let answer = node.api.post("/publish", &body).await;
    assert_ne!(answer.json()["code"], "busy", "{answer:?}");
    drop(open);
    stop(vec![node]).await;
}

/// Masked with zeros, which is allowed, so that the payload is what it says.
fn ping() -> Vec<u8> {
    let mut frame = vec![0x89, 0x80 | 125, 0, 0, 0, 0];
    frame.extend_from_slice(&[b'x'; 125]);
    frame
}

/// The answers to pings wait for a client that reads none, and with them all else it sends.
#[tokio::test]
async fn pings_whose_answers_are_not_read_are_not_taken() {
    let node = Node::start(&[]).await;
    let mut socket = connect(&node.api).await;
    let upgrade = format!(
        "GET /ws?token={} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        node.api.token, node.api.address
    );
    socket.write_all(upgrade.as_bytes()).await.expect("sent");
    let pings = ping().repeat(1000);
    let mut taken = 0;
    // Far more than the system buffers for both directions.
    let most = 128 * 1024 * 1024;
    while taken < most && timeout(STALL, socket.write_all(&pings)).await.is_ok() {
        taken += pings.len();
    }
    assert!(taken < most, "the daemon took all of it");
    assert_eq!(node.api.get("/health").await.status, 200, "others are served meanwhile");
    drop(socket);
    stop(vec![node]).await;
}

#[tokio::test]
async fn a_command_over_the_limit_ends_the_session() {
    let node = Node::start(&[]).await;
    let mut ws = Ws::open(&node.api, "/ws").await;
    let payload = "A".repeat(x0x_api::ws::MAX_COMMAND);
    let text = serde_json::json!({"type": "publish", "topic": "t", "payload": payload});
    let message = tokio_tungstenite::tungstenite::Message::text(text.to_string());
    // The daemon may close before all is sent.
    let _ = futures_util::SinkExt::send(&mut ws.socket, message).await;
    assert_eq!(ws.try_next().await, None);
    stop(vec![node]).await;
}
