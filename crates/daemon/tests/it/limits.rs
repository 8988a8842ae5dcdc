//! What a client may take up: bytes, time, streams.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use x0x_api::{ErrorCode, limits::MAX_DIRECT_PAYLOAD};

use crate::support::{Node, request_head, stop, within};

#[tokio::test]
async fn large_heads_are_refused() {
    let node = Node::start(&[]).await;
    let api = &node.api;
    let mut headers = api.headers();
    headers.push(("X-Long".to_owned(), "x".repeat(40 * 1024)));
    let answer = api.send("GET", "/status", &headers, b"").await;
    assert_eq!(answer.status, 431);
    assert_eq!(answer.json()["code"], ErrorCode::HeadersTooLarge.as_str());
    let path = format!("/status?{}", "x".repeat(40 * 1024));
    assert_eq!(api.get(&path).await.status, 431);

    let many: Vec<_> = (0..200)
        .map(|number| (format!("X-{number}"), "x".to_owned()))
        .chain(api.headers())
        .collect();
    assert_eq!(api.send("GET", "/status", &many, b"").await.status, 431);
    stop(vec![node]).await;
}

#[tokio::test]
async fn deep_json_is_refused() {
    let node = Node::start(&[]).await;
    let mut headers = node.api.headers();
    headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
    let deep = "[".repeat(500_000);
    for path in ["/publish", "/shutdown"] {
        let answer = node.api.send("POST", path, &headers, deep.as_bytes()).await;
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    stop(vec![node]).await;
}

#[tokio::test]
async fn slow_heads_do_not_keep_others_waiting() {
    let node = Node::start(&[]).await;
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut socket = TcpStream::connect(node.api.address).await.expect("the API listens");
        socket.write_all(b"GET /health HTTP/1.1\r\nHo").await.expect("sent");
        slow.push(socket);
    }
    assert_eq!(node.api.get("/health").await.status, 200);
    stop(vec![node]).await;
    // The daemon's end closed them.
    for mut socket in slow {
        let read = within("the end", socket.read(&mut [0; 64])).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
}

#[tokio::test]
async fn a_request_that_is_cut_off_harms_nobody() {
    let node = Node::start(&[]).await;
    let mut headers = node.api.headers();
    headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
    let head = request_head("POST", "/publish", &headers) + "Content-Length: 1000\r\n\r\n{\"to";
    let mut socket = TcpStream::connect(node.api.address).await.expect("the API listens");
    socket.write_all(head.as_bytes()).await.expect("sent");
    drop(socket);
    assert_eq!(node.api.get("/health").await.status, 200);
    stop(vec![node]).await;
}

#[tokio::test]
async fn payloads_of_direct_messages_are_bounded() {
    let node = Node::start(&[]).await;
    let me = node.agent_id();
    let send = async |bytes: usize| {
        let payload = data_encoding::BASE64.encode(&vec![7; bytes]);
        node.api.post("/direct/send", &json!({"agent_id": me, "payload": payload})).await
    };
    let answer = send(MAX_DIRECT_PAYLOAD).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["path"], "loopback");
    let answer = send(MAX_DIRECT_PAYLOAD + 1).await;
    assert_eq!(answer.status, 413);
    assert_eq!(answer.json()["error"], "payload_too_large");
    stop(vec![node]).await;
}

/// What docs/api.md says of bytes that do not become a request.
#[tokio::test]
async fn what_is_no_request_is_refused_without_a_body() {
    let node = Node::start(&[]).await;
    let fields: String = (0..101).map(|n| format!("X-{n}: x\r\n")).collect();
    for (bytes, statuses) in [
        ("nonsense\r\n\r\n".to_owned(), "400"),
        (format!("GET /health HTTP/1.1\r\n{fields}\r\n"), "431"),
        (format!("GET /health HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(300_000)), "431"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(300_000)), "414 431"),
    ] {
        let mut socket = TcpStream::connect(node.api.address).await.expect("the API listens");
        // The daemon may stop reading before it has seen all of it.
        let _ = socket.write_all(bytes.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = within("the end", socket.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        // What was left unread may have taken the answer away.
        if answer.is_empty() && bytes.len() > 64 * 1024 {
            continue;
        }
        assert!(statuses.contains(answer.get(9..12).unwrap_or("none")), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
    stop(vec![node]).await;
}
