//! Several daemons: everybody gets everything, or the publisher is told what was not taken; and a
//! daemon that is killed is missed by nobody.

use std::{collections::BTreeSet, time::Duration};

use data_encoding::BASE64;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    lifecycle::Process,
    support::{Api, Node, Ws, eventually, stop},
};

const PAYLOAD: usize = 256;
/// How long a burst may take before a test fails, on a busy machine and without optimisation.
const BURST: Duration = Duration::from_secs(90);

fn payload(number: u64) -> String {
    let mut bytes = vec![0; PAYLOAD];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    BASE64.encode(&bytes)
}

fn number(frame: &Value) -> u64 {
    let payload = frame["payload"].as_str().expect("a message");
    let bytes = BASE64.decode(payload.as_bytes()).expect("base64");
    u64::from_be_bytes(bytes[..8].try_into().expect("a number"))
}

/// Publishes numbers in a burst, and gives those that were not taken.
async fn burst(ws: Ws, numbers: std::ops::Range<u64>) -> BTreeSet<u64> {
    let last = numbers.end - 1;
    let (mut sink, mut stream) = ws.socket.split();
    let send = async move {
        for number in numbers {
            let frame = json!({
                "type": "publish",
                "topic": "burst",
                "payload": payload(number),
                "id": number,
                "ack": true,
            });
            sink.feed(Message::text(frame.to_string())).await.expect("sent");
        }
        sink.flush().await.expect("sent");
        sink
    };
    let watch = async {
        let mut refused = BTreeSet::new();
        let mut confirmed = None;
        while confirmed != Some(last) && !refused.contains(&last) {
            let frame = stream.next().await.expect("open").expect("a frame");
            let frame: Value = serde_json::from_str(frame.to_text().expect("text")).expect("JSON");
            match frame["type"].as_str() {
                Some("published") => confirmed = frame["id"].as_u64(),
                Some("error") => {
                    refused.insert(frame["id"].as_u64().expect("the publish's id"));
                }
                _ => {}
            }
        }
        refused
    };
    let both = async { tokio::join!(send, watch) };
    let (_sink, refused) = tokio::time::timeout(BURST, both).await.expect("in vain: the burst");
    refused
}

/// Reads one author's numbers until the last expected one; they must come once each and in order.
async fn collect(ws: &mut Ws, author: &str, expected: &BTreeSet<u64>) {
    for want in expected {
        loop {
            let frame = ws.next().await;
            assert_eq!(frame["type"], "message", "{frame}");
            if frame["origin"] == *author {
                assert_eq!(number(&frame), *want);
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_reaches_everybody_once_and_in_order() {
    const MESSAGES: u64 = 10_000;

    let nodes = Node::cluster(5).await;
    let mut subscribers = Vec::new();
    for node in &nodes {
        let mut ws = Ws::open(&node.api, "/ws").await;
        ws.subscribe("burst").await;
        subscribers.push(ws);
    }
    let publisher = Ws::open(&nodes[1].api, "/ws").await;
    let (author, publishing) = (nodes[1].agent_id(), tokio::spawn(burst(publisher, 0..MESSAGES)));
    let refused = publishing.await.expect("publishes");
    let expected: BTreeSet<u64> =
        (0..MESSAGES).filter(|number| !refused.contains(number)).collect();
    assert!(refused.len() < expected.len(), "{} of {MESSAGES} refused", refused.len());
    for ws in &mut subscribers {
        collect(ws, &author, &expected).await;
    }
    // Nothing comes twice: what the author says next is the next thing that anybody hears.
    let last = BASE64.decode(payload(MESSAGES).as_bytes()).expect("base64");
    nodes[1].daemon.agent().publish("burst", last.into()).await.expect("published");
    for ws in &mut subscribers {
        assert_eq!(number(&ws.next().await), MESSAGES);
        ws.send(&json!({"type": "ping"})).await;
        assert_eq!(ws.next().await, json!({"type": "pong"}));
    }
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_daemon_is_missed_by_nobody_and_rejoins() {
    const MESSAGES: u64 = 10_000;

    let nodes = Node::cluster(4).await;
    let bootstrap = nodes[0].daemon.agent().local_addresses();
    let mut victim = Process::spawn(&bootstrap).await;
    eventually("the process has joined", || async { victim.api().peers().await >= 1 }).await;
    let mut witness = Ws::open(&victim.api(), "/ws").await;
    witness.subscribe("burst").await;
    let mut subscribers = Vec::new();
    for node in &nodes {
        let mut ws = Ws::open(&node.api, "/ws").await;
        ws.subscribe("burst").await;
        subscribers.push(ws);
    }
    let publisher = Ws::open(&nodes[1].api, "/ws").await;
    let author = nodes[1].agent_id();
    let publishing = tokio::spawn(burst(publisher, 0..MESSAGES));
    // In the middle of it, as its own subscriber sees.
    while number(&witness.next().await) < MESSAGES / 10 {}
    victim.kill();
    let refused = publishing.await.expect("publishes");
    let expected: BTreeSet<u64> =
        (0..MESSAGES).filter(|number| !refused.contains(number)).collect();
    for ws in &mut subscribers {
        collect(ws, &author, &expected).await;
    }

    victim.restart(&bootstrap).await;
    let mut apis: Vec<Api> = nodes.iter().map(|node| node.api.clone()).collect();
    apis.push(victim.api());
    let rejoined = tokio::time::timeout(Duration::from_secs(5), meshed(&apis)).await;
    if rejoined.is_err() {
        let mut report = String::new();
        for (place, api) in apis.iter().enumerate() {
            report.push_str(&describe(place, api).await);
        }
        panic!("not back within five seconds\n{report}");
    }
    let mut ws = Ws::open(&victim.api(), "/ws").await;
    ws.subscribe("after").await;
    let mut publisher = Ws::open(&nodes[2].api, "/ws").await;
    publisher.send(&json!({"type": "publish", "topic": "after", "payload": "aGk="})).await;
    assert_eq!(ws.next().await["payload"], "aGk=");
    victim.terminate().await;
    stop(nodes).await;
}

async fn machine_id(api: &Api) -> String {
    api.get("/agent").await.json()["machine_id"].as_str().expect("text").to_owned()
}

/// The machines with which a daemon has a session.
async fn listed(api: &Api) -> BTreeSet<String> {
    let peers = api.get("/peers").await.json();
    let peers = peers["peers"].as_array().expect("a list").iter();
    peers.map(|peer| peer["id"].as_str().expect("text").to_owned()).collect()
}

/// Waits until every one of these daemons has a session with every other one, and says so.
async fn meshed(apis: &[Api]) {
    let mut machines = BTreeSet::new();
    for api in apis {
        machines.insert(machine_id(api).await);
    }
    for api in apis {
        let mut others = machines.clone();
        others.remove(&machine_id(api).await);
        eventually("a session with every daemon", || async {
            listed(api).await == others && api.peers().await == others.len() as u64
        })
        .await;
    }
}

/// What a daemon knows of its place, for the report of a failure.
async fn describe(place: usize, api: &Api) -> String {
    let metrics = String::from_utf8(api.get("/metrics").await.body).expect("text");
    let told = metrics.lines().filter(|line| {
        let of_layer = ["x0x_membership_", "x0x_transport_", "x0x_quic_links"];
        of_layer.iter().any(|prefix| line.starts_with(prefix)) && !line.ends_with(" 0")
    });
    let told: Vec<&str> = told.filter(|line| !line.contains("bytes")).collect();
    let (id, peers) = (machine_id(api).await, listed(api).await);
    format!("node {place}: {id} lists {peers:?}\n  {}\n", told.join("\n  "))
}
