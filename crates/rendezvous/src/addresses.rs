//! Which addresses are worth telling and worth believing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use x0x_core::MAX_ADDRESSES;

/// The usable addresses in their order, without duplicates, at most [`MAX_ADDRESSES`]. Applied to
/// what is announced and to what is received alike.
///
/// Private addresses stay, since peers may share a network; who dials them authenticates the machine
/// anyway. IPv4 addresses inside IPv6 are unwrapped first, so that they are judged as what they are.
#[must_use]
pub fn usable_addresses(
    addresses: impl IntoIterator<Item = SocketAddr>,
    allow_loopback: bool,
) -> Vec<SocketAddr> {
    let mut usable = Vec::new();
    for address in addresses {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        if usable.len() < MAX_ADDRESSES
            && is_usable(address, allow_loopback)
            && !usable.contains(&address)
        {
            usable.push(address);
        }
    }
    usable
}

fn is_usable(address: SocketAddr, allow_loopback: bool) -> bool {
    let ip = address.ip();
    if address.port() == 0 || ip.is_unspecified() || ip.is_multicast() {
        return false;
    }
    if ip.is_loopback() {
        return allow_loopback;
    }
    match ip {
        IpAddr::V4(ip) => !is_reserved(ip),
        // Means nothing without the interface, which only the announcing machine knows.
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    }
}

/// "This network" (0.0.0.0/8) and the reserved block (240.0.0.0/4) with the broadcast address.
const fn is_reserved(ip: Ipv4Addr) -> bool {
    let [first, ..] = ip.octets();
    first == 0 || first >= 240
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
}
