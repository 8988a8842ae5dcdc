//! A malicious peer made from the layers themselves: what it forges is refused on every path, counted,
//! and never shown.

use std::time::Duration;

use bytes::Bytes;
use x0x_agent::{
    Agent, UserId, WallTime,
    testing::{DAY, Mallory, agent, announcement, binding, machine, node, now, start_agent},
};
use x0x_identity::{
    AcceptedCertificate, AgentBinding, NOTICE_TOPIC, Notice, SignedBinding, SignedCertificate,
    SignedRevocation, testing::key,
};
use x0x_rendezvous::{ANNOUNCE_TOPIC, Announcement};
use x0x_transport::{Transport, testing::eventually};

fn metric(agent: &Agent, name: &str) -> u64 {
    let metrics = agent.metrics();
    metrics.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("{name}")).value
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_replayed_and_foreign_announcements_are_refused_and_counted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let victim = start_agent(folder.path(), "victim", &[]).await;
    let mallory = Mallory::start(1, victim.local_addresses());
    eventually("joined", async || victim.session_of(agent(1)).is_some()).await;
    let refused = async |name: &str, payload: Bytes| {
        let before = metric(&victim, name);
        mallory.say(ANNOUNCE_TOPIC, payload).await;
        eventually(name, async || metric(&victim, name) > before).await;
    };

    // Somebody else's word, as its own and as theirs.
    refused("discovery_refused_author", announcement(2, now(), 1).encode(&binding(2))).await;
    let theirs = Announcement { agent: agent(1), ..announcement(2, now(), 1) };
    refused("discovery_refused_binding", theirs.encode(&binding(2))).await;
    // A machine that it does not run on, an altered signature, an ended binding, a false clock.
    let elsewhere = Announcement { machine: machine(102), ..announcement(1, now(), 2) };
    refused("discovery_refused_binding", elsewhere.encode(&binding(1))).await;
    let past = WallTime::from_millis(now().as_millis() - 3 * DAY.as_millis() as u64);
    let ended = SignedBinding::issue(&key(1), machine(101), past, DAY);
    refused("discovery_refused_binding", announcement(1, now(), 3).encode(&ended)).await;
    refused("discovery_refused_future", announcement(1, now() + DAY, 4).encode(&binding(1))).await;
    refused("discovery_refused_malformed", Bytes::from_static(b"nonsense")).await;

    // The truth, and the truth again.
    let honest = announcement(1, now(), 5).encode(&binding(1));
    mallory.say(ANNOUNCE_TOPIC, honest.clone()).await;
    eventually("known", async || victim.discovered_agent(&agent(1)).await.is_some()).await;
    refused("discovery_replayed", honest).await;
    let earlier = WallTime::from_millis(now().as_millis() - 60_000);
    refused("discovery_replayed", announcement(1, earlier, 99).encode(&binding(1))).await;
    assert!(victim.discovered_agent(&agent(2)).await.is_none());
    mallory.stop().await;
    victim.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hellos_that_prove_nothing_are_refused_and_counted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let victim = start_agent(folder.path(), "victim", &[]).await;
    let past = WallTime::from_millis(now().as_millis() - 3 * DAY.as_millis() as u64);
    let mut altered = binding(3).encode().to_vec();
    let last = altered.len() - 1;
    altered[last] ^= 1;
    let hellos = [
        (
            "transport_hellos_refused_expired",
            SignedBinding::issue(&key(3), machine(103), past, DAY).encode(),
        ),
        (
            "transport_hellos_refused_binding",
            SignedBinding::issue(&key(3), machine(104), now(), DAY).encode(),
        ),
        ("transport_hellos_refused_binding", altered.into()),
        ("transport_hellos_refused_malformed", Bytes::from_static(b"nonsense")),
    ];
    for (n, (name, hello)) in hellos.into_iter().enumerate() {
        let before = metric(&victim, name);
        let peer = if n == 0 { node(3, vec![hello]) } else { node(3 + 10 * n as u64, vec![hello]) };
        let target = x0x_core::PeerAddr::known(victim.machine_id(), victim.local_addresses());
        drop(peer.connect(target).await);
        eventually(name, async || metric(&victim, name) > before).await;
        assert!(victim.session_of(agent(3)).is_none(), "{name}");
        peer.shutdown().await;
    }
    victim.shutdown().await;
}

/// Who stands behind an agent is believed by certificate alone: of that agent, and while it lasts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_others_and_ended_ones_name_nobody() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let victim = start_agent(folder.path(), "victim", &[]).await;
    let mallory = Mallory::start(5, victim.local_addresses());
    eventually("joined", async || victim.session_of(agent(5)).is_some()).await;
    let (user, past) =
        (key(60), WallTime::from_millis(now().as_millis() - 9 * DAY.as_millis() as u64));
    let user_id: UserId = user.public_key().user_id();
    let standing = |certificate| {
        let certificate = Some(certificate);
        Notice::Agent { binding: binding(5), certificate }.encode()
    };
    let refused = async |payload: Bytes| {
        let before = metric(&victim, "agent_notices_refused");
        mallory.say(NOTICE_TOPIC, payload).await;
        eventually("refused", async || metric(&victim, "agent_notices_refused") > before).await;
        assert_eq!(victim.trust().user_of(&agent(5)), None);
    };
    refused(standing(SignedCertificate::issue(&user, agent(6), now(), DAY))).await;
    refused(standing(SignedCertificate::issue(&user, agent(5), past, DAY))).await;
    refused(Notice::Agent { binding: binding(6), certificate: None }.encode()).await;
    // A revocation by a user whose certificate the agent never accepted, and one that is altered.
    let accepted =
        AcceptedCertificate::accept(&key(6), SignedCertificate::issue(&user, agent(6), now(), DAY))
            .expect("its own");
    let revoked = SignedRevocation::of_certified(&key(61), &accepted, now(), "").expect("short");
    refused(Notice::Revocation(revoked).encode()).await;
    let mut forged =
        Notice::Revocation(SignedRevocation::of_agent(&key(7), now(), "").expect("short"))
            .encode()
            .to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    refused(forged.into()).await;
    assert!(victim.trust().revocations().is_empty());

    // Its own, in its time.
    let honest = SignedCertificate::issue(&user, agent(5), now(), DAY);
    mallory.say(NOTICE_TOPIC, standing(honest)).await;
    eventually("named", async || victim.trust().user_of(&agent(5)) == Some(user_id)).await;
    mallory.stop().await;
    victim.shutdown().await;
}

/// An old machine goes on with a copy of the key: what it announces and files does not count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_superseded_machine_is_not_believed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let victim = start_agent(folder.path(), "victim", &[]).await;
    let old = Mallory::start(8, victim.local_addresses());
    eventually("joined", async || victim.session_of(agent(8)).is_some()).await;
    old.say(ANNOUNCE_TOPIC, announcement(8, now(), 1).encode(&binding(8))).await;
    eventually("known", async || victim.discovered_agent(&agent(8)).await.is_some()).await;

    let (not_before, not_after) = (now(), now() + DAY);
    let (agent_id, to) = (agent(8), machine(200));
    let generation = now().as_millis();
    let moved = AgentBinding { agent: agent_id, machine: to, not_before, not_after, generation };
    let _ = victim.trust().observe(&moved);
    eventually("its session ends", async || victim.session_of(agent_id).is_none()).await;
    eventually("it is forgotten", async || victim.discovered_agent(&agent_id).await.is_none())
        .await;
    eventually("the machine is back as anybody", async || {
        victim.sessions().iter().any(|it| it.peer == machine(108) && it.agents.is_empty())
    })
    .await;
    let before = metric(&victim, "discovery_refused_policy");
    old.say(ANNOUNCE_TOPIC, announcement(8, now(), 2).encode(&binding(8))).await;
    eventually("refused", async || metric(&victim, "discovery_refused_policy") > before).await;
    assert_eq!(victim.find(agent_id, Duration::from_millis(300)).await, Ok(None));
    old.stop().await;
    victim.shutdown().await;
}
