//! How this machine can be reached, from what its peers see of it.
//!
//! A report is one peer's word. It counts when peers of two networks, with ids of their own, say the same
//! within ten minutes; alone it is a hint. What they say of a translator's mappings counts by the same
//! measure, so that no single peer can turn a good mapping into a bad one, or the other way round.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use x0x_core::{MachineId, Scope, Tick};

use crate::{prefix::Prefix, record::ReachClass};

/// Most reports kept of one address family; the oldest gives way.
pub const MAX_REPORTS: usize = 64;
/// Most of these from one network (/16 of IPv4, /32 of IPv6); its oldest gives way.
pub const MAX_REPORTS_PER_NETWORK: usize = 4;
/// How long a report counts after it was last heard, and two agree.
pub const REPORT_LIFETIME: Duration = Duration::from_secs(600);
/// How often a peer may change its report.
pub const MIN_CHANGE: Duration = Duration::from_secs(10);
/// How long it counts that an address was reached.
pub const REACHED_FOR: Duration = Duration::from_secs(900);
/// Most external addresses told of one family.
pub const MAX_EXTERNAL: usize = 8;

/// Networks whose reports agree before an address is confirmed.
const CONFIRMING: usize = 2;
/// Networks that see one host at different ports before its mapping counts as dependent: one more than
/// it takes to confirm, for a single liar can make two disagree.
const DIFFERING: usize = 3;

/// What one peer sees of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Who says it.
    pub peer: MachineId,
    /// Where that peer is.
    pub from: SocketAddr,
    /// Where it sees this machine.
    pub observed: SocketAddr,
    /// Whether the peer found this machine by itself, without this machine having sent anything to its network.
    pub came: bool,
}

impl Report {
    /// A report of a peer.
    #[must_use]
    pub const fn new(peer: MachineId, from: SocketAddr, observed: SocketAddr, came: bool) -> Self {
        Self { peer, from, observed, came }
    }
}

/// An address of this machine as the internet sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExternalAddress {
    /// The address.
    pub address: SocketAddr,
    /// Peers of two networks say so; else it is a hint.
    pub confirmed: bool,
    /// How many networks say so.
    pub networks: usize,
    /// The gateway says that it leads here. It is confirmed when somebody reached this machine there, too.
    pub mapped: bool,
}

/// How the translator before this machine, if there is one, chooses ports (RFC 4787 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Mapping {
    /// Too few peers have said anything.
    #[default]
    Unknown,
    /// One port for all destinations: others can be told of it.
    Independent,
    /// Another port for each destination: nobody can be told where to send.
    Dependent,
}

/// All that is known of how this machine is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Reach {
    /// In short, as records say it.
    pub class: ReachClass,
    /// Its addresses on the internet, the surest first.
    pub external: Vec<ExternalAddress>,
    /// How IPv4 is mapped.
    pub mapping_v4: Mapping,
    /// How IPv6 is mapped.
    pub mapping_v6: Mapping,
}

#[derive(Debug)]
struct Kept {
    from: Prefix,
    observed: SocketAddr,
    came: bool,
    heard: Tick,
    changed: Tick,
}

/// The reports of an address family, at most one of each peer.
#[derive(Debug, Default)]
struct Family(BTreeMap<MachineId, Kept>);

impl Family {
    fn report(&mut self, now: Tick, report: &Report, observed: SocketAddr) {
        let from = Prefix::wide(report.from.ip());
        self.0.retain(|_, kept| now.since(kept.heard) < REPORT_LIFETIME);
        if let Some(kept) = self.0.get_mut(&report.peer) {
            let changes = kept.observed != observed || kept.from != from;
            if changes && now.since(kept.changed) < MIN_CHANGE {
                return;
            }
            let changed = if changes { now } else { kept.changed };
            let came = report.came || (kept.came && !changes);
            *kept = Kept { from, observed, came, heard: now, changed };
            return;
        }
        let of_network = self.0.values().filter(|kept| kept.from == from).count();
        if of_network >= MAX_REPORTS_PER_NETWORK {
            self.drop_oldest(|kept| kept.from == from);
        } else if self.0.len() >= MAX_REPORTS {
            self.drop_oldest(|_| true);
        }
        let kept = Kept { from, observed, came: report.came, heard: now, changed: now };
        self.0.insert(report.peer, kept);
    }

    fn drop_oldest(&mut self, of: impl Fn(&Kept) -> bool) {
        let oldest = self.0.iter().filter(|(_, kept)| of(kept)).min_by_key(|(_, kept)| kept.heard);
        if let Some(peer) = oldest.map(|(peer, _)| *peer) {
            self.0.remove(&peer);
        }
    }

    /// The addresses that are seen, and from which networks.
    fn seen(&self, now: Tick) -> BTreeMap<SocketAddr, BTreeSet<Prefix>> {
        let mut seen: BTreeMap<SocketAddr, BTreeSet<Prefix>> = BTreeMap::new();
        for kept in self.0.values().filter(|kept| now.since(kept.heard) < REPORT_LIFETIME) {
            seen.entry(kept.observed).or_default().insert(kept.from);
        }
        seen
    }

    fn external(&self, now: Tick) -> Vec<ExternalAddress> {
        let seen = self.seen(now).into_iter();
        let mut all: Vec<ExternalAddress> = seen
            .map(|(address, networks)| ExternalAddress {
                address,
                confirmed: networks.len() >= CONFIRMING,
                networks: networks.len(),
                mapped: false,
            })
            .collect();
        all.sort_by_key(|external| std::cmp::Reverse(external.networks));
        all.truncate(MAX_EXTERNAL);
        all
    }

    fn mapping(&self, now: Tick) -> Mapping {
        let seen = self.seen(now);
        if seen.values().any(|networks| networks.len() >= CONFIRMING) {
            return Mapping::Independent;
        }
        // Each address is seen from one network only, and each network counts once.
        let mut hosts: BTreeMap<IpAddr, BTreeSet<Prefix>> = BTreeMap::new();
        for (address, networks) in &seen {
            hosts.entry(address.ip()).or_default().extend(networks);
        }
        let differing = hosts.into_iter().any(|(ip, networks)| {
            let ports = seen.keys().filter(|address| address.ip() == ip).count();
            networks.len().min(ports) >= DIFFERING
        });
        if differing { Mapping::Dependent } else { Mapping::Unknown }
    }

    /// From how many networks somebody found this machine at an address by itself.
    fn came(&self, now: Tick, address: SocketAddr) -> usize {
        let kept = self.0.values().filter(|kept| now.since(kept.heard) < REPORT_LIFETIME);
        let came = kept.filter(|kept| kept.came && kept.observed == address);
        came.map(|kept| kept.from).collect::<BTreeSet<_>>().len()
    }
}

/// What peers say of this machine's addresses. Bounded, and pure: time is an argument.
#[derive(Debug, Default)]
pub struct Observations {
    v4: Family,
    v6: Family,
    /// Addresses at which somebody reached this machine to whom it did not write, and when.
    reached: BTreeMap<SocketAddr, Tick>,
    /// Where the gateway says that it leads here.
    mapped: Option<SocketAddr>,
}

impl Observations {
    /// Nothing heard yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all reports: they are of another place. What the gateway says is told anew by whoever asks it.
    pub fn clear(&mut self) {
        *self = Self { mapped: self.mapped, ..Self::default() };
    }

    /// The gateway says that this address leads here, or that none does any more.
    pub fn map(&mut self, address: Option<SocketAddr>) {
        self.mapped = address;
    }

    /// Adds the address of the gateway to those that peers see.
    fn with_mapped(&self, now: Tick, external: &mut Vec<ExternalAddress>) {
        let Some(address) = self.mapped else { return };
        let reached = self.was_reached(now, address);
        if let Some(seen) = external.iter_mut().find(|seen| seen.address == address) {
            (seen.mapped, seen.confirmed) = (true, seen.confirmed || reached);
        } else {
            let hint = ExternalAddress { address, confirmed: reached, networks: 0, mapped: true };
            external.push(hint);
        }
    }

    /// Somebody reached this machine at an address, to whom it did not write.
    pub fn reached(&mut self, now: Tick, address: SocketAddr) {
        self.reached.retain(|_, at| now.since(*at) < REACHED_FOR);
        if self.reached.len() < MAX_EXTERNAL || self.reached.contains_key(&address) {
            self.reached.insert(address, now);
        }
    }

    fn was_reached(&self, now: Tick, address: SocketAddr) -> bool {
        self.reached.get(&address).is_some_and(|at| now.since(*at) < REACHED_FOR)
    }

    /// Takes a report, or hears again that it still holds. Those of and about machines that are not on
    /// the internet say nothing of it.
    pub fn report(&mut self, now: Tick, report: &Report) {
        let observed = SocketAddr::new(report.observed.ip().to_canonical(), report.observed.port());
        let global = |ip: IpAddr| Scope::of(ip) == Some(Scope::Global);
        if !global(report.from.ip()) || !global(observed.ip()) || observed.port() == 0 {
            return;
        }
        let family = if observed.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        family.report(now, report, observed);
    }

    /// How a machine that listens at `own` is reached.
    ///
    /// Public: a confirmed address, be it a translator's, was [`reached`](Self::reached); or it is one of these, and
    /// peers of two networks dialled it to which this machine had not sent anything. Punchable: an address is
    /// confirmed, of a translator which keeps to one mapping for everybody, or of this machine behind what lets in
    /// answers alone. Relayed only: each destination sees another port, and no family is better off.
    #[must_use]
    pub fn reach(&self, now: Tick, own: &[SocketAddr]) -> Reach {
        let mut external = self.v4.external(now);
        external.extend(self.v6.external(now));
        external.sort_by_key(|external| std::cmp::Reverse(external.networks));
        self.with_mapped(now, &mut external);
        let confirmed = external.iter().filter(|external| external.confirmed);
        let confirmed: Vec<SocketAddr> = confirmed.map(|external| external.address).collect();
        let came = |address| self.v4.came(now, address) + self.v6.came(now, address) >= CONFIRMING;
        let public = confirmed.iter().any(|address| {
            self.was_reached(now, *address) || (own.contains(address) && came(*address))
        });
        let (mapping_v4, mapping_v6) = (self.v4.mapping(now), self.v6.mapping(now));
        let dependent = [mapping_v4, mapping_v6].contains(&Mapping::Dependent);
        let class = match (public, confirmed.is_empty()) {
            (true, _) => ReachClass::Public,
            (false, false) => ReachClass::Punchable,
            (false, true) if dependent => ReachClass::RelayOnly,
            (false, true) => ReachClass::Unknown,
        };
        Reach { class, external, mapping_v4, mapping_v6 }
    }
}

#[cfg(test)]
mod tests;
