//! Engines that reach each other in memory.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};
use tokio_util::sync::CancellationToken;
use x0x_core::{MachineId, SeededRng, WallTime};
use x0x_identity::SecretKey;

use super::{
    LinkModel,
    link::{LinkCore, MemoryLink},
    sample,
};
use crate::{
    error::DialError,
    link::{BoxFuture, Engine, Link, LinkClosed},
    record::{ReachClass, SignedRecord},
    wire::CloseCode,
};

/// Links that an engine did not accept yet; further dials wait.
const MAX_BACKLOG: usize = 64;

/// Machines in one process, joined by links with seeded delays and faults. Time is tokio's, so a
/// paused clock makes it virtual. Clones share the network.
#[derive(Debug, Clone)]
pub struct MemoryNetwork(Arc<Mutex<Network>>);

#[derive(Debug)]
struct Network {
    rng: SeededRng,
    model: LinkModel,
    listeners: BTreeMap<SocketAddr, Listener>,
    links: Vec<Weak<LinkCore>>,
    cuts: BTreeMap<[MachineId; 2], Cut>,
}

#[derive(Debug)]
struct Listener {
    id: MachineId,
    backlog: mpsc::Sender<Box<dyn Link>>,
    stopped: CancellationToken,
}

#[derive(Debug)]
struct Cut {
    cut: watch::Sender<bool>,
    /// Counts partitions, so that a timeout belongs to one.
    round: u64,
}

fn pair(a: MachineId, b: MachineId) -> [MachineId; 2] {
    [a.min(b), a.max(b)]
}

impl Network {
    fn cut(&mut self, a: MachineId, b: MachineId) -> &mut Cut {
        let cut = || Cut { cut: watch::Sender::new(false), round: 0 };
        self.cuts.entry(pair(a, b)).or_insert_with(cut)
    }

    fn links_of(&self, includes: impl Fn(&LinkCore) -> bool) -> Vec<Arc<LinkCore>> {
        self.links.iter().filter_map(Weak::upgrade).filter(|link| includes(link)).collect()
    }

    fn links_between(&self, a: MachineId, b: MachineId) -> Vec<Arc<LinkCore>> {
        self.links_of(|link| pair(link.ids[0], link.ids[1]) == pair(a, b))
    }
}

impl MemoryNetwork {
    /// An empty network; all its randomness comes from the seed.
    #[must_use]
    pub fn new(seed: u64, model: LinkModel) -> Self {
        Self(Arc::new(Mutex::new(Network {
            rng: SeededRng::from_number(seed),
            model,
            listeners: BTreeMap::new(),
            links: Vec::new(),
            cuts: BTreeMap::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Network> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine of a machine at an address. A later one at the same address takes its place: the
    /// machine was restarted.
    #[must_use]
    pub fn engine(&self, id: MachineId, address: SocketAddr) -> MemoryEngine {
        let (backlog, accepted) = mpsc::channel(MAX_BACKLOG);
        let stopped = CancellationToken::new();
        let listener = Listener { id, backlog, stopped: stopped.clone() };
        self.lock().listeners.insert(address, listener);
        let network = self.clone();
        MemoryEngine {
            network,
            id,
            address,
            accepted: AsyncMutex::new(accepted),
            stopped,
            key: None,
        }
    }

    /// Cuts two machines off from each other. Links between them time out unless they are healed
    /// before the idle timeout.
    pub fn partition(&self, a: MachineId, b: MachineId) {
        let mut network = self.lock();
        let idle_timeout = network.model.idle_timeout;
        let links = network.links_between(a, b);
        let cut = network.cut(a, b);
        cut.round += 1;
        let round = cut.round;
        cut.cut.send_replace(true);
        drop(network);
        let network = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(idle_timeout).await;
            let same = {
                let mut network = network.lock();
                let cut = network.cut(a, b);
                cut.round == round && *cut.cut.borrow()
            };
            for link in links.iter().filter(|_| same) {
                link.decide(0, LinkClosed::TimedOut);
                link.decide(1, LinkClosed::TimedOut);
            }
        });
    }

    /// Ends a partition.
    pub fn heal(&self, a: MachineId, b: MachineId) {
        self.lock().cut(a, b).cut.send_replace(false);
    }

    /// Breaks the links between two machines that are up; each end hears of it in its own time.
    pub fn break_links(&self, a: MachineId, b: MachineId) {
        for link in self.lock().links_between(a, b) {
            for end in [0, 1] {
                link.decide_later(end, LinkClosed::TimedOut, link.sample_delay());
            }
        }
    }

    /// A machine vanishes without a word: its peers find out by their idle timeouts.
    pub fn kill(&self, id: MachineId) {
        let mut network = self.lock();
        network.listeners.retain(|_, listener| {
            if listener.id == id {
                listener.stopped.cancel();
            }
            listener.id != id
        });
        for link in network.links_of(|link| link.ids.contains(&id)) {
            let own = usize::from(link.ids[1] == id);
            link.decide(own, LinkClosed::Failed("killed".into()));
            link.decide_later(1 - own, LinkClosed::TimedOut, network.model.idle_timeout);
        }
    }
}

/// One machine's engine on a [`MemoryNetwork`].
#[derive(Debug)]
pub struct MemoryEngine {
    network: MemoryNetwork,
    id: MachineId,
    address: SocketAddr,
    accepted: AsyncMutex<mpsc::Receiver<Box<dyn Link>>>,
    stopped: CancellationToken,
    key: Option<SecretKey>,
}

impl MemoryEngine {
    /// With the machine's key, so that it can sign its record.
    #[must_use]
    pub fn with_key(mut self, key: SecretKey) -> Self {
        self.key = Some(key);
        self
    }

    async fn connect(
        &self,
        address: SocketAddr,
        expected: Option<MachineId>,
    ) -> Result<Box<dyn Link>, DialError> {
        let (there_and_back, accepted_after, lost, model) = {
            let mut network = self.network.lock();
            let model = network.model.clone();
            let rng = &mut network.rng;
            let one_way = sample(rng, &model.latency);
            let back = sample(rng, &model.latency);
            let accept = sample(rng, &model.latency) + sample(rng, &model.accept_delay);
            (one_way + back, accept, rng.chance(model.dial_loss), model)
        };
        tokio::time::sleep(there_and_back).await;
        let made = self.pair(address, expected, lost, &model)?;
        let Some((near, far, backlog)) = made else {
            tokio::time::sleep(model.dial_timeout.saturating_sub(there_and_back)).await;
            return Err(DialError::Timeout);
        };
        tokio::spawn(async move {
            tokio::time::sleep(accepted_after).await;
            if let Err(mpsc::error::SendError(far)) = backlog.send(Box::new(far)).await {
                far.close(CloseCode::Shutdown);
            }
        });
        Ok(Box::new(near))
    }

    /// A link's ends and where to put the far one; `None` when nobody answers.
    #[expect(clippy::type_complexity, reason = "internal to one call")]
    fn pair(
        &self,
        address: SocketAddr,
        expected: Option<MachineId>,
        lost: bool,
        model: &LinkModel,
    ) -> Result<Option<(MemoryLink, MemoryLink, mpsc::Sender<Box<dyn Link>>)>, DialError> {
        if self.stopped.is_cancelled() {
            return Err(DialError::Closed);
        }
        let mut network = self.network.lock();
        let Some(listener) = network.listeners.get(&address).filter(|_| !lost) else {
            return Ok(None);
        };
        let (peer, backlog) = (listener.id, listener.backlog.clone());
        if listener.stopped.is_cancelled() {
            return Ok(None);
        }
        let cut = network.cut(self.id, peer).cut.subscribe();
        if *cut.borrow() {
            return Ok(None);
        }
        if expected.is_some_and(|expected| expected != peer) {
            return Err(DialError::PeerMisbehaved("another machine answered"));
        }
        let rng = SeededRng::from_number(network.rng.next_u64());
        let addresses = [self.address, address];
        let (near, far, core) =
            MemoryLink::pair([self.id, peer], addresses, cut, rng, model.clone());
        network.links.retain(|link| link.strong_count() > 0);
        network.links.push(Arc::downgrade(&core));
        Ok(Some((near, far, backlog)))
    }
}

impl Engine for MemoryEngine {
    fn local_id(&self) -> MachineId {
        self.id
    }

    fn local_addresses(&self) -> Vec<SocketAddr> {
        vec![self.address]
    }

    fn sign_record(
        &self,
        addresses: &[SocketAddr],
        reach: ReachClass,
        now: WallTime,
    ) -> Option<SignedRecord> {
        Some(SignedRecord::issue(self.key.as_ref()?, addresses.iter().copied(), reach, now))
    }

    fn dial(
        &self,
        address: SocketAddr,
        expected: Option<MachineId>,
    ) -> BoxFuture<'_, Result<Box<dyn Link>, DialError>> {
        Box::pin(self.connect(address, expected))
    }

    fn accept(&self) -> BoxFuture<'_, Option<Box<dyn Link>>> {
        Box::pin(async move {
            let mut accepted = self.accepted.lock().await;
            tokio::select! {
                biased;
                () = self.stopped.cancelled() => None,
                link = accepted.recv() => link,
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.stopped.cancel();
            let mut network = self.network.lock();
            network.listeners.retain(|_, listener| !listener.stopped.is_cancelled());
            for link in network.links_of(|link| link.ids.contains(&self.id)) {
                let own = usize::from(link.ids[1] == self.id);
                link.close(own, CloseCode::Shutdown);
            }
        })
    }
}
