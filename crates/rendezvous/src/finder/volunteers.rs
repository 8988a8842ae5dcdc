//! Machines that may hold records, as far as this node knows.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use x0x_core::{MachineId, PeerAddr, Scope, SeededRng, Tick};

use crate::{
    addresses::usable_addresses,
    config::MAX_VOLUNTEERS,
    frame::{MAX_REFERRED, Referral},
    key::LookupKey,
};

/// How long a machine that could not be reached is not tried.
const UNREACHABLE: Duration = Duration::from_secs(120);
/// How long a machine that told lies is not asked.
const LIAR: Duration = Duration::from_secs(3600);
/// Addresses kept of a machine.
const MAX_KEPT: usize = 4;

#[derive(Debug, Default)]
struct Volunteer {
    addresses: Vec<SocketAddr>,
    shunned_until: Option<Tick>,
}

impl Volunteer {
    fn is_shunned(&self, now: Tick) -> bool {
        self.shunned_until.is_some_and(|until| now < until)
    }
}

/// See [`MAX_VOLUNTEERS`].
#[derive(Debug, Default)]
pub(super) struct Volunteers(BTreeMap<MachineId, Volunteer>);

/// Where a machine is, as wide as one owner's network may be.
pub(super) type Site = [u8; 4];

impl Volunteers {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// A session with the machine began.
    pub(super) fn met(
        &mut self,
        peer: MachineId,
        address: &PeerAddr,
        path: Scope,
        loopback: bool,
        rng: &mut SeededRng,
    ) {
        let named = address.addresses.iter().copied().filter(|addr| path.may_name(*addr));
        let addresses: Vec<SocketAddr> = usable_addresses(named, loopback);
        let entry = self.entry(peer, rng);
        entry.shunned_until = None;
        if !addresses.is_empty() {
            entry.addresses = addresses;
            entry.addresses.truncate(MAX_KEPT);
        }
    }

    /// Somebody tells of a machine: what is known of it stays.
    pub(super) fn told(
        &mut self,
        peer: MachineId,
        addresses: &[SocketAddr],
        loopback: bool,
        rng: &mut SeededRng,
    ) {
        let addresses = usable_addresses(addresses.iter().copied(), loopback);
        if addresses.is_empty() {
            return;
        }
        let entry = self.entry(peer, rng);
        for address in addresses {
            if entry.addresses.len() < MAX_KEPT && !entry.addresses.contains(&address) {
                entry.addresses.push(address);
            }
        }
    }

    fn entry(&mut self, peer: MachineId, rng: &mut SeededRng) -> &mut Volunteer {
        if self.0.len() >= MAX_VOLUNTEERS && !self.0.contains_key(&peer) {
            let failed = self.0.iter().find(|(_, known)| known.shunned_until.is_some());
            let any = || self.0.keys().nth(rng.below(MAX_VOLUNTEERS)).copied();
            if let Some(gone) = failed.map(|(peer, _)| *peer).or_else(any) {
                self.0.remove(&gone);
            }
        }
        self.0.entry(peer).or_default()
    }

    pub(super) fn failed(&mut self, now: Tick, peer: MachineId) {
        if let Some(known) = self.0.get_mut(&peer) {
            known.shunned_until = Some(now + UNREACHABLE);
        }
    }

    pub(super) fn lied(&mut self, now: Tick, peer: MachineId) {
        self.0.entry(peer).or_default().shunned_until = Some(now + LIAR);
    }

    pub(super) fn is_shunned(&self, now: Tick, peer: &MachineId) -> bool {
        self.0.get(peer).is_some_and(|known| known.is_shunned(now))
    }

    pub(super) fn address(&self, peer: &MachineId) -> Option<PeerAddr> {
        let known = self.0.get(peer).filter(|known| !known.addresses.is_empty())?;
        Some(PeerAddr::known(*peer, known.addresses.iter().copied()))
    }

    /// The machine's network, when it is a public one: /16 of IPv4, /32 of IPv6.
    pub(super) fn site(&self, peer: &MachineId) -> Option<Site> {
        let ip = self.0.get(peer)?.addresses.first()?.ip().to_canonical();
        if Scope::of(ip) != Some(Scope::Global) {
            return None;
        }
        Some(match ip {
            IpAddr::V4(ip) => [ip.octets()[0], ip.octets()[1], 0, 0],
            IpAddr::V6(ip) => ip.octets().first_chunk().copied().unwrap_or_default(),
        })
    }

    /// Those that suit a key best, best first.
    pub(super) fn best(&self, now: Tick, key: &LookupKey, count: usize) -> Vec<(u64, MachineId)> {
        let ranker = key.ranker();
        let rank = |peer| ranker.rank(peer);
        let willing = self.0.iter().filter(|(_, known)| !known.is_shunned(now));
        let mut ranked: Vec<_> = willing.map(|(peer, _)| (rank(peer), *peer)).collect();
        if ranked.len() > count {
            ranked.select_nth_unstable_by_key(count, |(rank, _)| Reverse(*rank));
            ranked.truncate(count);
        }
        ranked.sort_unstable_by_key(|(rank, _)| Reverse(*rank));
        ranked
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
        let best = self.best(now, key, count + 1).into_iter().filter(|(_, peer)| *peer != asker);
        let referral = |(_, machine): (u64, MachineId)| {
            let known = self.0.get(&machine)?;
            let named = known.addresses.iter().copied().filter(|address| path.may_name(*address));
            let addresses: Vec<SocketAddr> = named.take(MAX_REFERRED).collect();
            (!addresses.is_empty()).then_some(Referral { machine, addresses })
        };
        best.filter_map(referral).take(count).collect()
    }
}
