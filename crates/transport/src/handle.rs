//! [`Node`]: what users of sessions hold.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use x0x_core::{Clock, MachineId, PeerAddr, Protocol, SeededRng, StreamClass};
use x0x_identity::{AcceptAll, BindingPolicy};

use crate::{
    config::{MAX_SESSIONS, SessionConfig},
    driver::{Actor, Assembly, Command, Context, Event, Greeting, MAX_COMMANDS, MAX_EVENTS, Ways},
    error::{DialError, InboundTaken, SendError},
    inbound::Consumers,
    link::{BoxFuture, Engine},
    metrics::TransportMetrics,
    own::OwnRecord,
    queue::Refused,
    reach::Reach,
    record::SignedRecord,
    relay::quota::ByteBucket,
    state::Sessions,
    table::{Holds, Session, SessionTable},
    transport::{Inbound, SessionInfo, Transport},
    wire::{CloseCode, ControlOut, Instance, NetworkTag},
};

/// What a machine says of itself to every peer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LocalHello {
    /// Name of the network. Machines of other networks are refused, and refuse this one.
    pub network: String,
    /// Random number of this run of the process.
    pub instance: Instance,
    /// Encoded [`x0x_identity::SignedBinding`]s of the agents on this machine; the first
    /// [`crate::MAX_AGENTS`] are sent.
    pub bindings: Vec<Bytes>,
}

impl LocalHello {
    /// With a given instance number, which has to differ between runs.
    #[must_use]
    pub fn new(network: impl Into<String>, instance: Instance, bindings: Vec<Bytes>) -> Self {
        Self { network: network.into(), instance, bindings }
    }

    /// With an instance number from the operating system's random source.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn random(
        network: impl Into<String>,
        bindings: Vec<Bytes>,
    ) -> Result<Self, getrandom::Error> {
        let mut instance = [0; 16];
        getrandom::fill(&mut instance)?;
        Ok(Self::new(network, instance, bindings))
    }
}

/// A machine's end of all its sessions, over any [`Engine`]. Clones share it; it ends with
/// [`shutdown`](Self::shutdown), or when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Node {
    context: Arc<Context>,
    commands: mpsc::Sender<Command>,
}

impl Node {
    /// Starts accepting links and serving sessions, on the current tokio runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime, or when the operating system has no randomness to give.
    #[must_use]
    pub fn start(
        engine: impl Engine,
        config: SessionConfig,
        hello: LocalHello,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self::start_with(engine, config, hello, clock, Arc::new(AcceptAll))
    }

    /// As [`start`](Self::start), with somebody who decides which of the agents that peers prove
    /// count, and whom to refuse.
    ///
    /// # Panics
    /// Outside a tokio runtime, or when the operating system has no randomness to give.
    #[must_use]
    pub fn start_with(
        engine: impl Engine,
        config: SessionConfig,
        hello: LocalHello,
        clock: Arc<dyn Clock>,
        policy: Arc<dyn BindingPolicy>,
    ) -> Self {
        Self::prepare(engine, config, hello, clock, policy).open()
    }

    /// As [`start_with`](Self::start_with), but without any session until it is opened: so that every
    /// protocol has its consumer when the first message comes. What comes for none is dropped.
    ///
    /// # Panics
    /// When the operating system has no randomness to give.
    pub fn prepare(
        engine: impl Engine,
        config: SessionConfig,
        hello: LocalHello,
        clock: Arc<dyn Clock>,
        policy: Arc<dyn BindingPolicy>,
    ) -> ClosedNode {
        let engine: Arc<dyn Engine> = Arc::new(engine);
        let metrics = Arc::new(TransportMetrics::default());
        let (commands, command_receiver) = mpsc::channel(MAX_COMMANDS);
        let (events, event_receiver) = mpsc::channel(MAX_EVENTS);
        let local = engine.local_id();
        let mut seed = *local.as_bytes();
        seed[..16].copy_from_slice(&hello.instance);
        let machine = Sessions::new(
            local,
            engine.local_addresses(),
            config.clone(),
            metrics.clone(),
            SeededRng::from_seed(seed),
        );
        let machine = if engine.has_probes() { machine.with_help() } else { machine };
        let machine = if engine.dials_streams() { machine.with_streams() } else { machine };
        let total = config.relay.total_rate;
        // A tenth of a second of it at once.
        let total = ByteBucket::new(total, total / 10, clock.now());
        let ways = Ways::new(total, metrics.relay.clone());
        let assembly = Assembly::new(&config, &clock);
        let context = Arc::new(Context {
            local,
            network: NetworkTag::of(&hello.network),
            instance: hello.instance,
            clock,
            engine,
            metrics,
            table: SessionTable::default(),
            ways,
            holds: Holds::default(),
            record: Mutex::default(),
            observations: Mutex::default(),
            consumers: Consumers::new(config.inbound_events, config.inbound_bytes),
            assembly,
            config,
            bindings: RwLock::new(hello.bindings),
            policy,
            disconnects: Mutex::default(),
            disconnect: Notify::new(),
            gave_up: Notify::new(),
            stopping: CancellationToken::new(),
            closing: CancellationToken::new(),
            closed: CancellationToken::new(),
            events,
            tasks: TaskTracker::new(),
        });
        context.engine.greet(Arc::new(Greeting::of(&context)));
        let mut entropy = [0; 32];
        getrandom::fill(&mut entropy).expect("the operating system has randomness");
        let actor = Box::new(Actor::new(context.clone(), machine, SeededRng::from_seed(entropy)));
        let (commands, node) = (command_receiver, Self { context, commands });
        ClosedNode { node, actor, commands, events: event_receiver }
    }

    /// Replaces the bindings shown to peers from the next session on.
    pub fn set_bindings(&self, bindings: Vec<Bytes>) {
        *self.context.bindings.write().unwrap_or_else(PoisonError::into_inner) = bindings;
    }

    /// The gateway says that this address leads here, or that none does any more
    /// ([`portmap`](crate::portmap)). Others are told of it once somebody reached this machine there.
    pub fn set_mapped(&self, address: Option<SocketAddr>) {
        self.context.observations.lock().unwrap_or_else(PoisonError::into_inner).map(address);
    }

    /// Counters of this node.
    #[must_use]
    pub fn metrics(&self) -> &Arc<TransportMetrics> {
        &self.context.metrics
    }

    /// Round trip to the peer's session and back, its queues included. The caller sets the time
    /// limit.
    ///
    /// # Errors
    /// [`SendError`] when the ping cannot be queued, or the session ends first.
    pub async fn ping(&self, peer: MachineId) -> Result<Duration, SendError> {
        let session = self.context.table.get(&peer).ok_or(SendError::NotConnected)?;
        let start = self.context.clock.now();
        let (nonce, answer) = session.ping();
        let ping = ControlOut::Ping(nonce).encode();
        let outbox = session.outbox(StreamClass::Control);
        outbox.try_push(Protocol::Control, ping).map_err(|refused| self.send_error(&refused))?;
        answer.await.map_err(|_| SendError::NotConnected)?;
        Ok(self.context.clock.now().since(start))
    }

    /// Ends all sessions, each once its peer has what was queued for it or after
    /// [`SessionConfig::drain_deadline`], closes the engine, and waits until the peers were told.
    /// Harmless when repeated.
    pub async fn shutdown(&self) {
        self.context.stopping.cancel();
        tokio::select! {
            () = self.context.closed.cancelled() => {}
            // It was never opened.
            () = self.commands.closed() => {}
        }
    }

    fn end_session(&self, peer: MachineId, code: CloseCode) {
        let mut peers = self.context.disconnects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = peers.iter_mut().find(|(known, _)| *known == peer) {
            // Whoever is refused is not waited for.
            if code == CloseCode::Refused {
                *known = code;
            }
        } else if peers.len() < MAX_SESSIONS {
            peers.push((peer, code));
        }
        drop(peers);
        self.context.disconnect.notify_one();
    }

    fn send_error(&self, refused: &Refused) -> SendError {
        match refused {
            Refused::Busy(_) => {
                self.context.metrics.sends_busy.inc();
                SendError::Busy
            }
            Refused::Closed => SendError::NotConnected,
        }
    }
}

/// A node before its first session: it accepts no link, and who asks it for one waits. Dropped, it never opens.
#[must_use = "without being opened it has no sessions"]
pub struct ClosedNode {
    node: Node,
    actor: Box<Actor>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Receiver<Event>,
}

impl ClosedNode {
    /// The node, for those whose consumers come first.
    #[must_use]
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// Starts accepting links and serving sessions, on the current tokio runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn open(self) -> Node {
        let Self { node, actor, commands, events } = self;
        tokio::spawn(actor.run(commands, events));
        node
    }
}

impl fmt::Debug for ClosedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClosedNode").field("node", &self.node).finish_non_exhaustive()
    }
}

/// A caller of connect; the driver hears when it is dropped before its answer.
struct Waiting<'a> {
    result: oneshot::Receiver<Result<SessionInfo, DialError>>,
    answered: bool,
    context: &'a Context,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.result.close();
            self.context.gave_up.notify_one();
        }
    }
}

fn check(protocol: Protocol, message: &Bytes) -> Result<(), SendError> {
    let (len, max) = (message.len(), protocol.class().max_message());
    if protocol == Protocol::Control {
        Err(SendError::Reserved(protocol))
    } else if len > max {
        Err(SendError::TooLarge { len, max })
    } else {
        Ok(())
    }
}

impl Transport for Node {
    fn local_id(&self) -> MachineId {
        self.context.local
    }

    fn local_addresses(&self) -> Vec<SocketAddr> {
        self.context.engine.local_addresses()
    }

    fn record(&self) -> Option<SignedRecord> {
        let (reach, context) = (self.context.reach(), &self.context);
        let online = context.is_online();
        let mut kept = context.record.lock().unwrap_or_else(PoisonError::into_inner);
        OwnRecord::current(&mut kept, &*context.engine, &reach, &*context.clock, online)
    }

    fn reach(&self) -> Reach {
        self.context.reach()
    }

    fn connect(&self, to: PeerAddr) -> BoxFuture<'_, Result<SessionInfo, DialError>> {
        Box::pin(async move {
            let (reply, result) = oneshot::channel();
            let command = Command::Connect { to, reply };
            self.commands.send(command).await.map_err(|_| DialError::Closed)?;
            let mut waiting = Waiting { result, answered: false, context: &self.context };
            let result = (&mut waiting.result).await;
            waiting.answered = true;
            result.unwrap_or(Err(DialError::Closed))
        })
    }

    fn disconnect(&self, peer: MachineId) {
        self.end_session(peer, CloseCode::Disconnected);
    }

    fn expel(&self, peer: MachineId) {
        self.end_session(peer, CloseCode::Refused);
    }

    fn hold(&self, peer: MachineId, holder: Protocol, held: bool) {
        if !self.context.holds.set(peer, holder, held) {
            self.context.metrics.holds_refused.inc();
        }
    }

    fn try_send(
        &self,
        peer: MachineId,
        protocol: Protocol,
        message: Bytes,
    ) -> Result<(), SendError> {
        check(protocol, &message)?;
        let queue = |session: &Arc<Session>| {
            session.touch(protocol.class(), self.context.clock.now());
            session.outbox(protocol.class()).try_push(protocol, message)
        };
        let queued = self.context.table.with(&peer, queue).ok_or(SendError::NotConnected)?;
        queued.map_err(|refused| self.send_error(&refused))
    }

    fn send(
        &self,
        peer: MachineId,
        protocol: Protocol,
        message: Bytes,
    ) -> BoxFuture<'_, Result<(), SendError>> {
        Box::pin(async move {
            check(protocol, &message)?;
            let outbox = self
                .context
                .table
                .with(&peer, |session| {
                    session.touch(protocol.class(), self.context.clock.now());
                    session.outbox(protocol.class()).clone()
                })
                .ok_or(SendError::NotConnected)?;
            outbox.push(protocol, message).await.map_err(|refused| self.send_error(&refused))
        })
    }

    fn inbound(&self, protocol: Protocol) -> Result<Inbound, InboundTaken> {
        self.context.consumers.take(protocol)
    }

    fn session(&self, peer: MachineId) -> Option<SessionInfo> {
        self.context.table.with(&peer, |session| session.info(&self.context.ways))
    }

    fn received(&self, peer: MachineId) -> Option<u64> {
        self.context.table.with(&peer, |session| session.link().received()).flatten()
    }

    fn sessions(&self) -> Vec<SessionInfo> {
        self.context.table.all().iter().map(|session| session.info(&self.context.ways)).collect()
    }
}
