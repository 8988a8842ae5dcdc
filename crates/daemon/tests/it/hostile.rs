//! A daemon among hostile peers, which are made of the layers themselves: whoever is blocked, revoked or on
//! a machine that is not its own reaches the application by no path, and what is forged, replayed or
//! ended is refused and counted.

use std::{net::SocketAddr, path::Path, time::Duration};

use bytes::Bytes;
use data_encoding::BASE64;
use serde_json::{Value, json};
use x0x_agent::{
    Agent, AgentConfig, AgentId, RevokeWhat, SendFile, WallTime,
    testing::{DAY, Mallory, agent, announcement, binding, machine, node, now},
};
use x0x_core::PeerAddr;
use x0x_identity::{NOTICE_TOPIC, Notice, SignedBinding, SignedCertificate, testing::key};
use x0x_rendezvous::{ANNOUNCE_TOPIC, Announcement};
use x0x_transport::Transport;

use crate::support::{Api, EventStream, Node, SseEvent, Ws, eventually, payload, stop, within};

const TOPIC: &str = "news";

/// Says something that must be counted as refused.
async fn refused(mallory: &Mallory, api: &Api, topic: &str, what: Bytes, counter: &str) {
    let before = api.metric(counter).await;
    mallory.say(topic, what).await;
    eventually(counter, || async { api.metric(counter).await > before }).await;
}

async fn knows(node: &Node, agent: AgentId) -> bool {
    node.api.get(&format!("/agents/discovered/{agent}")).await.status == 200
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_replayed_and_ended_announcements_name_nobody() {
    let victim = Node::start(&[]).await;
    let mallory = Mallory::start(1, victim.daemon.agent().local_addresses());
    eventually("it has joined", || async { victim.api.peers().await >= 1 }).await;
    let refused = async |what: Bytes, counter: &str| {
        refused(&mallory, &victim.api, ANNOUNCE_TOPIC, what, counter).await;
    };
    let (author, proof) = ("discovery_refused_author_total", "discovery_refused_binding_total");
    refused(announcement(2, now(), 1).encode(&binding(2)), author).await;
    let theirs = Announcement { agent: agent(1), ..announcement(2, now(), 1) };
    refused(theirs.encode(&binding(2)), proof).await;
    let past = WallTime::from_millis(now().as_millis() - 3 * DAY.as_millis() as u64);
    let ended = SignedBinding::issue(&key(1), machine(101), past, DAY);
    refused(announcement(1, now(), 2).encode(&ended), proof).await;
    refused(announcement(1, now() + DAY, 3).encode(&binding(1)), "discovery_refused_future_total")
        .await;
    refused(Bytes::from_static(b"nonsense"), "discovery_refused_malformed_total").await;
    let mut altered = announcement(1, now(), 4).encode(&binding(1)).to_vec();
    let last = altered.len() - 1;
    altered[last] ^= 1;
    refused(altered.into(), proof).await;
    assert!(!knows(&victim, agent(2)).await);

    let honest = announcement(1, now(), 5).encode(&binding(1));
    mallory.say(ANNOUNCE_TOPIC, honest.clone()).await;
    eventually("the truth is believed", || knows(&victim, agent(1))).await;
    refused(honest, "discovery_replayed_total").await;
    mallory.stop().await;
    stop(vec![victim]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_runs_are_counted_and_reach_nobody() {
    let victim = Node::start(&[]).await;
    let mallory = Mallory::start(7, victim.daemon.agent().local_addresses());
    eventually("it has joined", || async { victim.api.peers().await >= 1 }).await;
    let mut ws = Ws::open(&victim.api, "/ws").await;
    ws.subscribe(TOPIC).await;
    let to = victim.daemon.agent().machine_id();
    for attack in mallory.attacks(to, TOPIC).await {
        let counter = format!("{}_total", attack.counter);
        let before = victim.api.metric(&counter).await;
        for frame in attack.frames {
            mallory.send(to, frame).await;
        }
        eventually(attack.name, || async { victim.api.metric(&counter).await > before }).await;
        for expected in attack.delivered {
            assert_eq!(ws.next().await["payload"], BASE64.encode(&expected), "{}", attack.name);
        }
    }
    victim.daemon.agent().publish(TOPIC, "fine".into()).await.expect("published");
    assert_eq!(ws.next().await["payload"], BASE64.encode(b"fine"), "and nothing of the rest");
    mallory.stop().await;
    stop(vec![victim]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hellos_and_certificates_that_prove_nothing_are_refused() {
    let victim = Node::start(&[]).await;
    let past = WallTime::from_millis(now().as_millis() - 9 * DAY.as_millis() as u64);
    let at = |n: u64, since| SignedBinding::issue(&key(3), machine(n), since, DAY).encode();
    let mut altered = at(123, now()).to_vec();
    let last = altered.len() - 1;
    altered[last] ^= 1;
    for (n, hello, counter) in [
        (3, at(103, past), "transport_hellos_refused_expired_total"),
        (13, at(103, now()), "transport_hellos_refused_binding_total"),
        (23, altered.into(), "transport_hellos_refused_binding_total"),
    ] {
        let before = victim.api.metric(counter).await;
        let peer = node(n, vec![hello]);
        let target = PeerAddr::known(
            victim.daemon.agent().machine_id(),
            victim.daemon.agent().local_addresses(),
        );
        drop(peer.connect(target).await);
        eventually(counter, || async { victim.api.metric(counter).await > before }).await;
        let direct = victim.api.get("/direct/connections").await.json().to_string();
        assert!(!direct.contains(&agent(3).to_string()), "{direct}");
        peer.shutdown().await;
    }

    let mallory = Mallory::start(5, victim.daemon.agent().local_addresses());
    eventually("it has joined", || async { victim.api.peers().await >= 1 }).await;
    let honest = announcement(5, now(), 1).encode(&binding(5));
    mallory.say(ANNOUNCE_TOPIC, honest).await;
    eventually("it is known", || knows(&victim, agent(5))).await;
    let user = key(60);
    let standing = |certificate| {
        Notice::Agent { binding: binding(5), certificate: Some(certificate) }.encode()
    };
    let of_another = SignedCertificate::issue(&user, agent(6), now(), DAY);
    let ended = SignedCertificate::issue(&user, agent(5), past, DAY);
    for certificate in [of_another, ended] {
        let counter = "agent_notices_refused_total";
        refused(&mallory, &victim.api, NOTICE_TOPIC, standing(certificate), counter).await;
        let path = format!("/agents/discovered/{}", agent(5));
        assert_eq!(victim.api.get(&path).await.json()["agent"]["user_id"], Value::Null);
        let agents =
            victim.api.get(&format!("/users/{}/agents", user.public_key().user_id())).await;
        assert_eq!(agents.json()["agents"], json!([]), "{agents:?}");
    }
    mallory.stop().await;
    stop(vec![victim]).await;
}

async fn peer(folder: &Path, name: &str, victim: &Node) -> Agent {
    let dir = folder.join(name);
    let mut config = AgentConfig::new(dir.join("keys"), dir.join("data"));
    config.bind = SocketAddr::from(([127, 0, 0, 1], 0));
    config.bootstrap = victim.daemon.agent().local_addresses();
    let peer = within("the peer starts", Agent::builder(config).start()).await.expect("it starts");
    let id = peer.agent_id();
    eventually("it is known", || knows(victim, id)).await;
    peer
}

/// By every path that an agent has: what comes of it does not matter.
async fn tries(peer: &Agent, victim: AgentId, file: &Path) {
    let text = || Bytes::copy_from_slice(peer.agent_id().to_string().as_bytes());
    // Who reads a topic carries it: nobody's word depends on a link with the victim.
    let reader = peer.subscribe(TOPIC).await;
    drop(peer.publish(TOPIC, text()).await);
    let sent = tokio::time::timeout(Duration::from_secs(3), peer.send_direct(victim, text())).await;
    drop(sent);
    drop(peer.send_file(SendFile::new(victim, file)).await);
    let _ = peer.announce().await;
    drop(reader);
}

/// Reads messages until one is from this agent; gives the texts before it.
async fn texts_until(stream: &mut EventStream, last: AgentId) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        let event = stream.next().await.expect("open");
        if event.name.starts_with("file:")
            || event.data["payload"].is_null() && event.data["data"]["payload"].is_null()
        {
            continue;
        }
        let data = if event.data["data"].is_object() { &event.data["data"] } else { &event.data };
        let text = String::from_utf8(payload(data)).expect("text");
        if text == last.to_string() {
            return texts;
        }
        texts.push(text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_blocked_the_revoked_and_the_misplaced_come_through_on_no_path() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("file.txt");
    std::fs::write(&file, b"contents").expect("written");
    let victim = Node::start(&[]).await;
    let to = victim.daemon.agent().agent_id();
    let [blocked, revoked, misplaced, honest] = [
        peer(folder.path(), "blocked", &victim).await,
        peer(folder.path(), "revoked", &victim).await,
        peer(folder.path(), "misplaced", &victim).await,
        peer(folder.path(), "honest", &victim).await,
    ];
    let api = &victim.api;
    let level = json!({"agent_id": blocked.agent_id(), "level": "blocked"});
    assert_eq!(api.post("/contacts/trust", &level).await.status, 200);
    let pin = json!({"machine_id": "ab".repeat(32), "pinned": true});
    let machines = format!("/contacts/{}/machines", misplaced.agent_id());
    assert_eq!(api.post(&machines, &pin).await.status, 201);
    revoked.revoke(RevokeWhat::Agent, "stolen").await.expect("told");
    let revocations = format!("/contacts/{}/revocations", revoked.agent_id());
    eventually("the revocation is heard", || async {
        api.get(&revocations).await.json()["revocations"][0]["reason"] == "stolen"
    })
    .await;

    api.post("/subscribe", &json!({"topic": TOPIC})).await;
    let mut gossip = EventStream::open(api, "/events", None).await;
    let mut direct = EventStream::open(api, "/direct/events", None).await;
    for bad in [&blocked, &revoked, &misplaced] {
        tries(bad, to, &file).await;
    }
    tries(&honest, to, &file).await;
    assert_eq!(texts_until(&mut direct, honest.agent_id()).await, [""; 0], "direct messages");
    // Gossip comes without a machine, so that a pin says nothing of it.
    let heard = texts_until(&mut gossip, honest.agent_id()).await;
    let misplaced_id = misplaced.agent_id().to_string();
    assert!(heard.iter().all(|text| *text == misplaced_id), "{heard:?}");
    let offered =
        |transfers: &Value, of: &Agent| transfers.to_string().contains(&of.agent_id().to_string());
    eventually("the honest offer is there", || async {
        offered(&api.get("/files/transfers").await.json(), &honest)
    })
    .await;
    let transfers = api.get("/files/transfers").await.json();
    for bad in [&blocked, &revoked, &misplaced] {
        let id = bad.agent_id();
        assert!(!offered(&transfers, bad), "a file of {id}: {transfers}");
        for path in
            ["/agents/discovered?unfiltered=true", "/presence/online", "/direct/connections"]
        {
            let shown = api.get(path).await.json().to_string();
            assert!(!shown.contains(&id.to_string()), "{path}: {shown}");
        }
        let found = api.get(&format!("/presence/find/{id}?timeout_ms=300")).await;
        assert_eq!(found.json()["agent"], Value::Null, "{found:?}");
    }
    for bad in [&blocked, &revoked] {
        let message = json!({"agent_id": bad.agent_id(), "payload": "aGk="});
        assert_eq!(api.post("/direct/send", &message).await.status, 403);
    }
    for agent in [blocked, revoked, misplaced, honest] {
        within("the peer stops", agent.shutdown()).await;
    }
    stop(vec![victim]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_told_as_they_begin_and_end() {
    let first = Node::start(&[]).await;
    let mut events = EventStream::open(&first.api, "/peers/events", None).await;
    let second = Node::start(&first.daemon.agent().local_addresses()).await;
    let id = second.daemon.agent().machine_id().to_string();
    let event = events.next().await.expect("open");
    assert_eq!(event.name, "peer-lifecycle");
    assert_eq!((&event.data["peer_id"], &event.data["event"]), (&json!(id), &json!("Established")));
    drop(events);
    let shown = first.cli(&["diagnostics", "connectivity"]).await;
    assert_eq!(shown["connections"]["connected_peers"], 1, "{shown}");
    assert_eq!(shown["direct_reachability_scope"], "local");
    assert_eq!(shown["services"]["bootstrap_enabled"], false);
    let listed = first.cli(&["peers"]).await;
    assert_eq!(listed["peers"][0]["id"], json!(id));
    stop(vec![second]).await;
    eventually("it is gone", || async { first.api.peers().await == 0 }).await;
    // Who was away while it ended is told so, and nothing twice; who comes anew is told of what is live only.
    let mut back = EventStream::open(&first.api, "/peers/events", event.id.as_deref()).await;
    let mut last = back.next().await.expect("open");
    while last.data["event"] != "Closed" {
        assert_ne!(last.data["event"], "Established");
        last = back.next().await.expect("open");
    }
    assert_eq!(last.data["peer_id"], json!(id));
    let mut new = EventStream::open(&first.api, "/peers/events", None).await;
    let third = Node::start(&first.daemon.agent().local_addresses()).await;
    let event = new.next().await.expect("open");
    assert_eq!(event.data["peer_id"], json!(third.daemon.agent().machine_id().to_string()));
    // An id of another run of the daemon: what was missed is not known, so how things stand is told.
    let mut lost = EventStream::open(&first.api, "/peers/events", Some("7")).await;
    let mark = lost.next().await.expect("open");
    assert_eq!((mark.name.as_str(), &mark.data["missed"], mark.id), ("lagged", &json!(0), None));
    let third_is_live = |told: &SseEvent| {
        told.data["peer_id"] == event.data["peer_id"] && told.data["event"] == "Established"
    };
    let mut told = 0;
    while told < 2 {
        told += u32::from(third_is_live(&lost.next().await.expect("open")));
    }
    stop(vec![third, first]).await;
}
