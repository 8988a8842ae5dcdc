//! Machines that may hold records, as far as this node knows.
//!
//! They are counted by how many bits their ids share with the local one. When all places are taken, the
//! largest such bucket gives one up: few far machines, and among those that are near, of which there are
//! few anyway, all. So everybody knows its surroundings well enough to name whoever is nearer to a key
//! there, and something of everywhere else (Kademlia §2.4, with buckets that share their room).

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use x0x_core::{MachineId, PeerAddr, Scope, SeededRng, Tick};

use crate::{
    addresses::usable_addresses,
    config::MAX_VOLUNTEERS,
    frame::{MAX_REFERRED, Referral},
    key::{Distance, LookupKey},
};

/// How long a machine that could not be reached is not tried.
const UNREACHABLE: Duration = Duration::from_secs(120);
/// How long a machine that was met keeps its place against those of hearsay.
const FRESH: Duration = Duration::from_secs(15 * 60);
/// Addresses kept of a machine.
pub(super) const MAX_KEPT: usize = 4;
/// Machines of one public network in a bucket: its owner can have any number of ids. A bucket with room
/// takes no more of them either, lest they be all that a search finds there.
const MAX_PER_SITE: usize = 8;
/// Numbers of shared bits: none to all.
const BUCKETS: usize = 257;

#[derive(Debug, Default)]
struct Volunteer {
    addresses: Vec<SocketAddr>,
    shunned_until: Option<Tick>,
    /// When there was a session with it; none when it is hearsay.
    met: Option<Tick>,
    /// Where its packets came from, or where it is said to be: what it says of itself may be invented.
    site: Option<Site>,
}

impl Volunteer {
    fn is_shunned(&self, now: Tick) -> bool {
        self.shunned_until.is_some_and(|until| now < until)
    }

    fn is_fresh(&self, now: Tick) -> bool {
        !self.is_shunned(now) && self.met.is_some_and(|met| now.since(met) < FRESH)
    }
}

/// See [`MAX_VOLUNTEERS`].
#[derive(Debug)]
pub(super) struct Volunteers {
    local: MachineId,
    known: BTreeMap<MachineId, Volunteer>,
    /// How many are known that share so many bits with the local id.
    sizes: Vec<usize>,
}

/// Where a machine is, as wide as one owner's network may be.
pub(super) type Site = [u8; 4];

/// The network of an address, when it is a public one: /16 of IPv4, /32 of IPv6.
pub(super) fn site_of(address: SocketAddr) -> Option<Site> {
    let ip = address.ip().to_canonical();
    if Scope::of(ip) != Some(Scope::Global) {
        return None;
    }
    Some(match ip {
        IpAddr::V4(ip) => [ip.octets()[0], ip.octets()[1], 0, 0],
        IpAddr::V6(ip) => ip.octets().first_chunk().copied().unwrap_or_default(),
    })
}

impl Volunteers {
    pub(super) fn new(local: MachineId) -> Self {
        Self { local, known: BTreeMap::new(), sizes: vec![0; BUCKETS] }
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// A session with the machine began, whose packets come from `remote`.
    pub(super) fn met(
        &mut self,
        now: Tick,
        peer: MachineId,
        address: &PeerAddr,
        remote: SocketAddr,
        loopback: bool,
        rng: &mut SeededRng,
    ) {
        let (path, site) = (Scope::of_path(remote.ip()), site_of(remote));
        if self.site(&peer) != site {
            // It takes a place among those of its network, if any.
            self.remove(&peer);
        }
        let named = address.addresses.iter().copied().filter(|addr| path.may_name(*addr));
        let mut addresses: Vec<SocketAddr> = usable_addresses(named, loopback);
        addresses.truncate(MAX_KEPT);
        let Some(entry) = self.entry(now, peer, site, true, rng) else {
            return;
        };
        entry.shunned_until = None;
        entry.met = Some(now);
        if !addresses.is_empty() {
            entry.addresses = addresses;
        }
    }

    /// Somebody tells of a machine: what is known of it stays.
    pub(super) fn told(
        &mut self,
        now: Tick,
        peer: MachineId,
        addresses: &[SocketAddr],
        loopback: bool,
        rng: &mut SeededRng,
    ) {
        let addresses = usable_addresses(addresses.iter().copied(), loopback);
        if addresses.is_empty() {
            return;
        }
        let site = addresses.first().copied().and_then(site_of);
        let Some(entry) = self.entry(now, peer, site, false, rng) else {
            return;
        };
        for address in addresses {
            if entry.addresses.len() < MAX_KEPT && !entry.addresses.contains(&address) {
                entry.addresses.push(address);
            }
        }
    }

    fn bucket(&self, peer: &MachineId) -> usize {
        Distance::between(self.local.as_bytes(), peer.as_bytes()).shared_bits()
    }

    /// The machine's place; a new one only when there is room, or somebody who counts less.
    fn entry(
        &mut self,
        now: Tick,
        peer: MachineId,
        site: Option<Site>,
        met: bool,
        rng: &mut SeededRng,
    ) -> Option<&mut Volunteer> {
        if !self.known.contains_key(&peer) {
            let bucket = self.bucket(&peer);
            let crowded = site.and_then(|site| self.crowding(bucket, site));
            let victim = match crowded {
                Some(of_site) => Some(self.least(now, of_site, met, rng)?),
                None if self.known.len() >= MAX_VOLUNTEERS => {
                    let largest = (0..BUCKETS).max_by_key(|at| self.sizes[*at])?;
                    let of_bucket = self.members(largest).collect();
                    Some(self.least(now, of_bucket, met, rng)?)
                }
                None => None,
            };
            if let Some(victim) = victim {
                self.remove(&victim);
            }
            self.sizes[bucket] += 1;
        }
        Some(self.known.entry(peer).or_insert_with(|| Volunteer { site, ..Volunteer::default() }))
    }

    fn members(&self, bucket: usize) -> impl Iterator<Item = MachineId> {
        self.known.keys().copied().filter(move |peer| self.bucket(peer) == bucket)
    }

    /// Those of a network in a bucket, when there are too many for one more.
    fn crowding(&self, bucket: usize, site: Site) -> Option<Vec<MachineId>> {
        let there: Vec<MachineId> =
            self.members(bucket).filter(|peer| self.site(peer) == Some(site)).collect();
        (there.len() >= MAX_PER_SITE).then_some(there)
    }

    /// Who counts least of these: shunned, then hearsay, then met longest ago. Hearsay displaces nobody
    /// who was met not long ago, so that invented machines take no room from real ones.
    fn least(
        &self,
        now: Tick,
        mut of: Vec<MachineId>,
        for_met: bool,
        rng: &mut SeededRng,
    ) -> Option<MachineId> {
        rng.shuffle(&mut of);
        let known = |peer: &MachineId| self.known.get(peer);
        let order = |peer: &MachineId| known(peer).map(|it| (!it.is_shunned(now), it.met));
        let least = of.into_iter().min_by_key(order)?;
        (for_met || !known(&least)?.is_fresh(now)).then_some(least)
    }

    fn remove(&mut self, peer: &MachineId) {
        if self.known.remove(peer).is_some() {
            let bucket = self.bucket(peer);
            self.sizes[bucket] -= 1;
        }
    }

    pub(super) fn failed(&mut self, now: Tick, peer: MachineId) {
        if let Some(known) = self.known.get_mut(&peer) {
            known.shunned_until = Some(now + UNREACHABLE);
        }
    }

    pub(super) fn is_shunned(&self, now: Tick, peer: &MachineId) -> bool {
        self.known.get(peer).is_some_and(|known| known.is_shunned(now))
    }

    /// Where the machine may be; nothing when it is not known.
    pub(super) fn addresses(&self, peer: &MachineId) -> &[SocketAddr] {
        self.known.get(peer).map_or(&[], |known| &known.addresses)
    }

    fn site(&self, peer: &MachineId) -> Option<Site> {
        self.known.get(peer)?.site
    }

    /// The nearest to a key, nearest first.
    pub(super) fn best(&self, now: Tick, key: &LookupKey, count: usize) -> Vec<MachineId> {
        let willing = self.known.iter().filter(|(_, known)| !known.is_shunned(now));
        let mut near: Vec<_> = willing.map(|(peer, _)| (key.distance(peer), *peer)).collect();
        if near.len() > count {
            near.select_nth_unstable(count);
            near.truncate(count);
        }
        near.sort_unstable();
        near.into_iter().map(|(_, peer)| peer).collect()
    }

    /// What is told to who asks for a key: only addresses that reach as far as the asker is.
    pub(super) fn referrals(
        &self,
        now: Tick,
        key: &LookupKey,
        asker: MachineId,
        path: Scope,
        count: usize,
    ) -> Vec<Referral> {
        let best = self.best(now, key, count + 1).into_iter().filter(|peer| *peer != asker);
        let referral = |machine: MachineId| {
            let known = self.known.get(&machine)?;
            let named = known.addresses.iter().copied().filter(|address| path.may_name(*address));
            let addresses: Vec<SocketAddr> = named.take(MAX_REFERRED).collect();
            (!addresses.is_empty()).then_some(Referral { machine, addresses })
        };
        best.filter_map(referral).take(count).collect()
    }
}

#[cfg(test)]
mod tests;
