//! The tokio shell: one task that owns the machine and carries its outputs out.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use x0x_core::{AgentId, Clock, Machine, Protocol};
use x0x_gossip_membership::NeighborEvent;
use x0x_identity::SecretKey;
use x0x_transport::{Inbound, InboundEvent, Transport};
use zeroize::Zeroizing;

use crate::{
    config::PresenceConfig,
    error::FindError,
    metrics::PresenceMetrics,
    query::{SignedQuery, WalkId},
    session::LocalSession,
    state::{Input, Output, PresenceMachine, Status},
};

/// Events taken in one turn.
const BATCH: usize = 64;
/// Callers that wait for a walk.
const MAX_CALLERS: usize = 16;
/// Pause after the operating system had no randomness to give.
const RETRY: Duration = Duration::from_secs(1);

/// What a handle asks.
#[derive(Debug)]
pub(crate) enum Command {
    Watch(Vec<AgentId>),
    Reconsider(Option<AgentId>),
    Status { agent: AgentId, reply: oneshot::Sender<Status> },
    Network(oneshot::Sender<Vec<Status>>),
    Social(oneshot::Sender<Vec<Status>>),
    Find { targets: Vec<AgentId>, ttl: u32, patience: Duration, reply: FindReply },
}

pub(crate) type FindReply = oneshot::Sender<Result<Vec<Status>, FindError>>;

pub(crate) struct Driver {
    pub(crate) machine: PresenceMachine,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) config: PresenceConfig,
    pub(crate) key: SecretKey,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<PresenceMetrics>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) inbound: Inbound,
    pub(crate) neighbors: Option<mpsc::Receiver<NeighborEvent>>,
    pub(crate) events: broadcast::Sender<Status>,
    pub(crate) suspects: broadcast::Sender<AgentId>,
    pub(crate) stop: CancellationToken,
    pub(crate) callers: BTreeMap<u64, Caller>,
    pub(crate) tickets: u64,
    /// A session that could not begin yet.
    pub(crate) overdue: bool,
}

/// Who waits for a walk, and what it found.
#[derive(Debug)]
pub(crate) struct Caller {
    found: BTreeMap<AgentId, Status>,
    reply: FindReply,
}

impl Driver {
    /// Runs until it is stopped, the last handle is dropped, or the transport ends.
    pub(crate) async fn run(mut self) {
        self.renew();
        let mut events = Vec::with_capacity(BATCH);
        loop {
            self.carry_out();
            let pause = self.pause();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => break,
                },
                event = neighbor(&mut self.neighbors) => self.neighbor(event),
                taken = self.inbound.recv_many(&mut events, BATCH) => {
                    if taken == 0 {
                        break;
                    }
                    events.drain(..).for_each(|event| self.event(event));
                }
                () = tokio::time::sleep(pause) => {
                    if std::mem::take(&mut self.overdue) {
                        self.renew();
                    }
                }
            }
            // Whatever woke the task, timers get their turn.
            let now = self.clock.now();
            self.machine.handle(now, Input::Wall(self.clock.wall()));
            if self.machine.poll_timeout().is_some_and(|due| due <= now) {
                self.machine.handle_timeout(now);
            }
        }
        self.handle(Input::Leave);
        self.carry_out();
        for (_, caller) in std::mem::take(&mut self.callers) {
            let _ = caller.reply.send(Err(FindError::Closed));
        }
    }

    fn pause(&self) -> Duration {
        let due = self.machine.poll_timeout();
        let pause = due.map_or(Duration::MAX, |due| due.since(self.clock.now()));
        if self.overdue { pause.min(RETRY) } else { pause }
    }

    fn handle(&mut self, input: Input) {
        let now = self.clock.now();
        self.machine.handle(now, Input::Wall(self.clock.wall()));
        self.machine.handle(now, input);
    }

    fn event(&mut self, event: InboundEvent) {
        match event {
            InboundEvent::Up(session) => {
                self.handle(Input::Up { peer: session.peer, agents: session.agents });
            }
            InboundEvent::Message { peer, message } => {
                self.handle(Input::Message { peer, frame: message });
            }
            InboundEvent::Down(peer) => self.handle(Input::Down(peer)),
            // What was refused is told again with the next beacon.
            _ => {}
        }
    }

    fn neighbor(&mut self, event: Option<NeighborEvent>) {
        match event {
            Some(NeighborEvent::Up(peer)) => self.handle(Input::Neighbor { peer, up: true }),
            Some(NeighborEvent::Down(peer)) => self.handle(Input::Neighbor { peer, up: false }),
            Some(_) => {}
            None => self.neighbors = None,
        }
    }

    fn command(&mut self, command: Command) {
        // Whoever asked may have gone.
        match command {
            Command::Watch(agents) => self.handle(Input::Watch(agents)),
            Command::Reconsider(agent) => self.handle(Input::Reconsider(agent)),
            Command::Status { agent, reply } => {
                let _ = reply.send(self.machine.status(&agent));
            }
            Command::Network(reply) => {
                let _ = reply.send(self.machine.network());
            }
            Command::Social(reply) => {
                let _ = reply.send(self.machine.social());
            }
            Command::Find { reply, .. } if self.callers.len() >= MAX_CALLERS => {
                let _ = reply.send(Err(FindError::Busy));
            }
            Command::Find { targets, ttl, patience, reply } => {
                let Some(query) = self.query(&targets) else {
                    let _ = reply.send(Err(FindError::Busy));
                    return;
                };
                self.tickets += 1;
                let ticket = self.tickets;
                self.callers.insert(ticket, Caller { found: BTreeMap::new(), reply });
                let ticket = Some(ticket);
                self.handle(Input::Find { ticket, query, ttl, patience });
            }
        }
    }

    fn query(&self, targets: &[AgentId]) -> Option<SignedQuery> {
        let mut id: WalkId = [0; 16];
        getrandom::fill(&mut id).ok()?;
        Some(SignedQuery::ask(&self.key, id, targets, self.clock.wall()))
    }

    /// Begins a new session, or tries again in a moment.
    fn renew(&mut self) {
        let mut secret = Zeroizing::new([0; 32]);
        if getrandom::fill(&mut *secret).is_err() {
            self.overdue = true;
            return;
        }
        let (machine, wall) = (self.transport.local_id(), self.clock.wall());
        let PresenceConfig { period, shared, .. } = self.config;
        let session = LocalSession::begin(&self.key, machine, &secret, wall, period, shared);
        self.handle(Input::Session(Box::new(session)));
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Send { peer, frame } => {
                    if self.transport.try_send(peer, Protocol::Presence, frame).is_err() {
                        self.metrics.sends_refused.inc();
                    }
                }
                // Nobody may be listening.
                Output::Changed(status) => {
                    let _ = self.events.send(status);
                }
                Output::Suspect(agent) => {
                    let _ = self.suspects.send(agent);
                }
                Output::Renew => self.renew(),
                Output::Ask(targets) => {
                    if let Some(query) = self.query(&targets) {
                        self.handle(PresenceMachine::quiet_walk(query));
                    }
                }
                Output::Found { ticket, status } => {
                    if let Some(caller) = self.callers.get_mut(&ticket) {
                        caller.found.insert(status.agent, status);
                    }
                }
                Output::Done { ticket } => {
                    if let Some(caller) = self.callers.remove(&ticket) {
                        let _ = caller.reply.send(Ok(caller.found.into_values().collect()));
                    }
                }
            }
        }
        // Callers that gave up make room.
        self.callers.retain(|_, caller| !caller.reply.is_closed());
    }
}

/// The next event of the overlay; never without one.
async fn neighbor(events: &mut Option<mpsc::Receiver<NeighborEvent>>) -> Option<NeighborEvent> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}
