//! The HyParView machine: who are my neighbours.
//!
//! A link is active at one end when that end has granted it or has seen it granted, and each end that
//! drops a link says so. Messages of a session keep their order, so both ends agree once the network
//! is quiet; a neighbour message from a peer that is no neighbour gets a [`Message::Disconnect`],
//! which repairs a link that one end forgot.

mod anchors;
mod dial;
mod diversity;
mod join;
mod link;
mod liveness;
mod merge;
mod promote;
mod records;
mod shuffle;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use x0x_core::{Machine, MachineId, PeerAddr, Scope, SeededRng, Tick, TokenBucket};
use x0x_transport::SignedRecord;

use self::{
    dial::Dial, liveness::Liveness, promote::Bootstrap, records::Records, shuffle::Exchanges,
};
use crate::{
    book::{self, Book},
    config::{ConfigError, OverlayConfig},
    estimate::SizeEstimate,
    health::smooth,
    lost::LostPeers,
    metrics::MembershipMetrics,
    network::Network,
    peer::{Peer, usable},
    view::{ActiveView, PassiveView, Source},
    wire::Message,
};

pub use self::{
    dial::{MAX_DIALS, MAX_WALK_DIALS},
    liveness::MAX_FAVOURS,
    promote::MAX_BOOTSTRAP,
    records::MAX_RECORDS,
    shuffle::MAX_EXCHANGES,
};

/// Most sessions that the overlay follows, as many as the transport has. Peers of further ones cannot
/// become neighbours.
pub const MAX_SESSIONS: usize = 4096;

/// Messages that one peer may send at once, and the time in which it earns one more.
const MESSAGE_BURST: u32 = 256;
const MESSAGE_REFILL: Duration = Duration::from_millis(16);

/// Joins of one peer that are walked through the overlay, since each costs dozens of messages.
const JOIN_BURST: u32 = 4;
const JOIN_REFILL: Duration = Duration::from_secs(1);

/// Walks of one neighbour that end here with a dial or a request, since each aims this node at an
/// address that the neighbour names.
const WALK_BURST: u32 = 8;
const WALK_REFILL: Duration = Duration::from_secs(4);

/// Neighbours that strangers may push out at once, and the time in which they earn one more. A flood
/// of joins or of high-priority requests takes a quarter of the view, then one place a minute of those
/// that are not protected. Honest newcomers need few: each node keeps its last place free for them.
const EVICTION_BURST: u32 = 2;
const EVICTION_REFILL: Duration = Duration::from_secs(60);

/// The round trip of a session until it is measured.
const FIRST_RTT: Duration = Duration::from_millis(100);

/// How long the end of a session may take that the transport was asked to end. What comes later shows
/// that it was not ended.
const CLOSING: Duration = Duration::from_secs(5);

/// What the world tells the machine.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Input {
    /// The node starts: dial the bootstrap addresses and peers known from an earlier run.
    Start {
        /// Addresses whose owners are not known; at most [`MAX_BOOTSTRAP`] are used.
        bootstrap: Vec<SocketAddr>,
        /// Peers of the cache, best first.
        cached: Vec<Peer>,
    },
    /// Where this node listens, for the entry about itself in shuffles.
    LocalAddresses(Vec<SocketAddr>),
    /// A session begins. Nothing is sent to a peer before.
    Up {
        /// The authenticated peer and where it says that it listens.
        peer: Peer,
        /// How far the path to it reaches, and so which addresses it may name.
        path: Scope,
        /// Whether this node opened the session.
        dialled: bool,
    },
    /// What the transport measures of a session that is up. Without it, a peer's network is that of its
    /// first address.
    Path {
        /// The peer.
        peer: MachineId,
        /// Where its packets come from.
        remote: SocketAddr,
        /// The smoothed round-trip time.
        rtt: Duration,
    },
    /// How many packets came over a session so far, of those that the transport counts them for. A
    /// neighbour that they come from needs few pings.
    Received {
        /// The peer.
        peer: MachineId,
        /// The packets.
        packets: u64,
    },
    /// This node's own record, now or again.
    Record(SignedRecord),
    /// A verified message from a peer whose session is up.
    Message {
        /// The authenticated sender.
        peer: MachineId,
        /// What it says.
        message: Message,
    },
    /// The session ended.
    Down(MachineId),
    /// A peer found beside the overlay, such as one on the same link: a way in, like a bootstrap peer.
    Introduce(Peer),
    /// A dial ended; the session's [`Input::Up`] may come before or after.
    DialResult {
        /// As given in [`Output::Dial`].
        to: PeerAddr,
        /// Who answered.
        result: Result<MachineId, DialFailure>,
    },
    /// The node goes away: take leave of the neighbours, then stay silent.
    Leave,
}

/// Why a dial failed, as far as the overlay cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DialFailure {
    /// Nobody is there, or not the expected machine.
    Unreachable,
    /// The address is this node's own.
    OwnAddress,
    /// It was not tried, and may be after this time.
    Later(Duration),
}

/// What the machine asks of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Sends a message over a session that is up.
    Send {
        /// The receiver.
        to: MachineId,
        /// What to say.
        message: Message,
    },
    /// Opens a session; answered by [`Input::DialResult`].
    Dial(PeerAddr),
    /// A peer is a neighbour from now on.
    NeighborUp(MachineId),
    /// A peer is no neighbour any more.
    NeighborDown(MachineId),
    /// Ends a session whose other end is not there any more, or not for this node.
    Disconnect(MachineId),
}

#[derive(Debug)]
struct Session {
    /// With the addresses that are its own word.
    peer: Peer,
    path: Scope,
    /// This node picked the peer: it opened the session, and not because a stranger's walk came by, or
    /// it asked for the link.
    chosen: bool,
    messages: TokenBucket,
    joins: TokenBucket,
    walks: TokenBucket,
    network: Option<Network>,
    rtt: Duration,
    /// Since when the transport is asked to end it.
    closing: Option<Tick>,
}

/// A request for a link that waits for its answer.
#[derive(Debug)]
struct Request {
    /// The link is wanted even at the cost of another.
    urgent: bool,
    /// This node picked the peer; else a walk did.
    chosen: bool,
    /// The link may join parts of the overlay that have lost each other.
    across: bool,
    deadline: Tick,
}

/// The overlay of one node as a pure machine; the contract of the calls is that of [`Machine`].
///
/// ```
/// use x0x_core::{Machine, MachineId, PeerAddr, Tick};
/// use x0x_gossip_membership::{HyParView, Input, Output, OverlayConfig};
///
/// let local = MachineId::new([1; 32]);
/// let mut node = HyParView::new(local, OverlayConfig::default(), [7; 32])?;
/// let seed = "192.0.2.1:5483".parse().expect("an address");
/// node.handle(Tick::ZERO, Input::Start { bootstrap: vec![seed], cached: Vec::new() });
/// assert_eq!(node.poll_output(), Some(Output::Dial(PeerAddr::unknown(seed))));
/// # Ok::<(), x0x_gossip_membership::ConfigError>(())
/// ```
pub struct HyParView {
    local: MachineId,
    config: OverlayConfig,
    rng: SeededRng,
    metrics: Arc<MembershipMetrics>,
    own_addresses: Vec<SocketAddr>,
    active: ActiveView,
    passive: PassiveView,
    book: Book,
    estimate: SizeEstimate,
    lost: LostPeers,
    liveness: Liveness,
    records: Records,
    /// At most [`MAX_ANCHORS`](crate::cache::MAX_ANCHORS) neighbours.
    anchors: Vec<MachineId>,
    /// At most [`merge::MAX_BEYOND`].
    beyond: VecDeque<Peer>,
    /// Who was asked whom it knows, with the nonce and until when.
    comparing: Option<(MachineId, u64, Tick)>,
    sessions: BTreeMap<MachineId, Session>,
    /// At most one a session.
    requests: BTreeMap<MachineId, Request>,
    /// At most [`MAX_DIALS`].
    dials: Vec<Dial>,
    exchanges: Exchanges,
    /// At most [`MAX_BOOTSTRAP`].
    bootstrap: Vec<Bootstrap>,
    /// Since when there are fewer neighbours than the node looks for.
    short_since: Option<Tick>,
    evictions: TokenBucket,
    /// Public networks that this node reached so far, counted up to `active_max`.
    networks: usize,
    next_shuffle: Option<Tick>,
    /// Time between this shuffle and the next.
    shuffle_pause: Duration,
    /// Exchanges in a row that told of nobody new.
    stale: u32,
    next_fill: Option<Tick>,
    next_probe: Option<Tick>,
    left: bool,
    outputs: VecDeque<Output>,
}

impl fmt::Debug for HyParView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HyParView")
            .field("local", &self.local)
            .field("active", &self.active.len())
            .field("passive", &self.passive.len())
            .finish_non_exhaustive()
    }
}

impl HyParView {
    /// A node without peers. The seed must differ from node to node.
    ///
    /// # Errors
    /// [`ConfigError`] when a parameter is out of range.
    pub fn new(
        local: MachineId,
        config: OverlayConfig,
        seed: [u8; 32],
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let mut rng = SeededRng::from_seed(seed);
        Ok(Self {
            local,
            book: Book::new(rng.next_u64(), config.tried_max, config.hearsay_max),
            estimate: SizeEstimate::new(rng.next_u64()),
            liveness: Liveness::new(&mut rng),
            records: Records::default(),
            anchors: Vec::new(),
            beyond: VecDeque::new(),
            comparing: None,
            rng,
            metrics: Arc::default(),
            own_addresses: Vec::new(),
            active: ActiveView::default(),
            passive: PassiveView::new(config.passive_max),
            lost: LostPeers::default(),
            sessions: BTreeMap::new(),
            requests: BTreeMap::new(),
            dials: Vec::new(),
            exchanges: Exchanges::default(),
            bootstrap: Vec::new(),
            short_since: None,
            evictions: TokenBucket::new(EVICTION_BURST, EVICTION_REFILL, Tick::ZERO),
            networks: 0,
            next_shuffle: None,
            shuffle_pause: config.shuffle_interval,
            stale: 0,
            next_fill: None,
            next_probe: None,
            left: false,
            outputs: VecDeque::new(),
            config,
        })
    }

    /// The neighbours, longest known first.
    pub fn active(&self) -> impl Iterator<Item = MachineId> {
        self.active.ids()
    }

    /// The peers known beside the neighbours.
    pub fn passive(&self) -> impl Iterator<Item = &Peer> {
        self.passive.peers()
    }

    /// Every peer beside the neighbours of which more is known than hearsay, each once: the passive view,
    /// and those that answered a dial of this node before.
    pub fn known(&self) -> impl Iterator<Item = &Peer> {
        let is_new =
            |peer: &&Peer| !self.active.contains(peer.id()) && !self.passive.contains(peer.id());
        self.passive.peers().chain(self.book.all_tried().filter(is_new))
    }

    /// The counters, shared with whoever reads them.
    #[must_use]
    pub fn metrics(&self) -> Arc<MembershipMetrics> {
        Arc::clone(&self.metrics)
    }

    fn on_message(&mut self, now: Tick, from: MachineId, message: Message) {
        let Some(session) = self.sessions.get_mut(&from) else {
            return self.metrics.refused_stranger.inc();
        };
        if session.closing.is_some_and(|since| now.since(since) < CLOSING) {
            return;
        }
        session.closing = None;
        let join = matches!(message, Message::Join);
        if !session.messages.take(now) || (join && !session.joins.take(now)) {
            return self.metrics.refused_rate.inc();
        }
        match message {
            Message::Join => self.on_join(now, from),
            Message::ForwardJoin { ttl, joiner } => self.on_forward_join(now, from, ttl, joiner),
            Message::Neighbor { high } => self.on_neighbor(now, from, high),
            Message::NeighborReply { accept, entries } => {
                self.on_neighbor_reply(now, from, accept, entries);
            }
            Message::Shuffle { id, ttl, entries } => self.on_shuffle(now, from, id, ttl, entries),
            Message::ShuffleReply { id, entries } => {
                self.on_shuffle_reply(now, from, id, entries);
            }
            Message::Disconnect { alive } => self.on_disconnect(now, from, alive),
            Message::Ping { nonce, suspected, sample } => {
                self.on_ping(now, from, nonce, suspected, sample);
            }
            Message::Ack { nonce, incarnation, entries } => {
                self.on_ack(now, from, nonce, incarnation, entries);
            }
            Message::PingRequest { nonce, target, suspected } => {
                self.on_ping_request(now, from, nonce, target, suspected);
            }
            Message::PingReport { nonce, outcome } => {
                self.on_ping_report(now, from, nonce, outcome);
            }
            Message::Record(record) => self.on_record(from, record),
        }
    }

    fn on_up(&mut self, now: Tick, peer: Peer, path: Scope, dialled: bool) {
        let id = peer.id();
        // A transport that reports a new session over an old one ended the old one.
        if self.sessions.contains_key(&id) {
            self.on_down(now, id);
        }
        let peer = peer.named_over(path);
        if id == self.local || self.sessions.len() >= MAX_SESSIONS {
            return self.metrics.refused_sessions.inc();
        }
        let messages = TokenBucket::new(MESSAGE_BURST, MESSAGE_REFILL, now);
        let joins = TokenBucket::new(JOIN_BURST, JOIN_REFILL, now);
        let walks = TokenBucket::new(WALK_BURST, WALK_REFILL, now);
        let session = Session {
            peer: peer.clone(),
            path,
            chosen: dialled,
            messages,
            joins,
            walks,
            network: Network::of_peer(&peer),
            rtt: FIRST_RTT,
            closing: None,
        };
        self.sessions.insert(id, session);
        self.estimate.note(now, id);
        if dialled {
            self.book.reached(peer.clone());
            self.count_networks();
        }
        if self.lost.forget(id) || self.passive.contains(id) {
            self.learn(now, peer, Source::Session, &[]);
        }
        self.on_reached(now, id);
    }

    fn on_path(&mut self, id: MachineId, remote: SocketAddr, rtt: Duration) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.network = Network::of(remote.ip());
            session.rtt = smooth(session.rtt, rtt);
        }
    }

    /// Whether there is a session that is not about to end.
    fn has_session(&self, id: MachineId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.closing.is_none())
    }

    /// Where a peer's hearsay comes from.
    fn source(&self, id: MachineId) -> book::Source {
        book::Source::of(id, self.sessions.get(&id).and_then(|session| session.network))
    }

    fn on_down(&mut self, now: Tick, id: MachineId) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        self.exchanges.forget(id);
        if self.requests.remove(&id).is_some() && !self.active.contains(id) {
            // Not refused: two dials that crossed end one of two sessions.
            self.learn(now, session.peer, Source::Session, &[]);
            let soon = self.around(now, self.config.retry_min);
            self.passive.defer(id, soon);
        }
        if let Some(peer) = self.drop_link(now, id) {
            self.metrics.neighbors_lost.inc();
            self.note_lost(now, peer, true);
        }
    }

    /// Takes leave of all neighbours.
    fn on_leave(&mut self, now: Tick) {
        let neighbours: Vec<MachineId> = self.active.ids().collect();
        for id in neighbours {
            self.send(id, Message::Disconnect { alive: false });
            self.drop_link(now, id);
        }
        self.requests.clear();
        self.dials.clear();
        self.liveness.stop();
        self.next_shuffle = None;
        self.next_fill = None;
        self.left = true;
    }

    fn send(&mut self, to: MachineId, message: Message) {
        if self.has_session(to) {
            self.outputs.push_back(Output::Send { to, message });
        }
    }

    /// What is known of a peer with a session, dialable or not.
    fn session_peer(&self, id: MachineId) -> Peer {
        self.sessions.get(&id).map_or_else(|| Peer::new(id, []), |session| session.peer.clone())
    }

    /// The peer as told by a session's peer, if it is any use: not this node, with one or two
    /// addresses that the teller may name.
    fn heard_of(&self, from: MachineId, peer: Peer) -> Option<Peer> {
        let path = self.sessions.get(&from).map_or(Scope::Global, |session| session.path);
        let given = peer.addresses().len();
        let peer = peer.named_over(path);
        self.metrics.refused_addresses.add((given - peer.addresses().len()) as u64);
        let peer = peer.first_heard();
        if peer.id() == self.local || !peer.is_dialable() {
            self.metrics.refused_entries.inc();
            return None;
        }
        Some(peer)
    }

    /// Notes a peer in the passive view, unless it is a neighbour or was just lost. What a peer with
    /// a session says of itself goes before what is given.
    fn learn(&mut self, now: Tick, peer: Peer, source: Source, sent: &[MachineId]) {
        let id = peer.id();
        let (peer, source) = match self.sessions.get(&id) {
            Some(session) if session.closing.is_none() && session.peer.is_dialable() => {
                (session.peer.clone(), Source::Session)
            }
            _ => (peer, source),
        };
        let known = id == self.local || self.active.contains(id) || self.lost.denies(id, now);
        if !known && peer.is_dialable() {
            self.passive.insert(peer, source, sent, &mut self.rng);
        }
    }

    /// A random time around `duration` from now, up to a fifth earlier or later.
    fn around(&mut self, now: Tick, duration: Duration) -> Tick {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let spread = micros / 5;
        let drawn = self.rng.range(micros - spread, micros.saturating_add(spread + 1));
        now + Duration::from_micros(drawn.max(1))
    }

    fn publish_gauges(&self) {
        self.metrics.active.set(self.active.len() as u64);
        self.metrics.passive.set(self.passive.len() as u64);
        self.metrics.sessions.set(self.sessions.len() as u64);
        let (tried, hearsay) = self.book.len();
        self.metrics.records.set(self.records.len() as u64);
        self.metrics.tried.set(tried as u64);
        self.metrics.hearsay.set(hearsay as u64);
        self.metrics.health.set(u64::from(self.liveness.health()));
        self.metrics.estimate.set(self.estimate.nodes());
    }
}

impl Machine for HyParView {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Tick, input: Input) {
        match input {
            _ if self.left => return,
            Input::Start { bootstrap, cached } => self.on_start(now, bootstrap, cached),
            Input::LocalAddresses(addresses) => {
                self.own_addresses = addresses.into_iter().filter_map(usable).collect();
                self.own_addresses.truncate(x0x_core::MAX_ADDRESSES);
            }
            Input::Up { peer, path, dialled } => self.on_up(now, peer, path, dialled),
            Input::Record(record) => self.on_own_record(record),
            Input::Path { peer, remote, rtt } => self.on_path(peer, remote, rtt),
            Input::Received { peer, packets } => return self.on_received(now, peer, packets),
            Input::Message { peer, message } => self.on_message(now, peer, message),
            Input::Down(id) => self.on_down(now, id),
            Input::Introduce(peer) => drop(self.reach(now, peer, dial::Purpose::Join)),
            Input::DialResult { to, result } => self.on_dial_result(now, &to, result),
            Input::Leave => self.on_leave(now),
        }
        self.maintain(now);
        self.publish_gauges();
    }

    fn handle_timeout(&mut self, now: Tick) {
        if self.left {
            return;
        }
        self.expire_requests(now);
        self.expire_dials(now);
        self.check_liveness(now);
        if self.next_shuffle.is_some_and(|at| at <= now) {
            self.choose_anchors(now);
            self.begin_shuffle(now);
        }
        self.maintain(now);
        self.publish_gauges();
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Tick> {
        if self.left {
            return None;
        }
        let requests = self.requests.values().map(|request| request.deadline);
        let dials = self.dials.iter().map(|dial| dial.deadline);
        let bootstrap = self.next_bootstrap();
        let liveness = self.liveness.next(&self.config);
        let timers = [self.next_shuffle, self.next_fill, self.next_probe, bootstrap, liveness];
        requests.chain(dials).chain(timers.into_iter().flatten()).min()
    }
}
