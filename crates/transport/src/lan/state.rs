//! Who announces, asks and answers when, and what was found.
//!
//! A machine announces itself twice when it starts, when its links change, and under each new name; it asks
//! after the same moments, and then more and more seldom, down to every ten minutes. Questions are answered
//! after a moment that differs from machine to machine, to all, at most once in a second (RFC 6762 §5.2, §6,
//! §8.3). Names are random, so that nobody has to be asked whether one is free.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use x0x_core::{Machine, MachineId, Scope, SeededRng, Tick, TokenBucket};

use super::{
    PORT,
    wire::{Announcement, Find, Instance, PacketIn, ServiceError, ServiceIn, Tag, question},
};
use crate::interfaces::{Interface, Network};

/// Most machines that are remembered; the one not heard of for longest gives way.
pub const MAX_FINDS: usize = 128;
/// Most of these that came from one address; its oldest gives way.
pub const MAX_FINDS_PER_HOST: usize = 4;
/// Most links, of each family, on which this machine speaks.
pub const MAX_LINKS: usize = 16;

/// How long a name is used.
const NAME_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How often an announcement is made, and the time between.
const ANNOUNCEMENTS: u32 = 2;
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(1);
/// Shortest time between two announcements, whoever asks.
const ANSWER_INTERVAL: Duration = Duration::from_secs(1);
/// The pause after the first question; it grows threefold each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(600);
/// How often somebody who looks for machines makes this one ask and tell again.
const SEARCH_INTERVAL: Duration = Duration::from_secs(30);
/// Machines told of at once, and the time in which another may be.
const FOUND_BURST: u32 = 16;
const FOUND_REFILL: Duration = Duration::from_millis(500);

/// What a machine says on its links.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LanConfig {
    /// Which network it belongs to.
    pub tag: Tag,
    /// Where its socket is bound.
    pub bound: SocketAddr,
    /// Its id, if everybody on its links may know it.
    pub machine: Option<MachineId>,
}

impl LanConfig {
    /// A machine of the network of this name, which does not say who it is.
    #[must_use]
    pub fn new(network: &str, bound: SocketAddr) -> Self {
        Self { tag: Tag::of(network), bound, machine: None }
    }
}

counters! {
    /// What happens on the links.
    LanMetrics, "transport_lan_", {
        announced = "Announcements of this machine, one for each link and family.",
        asked = "Questions for other machines, one for each link and family.",
        answered = "Questions of others that were answered.",
        found = "Machines found on this machine's links.",
        received = "Packets of multicast DNS received.",
        finds_evicted = "Machines forgotten for others, because too many announce themselves.",
        refused_rate = "Packets dropped, and machines not told of, because too many came.",
        refused_malformed = "Packets that are none of DNS, or too large.",
        refused_port = "Packets that came from another port than that of multicast DNS.",
        refused_elsewhere = "Packets from machines that are on none of this machine's links.",
        refused_network = "Announcements of machines of other networks.",
        refused_addresses = "Announcements without an address on this machine's links.",
    }
}

/// What the world tells [`Lan`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Input {
    /// This machine's interfaces, at first and whenever they changed.
    Network(Arc<Network>),
    /// A packet.
    Received {
        /// From where.
        from: SocketAddr,
        /// What it says.
        packet: PacketIn,
    },
    /// Somebody looks for machines: those that are known are told of again, and others asked for.
    Search,
    /// This machine goes away.
    Leave,
}

/// What [`Lan`] asks of, or tells, the world.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Send a packet to all on a link.
    Send {
        /// By which of this machine's addresses.
        via: Interface,
        /// What.
        packet: Bytes,
    },
    /// A machine is there.
    Found(Find),
}

#[derive(Debug)]
struct Known {
    find: Find,
    from: IpAddr,
    heard: Tick,
}

/// One machine on its links.
#[derive(Debug)]
pub struct Lan {
    config: LanConfig,
    rng: SeededRng,
    instance: Instance,
    /// The name before this one: packets with it may still be on their way.
    former: Option<Instance>,
    network: Arc<Network>,
    finds: BTreeMap<Instance, Known>,
    found: TokenBucket,
    announce_at: Option<Tick>,
    announcements: u32,
    announced: Option<Tick>,
    ask_at: Option<Tick>,
    pause: Duration,
    searched: Option<Tick>,
    rename_at: Tick,
    metrics: Arc<LanMetrics>,
    outputs: VecDeque<Output>,
    left: bool,
}

impl Lan {
    /// Not on any link yet. `rng` is for names, which must not be guessed, and for the moments of answers.
    #[must_use]
    pub fn new(now: Tick, config: LanConfig, mut rng: SeededRng, metrics: Arc<LanMetrics>) -> Self {
        let instance = random_name(&mut rng);
        Self {
            config,
            rng,
            instance,
            former: None,
            network: Arc::default(),
            finds: BTreeMap::new(),
            found: TokenBucket::new(FOUND_BURST, FOUND_REFILL, now),
            announce_at: None,
            announcements: 0,
            announced: None,
            ask_at: None,
            pause: FIRST_PAUSE,
            searched: None,
            rename_at: now + NAME_LIFETIME,
            metrics,
            outputs: VecDeque::new(),
            left: false,
        }
    }

    /// The name of this machine now.
    #[must_use]
    pub const fn instance(&self) -> Instance {
        self.instance
    }

    /// The machines that were heard of and did not leave.
    pub fn finds(&self, now: Tick) -> impl Iterator<Item = &Find> {
        let current = move |known: &&Known| now.since(known.heard) < known.find.lifetime;
        self.finds.values().filter(current).map(|known| &known.find)
    }

    /// One address of each family for each shared link: by it, packets are sent there.
    fn links(network: &Network) -> Vec<Interface> {
        let mut links: Vec<Interface> = Vec::new();
        for interface in network.interfaces().iter().filter(|interface| interface.shared) {
            let same = |link: &&Interface| {
                link.index == interface.index && link.ip.is_ipv4() == interface.ip.is_ipv4()
            };
            let of_family = links.iter().filter(|link| link.ip.is_ipv4() == interface.ip.is_ipv4());
            if of_family.count() < MAX_LINKS && !links.iter().any(|link| same(&link)) {
                links.push(*interface);
            }
        }
        links
    }

    /// The addresses that this machine may be dialled at on a link.
    fn addresses(&self, link: &Interface) -> Vec<IpAddr> {
        let bound = self.config.bound.ip();
        let takes = |ip: IpAddr| match bound {
            IpAddr::V4(any) if any.is_unspecified() => ip.is_ipv4(),
            IpAddr::V6(any) if any.is_unspecified() => true,
            one => one.to_canonical() == ip,
        };
        let all = self.network.interfaces().iter().filter(|other| other.index == link.index);
        let wide = all.filter(|other| Scope::of(other.ip) >= Some(Scope::Site));
        wide.map(|other| other.ip).filter(|ip| takes(*ip)).collect()
    }

    fn announce(&mut self, now: Tick, lasts: bool) {
        self.announced = Some(now);
        for via in Self::links(&self.network) {
            let ips = self.addresses(&via);
            if ips.is_empty() {
                continue;
            }
            let LanConfig { tag, bound, machine } = &self.config;
            let mut announcement = Announcement::new(self.instance, *tag, ips, bound.port());
            announcement.machine = *machine;
            if let Some(packet) = announcement.encode(lasts) {
                self.metrics.announced.inc();
                self.outputs.push_back(Output::Send { via, packet });
            }
        }
    }

    fn ask(&mut self, now: Tick) {
        self.ask_at = Some(now + self.pause);
        self.pause = (self.pause * 3).min(LAST_PAUSE);
        let known: Vec<Instance> = self.finds(now).map(|find| find.instance).collect();
        let Some(packet) = question(known) else { return };
        for via in Self::links(&self.network) {
            self.metrics.asked.inc();
            self.outputs.push_back(Output::Send { via, packet: packet.clone() });
        }
    }

    fn soon(&mut self, now: Tick, from: u64, to: u64) -> Tick {
        now + Duration::from_millis(self.rng.range(from, to))
    }

    fn on_network(&mut self, now: Tick, network: Arc<Network>) {
        let shared = |of: &Network| -> Vec<Interface> {
            of.interfaces().iter().copied().filter(|interface| interface.shared).collect()
        };
        let same = shared(&network) == shared(&self.network);
        self.network = network;
        if same {
            return;
        }
        let near = self.network.clone();
        self.finds.retain(|_, known| {
            known.find.addresses.iter().any(|address| near.is_on_link(address.ip()))
        });
        self.begin(now);
    }

    /// Says who is here, and asks who else is.
    fn begin(&mut self, now: Tick) {
        // Machines of which the link was down for all do not speak all at once.
        self.announce_at = Some(self.soon(now, 0, 100));
        self.announcements = ANNOUNCEMENTS;
        self.pause = FIRST_PAUSE;
        self.ask_at = Some(self.soon(now, 20, 120));
    }

    fn on_received(&mut self, now: Tick, from: SocketAddr, packet: PacketIn) {
        if from.port() != PORT {
            return self.metrics.refused_port.inc();
        }
        let near = Scope::of(from.ip()) == Some(Scope::Link) || self.network.is_on_link(from.ip());
        if !near {
            return self.metrics.refused_elsewhere.inc();
        }
        match packet {
            PacketIn::Question(known) if !known.contains(&self.instance) => {
                if self.announce_at.is_some() {
                    return;
                }
                self.metrics.answered.inc();
                let earliest = self.announced.map_or(now, |last| last + ANSWER_INTERVAL);
                self.announce_at = Some(self.soon(now, 20, 120).max(earliest));
            }
            PacketIn::Question(_) | PacketIn::Other => {}
            PacketIn::Services(all) => {
                for service in all {
                    self.on_service(now, from.ip(), service);
                }
            }
        }
    }

    fn on_service(&mut self, now: Tick, from: IpAddr, service: ServiceIn) {
        let instance = service.instance();
        if instance == self.instance || self.former == Some(instance) {
            return;
        }
        if service.leaves() {
            self.finds.remove(&instance);
            return;
        }
        let find = match service.verify(self.config.tag, &self.network) {
            Ok(find) => find,
            Err(ServiceError::Network) => return self.metrics.refused_network.inc(),
            Err(ServiceError::Addresses) => return self.metrics.refused_addresses.inc(),
        };
        if let Some(known) = self.finds.get_mut(&instance) {
            let same = known.find.addresses == find.addresses
                && now.since(known.heard) < known.find.lifetime;
            *known = Known { find: find.clone(), from, heard: now };
            if !same {
                self.tell(now, find);
            }
            return;
        }
        let of_host = self.finds.values().filter(|known| known.from == from).count();
        if of_host >= MAX_FINDS_PER_HOST {
            self.evict(|known| known.from == from);
        } else if self.finds.len() >= MAX_FINDS {
            self.evict(|_| true);
        }
        if self.tell(now, find.clone()) {
            self.metrics.found.inc();
            self.finds.insert(instance, Known { find, from, heard: now });
        }
    }

    /// False when too many were told of: then it is when it is heard of again.
    fn tell(&mut self, now: Tick, find: Find) -> bool {
        let may = self.found.take(now);
        if may {
            self.outputs.push_back(Output::Found(find));
        } else {
            self.metrics.refused_rate.inc();
        }
        may
    }

    fn evict(&mut self, of: impl Fn(&Known) -> bool) {
        let oldest = self.finds.iter().filter(|(_, known)| of(known)).min_by_key(|(_, k)| k.heard);
        if let Some(instance) = oldest.map(|(instance, _)| *instance) {
            self.finds.remove(&instance);
            self.metrics.finds_evicted.inc();
        }
    }

    fn on_search(&mut self, now: Tick) {
        if self.searched.is_some_and(|last| now.since(last) < SEARCH_INTERVAL) {
            return;
        }
        self.searched = Some(now);
        self.finds.retain(|_, known| now.since(known.heard) < known.find.lifetime);
        let known: Vec<Find> = self.finds(now).cloned().collect();
        for find in known {
            self.tell(now, find);
        }
        self.pause = FIRST_PAUSE;
        self.ask_at = Some(self.soon(now, 20, 120));
    }

    fn rename(&mut self, now: Tick) {
        self.announce(now, false);
        self.former = Some(self.instance);
        self.instance = random_name(&mut self.rng);
        self.rename_at = now + NAME_LIFETIME;
        self.announce_at = Some(now + ANSWER_INTERVAL);
        self.announcements = ANNOUNCEMENTS;
    }
}

fn random_name(rng: &mut SeededRng) -> Instance {
    let mut name = [0; 10];
    name[..8].copy_from_slice(&rng.next_u64().to_be_bytes());
    name[8..].copy_from_slice(&rng.next_u64().to_be_bytes()[..2]);
    Instance(name)
}

impl Machine for Lan {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Tick, input: Input) {
        if self.left {
            return;
        }
        match input {
            Input::Network(network) => self.on_network(now, network),
            Input::Received { from, packet } => self.on_received(now, from, packet),
            Input::Search => self.on_search(now),
            Input::Leave => {
                self.announce(now, false);
                self.left = true;
            }
        }
    }

    fn handle_timeout(&mut self, now: Tick) {
        if self.left {
            return;
        }
        if self.rename_at <= now {
            self.rename(now);
        }
        if self.announce_at.is_some_and(|at| at <= now) {
            self.announce(now, true);
            self.announcements = self.announcements.saturating_sub(1);
            self.announce_at = (self.announcements > 0).then(|| now + ANNOUNCE_AGAIN);
        }
        if self.ask_at.is_some_and(|at| at <= now) {
            self.ask(now);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Tick> {
        if self.left {
            return None;
        }
        self.announce_at.into_iter().chain(self.ask_at).chain([self.rename_at]).min()
    }
}

#[cfg(test)]
mod tests;
