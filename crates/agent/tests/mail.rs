//! Letters and consumers of one agent.

use std::{net::SocketAddr, path::Path, time::Duration};

use bytes::Bytes;
use x0x_agent::{
    Ack, Agent, AgentConfig, AgentId, Lease, LetterOptions, LetterState, MessageId, Storage,
    trust::{Change, Level},
};

const PATIENCE: Duration = Duration::from_secs(30);

async fn start(folder: &Path) -> Agent {
    let mut config = AgentConfig::new(folder.join("keys"), folder.join("data"));
    config.bind = SocketAddr::from(([127, 0, 0, 1], 0));
    config.storage = Storage::Memory;
    Agent::builder(config).start().await.expect("the agent starts")
}

async fn post(agent: &Agent, to: AgentId) -> MessageId {
    let text = Bytes::from_static(b"hello");
    agent.post_letter(to, text, LetterOptions::default()).await.expect("it is stored")
}

async fn state(agent: &Agent, id: MessageId) -> LetterState {
    agent.letter_status(id).await.expect("the store answers").expect("it is kept").state
}

#[tokio::test]
async fn letters_for_an_agent_that_is_blocked_are_settled_and_say_why() {
    let dir = tempfile::tempdir().expect("a folder");
    let agent = start(dir.path()).await;
    let (blocked, revoked, other) =
        (AgentId::new([1; 32]), AgentId::new([2; 32]), AgentId::new([3; 32]));
    let mut events = agent.letter_events();
    let (first, second) = (post(&agent, blocked).await, post(&agent, revoked).await);
    let third = post(&agent, other).await;
    let again = post(&agent, blocked).await;
    let block = Change::Put { agent: blocked, level: Level::Blocked, label: None };
    let revoke = Change::Revoke { agent: revoked, reason: "lost".to_owned() };
    for change in [block, revoke] {
        agent.trust().change(change).await.expect("it is changed");
    }
    let told = tokio::time::timeout(PATIENCE, async {
        let mut told = Vec::new();
        while told.len() < 3 {
            let event = events.recv().await.expect("few events");
            if event.state == LetterState::Blocked {
                told.push(event.id);
            }
        }
        told.sort_unstable();
        told
    });
    let mut expected = [first, second, again];
    expected.sort_unstable();
    assert_eq!(told.await.expect("in time"), expected);
    for id in expected {
        assert_eq!(state(&agent, id).await, LetterState::Blocked);
    }
    assert!(matches!(state(&agent, third).await, LetterState::Queued | LetterState::Sent));
    assert_eq!(agent.letters_waiting(), 1);
    agent.shutdown().await;
}

#[tokio::test]
async fn who_waits_gets_what_another_one_gives_back_or_keeps_too_long() {
    let dir = tempfile::tempdir().expect("a folder");
    let agent = start(dir.path()).await;
    agent.send_direct(agent.agent_id(), Bytes::from_static(b"work")).await.expect("it is stored");
    let take = |lease: u64| {
        let (agent, lease) = (agent.clone(), Some(Duration::from_secs(lease)));
        async move {
            agent
                .take_mail("workers", 1, PATIENCE, lease.map(Lease::of))
                .await
                .expect("it is taken")
        }
    };
    let first = take(3600).await.messages;
    let waiting = tokio::spawn(take(1));
    agent.release_mail("workers", &[first[0].number], None).await.expect("it was claimed");
    let second = waiting.await.expect("it ends").messages;
    assert_eq!(second[0].id, first[0].id, "given back");
    let third = take(60).await.messages;
    assert_eq!(third[0].id, first[0].id, "kept too long");
    agent.ack_mail("workers", Ack::Numbers(vec![third[0].number])).await.expect("acknowledged");
    agent.shutdown().await;
}
