//! The agent: every layer started, connected and stopped in order.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use x0x_core::{AgentId, Clock, MachineId, Metric, Tick, UserId};
use x0x_direct::{Direct, letters::Letters, mail::MailChange};
use x0x_files::Files;
use x0x_gossip_membership::Membership;
use x0x_gossip_pubsub::{Gossip, LinkSnapshot, PubSubMetrics, Snapshot, TopicSnapshot};
use x0x_presence::Presence;
use x0x_rendezvous::{Discovery, Finding};
use x0x_store::SqliteStore;
use x0x_transport::{Node, SessionInfo, Transport};
use x0x_trust::Trust;

use crate::{
    AgentBuilder, Role, identity::Standing, mail::Mail, objects::Kept, sought::Sought,
    topics::TopicNames,
};

/// An agent on the x0x network: an identity, its sessions, and everything that runs over them.
///
/// Cheap to clone; all clones are the same agent. Dropping the last clone does not stop it: call
/// [`shutdown`](Self::shutdown).
#[derive(Debug, Clone)]
pub struct Agent {
    pub(crate) inner: Arc<Inner>,
}

/// How messages spread, at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GossipDiagnostics {
    /// The overlay's active view.
    pub neighbors: Vec<MachineId>,
    /// Its passive view.
    pub passive: Vec<MachineId>,
    /// Every link, by machine.
    pub links: Vec<LinkSnapshot>,
    /// Every topic with a log, by id, with the name under which it was used here.
    pub topics: Vec<(Option<String>, TopicSnapshot)>,
    /// Counters since the start.
    pub metrics: Arc<PubSubMetrics>,
}

/// What sessions that others refused or took say of this machine's configuration; counts since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Troubles {
    /// Sessions that are up.
    pub sessions: u64,
    /// Sessions soon replaced at the peer, again and again: another process has this machine's keys.
    pub contested: u64,
    /// Dials answered with this machine's own keys.
    pub own_key: u64,
    /// Peers of another network or protocol version.
    pub other_network: u64,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) agent_id: AgentId,
    pub(crate) machine_id: MachineId,
    pub(crate) user_id: Option<UserId>,
    pub(crate) kem_public: Vec<u8>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) role: Role,
    pub(crate) pure_pq: bool,
    /// Whether this machine relays for others.
    pub(crate) relays: bool,
    pub(crate) started: Tick,
    pub(crate) node: Arc<Node>,
    pub(crate) engine_metrics: Arc<x0x_transport::quic::QuicMetrics>,
    pub(crate) port_maps: Arc<x0x_transport::portmap::PortMapMetrics>,
    pub(crate) lan: Option<Arc<x0x_transport::lan::LanMetrics>>,
    pub(crate) membership: Membership,
    pub(crate) gossip: Arc<Gossip>,
    pub(crate) objects: Kept,
    pub(crate) groups: crate::groups::Started,
    pub(crate) store: Option<SqliteStore>,
    pub(crate) direct: Direct,
    pub(crate) letters: Letters,
    pub(crate) files: Files,
    pub(crate) presence: Presence,
    pub(crate) finding: Finding,
    pub(crate) discovery: Discovery,
    pub(crate) mail: Mail,
    pub(crate) trust: Trust,
    pub(crate) standing: Arc<Standing>,
    pub(crate) sought: Sought,
    pub(crate) topics: TopicNames,
    pub(crate) tasks: tokio::sync::Mutex<Vec<JoinHandle<()>>>,
    pub(crate) stop: tokio_util::sync::CancellationToken,
}

impl Agent {
    /// Starts from a configuration.
    #[must_use]
    pub fn builder(config: crate::AgentConfig) -> AgentBuilder {
        AgentBuilder::new(config)
    }

    /// This agent.
    #[must_use]
    pub fn agent_id(&self) -> AgentId {
        self.inner.agent_id
    }

    /// The machine it runs on: the id of its QUIC endpoint.
    #[must_use]
    pub fn machine_id(&self) -> MachineId {
        self.inner.machine_id
    }

    /// The user standing behind it, when `user.key` exists.
    #[must_use]
    pub fn user_id(&self) -> Option<UserId> {
        self.inner.user_id
    }

    /// The ML-KEM-768 encapsulation key to which letters for this agent are sealed, 1184 bytes.
    #[must_use]
    pub fn kem_public_key(&self) -> &[u8] {
        &self.inner.kem_public
    }

    /// Addresses where the QUIC endpoint listens.
    #[must_use]
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.inner.node.local_addresses()
    }

    /// Addresses of this machine as its peers see them, without repeats.
    #[must_use]
    pub fn observed_addresses(&self) -> Vec<SocketAddr> {
        let mut seen: Vec<_> =
            self.sessions().into_iter().filter_map(|session| session.observed_address).collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    /// Time since the start.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.inner.clock.now() - self.inner.started
    }

    /// The live sessions, by machine id.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionInfo> {
        self.inner.node.sessions()
    }

    /// The overlay neighbours: the active view.
    #[must_use]
    pub fn neighbors(&self) -> Vec<MachineId> {
        self.inner.membership.active_view()
    }

    /// How messages spread, as this agent sees it now.
    pub async fn gossip_diagnostics(&self) -> GossipDiagnostics {
        let inner = &self.inner;
        let passive = inner.membership.passive_view().await.unwrap_or_default();
        let Snapshot { links, topics, .. } = inner.gossip.snapshot().await;
        let named = |topic: TopicSnapshot| (inner.topics.name(&topic.topic), topic);
        GossipDiagnostics {
            neighbors: self.neighbors(),
            passive: passive.into_iter().filter_map(|peer| peer.id).collect(),
            links,
            topics: topics.into_iter().map(named).collect(),
            metrics: Arc::clone(inner.gossip.metrics()),
        }
    }

    /// Damaged databases that were set aside since the start.
    #[must_use]
    pub fn databases_damaged(&self) -> u64 {
        self.inner.store.as_ref().map_or(0, |store| store.metrics().files_damaged.value())
    }

    /// Whether the last commit of the database failed for want of space.
    #[must_use]
    pub fn storage_full(&self) -> bool {
        self.inner.store.as_ref().is_some_and(|store| store.metrics().full.value() > 0)
    }

    /// What sessions that others refused or took say of this machine's configuration.
    #[must_use]
    pub fn troubles(&self) -> Troubles {
        let sessions = self.inner.node.metrics();
        Troubles {
            sessions: sessions.sessions.value(),
            contested: sessions.sessions_contested.value(),
            own_key: self.inner.engine_metrics.failed_own_key.value(),
            other_network: sessions.hellos_refused_network.value()
                + sessions.links_other_network.value(),
        }
    }

    /// Every layer's counters and gauges.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        let inner = &self.inner;
        let mut metrics = inner.engine_metrics.snapshot();
        metrics.extend(inner.node.metrics().snapshot());
        metrics.extend(inner.port_maps.snapshot());
        metrics.extend(inner.lan.iter().flat_map(|lan| lan.snapshot()));
        metrics.extend(inner.membership.metrics().snapshot());
        metrics.extend(inner.gossip.metrics().snapshot());
        metrics.extend(inner.objects.all.metrics().snapshot());
        metrics.extend(inner.groups.handle.metrics());
        if let Some(store) = &inner.store {
            metrics.extend(store.metrics().snapshot());
        }
        metrics.extend(inner.direct.metrics().snapshot());
        metrics.extend(inner.letters.metrics().snapshot());
        metrics.extend(inner.files.metrics().snapshot());
        metrics.extend(inner.presence.metrics().snapshot());
        metrics.extend(inner.finding.metrics().snapshot());
        metrics.extend(inner.discovery.metrics().snapshot());
        metrics.extend(inner.mail.mailbox.metrics());
        metrics.extend(inner.trust.metrics().snapshot());
        let refused = &inner.standing.notices.refused;
        metrics.push(refused.metric("agent_notices_refused", "Notices that prove nothing"));
        let limited = inner.standing.notices.keeper.limited();
        let help = "Revocations of strangers that were too many";
        metrics.push(limited.metric("agent_revocations_limited", help));
        metrics
    }

    /// Stops every layer, the highest first, tells the peers, and saves the peer cache. Waits until
    /// it is done; harmless when repeated.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        inner.stop.cancel();
        // The goodbye travels before the sessions end.
        inner.presence.shutdown().await;
        inner.finding.shutdown().await;
        inner.discovery.shutdown().await;
        // They save what they are before the log ends below them.
        inner.objects.all.shutdown().await;
        inner.groups.handle.shutdown().await;
        inner.gossip.shutdown().await;
        inner.files.shutdown().await;
        inner.letters.shutdown().await;
        inner.mail.outbox.close();
        inner.direct.close();
        let seen = MailChange::Seen(inner.mail.mailing.admittance().seen_through());
        if let Err(error) = inner.mail.mailing.store().commit(vec![seen]).await {
            tracing::warn!(%error, "it is not recorded how far mail was read");
        }
        if let Some(store) = &inner.store
            && let Err(error) = store.close().await
        {
            // What was committed stays so; a later start looks at the rest.
            tracing::warn!(%error, "the store did not close well");
        }
        inner.membership.shutdown().await;
        inner.mail.mailbox.close();
        inner.node.shutdown().await;
        for task in inner.tasks.lock().await.drain(..) {
            // A task that panicked has said so already; there is nothing left to stop.
            let _ = task.await;
        }
        if let Err(error) = inner.trust.flush().await {
            tracing::warn!(%error, "what was seen of contacts is not written");
        }
        inner.standing.notices.keeper.flush().await;
    }
}
