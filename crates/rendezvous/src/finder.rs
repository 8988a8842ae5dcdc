//! Finding by id as a pure machine: keeping records for others, filing the own ones with those who suit
//! their keys best, and asking there.
//!
//! Every node knows some others that may hold records, and those near its own id best. A search asks those
//! of them that are nearest to the key, and learns from each of nearer ones: it climbs to the same few
//! machines from wherever it starts, in a few steps, with no table of the whole network anywhere. The
//! publisher climbs in the same way.

mod climb;
mod dials;
mod filings;
mod holder;
mod offers;
mod search;
mod volunteers;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use lru::LruCache;
use x0x_core::{
    AgentId, Machine, MachineId, PeerAddr, Scope, SeededRng, Tick, TokenBucket, WallTime,
};
use x0x_identity::{BindingPolicy, MAX_CLOCK_SKEW};

use dials::Dials;
use holder::{Filer, Holder};
use offers::Offer;
use search::{Purpose, Search, Ticket};
use volunteers::{Site, Volunteers, site_of};

use crate::{
    config::{FinderConfig, MAX_LINKS, MAX_MISSES, MAX_WALKS},
    frame::{Frame, MAX_FOUND, MAX_HOPS, MAX_REFERRALS},
    key::{LookupKey, Subject, epoch},
    metrics::FinderMetrics,
    record::SignedRecord,
    wire::Stamp,
};

/// Lookups of one peer: a burst, then 20 a second.
const LOOKUPS: (u32, Duration) = (128, Duration::from_millis(50));
/// Records that one peer files: a burst, then one a second.
const STORES: (u32, Duration) = (64, Duration::from_secs(1));
/// Links that a lookup on its way takes at each hop.
const FAN_OUT: usize = 3;
/// Answers that go back over this node for one lookup.
const MAX_ANSWERS: u8 = 4;
/// How long a lookup is on its way.
const WALK_TIMEOUT: Duration = Duration::from_secs(10);

/// What the world tells the machine.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum FinderInput {
    /// The wall-clock time now. To be told before each turn.
    Wall(WallTime),
    /// A session begins.
    Up {
        /// The peer.
        peer: MachineId,
        /// Its proven agents.
        agents: Vec<AgentId>,
        /// Where it may be dialled again.
        address: PeerAddr,
        /// Where its packets come from.
        remote: SocketAddr,
    },
    /// It ended.
    Down(MachineId),
    /// Machines that may hold records, such as those that membership knows.
    Volunteers(Vec<PeerAddr>),
    /// A dial failed, or took longer than [`FinderConfig::dial_deadline`].
    DialFailed(MachineId),
    /// A frame from a peer.
    Message {
        /// The peer.
        peer: MachineId,
        /// As received.
        frame: Bytes,
    },
    /// From now on the local agent can be found under this subject. Answered by
    /// [`FinderOutput::Sign`], now and whenever a new record is due.
    Offer(Subject),
    /// No more.
    Withdraw(Subject),
    /// The own addresses changed: the records of all offers are filed anew.
    Moved,
    /// The records of an offer: one for machines on this site, and one without what only they can use.
    Publish {
        /// Of which offer.
        subject: Subject,
        /// With all addresses.
        near: Box<SignedRecord>,
        /// With addresses of global scope.
        far: Box<SignedRecord>,
    },
    /// Look for a subject.
    Find {
        /// Names the caller.
        ticket: u64,
        /// What is looked for.
        subject: Subject,
        /// Records no newer than this do not count: the caller has one of that age.
        after: Option<Stamp>,
        /// When the caller gives up.
        deadline: Tick,
    },
    /// The caller gave up.
    Cancel(u64),
}

/// What the machine asks of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinderOutput {
    /// Send a frame.
    Send {
        /// To whom.
        peer: MachineId,
        /// Encoded.
        frame: Bytes,
    },
    /// Dial a machine; report a failure by [`FinderInput::DialFailed`].
    Dial(PeerAddr),
    /// Sign the records of an offer and hand them in by [`FinderInput::Publish`].
    Sign(Subject),
    /// A verified record. For an agent the first one ends the search; of a topic there may be more.
    Found {
        /// Of the caller.
        ticket: u64,
        /// The record.
        record: SignedRecord,
    },
    /// The search is over.
    Done {
        /// Of the caller.
        ticket: u64,
    },
    /// The search does not take place: too many go on.
    Busy {
        /// Of the caller.
        ticket: u64,
    },
}

/// A session.
#[derive(Debug)]
struct Link {
    agents: Vec<AgentId>,
    path: Scope,
    /// The network that its packets come from.
    site: Option<Site>,
    lookups: TokenBucket,
    stores: TokenBucket,
}

/// Where a lookup came from and went.
#[derive(Debug)]
struct Walk {
    back: MachineId,
    sent: Vec<MachineId>,
    left: u8,
    until: Tick,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Finder {
    local: MachineId,
    config: FinderConfig,
    policy: Arc<dyn BindingPolicy>,
    metrics: Arc<FinderMetrics>,
    rng: SeededRng,
    /// Wall time at some tick.
    wall: (Tick, WallTime),
    links: BTreeMap<MachineId, Link>,
    volunteers: Volunteers,
    holder: Holder,
    offers: BTreeMap<Subject, Offer>,
    /// When the machines near the local id were last looked for.
    settled: Option<Tick>,
    searches: BTreeMap<u64, Search>,
    tickets: BTreeMap<u64, Ticket>,
    dials: Dials,
    /// Filings that wait for their turn.
    filings: VecDeque<(Purpose, Subject, u64)>,
    walks: LruCache<u64, Walk>,
    misses: LruCache<Subject, Tick>,
    outputs: VecDeque<FinderOutput>,
}

fn capacity(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN)
}

impl Finder {
    /// A machine's finder; the records that the policy refuses are not found. The seed must differ
    /// between nodes and runs.
    #[must_use]
    pub fn new(
        local: MachineId,
        config: FinderConfig,
        policy: Arc<dyn BindingPolicy>,
        seed: [u8; 32],
    ) -> Self {
        let holder = Holder::new(config.held_bytes);
        Self {
            local,
            config,
            policy,
            metrics: Arc::default(),
            rng: SeededRng::from_seed(seed),
            wall: (Tick::ZERO, WallTime::default()),
            links: BTreeMap::new(),
            volunteers: Volunteers::new(local),
            holder,
            offers: BTreeMap::new(),
            settled: None,
            searches: BTreeMap::new(),
            tickets: BTreeMap::new(),
            dials: Dials::default(),
            filings: VecDeque::new(),
            walks: LruCache::new(capacity(MAX_WALKS)),
            misses: LruCache::new(capacity(MAX_MISSES)),
            outputs: VecDeque::new(),
        }
    }

    /// Its counters.
    #[must_use]
    pub fn metrics(&self) -> Arc<FinderMetrics> {
        Arc::clone(&self.metrics)
    }

    /// Bytes of records that it keeps for others.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.holder.bytes()
    }

    fn wall_at(&self, now: Tick) -> WallTime {
        self.wall.1 + now.since(self.wall.0)
    }

    fn send(&mut self, peer: MachineId, frame: &Frame) {
        self.outputs.push_back(FinderOutput::Send { peer, frame: frame.encode() });
    }

    fn up(
        &mut self,
        now: Tick,
        peer: MachineId,
        agents: Vec<AgentId>,
        address: &PeerAddr,
        remote: SocketAddr,
    ) {
        let bucket = |rate: (u32, Duration)| TokenBucket::new(rate.0, rate.1, now);
        let path = Scope::of_path(remote.ip());
        let (lookups, stores) = (bucket(LOOKUPS), bucket(STORES));
        let link = Link { agents, path, site: site_of(remote), lookups, stores };
        let loopback = self.config.allow_loopback;
        self.volunteers.met(now, peer, address, remote, loopback, &mut self.rng);
        if self.links.len() < MAX_LINKS || self.links.contains_key(&peer) {
            self.links.insert(peer, link);
        }
        self.dials.end(&peer);
        self.link_came(now, peer);
    }

    fn receive(&mut self, now: Tick, peer: MachineId, frame: &Bytes) {
        if !self.links.contains_key(&peer) {
            return;
        }
        let Ok(frame) = Frame::decode(frame) else {
            return self.metrics.refused_malformed.inc();
        };
        match frame {
            Frame::Lookup { key, id, hops } => self.asked(now, peer, key, id, hops),
            Frame::Found { key, id, sealed, referrals, holds } => {
                if self.searches.contains_key(&id) {
                    self.answered(now, peer, id, key, &search::Answer { sealed, referrals, holds });
                } else {
                    self.pass_back(now, peer, key, id, sealed);
                }
            }
            Frame::Store { key, topic, sealed, lifetime } => {
                let kept = self.keep(now, peer, key, topic, sealed, lifetime);
                self.send(peer, &Frame::Stored { key, kept });
            }
            Frame::Stored { kept: true, .. } => self.metrics.copies_kept.inc(),
            Frame::Stored { .. } => self.metrics.copies_declined.inc(),
            Frame::Unknown => {}
        }
    }

    /// A peer looks for a key.
    fn asked(&mut self, now: Tick, peer: MachineId, key: LookupKey, id: u64, hops: u32) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if !link.lookups.take(now) {
            return self.metrics.refused_lookups.inc();
        }
        let path = link.path;
        let near = path < Scope::Global;
        self.metrics.lookups_served.inc();
        let mut sealed = self.own_records(&key, path);
        sealed.extend(self.holder.records(now, &key, near));
        sealed.truncate(MAX_FOUND);
        if hops <= 1 || !sealed.is_empty() {
            let referrals = self.volunteers.referrals(now, &key, peer, path, MAX_REFERRALS);
            let holds = self.config.holds;
            return self.send(peer, &Frame::Found { key, id, sealed, referrals, holds });
        }
        if self.walks.contains(&id) {
            return;
        }
        let sent = self.spread(key, id, hops - 1, Some(peer));
        let until = now + WALK_TIMEOUT;
        self.walks.put(id, Walk { back: peer, sent, left: MAX_ANSWERS, until });
    }

    /// Asks a few links at random, and theirs.
    fn spread(
        &mut self,
        key: LookupKey,
        id: u64,
        hops: u32,
        from: Option<MachineId>,
    ) -> Vec<MachineId> {
        let mut ways: Vec<MachineId> =
            self.links.keys().copied().filter(|peer| Some(*peer) != from).collect();
        self.rng.shuffle(&mut ways);
        ways.truncate(FAN_OUT);
        for peer in &ways {
            self.send(*peer, &Frame::Lookup { key, id, hops });
        }
        ways
    }

    /// An answer to somebody else's lookup, unopened.
    fn pass_back(
        &mut self,
        now: Tick,
        peer: MachineId,
        key: LookupKey,
        id: u64,
        sealed: Vec<Bytes>,
    ) {
        let walk = self.walks.get_mut(&id).filter(|walk| walk.until > now && walk.left > 0);
        let Some(walk) = walk.filter(|walk| walk.sent.contains(&peer)) else {
            return self.metrics.refused_unasked.inc();
        };
        if sealed.is_empty() {
            return;
        }
        walk.left -= 1;
        let back = walk.back;
        let (referrals, holds) = (Vec::new(), self.config.holds);
        self.send(back, &Frame::Found { key, id, sealed, referrals, holds });
    }

    /// The records of this node under a key, sealed.
    fn own_records(&self, key: &LookupKey, path: Scope) -> Vec<Bytes> {
        let filed = self.offers.values().flat_map(|offer| &offer.filed);
        filed.filter(|filed| filed.key == *key).map(|filed| filed.sealed(path)).collect()
    }

    /// A peer asks to keep a record.
    fn keep(
        &mut self,
        now: Tick,
        peer: MachineId,
        key: LookupKey,
        topic: bool,
        sealed: Bytes,
        lifetime: Duration,
    ) -> bool {
        let wall = self.wall_at(now);
        let Some(link) = self.links.get_mut(&peer) else { return false };
        if !link.stores.take(now) {
            self.metrics.refused_stores.inc();
            return false;
        }
        if !self.config.holds || sealed.is_empty() {
            return false;
        }
        // A topic's records, which anybody may file, take no place of an agent's.
        if topic != key.is_topic() {
            self.metrics.refused_kind.inc();
            return false;
        }
        // Nobody fills the place of an agent that it does not run.
        let own = |agent: &AgentId| {
            let subject = Subject::Agent(*agent);
            epochs(wall).into_iter().any(|day| LookupKey::of(&subject, day) == key)
        };
        if !topic && !link.agents.iter().any(own) {
            self.metrics.refused_foreign.inc();
            return false;
        }
        let filer = Filer { machine: peer, near: link.path < Scope::Global, site: link.site };
        self.holder.keep(now, filer, key, sealed, lifetime);
        self.metrics.held_bytes.set(self.holder.bytes() as u64);
        true
    }
}

/// The days whose keys somebody may use at a time, clocks being what they are.
fn epochs(wall: WallTime) -> Vec<u64> {
    let skew = u64::try_from(MAX_CLOCK_SKEW.as_millis()).unwrap_or(0);
    let earlier = WallTime::from_millis(wall.as_millis().saturating_sub(skew));
    let mut days = vec![epoch(earlier), epoch(wall + crate::config::RECORD_VALIDITY)];
    days.dedup();
    days
}

impl Machine for Finder {
    type Input = FinderInput;
    type Output = FinderOutput;

    fn handle(&mut self, now: Tick, input: FinderInput) {
        match input {
            FinderInput::Wall(wall) => self.wall = (now, wall),
            FinderInput::Up { peer, agents, address, remote } => {
                self.up(now, peer, agents, &address, remote);
            }
            FinderInput::Down(peer) => {
                self.links.remove(&peer);
                self.candidate_lost(now, peer);
            }
            FinderInput::Volunteers(peers) => {
                let loopback = self.config.allow_loopback;
                for address in peers {
                    if let Some(peer) = address.id.filter(|peer| *peer != self.local) {
                        self.volunteers.told(
                            now,
                            peer,
                            &address.addresses,
                            loopback,
                            &mut self.rng,
                        );
                    }
                }
            }
            FinderInput::DialFailed(peer) => {
                self.dials.end(&peer);
                self.volunteers.failed(now, peer);
                self.candidate_lost(now, peer);
            }
            FinderInput::Message { peer, frame } => self.receive(now, peer, &frame),
            FinderInput::Offer(subject) => self.offer(now, subject),
            FinderInput::Withdraw(subject) => {
                self.offers.remove(&subject);
            }
            FinderInput::Moved => self.moved(now),
            FinderInput::Publish { subject, near, far } => self.publish(now, subject, &near, &far),
            FinderInput::Find { ticket, subject, after, deadline } => {
                self.find(now, ticket, subject, after, deadline);
            }
            FinderInput::Cancel(ticket) => self.cancel(ticket),
        }
        self.go_on(now);
        self.metrics.volunteers.set(self.volunteers.len() as u64);
    }

    fn handle_timeout(&mut self, now: Tick) {
        self.holder.expire(now);
        self.sign(now);
        self.dials.expire(now);
        self.run_searches(now);
        self.go_on(now);
    }

    fn poll_output(&mut self) -> Option<FinderOutput> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Tick> {
        let offers = self.offers.values().filter(|offer| !offer.signing).map(|offer| offer.due);
        let searches = self.searches.values().map(|search| search.next);
        offers.chain(searches).chain(self.holder.next()).chain(self.dials.next()).min()
    }
}

/// Hops of a search's first questions.
const SEARCH_HOPS: u32 = MAX_HOPS;
