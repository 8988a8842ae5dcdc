//! Readers of the inbox that share it, and messages that are asked for or sent again: who works on what, what is
//! told of what is not kept any more, and what an id makes of a repetition.

use std::{path::Path, process::Command};

use serde_json::{Value, json};
use x0x_daemon::Config;

use crate::{
    lifecycle::Process,
    support::{Api, EventStream, Node, Ws, eventually, payload, stop},
};

/// The fewest messages that can be kept.
const KEPT: u64 = 1000;

fn message(to: &str, text: &str) -> Value {
    json!({"agent_id": to, "payload": data_encoding::BASE64.encode(text.as_bytes())})
}

async fn send(api: &Api, to: &str, text: &str) {
    let answer = api.post("/direct/send", &message(to, text)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_claim_is_its_owners() {
    let node = Node::start(&[]).await;
    let (api, own) = (&node.api, node.agent_id());
    for text in ["one", "two"] {
        send(api, &own, text).await;
    }
    let claim = json!({"consumer": "c", "limit": 2, "lease_ms": 60_000, "owner": "ann"});
    let claimed = api.post("/inbox/claim", &claim).await.json();
    let numbers: Vec<u64> = claimed["messages"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|message| message["number"].as_u64().expect("a number"))
        .collect();
    assert_eq!(numbers.len(), 2);
    let shown = &api.get("/inbox/consumers").await.json()["consumers"][0];
    assert_eq!(shown["claimed"], 2);
    assert_eq!(shown["claims"][0]["owner"], "ann");
    assert_eq!(shown["claims"][0]["until"], claimed["claimed_until"]);
    let of =
        |owner: &str, number: u64| json!({"consumer": "c", "numbers": [number], "owner": owner});
    let stolen = api.post("/inbox/ack", &of("ben", numbers[0])).await;
    assert_eq!((stolen.status, &stolen.json()["code"]), (409, &json!("conflict")));
    let renew = json!({"consumer": "c", "renew": numbers, "owner": "ben"});
    assert_eq!(api.post("/inbox/claim", &renew).await.status, 409);
    assert_eq!(api.post("/inbox/release", &of("ben", numbers[0])).await.status, 200);
    assert_eq!(api.get("/inbox?consumer=c").await.json()["messages"], json!([]), "still ann's");
    assert_eq!(api.post("/inbox/ack", &of("ann", numbers[0])).await.status, 200);
    assert_eq!(api.post("/inbox/release", &of("ann", numbers[1])).await.status, 200);
    let claim = json!({"consumer": "c", "owner": "ben"});
    let claimed = api.post("/inbox/claim", &claim).await.json();
    assert_eq!(claimed["messages"][0]["number"], numbers[1]);
    assert_eq!(api.post("/inbox/ack", &of("ann", numbers[1])).await.status, 409, "it is ben's now");
    // Who names nobody speaks for the consumer.
    let ack = json!({"consumer": "c", "through": numbers[1]});
    assert_eq!(api.post("/inbox/ack", &ack).await.status, 200);
    let odd = json!({"consumer": "c", "owner": "a b"});
    assert_eq!(api.post("/inbox/claim", &odd).await.status, 400);
    let both = json!({"consumer": "c", "through": 1, "owner": "ann"});
    assert_eq!(api.post("/inbox/ack", &both).await.status, 422);
    stop(vec![node]).await;
}

#[tokio::test]
async fn what_is_sent_again_with_its_id_arrives_once() {
    let nodes = Node::cluster(2).await;
    let (asker, answerer) = (&nodes[0].api, &nodes[1].api);
    let (from, to) = (nodes[0].agent_id(), nodes[1].agent_id());
    let id = "5e".repeat(16);
    let mut ws = Ws::open(asker, "/ws").await;
    let mut frame = message(&to, "over a socket");
    (frame["type"], frame["ack"]) = (json!("send_direct"), json!(true));
    (frame["request_id"], frame["id"]) = (json!(id), json!(7));
    for _ in 0..3 {
        ws.send(&frame).await;
        assert_eq!(ws.next().await, json!({"type": "sent", "id": 7, "request_id": id}));
    }
    // What fails is named, so that it can be sent again.
    frame["agent_id"] = json!("7".repeat(64));
    ws.send(&frame).await;
    let failed = ws.next().await;
    assert_eq!((&failed["type"], &failed["request_id"]), (&json!("error"), &json!(id)), "{failed}");
    frame["request_id"] = json!("no id");
    ws.send(&frame).await;
    assert_eq!(ws.next().await["type"], "error");

    // A request that ran out of time is asked again: the other side gets it once.
    let mut question = message(&to, "?");
    (question["id"], question["timeout_ms"]) = (json!("ab".repeat(16)), json!(200));
    let late = asker.post("/direct/request", &question).await;
    assert_eq!((late.status, &late.json()["request_id"]), (504, &json!("ab".repeat(16))));
    question["timeout_ms"] = json!(20_000);
    let again = {
        let asker = asker.clone();
        tokio::spawn(async move { asker.post("/direct/request", &question).await })
    };
    let found = answerer.get("/inbox?consumer=a").await.json();
    let texts: Vec<_> = found["messages"].as_array().expect("a list").iter().map(payload).collect();
    assert_eq!(texts, [b"over a socket".to_vec(), b"?".to_vec()], "each once");
    let mut reply = message(&from, "!");
    reply["reply_to"] = json!("ab".repeat(16));
    // Whoever answers before it is asked again is heard by the inbox alone.
    eventually("the answer comes to who asked", || async {
        assert_eq!(answerer.post("/direct/send", &reply).await.status, 200);
        again.is_finished()
    })
    .await;
    assert_eq!(payload(&again.await.expect("it ended").json()), b"!");
    stop(nodes).await;
}

#[tokio::test]
async fn a_stream_that_comes_back_after_mail_was_let_go_is_told_how_much() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = || {
        let mut config = Config::isolated(directory.path());
        config.mail.retention.messages = KEPT;
        config
    };
    let place = tempfile::tempdir().expect("a temporary directory");
    let node = Box::pin(Node::start_in(place, config())).await;
    let agent = node.daemon.agent();
    let own = agent.agent_id();
    let mut stream = EventStream::open(&node.api, "/direct/events", None).await;
    let total = KEPT + 250;
    let mut first = None;
    for n in 0..=total {
        agent.send_direct(own, n.to_string().into()).await.expect("loopback");
        let event = stream.next().await.expect("an event");
        first.get_or_insert(event);
    }
    let first = first.expect("one came");
    drop(stream);
    stop(vec![node]).await;

    // The next run lets go soon what is beyond what may be kept, all of which was read.
    let place = tempfile::tempdir().expect("a temporary directory");
    let node = Box::pin(Node::start_in(place, config())).await;
    let pruned = || async {
        let found = node.api.get("/inbox?consumer=probe&limit=1").await.json();
        let oldest = found["messages"][0]["number"].as_u64().expect("a number");
        oldest - first.number() > total - KEPT
    };
    eventually("the oldest are let go", pruned).await;
    let mut stream = EventStream::open(&node.api, "/direct/events", first.id.as_deref()).await;
    let gap = stream.next().await.expect("an event");
    assert_eq!(gap.name, "gap");
    let missed = gap.data["missed"].as_u64().expect("a number");
    assert!(missed >= total - KEPT, "{missed}");
    let mut last = first.number() + missed;
    for n in missed + 1..=total {
        let event = stream.next().await.expect("an event");
        assert_eq!(payload(&event.data), n.to_string().as_bytes());
        assert_eq!(event.number(), last + 1, "none is left out");
        last = event.number();
    }
    stop(vec![node]).await;
}

#[tokio::test]
async fn a_watch_whose_command_cannot_start_ends_and_leaves_the_message() {
    let process = Process::spawn(&[]).await;
    let api = process.api();
    let own = api.get("/agent").await.json()["agent_id"].as_str().expect("text").to_owned();
    send(&api, &own, "wait for me").await;
    let home = tempfile::tempdir().expect("a temporary directory");
    let watch = |program: &Path| {
        let x0x = Path::new(env!("CARGO_BIN_EXE_x0xd")).with_file_name("x0x");
        let mut command = Command::new(x0x);
        command.env_clear().env("HOME", home.path()).env("PATH", "/usr/bin:/bin");
        command.env("X0X_DATA_DIR", process.data());
        command.args(["watch", "--count", "1", "--exec"]).arg(program);
        tokio::task::spawn_blocking(move || command.output().expect("x0x is built"))
    };
    let not_a_program = home.path().join("text");
    std::fs::write(&not_a_program, "no program").expect("written");
    for broken in [Path::new("/nonexistent/command"), &not_a_program] {
        let output = watch(broken).await.expect("it ended");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("the command cannot be started"), "{told}");
        let shown = &api.get("/inbox/consumers").await.json()["consumers"][0];
        assert_eq!((&shown["waiting"], &shown["claimed"]), (&json!(1), &json!(0)), "given back");
    }
    let output = watch(Path::new("true")).await.expect("it ended");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(api.get("/inbox/consumers").await.json()["consumers"][0]["waiting"], 0);
    assert_eq!(process.terminate().await, Some(0));
}
