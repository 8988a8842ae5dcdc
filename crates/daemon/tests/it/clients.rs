//! Many clients at once, and one that does not read.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::timeout;

use crate::support::{EventStream, Node, Ws, stop};

/// More than a client library opens by itself, and few enough for the files that a test may open.
const MANY: usize = 300;

#[tokio::test]
async fn hundreds_of_streams_each_get_what_comes() {
    let node = Node::start(&[]).await;
    assert_eq!(node.api.post("/subscribe", &json!({"topic": "t"})).await.status, 200);
    let mut streams = Vec::new();
    for _ in 0..MANY {
        streams.push(EventStream::open(&node.api, "/events", None).await);
    }
    assert_eq!(node.api.metric("api_sse_clients").await, MANY as u64);
    let payload = data_encoding::BASE64.encode(b"hello");
    let body = json!({"topic": "t", "payload": payload});
    assert_eq!(node.api.post("/publish", &body).await.status, 200);
    let events = join_all(streams.iter_mut().map(EventStream::next)).await;
    for event in events {
        assert_eq!(event.expect("an event").payload(), b"hello");
    }
    drop(streams);
    stop(vec![node]).await;
}

/// One client of each kind that subscribes and never reads: others get everything, in order.
#[tokio::test]
async fn clients_that_do_not_read_are_left_behind_alone() {
    let node = Node::start(&[]).await;
    assert_eq!(node.api.post("/subscribe", &json!({"topic": "t"})).await.status, 200);
    let stuck_stream = EventStream::open(&node.api, "/events", None).await;
    let mut stuck_socket = Ws::open(&node.api, "/ws").await;
    stuck_socket.subscribe("t").await;
    let mut reader = Ws::open(&node.api, "/ws").await;
    reader.subscribe("t").await;
    // More than the stuck ones' sockets and buffers take.
    let (count, size) = (240, 64 * 1024);
    let agent = node.daemon.agent().clone();
    let publish = async {
        for n in 0..count {
            let mut payload = vec![0; size];
            payload[..4].copy_from_slice(&u32::to_be_bytes(n));
            agent.publish("t", payload.into()).await.expect("published");
        }
    };
    let read = async {
        for n in 0..count {
            let frame = reader.next().await;
            assert_eq!(frame["type"], "message", "{frame}");
            let payload = crate::support::payload(&frame);
            assert_eq!(payload[..4], u32::to_be_bytes(n));
        }
    };
    let both = async { tokio::join!(publish, read) };
    timeout(Duration::from_secs(30), both).await.expect("nobody waits for those who do not read");
    drop((stuck_stream, stuck_socket));
    stop(vec![node]).await;
}
