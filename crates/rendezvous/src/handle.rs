//! What users of discovery hold.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use x0x_core::{AgentId, Clock, MachineId};
use x0x_gossip_pubsub::{PubSub, Start, SubscribeError, topic_id};
use x0x_identity::BindingPolicy;
use x0x_transport::ask;

use crate::{
    addresses::OwnAddresses,
    config::DiscoveryConfig,
    driver::{Command, Driver, LocalAgent},
    error::{AnnounceError, FindError},
    finding::Finding,
    metrics::DiscoveryMetrics,
    state::{DiscoveredAgent, Discoverer},
    wire::ANNOUNCE_TOPIC,
};

/// Commands that wait for the driver.
const COMMAND_QUEUE: usize = 64;

/// Announces the local agent and knows those that were heard of. Clones share one driver, which ends
/// with the last of them.
#[derive(Debug, Clone)]
pub struct Discovery {
    commands: mpsc::Sender<Command>,
    finding: Option<Finding>,
    metrics: Arc<DiscoveryMetrics>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Discovery {
    /// Subscribes to announcements, those still retained included, and begins to announce. What others
    /// announce counts as far as the policy accepts it.
    ///
    /// # Errors
    /// [`SubscribeError`] when pubsub takes no subscription.
    pub async fn start(
        pubsub: Arc<dyn PubSub>,
        local: LocalAgent,
        policy: Arc<dyn BindingPolicy>,
        clock: Arc<dyn Clock>,
        config: DiscoveryConfig,
    ) -> Result<Self, SubscribeError> {
        let topic = topic_id(ANNOUNCE_TOPIC);
        let subscription = pubsub.subscribe(topic, Start::Retained).await?;
        let (sender, commands) = mpsc::channel(COMMAND_QUEUE);
        let metrics = Arc::new(DiscoveryMetrics::default());
        let stop = CancellationToken::new();
        // The id differs from node to node, which is all that spreading them takes.
        let seed = *local.key.public_key().agent_id().as_bytes();
        let driver = Driver {
            machine: Discoverer::new(clock.now(), seed, config.clone()),
            config,
            local,
            policy,
            pubsub,
            topic,
            subscription,
            commands,
            clock,
            metrics: metrics.clone(),
            stop: stop.clone(),
            waiting: Vec::new(),
            awaited: Vec::new(),
            published: None,
            own: OwnAddresses::default(),
        };
        let tasks = TaskTracker::new();
        tasks.spawn(driver.run());
        tasks.close();
        Ok(Self { commands: sender, finding: None, metrics, stop, tasks })
    }

    /// Also looks for agents at holders and through friends.
    #[must_use]
    pub fn with_finding(mut self, finding: Finding) -> Self {
        self.finding = Some(finding);
        self
    }

    /// Looks for an agent: in the cache, then among neighbours, holders and their friends while
    /// announcements are listened for. Returns as soon as it is known to be present; what is known of an
    /// absent one, if anything, when the search is over or after `patience`.
    ///
    /// # Errors
    /// [`FindError::Busy`] when nothing is known, and too many searches went on for this one.
    pub async fn find(
        &self,
        agent: AgentId,
        patience: Duration,
    ) -> Result<Option<DiscoveredAgent>, FindError> {
        self.look(agent, patience, false).await
    }

    /// Like [`find`](Self::find), and when the search is over goes on listening for announcements until the
    /// patience is: for an agent that is about to come.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn wait_for(
        &self,
        agent: AgentId,
        patience: Duration,
    ) -> Result<Option<DiscoveredAgent>, FindError> {
        self.look(agent, patience, true).await
    }

    async fn look(
        &self,
        agent: AgentId,
        patience: Duration,
        stays: bool,
    ) -> Result<Option<DiscoveredAgent>, FindError> {
        if let Some(known) =
            ask(&self.commands, |reply| Command::Present { agent, reply }).await.flatten()
        {
            return Ok(Some(known));
        }
        let (present, mut heard) = oneshot::channel();
        let waits = Command::Await { agent, reply: present };
        self.commands.send(waits).await.map_err(|_| FindError::Closed)?;
        let mut refused = None;
        let search = async {
            match &self.finding {
                Some(finding) => {
                    let search = (finding, agent, patience);
                    self.search(search, &mut heard, &mut refused, stays).await
                }
                None => heard.await.ok(),
            }
        };
        let found = tokio::time::timeout(patience, search).await.ok().flatten();
        match (found, refused) {
            (Some(known), _) => Ok(Some(known)),
            (None, refused) => match (self.agent(&agent).await, refused) {
                (None, Some(FindError::Busy)) => Err(FindError::Busy),
                (known, _) => Ok(known),
            },
        }
    }

    async fn search(
        &self,
        (finding, agent, patience): (&Finding, AgentId, Duration),
        heard: &mut oneshot::Receiver<DiscoveredAgent>,
        refused: &mut Option<FindError>,
        stays: bool,
    ) -> Option<DiscoveredAgent> {
        let record = tokio::select! {
            biased;
            known = &mut *heard => return known.ok(),
            record = finding.agent(agent, None, patience) => record,
        };
        match record {
            // Nobody who might know has heard of it. It may yet announce itself.
            Ok(None) if stays => heard.await.ok(),
            Ok(None) => None,
            Ok(Some(record)) => {
                let _ = self.commands.send(Command::Learned(record)).await;
                heard.await.ok()
            }
            // The search did not take place; the agent may yet announce itself.
            Err(error) => {
                *refused = Some(error);
                heard.await.ok()
            }
        }
    }

    /// Looks beyond the cache for an agent that does not answer where it is known to be: records no newer
    /// than what is known do not count. What is known then, new or not.
    ///
    /// # Errors
    /// [`FindError`] when too many searches go on, or after the shutdown.
    pub async fn seek(
        &self,
        agent: AgentId,
        patience: Duration,
    ) -> Result<Option<DiscoveredAgent>, FindError> {
        let Some(finding) = &self.finding else { return Ok(self.agent(&agent).await) };
        let known = ask(&self.commands, |reply| Command::Stamp { agent, reply }).await.flatten();
        if let Some(record) = finding.agent(agent, known, patience).await? {
            let _ = self.commands.send(Command::Learned(record)).await;
        }
        Ok(self.agent(&agent).await)
    }

    /// Announces the local agent. Returns once it is published: at once, also when the last
    /// announcement was made within [`crate::MIN_ANNOUNCE_INTERVAL`] and still holds; after the rest of
    /// that time when the addresses have changed since.
    ///
    /// # Errors
    /// [`AnnounceError`] when it could not be published.
    pub async fn announce(&self) -> Result<(), AnnounceError> {
        ask(&self.commands, Command::Announce).await.unwrap_or(Err(AnnounceError::Closed))
    }

    /// The agents by id: those seen within [`DiscoveryConfig::freshness`], or all that are known.
    /// The local agent is among them, as its own announcements come back. Empty once closed.
    pub async fn agents(&self, unfiltered: bool) -> Vec<DiscoveredAgent> {
        ask(&self.commands, |reply| Command::Agents { unfiltered, reply }).await.unwrap_or_default()
    }

    /// What is known of an agent, present or not. Nothing once closed.
    pub async fn agent(&self, agent: &AgentId) -> Option<DiscoveredAgent> {
        let agent = *agent;
        ask(&self.commands, |reply| Command::Agent { agent, reply }).await.flatten()
    }

    /// Takes note of the agents that a machine proved in its session hello.
    pub async fn observe_session(
        &self,
        agents: Vec<AgentId>,
        machine: MachineId,
        addresses: Vec<SocketAddr>,
    ) {
        // Once closed there is nobody left to tell.
        let _ = self.commands.send(Command::Met { agents, machine, addresses }).await;
    }

    /// Drops what is known of agents that are not believed any more.
    pub async fn forget(&self, agents: Vec<AgentId>) {
        // Once closed there is nothing left to drop.
        let _ = self.commands.send(Command::Forget(agents)).await;
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Arc<DiscoveryMetrics> {
        &self.metrics
    }

    /// Stops announcing and listening, and waits until the driver has ended.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}
