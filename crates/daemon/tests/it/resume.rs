//! Clients that come back: to the same daemon, to one that was killed meanwhile, to another one.

use serde_json::{Value, json};
use x0x_api::ErrorCode;

use crate::{
    lifecycle::Process,
    support::{Api, EventStream, Node, Ws, payload, stop},
};

async fn publish(api: &Api, topic: &str, texts: &[&str]) -> Vec<Value> {
    let mut answers = Vec::new();
    for text in texts {
        let payload = data_encoding::BASE64.encode(text.as_bytes());
        let answer = api.post("/publish", &json!({"topic": topic, "payload": payload})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answers.push(answer.json());
    }
    answers
}

async fn read(stream: &mut EventStream, texts: &[&str]) -> Option<String> {
    let mut last = None;
    for text in texts {
        let event = stream.next().await.expect("an event");
        assert_eq!(event.payload(), text.as_bytes(), "{event:?}");
        last = event.id;
    }
    last
}

async fn read_frames(ws: &mut Ws, texts: &[&str]) -> String {
    let mut last = String::new();
    for text in texts {
        let frame = ws.next().await;
        assert_eq!(frame["type"], "message", "{frame}");
        assert_eq!(payload(&frame), text.as_bytes());
        last = frame["cursor"].as_str().expect("text").to_owned();
    }
    last
}

#[tokio::test]
async fn a_stream_of_topics_goes_on_where_it_was() {
    let node = Node::start(&[]).await;
    let api = &node.api;
    publish(api, "a", &["1", "2"]).await;
    let mut stream = EventStream::open(api, "/events?topic=a", None).await;
    let last = read(&mut stream, &["1", "2"]).await;
    drop(stream);
    publish(api, "a", &["3"]).await;
    let mut stream = EventStream::open(api, "/events?topic=a", last.as_deref()).await;
    read(&mut stream, &["3"]).await;

    // Two topics: the ids carry both places.
    let both = "/events?topic=a&topic=b";
    let mut stream = EventStream::open(api, both, None).await;
    read(&mut stream, &["1", "2", "3"]).await;
    publish(api, "b", &["x"]).await;
    let last = read(&mut stream, &["x"]).await.expect("an id");
    publish(api, "a", &["4"]).await;
    publish(api, "b", &["y"]).await;
    let mut stream = EventStream::open(api, both, Some(&last)).await;
    let mut texts = Vec::new();
    for _ in 0..2 {
        texts.push(stream.next().await.expect("an event").payload());
    }
    texts.sort();
    assert_eq!(texts, [b"4", b"y"]);
    let since = format!("{both}&since={}", last.replace(',', "%2C"));
    let mut stream = EventStream::open(api, &since, None).await;
    assert!(stream.next().await.is_some_and(|event| texts.contains(&event.payload())));

    let mut now = EventStream::open(api, "/events?topic=a&since=now", None).await;
    publish(api, "a", &["5"]).await;
    read(&mut now, &["5"]).await;
    stop(vec![node]).await;
}

#[tokio::test]
async fn subscriptions_begin_where_they_are_told() {
    let node = Node::start(&[]).await;
    let api = &node.api;
    let answers = publish(api, "a", &["1", "2", "3"]).await;
    let second = answers[1]["cursor"].as_str().expect("text");
    let mut ws = Ws::open(api, "/ws").await;
    ws.subscribe_since("a", Some(second)).await;
    let third = read_frames(&mut ws, &["3"]).await;
    assert_eq!(answers[2]["cursor"], third);

    let mut events = EventStream::open(api, "/events", None).await;
    let request = json!({"topic": "a", "since": second});
    assert_eq!(api.post("/subscribe", &request).await.status, 200);
    read(&mut events, &["3"]).await;
    let mut late = Ws::open(api, "/ws").await;
    late.subscribe_since("a", Some("now")).await;
    publish(api, "a", &["4"]).await;
    read_frames(&mut late, &["4"]).await;
    stop(vec![node]).await;
}

#[tokio::test]
async fn what_is_no_cursor_is_refused() {
    let node = Node::start(&[]).await;
    let api = &node.api;
    let request = json!({"topic": "a", "since": "yesterday"});
    let bad = [
        (api.post("/subscribe", &request).await, ErrorCode::InvalidCursor),
        (api.get("/events?topic=a&since=x").await, ErrorCode::InvalidCursor),
        (api.get("/events?topic=a&topic=b&since=1-1").await, ErrorCode::InvalidCursor),
        (api.get("/events?since=1-1").await, ErrorCode::InvalidQuery),
        (api.get("/events?topic=a&topic=a").await, ErrorCode::InvalidQuery),
        (api.get("/events?topic=").await, ErrorCode::InvalidTopic),
    ];
    for (answer, code) in bad {
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!(code)), "{answer:?}");
    }
    let mut ws = Ws::open(api, "/ws").await;
    let subscribe = json!({"type": "subscribe", "topics": ["a"], "since": {"a": "x"}});
    ws.send(&subscribe).await;
    assert_eq!(ws.next().await["code"], "invalid_cursor");
    assert_eq!(ws.next().await, json!({"type": "subscribed", "topics": []}));
    stop(vec![node]).await;
}

/// What was acknowledged is there after a kill, and clients go on at their cursors.
#[tokio::test]
async fn topics_and_cursors_outlive_a_killed_daemon() {
    let mut process = Process::spawn(&[]).await;
    publish(&process.api(), "a", &["1", "2", "3"]).await;
    let mut stream = EventStream::open(&process.api(), "/events?topic=a", None).await;
    let last = read(&mut stream, &["1", "2"]).await.expect("an id");
    process.kill();
    process.restart(&[]).await;
    let api = process.api();
    let mut stream = EventStream::open(&api, "/events?topic=a", Some(&last)).await;
    read(&mut stream, &["3"]).await;
    publish(&api, "a", &["4"]).await;
    read(&mut stream, &["4"]).await;
    let mut ws = Ws::open(&api, "/ws").await;
    ws.subscribe_since("a", Some(&last)).await;
    read_frames(&mut ws, &["3", "4"]).await;
    let mut fresh = Ws::open(&api, "/ws").await;
    fresh.subscribe("a").await;
    read_frames(&mut fresh, &["1", "2", "3", "4"]).await;
    assert_eq!(process.terminate().await, Some(0));
}

/// A daemon is killed in the middle of a burst that it receives, again and again: a client that goes on
/// at the last message it got sees each message once, in order.
#[tokio::test]
async fn a_reader_of_a_killed_daemon_gets_each_message_once() {
    const MESSAGES: usize = 600;
    let source = Node::start(&[]).await;
    let bootstrap = source.daemon.agent().local_addresses();
    let mut process = Process::spawn(&bootstrap).await;
    let mut stream = EventStream::open(&process.api(), "/events?topic=a", None).await;
    let api = source.api.clone();
    let burst = tokio::spawn(async move {
        for n in 0..MESSAGES {
            publish(&api, "a", &[&n.to_string()]).await;
        }
    });
    let (mut last, mut next, mut kills) = (None, 0, 0);
    while next < MESSAGES {
        let event = stream.next().await.expect("an event");
        assert_eq!(event.payload(), next.to_string().as_bytes(), "after {kills} kills: {event:?}");
        (last, next) = (event.id, next + 1);
        if next == 40 + kills * 150 && kills < 3 {
            kills += 1;
            process.kill();
            process.restart(&bootstrap).await;
            stream = EventStream::open(&process.api(), "/events?topic=a", last.as_deref()).await;
        }
    }
    assert_eq!(kills, 3);
    burst.await.expect("everything is published");
    // Nothing comes again behind it either.
    publish(&source.api, "a", &["end"]).await;
    read(&mut stream, &["end"]).await;
    assert!(last.is_some());
    assert_eq!(process.terminate().await, Some(0));
    stop(vec![source]).await;
}

#[tokio::test]
async fn messages_are_kept_as_their_publisher_says() {
    let node = Node::start(&[]).await;
    let api = &node.api;
    let send = async |text: &str, retention: &str| {
        let payload = data_encoding::BASE64.encode(text.as_bytes());
        let body = json!({"topic": "a", "payload": payload, "retention": retention});
        api.post("/publish", &body).await
    };
    for (text, retention) in
        [("1", "latest"), ("2", "standard"), ("3", "latest"), ("4", "ephemeral")]
    {
        let answer = send(text, retention).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let mut stream = EventStream::open(api, "/events?topic=a", None).await;
    read(&mut stream, &["2", "3", "4"]).await;
    let refused = send("5", "for ever").await;
    assert_eq!((refused.status, &refused.json()["code"]), (400, &json!("invalid_value")));
    let mut ws = Ws::open(api, "/ws").await;
    let frame = json!({"type": "publish", "topic": "a", "payload": "NQ==", "retention": "never"});
    ws.send(&frame).await;
    assert_eq!(ws.next().await["code"], "invalid_command");
    let frame = json!({"type": "publish", "topic": "a", "payload": "NQ==", "retention": "latest"});
    ws.send(&frame).await;
    read(&mut stream, &["5"]).await;
    stop(vec![node]).await;
}

#[tokio::test]
async fn a_cursor_of_another_daemon_begins_with_a_mark() {
    let nodes = Node::cluster(2).await;
    let (one, two) = (&nodes[0].api, &nodes[1].api);
    let mut ws = Ws::open(two, "/ws").await;
    ws.subscribe("a").await;
    let answers = publish(one, "a", &["1", "2"]).await;
    read_frames(&mut ws, &["1", "2"]).await;
    let cursor = answers[0]["cursor"].as_str().expect("text");
    let mut other = Ws::open(two, "/ws").await;
    other.subscribe_since("a", Some(cursor)).await;
    let mark = other.next().await;
    assert_eq!((&mark["type"], &mark["topic"]), (&json!("lagged"), &json!("a")), "{mark}");
    read_frames(&mut other, &["1", "2"]).await;
    stop(nodes).await;
}
