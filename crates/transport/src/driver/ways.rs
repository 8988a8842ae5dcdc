//! Packets by way of relays: from this machine, to it, and between others. Looked up without a detour over the
//! actor, which opens and closes what is here.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use x0x_core::{MachineId, Tick};

use super::Context;
use crate::{
    link::{DatagramRefused, Link},
    relay::{
        Leg, RelayMetrics,
        packet::{Assembly, MAX_PARTED, Piece, RelayedIn, encode, halves},
        quota::{ByteBucket, ClientQuota, OverQuota, cost},
    },
    sock::table::{is_relayed, relayed_address},
    wire::ContextId,
};

/// Most ways that are over and still remembered for sessions that have no other yet.
const MAX_OVER: usize = 1024;
/// Packets sent in one turn.
const BATCH: usize = 64;

/// A session that carries relayed packets.
#[derive(Debug)]
pub(super) struct Carrier {
    pub(super) link: Arc<dyn Link>,
    /// By whether the relay sends, and by the name of the context.
    routes: RwLock<HashMap<(bool, ContextId), Route>>,
    /// Of the latest packet in two parts.
    number: AtomicU16,
    over: CancellationToken,
}

/// What becomes of a context's packets.
#[derive(Debug)]
enum Route {
    Deliver { way: SocketAddr, parts: Mutex<Assembly>, used: Arc<AtomicU64> },
    Forward { pair: Arc<Pair>, to: usize },
}

/// Two machines between which this one forwards.
#[derive(Debug)]
pub(super) struct Pair {
    ends: [(Weak<Carrier>, ContextId); 2],
    /// What each end may have forwarded of what it sends.
    quotas: [Arc<Mutex<ClientQuota>>; 2],
    used: AtomicU64,
}

impl Pair {
    pub(super) fn used(&self) -> Tick {
        Tick::from_micros(self.used.load(Ordering::Relaxed))
    }
}

impl Carrier {
    pub(super) fn new(link: Arc<dyn Link>) -> Self {
        let (routes, number) = (RwLock::default(), AtomicU16::new(0));
        Self { link, routes, number, over: CancellationToken::new() }
    }

    fn set(&self, key: (bool, ContextId), route: Route) {
        self.routes.write().unwrap_or_else(PoisonError::into_inner).insert(key, route);
    }

    fn unset(&self, key: (bool, ContextId)) {
        self.routes.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// Nothing is read from it any more.
    pub(super) fn end(&self) {
        self.over.cancel();
        self.routes.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn send(
        &self,
        metrics: &RelayMetrics,
        (from_relay, context): (bool, ContextId),
        piece: Piece,
        payload: &[u8],
    ) -> bool {
        let refused = match self.link.send_datagram(encode(from_relay, context, piece, payload)) {
            Ok(()) => return true,
            Err(refused) => refused,
        };
        if refused == DatagramRefused::Closed {
            metrics.dropped_over.inc();
            return false;
        }
        let may = piece == Piece::Whole && payload.len() <= MAX_PARTED;
        let sent = may && self.send_halves((from_relay, context), payload);
        if !sent {
            metrics.dropped_too_large.inc();
        }
        sent
    }

    fn send_halves(&self, (from_relay, context): (bool, ContextId), packet: &[u8]) -> bool {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        halves(packet, number).is_some_and(|parts| {
            parts.into_iter().all(|(piece, part)| {
                self.link.send_datagram(encode(from_relay, context, piece, part)).is_ok()
            })
        })
    }
}

/// A context of which this machine is an end.
#[derive(Debug)]
struct Way {
    leg: Leg,
    /// Where the relay was when the way began.
    relay_address: SocketAddr,
    /// `None` once it is over.
    carrier: Option<Arc<Carrier>>,
    used: Arc<AtomicU64>,
    /// A session came to it from another path, with packets of that path's size.
    parts_large: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    ways: HashMap<SocketAddr, Way>,
    by_leg: HashMap<Leg, SocketAddr>,
    over: VecDeque<SocketAddr>,
    last: u32,
}

/// All ways by relays. As many are open as the machine of contexts allows.
#[derive(Debug)]
pub(crate) struct Ways {
    inner: RwLock<Inner>,
    total: Mutex<ByteBucket>,
    metrics: Arc<RelayMetrics>,
}

impl Ways {
    /// None yet; all that is forwarded together takes from `total`.
    pub(crate) fn new(total: ByteBucket, metrics: Arc<RelayMetrics>) -> Self {
        Self { inner: RwLock::default(), total: Mutex::new(total), metrics }
    }

    /// Begins a way; `relay` is the number of the carrier.
    pub(super) fn open(&self, now: Tick, leg: Leg, relay: u64, carrier: Arc<Carrier>) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let way = loop {
            inner.last = inner.last.wrapping_add(1);
            let way = relayed_address(relay, inner.last);
            if !inner.ways.contains_key(&way) {
                break way;
            }
        };
        let used = Arc::new(AtomicU64::new(now.as_micros()));
        let parts = Mutex::default();
        carrier.set((true, leg.1), Route::Deliver { way, parts, used: used.clone() });
        let relay_address = carrier.link.remote_address();
        let (carrier, parts_large) = (Some(carrier), AtomicBool::new(false));
        inner.ways.insert(way, Way { leg, relay_address, carrier, used, parts_large });
        inner.by_leg.insert(leg, way);
    }

    /// Ends a way, and gives its address.
    pub(super) fn close(&self, leg: Leg) -> Option<SocketAddr> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let address = inner.by_leg.remove(&leg)?;
        if let Some(carrier) = inner.ways.get_mut(&address).and_then(|way| way.carrier.take()) {
            carrier.unset((true, leg.1));
        }
        inner.over.push_back(address);
        if inner.over.len() > MAX_OVER
            && let Some(oldest) = inner.over.pop_front()
        {
            inner.ways.remove(&oldest);
        }
        Some(address)
    }

    /// The address of an open way.
    pub(super) fn address(&self, leg: Leg) -> Option<SocketAddr> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).by_leg.get(&leg).copied()
    }

    /// The context of an open way.
    pub(super) fn leg(&self, address: SocketAddr) -> Option<Leg> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.ways.get(&address).filter(|way| way.carrier.is_some()).map(|way| way.leg)
    }

    /// The relay of a way that is open or was a while ago, and where that relay is.
    pub(crate) fn relay(&self, address: SocketAddr) -> Option<(MachineId, SocketAddr)> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let way = inner.ways.get(&address)?;
        Some((way.leg.0, way.relay_address))
    }

    /// A session comes to a way from another path.
    pub(super) fn part_large(&self, address: SocketAddr) {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(way) = inner.ways.get(&address) {
            way.parts_large.store(true, Ordering::Relaxed);
        }
    }

    /// Open ways over which nothing came or went since a time.
    pub(super) fn unused_since(&self, time: Tick) -> Vec<Leg> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let open = inner.by_leg.iter().filter_map(|(leg, at)| Some((*leg, inner.ways.get(at)?)));
        let unused = open.filter(|(_, way)| way.used.load(Ordering::Relaxed) < time.as_micros());
        unused.map(|(leg, _)| leg).collect()
    }

    /// Sends a packet of this machine.
    fn send(&self, now: Tick, to: SocketAddr, packet: &[u8]) {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let open = inner.ways.get(&to).and_then(|way| Some((way, way.carrier.clone()?)));
        let Some((way, carrier)) = open else { return self.metrics.dropped_over.inc() };
        way.used.store(now.as_micros(), Ordering::Relaxed);
        let context = way.leg.1;
        let parts = packet.len() > MAX_PARTED && way.parts_large.load(Ordering::Relaxed);
        drop(inner);
        if is_relayed(carrier.link.remote_address()) {
            return self.metrics.dropped_nested.inc();
        }
        let sent = match parts {
            true => carrier.send_halves((false, context), packet),
            false => carrier.send(&self.metrics, (false, context), Piece::Whole, packet),
        };
        if sent {
            self.metrics.sent_packets.inc();
        }
    }

    /// Forwards between the two from now on.
    pub(super) fn join(
        now: Tick,
        ends: [(&Arc<Carrier>, ContextId); 2],
        quotas: [Arc<Mutex<ClientQuota>>; 2],
    ) -> Arc<Pair> {
        let used = AtomicU64::new(now.as_micros());
        let weak = ends.map(|(carrier, context)| (Arc::downgrade(carrier), context));
        let pair = Arc::new(Pair { ends: weak, quotas, used });
        for (at, (carrier, context)) in ends.into_iter().enumerate() {
            carrier.set((false, context), Route::Forward { pair: pair.clone(), to: 1 - at });
        }
        pair
    }

    /// And no longer.
    pub(super) fn part(pair: &Pair) {
        for (carrier, context) in &pair.ends {
            if let Some(carrier) = carrier.upgrade() {
                carrier.unset((false, *context));
            }
        }
    }

    fn forward(&self, now: Tick, pair: &Pair, to: usize, read: &RelayedIn) {
        let (carrier, context) = &pair.ends[to];
        let Some(carrier) = carrier.upgrade() else { return self.metrics.dropped_over.inc() };
        if is_relayed(carrier.link.remote_address()) {
            return self.metrics.dropped_nested.inc();
        }
        let bytes = read.payload.len();
        let charged = {
            let mut total = self.total.lock().unwrap_or_else(PoisonError::into_inner);
            let quota = &pair.quotas[1 - to];
            let mut quota = quota.lock().unwrap_or_else(PoisonError::into_inner);
            quota.charge(now, cost(bytes), &mut total)
        };
        match charged {
            Ok(()) => {}
            Err(OverQuota::Rate) => return self.metrics.dropped_rate.inc(),
            Err(OverQuota::Day) => return self.metrics.dropped_day.inc(),
            Err(OverQuota::Total) => return self.metrics.dropped_total.inc(),
        }
        pair.used.store(now.as_micros(), Ordering::Relaxed);
        if carrier.send(&self.metrics, (true, *context), read.piece, &read.payload) {
            self.metrics.forwarded_packets.inc();
            self.metrics.forwarded_bytes.add(bytes as u64);
        }
    }

    /// Takes a datagram of a carrier; gives the packet for this machine that it completes, and its way.
    fn on_datagram(
        &self,
        now: Tick,
        carrier: &Carrier,
        datagram: &Bytes,
    ) -> Option<(SocketAddr, Bytes)> {
        let Some(read) = RelayedIn::decode(datagram) else {
            self.metrics.dropped_malformed.inc();
            return None;
        };
        let routes = carrier.routes.read().unwrap_or_else(PoisonError::into_inner);
        match routes.get(&(read.from_relay, read.context)) {
            None => self.metrics.dropped_unknown_context.inc(),
            Some(Route::Deliver { way, parts, used }) => {
                used.store(now.as_micros(), Ordering::Relaxed);
                let mut parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
                let packet = parts.take(read.piece, read.payload)?;
                self.metrics.received_packets.inc();
                return Some((*way, packet));
            }
            Some(Route::Forward { pair, to }) => {
                let (pair, to) = (pair.clone(), *to);
                drop(routes);
                self.forward(now, &pair, to, &read);
            }
        }
        None
    }
}

/// Reads a carrier's datagrams until it ends.
pub(super) async fn read_datagrams(context: Arc<Context>, carrier: Arc<Carrier>) {
    let read = async {
        while let Some(datagram) = carrier.link.next_datagram().await {
            let now = context.clock.now();
            if let Some((way, packet)) = context.ways.on_datagram(now, &carrier, &datagram) {
                context.engine.deliver(way, packet);
            }
        }
    };
    tokio::select! {
        biased;
        () = carrier.over.cancelled() => {}
        () = context.closing.cancelled() => {}
        () = read => {}
    }
}

/// Sends what the engine has for relays.
pub(super) async fn send_relayed(context: Arc<Context>) {
    let mut packets = Vec::new();
    let send = async {
        while context.engine.next_relayed(&mut packets, BATCH).await.is_some() {
            let now = context.clock.now();
            for (to, packet) in packets.drain(..) {
                context.ways.send(now, to, &packet);
            }
        }
    };
    tokio::select! {
        biased;
        () = context.closing.cancelled() => {}
        () = send => {}
    }
}

#[cfg(test)]
mod tests;
