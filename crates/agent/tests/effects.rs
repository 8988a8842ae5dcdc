//! The effects of trust, end to end: for every way in which an agent may stand, every path by which it
//! reaches the application or is reached, over real QUIC on loopback.

use std::{collections::BTreeSet, net::SocketAddr, path::Path, time::Duration};

use x0x_agent::{
    Agent, AgentConfig, AgentId, Delivery, DirectEvent, MachineId, PresenceState, SendFile,
    WallTime,
    named_groups::{GroupPolicy, Profile},
    testing::start_agent,
    trust::{Action, Change, Decision, Level, Reason, Subject},
};
use x0x_identity::AgentBinding;
use x0x_presence::MIN_PERIOD;
use x0x_transport::{SessionInfo, testing::eventually};

const PATIENCE: Duration = Duration::from_secs(30);
const TOPIC: &str = "effects";

/// Makes an agent stand like this at the victim.
async fn set(victim: &Agent, peer: &Agent, reason: Reason) {
    let (agent, machine) = (peer.agent_id(), peer.machine_id());
    let elsewhere = MachineId::new([9; 32]);
    let put = |level| Change::Put { agent, level, label: None };
    let pin = |machine| Change::PutMachine { agent, machine, label: None, pinned: true };
    let changes = match reason {
        Reason::Revoked => vec![Change::Revoke { agent, reason: "lost".to_owned() }],
        Reason::Blocked => vec![put(Level::Blocked)],
        Reason::WrongMachine => vec![put(Level::Known), pin(elsewhere)],
        Reason::Known => vec![put(Level::Known)],
        Reason::Trusted => vec![put(Level::Trusted)],
        Reason::Pinned => vec![put(Level::Known), pin(machine)],
        Reason::Superseded => {
            let (not_before, not_after) = (WallTime::default(), WallTime::default());
            let generation = 1_900_000_000_000;
            let moved =
                AgentBinding { agent, machine: elsewhere, not_before, not_after, generation };
            let _ = victim.trust().observe(&moved);
            Vec::new()
        }
        _ => Vec::new(),
    };
    for change in changes {
        victim.trust().change(change).await.expect("changed");
    }
}

struct World {
    victim: Agent,
    peers: Vec<(Reason, Agent)>,
}

impl World {
    /// A victim, and one peer for each reason, acquainted before they stand like this.
    async fn new(folder: &Path) -> Self {
        let victim = start_agent(folder, "victim", &[]).await;
        let mut peers = Vec::new();
        for reason in Reason::ALL {
            let peer = start_agent(folder, &reason.to_string(), &victim.local_addresses()).await;
            peers.push((reason, peer));
        }
        for (reason, peer) in &peers {
            let agent = peer.agent_id();
            eventually("acquainted", async || victim.session_of(agent).is_some()).await;
            eventually("found", async || victim.discovered_agent(&agent).await.is_some()).await;
            set(&victim, peer, *reason).await;
        }
        Self { victim, peers }
    }

    /// Those whom the table lets do something.
    fn allowed(&self, action: Action) -> BTreeSet<AgentId> {
        let allowed = |(reason, _): &&(Reason, Agent)| Decision::of(*reason, action).allowed();
        self.peers.iter().filter(allowed).map(|(_, peer)| peer.agent_id()).collect()
    }

    /// The same for what comes without a machine, such as gossip and signed questions: what only a machine tells
    /// does not arise.
    fn allowed_anywhere(&self, action: Action) -> BTreeSet<AgentId> {
        let by_agent = |reason| match reason {
            Reason::WrongMachine => Reason::Known,
            Reason::Superseded => Reason::Unknown,
            reason => reason,
        };
        let allowed =
            |(reason, _): &&(Reason, Agent)| Decision::of(by_agent(*reason), action).allowed();
        self.peers.iter().filter(allowed).map(|(_, peer)| peer.agent_id()).collect()
    }

    /// Those of whom something holds.
    async fn those(&self, mut holds: impl AsyncFnMut(&Agent) -> bool) -> BTreeSet<AgentId> {
        let mut those = BTreeSet::new();
        for (_, peer) in &self.peers {
            if holds(peer).await {
                those.insert(peer.agent_id());
            }
        }
        those
    }

    async fn stop(self) {
        for (_, peer) in self.peers {
            peer.shutdown().await;
        }
        self.victim.shutdown().await;
    }
}

/// Sessions count whom they may, and everybody comes back who may.
async fn sessions(world: &World) {
    let victim = &world.victim;
    let counted = world.allowed(Action::SessionAccept);
    eventually("sessions count whom they may", async || {
        let proven = victim.sessions().into_iter().flat_map(|session| session.agents);
        proven.collect::<BTreeSet<AgentId>>() == counted
    })
    .await;
}

async fn gossip(world: &World) {
    let mut reader = world.victim.subscribe(TOPIC).await.expect("a subscription");
    // Who reads a topic carries it for others: nobody's word depends on a link with the victim.
    let mut carriers = Vec::new();
    for (_, peer) in &world.peers {
        carriers.push(peer.subscribe(TOPIC).await.expect("a subscription"));
    }
    for (_, peer) in &world.peers {
        peer.publish(TOPIC, "from a peer".into()).await.expect("published");
    }
    let expected = world.allowed_anywhere(Action::GossipDeliver);
    let mut heard = BTreeSet::new();
    // All of them are in the victim's log, for it carries them to others, before its own word is.
    eventually("all arrived", async || {
        let topics = world.victim.gossip_diagnostics().await.topics;
        let topic = topics.iter().find(|(name, _)| name.as_deref() == Some(TOPIC));
        topic.is_some_and(|(_, topic)| topic.entries >= world.peers.len() as u64)
    })
    .await;
    world.victim.publish(TOPIC, "the end".into()).await.expect("published");
    loop {
        let next = tokio::time::timeout(PATIENCE, reader.next()).await.expect("in time");
        match next.expect("open") {
            Delivery::Message(message) if message.author == world.victim.agent_id() => break,
            Delivery::Message(message) => drop(heard.insert(message.author)),
            _ => {}
        }
    }
    assert_eq!(heard, expected, "gossip");
}

async fn direct(world: &World) {
    let victim = &world.victim;
    let mut mail = victim.direct_events();
    let to = victim.agent_id();
    let counted = world.allowed(Action::SessionAccept);
    let taken = world.those(async |peer| peer.send_direct(to, "psst".into()).await.is_ok()).await;
    assert_eq!(taken, counted, "whoever is proven sees no difference");
    victim.send_direct(to, "the end".into()).await.expect("loopback");
    let mut heard = BTreeSet::new();
    loop {
        let next = tokio::time::timeout(PATIENCE, mail.next()).await.expect("in time");
        match next.expect("open") {
            DirectEvent::Message(message) if message.from == to => break,
            DirectEvent::Message(message) => drop(heard.insert(message.from)),
            _ => {}
        }
    }
    assert_eq!(heard, world.allowed(Action::DirectReceive), "direct messages from");
    let sent = world
        .those(async |peer| victim.send_direct(peer.agent_id(), "hello".into()).await.is_ok())
        .await;
    assert_eq!(sent, world.allowed(Action::DirectSend), "direct messages to");
}

async fn places(world: &World) {
    let victim = &world.victim;
    let believed = world.allowed(Action::AnnounceAccept);
    let found =
        world.those(async |peer| victim.discovered_agent(&peer.agent_id()).await.is_some()).await;
    assert_eq!(found, believed, "the discovery cache");
    let listed: BTreeSet<AgentId> =
        victim.discovered(true).await.into_iter().map(|known| known.agent).collect();
    assert!(listed.is_superset(&believed), "{listed:?}");
    assert_eq!(listed.len(), believed.len() + 1, "nobody but they and the victim");
    for (_, peer) in &world.peers {
        peer.announce().await.expect("announced");
    }
    let found = world
        .those(async |peer| {
            victim
                .find(peer.agent_id(), Duration::from_millis(200))
                .await
                .is_ok_and(|found| found.is_some())
        })
        .await;
    assert_eq!(found, believed, "finding");
}

async fn presence(world: &World) {
    let victim = &world.victim;
    let visible = world.allowed(Action::PresenceVisible);
    eventually("presence shows whom it may", async || {
        let seen = world
            .those(async |peer| {
                victim.presence_of(peer.agent_id()).await.state != PresenceState::Unknown
            })
            .await;
        seen == visible
    })
    .await;
    let network: BTreeSet<AgentId> =
        victim.presence_network().await.into_iter().map(|status| status.agent).collect();
    assert_eq!(network, visible, "the network view");
}

/// Walks over one link. Nobody but the victim has contacts, whose questions alone are answered: what a walk finds
/// is the victim's answer. A walk takes some of an agent's links, by chance: it is begun again until it came by here.
async fn questions(world: &World) {
    let entitled = world.allowed_anywhere(Action::PresenceQuery);
    let served = || metric(&world.victim, "presence_walks_served");
    let answered = world
        .those(async |peer| {
            let patience = if entitled.contains(&peer.agent_id()) { (60, 60) } else { (10, 2) };
            let (mut tries, before) = (0, served());
            // Whoever is not answered hears nothing, however often it asks.
            while tries < patience.0 && served() < before + patience.1 {
                let found = peer.presence_walk(Vec::new(), 1, Duration::from_secs(1)).await;
                if found.is_ok_and(|found| !found.is_empty()) {
                    return true;
                }
                tries += 1;
            }
            false
        })
        .await;
    assert_eq!(answered, entitled, "who asks who is there");
}

fn metric(agent: &Agent, name: &str) -> u64 {
    let metrics = agent.metrics().into_iter();
    metrics.filter(|metric| metric.name == name).map(|metric| metric.value).sum()
}

async fn files(world: &World, folder: &Path) {
    let victim = &world.victim;
    let file = folder.join("offered.txt");
    std::fs::write(&file, b"contents").expect("written");
    for (_, peer) in &world.peers {
        peer.send_file(SendFile::new(victim.agent_id(), &file)).await.expect("it is offered");
    }
    let (shown, counted) = (world.allowed(Action::FileOffer), world.allowed(Action::SessionAccept));
    // Those of others come, and are dropped.
    let dropped = counted.difference(&shown).count() as u64;
    eventually("every offer has come", async || {
        metric(victim, "files_offers") >= shown.len() as u64
            && metric(victim, "files_offers_refused_trust") >= dropped
    })
    .await;
    let from = victim.transfers().await.into_iter().map(|transfer| transfer.record.peer);
    assert_eq!(from.collect::<BTreeSet<AgentId>>(), shown, "files offered by");
}

/// An invite is good for those only whose questions about groups are answered.
async fn groups(world: &World) {
    let (victim, profile) =
        (&world.victim, Profile { name: TOPIC.to_owned(), ..Profile::default() });
    let founded = victim.groups().found(GroupPolicy::PRIVATE_SECURE, profile, String::new()).await;
    let group = founded.expect("founded");
    let uses = world.peers.len() as u32;
    let link = victim.groups().invite(group, None, uses).await.expect("an invite");
    let joined =
        world.those(async |peer| peer.groups().join(link.clone(), String::new()).await.is_ok());
    let expected = world.allowed(Action::GroupInvite);
    assert_eq!(joined.await, expected, "groups");
    let state = victim.groups().get(group).await.expect("its own group");
    let others = state.view.active().map(|(agent, _)| agent).filter(|of| *of != victim.agent_id());
    assert_eq!(others.collect::<BTreeSet<AgentId>>(), expected, "members");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_path_follows_the_table() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let world = World::new(folder.path()).await;
    sessions(&world).await;
    gossip(&world).await;
    direct(&world).await;
    places(&world).await;
    presence(&world).await;
    questions(&world).await;
    files(&world, folder.path()).await;
    groups(&world).await;
    world.stop().await;
}

/// Counts on a peer's side of what it sent and was answered.
fn counts(peer: &Agent) -> Vec<(&'static str, u64)> {
    let told = ["direct_", "transport_sessions", "presence_records_accepted"];
    let metrics = peer.metrics().into_iter();
    let of_peer = metrics.filter(|metric| told.iter().any(|name| metric.name.starts_with(name)));
    of_peer.map(|metric| (metric.name, metric.value)).collect()
}

/// Neither what the blocked one is answered nor how often tells it from one that nobody knows: the same
/// number of messages, acknowledgements and sessions, none refused; and it sees the victim online, by the
/// victim's own word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_agent_cannot_count_its_way_to_the_truth() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = folder.path().join("victim");
    let mut config = AgentConfig::new(place.join("keys"), place.join("data"));
    config.bind = SocketAddr::from(([127, 0, 0, 1], 0));
    config.presence.period = MIN_PERIOD;
    let victim = Agent::builder(config).start().await.expect("the victim starts");
    let to = victim.agent_id();
    let mut answers = Vec::new();
    for reason in [Reason::Unknown, Reason::Blocked, Reason::WrongMachine] {
        let name = reason.to_string();
        // It stands like this before there is any session.
        let peer = start_agent(folder.path(), &name, &[]).await;
        let agent = peer.agent_id();
        set(&victim, &peer, reason).await;
        peer.shutdown().await;
        let peer = start_agent(folder.path(), &name, &victim.local_addresses()).await;
        assert_eq!(peer.agent_id(), agent);
        // Of an agent that is pinned elsewhere the victim believes no session.
        let there = |session: &SessionInfo| session.peer == peer.machine_id();
        eventually("acquainted", async || {
            victim.sessions().iter().any(there) && peer.session_of(to).is_some()
        })
        .await;
        for n in 0..20_u8 {
            peer.send_direct(to, vec![n].into()).await.expect("acknowledged");
        }
        eventually("the victim says that it is there", async || {
            metric(&peer, "presence_beacons_accepted") > 0
        })
        .await;
        let status = peer.presence_of(to).await;
        assert_eq!((status.state, status.reachable), (PresenceState::Online, true), "{name}");
        answers.push(counts(&peer));
        // The session would tell by its end.
        assert!(peer.session_of(to).is_some());
        peer.shutdown().await;
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    victim.shutdown().await;
}

/// What changes while everything runs takes effect on what is there already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_ends_what_is_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let victim = start_agent(folder.path(), "victim", &[]).await;
    let peer = start_agent(folder.path(), "peer", &victim.local_addresses()).await;
    let other = start_agent(folder.path(), "other", &victim.local_addresses()).await;
    let agent = peer.agent_id();
    for of in [&peer, &other] {
        let id = of.agent_id();
        eventually("acquainted", async || victim.session_of(id).is_some()).await;
        eventually("found", async || victim.discovered_agent(&id).await.is_some()).await;
    }
    let expelled = |agent: &Agent| {
        let found = agent.metrics().into_iter();
        found.filter(|metric| metric.name == "transport_sessions_expelled").map(|m| m.value).sum()
    };
    let before: u64 = expelled(&victim);
    peer.revoke(x0x_agent::RevokeWhat::Machine, "sold").await.expect("told");
    let subject = Subject::Machine(peer.machine_id());
    eventually("the victim heard", async || victim.trust().is_revoked_for_all(&subject)).await;
    eventually("its session ended", async || {
        victim.sessions().iter().all(|session| session.peer != peer.machine_id())
    })
    .await;
    assert!(expelled(&victim) > before);
    eventually("it is forgotten", async || victim.discovered_agent(&agent).await.is_none()).await;
    assert!(victim.session_of(other.agent_id()).is_some(), "nobody else is concerned");
    drop(peer.connect(victim.agent_id()).await);
    eventually("and stays away", async || peer.session_of(victim.agent_id()).is_none()).await;
    assert!(victim.sessions().iter().all(|session| session.peer != peer.machine_id()));

    // It is kept, with its proof.
    let data = folder.path().join("victim/data/revocations.bin");
    for agent in [victim, peer, other] {
        agent.shutdown().await;
    }
    assert!(data.exists(), "that of a stranger is written at the end, if not before");
    let fresh = folder.path().join("fresh/data");
    std::fs::create_dir_all(&fresh).expect("made");
    std::fs::copy(&data, fresh.join("revocations.bin")).expect("copied");
    let fresh = start_agent(folder.path(), "fresh", &[]).await;
    eventually("the proof is enough", async || fresh.trust().is_revoked_for_all(&subject)).await;
    fresh.shutdown().await;
}
