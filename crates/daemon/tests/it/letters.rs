//! Sealed letters between daemons: the recipient is away, the sender goes, holders keep what was sent.

use std::{net::SocketAddr, path::Path, time::Duration};

use serde_json::json;
use tempfile::TempDir;
use x0x_daemon::Config;

use crate::{
    lifecycle::Process,
    support::{Api, Node, eventually, payload, within},
};

const LETTERS: usize = 100;

fn base64(text: &str) -> String {
    data_encoding::BASE64.encode(text.as_bytes())
}

/// A daemon in this process that leaves letters with others as soon as their recipient is away.
async fn start(directory: TempDir, bootstrap: &[SocketAddr]) -> Node {
    let mut config = Config::isolated(directory.path());
    config.bootstrap_peers = bootstrap.to_vec();
    config.letters.deposit_after = Duration::ZERO;
    Node::start_in(directory, config).await
}

async fn address_of(api: &Api) -> Vec<SocketAddr> {
    let status = api.get("/status").await.json();
    let all = status["external_addrs"].as_array().expect("a list").iter();
    all.map(|address| address.as_str().expect("text").parse().expect("an address")).collect()
}

async fn letters(api: &Api, pointer: &str) -> u64 {
    let letters = api.get("/letters").await.json();
    letters.pointer(pointer).and_then(serde_json::Value::as_u64).expect("a number")
}

/// Every file below a folder as one.
fn all_bytes(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => bytes.extend(all_bytes(&path)),
            // A file that goes while it is looked at holds nothing any more.
            false => bytes.extend(std::fs::read(&path).unwrap_or_default()),
        }
    }
    bytes
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Acceptance line 2 of the mail: recipient off, sender gone before it returns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_letters_arrive_once_and_in_order_when_their_sender_is_gone() {
    let first = Process::spawn(&[]).await;
    let mut hub = address_of(&first.api()).await;
    let mut second = Process::spawn(&hub).await;
    let folder = || tempfile::tempdir().expect("a temporary directory");
    let recipient = start(folder(), &hub).await;
    let sender = start(folder(), &hub).await;
    for api in [&sender.api, &recipient.api] {
        eventually("mailboxes", || async { letters(api, "/mailboxes").await == 3 }).await;
    }
    let to = recipient.agent_id();
    within("the recipient goes", recipient.daemon.shutdown()).await;
    let away = recipient.directory;

    let mut ids = Vec::new();
    for n in 0..LETTERS {
        let payload = base64(&format!("between us alone: {n:03}"));
        let body = json!({"agent_id": to, "payload": payload, "queue": true});
        let answer = sender.api.post("/direct/send", &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        ids.push(answer.json()["request_id"].as_str().expect("an id").to_owned());
    }
    let all = LETTERS as u64;
    for holder in [&first, &second] {
        let api = holder.api();
        // One after the other: each part has the patience of a step.
        for part in (0..=all).step_by(20) {
            let kept = || async { letters(&api, "/holding/letters").await >= part };
            eventually("it keeps more", kept).await;
        }
    }
    let last = format!("/direct/messages/{}", ids.last().expect("an id"));
    let state = sender.api.get(&last).await.json();
    assert_eq!((&state["state"], &state["holders"]), (&json!("held"), &json!(2)));
    let shown = sender.cli(&["letters"]).await;
    assert_eq!(shown["held"].as_array().map(Vec::len), Some(LETTERS));
    within("the sender goes", sender.daemon.shutdown()).await;
    let gone = sender.directory;

    // What was acknowledged outlives a kill, and says nothing to who reads it.
    second.kill();
    second.restart(&hub).await;
    for holder in [&first, &second] {
        let api = holder.api();
        eventually("it has all", || async { letters(&api, "/holding/letters").await == all }).await;
        let bytes = all_bytes(&holder.data());
        assert!(bytes.len() > LETTERS * 12 * 1024, "the letters are there");
        assert!(!has(&bytes, b"between us alone"));
        assert!(!has(&bytes, base64("between us alone").as_bytes()));
    }

    hub.extend(address_of(&second.api()).await);
    let recipient = start(away, &hub).await;
    let mut texts = Vec::new();
    while texts.len() < LETTERS {
        let found = recipient.api.get("/inbox/wait?timeout_ms=15000&limit=256").await.json();
        let messages = found["messages"].as_array().expect("a list").clone();
        let last = messages.last().expect("more letters");
        let ack = json!({"through": last["number"]});
        assert_eq!(recipient.api.post("/inbox/ack", &ack).await.status, 200);
        texts.extend(messages.iter().map(|m| String::from_utf8(payload(m)).expect("text")));
    }
    let sent: Vec<String> = (0..LETTERS).map(|n| format!("between us alone: {n:03}")).collect();
    assert_eq!(texts, sent, "once and in order");
    for holder in [&first, &second] {
        let api = holder.api();
        eventually("it forgets", || async { letters(&api, "/holding/letters").await == 0 }).await;
    }
    let status = recipient.api.get("/letters").await.json();
    assert_eq!((&status["gaps"], &status["outstanding"]), (&json!([]), &json!(0)));

    // The sender returns, and learns that all was received; nothing comes a second time.
    let sender = start(gone, &hub).await;
    for id in [&ids[0], &ids[LETTERS - 1]] {
        let path = format!("/direct/messages/{id}");
        eventually("the sender learns of it", || async {
            sender.api.get(&path).await.json()["state"] == "received"
        })
        .await;
    }
    assert_eq!(recipient.api.get("/inbox").await.json()["messages"], json!([]));
    for node in [sender, recipient] {
        within("the daemon stops", node.daemon.shutdown()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_not_left_with_others_says_why() {
    let folder = || tempfile::tempdir().expect("a temporary directory");
    let holder = start(folder(), &[]).await;
    let hub = address_of(&holder.api).await;
    let recipient = start(folder(), &hub).await;
    let sender = start(folder(), &hub).await;
    eventually("mailboxes", || async { letters(&sender.api, "/mailboxes").await == 2 }).await;
    let to = recipient.agent_id();
    within("the recipient goes", recipient.daemon.shutdown()).await;
    let nobody = "ab".repeat(32);
    let large = "x".repeat(300 * 1024);
    let queued = async |agent: &str, text: &str| {
        let body = json!({"agent_id": agent, "payload": base64(text), "queue": true});
        let answer = sender.api.post("/direct/send", &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        format!("/direct/messages/{}", answer.json()["request_id"].as_str().expect("an id"))
    };
    let expected = [
        (queued(&to, "small").await, None),
        (queued(&to, &large).await, Some("too_large")),
        (queued(&to, "small again").await, Some("behind_too_large")),
        (queued(&nobody, "small").await, Some("no_mailbox")),
    ];
    for (path, why) in &expected {
        eventually("it says why", || async {
            let status = sender.api.get(path).await.json();
            match why {
                None => status["state"] == "held" && status.get("not_left").is_none(),
                Some(why) => status["not_left"] == **why,
            }
        })
        .await;
    }
    for node in [sender, holder] {
        within("the daemon stops", node.daemon.shutdown()).await;
    }
}
