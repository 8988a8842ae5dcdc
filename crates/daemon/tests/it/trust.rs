//! Whom an agent blocks, it hears nothing of; and the blocked one cannot tell.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Answer, Api, EventStream, Node, eventually, payload, stop};

const TOPIC: &str = "news";

fn encoded(text: &str) -> String {
    data_encoding::BASE64.encode(text.as_bytes())
}

async fn publish(api: &Api, text: &str) {
    let answer = api.post("/publish", &json!({"topic": TOPIC, "payload": encoded(text)})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

async fn send(api: &Api, to: &str, text: &str) -> Answer {
    api.post("/direct/send", &json!({"agent_id": to, "payload": encoded(text)})).await
}

async fn set_level(api: &Api, agent: &str, level: &str) {
    let answer = api.post("/contacts/trust", &json!({"agent_id": agent, "level": level})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

async fn patch(api: &Api, path: &str, body: &Value) -> Answer {
    let mut headers = api.headers();
    headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
    api.send("PATCH", path, &headers, body.to_string().as_bytes()).await
}

/// Reads messages until one says `last`; gives the texts before it.
async fn texts_until(stream: &mut EventStream, last: &str) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        let event = stream.next().await.expect("open");
        let data = if event.data["data"].is_object() { &event.data["data"] } else { &event.data };
        let text = String::from_utf8(payload(data)).expect("text");
        if text == last {
            return texts;
        }
        texts.push(text);
    }
}

/// Waits until the first node knows the second one by announcement and has a session with it.
async fn acquainted(a: &Node, b: &Node) {
    let path = format!("/agents/discovered/{}", b.agent_id());
    eventually("they know each other", || async { a.api.get(&path).await.status == 200 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_agent_is_not_heard_and_cannot_tell() {
    let nodes = Node::cluster(3).await;
    let [alice, bob, carol] = &nodes[..] else { unreachable!() };
    let (a, b) = (alice.agent_id(), bob.agent_id());
    acquainted(alice, bob).await;
    acquainted(bob, alice).await;
    acquainted(carol, alice).await;

    alice.api.post("/subscribe", &json!({"topic": TOPIC})).await;
    let mut gossip = EventStream::open(&alice.api, "/events", None).await;
    let mut direct = EventStream::open(&alice.api, "/direct/events", None).await;

    publish(&bob.api, "before").await;
    assert_eq!(send(&bob.api, &a, "before").await.status, 200);
    assert!(texts_until(&mut gossip, "before").await.is_empty());
    assert!(texts_until(&mut direct, "before").await.is_empty());

    set_level(&alice.api, &b, "blocked").await;
    publish(&bob.api, "blocked").await;
    // The same status and body as for carol, whom nobody knows.
    let (blocked, unknown) =
        (send(&bob.api, &a, "blocked").await, send(&carol.api, &a, "from carol").await);
    assert_eq!((blocked.status, unknown.status), (200, 200));
    let fields = |answer: &Answer| {
        let answer = answer.json();
        let keys: BTreeSet<String> =
            answer.as_object().expect("an object").keys().cloned().collect();
        (keys, answer["path"].clone(), answer["retries_used"].clone())
    };
    assert_eq!(fields(&blocked), fields(&unknown));
    assert!(texts_until(&mut direct, "from carol").await.is_empty());
    publish(&carol.api, "from carol").await;
    assert!(texts_until(&mut gossip, "from carol").await.is_empty());

    // Nor is it shown, written to, or told anything.
    let discovered = alice.api.get("/agents/discovered").await.json().to_string();
    assert!(!discovered.contains(&b), "{discovered}");
    let refused = send(&alice.api, &b, "to the blocked").await;
    assert_eq!((refused.status, refused.json()["error"].clone()), (403, json!("agent is blocked")));
    assert_eq!(alice.api.get(&format!("/introduction?peer={b}")).await.status, 403);
    assert!(alice.api.metric("trust_silenced_total").await > 0);

    set_level(&alice.api, &b, "trusted").await;
    publish(&bob.api, "after").await;
    assert_eq!(send(&bob.api, &a, "after").await.status, 200);
    let late: Vec<String> = texts_until(&mut direct, "after").await;
    assert!(late.is_empty(), "what came while it was blocked is gone: {late:?}");
    texts_until(&mut gossip, "after").await;
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contacts_survive_a_restart_and_pins_hold() {
    let nodes = Node::cluster(2).await;
    let [alice, bob] = &nodes[..] else { unreachable!() };
    let (a, b) = (alice.agent_id(), bob.agent_id());
    acquainted(bob, alice).await;
    acquainted(alice, bob).await;

    // Pinned to a machine that bob is not on.
    let elsewhere = "ab".repeat(32);
    let machines = format!("/contacts/{b}/machines");
    let pin = json!({"machine_id": elsewhere, "label": "desk", "pinned": true});
    assert_eq!(alice.api.post(&machines, &pin).await.status, 201);
    assert_eq!(alice.api.post(&machines, &pin).await.status, 200);
    let machine = bob.daemon.agent().machine_id().to_string();
    let evaluate = json!({"agent_id": b, "machine_id": machine});
    let decision = alice.api.post("/trust/evaluate", &evaluate).await.json();
    assert_eq!(decision["decision"], "RejectMachineMismatch");
    assert_eq!(decision["reason"], "wrong_machine");

    let mut direct = EventStream::open(&alice.api, "/direct/events", None).await;
    assert_eq!(send(&bob.api, &a, "from the wrong machine").await.status, 200);
    let one = format!("{machines}/{elsewhere}");
    let unpinned = alice.api.delete(&format!("{one}/pin")).await.json();
    assert_eq!(unpinned["unpinned"], true);
    assert_eq!(send(&bob.api, &a, "unpinned").await.status, 200);
    assert!(texts_until(&mut direct, "unpinned").await.is_empty());

    assert_eq!(alice.api.delete(&one).await.status, 204);
    assert_eq!(alice.api.delete(&one).await.status, 404);
    let update = json!({"trust_level": "known", "identity_type": "trusted"});
    assert_eq!(patch(&alice.api, &format!("/contacts/{b}"), &update).await.status, 200);
    let refused = patch(&alice.api, &format!("/contacts/{b}"), &json!({"level": "known"})).await;
    assert_eq!(refused.status, 422, "unknown fields are refused");
    for wrong in [json!({"trust_level": "friend"}), json!({"identity_type": "famous"})] {
        let refused = patch(&alice.api, &format!("/contacts/{b}"), &wrong).await;
        assert_eq!((refused.status, &refused.json()["code"]), (400, &json!("invalid_value")));
    }
    let before = alice.api.get("/contacts").await.json();
    assert_eq!(before["contacts"][0]["trust_level"], "known");

    let mut nodes = nodes;
    let Node { daemon, directory, .. } = nodes.remove(0);
    daemon.shutdown().await;
    let mut config = x0x_daemon::Config::isolated(directory.path());
    config.bootstrap_peers = nodes[0].daemon.agent().local_addresses();
    let again = Node::start_in(directory, config).await;
    // All of it but when it was last seen, which may be this moment.
    let kept = |contacts: &Value| {
        let mut contact = contacts["contacts"][0].clone();
        contact["last_seen"].take();
        contact
    };
    let after = again.api.get("/contacts").await.json();
    assert_eq!(kept(&after), kept(&before));
    nodes.push(again);
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cards_make_contacts_and_altered_ones_do_not() {
    let nodes = [Node::start(&[]).await, Node::start(&[]).await];
    let [alice, bob] = &nodes;
    let b = bob.agent_id();
    let card = bob.api.get("/agent/card?display_name=Bob").await.json();
    assert_eq!(
        (&card["card"]["agent_id"], &card["card"]["display_name"]),
        (&json!(b), &json!("Bob"))
    );
    let (link, short) = (card["link"].as_str().expect("text"), card["short_link"].as_str());
    let short = short.expect("text");
    assert!(short.len() <= 240, "{} {short}", short.len());

    let import =
        async |card: &str| alice.api.post("/agent/card/import", &json!({"card": card})).await;
    // Another letter in every part of the card.
    for at in (40..link.len()).step_by(link.len() / 12) {
        let mut altered = link.to_owned();
        let letter = if &link[at..=at] == "A" { "B" } else { "A" };
        altered.replace_range(at..=at, letter);
        let answer = import(&altered).await;
        assert_eq!(answer.status, 400, "at {at}: {answer:?}");
    }
    assert_eq!(alice.api.get("/contacts").await.json()["contacts"], json!([]));

    let imported = import(link).await.json();
    assert_eq!((&imported["agent_id"], &imported["trust_level"]), (&json!(b), &json!("Known")));
    assert_eq!(alice.api.get("/contacts").await.json()["contacts"][0]["label"], "Bob");
    assert_eq!(import(short).await.status, 200);
    assert_eq!(alice.api.get("/contacts").await.json()["contacts"][0]["label"], "Bob");
    let own = alice.api.get("/agent/card").await.json();
    assert_eq!(import(own["link"].as_str().expect("text")).await.status, 400);
    // What somebody decided about bob is not undone in passing.
    set_level(&alice.api, &b, "trusted").await;
    assert_eq!(import(link).await.json()["trust_level"], "Trusted");
    set_level(&alice.api, &b, "blocked").await;
    let refused = import(link).await;
    assert_eq!((refused.status, &refused.json()["code"]), (409, &json!("conflict")));
    assert_eq!(alice.api.post("/contacts", &json!({"agent_id": b})).await.status, 409);
    let turned = json!({"agent_id": b, "trust_level": "known", "label": "a\u{202e}b"});
    assert_eq!(alice.api.post("/contacts", &turned).await.status, 400);
    assert_eq!(alice.api.get("/contacts").await.json()["contacts"][0]["trust_level"], "blocked");
    let named = json!({"agent_id": b, "trust_level": "known"});
    assert_eq!(alice.api.post("/contacts", &named).await.status, 201);

    // They have never met: the card says where bob is.
    assert_eq!(send(&alice.api, &b, "by card").await.status, 200);
    let mut direct = EventStream::open(&bob.api, "/direct/events", None).await;
    assert!(texts_until(&mut direct, "by card").await.is_empty());
    stop(nodes.into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_agent_is_refused_by_everybody() {
    let nodes = Node::cluster(3).await;
    let [alice, bob, carol] = &nodes[..] else { unreachable!() };
    let b = bob.agent_id();
    acquainted(alice, bob).await;
    acquainted(carol, bob).await;
    set_level(&alice.api, &b, "trusted").await;

    let wrong = json!({"what": "agent", "id": alice.agent_id()});
    assert_eq!(bob.api.post("/identity/revoke", &wrong).await.status, 400);
    let revoke = json!({"what": "agent", "id": b, "reason": "the laptop was stolen"});
    assert_eq!(bob.api.post("/identity/revoke", &revoke).await.status, 200);
    for node in [alice, carol] {
        let path = format!("/contacts/{b}/revocations");
        eventually("everybody hears of it", || async {
            node.api.get(&path).await.json()["revocations"][0]["reason"] == "the laptop was stolen"
        })
        .await;
        let refused = send(&node.api, &b, "to the revoked").await;
        assert_eq!(refused.status, 403, "{refused:?}");
        assert_eq!(refused.json()["code"], "blocked");
    }
    let contacts = alice.api.get("/contacts").await.json();
    assert_eq!(contacts["contacts"][0]["trust_level"], "blocked");
    assert_eq!(contacts["contacts"][0]["revoked"], true);
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_moves_and_its_old_machine_is_refused() {
    let nodes = Node::cluster(4).await;
    let [old, alice, home, pedant] = &nodes[..] else { unreachable!() };
    let moved = old.agent_id();
    acquainted(alice, old).await;
    acquainted(pedant, old).await;
    set_level(&alice.api, &moved, "trusted").await;
    // One contact insists on the machine that it knows.
    let old_machine = old.daemon.agent().machine_id().to_string();
    let pin = json!({"machine_id": old_machine, "pinned": true});
    let machines = format!("/contacts/{moved}/machines");
    assert_eq!(pedant.api.post(&machines, &pin).await.status, 201);

    let secret = json!({"passphrase": "correct horse"});
    let keys = old.api.post("/agent/export", &secret).await.json()["keys"].clone();
    let import = json!({"keys": keys, "passphrase": "correct horse"});
    assert_eq!(home.api.post("/agent/import", &import).await.status, 409, "there is one already");
    let wrong = json!({"keys": keys, "passphrase": "wrong horse", "replace": true});
    assert_eq!(home.api.post("/agent/import", &wrong).await.status, 400);
    let import = json!({"keys": keys, "passphrase": "correct horse", "replace": true});
    let answer = home.api.post("/agent/import", &import).await.json();
    assert_eq!(answer["agent_id"], moved);

    let mut nodes = nodes;
    let bootstrap = nodes[1].daemon.agent().local_addresses();
    let Node { daemon, directory, .. } = nodes.remove(2);
    daemon.shutdown().await;
    let mut config = x0x_daemon::Config::isolated(directory.path());
    config.bootstrap_peers = bootstrap;
    let home = Node::start_in(directory, config).await;
    assert_eq!(home.agent_id(), moved);
    let (old, alice, pedant) = (&nodes[0], &nodes[1], &nodes[2]);

    let evaluate = |node: &Node| {
        let machine = node.daemon.agent().machine_id().to_string();
        json!({"agent_id": moved, "machine_id": machine})
    };
    let reason = async |node: &Node| {
        alice.api.post("/trust/evaluate", &evaluate(node)).await.json()["reason"].clone()
    };
    eventually("alice hears of the move", || async { reason(old).await == "superseded" }).await;
    assert_eq!(reason(&home).await, "trusted");
    eventually("the old machine hears of it too", || async {
        old.api.get("/status").await.json()["warnings"].to_string().contains("moved")
    })
    .await;

    // The pedant is warned, and goes on believing the old machine.
    let new_machine = home.daemon.agent().machine_id().to_string();
    eventually("the pedant is warned", || async {
        let contacts = pedant.cli(&["contacts", "list"]).await;
        contacts["contacts"][0]["moved_to"] == *new_machine
    })
    .await;
    let warnings = pedant.api.get("/status").await.json()["warnings"].to_string();
    assert!(warnings.contains(&moved) && warnings.contains(&new_machine), "{warnings}");
    let reason = async |machine: &str| {
        let evaluate = json!({"agent_id": moved, "machine_id": machine});
        pedant.api.post("/trust/evaluate", &evaluate).await.json()["reason"].clone()
    };
    assert_eq!(
        (reason(&old_machine).await, reason(&new_machine).await),
        (json!("pinned"), json!("wrong_machine"))
    );

    // Alice counts the agent as proven no more on the old machine, and writes to the new one.
    let mut direct = EventStream::open(&alice.api, "/direct/events", None).await;
    let a = alice.agent_id();
    let machine = home.daemon.agent().machine_id();
    eventually("alice knows where it is", || async {
        let place = alice.api.get(&format!("/agents/discovered/{moved}")).await.json();
        place["agent"]["machine_id"] == machine.to_string()
    })
    .await;
    eventually("the old machine is refused", || async {
        send(&old.api, &a, "from the old machine").await.status != 200
    })
    .await;
    let proven = alice.daemon.agent().sessions().into_iter().filter(|it| it.peer != machine);
    let moved_id = home.daemon.agent().agent_id();
    assert!(proven.into_iter().all(|session| !session.agents.contains(&moved_id)));
    let status = alice.api.get(&format!("/presence/status/{moved}")).await.json();
    assert_eq!(status["agent"]["machine_id"], machine.to_string(), "{status}");
    eventually("the new machine knows alice", || async {
        send(&home.api, &a, "from the new machine").await.status == 200
    })
    .await;
    assert!(texts_until(&mut direct, "from the new machine").await.is_empty());
    let mut arrives = EventStream::open(&home.api, "/direct/events", None).await;
    eventually("alice finds the new machine", || async {
        send(&alice.api, &moved, "to the new machine").await.status == 200
    })
    .await;
    assert!(texts_until(&mut arrives, "to the new machine").await.is_empty());
    nodes.push(home);
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_made_on_request_and_named_with_consent() {
    let nodes = Node::cluster(2).await;
    let [alice, bob] = &nodes[..] else { unreachable!() };
    acquainted(bob, alice).await;
    assert_eq!(alice.api.get("/agent/user-id").await.json()["user_id"], Value::Null);
    let named = json!({"include_user_identity": true, "human_consent": true});
    assert_eq!(alice.api.post("/announce", &named).await.status, 400, "there is no user");
    let relative = json!({"path": "user.key"});
    assert_eq!(alice.api.post("/agent/user-id", &relative).await.status, 400);
    let made = alice.api.post("/agent/user-id", &json!({})).await.json();
    assert_eq!(alice.api.post("/agent/user-id", &json!({})).await.status, 409);
    let user = made["user_id"].clone();

    let mut nodes = nodes;
    let bootstrap = nodes[1].daemon.agent().local_addresses();
    let Node { daemon, directory, .. } = nodes.remove(0);
    daemon.shutdown().await;
    let mut config = x0x_daemon::Config::isolated(directory.path());
    config.bootstrap_peers = bootstrap;
    let alice = Node::start_in(directory, config).await;
    let bob = &nodes[0];
    assert_eq!(alice.api.get("/agent/user-id").await.json()["user_id"], user);
    let path = format!("/agents/discovered/{}", alice.agent_id());
    eventually("bob knows alice", || async { bob.api.get(&path).await.status == 200 }).await;
    assert_eq!(bob.api.get(&path).await.json()["agent"]["user_id"], Value::Null, "not told yet");

    let unasked = json!({"include_user_identity": true});
    assert_eq!(alice.api.post("/announce", &unasked).await.status, 400);
    assert_eq!(alice.api.post("/announce", &named).await.status, 200);
    eventually("bob is told, with proof", || async {
        bob.api.get(&path).await.json()["agent"]["user_id"] == user
    })
    .await;
    let user = user.as_str().expect("text");
    let agents = bob.cli(&["users", "agents", user]).await;
    assert_eq!(agents["agents"][0]["agent_id"], alice.agent_id());
    let machines = bob.api.get(&format!("/users/{user}/machines")).await.json();
    assert_eq!(machines["machines"][0]["user_ids"], json!([user]));
    nodes.push(alice);
    stop(nodes).await;
}
