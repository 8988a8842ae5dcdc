//! Who knows one another goes on without those who introduced them; and who is gone is seen to be gone.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::{
    lifecycle::Process,
    support::{Api, EventStream, Node, Ws, eventually, payload, stop},
};

/// Within this time whoever has a session sees that an agent was killed, as the documentation of
/// presence says.
const OFFLINE: Duration = Duration::from_secs(33);

fn encoded(text: &str) -> String {
    data_encoding::BASE64.encode(text.as_bytes())
}

async fn listening(process: &Process) -> Vec<std::net::SocketAddr> {
    let status = process.api().get("/network/status").await.json();
    vec![status["local_addr"].as_str().expect("an address").parse().expect("an address")]
}

async fn finds(from: &Api, id: &str) {
    let answer = from.post(&format!("/agents/find/{id}"), &json!({})).await.json();
    assert_eq!(answer["found"], true, "{answer}");
}

async fn sends(from: &Api, to: &Node, text: &str) {
    let mut direct = EventStream::open(&to.api, "/direct/events", None).await;
    let request = json!({"agent_id": to.agent_id(), "payload": encoded(text)});
    eventually("it is sent", || async { from.post("/direct/send", &request).await.status == 200 })
        .await;
    loop {
        let event = direct.next().await.expect("open");
        if payload(&event.data) == text.as_bytes() {
            return;
        }
    }
}

/// What one publishes all the others read.
async fn talk(apis: &[&Api], topic: &str) {
    let mut readers = Vec::new();
    for api in apis {
        let mut reader = Ws::open(api, "/ws").await;
        reader.subscribe(topic).await;
        readers.push(reader);
    }
    for (n, api) in apis.iter().enumerate() {
        let message = json!({"topic": topic, "payload": encoded(&n.to_string())});
        assert_eq!(api.post("/publish", &message).await.status, 200);
    }
    for reader in &mut readers {
        let mut seen = Vec::new();
        while seen.len() < apis.len() {
            let frame = reader.next().await;
            if frame["type"] == "message" {
                seen.push(String::from_utf8(payload(&frame)).expect("text"));
            }
        }
        seen.sort();
        let all: Vec<String> = (0..apis.len()).map(|n| n.to_string()).collect();
        assert_eq!(seen, all);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_bootstrap_nodes_all_goes_on_and_a_card_is_enough_to_join() {
    let mut first = Process::spawn(&[]).await;
    let mut second = Process::spawn(&listening(&first).await).await;
    let hints = [listening(&first).await, listening(&second).await].concat();
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(Node::start(&hints).await);
    }
    // Acquainted: each knows each, and watches the next.
    for n in 0..nodes.len() {
        for other in &nodes {
            let path = format!("/agents/discovered/{}", other.agent_id());
            let api = &nodes[n].api;
            eventually("discovered", || async { api.get(&path).await.status == 200 }).await;
        }
        let next = nodes[(n + 1) % nodes.len()].agent_id();
        let contact = json!({"agent_id": next, "trust_level": "trusted"});
        assert_eq!(nodes[n].api.post("/contacts", &contact).await.status, 201);
    }
    first.kill();
    second.kill();

    for n in 0..nodes.len() {
        let next = &nodes[(n + 1) % nodes.len()];
        finds(&nodes[n].api, &next.agent_id()).await;
        sends(&nodes[n].api, next, &format!("from {n}")).await;
        let path = format!("/presence/status/{}", next.agent_id());
        let api = &nodes[n].api;
        let online = || async { api.get(&path).await.json()["state"] == "online" };
        eventually("its contact is online", online).await;
    }
    talk(&nodes.iter().map(|node| &node.api).collect::<Vec<_>>(), "after").await;

    // A newcomer knows nobody but by a card that it was given.
    let newcomer = Node::start(&[]).await;
    let card = nodes[2].api.get("/agent/card?display_name=Two").await.json();
    let import = json!({"card": card["link"]});
    assert_eq!(newcomer.api.post("/agent/card/import", &import).await.status, 200);
    eventually("it joins", || async { newcomer.api.peers().await >= 1 }).await;
    for node in &nodes {
        let path = format!("/agents/find/{}", node.agent_id());
        let api = &newcomer.api;
        eventually("it finds everybody", || async {
            api.post(&path, &json!({})).await.json()["found"] == true
        })
        .await;
    }
    sends(&newcomer.api, &nodes[0], "from the newcomer").await;
    sends(&nodes[1].api, &newcomer, "to the newcomer").await;
    nodes.push(newcomer);
    talk(&nodes.iter().map(|node| &node.api).collect::<Vec<_>>(), "with the newcomer").await;
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_killed_is_offline_within_the_stated_time() {
    let nodes = Node::cluster(3).await;
    let bootstrap = nodes[0].daemon.agent().local_addresses();
    let mut victim = Process::spawn(&bootstrap).await;
    let id = victim.api().get("/agent").await.json()["agent_id"].as_str().expect("text").to_owned();
    let state = async |node: &Node| {
        let status = node.api.get(&format!("/presence/status/{id}")).await.json();
        status["state"].as_str().expect("text").to_owned()
    };
    for node in &nodes {
        let contact = json!({"agent_id": id, "trust_level": "known"});
        assert_eq!(node.api.post("/contacts", &contact).await.status, 201);
        let connect = json!({"agent_id": id});
        eventually("connected", || async {
            let answer = node.api.post("/agents/connect", &connect).await.json();
            ["Direct", "AlreadyConnected"].contains(&answer["outcome"].as_str().expect("text"))
        })
        .await;
        eventually("online", || async { state(node).await == "online" }).await;
    }
    let mut events = EventStream::open(&nodes[0].api, "/presence/events", None).await;
    victim.kill();
    let killed = Instant::now();
    for node in &nodes {
        while state(node).await != "offline" {
            assert!(
                killed.elapsed() <= OFFLINE,
                "{:?} later: {}",
                killed.elapsed(),
                state(node).await
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        println!("offline after {:?}", killed.elapsed());
    }
    loop {
        let event = events.next().await.expect("open");
        if event.data["agent_id"] == *id && event.data["event"] == "offline" {
            break;
        }
    }
    // Nobody else was taken for gone.
    for node in &nodes {
        for other in nodes.iter().filter(|other| other.agent_id() != node.agent_id()) {
            let path = format!("/presence/status/{}", other.agent_id());
            assert_eq!(node.api.get(&path).await.json()["online"], true);
        }
    }
    stop(nodes).await;
}
