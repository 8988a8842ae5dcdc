//! Which addresses of an offer packets may be sent to.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use x0x_core::{MAX_ADDRESSES, Scope, Tick, dialable, may_name};

use super::Place;
use crate::prefix::Prefix;

/// Most addresses of which it is remembered when packets were last sent there.
pub const MAX_VICTIMS: usize = 1024;
/// How long an address is left alone after that, whoever names it.
pub const VICTIM_REST: Duration = Duration::from_secs(10);
/// Ports below belong to services that no peer is.
const FIRST_PORT: u16 = 1024;

/// Whether a peer may listen at a port that only its own word vouches for.
pub(crate) const fn may_listen(address: SocketAddr) -> bool {
    address.port() >= FIRST_PORT
}

fn is_site(address: &SocketAddr) -> bool {
    Scope::of(address.ip()) == Some(Scope::Site)
}

/// Which of its addresses a machine shows to whom an offer came from, by way of `via`: those of its own site only to
/// who appears behind the same translator, or who may name such addresses anyway.
pub(super) fn shown(via: &Place, offered: &[SocketAddr], own: &[SocketAddr]) -> Vec<SocketAddr> {
    let together = together(offered, via.observed);
    let may =
        |address: &SocketAddr| may_name(via.address, *address) || (together && is_site(address));
    own.iter().copied().filter(may).collect()
}

/// Whether the other end, seen where its offer says first, is behind the same translator as this machine.
fn together(offered: &[SocketAddr], observed: Option<SocketAddr>) -> bool {
    match (offered.first(), observed) {
        (Some(theirs), Some(ours)) => theirs.ip().to_canonical() == ours.ip().to_canonical(),
        _ => false,
    }
}

/// What a machine that passes an offer on makes of its addresses: where it sees the sender itself comes first,
/// and what the sender may not name is left out, but for addresses of its site to a peer that is seen at the same
/// address. Gives how many were left out.
pub(super) fn stamped(
    from: &Place,
    to: Option<&Place>,
    offered: &[SocketAddr],
) -> (Vec<SocketAddr>, usize) {
    let host = |place: &Place| place.address.ip().to_canonical();
    let neighbours = to.is_some_and(|to| host(to) == host(from));
    let mut all = vec![from.address];
    let mut refused = 0;
    for address in offered {
        if !may_name(from.address, *address) {
            let site = is_site(address) && dialable(*address).is_some();
            if !(site && neighbours) {
                refused += 1;
                continue;
            }
        }
        if all.len() < MAX_ADDRESSES && !all.contains(address) {
            all.push(*address);
        }
    }
    (all, refused)
}

/// The addresses of an offer that this machine may send to: those that the machine between may name, and
/// those on this machine's own network, if the other end appears behind the same translator.
pub(super) fn usable(via: &Place, offered: &[SocketAddr], own: &[SocketAddr]) -> Vec<SocketAddr> {
    let together = together(offered, via.observed);
    let near = |address: SocketAddr| {
        let network = Prefix::of(address.ip());
        together
            && is_site(&address)
            && own.iter().any(|own| is_site(own) && Prefix::of(own.ip()) == network)
    };
    let mut usable = Vec::new();
    for address in offered.iter().take(MAX_ADDRESSES).filter_map(|address| dialable(*address)) {
        let may = may_name(via.address, address) || near(address);
        let known = usable.contains(&address) || own.contains(&address);
        if may && !known && may_listen(address) {
            usable.push(address);
        }
    }
    usable
}

/// Where packets were sent on somebody's word a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Victims(BTreeMap<SocketAddr, Tick>);

impl Victims {
    /// Leaves out the addresses that have to rest, but for the first `sure` ones, and notes the others. Gives
    /// how many were left out. When too many rest, all others do.
    pub(crate) fn spare(
        &mut self,
        now: Tick,
        addresses: Vec<SocketAddr>,
        sure: usize,
    ) -> (Vec<SocketAddr>, usize) {
        self.0.retain(|_, sent| now.since(*sent) < VICTIM_REST);
        let (mut spared, given) = (Vec::new(), addresses.len());
        for (n, address) in addresses.into_iter().enumerate() {
            if n < sure {
                spared.push(address);
            } else if !self.0.contains_key(&address) && self.0.len() < MAX_VICTIMS {
                self.0.insert(address, now);
                spared.push(address);
            }
        }
        let left_out = given - spared.len();
        (spared, left_out)
    }
}

#[cfg(test)]
mod tests {
    use x0x_core::MachineId;

    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn via(address: &str, observed: &str) -> Place {
        Place::new(MachineId::new([1; 32]), at(address), Some(at(observed)), Duration::ZERO)
    }

    #[test]
    fn nobody_is_sent_into_this_machines_networks() {
        let via = via("198.51.100.1:5483", "203.0.113.1:4000");
        let own = [at("192.168.1.5:5483")];
        let bad = [
            "127.0.0.1:5483",
            "[::1]:5483",
            "10.0.0.1:5483",
            "192.168.1.9:5483",
            "100.64.0.1:5483",
            "169.254.169.254:8080",
            "100.100.100.200:8080",
            "224.0.0.1:5483",
            "0.0.0.0:5483",
            "255.255.255.255:5483",
            "240.0.0.1:5483",
            "[::ffff:127.0.0.1]:5483",
            "[fe80::1]:5483",
            "[fd00::1]:5483",
            "198.51.100.7:53",
            "198.51.100.7:0",
            "[ff02::1]:5483",
        ];
        for bad in bad {
            let offered = [at("192.0.2.1:4000"), at(bad)];
            assert_eq!(usable(&via, &offered, &own), [at("192.0.2.1:4000")], "{bad}");
        }
        // Behind one translator, and on one network: then the near address is the one that works.
        let offered = [at("203.0.113.1:9999"), at("192.168.1.9:5483"), at("192.168.2.9:5483")];
        assert_eq!(usable(&via, &offered, &own), &offered[..2]);
        let offered = [at("203.0.113.2:9999"), at("192.168.1.9:5483")];
        assert_eq!(usable(&via, &offered, &own), &offered[..1], "behind another translator");
    }

    #[test]
    fn the_place_that_is_seen_comes_first() {
        let from = via("203.0.113.1:4000", "198.51.100.1:5483");
        let offered = ["203.0.113.1:4000", "127.0.0.1:1", "10.0.0.1:5483", "192.0.2.1:9"].map(at);
        let neighbour = via("203.0.113.1:999", "198.51.100.1:5483");
        let (all, refused) = stamped(&from, Some(&neighbour), &offered);
        assert_eq!(all, [from.address, at("10.0.0.1:5483"), at("192.0.2.1:9")]);
        assert_eq!(refused, 1);
        let stranger = via("203.0.113.2:999", "198.51.100.1:5483");
        for to in [Some(&stranger), None] {
            let (all, refused) = stamped(&from, to, &offered);
            assert_eq!((all, refused), (vec![from.address, at("192.0.2.1:9")], 2));
        }
    }

    #[test]
    fn strangers_are_not_shown_this_machines_networks() {
        let via = via("198.51.100.1:5483", "203.0.113.1:4000");
        let own = ["203.0.113.1:4000", "192.168.1.5:5483", "[fe80::5]:5483"].map(at);
        let neighbour = [at("203.0.113.1:9999")];
        assert_eq!(shown(&via, &neighbour, &own), &own[..2]);
        assert_eq!(shown(&via, &[at("203.0.113.2:9999")], &own), &own[..1]);
        assert_eq!(shown(&via, &[], &own), &own[..1]);
        let near = Place::new(MachineId::new([1; 32]), at("192.168.1.1:1"), None, Duration::ZERO);
        assert_eq!(shown(&near, &[at("192.168.1.9:1")], &own), &own[..2]);
    }

    #[test]
    fn an_address_rests_whoever_names_it() {
        let mut victims = Victims::default();
        let (first, other) = (at("192.0.2.1:4000"), at("192.0.2.2:4000"));
        let secs = |secs: u64| Tick::from_millis(secs * 1000);
        assert_eq!(victims.spare(secs(0), vec![first], 0), (vec![first], 0));
        assert_eq!(victims.spare(secs(9), vec![first, other], 0), (vec![other], 1));
        assert_eq!(victims.spare(secs(9), vec![first], 1), (vec![first], 0));
        assert_eq!(victims.spare(secs(10), vec![first], 0), (vec![first], 0));
        let many = (0..10_000_u32).map(|n| SocketAddr::from((n.to_be_bytes(), 5483))).collect();
        assert!(victims.spare(secs(11), many, 0).0.len() < MAX_VICTIMS);
        assert_eq!(victims.0.len(), MAX_VICTIMS);
    }
}
