//! The tokio shell around [`Sessions`]: one actor that owns the machine, and the tasks of its links.
//!
//! The actor never waits for a peer or a consumer: it carries outputs out by starting tasks, by
//! queueing into bounded queues, and by closing links.

mod assembly;
mod dialback;
mod early;
mod greeting;
mod link;
mod observe;
mod paths;
mod punch;
mod relay;
mod stream;
mod streams;
mod upgrade;
mod ways;
mod writer;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex as StdMutex, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use x0x_core::{
    Clock, Machine, MachineId, PeerAddr, Protocol, SeededRng, StreamClass, Tick, TokenBucket,
    may_name,
};
use x0x_identity::BindingPolicy;

pub(crate) use self::{assembly::Assembly, greeting::Greeting, ways::Ways};
use self::{
    early::EarlySession, paths::LinkPaths, relay::Relaying, stream::Incoming, streams::Opening,
    upgrade::Upgrades,
};
use crate::{
    config::SessionConfig,
    dialback::DialBacks,
    error::DialError,
    inbound::Consumers,
    link::{Engine, Link, LinkClosed},
    metrics::TransportMetrics,
    own::{OwnAddresses, OwnRecord},
    punch::Punches,
    queue::Outbox,
    reach::Observations,
    state::{AttemptId, Input, LinkId, LinkUp, Means, Output, RequestId, Sessions, Usage},
    table::{Holds, Session, SessionTable},
    transport::SessionInfo,
    wire::{
        CloseCode, ControlOut, DialBackStep, Hello, HelloOut, Instance, NetworkTag, Punch,
        RelayStep,
    },
};

/// Events of link tasks waiting for the actor; the tasks wait while it is full.
pub(crate) const MAX_EVENTS: usize = 1024;
/// Requests of the handle waiting for the actor; the callers wait while it is full.
pub(crate) const MAX_COMMANDS: usize = 256;
/// Longest wait for tasks at the end, should an engine not report the end of a link.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// What every task of a node shares.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) local: MachineId,
    pub(crate) network: NetworkTag,
    pub(crate) instance: Instance,
    pub(crate) config: SessionConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) metrics: Arc<TransportMetrics>,
    pub(crate) table: SessionTable,
    pub(crate) ways: Ways,
    pub(crate) holds: Holds,
    /// The machine's latest record.
    pub(crate) record: StdMutex<Option<OwnRecord>>,
    pub(crate) observations: StdMutex<Observations>,
    pub(crate) consumers: Consumers,
    pub(crate) assembly: Assembly,
    pub(crate) bindings: RwLock<Vec<Bytes>>,
    /// Whose bindings count.
    pub(crate) policy: Arc<dyn BindingPolicy>,
    /// Peers to disconnect, with the code to tell: a set rather than a queue, so that the call never
    /// waits.
    pub(crate) disconnects: StdMutex<Vec<(MachineId, CloseCode)>>,
    pub(crate) disconnect: tokio::sync::Notify,
    /// A caller does not wait for its session any more.
    pub(crate) gave_up: tokio::sync::Notify,
    /// The node is to end.
    pub(crate) stopping: CancellationToken,
    /// The sessions are over: nobody waits for consumers any more.
    pub(crate) closing: CancellationToken,
    /// The node has ended.
    pub(crate) closed: CancellationToken,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) tasks: TaskTracker,
}

/// What link tasks and dials report.
#[derive(Debug)]
pub(crate) enum Event {
    Dialled { attempt: AttemptId, result: Result<Box<dyn Link>, DialError> },
    Accepted(Box<dyn Link>),
    Hello { link: LinkId, hello: Hello },
    Keep { link: LinkId, number: u64 },
    Refused { link: LinkId, code: CloseCode },
    LinkClosed { link: LinkId, reason: LinkClosed },
    Punch { link: LinkId, punch: Box<Punch> },
    Relay { link: LinkId, step: RelayStep },
    DialBack { link: LinkId, step: Box<DialBackStep> },
    Streamed { link: LinkId, way: Option<SocketAddr> },
    AddressesChanged,
}

/// What the handle asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Connect { to: PeerAddr, reply: oneshot::Sender<Result<SessionInfo, DialError>> },
}

impl Context {
    async fn event(&self, event: Event) {
        if let Err(mpsc::error::SendError(
            Event::Dialled { result: Ok(link), .. } | Event::Accepted(link),
        )) = self.events.send(event).await
        {
            link.close(CloseCode::Shutdown);
        }
    }

    async fn refuse(&self, link: LinkId, code: CloseCode) {
        self.event(Event::Refused { link, code }).await;
    }

    /// What the peer at the end of a path is told; of addresses only those that it may be told on that path.
    fn hello(&self, replace: bool, to: SocketAddr) -> ControlOut {
        let mut hello = HelloOut::new(self.network, self.instance);
        hello.bindings.clone_from(&self.bindings.read().unwrap_or_else(PoisonError::into_inner));
        let own = OwnAddresses::new(self.engine.local_addresses(), &self.reach())
            .with_streams(self.engine.stream_port());
        hello.listen_addresses = own.all().filter(|own| may_name(to, *own)).collect();
        hello.replace = replace;
        ControlOut::Hello(hello)
    }
}

/// A link that the machine knows.
struct LinkHandle {
    link: Arc<dyn Link>,
    control: Arc<Outbox>,
    /// The peer's streams, for the readers that the session starts.
    streams: [Option<oneshot::Receiver<Incoming>>; 4],
    /// The latest report to the peer of its address.
    told: Option<SocketAddr>,
    reports: u64,
    /// Steps of agreements that the peer may send.
    punches: TokenBucket,
    /// Steps of contexts that it may send.
    relays: TokenBucket,
    /// Once it is one.
    session: Option<Arc<Session>>,
    /// Fires when both ends have said what they have to before they share a session, or the link ends.
    settled: CancellationToken,
}

/// The turns of one peer's readers, by class.
type Lanes = [Arc<Mutex<()>>; 4];

/// Owns the machine and carries its outputs out.
pub(crate) struct Actor {
    context: Arc<Context>,
    machine: Sessions,
    links: BTreeMap<LinkId, LinkHandle>,
    lanes: HashMap<MachineId, Lanes>,
    requests: BTreeMap<RequestId, oneshot::Sender<Result<SessionInfo, DialError>>>,
    /// Dropping an entry gives the dial up.
    attempts: BTreeMap<AttemptId, oneshot::Sender<()>>,
    next_id: u64,
    observe_at: Tick,
    paths: LinkPaths,
    punches: Punches,
    relaying: Relaying,
    upgrades: Upgrades,
    opening: Opening,
    dial_backs: DialBacks,
    /// Sessions that their peers have not taken yet.
    early: BTreeMap<MachineId, EarlySession>,
    /// Sessions that ended and whose last messages are on their way; each for a limited time.
    drains: TaskTracker,
}

impl Actor {
    /// `probes` is for the nonces of probes: unpredictable, and so not the seed of the machine.
    pub(crate) fn new(context: Arc<Context>, machine: Sessions, probes: SeededRng) -> Self {
        Self {
            paths: LinkPaths::new(probes, context.engine.probe_flows(), &context.metrics),
            punches: Punches::new(context.local, context.metrics.punches.clone()),
            relaying: Relaying::new(
                context.local,
                &context.config.relay,
                context.metrics.relay.clone(),
            ),
            upgrades: Upgrades::default(),
            opening: Opening::new(),
            dial_backs: DialBacks::new(context.metrics.dial_backs.clone()),
            early: BTreeMap::new(),
            context,
            machine,
            links: BTreeMap::new(),
            lanes: HashMap::new(),
            requests: BTreeMap::new(),
            attempts: BTreeMap::new(),
            next_id: 0,
            observe_at: Tick::ZERO,
            drains: TaskTracker::new(),
        }
    }

    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut events: mpsc::Receiver<Event>,
    ) {
        let context = self.context.clone();
        context.tasks.spawn(accept_links(context.clone()));
        let (probe_sender, mut probes) = mpsc::channel(paths::MAX_WAITING);
        context.tasks.spawn(paths::forward_probes(context.clone(), probe_sender));
        context.tasks.spawn(ways::send_relayed(context.clone()));
        context.tasks.spawn(paths::watch_addresses(context.clone()));
        loop {
            let wait = self.wait();
            tokio::select! {
                biased;
                () = context.stopping.cancelled() => break,
                () = context.disconnect.notified() => self.on_disconnects(),
                command = commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                () = context.gave_up.notified() => self.on_gave_up(),
                () = context.engine.woken() => self.watch_paths_soon(),
                Some(event) = events.recv() => self.on_event(event),
                () = sleep(wait) => self.on_timeout(),
                // Last, since anybody can send them.
                Some((from, packet)) = probes.recv() => self.on_probe(from, packet),
            }
        }
        self.shut_down(events).await;
    }

    fn now(&self) -> Tick {
        self.context.clock.now()
    }

    /// Until the next timer, if there is one.
    fn wait(&self) -> Option<Duration> {
        let observe = (!self.links.is_empty()).then_some(self.observe_at);
        let (paths, punches) = (self.paths.next(), self.punches.poll_timeout());
        let (relays, dial_backs) = (self.relaying.next(), self.dial_backs.poll_timeout());
        let timers = [self.machine.poll_timeout(), paths, punches, relays, dial_backs, observe];
        let next = timers.into_iter().flatten().min()?;
        Some(next.since(self.now()))
    }

    fn number(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn on_command(&mut self, command: Command) {
        let Command::Connect { to, reply } = command;
        if reply.is_closed() {
            return;
        }
        let request = RequestId(self.number());
        self.requests.insert(request, reply);
        self.handle(Input::Connect { request, to });
    }

    /// Ends what is done for callers that are gone.
    fn on_gave_up(&mut self) {
        let gone = |_: &RequestId, reply: &mut oneshot::Sender<_>| reply.is_closed();
        let requests: Vec<RequestId> =
            self.requests.extract_if(.., gone).map(|(request, _)| request).collect();
        for request in requests {
            self.handle(Input::GaveUp(request));
        }
    }

    fn on_disconnects(&mut self) {
        let peers = std::mem::take(
            &mut *self.context.disconnects.lock().unwrap_or_else(PoisonError::into_inner),
        );
        for (peer, code) in peers {
            self.handle(Input::Disconnect(peer, code));
        }
    }

    fn on_event(&mut self, event: Event) {
        let input = match event {
            Event::Punch { link, punch } => return self.on_punch(link, *punch),
            Event::Relay { link, step } => return self.on_relay(link, step),
            Event::DialBack { link, step } => return self.on_dial_back(link, *step),
            Event::Streamed { link, way } => return self.on_streamed(link, way),
            Event::AddressesChanged => return self.on_addresses_changed(),
            Event::Dialled { attempt, result } => {
                self.attempts.remove(&attempt);
                let result = result.map(|link| self.add_link(link));
                Input::Dialled { attempt, result }
            }
            Event::Accepted(link) => Input::Accepted(self.add_link(link)),
            Event::Hello { link, hello } => Input::Hello { link, hello },
            Event::Keep { link, number } => Input::Keep { link, number },
            Event::Refused { link, code } => Input::Refused { link, code },
            Event::LinkClosed { link, reason } => {
                tracing::debug!(link = link.0, %reason, "link ended");
                Input::LinkClosed { link, reason }
            }
        };
        let closed = match &input {
            Input::LinkClosed { link, .. } => Some(*link),
            _ => None,
        };
        self.handle(input);
        if let Some(link) = closed {
            self.drop_link(link, None);
        }
    }

    fn on_timeout(&mut self) {
        let now = self.now();
        self.machine.handle_timeout(now);
        self.carry_out();
        self.on_path_timeout(now);
        self.on_punch_timeout();
        self.on_relay_timeout(now);
        self.on_dial_back_timeout();
        if now >= self.observe_at {
            self.observe_at = now + self.context.config.observe_interval;
            self.report_addresses();
            // What those say who leave is kept for its time.
            self.ask_for_probes();
            self.prune_lanes();
            self.report_usage();
        }
    }

    fn handle(&mut self, input: Input) {
        if self.machine.is_crowded() {
            self.report_usage();
        }
        self.machine.handle(self.now(), input);
        self.carry_out();
    }

    /// Tells the machine which sessions are in use, and so which of them may go.
    fn report_usage(&mut self) {
        let usage = |session: Arc<Session>| Usage {
            peer: session.peer,
            used: session.used(),
            held: self.context.holds.contains(&session.peer),
        };
        let all = self.context.table.all().into_iter().map(usage).collect();
        self.machine.handle(self.now(), Input::Usage(all));
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Dial { attempt, address, by, expected } => {
                    self.dial(attempt, address, by, expected);
                }
                Output::Punch(peer) => self.punch(peer),
                Output::PunchOver(peer) => self.punch_over(peer),
                Output::Relay(peer) => self.seek_relay(peer, None),
                Output::RelayOver(peer) => self.relay_unwanted(peer),
                Output::Abort(attempt) => drop(self.attempts.remove(&attempt)),
                Output::SendHello { link, replace } => self.start_link(link, replace),
                Output::SendKeep { link, number } => {
                    self.send_control(link, &ControlOut::Keep(number));
                }
                Output::Up(up) => self.session_up(up),
                Output::Taken { link, peer } => self.session_taken(link, peer),
                Output::Moved { from, to, side, peer } => {
                    self.session_moved(from, to, side, peer);
                }
                Output::Down { link, peer } => self.session_down(link, peer),
                Output::Close { link, code } => self.drop_link(link, Some(code)),
                Output::Connected { request, peer } => {
                    let info = |session: &Arc<Session>| session.info(&self.context.ways);
                    let session = self.context.table.with(&peer, info);
                    self.answer(request, session.ok_or(DialError::Closed));
                }
                Output::Failed { request, error } => self.answer(request, Err(error)),
            }
        }
    }

    fn answer(&mut self, request: RequestId, result: Result<SessionInfo, DialError>) {
        if let Some(reply) = self.requests.remove(&request) {
            // The caller may have given up.
            let _ = reply.send(result);
        }
    }

    fn dial(
        &mut self,
        attempt: AttemptId,
        address: SocketAddr,
        by: Means,
        expected: Option<MachineId>,
    ) {
        let writes = crate::dialback::Input::WritesTo(address);
        self.dial_backs.handle(self.now(), writes);
        let (keep, given_up) = oneshot::channel::<()>();
        self.attempts.insert(attempt, keep);
        let context = self.context.clone();
        self.context.tasks.spawn(async move {
            let dial = match by {
                Means::Packets => context.engine.dial(address, expected),
                Means::Stream => context.engine.dial_stream(address, expected),
            };
            let result = tokio::select! {
                biased;
                result = dial => result,
                _ = given_up => return,
            };
            context.event(Event::Dialled { attempt, result }).await;
        });
    }

    fn add_link(&mut self, link: Box<dyn Link>) -> LinkUp {
        let id = LinkId(self.number());
        let (peer, address) = (link.peer(), link.remote_address());
        let held = self.context.holds.contains(&peer);
        let up = LinkUp { link: id, peer, address, held };
        let control = Arc::new(Outbox::new(self.context.config.queue(StreamClass::Control)));
        let (link, streams) = (Arc::from(link), [const { None }; 4]);
        let punches = punch::rate(self.now());
        let relays = relay::rate(self.now());
        let (told, reports, session) = (None, 0, None);
        let settled = CancellationToken::new();
        let handle =
            LinkHandle { link, control, streams, told, reports, punches, relays, session, settled };
        self.links.insert(id, handle);
        up
    }

    /// Starts a link's tasks and sends the hello.
    fn start_link(&mut self, id: LinkId, replace: bool) {
        let Some(handle) = self.links.get_mut(&id) else { return };
        let mut slots: link::StreamSlots = [const { None }; 4];
        let mut first = None;
        for (class, slot) in StreamClass::ALL.into_iter().zip(&mut slots) {
            let (sender, receiver) = oneshot::channel();
            *slot = Some(sender);
            if class == StreamClass::Control {
                first = Some(receiver);
            } else {
                handle.streams[class as usize] = Some(receiver);
            }
        }
        let to = handle.link.remote_address();
        let (reader, session_control) = oneshot::channel();
        handle.streams[StreamClass::Control as usize] = Some(session_control);
        let (link, control, context) = (handle.link.clone(), handle.control.clone(), &self.context);
        // Who was greeted has the hello.
        let greeted = link.greeted();
        let hello = greeted.is_none().then(|| context.hello(replace, to));
        if let Some(stream) = first {
            let (peer, settled) = (link.peer(), handle.settled.clone().drop_guard());
            let handshake = link::handshake(context.clone(), id, peer, stream, reader);
            context.tasks.spawn(async move {
                let _settled = settled;
                handshake.await;
            });
        }
        context.tasks.spawn(link::run(context.clone(), id, link.clone(), slots));
        let class = StreamClass::Control;
        context.tasks.spawn(writer::write_class(
            context.clone(),
            id,
            link,
            class,
            control.writer(),
            greeted,
        ));
        if let Some(hello) = hello {
            self.send_control(id, &hello);
        }
    }

    fn send_control(&self, id: LinkId, message: &ControlOut) {
        let Some(handle) = self.links.get(&id) else { return };
        if handle.control.try_push(Protocol::Control, message.encode()).is_err() {
            self.context.metrics.control_replies_dropped.inc();
        }
    }

    fn session_down(&mut self, id: LinkId, peer: MachineId) {
        tracing::debug!(peer = %peer.short(), link = id.0, "session down");
        self.early.remove(&peer);
        if let Some(session) = self.context.table.remove(&peer) {
            session.end();
        }
        self.carrier_gone(peer);
    }

    /// Forgets a link, closing it when there is a code to tell. A session that this end ends in
    /// peace is closed once the peer has what was queued for it.
    fn drop_link(&mut self, id: LinkId, code: Option<CloseCode>) {
        self.unwatch_path(id);
        let Some(LinkHandle { link, control, session, settled, .. }) = self.links.remove(&id)
        else {
            return;
        };
        if let Some(code @ (CloseCode::Shutdown | CloseCode::Disconnected)) = code
            && let Some(session) = session
        {
            let deadline = self.context.config.drain_deadline;
            self.drains.spawn(async move {
                let taken = async {
                    session.drained().await;
                    // A peer that has not taken an early session yet would lose what came with it.
                    settled.cancelled().await;
                };
                let _ = tokio::time::timeout(deadline, taken).await;
                session.discard();
                link.close(code);
            });
            return;
        }
        control.close();
        // An early session may be on its way over another link.
        if let Some(session) = session.filter(|session| !self.early.contains_key(&session.peer)) {
            session.discard();
        }
        if let Some(code) = code {
            link.close(code);
        }
    }

    /// Forgets the turns of peers without a reader.
    fn prune_lanes(&mut self) {
        self.lanes.retain(|_, lanes| lanes.iter().any(|lane| Arc::strong_count(lane) > 1));
    }

    async fn shut_down(mut self, mut events: mpsc::Receiver<Event>) {
        let context = self.context.clone();
        self.handle(Input::Shutdown);
        events.close();
        self.drains.close();
        self.drains.wait().await;
        context.closing.cancel();
        context.engine.close().await;
        while let Some(event) = events.recv().await {
            if let Event::Accepted(link) | Event::Dialled { result: Ok(link), .. } = event {
                link.close(CloseCode::Shutdown);
            }
        }
        context.consumers.close();
        context.tasks.close();
        if tokio::time::timeout(CLOSE_DEADLINE, context.tasks.wait()).await.is_err() {
            tracing::warn!("links still open at the end");
        }
        context.closed.cancel();
    }
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

async fn accept_links(context: Arc<Context>) {
    while let Some(link) = context.engine.accept().await {
        context.event(Event::Accepted(link)).await;
    }
}
