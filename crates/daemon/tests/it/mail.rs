//! Direct messages that survive: kills under load, consumers, streams that go on, a full disk.

use std::{collections::BTreeSet, net::SocketAddr, path::Path, process::Command, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;
use x0x_core::SeededRng;
use x0x_daemon::Config;

use crate::{
    lifecycle::Process,
    support::{Api, EventStream, Node, Ws, eventually, payload, stop, within},
};

/// Kills of the short run; the long one is `x0x-bench lab mail`.
const KILLS: usize = 6;

fn base64(text: &str) -> String {
    data_encoding::BASE64.encode(text.as_bytes())
}

async fn agent_of(api: &Api) -> String {
    api.get("/agent").await.json()["agent_id"].as_str().expect("text").to_owned()
}

/// Where a process can be reached by others.
async fn address_of(api: &Api) -> Vec<SocketAddr> {
    let status = api.get("/status").await.json();
    let all = status["external_addrs"].as_array().expect("a list").iter();
    all.map(|address| address.as_str().expect("text").parse().expect("an address")).collect()
}

async fn queue(api: &Api, to: &str, text: &str) -> Option<String> {
    let body = json!({"agent_id": to, "payload": base64(text), "queue": true});
    let answer = api.post("/direct/send", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["request_id"].as_str().map(str::to_owned)
}

/// All that is in the inbox, as a consumer that acknowledges it sees it.
async fn read_all(api: &Api, consumer: &str) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        let path = format!("/inbox/wait?consumer={consumer}&limit=256&timeout_ms=0");
        let found = api.get(&path).await.json();
        assert_eq!(found["missed"], 0);
        let messages = found["messages"].as_array().expect("a list").clone();
        let Some(last) = messages.last() else { return texts };
        texts.extend(messages.iter().map(|m| String::from_utf8(payload(m)).expect("text")));
        let body = json!({"consumer": consumer, "through": last["number"]});
        assert_eq!(api.post("/inbox/ack", &body).await.status, 200);
    }
}

#[tokio::test]
async fn kills_lose_nothing_that_was_acknowledged() {
    let seed: u64 = std::env::var("X0X_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(11);
    println!("X0X_SEED={seed}");
    let mut rng = SeededRng::from_number(seed);
    let mut receiver = Process::spawn(&[]).await;
    let mut sender = Process::spawn(&address_of(&receiver.api()).await).await;
    let to = agent_of(&receiver.api()).await;
    let mut queued = Vec::new();
    for kill in 0..KILLS {
        let api = sender.api();
        for n in 0..rng.range(20, 60) {
            let text = format!("{kill}-{n}");
            queue(&api, &to, &text).await.expect("an id");
            queued.push(text);
        }
        tokio::time::sleep(Duration::from_millis(rng.range(0, 40))).await;
        if kill % 2 == 0 {
            sender.kill();
            sender.restart(&address_of(&receiver.api()).await).await;
        } else {
            receiver.kill();
            receiver.restart(&address_of(&sender.api()).await).await;
        }
    }
    let api = receiver.api();
    let all = queued.len() as u64;
    let last = || async {
        let made = api.post("/inbox/consumers", &json!({"consumer": "count"})).await;
        assert_eq!(made.status, 201, "{made:?}");
        let consumers = api.get("/inbox/consumers").await.json();
        consumers["consumers"][0]["waiting"].as_u64().expect("a number") >= all
    };
    eventually("every message arrives", last).await;
    assert_eq!(read_all(&api, "reader").await, queued, "once and in order");
    assert_eq!(sender.terminate().await, Some(0));
    assert_eq!(receiver.terminate().await, Some(0));
}

#[tokio::test]
async fn a_letter_waits_for_its_recipient_and_is_followed() {
    let mut nodes = Node::cluster(2).await;
    let [one, two] = &nodes[..] else { unreachable!("two nodes") };
    let mut receipts = EventStream::open(&one.api, "/direct/receipts", None).await;
    let to = two.agent_id();
    let body = json!({
        "agent_id": to, "payload": base64("hello"), "queue": true, "read_receipt": true,
    });
    let answer = one.api.post("/direct/send", &body).await.json();
    assert_eq!((&answer["state"], &answer["path"]), (&json!("queued"), &json!("outbox")));
    let id = answer["request_id"].as_str().expect("text").to_owned();
    let state = async |receipts: &mut EventStream| {
        let event = receipts.next().await.expect("a receipt");
        assert_eq!((&event.name[..], &event.data["request_id"]), ("receipt", &json!(id)));
        event.data["state"].as_str().expect("text").to_owned()
    };
    assert_eq!(state(&mut receipts).await, "queued");
    assert_eq!(state(&mut receipts).await, "sent");
    assert_eq!(state(&mut receipts).await, "received");
    let found = two.api.get("/inbox/wait?timeout_ms=10000").await.json();
    let message = &found["messages"][0];
    assert_eq!((payload(message), &message["request_id"]), (b"hello".to_vec(), &json!(id)));
    assert_eq!((&message["trust_level"], &message["verified"]), (&json!("unknown"), &json!(true)));
    let ack = json!({"numbers": [message["number"]]});
    assert_eq!(two.api.post("/inbox/ack", &ack).await.status, 200);
    assert_eq!(state(&mut receipts).await, "read");
    let status = one.api.get(&format!("/direct/messages/{id}")).await.json();
    assert_eq!(status["state"], "read");
    assert_eq!(one.api.delete(&format!("/direct/messages/{id}")).await.status, 409);
    // What is only kept for queued messages is not left out in silence.
    for field in ["read_receipt", "lifetime_secs"] {
        let mut body = json!({ "agent_id": to, "payload": base64("hello") });
        body[field] = if field == "read_receipt" { json!(true) } else { json!(60) };
        let answer = one.api.post("/direct/send", &body).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (400, &json!("bad_request")),
            "{field}"
        );
    }
    // One for an agent that nobody knows can be taken back.
    let nobody = "7".repeat(64);
    let waiting = queue(&one.api, &nobody, "x").await.expect("an id");
    let path = format!("/direct/messages/{waiting}");
    assert_eq!(one.api.delete(&path).await.status, 200);
    assert_eq!(one.api.get(&path).await.json()["state"], "cancelled");
    let found = one.api.get("/history?q=hello").await.json();
    assert_eq!(found["messages"][0]["sent"], true);
    let found = two.api.get("/history?q=hello").await.json();
    assert_eq!(found["messages"].as_array().map(Vec::len), Some(1));
    let path = format!("/history?q=hello%0Ahello&before={}", u64::MAX);
    assert_eq!(two.api.get(&path).await.json(), found, "the end of time is after all");
    for query in ["%00", "hello%00", "%1B%5B2J"] {
        let answer = two.api.get(&format!("/history?q={query}")).await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("invalid_query")));
    }
    stop(std::mem::take(&mut nodes)).await;
}

#[tokio::test]
async fn a_request_is_answered() {
    let nodes = Node::cluster(2).await;
    let (asker, answerer) = (nodes[0].api.clone(), nodes[1].api.clone());
    let (from, to) = (nodes[0].agent_id(), nodes[1].agent_id());
    let answer = tokio::spawn(async move {
        let found = answerer.get("/inbox/wait?timeout_ms=10000").await.json();
        let asked = found["messages"][0]["request_id"].clone();
        let body = json!({"agent_id": from, "payload": base64("42"), "reply_to": asked});
        assert_eq!(answerer.post("/direct/send", &body).await.status, 200);
    });
    let body = json!({"agent_id": to, "payload": base64("?"), "timeout_ms": 10_000});
    let answered = asker.post("/direct/request", &body).await;
    assert_eq!(answered.status, 200, "{answered:?}");
    assert_eq!(payload(&answered.json()), b"42");
    answer.await.expect("it answered");
    let body = json!({"agent_id": to, "payload": base64("?"), "timeout_ms": 100});
    assert_eq!(asker.post("/direct/request", &body).await.status, 504);
    stop(nodes).await;
}

#[tokio::test]
async fn a_wait_ends_with_a_message_and_consumers_are_apart() {
    let nodes = Node::cluster(2).await;
    let (sender, receiver) = (nodes[0].api.clone(), nodes[1].api.clone());
    let to = nodes[1].agent_id();
    let waiting = {
        let receiver = receiver.clone();
        tokio::spawn(async move {
            let found = receiver.get("/inbox/wait?timeout_ms=15000&consumer=a").await.json();
            (payload(&found["messages"][0]), Instant::now())
        })
    };
    // It waits by now, or finds the message at once: either way it is quick.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let body = json!({"agent_id": to, "payload": base64("1")});
    assert_eq!(sender.post("/direct/send", &body).await.status, 200);
    let sent = Instant::now();
    let (text, at) = waiting.await.expect("it ended");
    assert_eq!(text, b"1");
    println!("{:?} after the acknowledgement", at.saturating_duration_since(sent));
    for n in 2..=5 {
        let body = json!({"agent_id": to, "payload": base64(&n.to_string())});
        assert_eq!(sender.post("/direct/send", &body).await.status, 200);
    }
    assert_eq!(read_all(&receiver, "a").await, ["1", "2", "3", "4", "5"]);
    assert_eq!(read_all(&receiver, "b").await, ["1", "2", "3", "4", "5"]);
    // A claim keeps others away; one that is given back comes again.
    let claim = json!({"consumer": "c", "limit": 2, "lease_ms": 60_000});
    let claimed = receiver.post("/inbox/claim", &claim).await.json();
    assert_eq!(claimed["messages"].as_array().map(Vec::len), Some(2));
    let rest = receiver.get("/inbox?consumer=c").await.json();
    assert_eq!(payload(&rest["messages"][0]), b"3");
    let number = &claimed["messages"][0]["number"];
    let release = json!({"consumer": "c", "numbers": [number]});
    assert_eq!(receiver.post("/inbox/release", &release).await.status, 200);
    let rest = receiver.get("/inbox?consumer=c").await.json();
    assert_eq!(payload(&rest["messages"][0]), b"1");
    let seek = json!({"consumer": "a", "start": "oldest"});
    assert_eq!(receiver.post("/inbox/seek", &seek).await.status, 200);
    assert_eq!(read_all(&receiver, "a").await.len(), 5, "a replay");
    assert_eq!(receiver.delete("/inbox/consumers/c").await.status, 200);
    assert_eq!(receiver.delete("/inbox/consumers/c").await.status, 404);
    // A look at a consumer that is not there shows all, and makes none.
    let look = receiver.get("/inbox?consumer=typo&limit=2").await.json();
    assert_eq!((&look["more"], payload(&look["messages"][1])), (&json!(true), b"2".to_vec()));
    let ack = receiver.post("/inbox/ack", &json!({"consumer": "typo", "through": 9})).await;
    assert_eq!(ack.status, 404, "{ack:?}");
    // Pages of the history end and go on at a place.
    let mut texts = Vec::new();
    let mut path = "/history?limit=2".to_owned();
    loop {
        let page = receiver.get(&path).await.json();
        texts.extend(page["messages"].as_array().expect("a list").iter().map(payload));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/history?limit=2&cursor={next}");
    }
    assert_eq!(texts, ["5", "4", "3", "2", "1"].map(|text| text.as_bytes().to_vec()));
    assert_eq!(receiver.get("/history?cursor=yesterday").await.status, 400);
    assert_eq!(receiver.get("/inbox?consumer=a%20b").await.status, 400);
    stop(nodes).await;
}

#[tokio::test]
async fn a_stranger_leaves_its_share_unread_and_no_more() {
    let nodes = Node::cluster(2).await;
    let (sender, receiver) = (&nodes[0].api, &nodes[1].api);
    let body = json!({"agent_id": nodes[1].agent_id(), "payload": base64("spam")});
    let mut ws = Ws::open(sender, "/ws").await;
    let mut frame = body.clone();
    (frame["type"], frame["ack"]) = (json!("send_direct"), json!(true));
    for _ in 0..1024 {
        ws.send(&frame).await;
    }
    for _ in 0..1024 {
        assert_eq!(ws.next().await["type"], "sent");
    }
    let refused = sender.post("/direct/send", &body).await;
    assert_eq!((refused.status, refused.json()["code"].clone()), (503, json!("recipient_busy")));
    assert_eq!(receiver.metric("mailbox_unread").await, 1024);
    assert_eq!(receiver.get("/inbox?limit=5").await.status, 200);
    assert_eq!(receiver.metric("mailbox_unread").await, 1019, "what was handed out is not unread");
    // A stranger's rate, of which the first thousand took all, lets one more in within the second.
    eventually("there is room again", || async {
        sender.post("/direct/send", &body).await.status == 200
    })
    .await;
    stop(nodes).await;
}

#[tokio::test]
async fn a_stream_goes_on_after_a_thousand_messages_and_a_restart() {
    let receiver = Process::spawn(&[]).await;
    let sender = Node::start(&address_of(&receiver.api()).await).await;
    let (api, to) = (receiver.api(), agent_of(&receiver.api()).await);
    eventually("a session", || async { sender.api.peers().await >= 1 }).await;
    let send = async |n: u32| {
        let body = json!({"agent_id": to, "payload": base64(&n.to_string())});
        let answer = sender.api.post("/direct/send", &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    let mut stream = EventStream::open(&api, "/direct/events", None).await;
    send(0).await;
    let first = stream.next().await.expect("an event");
    drop(stream);
    for n in 1..=1000 {
        send(n).await;
    }
    let mut stream = EventStream::open(&api, "/direct/events", first.id.as_deref()).await;
    let mut last = first.number();
    for n in 1..=1000_u32 {
        let event = stream.next().await.expect("an event");
        assert_eq!(payload(&event.data), n.to_string().as_bytes());
        assert!(event.number() > last, "ids rise");
        last = event.number();
    }
    drop(stream);
    let mut receiver = receiver;
    receiver.kill();
    receiver.restart(&[]).await;
    let since = format!("/direct/events?since={}", last - 2);
    let mut stream = EventStream::open(&receiver.api(), &since, None).await;
    for n in [999, 1000] {
        let event = stream.next().await.expect("an event");
        assert_eq!(payload(&event.data), n.to_string().as_bytes());
    }
    drop(stream);
    assert_eq!(receiver.terminate().await, Some(0));
    stop(vec![sender]).await;
}

/// A file system of its own, in memory; `None` where this process may not have one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let options = format!("size={size}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder.path())
            .output();
        mount.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What is left is told by the removal of the folder.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_passes() {
    let Some(disk) = SmallDisk::new("8m") else {
        println!("no file system of its own here: left out");
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut config = Config::isolated(directory.path());
    config.data_dir = disk.path().join("data");
    let node = Box::pin(Node::start_in(directory, config)).await;
    let (api, own) = (&node.api, node.agent_id());
    let ballast = disk.path().join("ballast");
    let filled = std::fs::write(&ballast, vec![1; 64 << 20]);
    assert!(filled.is_err(), "the disk is full");
    let send = async |queue: bool| {
        let text = "x".repeat(300_000);
        let body = json!({"agent_id": own, "payload": base64(&text), "queue": queue});
        api.post("/direct/send", &body).await
    };
    let refused = send(true).await;
    assert_eq!((refused.status, refused.json()["code"].clone()), (507, json!("storage_full")));
    let refused = send(false).await;
    assert_eq!((refused.status, refused.json()["code"].clone()), (503, json!("recipient_busy")));
    let friend = json!({"agent_id": "7".repeat(64), "trust_level": "known"});
    let refused = api.post("/contacts", &friend).await;
    assert_eq!((refused.status, refused.json()["code"].clone()), (507, json!("storage_full")));
    assert_eq!(api.get("/health").await.status, 200);
    std::fs::remove_file(&ballast).expect("removed");
    let passes = || async { send(true).await.status == 200 };
    eventually("there is room again", passes).await;
    assert_eq!(send(false).await.status, 200);
    assert_eq!(api.get("/contacts").await.json()["contacts"], json!([]), "nothing is half there");
    let kept = api.post("/contacts", &friend).await;
    assert!(kept.status < 300, "{kept:?}");
    stop(vec![node]).await;
    drop(disk);
}

#[tokio::test]
async fn a_damaged_database_is_set_aside_and_told() {
    let mut process = Process::spawn(&[]).await;
    let own = agent_of(&process.api()).await;
    let body = json!({"agent_id": own, "payload": base64("x")});
    assert_eq!(process.api().post("/direct/send", &body).await.status, 200);
    assert_eq!(process.api().get("/health").await.json().get("problems"), None);
    process.kill();
    let file = process.data().join("x0x.db");
    let mut bytes = std::fs::read(&file).expect("the database");
    bytes[100..].fill(0xa5);
    std::fs::write(&file, bytes).expect("written");
    for journal in ["x0x.db-wal", "x0x.db-shm"] {
        // There may be none.
        let _ = std::fs::remove_file(process.data().join(journal));
    }
    process.restart(&[]).await;
    let api = process.api();
    assert_eq!(api.get("/health").await.json()["problems"], json!(["database_damaged"]));
    let status = api.get("/status").await.json();
    assert!(status["warnings"][0].as_str().is_some_and(|text| text.contains("x0x.db.corrupt")));
    assert_eq!(api.post("/direct/send", &body).await.status, 200, "the rest is served");
    assert_eq!(process.terminate().await, Some(0));
}

#[tokio::test]
async fn a_webhook_gets_each_message_once_it_takes_it() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("config.toml");
    let address = listener.local_addr().expect("an address");
    std::fs::write(&path, format!("[mail]\nwebhook = 'http://{address}/hook'")).expect("written");
    let overrides =
        x0x_daemon::Overrides { config: Some(path), ..x0x_daemon::Overrides::default() };
    let mail = Config::load(&overrides).expect("a configuration").mail;
    let mut config = Config::isolated(directory.path());
    config.mail = mail;
    let node = Box::pin(Node::start_in(directory, config)).await;
    let own = node.agent_id();
    for text in ["one", "two"] {
        let body = json!({"agent_id": own, "payload": base64(text)});
        assert_eq!(node.api.post("/direct/send", &body).await.status, 200);
    }
    let mut got = BTreeSet::new();
    // The first one is refused once.
    for status in ["500 no", "200 ok", "200 ok"] {
        let (mut socket, _) = within("a call", listener.accept()).await.expect("a connection");
        let mut text = String::new();
        while !text.contains("\r\n\r\n") || !text.ends_with('}') {
            let mut buffer = vec![0; 4096];
            let read = within("the call", socket.read(&mut buffer)).await.expect("read");
            text.push_str(std::str::from_utf8(&buffer[..read]).expect("text"));
        }
        assert!(text.starts_with("POST /hook HTTP/1.1\r\n"), "{text}");
        let (_, body) = text.split_once("\r\n\r\n").expect("a body");
        let message: Value = serde_json::from_str(body).expect("JSON");
        got.insert(String::from_utf8(payload(&message)).expect("text"));
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        socket.write_all(answer.as_bytes()).await.expect("answered");
    }
    assert_eq!(got, BTreeSet::from(["one".to_owned(), "two".to_owned()]));
    stop(vec![node]).await;
}

/// The command line program beside the daemon's.
fn x0x() -> std::path::PathBuf {
    Path::new(env!("CARGO_BIN_EXE_x0xd")).with_file_name("x0x")
}

#[tokio::test]
async fn a_watch_runs_its_command_once_a_message_across_a_restart() {
    let mut process = Process::spawn(&[]).await;
    let own = agent_of(&process.api()).await;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let log = folder.path().join("log");
    let script = folder.path().join("script.sh");
    // The second message fails once; each run is a line.
    let text = "read text; echo \"$text $X0X_NUMBER $X0X_TRUST $X0X_VERIFIED\" >> \"$1\"\n\
                if [ \"$text\" = two ] && [ ! -e \"$1.failed\" ]; then : > \"$1.failed\"; exit 1; fi\n";
    std::fs::write(&script, text).expect("written");
    let mut watch = {
        let data = process.data();
        let mut command = Command::new(x0x());
        command.env_clear().env("HOME", folder.path()).env("PATH", "/usr/bin:/bin");
        command.env("X0X_DATA_DIR", data).args(["watch", "--exec", "sh"]);
        command.arg(&script).arg(&log).spawn().expect("x0x is built")
    };
    let send = async |api: Api, text: &str| {
        let body = json!({"agent_id": own, "payload": base64(text)});
        assert_eq!(api.post("/direct/send", &body).await.status, 200);
    };
    let lines = || std::fs::read_to_string(&log).unwrap_or_default().lines().count();
    // What others write is data: nothing of it is run.
    send(process.api(), "$(touch /tmp/never); `id` \u{202e}").await;
    send(process.api(), "two").await;
    eventually("both have run, one of them twice", || async { lines() == 3 }).await;
    process.kill();
    process.restart(&[]).await;
    send(process.api(), "three").await;
    eventually("it goes on", || async { lines() == 4 }).await;
    let text = std::fs::read_to_string(&log).expect("the log");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "$(touch /tmp/never); `id` \u{202e} 1 unknown true");
    assert_eq!(lines[1..], ["two 2 unknown true", "two 2 unknown true", "three 3 unknown true"]);
    watch.kill().expect("it runs");
    watch.wait().expect("it ends");
    assert_eq!(process.terminate().await, Some(0));
}
