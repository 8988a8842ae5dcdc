//! The tokio shell around [`HyParView`]: one actor that owns the machine.
//!
//! It never waits for a peer or the disk: dials and cache writes are tasks, messages go into the
//! transport's queues or are dropped and counted.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use x0x_core::{Clock, Machine, MachineId, PeerAddr, Protocol, Scope, Tick, TokenBucket};
use x0x_transport::{
    Inbound, InboundEvent, SessionInfo, Side, Transport,
    error::{DialError, SendError},
};

use crate::{
    announce::Announcer,
    cache::{self, CachedPeer, PeerCache},
    config::MembershipConfig,
    metrics::MembershipMetrics,
    neighbors::NeighborEvent,
    peer::Peer,
    state::{DialFailure, HyParView, Input, MAX_DIALS, MAX_SESSIONS, Output},
    wire::{Message, MessageIn, Verified},
};

/// From a change of the cache to its being written: the few sessions of a start make one write. Short,
/// since a node that is killed before the first write may know nobody when it starts again.
const CACHE_DELAY: Duration = Duration::from_millis(100);
/// Shortest time between two writes of the cache.
const CACHE_INTERVAL: Duration = Duration::from_secs(2);

/// How often the own addresses and the own record are looked at, beside each new session.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// How soon after a new session they are looked at again: what its peer sees of this machine comes after it.
const REPORTED: Duration = Duration::from_secs(2);
/// Records of a peer that are verified at once, and the time in which it earns one more. An honest one
/// has a new record twice a day, or when its addresses change.
const RECORD_BURST: u32 = 4;
const RECORD_REFILL: Duration = Duration::from_secs(60);

/// What the handle asks for.
#[derive(Debug)]
pub(crate) enum Command {
    PassiveView(oneshot::Sender<Vec<PeerAddr>>),
    Known(oneshot::Sender<Vec<Peer>>),
    Cached(oneshot::Sender<Vec<CachedPeer>>),
    Introduce(PeerAddr),
    Refresh,
}

type Dialled = (PeerAddr, Result<MachineId, DialFailure>);

/// Owns the machine and carries its outputs out.
pub(crate) struct Actor {
    transport: Arc<dyn Transport>,
    machine: HyParView,
    announcer: Announcer,
    config: MembershipConfig,
    clock: Arc<dyn Clock>,
    metrics: Arc<MembershipMetrics>,
    dials: JoinSet<Dialled>,
    local_addresses: Vec<std::net::SocketAddr>,
    /// When the own addresses and record are looked at again.
    refresh_at: Tick,
    /// How many records of each peer with a session may be verified; at most [`MAX_SESSIONS`].
    records: BTreeMap<MachineId, TokenBucket>,
    store: Option<Store>,
}

impl Actor {
    pub(crate) fn new(
        transport: Arc<dyn Transport>,
        machine: HyParView,
        announcer: Announcer,
        config: MembershipConfig,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let metrics = machine.metrics();
        let store = config.cache_file.clone().map(|path| Store::new(path, metrics.clone()));
        let (dials, local_addresses) = (JoinSet::new(), Vec::new());
        Self {
            transport,
            machine,
            announcer,
            config,
            clock,
            metrics,
            dials,
            local_addresses,
            refresh_at: Tick::ZERO,
            records: BTreeMap::new(),
            store,
        }
    }

    pub(crate) async fn run(
        mut self,
        mut inbound: Inbound,
        mut commands: mpsc::Receiver<Command>,
        stop: CancellationToken,
    ) {
        self.begin().await;
        loop {
            let wait = self.wait();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(command) = commands.recv() => self.on_command(command),
                Some(dialled) = self.dials.join_next() => match dialled {
                    Ok((to, result)) => self.on_dialled(to, result),
                    // The machine gives the dial up at its deadline.
                    Err(error) => tracing::error!(%error, "dial task failed"),
                },
                event = inbound.recv() => match event {
                    Some(event) => self.on_event(event),
                    None => break,
                },
                () = tokio::time::sleep(wait) => {
                    if self.clock.now() >= self.refresh_at {
                        self.refresh_addresses();
                    }
                    self.run_timers(self.clock.now());
                    self.carry_out();
                }
            }
        }
        self.handle(Input::Leave);
        self.dials.abort_all();
        if let Some(store) = self.store {
            store.close().await;
        }
    }

    async fn begin(&mut self) {
        let (local, now) = (self.transport.local_id(), self.clock.wall());
        let mut cached = Vec::new();
        if let Some(store) = &mut self.store {
            store.load(local, now).await;
            cached = store.cache.to_dial().cloned().collect();
        }
        self.refresh_addresses();
        let bootstrap = self.config.bootstrap.clone();
        self.handle(Input::Start { bootstrap, cached });
    }

    /// Until the next timer; long when there is none, since any other event ends the wait.
    fn wait(&self) -> Duration {
        const IDLE: Duration = Duration::from_secs(24 * 3600);
        let save = self.store.as_ref().and_then(|store| store.save_at);
        let next = self.machine.poll_timeout().into_iter().chain(save).min();
        let next = next.into_iter().chain([self.refresh_at]).min();
        next.map_or(IDLE, |at| at.since(self.clock.now()))
    }

    fn run_timers(&mut self, now: Tick) {
        if let Some(store) = &mut self.store {
            if store.cache.set_anchors(self.machine.anchors()) {
                store.save_soon(now);
            }
            store.save_if_due(now);
        }
        if self.machine.poll_timeout().is_some_and(|at| at <= now) {
            self.count_packets(now);
            self.machine.handle_timeout(now);
        }
    }

    /// Tells the machine from which neighbours packets come.
    fn count_packets(&mut self, now: Tick) {
        let neighbours: Vec<MachineId> = self.machine.active().collect();
        for peer in neighbours {
            if let Some(packets) = self.transport.received(peer) {
                self.machine.handle(now, Input::Received { peer, packets });
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        // The caller may have given up.
        match command {
            Command::PassiveView(reply) => {
                let _ = reply.send(self.machine.passive().map(Peer::to_addr).collect());
            }
            Command::Known(reply) => {
                let _ = reply.send(self.machine.known().cloned().collect());
            }
            Command::Cached(reply) => {
                let cache = self.store.as_ref().map(|store| &store.cache);
                let _ = reply.send(cache.into_iter().flat_map(PeerCache::entries).collect());
            }
            Command::Introduce(peer) => {
                if let Some(peer) = Peer::from_addr(&peer) {
                    self.handle(Input::Introduce(peer));
                }
            }
            Command::Refresh => self.refresh_addresses(),
        }
    }

    fn on_dialled(&mut self, to: PeerAddr, result: Result<MachineId, DialFailure>) {
        if let (Some(store), Some(id), Err(DialFailure::Unreachable)) =
            (&mut self.store, to.id, result)
            && store.cache.note_failure(id)
        {
            store.save_soon(self.clock.now());
        }
        self.handle(Input::DialResult { to, result });
    }

    fn on_event(&mut self, event: InboundEvent) {
        match event {
            InboundEvent::Up(session) => self.on_up(&session),
            InboundEvent::Message { peer, message } => self.on_message(peer, &message),
            InboundEvent::Down(peer) => {
                self.records.remove(&peer);
                self.handle(Input::Down(peer));
            }
            // Membership messages are not kept for later: the protocol repairs what was dropped.
            _ => {}
        }
    }

    fn on_up(&mut self, session: &SessionInfo) {
        self.refresh_addresses();
        self.refresh_at = self.clock.now() + REPORTED;
        let Some(peer) = Peer::from_addr(&session.peer_addr()) else {
            return;
        };
        let path = Scope::of_path(session.remote_address.ip());
        let peer = peer.named_over(path);
        let dialled = session.side == Side::Dialer;
        if let Some(store) = &mut self.store {
            store.note(self.clock.as_ref(), peer.clone(), dialled);
        }
        let (id, remote, rtt) = (peer.id(), session.remote_address, session.rtt);
        self.machine.handle(self.clock.now(), Input::Up { peer, path, dialled });
        self.handle(Input::Path { peer: id, remote, rtt });
    }

    fn on_message(&mut self, peer: MachineId, bytes: &Bytes) {
        let message = MessageIn::decode(bytes);
        if message.as_ref().is_ok_and(MessageIn::has_record) && !self.may_record(peer) {
            return self.metrics.refused_rate.inc();
        }
        match message.and_then(|message| message.verify(self.transport.local_id())) {
            Ok(Verified { message: Message::Record(record), .. })
                if !record.is_valid(self.clock.wall()) =>
            {
                self.metrics.refused_records.inc();
            }
            Ok(verified) => {
                self.metrics.refused_entries.add(verified.refused_entries);
                self.handle(Input::Message { peer, message: verified.message });
            }
            Err(error) => {
                self.metrics.refused_malformed.inc();
                tracing::debug!(peer = %peer.short(), %error, "membership message refused");
            }
        }
    }

    /// Signatures cost more than messages: a peer gets few of them checked.
    fn may_record(&mut self, peer: MachineId) -> bool {
        let now = self.clock.now();
        let full = self.records.len() >= MAX_SESSIONS;
        if full && !self.records.contains_key(&peer) {
            return false;
        }
        let fresh = || TokenBucket::new(RECORD_BURST, RECORD_REFILL, now);
        self.records.entry(peer).or_insert_with(fresh).take(now)
    }

    /// The entry about this node in shuffles follows its addresses.
    fn refresh_addresses(&mut self) {
        self.refresh_at = self.clock.now() + REFRESH_INTERVAL;
        let addresses = self.transport.local_addresses();
        if addresses != self.local_addresses {
            self.local_addresses.clone_from(&addresses);
            self.handle(Input::LocalAddresses(addresses));
        }
        if let Some(record) = self.transport.record() {
            self.handle(Input::Record(record));
        }
    }

    fn handle(&mut self, input: Input) {
        let now = self.clock.now();
        self.machine.handle(now, input);
        // A stream of inputs must not keep the timers waiting.
        self.run_timers(now);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        let mut changes = Vec::new();
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Send { to, message } => self.send(to, message.encode()),
                Output::Dial(to) => self.dial(to),
                Output::NeighborUp(id) => {
                    self.transport.hold(id, Protocol::Membership, true);
                    changes.push(NeighborEvent::Up(id));
                }
                Output::NeighborDown(id) => {
                    self.transport.hold(id, Protocol::Membership, false);
                    changes.push(NeighborEvent::Down(id));
                }
                Output::Disconnect(id) => self.transport.disconnect(id),
            }
        }
        for change in &changes {
            tracing::debug!(?change, "active view");
        }
        self.announcer.apply(changes);
    }

    fn send(&self, to: MachineId, message: Bytes) {
        match self.transport.try_send(to, Protocol::Membership, message) {
            // The session ended; its `Down` is on the way.
            Ok(()) | Err(SendError::NotConnected) => {}
            Err(_) => self.metrics.send_busy.inc(),
        }
    }

    fn dial(&mut self, to: PeerAddr) {
        // The machine counts its dials; one that it gave up for a session may take a moment more.
        if self.dials.len() >= 2 * MAX_DIALS {
            let result = Err(DialFailure::Later(self.config.overlay.retry_min));
            self.dials.spawn(async move { (to, result) });
            return;
        }
        let (transport, limit) = (self.transport.clone(), self.config.overlay.dial_timeout);
        self.dials.spawn(async move {
            let result = match tokio::time::timeout(limit, transport.connect(to.clone())).await {
                Ok(Ok(session)) => Ok(session.peer),
                Ok(Err(error)) => Err(failure(&error)),
                Err(_) => Err(DialFailure::Unreachable),
            };
            (to, result)
        });
    }
}

fn failure(error: &DialError) -> DialFailure {
    const CROWDED: Duration = Duration::from_secs(5);
    match error {
        DialError::OwnAddress => DialFailure::OwnAddress,
        DialError::BackingOff { retry_in_ms } => {
            DialFailure::Later(Duration::from_millis(*retry_in_ms))
        }
        DialError::Limit { .. } => DialFailure::Later(CROWDED),
        _ => DialFailure::Unreachable,
    }
}

/// The peer cache and its file.
struct Store {
    path: PathBuf,
    metrics: Arc<MembershipMetrics>,
    cache: PeerCache,
    save_at: Option<Tick>,
    saved_at: Option<Tick>,
    writing: Option<JoinHandle<()>>,
}

impl Store {
    fn new(path: PathBuf, metrics: Arc<MembershipMetrics>) -> Self {
        let cache = PeerCache::default();
        Self { path, metrics, cache, save_at: None, saved_at: None, writing: None }
    }

    async fn load(&mut self, local: MachineId, now: x0x_core::WallTime) {
        let path = self.path.clone();
        let loading = tokio::task::spawn_blocking(move || PeerCache::load(&path, local, now));
        match loading.await {
            Ok(Ok(cache)) => self.cache = cache,
            Ok(Err(error)) => tracing::warn!(%error, "starting without the peer cache"),
            Err(error) => tracing::error!(%error, "reading the peer cache failed"),
        }
    }

    fn note(&mut self, clock: &dyn Clock, peer: Peer, dialled: bool) {
        if self.cache.note(clock.wall(), peer, dialled) {
            self.save_soon(clock.now());
        }
    }

    fn save_soon(&mut self, now: Tick) {
        if self.save_at.is_none() {
            let soon = now + CACHE_DELAY;
            let spaced = self.saved_at.map_or(soon, |at| at + CACHE_INTERVAL);
            self.save_at = Some(soon.max(spaced));
        }
    }

    fn save_if_due(&mut self, now: Tick) {
        if self.save_at.is_none_or(|at| at > now) {
            return;
        }
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            self.save_at = Some(now + CACHE_DELAY);
            return;
        }
        self.save_at = None;
        self.saved_at = Some(now);
        self.writing = Some(self.write());
    }

    fn write(&self) -> JoinHandle<()> {
        let (path, json, metrics) = (self.path.clone(), self.cache.to_json(), self.metrics.clone());
        tokio::task::spawn_blocking(move || report(&metrics, cache::write(&path, &json)))
    }

    /// Writes what is not written yet.
    async fn close(mut self) {
        if let Some(writing) = self.writing.take() {
            let _ = writing.await;
        }
        if self.save_at.is_some() {
            let _ = self.write().await;
        }
    }
}

fn report(metrics: &MembershipMetrics, result: io::Result<()>) {
    match result {
        Ok(()) => metrics.cache_saved.inc(),
        Err(error) => {
            metrics.cache_failed.inc();
            tracing::warn!(%error, "the peer cache was not written");
        }
    }
}
