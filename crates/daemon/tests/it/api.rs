//! Shapes of answers, and two daemons that talk.

use data_encoding::BASE64;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use x0x_api::{VERSION, types};

use crate::support::{Answer, EventStream, Node, eventually, stop};

/// An answer as the type that the table promises, with no key beyond it.
pub(crate) fn typed<T: DeserializeOwned + serde::Serialize>(answer: &Answer) -> T {
    assert_eq!(answer.status, 200, "{answer:?}");
    let value: T = serde_json::from_value(answer.json()).expect("the promised shape");
    assert_eq!(serde_json::to_value(&value).expect("serialises"), answer.json());
    value
}

#[tokio::test]
async fn a_lonely_daemon_answers_in_the_promised_shapes() {
    let node = Node::start(&[]).await;
    let api = &node.api;
    let anonymous = [("Host".to_owned(), api.address.to_string())];
    let health: types::HealthResponse = typed(&api.send("GET", "/health", &anonymous, b"").await);
    assert_eq!((health.status.as_str(), health.version.as_str()), ("healthy", VERSION));
    assert_eq!(health.peers, 0);

    let status: types::StatusResponse = typed(&api.get("/status").await);
    assert_eq!(status.status, types::ConnectionStatus::Connecting);
    assert_eq!(status.api_address, api.address);
    assert_eq!(status.agent_id.to_string(), node.agent_id());
    assert!(!status.external_addrs.is_empty() && status.warnings.is_empty());

    let agent: types::AgentResponse = typed(&api.get("/agent").await);
    assert_eq!(agent.agent_id, status.agent_id);
    assert_eq!(agent.kem_public_key_b64.0.len(), 1184);
    assert_eq!(api.get("/agent").await.json()["user_id"], Value::Null);

    let network: types::NetworkStatusResponse = typed(&api.get("/network/status").await);
    assert!(network.local_addr.is_some());
    assert_eq!((network.nat_type.as_str(), network.connected_peers), ("Unknown", 0));
    assert!(typed::<types::PeersResponse>(&api.get("/peers").await).peers.is_empty());
    let connections: types::DirectConnectionsResponse =
        typed(&api.get("/direct/connections").await);
    assert!(connections.connections.is_empty());
    typed::<types::DiscoveredAgentsResponse>(&api.get("/agents/discovered").await);

    let connect = json!({"agent_id": "a".repeat(64)});
    let answer = api.post("/agents/connect", &connect).await;
    assert_eq!(answer.json(), json!({"ok": true, "outcome": "NotFound", "addr": null}));
    let announce: types::AnnounceResponse = typed(&api.post("/announce", &json!({})).await);
    assert!(!announce.include_user_identity);
    let empty = api.send("POST", "/announce", &api.headers(), b"").await;
    assert_eq!(empty.json(), json!({"ok": true, "include_user_identity": false}));
    stop(vec![node]).await;
}

#[tokio::test]
async fn documents_are_served() {
    let node = Node::start(&[]).await;
    let answer = node.api.get("/openapi.json").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(String::from_utf8(answer.body).expect("text"), x0x_api::OPENAPI);

    let answer = node.api.get("/metrics").await;
    assert_eq!(answer.header("content-type"), Some(x0x_api::endpoints::OPENMETRICS));
    let text = String::from_utf8(answer.body).expect("text");
    assert!(text.ends_with("# EOF\n"));
    let mut names: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "a metric comes twice in\n{text}");
    assert!(names.iter().all(|line| line.starts_with("# TYPE x0x_")));
    stop(vec![node]).await;
}

#[tokio::test]
async fn publishes_tell_who_has_them_and_diagnostics_how() {
    let nodes = Node::cluster(2).await;
    let (one, two) = (&nodes[0].api, &nodes[1].api);
    let publish = json!({"topic": "news", "payload": "aGk=", "require_ack_ms": 100});
    let alone: types::PublishResponse = typed(&one.post("/publish", &publish).await);
    assert_eq!(alone.topic_peers, 0);
    let ack = alone.require_ack.expect("asked for");
    assert!(!ack.ok && ack.error.is_some_and(|why| why.contains("no peer")));
    assert_eq!(two.post("/subscribe", &json!({"topic": "news"})).await.status, 200);
    eventually("the subscriber confirms", || async {
        let publish = json!({"topic": "news", "payload": "aGk=", "require_ack_ms": 500});
        let answer: types::PublishResponse = typed(&one.post("/publish", &publish).await);
        answer.topic_peers == 1 && answer.require_ack.is_some_and(|ack| ack.ok)
    })
    .await;

    let answer: types::GossipDiagnosticsResponse = typed(&one.get("/diagnostics/gossip").await);
    assert_eq!(answer.neighbors, [nodes[1].daemon.agent().machine_id()]);
    assert_eq!((answer.links.len(), answer.links[0].neighbor), (1, true));
    let topic = answer.topics.iter().find(|topic| topic.topic.as_deref() == Some("news"));
    let topic = topic.expect("it has a log");
    assert_eq!((topic.eager + topic.lazy, topic.subscriptions, topic.authors), (1, 0, 1));
    assert!(topic.messages >= 2 && answer.stats.publish_total >= 2);
    let peer: types::GossipDiagnosticsResponse = typed(&two.get("/diagnostics/gossip").await);
    let topic = peer.topics.iter().find(|topic| topic.topic.as_deref() == Some("news"));
    assert_eq!(topic.map(|topic| topic.subscriptions), Some(1));
    assert!(one.metric("store_commits_total").await > 0);
    stop(nodes).await;
}

#[tokio::test]
async fn own_publishes_come_back_once_a_subscription() {
    let node = Node::start(&[]).await;
    let api = &node.api;
    let subscribe = async || {
        let answer = api.post("/subscribe", &json!({"topic": "news"})).await;
        typed::<types::SubscribeResponse>(&answer).subscription_id
    };
    let (first, second) = (subscribe().await, subscribe().await);
    assert_eq!(first.len(), 16);
    let mut events = EventStream::open(api, "/events", None).await;
    let publish = json!({"topic": "news", "payload": "aGk="});
    let published: types::PublishResponse = typed(&api.post("/publish", &publish).await);
    assert_eq!((published.seq, published.topic_peers), (1, 0));
    assert_eq!(published.require_ack, None);
    let mut seen = Vec::new();
    for _ in 0..2 {
        let event = events.next().await.expect("an event");
        assert_eq!(event.name, "message");
        let id = event.data["data"]["subscription_id"].as_str().expect("text").to_owned();
        let epoch = event.data["data"]["epoch"].clone();
        assert!(epoch.as_str().is_some_and(|text| text.len() == 16), "{epoch}");
        let expected = json!({"type": "message", "data": {
            "subscription_id": id,
            "topic": "news",
            "payload": "aGk=",
            "sender": node.agent_id(),
            "verified": true,
            "trust_level": "unknown",
            "epoch": epoch,
            "seq": 1,
            "cursor": published.cursor.expect("a place"),
        }});
        assert_eq!(event.data, expected);
        seen.push(id);
    }
    seen.sort();
    let mut expected = [first.clone(), second.clone()];
    expected.sort();
    assert_eq!(seen, expected);

    // A subscription that is gone brings nothing more.
    let path = format!("/subscribe/{first}");
    assert_eq!(api.delete(&path).await.json(), json!({"ok": true}));
    assert_eq!(api.delete(&path).await.status, 404);
    assert_eq!(api.post("/publish", &publish).await.status, 200);
    assert_eq!(api.post("/publish", &publish).await.status, 200);
    for _ in 0..2 {
        let event = events.next().await.expect("an event");
        assert_eq!(event.data["data"]["subscription_id"], second);
    }
    stop(vec![node]).await;
}

#[tokio::test]
async fn two_daemons_find_each_other_and_talk() {
    let nodes = Node::cluster(2).await;
    let (alice, bob) = (&nodes[0], &nodes[1]);
    let peers: types::PeersResponse = typed(&alice.api.get("/peers").await);
    assert_eq!(peers.peers.len(), 1);
    assert_eq!(peers.peers[0].id, bob.daemon.agent().machine_id());
    let network: types::NetworkStatusResponse = typed(&alice.api.get("/network/status").await);
    assert_eq!(network.can_receive_direct, Some(true));
    let status: types::StatusResponse = typed(&bob.api.get("/status").await);
    assert_eq!(status.status, types::ConnectionStatus::Connected);

    let subscribed = bob.api.post("/subscribe", &json!({"topic": "news"})).await;
    assert_eq!(subscribed.status, 200);
    let mut events = EventStream::open(&bob.api, "/events", None).await;
    let publish = json!({"topic": "news", "payload": "aGk="});
    assert_eq!(alice.api.post("/publish", &publish).await.status, 200);
    let event = events.next().await.expect("an event");
    assert_eq!(event.data["data"]["sender"], alice.agent_id());
    assert_eq!(event.data["data"]["payload"], "aGk=");

    let path = format!("/agents/discovered/{}?wait=true", bob.agent_id());
    let found: types::DiscoveredAgentResponse = typed(&alice.api.get(&path).await);
    assert_eq!(found.agent.machine_id, bob.daemon.agent().machine_id());
    eventually("the list has the agent", || async {
        let list: types::DiscoveredAgentsResponse =
            typed(&alice.api.get("/agents/discovered").await);
        list.agents.iter().any(|agent| agent.agent_id == found.agent.agent_id)
    })
    .await;
    stop(nodes).await;
}

#[tokio::test]
async fn direct_messages_are_acknowledged_by_the_receiver() {
    let nodes = Node::cluster(2).await;
    let (alice, bob) = (&nodes[0], &nodes[1]);
    eventually("the agent is connected", || async {
        let answer = alice.api.get("/direct/connections").await;
        let list: types::DirectConnectionsResponse = typed(&answer);
        list.connections.iter().any(|one| one.agent_id == bob.daemon.agent().agent_id())
    })
    .await;
    let connect = json!({"agent_id": bob.agent_id()});
    let connected: types::ConnectResponse =
        typed(&alice.api.post("/agents/connect", &connect).await);
    assert_eq!(connected.outcome, types::ConnectOutcome::AlreadyConnected);
    assert!(connected.addr.is_some());

    let mut events = EventStream::open(&bob.api, "/direct/events", None).await;
    let payload = BASE64.encode(b"hello bob");
    let message = json!({"agent_id": bob.agent_id(), "payload": payload, "require_ack_ms": 30000});
    let sent: types::DirectSendResponse = typed(&alice.api.post("/direct/send", &message).await);
    assert_eq!(sent.path, types::DirectPath::RawQuicAcked);
    assert_eq!(sent.request_id.len(), 32);
    assert!(sent.require_ack.is_some_and(|ack| ack.ok));
    let event = events.next().await.expect("an event");
    assert_eq!(event.name, "direct_message");
    assert_eq!(event.data["sender"], alice.agent_id());
    assert_eq!(event.data["machine_id"], alice.daemon.agent().machine_id().to_string());
    assert_eq!(event.data["payload"], payload);
    assert_eq!(event.data["verified"], true);
    assert_eq!(event.data["trust_decision"], "unknown");
    assert!(event.data["received_at"].as_u64().is_some_and(|time| time > 1_600_000_000_000));

    let nobody = json!({"agent_id": "a".repeat(64), "payload": ""});
    let answer = alice.api.post("/direct/send", &nobody).await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.json()["error"], "recipient_key_unavailable");
    assert_eq!(answer.json()["code"], "recipient_key_unavailable");
    assert!(answer.json()["detail"].is_string());
    stop(nodes).await;
}
