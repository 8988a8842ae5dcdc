//! Files between daemons: over the API and the command line, through kills, beside a full disk.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};
use x0x_api::ErrorCode;

use x0x_daemon::Config;

use crate::{
    lifecycle::Process,
    support::{Api, EventStream, Node, Ws, eventually, stop},
};

const MIB: usize = 1024 * 1024;

/// Bytes that no compression and no accident repeats.
fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn sha256(path: &Path) -> String {
    let output =
        std::process::Command::new("sha256sum").arg(path).output().expect("sha256sum runs");
    String::from_utf8_lossy(&output.stdout).split(' ').next().expect("a hash").to_owned()
}

async fn agent_of(api: &Api) -> String {
    api.get("/agent").await.json()["agent_id"].as_str().expect("an id").to_owned()
}

async fn send(api: &Api, to: &str, path: &Path) -> String {
    let answer = api.post("/files/send", &json!({"agent_id": to, "path": path})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["transfer_id"].as_str().expect("an id").to_owned()
}

async fn transfer(api: &Api, id: &str) -> Option<Value> {
    let answer = api.get(&format!("/files/transfers/{id}")).await;
    (answer.status == 200).then(|| answer.json()["transfer"].clone())
}

async fn state(api: &Api, id: &str, wanted: &str) {
    eventually(&format!("{id} is {wanted}"), || async {
        transfer(api, id).await.is_some_and(|transfer| transfer["state"] == wanted)
    })
    .await;
}

async fn accept(api: &Api, id: &str) {
    state(api, id, "offered").await;
    let answer = api.post(&format!("/files/accept/{id}"), &json!({})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Waits until this much of a transfer is there, and says how much it is.
async fn moved(api: &Api, id: &str, least: usize) -> u64 {
    let wait = async {
        loop {
            let transfer = transfer(api, id).await.expect("it is known");
            let done = transfer["bytes_transferred"].as_u64().expect("a number");
            if done >= least as u64 {
                return done;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    crate::support::within("the transfer moves", wait).await
}

#[tokio::test]
async fn a_file_goes_by_the_command_line_and_its_events_come() {
    let nodes = Node::cluster(2).await;
    let (alice, bob) = (&nodes[0], &nodes[1]);
    let path = alice.directory.path().join("répôrt 1.txt");
    fs::write(&path, b"hello").expect("written");
    let mut events = EventStream::open(&bob.api, "/events", None).await;
    let mut progress = EventStream::open(&bob.api, "/files/events", None).await;
    let path_text = path.to_str().expect("Unicode");
    let sent =
        alice.cli(&["send-file", &bob.agent_id(), path_text, "--media-type", "text/plain"]).await;
    let id = sent["transfer_id"].as_str().expect("an id");

    let offer = events.next().await.expect("an event");
    assert_eq!(offer.name, "file:offer");
    let data = json!({"transfer_id": id, "filename": "répôrt 1.txt", "size": 5, "sender": alice.agent_id()});
    assert_eq!(offer.data, json!({"type": "file:offer", "data": data}));
    let listed = bob.cli(&["receive-file"]).await;
    assert_eq!(listed["transfers"][0]["transfer_id"], id);
    let received = bob.cli(&["accept-file", id, "--wait"]).await;
    let stored = received["output_path"].as_str().expect("a path");
    assert_eq!(fs::read(stored).expect("it is there"), b"hello");

    let complete = events.next().await.expect("an event");
    assert_eq!(complete.name, "file:complete");
    assert_eq!(complete.data["data"]["path"], stored);
    assert_eq!(complete.data["data"]["sha256"], sha256(&path));
    let first = progress.next().await.expect("an event");
    assert_eq!((first.name.as_str(), &first.data["status"]), ("transfer", &json!("Pending")));
    state(&alice.api, id, "complete").await;
    let all = alice.cli(&["transfers"]).await;
    let shown = &all["transfers"][0];
    assert_eq!((&shown["direction"], &shown["status"]), (&json!("Sending"), &json!("Complete")));
    assert_eq!((&shown["source_path"], &shown["media_type"]), (&json!(path), &json!("text/plain")));
    assert_eq!((&shown["chunk_size"], &shown["total_chunks"]), (&json!(131_072), &json!(1)));
    stop(nodes).await;
}

#[tokio::test]
async fn what_cannot_be_done_is_told() {
    let nodes = Node::cluster(2).await;
    let (alice, bob) = (&nodes[0], &nodes[1]);
    let to = bob.agent_id();
    let code = async |body: Value| {
        let answer = alice.api.post("/files/send", &body).await;
        (answer.status, answer.json()["code"].clone())
    };
    let bad = (400, json!(ErrorCode::BadRequest));
    assert_eq!(code(json!({"agent_id": to})).await, bad, "the daemon sends its own files");
    assert_eq!(code(json!({"agent_id": to, "path": "/dev/zero"})).await, bad);
    assert_eq!(code(json!({"agent_id": to, "path": "x"})).await, bad);
    assert_eq!(code(json!({"agent_id": to, "path": "/none"})).await, bad);
    let hex = (400, json!(ErrorCode::InvalidHex));
    assert_eq!(code(json!({"agent_id": "zz", "path": "/none"})).await, hex);
    assert_eq!(code(json!({"agent_id": to, "path": "/none", "sha256": "12"})).await, hex);

    let path = alice.directory.path().join("f");
    fs::write(&path, b"x").expect("written");
    let id = send(&alice.api, &to, &path).await;
    state(&bob.api, &id, "offered").await;
    let reject = format!("/files/reject/{id}");
    let answer = bob.api.post(&reject, &json!({"reason": "no"})).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"ok": true})));
    state(&alice.api, &id, "rejected").await;
    let told = transfer(&alice.api, &id).await.expect("known");
    assert_eq!((&told["status"], &told["error"]), (&json!("Rejected"), &json!("no")));
    assert_eq!(bob.api.post(&reject, &json!({})).await.status, 400, "it is not pending any more");
    let accept = alice.api.post(&format!("/files/accept/{id}"), &json!({})).await;
    assert_eq!(accept.status, 400);
    for missing in ["00000000-0000-4000-8000-000000000000", "nonsense"] {
        let answer = alice.api.get(&format!("/files/transfers/{missing}")).await;
        assert_eq!((answer.status, &answer.json()["code"]), (404, &json!("not_found")));
    }

    let blocked = json!({"agent_id": alice.agent_id(), "level": "blocked"});
    assert_eq!(bob.api.post("/contacts/trust", &blocked).await.status, 200);
    let silent = send(&alice.api, &to, &path).await;
    state(&alice.api, &silent, "offered").await;
    eventually("the offer is refused in silence", || async {
        bob.api.metric("files_offers_refused_trust_total").await > 0
    })
    .await;
    assert!(transfer(&bob.api, &silent).await.is_none());
    // Whoever is blocked is not offered any longer what was.
    let blocked = json!({"agent_id": to, "level": "blocked"});
    assert_eq!(alice.api.post("/contacts/trust", &blocked).await.status, 200);
    state(&alice.api, &silent, "failed").await;
    let told = transfer(&alice.api, &silent).await.expect("known");
    assert_eq!(told["error"], json!("the agent is blocked"));
    stop(nodes).await;
}

/// Both ends are killed in the middle, and what was verified is not sent again.
#[tokio::test]
async fn killed_ends_go_on_where_they_were() {
    const SIZE: usize = 32 * MIB;
    let hub = Node::start(&[]).await;
    let bootstrap = hub.daemon.agent().local_addresses();
    let mut alice = Process::spawn(&bootstrap).await;
    let mut bob = Process::spawn(&bootstrap).await;
    let path = hub.directory.path().join("large.bin");
    fs::write(&path, content(SIZE, 1)).expect("written");
    let to = agent_of(&bob.api()).await;
    let id = send(&alice.api(), &to, &path).await;
    accept(&bob.api(), &id).await;

    for (least, receiver) in [(2 * MIB, true), (10 * MIB, false), (16 * MIB, true)] {
        let seen = moved(&bob.api(), &id, least).await;
        assert!(seen < SIZE as u64, "it is still on its way: {seen}");
        if receiver {
            bob.kill();
            bob.restart(&bootstrap).await;
            eventually("it is opened", || async {
                bob.api().metric("files_bytes_resumed_total").await > 0
            })
            .await;
            let resumed = bob.api().metric("files_bytes_resumed_total").await;
            assert!(resumed >= seen, "nothing verified is lost: {resumed} of {seen}");
        } else {
            alice.kill();
            alice.restart(&bootstrap).await;
        }
    }
    state(&bob.api(), &id, "complete").await;
    state(&alice.api(), &id, "complete").await;
    let (resumed, stored) = (
        bob.api().metric("files_bytes_resumed_total").await,
        bob.api().metric("files_bytes_stored_total").await,
    );
    assert_eq!(resumed + stored, SIZE as u64, "each byte was stored once");
    let received = transfer(&bob.api(), &id).await.expect("known");
    let output = Path::new(received["output_path"].as_str().expect("a path")).to_owned();
    assert_eq!(sha256(&output), sha256(&path));
    assert_eq!(received["sha256"], sha256(&path));
    assert!(output.starts_with(bob.data().join("downloads")));
    assert_eq!(bob.terminate().await, Some(0));
    assert_eq!(alice.terminate().await, Some(0));
    stop(vec![hub]).await;
}

#[tokio::test]
async fn ten_files_at_once_survive_a_kill() {
    let hub = Node::start(&[]).await;
    let bootstrap = hub.daemon.agent().local_addresses();
    let mut bob = Process::spawn(&bootstrap).await;
    eventually("they are connected", || async { hub.api.peers().await >= 1 }).await;
    let to = agent_of(&bob.api()).await;
    // More at once than a stranger may offer.
    let known = json!({"agent_id": hub.agent_id(), "level": "known"});
    assert_eq!(bob.api().post("/contacts/trust", &known).await.status, 200);
    let mut ids = Vec::new();
    for n in 0..10 {
        let path = hub.directory.path().join(format!("{n}.bin"));
        fs::write(&path, content(3 * MIB + n, n as u64)).expect("written");
        ids.push((send(&hub.api, &to, &path).await, path));
    }
    for (id, _) in &ids {
        accept(&bob.api(), id).await;
    }
    bob.kill();
    bob.restart(&bootstrap).await;
    for (id, path) in &ids {
        state(&bob.api(), id, "complete").await;
        let received = transfer(&bob.api(), id).await.expect("known");
        let output = Path::new(received["output_path"].as_str().expect("a path")).to_owned();
        assert_eq!(fs::read(output).expect("there"), fs::read(path).expect("there"));
    }
    assert_eq!(bob.terminate().await, Some(0));
    stop(vec![hub]).await;
}

/// A file system of a few megabytes, gone at the end.
struct Small(std::path::PathBuf);

impl Small {
    /// `None` where this user may not mount.
    fn mount(folder: &Path) -> Option<Self> {
        fs::create_dir_all(folder).expect("made");
        let mut command = std::process::Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=12m,mode=0700", "tmpfs"]).arg(folder);
        let mounted = command.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Self(folder.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_waited_for() {
    let alice = Node::start(&[]).await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let folder = directory.path().join("small");
    // Only root may mount.
    let Some(_small) = Small::mount(&folder) else { return };
    let mut config = Config::isolated(directory.path());
    config.bootstrap_peers = alice.daemon.agent().local_addresses();
    config.files.folder = Some(folder.clone());
    config.files.keep_free = 0;
    let bob = Node::start_in(directory, config).await;
    eventually("they are connected", || async { alice.api.peers().await >= 1 }).await;
    let to = bob.agent_id();

    let path = alice.directory.path().join("large.bin");
    fs::write(&path, content(16 * MIB, 1)).expect("written");
    let id = send(&alice.api, &to, &path).await;
    state(&bob.api, &id, "offered").await;
    let answer = bob.api.post(&format!("/files/accept/{id}"), &json!({})).await;
    assert_eq!((answer.status, &answer.json()["code"]), (507, &json!("insufficient_storage")));

    let path = alice.directory.path().join("fits.bin");
    fs::write(&path, content(8 * MIB, 2)).expect("written");
    let id = send(&alice.api, &to, &path).await;
    state(&bob.api, &id, "offered").await;
    let done = |answer: crate::support::Answer| assert_eq!(answer.status, 200, "{answer:?}");
    done(alice.api.post(&format!("/files/pause/{id}"), &json!({})).await);
    accept(&bob.api, &id).await;
    // Somebody else takes the room meanwhile.
    let hog = folder.join("hog");
    fs::write(&hog, vec![1; 9 * MIB]).expect("written");
    done(alice.api.post(&format!("/files/resume/{id}"), &json!({})).await);
    state(&bob.api, &id, "waiting_for_space").await;
    assert_eq!(bob.api.get("/health").await.status, 200);
    fs::remove_file(hog).expect("removed");
    state(&bob.api, &id, "complete").await;
    assert_eq!(fs::read(folder.join("fits.bin")).expect("there"), content(8 * MIB, 2));
    stop(vec![alice, bob]).await;
}

#[tokio::test]
async fn a_web_socket_session_watches_transfers() {
    let nodes = Node::cluster(2).await;
    let (alice, bob) = (&nodes[0], &nodes[1]);
    let path = alice.directory.path().join("f");
    fs::write(&path, b"hello").expect("written");
    let mut early = Ws::open(&bob.api, "/ws").await;
    early.send(&json!({"type": "watch_transfers"})).await;
    early.send(&json!({"type": "ping"})).await;
    assert_eq!(early.next().await, json!({"type": "pong"}));
    let id = send(&alice.api, &bob.agent_id(), &path).await;
    let offered = early.next().await;
    assert_eq!((&offered["type"], &offered["state"]), (&json!("transfer"), &json!("offered")));
    assert_eq!((&offered["transfer_id"], &offered["total_size"]), (&json!(id), &json!(5)));
    let mut late = Ws::open(&bob.api, "/ws").await;
    late.send(&json!({"type": "watch_transfers"})).await;
    assert_eq!(late.next().await, offered, "what has not ended comes first");
    accept(&bob.api, &id).await;
    for session in [&mut early, &mut late] {
        while session.next().await["state"] != "complete" {}
    }
    stop(nodes).await;
}

/// Whoever talks an agent into sending files does not get its keys, its token or its mail.
#[tokio::test]
async fn keys_and_state_are_never_sent() {
    let node = Node::start(&[]).await;
    let base = node.directory.path();
    let to = "ab".repeat(32);
    let second = base.join("harmless.txt");
    fs::hard_link(base.join("identity/machine.key"), &second).expect("made");
    let never = [
        base.join("identity/machine.key"),
        base.join("identity/agent.key"),
        base.join("data/api-token"),
        base.join("data/x0x.db"),
        base.join("data/../identity/machine.key"),
        second,
        "/proc/self/environ".into(),
    ];
    for path in never {
        assert!(path.exists(), "{}", path.display());
        let answer = node.api.post("/files/send", &json!({"agent_id": to, "path": path})).await;
        let code = (answer.status, answer.json()["code"].clone());
        assert_eq!(code, (403, json!(ErrorCode::ForbiddenFile.as_str())), "{}", path.display());
    }
    let downloads = base.join("data/downloads");
    fs::create_dir_all(&downloads).expect("made");
    fs::write(downloads.join("theirs"), "x").expect("written");
    send(&node.api, &to, &downloads.join("theirs")).await;
    stop(vec![node]).await;
}
