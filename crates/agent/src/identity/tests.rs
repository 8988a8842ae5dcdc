//! What an imported card leaves behind.

use x0x_core::MachineId;

use super::*;
use crate::testing::start_agent;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_card_says_that_an_agent_is_outlives_a_restart() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (bob, machine) = (AgentId::new([7; 32]), MachineId::new([8; 32]));
    let addresses = vec!["127.0.0.1:9".parse().expect("an address")];
    let link = AgentLink { agent: bob, machine, addresses: addresses.clone() }.to_text();
    let place = PeerAddr::known(machine, addresses);

    let alice = start_agent(folder.path(), "alice", &[]).await;
    alice.import_card(&link, None).await.expect("imported");
    assert_eq!(alice.hint(&bob), Some(place.clone()));
    alice.shutdown().await;

    let alice = start_agent(folder.path(), "alice", &[]).await;
    assert_eq!(alice.hint(&bob), Some(place));
    let blocked = Change::Put { agent: bob, level: Level::Blocked, label: None };
    alice.trust().change(blocked).await.expect("blocked");
    assert_eq!(alice.hint(&bob), None, "of whom one must not call");
    alice.shutdown().await;
}
