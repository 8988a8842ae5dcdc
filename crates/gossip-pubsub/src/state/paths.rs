//! Where sessions come from: what their peers may name, and how many strangers of one network get a
//! link.

use std::net::IpAddr;

use x0x_core::{MachineId, PeerAddr, Scope};

use crate::config::MAX_WAITING_LINKS;

use super::PubSubMachine;

/// A /24 of IPv4 or a /48 of IPv6 on the internet, where another address of the same network costs
/// little and one of another network much. Nearer than that, one network is all that there is.
fn network(ip: IpAddr) -> Option<(bool, u64)> {
    if Scope::of_path(ip) != Scope::Global {
        return None;
    }
    Some(match ip.to_canonical() {
        IpAddr::V4(ip) => (false, u64::from(u32::from(ip) >> 8)),
        IpAddr::V6(ip) => (true, u64::try_from(u128::from(ip) >> 80).unwrap_or(u64::MAX)),
    })
}

impl PubSubMachine {
    /// A session's packets come from this address.
    pub(super) fn path(&mut self, peer: MachineId, from: IpAddr) {
        if self.paths.len() < MAX_WAITING_LINKS || self.paths.contains_key(&peer) {
            self.paths.insert(peer, from);
        }
    }

    /// Strangers with a link whose packets come from the network of this one's.
    pub(super) fn network_strangers(&self, peer: &MachineId) -> usize {
        let network_of = |peer: &MachineId| self.paths.get(peer).copied().and_then(network);
        let Some(network) = network_of(peer) else { return 0 };
        let strangers = self.links.iter().filter(|(_, link)| !link.neighbor);
        strangers.filter(|(other, _)| network_of(other) == Some(network)).count()
    }

    /// What is left of these peers' addresses when somebody at the end of the path to `teller` names
    /// them, or is told them: nothing that is nearer than that path. Nothing but the internet's when
    /// the path is not known.
    pub(super) fn nameable(&self, teller: &MachineId, mut peers: Vec<PeerAddr>) -> Vec<PeerAddr> {
        let scope = self.paths.get(teller).map_or(Scope::Global, |ip| Scope::of_path(*ip));
        peers.iter_mut().for_each(|peer| peer.addresses.retain(|at| scope.may_name(*at)));
        peers.retain(|peer| !peer.addresses.is_empty());
        peers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_told_apart_on_the_internet_only() {
        let of = |text: &str| network(text.parse().expect("an address"));
        assert_eq!(of("198.51.100.1"), of("::ffff:198.51.100.255"));
        assert_ne!(of("198.51.100.1"), of("198.51.101.1"));
        assert_eq!(of("2001:db8:7:a::1"), of("2001:db8:7:b::2"));
        assert_ne!(of("2001:db8:7::1"), of("2001:db8:8::1"));
        for near in ["127.0.0.1", "10.1.2.3", "192.168.0.1", "::1", "fd00::1", "fe80::1"] {
            assert_eq!(of(near), None, "{near}");
        }
    }
}
