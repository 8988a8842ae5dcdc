//! Sealed letters between whole agents in one process, over real QUIC on loopback: the recipient is
//! away, the sender goes, and others keep what was sent.

use std::{net::SocketAddr, path::Path, time::Duration};

use bytes::Bytes;
use tempfile::TempDir;
use x0x_agent::{
    Agent, AgentConfig, AgentId, DirectEvent, DirectEvents, LetterOptions, LetterState, MessageId,
    Metric,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn config(folder: &Path, name: &str, bootstrap: &[SocketAddr]) -> AgentConfig {
    let dir = folder.join(name);
    let mut config = AgentConfig::new(dir.join("keys"), dir.join("data"));
    config.bind = SocketAddr::from(([127, 0, 0, 1], 0));
    config.bootstrap = bootstrap.to_vec();
    config.letters.deposit_after = Duration::ZERO;
    config
}

async fn start(config: AgentConfig) -> Agent {
    Agent::builder(config).start().await.expect("the agent starts")
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE * 2, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("did not happen: {what}"));
}

/// Every file below a folder as one.
fn all_bytes(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => bytes.extend(all_bytes(&path)),
            false => bytes.extend(std::fs::read(&path).expect("a file")),
        }
    }
    bytes
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

async fn post(agent: &Agent, to: AgentId, text: &str) -> MessageId {
    let payload = Bytes::copy_from_slice(text.as_bytes());
    agent.post_letter(to, payload, LetterOptions::default()).await.expect("it is posted")
}

async fn next_text(events: &mut DirectEvents) -> String {
    match tokio::time::timeout(PATIENCE, events.next()).await {
        Ok(Some(DirectEvent::Message(message))) => {
            String::from_utf8(message.payload.to_vec()).expect("text")
        }
        other => panic!("expected a message, got {other:?}"),
    }
}

struct Cast {
    folder: TempDir,
    holders: Vec<Agent>,
    sender: Agent,
    recipient: Agent,
}

/// Two holders, a sender and a recipient, each with a session to all others, and with mailboxes.
async fn cast() -> Cast {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = start(config(folder.path(), "holder-0", &[])).await;
    let hub = first.local_addresses();
    let second = start(config(folder.path(), "holder-1", &hub)).await;
    let sender = start(config(folder.path(), "sender", &hub)).await;
    let recipient = start(config(folder.path(), "recipient", &hub)).await;
    for agent in [&first, &second, &sender, &recipient] {
        until("a full mesh", async || agent.sessions().len() == 3).await;
        let mailboxes = async || agent.letters_status().await.mailboxes == 3;
        if tokio::time::timeout(PATIENCE, until("mailboxes", mailboxes)).await.is_err() {
            let of_letters = |metric: &Metric| metric.name.starts_with("letters");
            let metrics = agent.metrics().into_iter().filter(of_letters);
            panic!("no mailboxes: {:?}", metrics.collect::<Vec<_>>());
        }
    }
    Cast { folder, holders: vec![first, second], sender, recipient }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_arrive_from_holders_when_their_sender_is_gone() {
    const LETTERS: usize = 10;
    let Cast { folder, holders, sender, recipient } = cast().await;
    let (to, from) = (recipient.agent_id(), sender.agent_id());
    recipient.shutdown().await;
    drop(recipient);
    let mut ids = Vec::new();
    for n in 0..LETTERS {
        ids.push(post(&sender, to, &format!("a secret, number {n:03}")).await);
    }
    for id in &ids {
        until("both keep it", async || sender.letter_holders(*id).await == 2).await;
    }
    let status = holders[0].letters_status().await;
    assert_eq!((status.held, status.held_out.len()), (LETTERS, 0));
    sender.shutdown().await;
    drop(sender);
    for name in ["holder-0", "holder-1"] {
        let bytes = all_bytes(&folder.path().join(name).join("data"));
        assert!(!holds(&bytes, b"a secret"), "{name} can read it");
    }

    let hub = holders[0].local_addresses();
    let recipient = start(config(folder.path(), "recipient", &hub)).await;
    let mut mail = recipient.direct_events();
    for n in 0..LETTERS {
        assert_eq!(next_text(&mut mail).await, format!("a secret, number {n:03}"));
    }
    for holder in &holders {
        let gone = async || holder.letters_status().await.held == 0;
        until("holders forget", gone).await;
    }
    let status = recipient.letters_status().await;
    assert_eq!((status.outstanding, status.gaps.len()), (0, 0));

    // The sender comes back, and learns that all of it was received; nothing comes twice.
    let sender = start(config(folder.path(), "sender", &hub)).await;
    assert_eq!(sender.agent_id(), from);
    for id in &ids {
        let received = async || {
            let letter = sender.letter_status(*id).await.expect("the store answers");
            letter.is_some_and(|letter| letter.state == LetterState::Received)
        };
        until("the sender learns of it", received).await;
    }
    post(&sender, to, "and one more").await;
    assert_eq!(next_text(&mut mail).await, "and one more");
    for agent in holders.iter().chain([&sender, &recipient]) {
        agent.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_back_is_deleted_and_a_restart_of_a_holder_loses_nothing() {
    let Cast { folder, mut holders, sender, recipient } = cast().await;
    let to = recipient.agent_id();
    recipient.shutdown().await;
    drop(recipient);
    let first = post(&sender, to, "one").await;
    let second = post(&sender, to, "two").await;
    for id in [first, second] {
        until("both keep it", async || sender.letter_holders(id).await == 2).await;
    }
    sender.cancel_letter(first).await.expect("it is not too late");
    until("it is withdrawn", async || sender.letter_holders(first).await == 0).await;
    // The second does not wait for the first any more.
    until("it is left anew", async || sender.letter_holders(second).await == 2).await;
    for holder in &holders {
        until("it is deleted", async || holder.letters_status().await.held == 1).await;
    }
    sender.shutdown().await;
    drop(sender);
    let hub = holders[0].local_addresses();
    let second = holders.pop().expect("two holders");
    second.shutdown().await;
    drop(second);
    let second = start(config(folder.path(), "holder-1", &hub)).await;
    assert_eq!(second.letters_status().await.held, 1);
    let first = holders.pop().expect("one holder");
    first.shutdown().await;
    drop(first);

    let hub = second.local_addresses();
    let recipient = start(config(folder.path(), "recipient", &hub)).await;
    let mut mail = recipient.direct_events();
    assert_eq!(next_text(&mut mail).await, "two");
    until("it forgets", async || second.letters_status().await.held == 0).await;
    second.shutdown().await;
    recipient.shutdown().await;
}
