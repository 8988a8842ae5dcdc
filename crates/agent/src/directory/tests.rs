//! Reaching agents, over real QUIC on loopback.

use x0x_presence::PresenceState;
use x0x_transport::testing::eventually;

use super::*;
use crate::testing::start_agent;

fn filed(agent: &Agent) -> u64 {
    agent.inner.finding.metrics().copies_kept.value()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_where_it_was_is_looked_for_and_seen_when_connected() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = start_agent(folder.path(), "hub", &[]).await;
    let alice = start_agent(folder.path(), "alice", &hub.local_addresses()).await;
    let bob = start_agent(folder.path(), "bob", &hub.local_addresses()).await;
    eventually("bob's record is filed", async || filed(&bob) > 0).await;
    let id = bob.agent_id();

    // Nothing is known of it, or that it is where nobody answers.
    for stale in [None, Some("127.0.0.1:9")] {
        alice.inner.node.disconnect(bob.machine_id());
        eventually("the session is over", async || alice.session_of(id).is_none()).await;
        alice.inner.discovery.forget(vec![id]).await;
        if let Some(stale) = stale {
            let places = vec![stale.parse().expect("an address")];
            alice.inner.discovery.observe_session(vec![id], bob.machine_id(), places).await;
        }
        alice.inner.sought.reached(&id);
        let outcome = alice.connect(id).await;
        assert!(outcome.is_connected(), "{stale:?}: {outcome:?}");
        // Whoever is told so sees it.
        assert_eq!(alice.presence_of(id).await.state, PresenceState::Online);
    }
    // A machine of which nothing is known is reached with the help of a peer that has a session with it.
    alice.inner.node.disconnect(bob.machine_id());
    eventually("the session is over", async || alice.session_of(id).is_none()).await;
    alice.inner.discovery.forget(vec![id]).await;
    let outcome = alice.connect_machine(bob.machine_id()).await;
    assert!(outcome.is_connected(), "{outcome:?}");
    let nobody = MachineId::new([9; 32]);
    assert_eq!(alice.connect_machine(nobody).await.kind, ConnectKind::NotFound);
    // One that is nowhere is looked for once, and not again at once.
    let nobody = AgentId::new([9; 32]);
    let searches = || alice.inner.finding.metrics().searches.value();
    let before = searches();
    for _ in 0..5 {
        assert_eq!(alice.connect(nobody).await.kind, ConnectKind::NotFound);
    }
    assert_eq!(searches(), before + 1);
    for agent in [bob, alice, hub] {
        agent.shutdown().await;
    }
}
