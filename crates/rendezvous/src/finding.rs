//! [`Finding`]: what users of the finder hold.

mod driver;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use x0x_core::{AgentId, Clock, PeerAddr, Protocol, TopicId};
use x0x_identity::{BindingPolicy, SecretKey};
use x0x_transport::{BoxFuture, Transport, ask, error::InboundTaken};

use self::driver::{Command, Driver};
use crate::{
    config::FinderConfig, error::FindError, finder::Finder, key::Subject, metrics::FinderMetrics,
    record::Record, wire::Stamp,
};

/// Commands that wait for the driver.
const COMMAND_QUEUE: usize = 64;

/// Who may hold records: the peers that the overlay knows.
pub trait Candidates: Send + Sync + fmt::Debug + 'static {
    /// Some of them now, with their addresses. Asked now and then.
    fn candidates(&self) -> BoxFuture<'_, Vec<PeerAddr>>;
}

/// What finding is started with, beside the transport.
pub struct FindingParts {
    /// The local agent, which signs its records.
    pub key: SecretKey,
    /// That of its binding to this machine.
    pub generation: u64,
    /// Whose records count.
    pub policy: Arc<dyn BindingPolicy>,
    /// Where the machine listens now; asked for every record.
    pub addresses: Box<dyn Fn() -> Vec<SocketAddr> + Send + Sync>,
    /// Who may hold records.
    pub candidates: Arc<dyn Candidates>,
    /// Reads the time.
    pub clock: Arc<dyn Clock>,
    /// Timing.
    pub config: FinderConfig,
    /// Must differ between nodes and runs.
    pub seed: [u8; 32],
}

impl fmt::Debug for FindingParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FindingParts")
            .field("key", &self.key)
            .field("generation", &self.generation)
            .field("policy", &self.policy)
            .field("candidates", &self.candidates)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Files the local agent's records, keeps those of others, and finds agents and subscribers by id.
/// Clones share one driver, which ends with [`shutdown`](Self::shutdown) or with the last of them.
#[derive(Debug, Clone)]
pub struct Finding {
    commands: mpsc::Sender<Command>,
    metrics: Arc<FinderMetrics>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Finding {
    /// Begins, and files the local agent's record as soon as holders are known. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`InboundTaken`] when another consumer reads the transport's rendezvous messages.
    pub fn start(transport: Arc<dyn Transport>, parts: FindingParts) -> Result<Self, InboundTaken> {
        let inbound = transport.inbound(Protocol::Rendezvous)?;
        let policy = Arc::clone(&parts.policy);
        let finder = Finder::new(transport.local_id(), parts.config.clone(), policy, parts.seed);
        let metrics = finder.metrics();
        let (sender, commands) = mpsc::channel(COMMAND_QUEUE);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let agent = parts.key.public_key().agent_id();
        let driver = Driver::new(finder, transport, parts, commands, inbound, stop.clone());
        tasks.spawn(driver.run(Subject::Agent(agent)));
        tasks.close();
        Ok(Self { commands: sender, metrics, stop, tasks })
    }

    /// From now on the local agent is found as a subscriber of the topic.
    pub async fn offer(&self, topic: TopicId) {
        // Once closed there is nobody left to tell.
        let _ = self.commands.send(Command::Offer(Subject::Topic(topic))).await;
    }

    /// No more; what is filed ends by itself within two hours.
    pub async fn withdraw(&self, topic: TopicId) {
        let _ = self.commands.send(Command::Withdraw(Subject::Topic(topic))).await;
    }

    /// Looks for an agent at holders and through friends; records no newer than `after` do not count. Its
    /// addresses are those of use here. Dropping the call ends the search.
    ///
    /// # Errors
    /// [`FindError`] when too many searches go on, or after the shutdown.
    pub async fn agent(
        &self,
        agent: AgentId,
        after: Option<Stamp>,
        patience: Duration,
    ) -> Result<Option<Record>, FindError> {
        let found = self.find(Subject::Agent(agent), after, patience).await?;
        Ok(found.into_iter().next())
    }

    /// Looks for subscribers of a topic, a few of them.
    ///
    /// # Errors
    /// As [`agent`](Self::agent).
    pub async fn subscribers(
        &self,
        topic: TopicId,
        patience: Duration,
    ) -> Result<Vec<Record>, FindError> {
        self.find(Subject::Topic(topic), None, patience).await
    }

    async fn find(
        &self,
        subject: Subject,
        after: Option<Stamp>,
        patience: Duration,
    ) -> Result<Vec<Record>, FindError> {
        let find = |reply| Command::Find { subject, after, patience, reply };
        ask(&self.commands, find).await.unwrap_or(Err(FindError::Closed))
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Arc<FinderMetrics> {
        &self.metrics
    }

    /// Ends, and waits until the driver has.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}
