//! Who is there, and finding who was not heard of: presence and rendezvous over the other layers.

use std::{fmt, sync::Arc, time::Duration};

use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use x0x_core::{AgentId, Clock, PeerAddr};
use x0x_gossip_membership::{Membership, Peer};
use x0x_identity::SecretKey;
use x0x_presence::{
    Events, Presence, PresenceConfig, PresenceParts, PresenceState, PresenceView, Status,
};
use x0x_rendezvous::{Candidates, FinderConfig, Finding, FindingParts};
use x0x_transport::{BoxFuture, Node, ReachClass, SessionInfo, Transport};
use x0x_trust::{Level, Trust};

use crate::{Agent, Role, StartError, builder::layer, reach::told_addresses, trust::Gate};

/// Longest wait until presence has taken note of a session; it does so within a turn of its task.
const NOTED: Duration = Duration::from_secs(2);
/// Contacts that are tried to reach at once.
const MAX_REACHED: usize = 8;

/// Whom membership and the sessions know: they may hold records of others.
#[derive(Clone)]
struct KnownPeers {
    membership: Membership,
    node: Arc<Node>,
}

impl fmt::Debug for KnownPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KnownPeers")
    }
}

impl Candidates for KnownPeers {
    fn candidates(&self) -> BoxFuture<'_, Vec<PeerAddr>> {
        Box::pin(async move {
            // A membership that is shut down knows nobody.
            let known = self.membership.known().await.unwrap_or_default();
            // Whoever is reached over others alone holds nothing that somebody could ask for.
            let known = known.iter().filter(|peer| peer.hint().reach != ReachClass::RelayOnly);
            let sessions = self.node.sessions();
            let met = sessions.iter().map(SessionInfo::peer_addr);
            known.map(Peer::to_addr).chain(met).collect()
        })
    }
}

/// What both layers are started with.
pub(crate) struct Below<'a> {
    pub(crate) node: &'a Arc<Node>,
    pub(crate) membership: &'a Membership,
    pub(crate) agent: &'a SecretKey,
    pub(crate) gate: &'a Gate,
    pub(crate) clock: &'a Arc<dyn Clock>,
    pub(crate) seed: [u8; 32],
}

pub(crate) fn start_presence(
    below: &Below<'_>,
    config: PresenceConfig,
) -> Result<Presence, StartError> {
    let parts = PresenceParts {
        key: below.agent.clone(),
        neighbors: Some(Arc::new(below.membership.clone())),
        visibility: Arc::new(below.gate.clone()),
        clock: Arc::clone(below.clock),
        config,
        seed: below.seed,
    };
    Presence::start(Arc::<Node>::clone(below.node), parts).map_err(layer("presence"))
}

pub(crate) fn start_finding(
    below: &Below<'_>,
    generation: u64,
    role: Role,
    loopback: bool,
) -> Result<Finding, StartError> {
    let (node, membership) = (Arc::clone(below.node), below.membership.clone());
    let addresses = Arc::clone(below.node);
    let parts = FindingParts {
        key: below.agent.clone(),
        generation,
        policy: Arc::new(below.gate.clone()),
        addresses: Box::new(move || told_addresses(&*addresses)),
        candidates: Arc::new(KnownPeers { membership, node }),
        clock: Arc::clone(below.clock),
        config: FinderConfig {
            allow_loopback: loopback,
            held_bytes: role.held_bytes(FinderConfig::default().held_bytes),
            ..FinderConfig::default()
        },
        seed: below.seed,
    };
    Finding::start(Arc::<Node>::clone(below.node), parts).map_err(layer("rendezvous"))
}

/// Contacts are of interest, wherever they are; the blocked are not.
pub(crate) fn watch_contacts(
    presence: Presence,
    trust: Trust,
    stop: CancellationToken,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut events = trust.events();
        loop {
            let contacts = trust.contacts().into_iter();
            let known = contacts.filter(|contact| contact.trust_level >= Level::Known);
            presence.watch(known.map(|contact| contact.agent_id).collect()).await;
            tokio::select! {
                () = stop.cancelled() => return,
                // What it was does not matter, nor whether some were missed.
                event = events.next() => if event.is_none() { return },
            }
        }
    })
}

/// Tries to reach contacts that seem to be gone, before they are taken for it.
pub(crate) async fn reach_suspects(agent: Agent, stop: CancellationToken) {
    let (mut suspects, mut tasks) = (agent.inner.presence.suspects(), JoinSet::new());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = tasks.join_next() => {}
            suspect = suspects.next(), if tasks.len() < MAX_REACHED => {
                let Some(suspect) = suspect else { return };
                let agent = agent.clone();
                tasks.spawn(async move {
                    let outcome = agent.connect(suspect).await;
                    tracing::debug!(agent = %suspect.short(), kind = ?outcome.kind, "overdue");
                });
            }
        }
    }
}

impl Agent {
    /// What is known of an agent's presence; this one is always there.
    pub async fn presence_of(&self, agent: AgentId) -> Status {
        if agent != self.agent_id() {
            return self.inner.presence.of(agent).await;
        }
        let mut own = Status::unknown(agent);
        own.machine = Some(self.machine_id());
        own.state = PresenceState::Online;
        own.last_seen = self.inner.clock.wall();
        own
    }

    /// Waits until an agent with a session is seen online.
    pub(crate) async fn until_seen(&self, agent: AgentId) {
        let mut events = self.presence_events();
        let seen = async {
            while self.presence_of(agent).await.state != PresenceState::Online {
                if events.next().await.is_none() {
                    return;
                }
            }
        };
        if tokio::time::timeout(NOTED, seen).await.is_err() {
            tracing::debug!(agent = %agent.short(), "connected, and not seen online");
        }
    }

    /// Everybody whose presence is known, by id: the network view.
    pub async fn presence_network(&self) -> Vec<Status> {
        self.inner.presence.network().await
    }

    /// The watched agents, known or not, by id: the social view.
    pub async fn presence_social(&self) -> Vec<Status> {
        self.inner.presence.social().await
    }

    /// Agents coming and going, from now on.
    #[must_use]
    pub fn presence_events(&self) -> Events {
        self.inner.presence.events()
    }

    /// Asks friends and theirs, over at most `ttl` (1 to 3) links, who of these agents is there; with
    /// none named, who is there at all. Takes as long as `patience`, at most ten seconds, unless all
    /// that were named are found.
    ///
    /// # Errors
    /// [`x0x_presence::FindError`] when too many such walks go on, or after the shutdown.
    pub async fn presence_walk(
        &self,
        targets: Vec<AgentId>,
        ttl: u32,
        patience: Duration,
    ) -> Result<Vec<Status>, x0x_presence::FindError> {
        self.inner.presence.find(targets, ttl, patience).await
    }
}
