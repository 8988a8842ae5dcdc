//! What users hold.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use tokio::sync::{broadcast, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use x0x_core::{AgentId, Clock, Protocol};
use x0x_gossip_membership::Neighbors;
use x0x_identity::SecretKey;
use x0x_transport::{BoxFuture, Transport, ask};

use crate::{
    config::PresenceConfig,
    driver::{Command, Driver},
    error::{FindError, StartError},
    metrics::PresenceMetrics,
    state::{PresenceMachine, Status},
    visibility::Visibility,
};

/// Commands that wait for the driver.
const COMMAND_QUEUE: usize = 64;
/// Events kept for a listener that lags; it is told how many it missed.
const MAX_EVENTS: usize = 256;
/// Suspects kept for a listener that lags; further ones are not tried to reach.
const MAX_SUSPECTS: usize = 64;

/// Who is there: the narrow trait for what stands above.
pub trait PresenceView: Send + Sync + fmt::Debug + 'static {
    /// What is known of an agent.
    fn status(&self, agent: AgentId) -> BoxFuture<'_, Status>;

    /// The changes from now on.
    fn events(&self) -> Events;
}

/// Changes of presence, each as the agent's new [`Status`].
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Status>);

/// What [`Events::next`] gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PresenceEvent {
    /// An agent came, went or is overdue.
    Changed(Status),
    /// So many changes passed unread; ask for the state anew.
    Lagged(u64),
}

impl Events {
    pub(crate) const fn new(receiver: broadcast::Receiver<Status>) -> Self {
        Self(receiver)
    }

    /// The next change; none once presence is closed.
    pub async fn next(&mut self) -> Option<PresenceEvent> {
        match self.0.recv().await {
            Ok(status) => Some(PresenceEvent::Changed(status)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(PresenceEvent::Lagged(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// Watched agents that seem to be gone. Whoever can should try to open a session with them: when one begins,
/// presence sees it.
#[derive(Debug)]
pub struct Suspects(broadcast::Receiver<AgentId>);

impl Suspects {
    /// The next one; none once presence is closed.
    pub async fn next(&mut self) -> Option<AgentId> {
        loop {
            match self.0.recv().await {
                Ok(agent) => return Some(agent),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// What presence is started with, beside the transport.
#[derive(Debug)]
pub struct PresenceParts {
    /// The local agent, which signs.
    pub key: SecretKey,
    /// Who is a neighbour; without it nobody is, and beacons go to contacts alone.
    pub neighbors: Option<Arc<dyn Neighbors>>,
    /// Who may be told of whom.
    pub visibility: Arc<dyn Visibility>,
    /// Reads the time.
    pub clock: Arc<dyn Clock>,
    /// Timing.
    pub config: PresenceConfig,
    /// Must differ between nodes and runs.
    pub seed: [u8; 32],
}

/// The presence of a node. Clones share one driver, which ends with [`shutdown`](Self::shutdown) or
/// with the last of them.
#[derive(Debug, Clone)]
pub struct Presence {
    commands: mpsc::Sender<Command>,
    events: broadcast::WeakSender<Status>,
    suspects: broadcast::WeakSender<AgentId>,
    metrics: Arc<PresenceMetrics>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Presence {
    /// Begins a session and tells those who may know. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] when another consumer reads the transport's presence messages.
    pub fn start(transport: Arc<dyn Transport>, parts: PresenceParts) -> Result<Self, StartError> {
        let PresenceParts { key, neighbors, visibility, clock, config, seed } = parts;
        let inbound = transport.inbound(Protocol::Presence)?;
        let (local, machine) = (key.public_key().agent_id(), transport.local_id());
        let machine =
            PresenceMachine::new(local, machine, config.clone(), visibility, seed, clock.now());
        let metrics = machine.metrics();
        let (sender, commands) = mpsc::channel(COMMAND_QUEUE);
        let (events, _) = broadcast::channel(MAX_EVENTS);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (suspects, _) = broadcast::channel(MAX_SUSPECTS);
        let (weak, weak_suspects) = (events.downgrade(), suspects.downgrade());
        let driver = Driver {
            machine,
            transport,
            config,
            key,
            clock,
            metrics: Arc::clone(&metrics),
            commands,
            inbound,
            neighbors: neighbors.map(|neighbors| neighbors.events()),
            events,
            suspects,
            stop: stop.clone(),
            callers: BTreeMap::new(),
            tickets: 0,
            overdue: false,
        };
        tasks.spawn(driver.run());
        tasks.close();
        Ok(Self { commands: sender, events: weak, suspects: weak_suspects, metrics, stop, tasks })
    }

    /// The agents of interest from now on, such as contacts and members of groups: at most
    /// [`crate::MAX_WATCHED`].
    pub async fn watch(&self, agents: Vec<AgentId>) {
        // Once closed there is nobody left to tell.
        let _ = self.commands.send(Command::Watch(agents)).await;
    }

    /// Asks again whether an agent, or any, may see and be seen, and is believed to be where it says:
    /// sessions that are not believed are forgotten, and listeners are told what they see now.
    pub async fn reconsider(&self, agent: Option<AgentId>) {
        // Once closed there is nothing left to look at.
        let _ = self.commands.send(Command::Reconsider(agent)).await;
    }

    /// What is known of an agent. Unknown once closed.
    pub async fn of(&self, agent: AgentId) -> Status {
        let asked = ask(&self.commands, |reply| Command::Status { agent, reply }).await;
        asked.unwrap_or(Status::unknown(agent))
    }

    /// Everybody who is known, by id: the network view. Empty once closed.
    pub async fn network(&self) -> Vec<Status> {
        ask(&self.commands, Command::Network).await.unwrap_or_default()
    }

    /// The watched agents, known or not, by id: the social view. Empty once closed.
    pub async fn social(&self) -> Vec<Status> {
        ask(&self.commands, Command::Social).await.unwrap_or_default()
    }

    /// Asks friends, and theirs, for agents: those named, at most [`crate::MAX_TARGETS`], or with none
    /// named whoever is there. Returns what was found when all that were named are, or after `patience`,
    /// at most [`PresenceConfig::walk_timeout`].
    ///
    /// # Errors
    /// [`FindError`] when too many walks go on, or after the shutdown.
    pub async fn find(
        &self,
        targets: Vec<AgentId>,
        ttl: u32,
        patience: Duration,
    ) -> Result<Vec<Status>, FindError> {
        let found =
            ask(&self.commands, |reply| Command::Find { targets, ttl, patience, reply }).await;
        found.unwrap_or(Err(FindError::Closed))
    }

    /// Watched agents that seem to be gone, from now on.
    #[must_use]
    pub fn suspects(&self) -> Suspects {
        match self.suspects.upgrade() {
            Some(suspects) => Suspects(suspects.subscribe()),
            // Closed: a receiver without a sender.
            None => Suspects(broadcast::channel(1).1),
        }
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Arc<PresenceMetrics> {
        &self.metrics
    }

    /// Says goodbye, and waits until the driver has ended. To be called before the transport's
    /// shutdown.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl PresenceView for Presence {
    fn status(&self, agent: AgentId) -> BoxFuture<'_, Status> {
        Box::pin(self.of(agent))
    }

    fn events(&self) -> Events {
        match self.events.upgrade() {
            Some(events) => Events::new(events.subscribe()),
            // Closed: a receiver without a sender.
            None => Events::new(broadcast::channel(1).1),
        }
    }
}
