//! How a daemon says that it is reached, and what it knows of its peers' paths.

use serde_json::json;
use x0x_api::types;

use crate::{
    api::typed,
    lifecycle::Process,
    support::{Node, eventually, stop},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_to_peers_are_told_and_measured() {
    let nodes = Node::cluster(2).await;
    let (alice, bob) = (&nodes[0], &nodes[1]);
    let machine = bob.daemon.agent().machine_id().to_string();
    let peers: types::PeersResponse = typed(&alice.api.get("/peers").await);
    let session = peers.peers[0].session;
    assert_eq!((session.path, session.via), (types::PathKind::Direct, None));
    assert_eq!(session.opened_by, types::OpenedBy::Peer);
    assert!(bob.daemon.agent().local_addresses().contains(&session.address));

    let path = format!("/peers/{machine}/health");
    let health: types::PeerHealthResponse = typed(&alice.api.get(&path).await);
    let snapshot = health.snapshot;
    assert!(snapshot.connected && snapshot.reader_task_active && health.health == "connected");
    assert_eq!(snapshot.generation, Some(session.generation));
    assert!(snapshot.packets_received.is_some_and(|packets| packets > 0));
    assert_eq!(snapshot.key_exchange_groups, ["X25519MLKEM768", "MLKEM768"]);
    assert_eq!(snapshot.signature_scheme, "ML-DSA-65");

    let probe = format!("/peers/{machine}/probe?timeout_ms=99999999");
    let probe: types::ProbeResponse = typed(&alice.api.post(&probe, &json!({})).await);
    assert!(probe.rtt_us > 0 && probe.timeout_ms == 30_000);
    let shown = alice.cli(&["peers", "probe", &machine, "--timeout-ms", "3000"]).await;
    assert_eq!(shown["timeout_ms"], 3000);
    let shown = alice.cli(&["peers", "health", &machine]).await;
    assert_eq!(shown["snapshot"]["session"]["path"], "direct");

    let nobody = "9".repeat(64);
    let unknown = alice.api.get(&format!("/peers/{nobody}/health")).await.json();
    assert_eq!((&unknown["ok"], &unknown["snapshot"]["connected"]), (&json!(true), &json!(false)));
    let refused = alice.api.post(&format!("/peers/{nobody}/probe"), &json!({})).await;
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("probe_failed")));
    assert_eq!(alice.api.get("/peers/zz/health").await.status, 400);
    assert_eq!(alice.api.post("/peers/zz/probe", &json!({})).await.status, 400);
    let query = format!("/peers/{machine}/probe?timeout_ms=soon");
    assert_eq!(alice.api.post(&query, &json!({})).await.status, 400);
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reach_is_told_as_far_as_it_is_known() {
    let nodes = Node::cluster(2).await;
    let api = &nodes[0].api;
    let found: types::ConnectivityResponse = typed(&api.get("/diagnostics/connectivity").await);
    // Peers on this machine say nothing of the internet.
    assert_eq!(found.reach.class, types::ReachClass::Unknown);
    assert!(found.reach.external.is_empty());
    assert_eq!(found.reach.told, nodes[0].daemon.agent().local_addresses());
    assert_eq!((found.connections.direct, found.connections.relayed), (1, 0));
    assert!(found.services.coordinator_enabled && !found.coordinator.is_coordinating);
    let shown = nodes[0].cli(&["netcheck"]).await;
    assert_eq!((&shown["class"], &shown["nat_type"]), (&json!("unknown"), &json!("Unknown")));
    assert_eq!(shown["crypto"]["signature_schemes"], json!(["ML-DSA-65"]));
    assert_eq!(shown["advice"].as_array().map(Vec::len), Some(2), "{shown}");
    let other = nodes[1].agent_id();
    let path = format!("/agents/discovered/{other}?wait=true");
    assert_eq!(api.get(&path).await.status, 200);
    let reach = nodes[0].cli(&["agents", "reachability", &other]).await;
    assert_eq!(reach["needs_coordination"], false);
    // Nobody in between knows this machine.
    let nobody = json!({"machine_id": "9".repeat(64)});
    let answer = api.post("/machines/connect", &nobody).await.json();
    assert_eq!(answer, json!({"ok": true, "outcome": "NotFound", "addr": null}));
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_peers_alone_are_enough_to_come_back() {
    let hub = Node::start(&[]).await;
    let hints = hub.daemon.agent().local_addresses();
    let mut other = Process::spawn(&hints).await;
    let machine = hub.daemon.agent().machine_id().to_string();
    let remembers = || async {
        let cache = other.api().get("/network/bootstrap-cache").await.json();
        let cached = cache["cached_peers"].as_array().expect("a list").clone();
        let known = cached.iter().find(|peer| peer["peer_id"] == machine.as_str());
        known.is_some_and(|peer| peer["dialled"] == true && peer["failures"] == 0)
    };
    eventually("it is remembered", remembers).await;
    let written = other.data().join("peer_cache/peers.json");
    let is_written =
        || async { std::fs::read_to_string(&written).is_ok_and(|text| text.contains(&machine)) };
    eventually("it is written", is_written).await;
    other.kill();
    // It knows nobody but by its cache.
    other.restart(&[]).await;
    eventually("it is back", || async { other.api().peers().await == 1 }).await;
    other.kill();
    stop(vec![hub]).await;
}
