//! [`Letters`]: what users hold, and what they bring.

use std::{fmt, sync::Arc};

use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use x0x_core::{AgentId, Clock, MachineId, Protocol};
use x0x_identity::SecretKey;
use x0x_transport::{BoxFuture, Transport, ask, error::InboundTaken};

use super::{
    collector::Gap,
    config::LettersConfig,
    depositor::NotLeft,
    driver::{Command, Driver},
    metrics::LettersMetrics,
    store::{LetterStore, StoredLetters},
};
use crate::{Direct, Mailing, Standing, outbox::Outbox, wire::MessageId};

/// Commands that wait for the driver.
const MAX_COMMANDS: usize = 256;

/// How agents stand here.
pub trait Trusts: Send + Sync + fmt::Debug + 'static {
    /// Of one, on a machine if that is known. Whoever is unwanted leaves no letters, gets none and
    /// holds none.
    fn standing(&self, agent: &AgentId, machine: Option<&MachineId>) -> Standing;
}

/// Brings sessions about with machines that may hold letters.
pub trait Places: Send + Sync + fmt::Debug + 'static {
    /// With those that rank highest by these places, of all that are known. Ends when that was tried.
    fn meet(&self, places: [u8; 32]) -> BoxFuture<'static, ()>;
}

/// What letters are started with, beside the transport.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "composition makes it, all of it")]
pub struct LettersParts {
    /// The local agent's key: it signs letters, and its mailboxes follow from it.
    pub key: SecretKey,
    /// That of its binding to this machine.
    pub generation: u64,
    /// Where letters that came are delivered.
    pub direct: Direct,
    /// The messages that wait for their recipients.
    pub outbox: Outbox,
    /// Their store, and what becomes of them.
    pub mailing: Mailing,
    /// Where letters of others are kept.
    pub store: Arc<dyn LetterStore>,
    /// What an earlier run left there.
    pub stored: StoredLetters,
    /// How agents stand here.
    pub trusts: Arc<dyn Trusts>,
    /// Where holders are found.
    pub places: Arc<dyn Places>,
    /// Reads the time.
    pub clock: Arc<dyn Clock>,
    /// Bounds and times.
    pub config: LettersConfig,
}

/// What becomes of letters, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LettersStatus {
    /// Letters kept for others.
    pub held: usize,
    /// Their bytes, with what is accounted for each.
    pub held_bytes: u64,
    /// How many bytes may be kept.
    pub hold_limit: u64,
    /// Whether letters of others are kept.
    pub holds: bool,
    /// Own messages that holders have: id, recipient, holders.
    pub held_out: Vec<(MessageId, AgentId, usize)>,
    /// Letters for this agent that are known to be somewhere, and not delivered yet.
    pub outstanding: usize,
    /// Agents that gave a mailbox.
    pub mailboxes: usize,
    /// Letters delivered without the one before them, the newest last.
    pub gaps: Vec<Gap>,
}

/// Leaves letters with others, keeps those of others, and fetches one's own. Clones share one driver,
/// which ends with [`shutdown`](Self::shutdown) or with the last of them.
#[derive(Debug, Clone)]
pub struct Letters {
    commands: mpsc::Sender<Command>,
    metrics: Arc<LettersMetrics>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Letters {
    /// Begins, with what an earlier run left. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`InboundTaken`] when another consumer reads the transport's letters.
    pub fn start(transport: Arc<dyn Transport>, parts: LettersParts) -> Result<Self, InboundTaken> {
        let inbound = transport.inbound(Protocol::Letters)?;
        let metrics = Arc::new(LettersMetrics::default());
        let (commands, receiver) = mpsc::channel(MAX_COMMANDS);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let mut seed = [0; 32];
        // Lots only spread letters. Without the system's randomness, other things fail before them.
        if getrandom::fill(&mut seed).is_err() {
            seed[..8].copy_from_slice(&parts.clock.wall().as_millis().to_le_bytes());
        }
        let driver = Driver::new(transport, parts, Arc::clone(&metrics), seed);
        tasks.spawn(driver.run(receiver, inbound, stop.clone()));
        tasks.close();
        Ok(Self { commands, metrics, stop, tasks })
    }

    /// An agent for which messages wait in the outbox cannot be reached.
    pub fn unreachable(&self, agent: AgentId) {
        // It is told again with the next attempt.
        let _ = self.commands.try_send(Command::Unreachable(agent));
    }

    /// A message for an agent was posted to the outbox.
    pub fn posted(&self, agent: AgentId) {
        let _ = self.commands.try_send(Command::Posted(agent));
    }

    /// How many holders have a copy of a message; none once closed.
    pub async fn holders(&self, id: MessageId) -> usize {
        ask(&self.commands, |reply| Command::Holders(id, reply)).await.unwrap_or_default()
    }

    /// Why a message to an agent, by its number in the outbox, is not left with others, as far as that is
    /// known.
    pub async fn not_left(&self, to: AgentId, number: u64) -> Option<NotLeft> {
        ask(&self.commands, |reply| Command::NotLeft { to, number, reply }).await.flatten()
    }

    /// What becomes of letters now; nothing once closed.
    pub async fn status(&self) -> LettersStatus {
        ask(&self.commands, Command::Status).await.unwrap_or_default()
    }

    /// The counters.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<LettersMetrics> {
        &self.metrics
    }

    /// Ends, and waits until the driver has.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}
