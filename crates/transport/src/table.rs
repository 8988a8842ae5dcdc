//! The sessions that are up, as senders see them: looked up without a detour over the driver.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use x0x_core::{AgentId, MachineId, Protocol, StreamClass, Tick};

use crate::{
    config::{MAX_HELD, SessionConfig},
    driver::Ways,
    link::{Link, Side},
    queue::Outbox,
    reach::Report,
    sock::table::is_detour,
    state::SessionUp,
    transport::{PathKind, SessionInfo},
};

/// Most pings without an answer on one session; the oldest is given up.
const MAX_PINGS: usize = 16;

/// What carries a session: another link than the first one where the peer, whose decision that is, takes another while the
/// session is early.
#[derive(Debug, Clone)]
struct Carried {
    link: Arc<dyn Link>,
    control: Arc<Outbox>,
    side: Side,
}

/// A session that is up.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) peer: MachineId,
    carried: RwLock<Carried>,
    agents: Vec<AgentId>,
    generation: u64,
    /// The peer dialled this machine, which had not sent anything to its network.
    pub(crate) unasked: bool,
    listen_addresses: Vec<SocketAddr>,
    /// Of direct, gossip and bulk; that of control is the link's.
    outboxes: [Arc<Outbox>; 3],
    /// The latest report with its number.
    observed: Mutex<Option<(u64, SocketAddr)>>,
    pings: Mutex<BTreeMap<u64, oneshot::Sender<()>>>,
    next_ping: AtomicU64,
    /// When a message of a class other than control was last sent, or taken by its consumer, in
    /// microseconds. What the peer sends and nobody here wants is no use.
    used: AtomicU64,
    /// Fires after the session left the table.
    pub(crate) ended: CancellationToken,
}

impl Session {
    /// Over a link whose control queue is in use already.
    pub(crate) fn new(
        up: SessionUp,
        link: Arc<dyn Link>,
        control: Arc<Outbox>,
        config: &SessionConfig,
        now: Tick,
    ) -> Self {
        let queue = |class| Arc::new(Outbox::new(config.queue(class)));
        Self {
            peer: up.peer,
            carried: RwLock::new(Carried { link, control, side: up.side }),
            agents: up.hello.agents,
            generation: up.generation,
            unasked: false,
            listen_addresses: up.hello.listen_addresses,
            outboxes: [StreamClass::Direct, StreamClass::Gossip, StreamClass::Bulk].map(queue),
            observed: Mutex::new(None),
            pings: Mutex::new(BTreeMap::new()),
            next_ping: AtomicU64::new(0),
            used: AtomicU64::new(now.as_micros()),
            ended: CancellationToken::new(),
        }
    }

    fn carried(&self) -> RwLockReadGuard<'_, Carried> {
        self.carried.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The link that carries it.
    pub(crate) fn link(&self) -> Arc<dyn Link> {
        self.carried().link.clone()
    }

    /// Another link carries it from now on.
    pub(crate) fn carry(&self, link: Arc<dyn Link>, control: Arc<Outbox>, side: Side) {
        let mut carried = self.carried.write().unwrap_or_else(PoisonError::into_inner);
        *carried = Carried { link, control, side };
    }

    pub(crate) fn outbox(&self, class: StreamClass) -> Arc<Outbox> {
        match class {
            StreamClass::Control => self.carried().control.clone(),
            StreamClass::Direct => self.outboxes[0].clone(),
            StreamClass::Gossip => self.outboxes[1].clone(),
            _ => self.outboxes[2].clone(),
        }
    }

    /// Queues a control message; false when there is no room.
    pub(crate) fn control(&self, message: Bytes) -> bool {
        self.outbox(StreamClass::Control).try_push(Protocol::Control, message).is_ok()
    }

    /// Whether this machine opened the connection.
    pub(crate) fn is_dialled(&self) -> bool {
        self.carried().side == Side::Dialer
    }

    /// Where the peer says that it listens, as far as it may say so.
    pub(crate) fn listen_addresses(&self) -> &[SocketAddr] {
        &self.listen_addresses
    }

    /// Notes that a message of a class went, or was taken by its consumer.
    pub(crate) fn touch(&self, class: StreamClass, now: Tick) {
        if class != StreamClass::Control {
            self.used.fetch_max(now.as_micros(), Ordering::Relaxed);
        }
    }

    pub(crate) fn used(&self) -> Tick {
        Tick::from_micros(self.used.load(Ordering::Relaxed))
    }

    /// The agents that the peer proved.
    pub(crate) fn agents(&self) -> &[AgentId] {
        &self.agents
    }

    pub(crate) fn info(&self, ways: &Ways) -> SessionInfo {
        let observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        let carried = self.carried().clone();
        let address = carried.link.remote_address();
        // What stands for a way by a relay is nobody else's business.
        let (remote_address, path) = match (ways.relay(address), carried.link.stream_address()) {
            (Some((via, address)), _) => (address, PathKind::Relayed { via }),
            (None, Some(address)) => (address, PathKind::Stream),
            (None, None) => (address, PathKind::Direct),
        };
        SessionInfo {
            peer: self.peer,
            agents: self.agents.clone(),
            generation: self.generation,
            side: carried.side,
            remote_address,
            path,
            listen_addresses: self.listen_addresses.clone(),
            rtt: carried.link.rtt(),
            observed_address: observed
                .map(|(_, address)| address)
                .filter(|_| path == PathKind::Direct),
        }
    }

    /// Takes the peer's report of this machine's address, unless a later one came first.
    pub(crate) fn observe(&self, seq: u64, address: SocketAddr) {
        let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        if observed.is_none_or(|(latest, _)| latest < seq) {
            *observed = Some((seq, address));
        }
    }

    /// What the peer sees of this machine, if it said so.
    pub(crate) fn report(&self) -> Option<Report> {
        let observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, observed) = (*observed)?;
        let from = self.link().remote_address();
        if is_detour(from) {
            return None;
        }
        Some(Report::new(self.peer, from, observed, self.unasked))
    }

    /// A new ping's nonce, and what resolves at its answer.
    pub(crate) fn ping(&self) -> (u64, oneshot::Receiver<()>) {
        let nonce = self.next_ping.fetch_add(1, Ordering::Relaxed);
        let (answered, answer) = oneshot::channel();
        let mut pings = self.pings.lock().unwrap_or_else(PoisonError::into_inner);
        if pings.len() >= MAX_PINGS {
            pings.pop_first();
        }
        pings.insert(nonce, answered);
        (nonce, answer)
    }

    pub(crate) fn pong(&self, nonce: u64) {
        let mut pings = self.pings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answered) = pings.remove(&nonce) {
            // Nobody may wait for it any more.
            let _ = answered.send(());
        }
    }

    /// After the session left the table: senders and pings fail, readers announce the end. What is
    /// queued is still written while the link is alive.
    pub(crate) fn end(&self) {
        StreamClass::ALL.into_iter().for_each(|class| self.outbox(class).finish());
        self.pings.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.ended.cancel();
    }
}

impl Session {
    /// Waits until the peer has all that was queued when the session ended.
    pub(crate) async fn drained(&self) {
        for class in StreamClass::ALL.into_iter().filter(|class| is_used(*class)) {
            self.outbox(class).drained().cancelled().await;
        }
    }

    /// Drops what is still queued.
    pub(crate) fn discard(&self) {
        StreamClass::ALL.into_iter().for_each(|class| self.outbox(class).close());
    }
}

/// Whose sessions which layers hold, at most [`MAX_HELD`] peers.
#[derive(Debug, Default)]
pub(crate) struct Holds(Mutex<BTreeMap<MachineId, BTreeSet<Protocol>>>);

impl Holds {
    /// False when there are too many.
    pub(crate) fn set(&self, peer: MachineId, holder: Protocol, held: bool) -> bool {
        let mut holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held {
            let room = holds.len() < MAX_HELD || holds.contains_key(&peer);
            if room {
                holds.entry(peer).or_default().insert(holder);
            }
            return room;
        }
        if let Some(holders) = holds.get_mut(&peer) {
            holders.remove(&holder);
            if holders.is_empty() {
                holds.remove(&peer);
            }
        }
        true
    }

    pub(crate) fn contains(&self, peer: &MachineId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(peer)
    }
}

/// Whether any protocol of this build travels in the class.
pub(crate) fn is_used(class: StreamClass) -> bool {
    Protocol::ALL.into_iter().any(|protocol| protocol.class() == class)
}

/// Sessions by peer; as bounded as the machine's.
#[derive(Debug, Default)]
pub(crate) struct SessionTable(RwLock<HashMap<MachineId, Arc<Session>>>);

impl SessionTable {
    /// Runs `look` on a peer's session. The table is locked meanwhile: `look` only queues or clones.
    pub(crate) fn with<T>(
        &self,
        peer: &MachineId,
        look: impl FnOnce(&Arc<Session>) -> T,
    ) -> Option<T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(peer).map(look)
    }

    pub(crate) fn get(&self, peer: &MachineId) -> Option<Arc<Session>> {
        self.with(peer, Arc::clone)
    }

    /// All sessions, by machine id.
    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = table.values().cloned().collect();
        drop(table);
        all.sort_unstable_by_key(|session| session.peer);
        all
    }

    pub(crate) fn insert(&self, session: Arc<Session>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(session.peer, session);
    }

    pub(crate) fn remove(&self, peer: &MachineId) -> Option<Arc<Session>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(peer)
    }
}
