//! Ten daemons, each of which was told of its neighbour alone: any finds any by id, sees it come and go,
//! and the two at the ends talk.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::support::{Node, Ws, eventually, payload, stop};

const NODES: usize = 10;
/// How long finding somebody by id may take.
const FIND: Duration = Duration::from_secs(3);

async fn line() -> Vec<Node> {
    let mut nodes = vec![Node::start(&[]).await];
    for n in 1..NODES {
        let neighbor = nodes[n - 1].daemon.agent().local_addresses();
        nodes.push(Node::start(&neighbor).await);
    }
    for node in &nodes {
        eventually("every daemon has a peer", || async { node.api.peers().await >= 1 }).await;
    }
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_of_ten_in_a_line_finds_any() {
    let nodes = line().await;
    let pairs = (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to)));
    for (from, to) in pairs.filter(|(from, to)| from != to) {
        let id = nodes[to].agent_id();
        let begun = Instant::now();
        // Some look through the command line.
        let answer = if (from + to) % 9 == 0 {
            nodes[from].cli(&["find", &id]).await
        } else {
            nodes[from].api.post(&format!("/agents/find/{id}"), &json!({})).await.json()
        };
        assert!(begun.elapsed() <= FIND, "{from} to {to}: {:?}", begun.elapsed());
        assert_eq!(answer["found"], true, "{from} to {to}: {answer}");
        assert!(!answer["addresses"].as_array().expect("a list").is_empty(), "{answer}");

        let request = json!({ "agent_id": id });
        let answer = nodes[from].api.post("/agents/connect", &request).await.json();
        let outcome = answer["outcome"].as_str().expect("text").to_owned();
        assert!(["Direct", "AlreadyConnected"].contains(&&*outcome), "{answer}");
        let status = nodes[from].api.get(&format!("/presence/status/{id}")).await.json();
        assert_eq!((&status["online"], &status["state"]), (&json!(true), &json!("online")));
        let found = nodes[from].api.get(&format!("/presence/find/{id}")).await.json();
        assert_eq!(found["agent"]["agent_id"], *id, "{found}");
    }
    let nobody = "9".repeat(64);
    let answer = nodes[0].api.post(&format!("/agents/find/{nobody}"), &json!({})).await.json();
    assert_eq!(answer, json!({ "ok": true, "found": false }));

    // The two ends exchange messages.
    let (first, last) = (&nodes[0].api, &nodes[NODES - 1].api);
    let mut readers = [Ws::open(first, "/ws").await, Ws::open(last, "/ws").await];
    for reader in &mut readers {
        reader.subscribe("ends").await;
    }
    for (api, text) in [(first, "from the first"), (last, "from the last")] {
        let payload = data_encoding::BASE64.encode(text.as_bytes());
        let answer = api.post("/publish", &json!({ "topic": "ends", "payload": payload })).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    for reader in &mut readers {
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let frame = reader.try_next().await.expect("the session goes on");
            if frame["type"] == "message" {
                seen.push(payload(&frame));
            }
        }
        seen.sort();
        assert_eq!(seen, [&b"from the first"[..], b"from the last"]);
    }
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_reaches_an_agent_that_is_at_another_port_now() {
    let mut nodes = Node::cluster(3).await;
    let (bob, alice) = (nodes.pop().expect("three"), nodes.pop().expect("three"));
    let hub = nodes[0].daemon.agent().local_addresses();
    let id = bob.agent_id();
    let send = async |text: &str| {
        let payload = data_encoding::BASE64.encode(text.as_bytes());
        let body = json!({ "agent_id": id, "payload": payload });
        alice.api.post("/direct/send", &body).await
    };
    assert_eq!(send("before").await.status, 200);
    let before = bob.daemon.agent().local_addresses();
    let Node { daemon, directory, .. } = bob;
    daemon.shutdown().await;
    eventually("gone", || async { alice.daemon.agent().connected_agents().len() < 2 }).await;

    let mut config = x0x_daemon::Config::isolated(directory.path());
    config.bootstrap_peers = hub;
    let bob = Node::start_in(directory, config).await;
    assert_ne!(bob.daemon.agent().local_addresses(), before);
    let met = || async { bob.api.peers().await >= 1 };
    eventually("it is back", met).await;
    eventually("a message arrives", || async { send("after").await.status == 200 }).await;
    nodes.extend([alice, bob]);
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_are_shown_by_machine() {
    let nodes = Node::cluster(2).await;
    let (api, other) = (&nodes[0].api, nodes[1].agent_id());
    let path = format!("/agents/discovered/{other}");
    eventually("discovered", || async { api.get(&path).await.status == 200 }).await;
    let machine = nodes[1].daemon.agent().machine_id().to_string();
    let of_agent = api.get(&format!("/agents/{other}/machine")).await.json();
    assert_eq!(
        (&of_agent["agent_id"], &of_agent["machine"]["machine_id"]),
        (&json!(other), &json!(machine))
    );
    assert_eq!(of_agent["machine"]["agent_ids"], json!([other]));
    let one = nodes[0].cli(&["machines", "get", &machine]).await;
    assert_eq!(one["machine"]["agent_ids"], json!([other]), "{one}");
    let listed = nodes[0].cli(&["machines", "discovered"]).await;
    let listed = listed["machines"].as_array().expect("a list");
    assert!(listed.iter().any(|known| known["machine_id"] == machine), "{listed:?}");
    let reach = nodes[0].cli(&["agents", "reachability", &other]).await;
    assert_eq!((&reach["likely_direct"], &reach["is_relay"]), (&json!(true), &json!(false)));
    let nobody = "9".repeat(64);
    let missing = [
        format!("/agents/{nobody}/machine"),
        format!("/agents/reachability/{nobody}"),
        format!("/machines/discovered/{nobody}"),
        format!("/machines/discovered/{nobody}?wait=1"),
    ];
    for path in missing {
        assert_eq!(api.get(&path).await.status, 404, "{path}");
    }
    let users = api.get(&format!("/users/{nobody}/agents")).await.json();
    assert_eq!(users["agents"], json!([]));
    assert_eq!(api.get("/users/zz/machines").await.status, 400);
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_shows_who_comes_and_who_goes() {
    let mut nodes = Node::cluster(2).await;
    let (own, other) = (nodes[0].agent_id(), nodes[1].agent_id());
    let api = nodes[0].api.clone();
    let listed = || async {
        let listed = api.get("/presence").await.json();
        let ids = listed["agents"].as_array().expect("a list").clone();
        ids.contains(&json!(own)) && ids.contains(&json!(other))
    };
    eventually("both are listed", listed).await;
    let online = api.get("/presence/online").await.json();
    let known = online["agents"].as_array().expect("a list");
    assert!(known.iter().any(|agent| agent["agent_id"] == *other), "{online}");
    let foaf = api.get("/presence/foaf?ttl=1&timeout_ms=200").await;
    assert_eq!(foaf.status, 200, "{foaf:?}");

    let gone = nodes.pop().expect("two");
    stop(vec![gone]).await;
    let path = format!("/presence/status/{other}");
    let offline = || async { api.get(&path).await.json()["state"] == "offline" };
    eventually("its goodbye", offline).await;
    let status = api.get(&path).await.json();
    assert_eq!(status["online"], false);
    assert!(status["last_seen"].as_u64().expect("a number") > 1_700_000_000);
    assert_eq!(api.get("/presence/status/zz").await.status, 400);
    stop(nodes).await;
}
