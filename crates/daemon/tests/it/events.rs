//! Server-sent events: ids, resumption, lag, the end.

use serde_json::{Value, json};
use x0x_api::limits::SSE_RING;

use crate::support::{EventStream, Node, SseEvent, stop, within};

async fn publish(node: &Node, number: usize) {
    let payload = data_encoding::BASE64.encode(&number.to_be_bytes());
    let body = json!({"topic": "t", "payload": payload});
    assert_eq!(node.api.post("/publish", &body).await.status, 200);
}

fn number(event: &SseEvent) -> usize {
    usize::from_be_bytes(event.payload().try_into().expect("a number"))
}

async fn subscribed() -> Node {
    let node = Node::start(&[]).await;
    assert_eq!(node.api.post("/subscribe", &json!({"topic": "t"})).await.status, 200);
    node
}

#[tokio::test]
async fn a_client_resumes_where_it_was() {
    let node = subscribed().await;
    let mut stream = EventStream::open(&node.api, "/events", None).await;
    for n in 0..5 {
        publish(&node, n).await;
    }
    let mut last = 0;
    for n in 0..3 {
        let event = stream.next().await.expect("an event");
        assert_eq!(number(&event), n);
        let id = event.number();
        assert!(id > last, "ids rise");
        last = id;
    }
    assert_eq!(stream.retry, Some(2000));
    assert_eq!(stream.head.header("cache-control"), Some("no-cache"));
    drop(stream);
    publish(&node, 5).await;
    let mut stream = EventStream::open(&node.api, "/events", Some(&last.to_string())).await;
    for n in 3..6 {
        let event = stream.next().await.expect("an event");
        assert_eq!(number(&event), n);
        last += 1;
        assert_eq!(event.number(), last);
    }
    // An id from before this daemon's start: all there is, and a mark.
    let mut stream = EventStream::open(&node.api, "/events", Some("1")).await;
    let event = stream.next().await.expect("an event");
    assert_eq!((event.name.as_str(), event.id.as_ref()), ("lagged", None));
    assert_eq!(event.data, json!({"type": "lagged", "data": {"missed": 0}}));
    assert_eq!(number(&stream.next().await.expect("an event")), 0);
    stop(vec![node]).await;
}

#[tokio::test]
async fn a_client_that_comes_back_too_late_is_told() {
    let node = subscribed().await;
    let mut stream = EventStream::open(&node.api, "/events", None).await;
    publish(&node, 0).await;
    let first = stream.next().await.expect("an event").id;
    drop(stream);
    // Another client shows when all of them have come through.
    let mut live = EventStream::open(&node.api, "/events", None).await;
    let total = SSE_RING + 10;
    let publish = async {
        for n in 1..=total {
            let payload = n.to_be_bytes().to_vec();
            node.daemon.agent().publish("t", payload.into()).await.expect("published");
        }
    };
    let read = async {
        for n in 1..=total {
            assert_eq!(number(&live.next().await.expect("an event")), n);
        }
    };
    tokio::join!(publish, read);
    let mut stream = EventStream::open(&node.api, "/events", first.as_deref()).await;
    let event = stream.next().await.expect("an event");
    assert_eq!(event.data, json!({"type": "lagged", "data": {"missed": 10}}));
    assert_eq!(number(&stream.next().await.expect("an event")), 11);
    stop(vec![node]).await;
}

#[tokio::test]
async fn direct_messages_resume_too() {
    let node = Node::start(&[]).await;
    let send = async |text: &str| {
        let payload = data_encoding::BASE64.encode(text.as_bytes());
        let body = json!({"agent_id": node.agent_id(), "payload": payload});
        assert_eq!(node.api.post("/direct/send", &body).await.json()["path"], "loopback");
        Value::from(payload)
    };
    let (one, two) = (send("one").await, send("two").await);
    let mut stream = EventStream::open(&node.api, "/direct/events", None).await;
    let first = stream.next().await.expect("an event");
    assert_eq!(first.data["payload"], one, "what nobody read is still there");
    assert_eq!(stream.next().await.expect("an event").data["payload"], two);
    drop(stream);
    let three = send("three").await;
    let mut stream = EventStream::open(&node.api, "/direct/events", first.id.as_deref()).await;
    assert_eq!(stream.next().await.expect("an event").data["payload"], two);
    assert_eq!(stream.next().await.expect("an event").data["payload"], three);
    stop(vec![node]).await;
}

#[tokio::test]
async fn streams_end_with_the_daemon() {
    let node = subscribed().await;
    let mut events = EventStream::open(&node.api, "/events", None).await;
    let mut direct = EventStream::open(&node.api, "/direct/events?token=unused", None).await;
    assert_eq!(node.api.metric("api_sse_clients").await, 2);
    let answer = node.api.send("POST", "/shutdown", &node.api.headers(), b"").await;
    assert_eq!(answer.json(), json!({"ok": true, "message": "shutting down"}));
    within("the wish to stop", node.daemon.stop_requested()).await;
    assert_eq!(events.next().await, None);
    assert_eq!(direct.next().await, None);
    stop(vec![node]).await;
}
