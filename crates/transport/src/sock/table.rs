//! Virtual addresses, and the real ones behind them.
//!
//! Each dial gets a virtual address out of 240.0.0.0/4, the reserved class E (RFC 1112 §4): no machine
//! has it, [`dialable`](x0x_core::dialable) lets nobody name it, and it fits into sockets of either family.
//! Dials to one address at one time share it: there is one machine at the end. It never leaves the machine.
//!
//! The upper half of the block stands for ways by a relay: to those who use them they are as real as the address of
//! a machine, and a virtual address may stand for one of them.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use x0x_core::Tick;

/// Most virtual addresses: every session, the dials that race, and those that are just over.
pub const MAX_PATHS: usize = 1024;
/// Most real addresses of one peer from which packets are taken; the one silent for longest gives way.
pub const MAX_SOURCES: usize = 8;
/// Silence after which a real address that is not the active one is forgotten.
pub const SOURCE_LIFETIME: Duration = Duration::from_secs(60);
/// Datagrams of a dialler's first flight, which has a key share of ML-KEM in it.
pub const FIRST_FLIGHT: u8 = 2;
/// How long a virtual address outlives its last link, whose end still has to be told to the peer.
pub const LINGER: Duration = Duration::from_secs(10);

/// The first byte of class E addresses.
const CLASS_E: u32 = 0xf000_0000;
/// The first of those that stand for streams of packets.
const STREAMED: u32 = 0xf700_0000;
/// The first of those that stand for ways by a relay.
const RELAYED: u32 = 0xf800_0000;
/// The first after them: the broadcast address is behind it.
const RELAYED_END: u32 = 0xffff_ff00;
/// Bits of such an address, before its last byte, that tell relays apart.
const RELAY_BITS: u32 = 19;
/// A port, which an address must have.
const PORT: u16 = 1;

/// Whether an address is a virtual one; IPv4 mapped into IPv6 counts as IPv4.
#[must_use]
pub fn is_virtual(address: SocketAddr) -> bool {
    matches!(address.ip().to_canonical(), IpAddr::V4(ip) if u32::from(ip) >= CLASS_E)
}

/// Whether an address stands for a way by a relay.
#[must_use]
pub fn is_relayed(address: SocketAddr) -> bool {
    let range = RELAYED..RELAYED_END;
    matches!(address.ip().to_canonical(), IpAddr::V4(ip) if range.contains(&u32::from(ip)))
}

/// Whether an address stands for a stream of packets ([`stream`](super::stream)).
#[must_use]
pub fn is_streamed(address: SocketAddr) -> bool {
    let range = STREAMED..RELAYED;
    matches!(address.ip().to_canonical(), IpAddr::V4(ip) if range.contains(&u32::from(ip)))
}

/// Whether an address stands for a way that is no path of UDP packets to the peer: a direct one is better.
#[must_use]
pub fn is_detour(address: SocketAddr) -> bool {
    is_streamed(address) || is_relayed(address)
}

/// The `n`-th address of a stream with a machine of a network. Streams with one network are of one /24:
/// strangers who come from there are counted together.
#[must_use]
pub fn streamed_address(network: u16, n: u32) -> SocketAddr {
    let [_, low, ports @ ..] = n.to_be_bytes();
    let ip = Ipv4Addr::from(STREAMED | u32::from(network) << 8 | u32::from(low));
    SocketAddr::from((ip, u16::from_be_bytes(ports).max(PORT)))
}

/// The `n`-th address of a way by the `relay`-th relay. Ways by one relay are of one /24: strangers who come by it
/// are counted together.
#[must_use]
pub fn relayed_address(relay: u64, n: u32) -> SocketAddr {
    let relay = (relay % ((1 << RELAY_BITS) - 1)) as u32;
    let [_, low, ports @ ..] = n.to_be_bytes();
    let ip = Ipv4Addr::from(RELAYED | relay << 8 | u32::from(low));
    SocketAddr::from((ip, u16::from_be_bytes(ports).max(PORT)))
}

/// The address in its plain form: what a socket of both families calls `::ffff:192.0.2.1` is 192.0.2.1.
#[must_use]
pub fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

#[derive(Debug)]
struct Source {
    address: SocketAddr,
    /// When a packet last came from there.
    seen: Tick,
}

#[derive(Debug)]
struct Path {
    active: SocketAddr,
    /// The active one among them.
    sources: Vec<Source>,
    /// The latest packet, to be sent once more when the path changes.
    latest: Vec<u8>,
    /// Links and dials that use it, and since when there is none.
    users: u32,
    free_since: Tick,
    /// Datagrams of the first flight that are still to come.
    first: u8,
}

/// Which real address is behind each virtual one. All addresses are plain.
#[derive(Debug, Default)]
pub struct PathTable {
    paths: BTreeMap<SocketAddr, Path>,
    sources: HashMap<SocketAddr, SocketAddr>,
    next: u32,
}

impl PathTable {
    /// No paths yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The virtual address for a dial to a real one; `None` when too many are in use. Give it back with
    /// [`release`](Self::release).
    pub fn dial(&mut self, now: Tick, real: SocketAddr) -> Option<SocketAddr> {
        let real = plain(real);
        self.expire(now);
        if let Some(name) = self.sources.get(&real).copied()
            && let Some(path) = self.paths.get_mut(&name)
        {
            if path.active == real {
                path.users += 1;
                path.first = FIRST_FLIGHT;
                return Some(name);
            }
            // It has moved on, and somebody else may be there.
            self.forget_source(name, real);
        }
        if self.paths.len() >= MAX_PATHS {
            let free = self.paths.iter().filter(|(_, path)| path.users == 0);
            let oldest = free.min_by_key(|(_, path)| path.free_since).map(|(name, _)| *name)?;
            self.remove(oldest);
        }
        let name = self.free_name();
        let sources = vec![Source { address: real, seen: now }];
        let (latest, first) = (Vec::new(), FIRST_FLIGHT);
        let path = Path { active: real, sources, latest, users: 1, free_since: now, first };
        self.paths.insert(name, path);
        self.sources.insert(real, name);
        Some(name)
    }

    /// A link or dial does not use the virtual address any more.
    pub fn release(&mut self, now: Tick, name: SocketAddr) {
        if let Some(path) = self.paths.get_mut(&plain(name))
            && path.users > 0
        {
            path.users -= 1;
            path.free_since = now;
        }
        self.expire(now);
    }

    /// Where packets to a virtual address go.
    #[must_use]
    pub fn active(&self, name: SocketAddr) -> Option<SocketAddr> {
        Some(self.paths.get(&plain(name))?.active)
    }

    /// Where a packet to a virtual address goes. It is kept until the next one.
    pub fn outgoing(&mut self, name: SocketAddr, packet: &[u8]) -> Option<SocketAddr> {
        let path = self.paths.get_mut(&plain(name))?;
        path.latest.clear();
        path.latest.extend_from_slice(packet);
        Some(path.active)
    }

    /// Whether so many datagrams to a virtual address are of a dial's first flight, and so to be sent twice: the copies give
    /// the other end, which may answer with three times as many bytes as it got, room for its hello behind its
    /// handshake, and one of two that are lost costs no timeout. In a stream nothing is lost.
    pub fn goes_twice(&mut self, name: SocketAddr, datagrams: usize) -> bool {
        let Some(path) = self.paths.get_mut(&plain(name)) else { return false };
        let twice = path.first > 0 && !is_streamed(path.active);
        path.first = path.first.saturating_sub(datagrams.try_into().unwrap_or(u8::MAX));
        twice
    }

    /// The packet that last went to a virtual address. When its path was dead it arrives nowhere, and QUIC, whose
    /// window is full and whose timers have backed off by then, may send nothing for seconds: the same packet over
    /// another path makes the peer acknowledge what that path can carry again.
    #[must_use]
    pub fn latest(&self, name: SocketAddr) -> Option<&[u8]> {
        let latest = &self.paths.get(&plain(name))?.latest;
        (!latest.is_empty()).then_some(latest)
    }

    /// The virtual address that a packet from a real one belongs to, if it was dialled.
    pub fn incoming(&mut self, now: Tick, from: SocketAddr) -> Option<SocketAddr> {
        let from = plain(from);
        let name = *self.sources.get(&from)?;
        let sources = &mut self.paths.get_mut(&name)?.sources;
        if let Some(source) = sources.iter_mut().find(|source| source.address == from) {
            source.seen = now;
        }
        Some(name)
    }

    /// Takes packets from a further real address, of which a probe has shown that the peer is there.
    /// False when the address is another peer's, or the virtual one is not known.
    pub fn add(&mut self, now: Tick, name: SocketAddr, real: SocketAddr) -> bool {
        let (name, real) = (plain(name), plain(real));
        self.expire(now);
        if !self.paths.contains_key(&name) || (is_virtual(real) && !is_detour(real)) {
            return false;
        }
        if let Some(owner) = self.sources.get(&real).copied()
            && owner != name
        {
            match self.paths.get(&owner) {
                Some(path) if path.active == real && path.users > 0 => return false,
                // Only the end of a dial that came to nothing was still to be told there.
                Some(path) if path.active == real => self.remove(owner),
                _ => self.forget_source(owner, real),
            }
        }
        let Some(path) = self.paths.get_mut(&name) else { return false };
        if let Some(source) = path.sources.iter_mut().find(|source| source.address == real) {
            source.seen = now;
            return true;
        }
        path.sources.push(Source { address: real, seen: now });
        self.sources.insert(real, name);
        if path.sources.len() > MAX_SOURCES {
            let active = path.active;
            let others = path.sources.iter().filter(|s| s.address != active && s.address != real);
            let oldest = others.min_by_key(|source| source.seen).map(|source| source.address);
            oldest.into_iter().for_each(|oldest| self.forget_source(name, oldest));
        }
        true
    }

    /// Sends packets for a virtual address to another of its real ones. False when it is none of them.
    pub fn activate(&mut self, name: SocketAddr, real: SocketAddr) -> bool {
        let Some(path) = self.paths.get_mut(&plain(name)) else { return false };
        let known = path.sources.iter().any(|source| source.address == plain(real));
        if known {
            path.active = plain(real);
        }
        known
    }

    /// How many virtual addresses there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    fn free_name(&mut self) -> SocketAddr {
        loop {
            self.next = (self.next + 1) % (STREAMED - CLASS_E);
            let name = SocketAddr::from((Ipv4Addr::from(CLASS_E | self.next), PORT));
            if !self.paths.contains_key(&name) {
                return name;
            }
        }
    }

    fn expire(&mut self, now: Tick) {
        let over: Vec<SocketAddr> = self
            .paths
            .iter()
            .filter(|(_, path)| path.users == 0 && now.since(path.free_since) >= LINGER)
            .map(|(name, _)| *name)
            .collect();
        over.into_iter().for_each(|name| self.remove(name));
        for path in self.paths.values_mut() {
            let active = path.active;
            path.sources.retain(|source| {
                let kept = source.address == active || now.since(source.seen) < SOURCE_LIFETIME;
                if !kept {
                    self.sources.remove(&source.address);
                }
                kept
            });
        }
    }

    fn forget_source(&mut self, name: SocketAddr, real: SocketAddr) {
        if let Some(path) = self.paths.get_mut(&name) {
            path.sources.retain(|source| source.address != real);
        }
        self.sources.remove(&real);
    }

    fn remove(&mut self, name: SocketAddr) {
        for source in self.paths.remove(&name).into_iter().flat_map(|path| path.sources) {
            self.sources.remove(&source.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn real(n: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 1000 + n))
    }

    fn at(secs: u64) -> Tick {
        Tick::from_millis(secs * 1000)
    }

    #[test]
    fn a_dial_is_remapped_both_ways() {
        let mut table = PathTable::new();
        let name = table.dial(at(0), real(1)).expect("room");
        assert!(is_virtual(name) && x0x_core::dialable(name).is_none());
        assert_eq!(table.active(name), Some(real(1)));
        assert_eq!(table.incoming(at(0), real(1)), Some(name));
        let mapped = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().into(), 1001);
        assert_eq!(
            table.incoming(at(0), mapped),
            Some(name),
            "as a socket of both families says it"
        );
        assert_eq!(table.incoming(at(0), real(2)), None, "not shown to be the peer's");
        assert!(!table.activate(name, real(2)));

        assert!(table.add(at(1), name, real(2)) && table.activate(name, real(2)));
        assert_eq!(table.active(name), Some(real(2)));
        assert_eq!(table.incoming(at(2), real(1)), Some(name), "packets on their way still count");
        table.add(at(62), name, real(3));
        assert_eq!(table.incoming(at(62), real(1)), None, "silent for a minute");
        assert_eq!(table.incoming(at(62), real(2)), Some(name), "the active one stays");
    }

    #[test]
    fn each_kind_of_virtual_address_has_a_block_of_its_own() {
        let [stream, way] = [streamed_address(u16::MAX, u32::MAX), relayed_address(u64::MAX, 0)];
        assert!(is_streamed(stream) && !is_relayed(stream) && is_detour(stream));
        assert!(is_relayed(way) && !is_streamed(way) && is_detour(way));
        let mut table = PathTable { next: STREAMED - CLASS_E - 2, ..PathTable::new() };
        for n in 0..4 {
            let name = table.dial(at(0), real(n)).expect("room");
            assert!(is_virtual(name) && !is_detour(name), "{name}");
        }
        assert_eq!(streamed_address(1, 70_000).ip().to_string(), "247.0.1.1");
        assert_ne!(streamed_address(1, 0).port(), 0);
    }

    #[test]
    fn dials_to_one_machine_share_and_linger() {
        let mut table = PathTable::new();
        let name = table.dial(at(0), real(1)).expect("room");
        assert_eq!(table.dial(at(0), real(1)), Some(name));
        table.release(at(1), name);
        table.release(at(2), name);
        assert_eq!(table.active(name), Some(real(1)), "the end is still to be told");
        table.release(at(12), name);
        assert_eq!((table.active(name), table.incoming(at(12), real(1))), (None, None));
    }

    #[test]
    fn who_moved_on_gives_an_address_up_and_whoever_is_there_keeps_it() {
        let mut table = PathTable::new();
        let moved = table.dial(at(0), real(1)).expect("room");
        assert!(table.add(at(0), moved, real(2)) && table.activate(moved, real(2)));
        let newcomer = table.dial(at(1), real(1)).expect("room");
        assert_ne!(moved, newcomer);
        assert_eq!(table.incoming(at(1), real(1)), Some(newcomer));
        assert!(!table.add(at(1), moved, real(1)), "the newcomer is there");
        assert!(!table.add(at(1), moved, moved));
        table.release(at(1), newcomer);
        assert!(table.add(at(1), moved, real(1)) && table.activate(moved, real(1)), "nobody else");
        assert_eq!((table.active(newcomer), table.active(moved)), (None, Some(real(1))));
    }

    #[test]
    fn sources_and_paths_are_bounded() {
        let mut table = PathTable::new();
        let name = table.dial(at(0), real(0)).expect("room");
        for n in 1..200 {
            assert!(table.add(Tick::from_millis(u64::from(n)), name, real(n)));
        }
        let known = (0..200).filter(|n| table.incoming(at(1), real(*n)).is_some()).count();
        assert_eq!(known, MAX_SOURCES);
        assert!(
            table.incoming(at(1), real(0)).is_some() && table.incoming(at(1), real(199)).is_some()
        );

        let more = |n: u16| SocketAddr::from(([198, 51, 100, 1], n));
        for n in 1..MAX_PATHS as u16 {
            assert!(table.dial(at(1), more(n)).is_some());
        }
        assert_eq!(table.dial(at(1), more(5000)), None, "all in use");
        table.release(at(1), name);
        assert!(table.dial(at(1), more(5000)).is_some(), "one that is over gives way");
        assert_eq!(table.len(), MAX_PATHS);
    }

    proptest! {
        /// Whatever happens, each real address belongs to at most one virtual one, which knows it, and the
        /// active one is always among them.
        #[test]
        fn both_directions_agree(ops in prop::collection::vec((0..5_u8, 0..6_u16, 0..4_usize), 0..120)) {
            let (mut table, mut names, mut now) = (PathTable::new(), Vec::new(), 0);
            for (op, n, which) in ops {
                now += u64::from(n) * 3;
                let name = names.get(which % names.len().max(1)).copied();
                match (op, name) {
                    (0, _) => names.extend(table.dial(at(now), real(n))),
                    (1, Some(name)) => table.release(at(now), name),
                    (2, Some(name)) => {
                        table.add(at(now), name, real(n));
                    }
                    (3, Some(name)) => {
                        table.activate(name, real(n));
                    }
                    _ => {
                        table.incoming(at(now), real(n));
                    }
                }
                for (address, name) in &table.sources {
                    let path = &table.paths[name];
                    prop_assert!(path.sources.iter().any(|source| source.address == *address));
                }
                for (name, path) in &table.paths {
                    prop_assert!(path.sources.len() <= MAX_SOURCES);
                    prop_assert_eq!(table.sources.get(&path.active), Some(name));
                }
            }
        }
    }
}
