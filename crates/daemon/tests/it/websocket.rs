//! WebSocket sessions.

use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use x0x_api::limits::{MAX_TOPICS, MAX_WS_TOPICS};

use crate::support::{Node, Ws, eventually, stop, within};

fn publish(payload: &str) -> Value {
    json!({"type": "publish", "topic": "t", "payload": payload})
}

#[tokio::test]
async fn sessions_publish_subscribe_and_are_listed() {
    let node = Node::start(&[]).await;
    let mut one = Ws::open(&node.api, "/ws").await;
    let mut two = Ws::open(&node.api, "/ws/direct").await;
    one.subscribe("t").await;
    two.subscribe("t").await;
    two.subscribe("u").await;
    let expected = json!({
        "ok": true,
        "sessions": [
            {"session_id": one.session_id, "subscribed_topics": ["t"], "receives_direct": false},
            {"session_id": two.session_id, "subscribed_topics": ["t", "u"], "receives_direct": true},
        ],
        "shared_subscriptions": {"t": 2, "u": 1},
    });
    assert_eq!(node.api.get("/ws/sessions").await.json(), expected);

    one.send(&publish("aGk=")).await;
    let message = one.next().await;
    let epoch = message["epoch"].clone();
    assert!(epoch.as_str().is_some_and(|text| text.len() == 16), "{message}");
    let expected = json!({
        "type": "message", "topic": "t", "payload": "aGk=", "origin": node.agent_id(),
        "epoch": epoch, "seq": 1, "cursor": message["cursor"],
    });
    assert!(message["cursor"].is_string(), "{message}");
    assert_eq!(message, expected);
    assert_eq!(two.next().await, message);
    // A late session gets what is kept, and can tell that it is the same message.
    let mut late = Ws::open(&node.api, "/ws").await;
    late.subscribe("t").await;
    assert_eq!(late.next().await, message);
    drop(late);
    one.send(&json!({"type": "ping"})).await;
    assert_eq!(one.next().await, json!({"type": "pong"}));

    drop(two);
    eventually("the session is gone", || async {
        node.api.get("/ws/sessions").await.json()["shared_subscriptions"] == json!({"t": 1})
    })
    .await;
    stop(vec![node]).await;
}

#[tokio::test]
async fn subscriptions_neither_double_nor_outlive_their_end() {
    let node = Node::start(&[]).await;
    let mut other = Ws::open(&node.api, "/ws").await;
    other.subscribe("t").await;
    let mut ws = Ws::open(&node.api, "/ws").await;
    ws.subscribe("t").await;
    ws.subscribe("t").await;
    ws.send(&publish("MQ==")).await;
    ws.send(&publish("Mg==")).await;
    assert_eq!(ws.next().await["payload"], "MQ==");
    assert_eq!(ws.next().await["payload"], "Mg==");
    ws.send(&json!({"type": "unsubscribe", "topics": ["t", "unknown"]})).await;
    let unsubscribed = json!({"type": "unsubscribed", "topics": ["t", "unknown"]});
    assert_eq!(ws.next().await, unsubscribed);
    ws.send(&publish("Mw==")).await;
    for payload in ["MQ==", "Mg==", "Mw=="] {
        assert_eq!(other.next().await["payload"], payload);
    }
    ws.send(&json!({"type": "ping"})).await;
    assert_eq!(ws.next().await, json!({"type": "pong"}), "nothing came in between");
    stop(vec![node]).await;
}

#[tokio::test]
async fn what_was_not_done_is_told() {
    let node = Node::start(&[]).await;
    let mut ws = Ws::open(&node.api, "/ws").await;
    for text in
        ["nonsense", "{}", r#"{"type":"dance"}"#, r#"{"type":"publish"}"#, "[]", r#"["ping"]"#]
    {
        ws.socket.send(Message::text(text)).await.expect("sent");
        let frame = ws.next().await;
        assert_eq!((&frame["type"], &frame["code"]), (&json!("error"), &json!("invalid_command")));
        assert!(frame["message"].as_str().is_some_and(|text| text.starts_with("invalid command")));
    }
    // The publishes so far had no shape; those from here on are counted.
    ws.send(&publish("aGk=")).await;
    ws.send(&publish("!")).await;
    let frame = ws.next().await;
    assert_eq!(frame["message"], "invalid base64 in payload");
    assert_eq!((&frame["code"], &frame["index"]), (&json!("invalid_base64"), &json!(2)));
    ws.send(&json!({"type": "publish", "topic": "", "payload": "", "id": "mine"})).await;
    let frame = ws.next().await;
    assert_eq!((&frame["code"], &frame["id"]), (&json!("invalid_topic"), &json!("mine")));
    assert!(frame.get("index").is_none());

    ws.send(&json!({"type": "send_direct", "agent_id": "x", "payload": "", "id": 9})).await;
    let frame = ws.next().await;
    assert_eq!((&frame["code"], &frame["id"]), (&json!("invalid_hex"), &json!(9)));
    ws.send(&json!({"type": "send_direct", "agent_id": "a".repeat(64), "payload": ""})).await;
    assert_eq!(ws.next().await["code"], "recipient_key_unavailable");
    ws.send(&json!({"type": "subscribe", "topics": ["", "ok"]})).await;
    let frame = ws.next().await;
    assert_eq!((&frame["code"], &frame["topic"]), (&json!("invalid_topic"), &json!("")));
    assert_eq!(ws.next().await, json!({"type": "subscribed", "topics": ["ok"]}));
    ws.socket.send(Message::binary(b"{}".to_vec())).await.expect("sent");
    let frame = ws.next().await;
    assert_eq!(frame["code"], "invalid_command");
    assert!(frame["message"].as_str().is_some_and(|text| text.contains("binary")), "{frame}");
    stop(vec![node]).await;
}

#[tokio::test]
async fn confirmations_are_cumulative() {
    let node = Node::start(&[]).await;
    let mut ws = Ws::open(&node.api, "/ws").await;
    for number in 1..=300 {
        let frame =
            json!({"type": "publish", "topic": "t", "payload": "", "id": number, "ack": true});
        ws.socket.feed(Message::text(frame.to_string())).await.expect("sent");
    }
    ws.socket.flush().await.expect("sent");
    let mut last = 0;
    while last < 300 {
        let frame = ws.next().await;
        assert_eq!(frame["type"], "published", "{frame}");
        let count = frame["count"].as_u64().expect("a number");
        assert_eq!(frame["id"], count);
        assert!(count > last);
        last = count;
    }
    stop(vec![node]).await;
}

#[tokio::test]
async fn direct_messages_arrive_in_order() {
    let nodes = Node::cluster(2).await;
    let (alice, bob) = (&nodes[0], &nodes[1]);
    let mut sender = Ws::open(&alice.api, "/ws").await;
    let mut receiver = Ws::open(&bob.api, "/ws/direct").await;
    let encode = |number: u32| data_encoding::BASE64.encode(&number.to_be_bytes());
    for number in 0..500 {
        let frame = json!(
            {"type": "send_direct", "agent_id": bob.agent_id(), "payload": encode(number)}
        );
        sender.send(&frame).await;
    }
    for number in 0..500 {
        let frame = receiver.next().await;
        assert_eq!(frame["type"], "direct_message", "{frame}");
        assert_eq!(frame["payload"], encode(number));
        assert_eq!(frame["sender"], alice.agent_id());
    }
    stop(nodes).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_nothing_that_is_kept() {
    let node = Node::start(&[]).await;
    let mut ws = Ws::open(&node.api, "/ws").await;
    ws.subscribe("t").await;
    // More than the socket, the outbox and the session's buffers hold together.
    let payload = vec![7; 16 * 1024];
    for _ in 0..1500 {
        let publish = node.daemon.agent().publish("t", payload.clone().into());
        within("room to publish", publish).await.expect("published");
    }
    let mut answer = node.api.get("/health").await;
    assert_eq!(answer.status, 200);
    for _ in 0..1500 {
        assert_eq!(ws.next().await["type"], "message");
    }
    answer = node.api.get("/ws/sessions").await;
    assert_eq!(answer.status, 200);
    stop(vec![node]).await;
}

#[tokio::test]
async fn a_flood_of_pings_is_answered_or_ended_but_harms_nobody() {
    let node = Node::start(&[]).await;
    let mut ws = Ws::open(&node.api, "/ws").await;
    for _ in 0..5000 {
        ws.socket.feed(Message::Ping(Default::default())).await.expect("sent");
    }
    ws.socket.flush().await.expect("sent");
    ws.send(&json!({"type": "ping"})).await;
    assert_eq!(ws.next().await, json!({"type": "pong"}));
    stop(vec![node]).await;
}

#[tokio::test]
async fn sessions_are_told_when_the_daemon_stops() {
    use futures_util::StreamExt;

    let node = Node::start(&[]).await;
    let mut ws = Ws::open(&node.api, "/ws").await;
    let api = node.api.clone();
    let stopping = tokio::spawn(node.daemon.shutdown());
    let frame = within("a close frame", ws.socket.next()).await;
    let Some(Ok(Message::Close(Some(close)))) = frame else { panic!("unexpected {frame:?}") };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (1001, "shutting down"));
    within("the end", stopping).await.expect("stops");
    assert!(tokio::net::TcpStream::connect(api.address).await.is_err());
    assert!(!node.directory.path().join("data/api.port").exists());
}

#[tokio::test]
async fn topics_are_bounded_for_a_session_and_for_the_daemon() {
    let node = Node::start(&[]).await;
    let topics = |from: usize, count: usize| {
        let topics: Vec<_> = (from..from + count).map(|n| format!("t{n}")).collect();
        json!({"type": "subscribe", "topics": topics})
    };
    let mut one = Ws::open(&node.api, "/ws").await;
    one.send(&topics(0, MAX_WS_TOPICS + 1)).await;
    let error = one.next().await;
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("limit_reached")));
    let subscribed = one.next().await;
    assert_eq!(subscribed["topics"].as_array().map(Vec::len), Some(MAX_WS_TOPICS));

    // The daemon's own topics count too.
    let mut two = Ws::open(&node.api, "/ws").await;
    two.send(&topics(MAX_WS_TOPICS, MAX_WS_TOPICS)).await;
    let error = two.next().await;
    assert_eq!(error["code"], "limit_reached");
    let message = error["message"].as_str().expect("a text");
    assert!(message.contains(&MAX_TOPICS.to_string()), "{message}");
    let refused = node.api.post("/subscribe", &json!({"topic": "one more"})).await;
    assert_eq!((refused.status, &refused.json()["code"]), (429, &json!("limit_reached")));
    drop(one);
    eventually("there is room again", || async {
        node.api.post("/subscribe", &json!({"topic": "one more"})).await.status == 200
    })
    .await;
    stop(vec![node]).await;
}

/// The close frame that a session ends with.
async fn closing(ws: &mut Ws) -> (u16, String) {
    use futures_util::StreamExt;

    loop {
        match within("a close frame", ws.socket.next()).await {
            Some(Ok(Message::Close(Some(close)))) => {
                return (close.code.into(), close.reason.as_str().to_owned());
            }
            Some(Ok(Message::Text(_))) => {}
            other => panic!("no close frame but {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_clean_close_is_answered() {
    use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

    let node = Node::start(&[]).await;
    let mut ws = Ws::open(&node.api, "/ws").await;
    ws.subscribe("t").await;
    let close = CloseFrame { code: CloseCode::Normal, reason: "done".into() };
    ws.socket.send(Message::Close(Some(close))).await.expect("sent");
    assert_eq!(closing(&mut ws).await.0, 1000);
    stop(vec![node]).await;
}

#[tokio::test]
async fn what_cannot_be_read_ends_the_session_with_its_own_code() {
    use tokio::io::AsyncWriteExt;

    let node = Node::start(&[]).await;
    // Heads of masked text frames: one that announces 16 MiB, one of two bytes that are no UTF-8.
    let mut large = vec![0x81, 0xff];
    large.extend_from_slice(&(16_u64 << 20).to_be_bytes());
    large.extend_from_slice(&[0; 4]);
    let odd = vec![0x81, 0x82, 0, 0, 0, 0, 0xff, 0xff];
    // Of an opcode that there is not.
    let broken = vec![0x83, 0x80, 0, 0, 0, 0];
    for (bytes, code) in [(large, 1009), (odd, 1007), (broken, 1002)] {
        let mut ws = Ws::open(&node.api, "/ws").await;
        ws.socket.get_mut().write_all(&bytes).await.expect("sent");
        assert_eq!(closing(&mut ws).await.0, code);
    }
    stop(vec![node]).await;
}
