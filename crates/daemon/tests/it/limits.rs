//! What a client may take up: bytes, time, streams.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use x0x_api::{ErrorCode, limits::MAX_DIRECT_PAYLOAD};

use crate::support::{Node, eventually, request_head, stop, within};

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

/// Bytes that never become a request are answered like every other failure.
#[tokio::test]
async fn what_is_no_request_is_refused_with_the_same_body() {
    let node = Node::start(&[]).await;
    let fields: String = (0..101).map(|n| format!("X-{n}: x\r\n")).collect();
    let long = "x".repeat(300_000);
    for (bytes, code) in [
        ("nonsense\r\n\r\n".to_owned(), ErrorCode::BadRequest),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), ErrorCode::BadRequest),
        (format!("GET /health HTTP/1.1\r\n{fields}\r\n"), ErrorCode::HeadersTooLarge),
        (format!("GET /health HTTP/1.1\r\nX: {long}\r\n\r\n"), ErrorCode::HeadersTooLarge),
        (format!("GET /{long} HTTP/1.1\r\n\r\n"), ErrorCode::HeadersTooLarge),
        (format!("GET /health HTTP/1.1\r\nX: {long}"), ErrorCode::HeadersTooLarge),
    ] {
        let answer = node.api.raw(bytes.as_bytes()).await;
        let what = &bytes[..bytes.len().min(30)];
        assert_eq!(answer.status, code.status(), "{what}: {answer:?}");
        assert_eq!(answer.json()["code"], code.as_str(), "{what}");
        assert_eq!(answer.header("connection"), Some("close"), "{what}");
    }
    let refused = node.api.metric("api_refused_total{code=\"headers_too_large\"}").await;
    assert!(refused >= 4, "{refused}");
    stop(vec![node]).await;
}

/// A client that sends all of a large body gets to read that there is no room for it now.
#[tokio::test]
async fn a_body_without_room_is_refused_with_a_time_to_try_again() {
    let node = Node::start(&[]).await;
    let mut headers = node.api.headers();
    headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
    let body = vec![b' '; 23 << 20];
    let head = request_head("POST", "/direct/send", &headers)
        + &format!("Content-Length: {}\r\n\r\n", body.len());
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut socket = TcpStream::connect(node.api.address).await.expect("the API listens");
        socket.write_all(head.as_bytes()).await.expect("sent");
        open.push(socket);
    }
    let sixth = [head.as_bytes(), &body].concat();
    eventually("there is no room", || async {
        let answer = node.api.raw(&sixth).await;
        answer.status == 429 && answer.header("retry-after") == Some("1")
    })
    .await;
    drop(open);
    eventually("there is room again", || async { node.api.raw(&sixth).await.status == 400 }).await;
    stop(vec![node]).await;
}
