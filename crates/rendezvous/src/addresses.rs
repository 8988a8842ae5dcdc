//! Which addresses are worth telling and worth believing.
//!
//! Gossip carries an announcement from its author to everybody, so that the path between the two is not
//! known, as it is for what a session's peer says. What remains of the common policy
//! ([`x0x_core::Scope`]) is where the reader stands: an address within a site means something only to
//! those who are in it.

use std::net::{IpAddr, SocketAddr};
#[cfg(feature = "tokio")]
use std::time::Duration;

#[cfg(feature = "tokio")]
use x0x_core::Tick;
use x0x_core::{MAX_ADDRESSES, Scope, dialable};

/// The usable addresses in their order, without duplicates, at most [`MAX_ADDRESSES`]: those that a
/// machine may have ([`dialable`]), but no IPv6 link-local ones, whose interface does not travel, and
/// loopback ones only by choice. Applied to what is told and to what is received alike.
#[must_use]
pub fn usable_addresses(
    addresses: impl IntoIterator<Item = SocketAddr>,
    allow_loopback: bool,
) -> Vec<SocketAddr> {
    let mut usable = Vec::new();
    for address in addresses.into_iter().filter_map(dialable) {
        let address = SocketAddr::new(address.ip(), address.port());
        let travels = match address.ip() {
            ip if ip.is_loopback() => allow_loopback,
            IpAddr::V4(_) => true,
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        };
        if travels && usable.len() < MAX_ADDRESSES && !usable.contains(&address) {
            usable.push(address);
        }
    }
    usable
}

/// The usable addresses that an announcement carries: everybody reads it, so that those of global scope
/// are told alone when there are any. Without one the others are all that there is, and those who share
/// the site may use them; with `allow_loopback` all are told, since the node shares its machine with others.
#[must_use]
pub fn announced_addresses(
    addresses: impl IntoIterator<Item = SocketAddr>,
    allow_loopback: bool,
) -> Vec<SocketAddr> {
    let all: Vec<SocketAddr> = addresses.into_iter().collect();
    if !allow_loopback {
        let is_global =
            |address: &SocketAddr| Scope::of(address.ip().to_canonical()) == Some(Scope::Global);
        // Before the count is cut: private ones must not crowd out those that everybody can use.
        let global = usable_addresses(all.iter().copied().filter(is_global), false);
        if !global.is_empty() {
            return global;
        }
    }
    usable_addresses(all, allow_loopback)
}

/// The usable addresses of a received announcement that may be those of its author: all of global
/// scope, and those of a site in which this machine seems to be too. That is the case when one of its
/// `local` addresses starts like them, by 16 bits of IPv4 or 48 of IPv6 (the size of a site, RFC 6177),
/// or when the node shares its machine with others (`allow_loopback`). So nobody far away makes this
/// machine probe the private networks around it, except for hosts that are as near as its neighbours.
#[must_use]
pub fn believable_addresses(
    addresses: impl IntoIterator<Item = SocketAddr>,
    allow_loopback: bool,
    local: &[SocketAddr],
) -> Vec<SocketAddr> {
    let near = |ip| allow_loopback || local.iter().any(|local| shares_site(local.ip(), ip));
    let believable = |address: &SocketAddr| {
        let ip = address.ip().to_canonical();
        Scope::of(ip).is_some_and(|scope| scope >= Scope::Global || near(ip))
    };
    usable_addresses(addresses.into_iter().filter(believable), allow_loopback)
}

fn shares_site(local: IpAddr, ip: IpAddr) -> bool {
    match (local.to_canonical(), ip) {
        (IpAddr::V4(local), IpAddr::V4(ip)) => local.octets()[..2] == ip.octets()[..2],
        (IpAddr::V6(local), IpAddr::V6(ip)) => local.segments()[..3] == ip.segments()[..3],
        _ => false,
    }
}

/// How often it is looked whether the own addresses changed. Others are told when they stayed the same for so
/// long.
#[cfg(feature = "tokio")]
const ADDRESS_INTERVAL: Duration = Duration::from_secs(3);

/// The own addresses: those that others were told, and those seen when they were looked at last.
#[cfg(feature = "tokio")]
#[derive(Debug, Default)]
pub(crate) struct OwnAddresses {
    told: Option<Vec<SocketAddr>>,
    seen: Vec<SocketAddr>,
    look_at: Tick,
}

#[cfg(feature = "tokio")]
impl OwnAddresses {
    /// When they are looked at next.
    pub(crate) const fn look_at(&self) -> Tick {
        self.look_at
    }

    /// Whether, when it is time to look, they are others than were told, and were so the last time too: a
    /// machine that changes its network has several for a moment.
    pub(crate) fn changed(&mut self, now: Tick, current: &dyn Fn() -> Vec<SocketAddr>) -> bool {
        if now < self.look_at {
            return false;
        }
        self.look_at = now + ADDRESS_INTERVAL;
        let mut current = current();
        current.sort_unstable();
        let settled = self.seen == current;
        self.seen = current;
        settled && self.told.as_ref().is_some_and(|told| *told != self.seen)
    }

    pub(crate) fn told(&mut self, addresses: &[SocketAddr]) {
        let mut addresses = addresses.to_vec();
        addresses.sort_unstable();
        self.told = Some(addresses);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn what_cannot_be_dialled_is_dropped() {
        for address in [
            "0.0.0.0:1",
            "[::]:1",
            "10.0.0.1:0",
            "224.0.0.1:1",
            "[ff02::1]:1",
            "255.255.255.255:1",
            "240.0.0.1:1",
            "0.1.2.3:1",
            "[fe80::1]:1",
            "[::ffff:0.0.0.0]:1",
            "[::ffff:127.0.0.1]:1",
            "127.0.0.1:1",
            "[::1]:1",
            "169.254.169.254:80",
        ] {
            assert_eq!(usable_addresses([parse(address)], false), [], "{address}");
        }
        for address in ["10.0.0.1:1", "203.0.113.5:65535", "[fd00::1]:9", "[2001:db8::1]:1"] {
            assert_eq!(usable_addresses([parse(address)], false), [parse(address)]);
        }
    }

    #[test]
    fn loopback_is_a_choice() {
        let loopback = [parse("127.0.0.1:7"), parse("[::1]:7")];
        assert_eq!(usable_addresses(loopback, true), loopback);
    }

    #[test]
    fn order_is_kept_and_the_count_is_bounded() {
        let many = (1..=20).flat_map(|port| [SocketAddr::from(([10, 0, 0, 1], port)); 2]);
        let usable = usable_addresses(many, false);
        assert_eq!(usable.len(), MAX_ADDRESSES);
        assert_eq!(usable[0].port(), 1);
        assert_eq!(usable[7].port(), 8);
        let mapped = usable_addresses([parse("[::ffff:10.0.0.1]:1"), parse("10.0.0.1:1")], false);
        assert_eq!(mapped, [parse("10.0.0.1:1")]);
    }

    #[test]
    fn an_announcement_tells_private_addresses_only_for_want_of_others() {
        let private = ["10.0.0.1:1", "192.168.1.1:1", "169.254.3.4:1", "[fd00::1]:1"].map(parse);
        let global = ["198.51.100.7:1", "[2001:db8::1]:1"].map(parse);
        let all = || private.into_iter().chain(global);
        assert_eq!(announced_addresses(all(), false), global);
        assert_eq!(announced_addresses(private, false), private);
        assert_eq!(announced_addresses(all(), true), all().collect::<Vec<_>>());
        assert_eq!(announced_addresses([parse("127.0.0.1:1")], false), []);
        let crowd = (1..=20).map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        assert_eq!(announced_addresses(crowd.chain(global), false), global);
        let mapped = [parse("[::ffff:10.0.0.1]:1"), parse("[::ffff:198.51.100.7]:1")];
        assert_eq!(announced_addresses(mapped, false), [global[0]]);
    }

    #[test]
    fn addresses_of_other_sites_are_not_believed() {
        let far = ["198.51.100.7:1", "[2001:db8::1]:1", "192.0.2.1:1"].map(parse);
        let near = [
            "10.1.2.3:1",
            "172.16.0.1:1",
            "192.168.1.1:1",
            "100.64.0.1:1",
            "169.254.3.4:1",
            "[fd00:1:2:9::1]:1",
        ]
        .map(parse);
        let all = || far.into_iter().chain(near);
        assert_eq!(believable_addresses(all(), false, &[]), far);
        assert_eq!(believable_addresses(near, true, &[]), near);
        for address in near {
            let mapped = match address.ip() {
                IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), 1),
                IpAddr::V6(_) => address,
            };
            assert_eq!(believable_addresses([mapped], false, &far), []);
            assert_eq!(believable_addresses(near, false, &[mapped]), [address]);
        }
        let local = ["10.1.255.255:1", "[fd00:1:2::]:1", "10.2.2.3:1"].map(parse);
        let kept = believable_addresses(all(), false, &local);
        assert_eq!(kept, [far.as_slice(), &[near[0], near[5]]].concat());
        let loopback = parse("127.0.0.1:1");
        assert_eq!(believable_addresses([loopback], false, &[loopback]), []);
    }
}
