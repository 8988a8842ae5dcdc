//! The task that owns the machine: it publishes announcements, reads those of others, and answers
//! the handles.

use std::{fmt, net::SocketAddr, sync::Arc};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use x0x_core::{AgentId, Clock, Machine, MachineId, Tick, TopicId, UserId};
use x0x_gossip_pubsub::{Delivery, Message, PubSub, PublishError, Subscription};
use x0x_identity::{BindingPolicy, SecretKey, Shown, SignedBinding};

use crate::{
    addresses::{OwnAddresses, announced_addresses},
    config::{DiscoveryConfig, MIN_ANNOUNCE_INTERVAL},
    error::{AnnounceError, VerifyError},
    metrics::DiscoveryMetrics,
    record::Record,
    state::{DiscoveredAgent, Discoverer, Input, Outcome, Output},
    wire::{Announcement, Stamp},
};

/// Most callers that wait for one announcement.
const MAX_WAITING: usize = 64;

/// Most callers that wait for an agent to appear; the oldest is given up.
const MAX_AWAITED: usize = 256;

/// Whom a node announces.
pub struct LocalAgent {
    /// The agent's key, which signs the binding to the machine.
    pub key: SecretKey,
    /// The machine.
    pub machine: MachineId,
    /// That of the agent's binding to it: see [`x0x_identity::AgentBinding::generation`].
    pub generation: u64,
    /// The user behind the agent, if it is to be told. Nobody shows it until certificates confirm it.
    pub user: Option<UserId>,
    /// Where the machine listens now; asked at every announcement.
    pub addresses: Box<dyn Fn() -> Vec<SocketAddr> + Send + Sync>,
}

impl fmt::Debug for LocalAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalAgent")
            .field("key", &self.key)
            .field("machine", &self.machine)
            .field("generation", &self.generation)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// What a handle asks.
#[derive(Debug)]
pub(crate) enum Command {
    Announce(oneshot::Sender<Result<(), AnnounceError>>),
    Agents { unfiltered: bool, reply: oneshot::Sender<Vec<DiscoveredAgent>> },
    Agent { agent: AgentId, reply: oneshot::Sender<Option<DiscoveredAgent>> },
    Stamp { agent: AgentId, reply: oneshot::Sender<Option<Stamp>> },
    Met { agents: Vec<AgentId>, machine: MachineId, addresses: Vec<SocketAddr> },
    Present { agent: AgentId, reply: oneshot::Sender<Option<DiscoveredAgent>> },
    Await { agent: AgentId, reply: oneshot::Sender<DiscoveredAgent> },
    Learned(Record),
    Forget(Vec<AgentId>),
}

pub(crate) struct Driver {
    pub(crate) machine: Discoverer,
    pub(crate) config: DiscoveryConfig,
    pub(crate) local: LocalAgent,
    /// Whose announcements count.
    pub(crate) policy: Arc<dyn BindingPolicy>,
    pub(crate) pubsub: Arc<dyn PubSub>,
    pub(crate) topic: TopicId,
    pub(crate) subscription: Subscription,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<DiscoveryMetrics>,
    pub(crate) stop: CancellationToken,
    pub(crate) waiting: Vec<oneshot::Sender<Result<(), AnnounceError>>>,
    pub(crate) published: Option<Published>,
    pub(crate) own: OwnAddresses,
    /// Who waits for which agent.
    pub(crate) awaited: Vec<(AgentId, oneshot::Sender<DiscoveredAgent>)>,
}

/// The last announcement that was published: when, and all of its content that may change.
#[derive(Debug)]
pub(crate) struct Published {
    at: Tick,
    addresses: Vec<SocketAddr>,
}

impl Driver {
    /// Runs until it is stopped, the last handle is dropped, or pubsub is closed.
    pub(crate) async fn run(mut self) {
        loop {
            if self.carry_out().is_err() {
                break;
            }
            let now = self.clock.now();
            let look_at = self.own.look_at();
            let due = self.machine.poll_timeout().map_or(look_at, |at| at.min(look_at));
            let pause = due.since(now);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => break,
                },
                delivery = self.subscription.next() => match delivery {
                    Some(delivery) => self.delivery(delivery),
                    None => break,
                },
                () = tokio::time::sleep(pause) => {
                    let now = self.clock.now();
                    self.machine.handle_timeout(now);
                    if self.own.changed(now, &*self.local.addresses) {
                        self.machine.handle(now, Input::Announce);
                    }
                }
            }
        }
        self.answer_waiting(Err(AnnounceError::Closed));
    }

    /// Does what the machine asks.
    fn carry_out(&mut self) -> Result<(), PublishError> {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Announce => self.publish()?,
            }
        }
        Ok(())
    }

    fn publish(&mut self) -> Result<(), PublishError> {
        let (now, current) = (self.clock.now(), (self.local.addresses)());
        let addresses = announced_addresses(current.clone(), self.config.allow_loopback);
        let payload = self.announcement(addresses.clone());
        let result = self.pubsub.try_publish(self.topic, payload);
        let input = match result {
            Ok(()) => {
                self.metrics.announced.inc();
                self.published = Some(Published { at: now, addresses });
                self.own.told(&current);
                self.answer_waiting(Ok(()));
                Input::Published
            }
            Err(PublishError::Closed) => return Err(PublishError::Closed),
            Err(error) => {
                tracing::debug!(%error, "announcement not published; will be tried again");
                self.metrics.announce_failed.inc();
                self.answer_waiting(Err(AnnounceError::Busy));
                Input::PublishFailed
            }
        };
        self.machine.handle(now, input);
        Ok(())
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        announced_addresses((self.local.addresses)(), self.config.allow_loopback)
    }

    /// Whether an announcement made now would be refused its turn, and say nothing new.
    fn is_just_published(&self, now: Tick) -> bool {
        self.published.as_ref().is_some_and(|last| {
            now.since(last.at) < MIN_ANNOUNCE_INTERVAL && last.addresses == self.addresses()
        })
    }

    fn announcement(&mut self, addresses: Vec<SocketAddr>) -> bytes::Bytes {
        let wall = self.clock.wall();
        let LocalAgent { key, machine, generation, user, .. } = &self.local;
        let validity = self.config.binding_validity;
        let binding = SignedBinding::issue_moved(key, *machine, *generation, wall, validity);
        let announcement = Announcement {
            agent: key.public_key().agent_id(),
            machine: *machine,
            user: *user,
            addresses,
            stamp: self.machine.next_stamp(wall),
        };
        announcement.encode(&binding)
    }

    fn answer_waiting(&mut self, result: Result<(), AnnounceError>) {
        for reply in self.waiting.drain(..) {
            // Whoever asked may have gone.
            let _ = reply.send(result);
        }
    }

    fn command(&mut self, command: Command) {
        let now = self.clock.now();
        match command {
            Command::Announce(reply) if self.is_just_published(now) => {
                let _ = reply.send(Ok(()));
            }
            Command::Announce(reply) if self.waiting.len() >= MAX_WAITING => {
                let _ = reply.send(Err(AnnounceError::Busy));
            }
            Command::Announce(reply) => {
                self.waiting.push(reply);
                self.machine.handle(now, Input::Announce);
            }
            Command::Agents { unfiltered, reply } => {
                let _ = reply.send(self.machine.cache().agents(now, unfiltered));
            }
            Command::Agent { agent, reply } => {
                let _ = reply.send(self.machine.cache().agent(&agent).cloned());
            }
            Command::Stamp { agent, reply } => {
                let _ = reply.send(self.machine.cache().stamp(&agent));
            }
            Command::Met { agents, machine, addresses } => {
                let wall = self.clock.wall();
                self.machine.handle(now, Input::Met { wall, agents, machine, addresses });
                self.measure();
                self.answer_awaited(now);
            }
            Command::Present { agent, reply } => {
                let cache = self.machine.cache();
                let known = cache.agent(&agent).filter(|_| cache.is_fresh(now, &agent));
                let _ = reply.send(known.cloned());
            }
            Command::Await { agent, reply } => {
                self.awaited.retain(|(_, reply)| !reply.is_closed());
                if self.awaited.len() >= MAX_AWAITED {
                    self.awaited.remove(0);
                }
                self.awaited.push((agent, reply));
                self.answer_awaited(now);
            }
            Command::Learned(record) => self.learned(now, record),
            Command::Forget(agents) => {
                for agent in agents {
                    self.machine.forget(&agent);
                }
                self.measure();
            }
        }
    }

    /// A verified record is as good as an announcement.
    fn learned(&mut self, now: Tick, record: Record) {
        let Record { agent, machine, addresses, stamp, .. } = record;
        let news = Announcement { agent, machine, user: None, addresses, stamp };
        let wall = self.clock.wall();
        self.machine.announced(now, wall, news, &(self.local.addresses)());
        self.measure();
        self.answer_awaited(now);
        // Filed longer ago than announcements count, but found at its holders all the same.
        let known = self.machine.cache().agent(&agent).cloned();
        for (_, reply) in self.awaited.extract_if(.., |(of, _)| *of == agent) {
            if let Some(known) = known.clone() {
                let _ = reply.send(known);
            }
        }
    }

    /// Tells those who wait for an agent that is present now.
    fn answer_awaited(&mut self, now: Tick) {
        let cache = self.machine.cache();
        let is_there = |agent: &AgentId| cache.is_fresh(now, agent);
        for (agent, reply) in self.awaited.extract_if(.., |(agent, _)| is_there(agent)) {
            if let Some(known) = cache.agent(&agent) {
                let _ = reply.send(known.clone());
            }
        }
    }

    fn delivery(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Message(message) => self.announced(&message),
            Delivery::Lagged { missed } => self.metrics.lagged.add(missed),
            _ => {}
        }
    }

    fn announced(&mut self, message: &Message) {
        let metrics = &self.metrics;
        let Ok(received) = Announcement::decode(&message.payload) else {
            metrics.refused_malformed.inc();
            return;
        };
        // Before the signature is verified, since a replay is most often a retained copy.
        if !self.machine.cache().is_news(&received.claimed_agent(), received.claimed_stamp()) {
            metrics.replayed.inc();
            return;
        }
        let wall = self.clock.wall();
        let (news, binding) = match received.verify(message.author, wall) {
            Ok(verified) => verified,
            Err(error) => {
                tracing::debug!(author = %message.author, %error, "announcement refused");
                match error {
                    VerifyError::WrongAuthor => metrics.refused_author.inc(),
                    VerifyError::FromTheFuture => metrics.refused_future.inc(),
                    VerifyError::Binding(_) => metrics.refused_binding.inc(),
                }
                return;
            }
        };
        if !self.policy.accepts(&binding, Shown::Announcement) {
            metrics.refused_policy.inc();
            return;
        }
        let (outcome, dropped) =
            self.machine.announced(self.clock.now(), wall, news, &(self.local.addresses)());
        metrics.addresses_dropped.add(dropped as u64);
        match outcome {
            Outcome::Kept => metrics.kept.inc(),
            Outcome::Replay => metrics.replayed.inc(),
            Outcome::Full => metrics.refused_full.inc(),
        }
        self.measure();
        self.answer_awaited(self.clock.now());
    }

    fn measure(&self) {
        let cache = self.machine.cache();
        self.metrics.agents.set(cache.len() as u64);
        let evicted = &self.metrics.evicted;
        evicted.add(cache.evicted().saturating_sub(evicted.value()));
    }
}
