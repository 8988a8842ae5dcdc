//! A model of the internet with address translators, as packets meet them: pure, and replayed from a seed.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use x0x_core::{SeededRng, Tick};

/// The port of every host.
const PORT: u16 = 5483;
/// Most mappings of one translator; the one unused for longest gives way.
const MAX_MAPPINGS: usize = 4096;

/// How a translator treats UDP (RFC 4787; the names are those of RFC 3489).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum NatKind {
    /// One port for all, and everybody gets in.
    FullCone,
    /// One port for all, and hosts that were contacted get in.
    AddressRestricted,
    /// One port for all, and ports that were contacted get in.
    PortRestricted,
    /// A random port for each destination, and only that gets in.
    Symmetric,
    /// Nothing is translated, and ports that were contacted get in: a firewall before public addresses.
    Firewall,
    /// Nothing passes.
    Blocked,
}

/// A translator of a [`World`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NatId(usize);

/// A packet on its way, as its receiver will see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// Where it seems to come from.
    pub from: SocketAddr,
    /// The host's own address.
    pub to: SocketAddr,
    /// How long it takes.
    pub delay: Duration,
}

#[derive(Debug)]
struct Mapping {
    inner: SocketAddr,
    /// The one destination that it is for, from a symmetric translator.
    only: Option<SocketAddr>,
    contacted: BTreeSet<SocketAddr>,
    used: Tick,
}

#[derive(Debug)]
struct Nat {
    kind: NatKind,
    ip: Ipv4Addr,
    outer: Option<NatId>,
    hosts: u8,
    mappings: BTreeMap<u16, Mapping>,
}

impl Nat {
    /// The external port for a packet from inside.
    fn outbound(
        &mut self,
        now: Tick,
        life: Duration,
        rng: &mut SeededRng,
        [inner, to]: [SocketAddr; 2],
    ) -> Option<SocketAddr> {
        if self.kind == NatKind::Blocked {
            return None;
        }
        self.mappings.retain(|_, mapping| now.since(mapping.used) < life);
        let only = (self.kind == NatKind::Symmetric).then_some(to);
        let known = self.mappings.iter().find(|(_, m)| m.inner == inner && m.only == only);
        let port = known.map(|(port, _)| *port).unwrap_or_else(|| {
            if self.mappings.len() >= MAX_MAPPINGS {
                let oldest =
                    self.mappings.iter().min_by_key(|(_, m)| m.used).map(|(port, _)| *port);
                oldest.into_iter().for_each(|port| drop(self.mappings.remove(&port)));
            }
            loop {
                let port = rng.range(20_000, 60_000) as u16;
                if let Entry::Vacant(free) = self.mappings.entry(port) {
                    free.insert(Mapping { inner, only, contacted: BTreeSet::new(), used: now });
                    return port;
                }
            }
        });
        let mapping = self.mappings.get_mut(&port)?;
        mapping.used = now;
        mapping.contacted.insert(to);
        let translated = self.kind != NatKind::Firewall;
        Some(if translated { SocketAddr::from((self.ip, port)) } else { inner })
    }

    /// Whether a firewall lets a packet in.
    fn lets_in(&self, now: Tick, life: Duration, [from, inner]: [SocketAddr; 2]) -> bool {
        let of = self.mappings.values().find(|mapping| mapping.inner == inner);
        let known = of.filter(|mapping| now.since(mapping.used) < life);
        self.kind == NatKind::Firewall && known.is_some_and(|known| known.contacted.contains(&from))
    }

    /// Where a packet from outside goes inside.
    fn inbound(
        &self,
        now: Tick,
        life: Duration,
        from: SocketAddr,
        port: u16,
    ) -> Option<SocketAddr> {
        let mapping = self.mappings.get(&port).filter(|m| now.since(m.used) < life)?;
        let passes = match self.kind {
            NatKind::FullCone => true,
            NatKind::AddressRestricted => mapping.contacted.iter().any(|to| to.ip() == from.ip()),
            NatKind::PortRestricted | NatKind::Symmetric => mapping.contacted.contains(&from),
            NatKind::Firewall | NatKind::Blocked => false,
        };
        passes.then_some(mapping.inner)
    }
}

/// Hosts, translators, and one delay between all of them.
#[derive(Debug)]
pub struct World {
    rng: SeededRng,
    nats: Vec<Nat>,
    hosts: BTreeMap<SocketAddr, Option<NatId>>,
    /// One way, of every packet.
    pub latency: Duration,
    /// Share of packets that are lost.
    pub loss: f64,
    /// How long a mapping lives without a packet from inside.
    pub mapping_life: Duration,
    /// Whether those who write to addresses that nobody has hear of it, as by ICMP: by an error of their socket.
    pub unreachables: bool,
}

impl World {
    /// Nobody yet; 10 ms one way, no loss, mappings of 30 s.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            rng: SeededRng::from_number(seed),
            nats: Vec::new(),
            hosts: BTreeMap::new(),
            latency: Duration::from_millis(10),
            loss: 0.0,
            mapping_life: Duration::from_secs(30),
            unreachables: false,
        }
    }

    /// A translator, on the internet or inside another one, as carriers have them.
    pub fn nat(&mut self, kind: NatKind, outer: Option<NatId>) -> NatId {
        let n = self.nats.len() as u8;
        let ip = match outer {
            None => Ipv4Addr::new(80 + n % 100, n, 0, 1),
            Some(NatId(outer)) => Ipv4Addr::new(100, 64, outer as u8, 100 + n),
        };
        self.nats.push(Nat { kind, ip, outer, hosts: 0, mappings: BTreeMap::new() });
        NatId(self.nats.len() - 1)
    }

    /// A host on the internet, in a network of its own, or inside a translator. Gives its address.
    pub fn host(&mut self, behind: Option<NatId>) -> SocketAddr {
        let ip = match behind {
            None => {
                let n = self.hosts.values().filter(|behind| behind.is_none()).count() as u8;
                Ipv4Addr::new(20 + n % 60, n, 0, 1)
            }
            Some(NatId(nat)) => {
                self.nats[nat].hosts += 1;
                let (n, host) = (nat as u8, 1 + self.nats[nat].hosts);
                match self.nats[nat].kind {
                    NatKind::Firewall => Ipv4Addr::new(130 + n % 30, n, 0, host),
                    _ => Ipv4Addr::new(10, n, 0, host),
                }
            }
        };
        let address = SocketAddr::from((ip, PORT));
        self.hosts.insert(address, behind);
        address
    }

    /// A translator forgets its mappings: it was restarted, or moved to other ports.
    pub fn rebind(&mut self, NatId(nat): NatId) {
        self.nats[nat].mappings.clear();
    }

    /// Changes how a translator treats packets from now on.
    pub fn set_kind(&mut self, NatId(nat): NatId, kind: NatKind) {
        self.nats[nat].kind = kind;
    }

    /// Where a TCP connection of a host to another address on the internet comes from; `None` where nobody is.
    /// Translators let all of them pass outwards, those that block UDP, too.
    #[must_use]
    pub fn connects(&self, host: SocketAddr, to: IpAddr) -> Option<IpAddr> {
        self.hosts.iter().find(|(at, behind)| at.ip() == to && behind.is_none())?;
        let (mut from, mut realm) = (host.ip(), *self.hosts.get(&host)?);
        while let Some(NatId(nat)) = realm {
            let nat = &self.nats[nat];
            from = if nat.kind == NatKind::Firewall { from } else { nat.ip.into() };
            realm = nat.outer;
        }
        Some(from)
    }

    /// Whether nobody is at an address.
    #[must_use]
    pub fn is_nowhere(&self, to: SocketAddr) -> bool {
        let host = self.hosts.keys().any(|host| host.ip() == to.ip());
        !host && !self.nats.iter().any(|nat| IpAddr::V4(nat.ip) == to.ip())
    }

    /// Carries a packet of a host. `None` when it gets lost.
    pub fn send(&mut self, now: Tick, host: SocketAddr, to: SocketAddr) -> Option<Delivery> {
        let (mut from, mut to, mut realm) = (host, to, *self.hosts.get(&host)?);
        // Each step goes one translator out or in; nobody is inside more than all of them.
        for _ in 0..=2 * self.nats.len() {
            if self.hosts.get(&to) == Some(&realm) {
                let lost = self.rng.chance(self.loss);
                return (!lost).then_some(Delivery { from, to, delay: self.latency });
            }
            let life = self.mapping_life;
            let behind = self.hosts.get(&to).copied().flatten();
            let walled = behind.filter(|NatId(nat)| {
                let nat = &self.nats[*nat];
                nat.outer == realm && nat.kind == NatKind::Firewall
            });
            if let Some(NatId(nat)) = walled {
                if !self.nats[nat].lets_in(now, life, [from, to]) {
                    return None;
                }
                realm = walled;
                continue;
            }
            let into =
                self.nats.iter().position(|n| n.outer == realm && IpAddr::V4(n.ip) == to.ip());
            if let Some(into) = into {
                to = self.nats[into].inbound(now, life, from, to.port())?;
                realm = Some(NatId(into));
            } else {
                let nat = &mut self.nats[realm?.0];
                from = nat.outbound(now, life, &mut self.rng, [from, to])?;
                realm = nat.outer;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Tick = Tick::ZERO;

    /// What of three strangers' packets to a mapping gets in: of the contacted port, of another port of that
    /// host, of another host.
    fn filters(kind: NatKind) -> ([bool; 3], usize) {
        let mut world = World::new(1);
        let nat = world.nat(kind, None);
        let inside = world.host(Some(nat));
        let (near, far) = (world.host(None), world.host(None));
        let Some(first) = world.send(NOW, inside, near) else { return ([false; 3], 0) };
        assert_eq!(first.to, near);
        let from = |from: SocketAddr, port| SocketAddr::new(from.ip(), port);
        let gets = |from: SocketAddr| {
            world.nats[nat.0].inbound(NOW, world.mapping_life, from, first.from.port()).is_some()
        };
        let gets = [gets(near), gets(from(near, 7)), gets(far)];
        let second = world.send(NOW, inside, far).expect("passes");
        let ports: BTreeSet<_> = [first.from, second.from].into();
        assert_eq!(world.send(NOW, inside, near).expect("passes").from, first.from);
        (gets, ports.len())
    }

    #[test]
    fn each_kind_maps_and_filters_as_its_name_says() {
        assert_eq!(filters(NatKind::FullCone), ([true, true, true], 1));
        assert_eq!(filters(NatKind::AddressRestricted), ([true, true, false], 1));
        assert_eq!(filters(NatKind::PortRestricted), ([true, false, false], 1));
        assert_eq!(filters(NatKind::Symmetric), ([true, false, false], 2));
        assert_eq!(filters(NatKind::Blocked), ([false; 3], 0));
    }

    #[test]
    fn a_firewall_translates_nothing_and_lets_answers_in() {
        let mut world = World::new(5);
        let wall = world.nat(NatKind::Firewall, None);
        let (inside, near, far) = (world.host(Some(wall)), world.host(None), world.host(None));
        assert_eq!(world.send(NOW, near, inside), None, "nobody was written to");
        let out = world.send(NOW, inside, near).expect("passes");
        assert_eq!((out.from, out.to), (inside, near));
        assert_eq!(world.send(NOW, near, inside).map(|back| back.to), Some(inside));
        assert_eq!(world.send(NOW, far, inside), None);
        assert_eq!(world.send(Tick::from_millis(30_000), near, inside), None, "too old");
    }

    #[test]
    fn mappings_end_and_carriers_nest() {
        let mut world = World::new(2);
        let carrier = world.nat(NatKind::PortRestricted, None);
        let home = world.nat(NatKind::FullCone, Some(carrier));
        let (inside, neighbour) = (world.host(Some(home)), world.host(Some(home)));
        let public = world.host(None);
        let seen = world.send(NOW, inside, public).expect("passes").from;
        assert_eq!(seen.ip().to_string(), "80.0.0.1");
        assert_eq!(world.send(NOW, public, seen).map(|back| back.to), Some(inside));
        let other = world.host(None);
        assert_eq!(world.send(NOW, other, seen), None, "the carrier filters");
        assert_eq!(world.send(NOW, inside, neighbour).map(|d| d.from), Some(inside), "one site");
        assert_eq!(world.send(NOW, public, inside), None, "no route to a private address");
        assert_eq!(world.send(Tick::from_millis(30_000), public, seen), None, "too old");
        world.send(Tick::from_millis(31_000), inside, public).expect("passes");
        world.rebind(carrier);
        let moved = world.send(Tick::from_millis(31_000), inside, public).expect("passes").from;
        assert_ne!(moved, seen);
    }

    #[test]
    fn tcp_passes_outwards_only() {
        let mut world = World::new(4);
        let nat = world.nat(NatKind::Blocked, None);
        let (inside, public) = (world.host(Some(nat)), world.host(None));
        let seen = world.connects(inside, public.ip()).map(|ip| ip.to_string());
        assert_eq!(seen.as_deref(), Some("80.0.0.1"));
        assert_eq!(world.connects(public, inside.ip()), None);
        assert_eq!(world.send(NOW, inside, public), None);
    }

    #[test]
    fn loss_follows_the_seed() {
        let mut world = World::new(3);
        world.loss = 0.3;
        let (a, b) = (world.host(None), world.host(None));
        let arrived = (0..1000).filter(|_| world.send(NOW, a, b).is_some()).count();
        assert!((650..750).contains(&arrived), "{arrived}");
    }
}
