//! The network that a public address belongs to: one operator has many addresses of one network for
//! little, of many networks only for much.

use std::net::IpAddr;

use x0x_core::Scope;

use crate::peer::Peer;

/// A /24 of IPv4 or a /48 of IPv6 on the internet. Loopback, the link and the site are none: there,
/// one network is all that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Network {
    v6: bool,
    bits: u64,
}

impl Network {
    /// The network of an address; IPv4 mapped into IPv6 counts as IPv4.
    pub(crate) fn of(ip: IpAddr) -> Option<Self> {
        if Scope::of_path(ip) != Scope::Global {
            return None;
        }
        Some(match ip.to_canonical() {
            IpAddr::V4(ip) => Self { v6: false, bits: u64::from(u32::from(ip) >> 8) },
            IpAddr::V6(ip) => Self { v6: true, bits: (u128::from(ip) >> 80) as u64 },
        })
    }

    /// That of a peer's first address.
    pub(crate) fn of_peer(peer: &Peer) -> Option<Self> {
        peer.addresses().first().and_then(|address| Self::of(address.ip()))
    }

    /// A number for it, different for IPv4 and IPv6.
    pub(crate) const fn number(self) -> u64 {
        self.bits << 1 | self.v6 as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_24_or_48_bits_on_the_internet() {
        let of = |text: &str| Network::of(text.parse().expect("an address"));
        assert!(of("198.51.100.1").is_some());
        assert_eq!(of("198.51.100.1"), of("::ffff:198.51.100.255"));
        assert_ne!(of("198.51.100.1"), of("198.51.101.1"));
        assert_eq!(of("2001:db8:7:aa00::1"), of("2001:db8:7:bb00::2"));
        assert_ne!(of("2001:db8:7::1"), of("2001:db8:8::1"));
        for near in ["127.0.0.1", "10.1.2.3", "192.168.0.1", "::1", "fd00::1", "fe80::1"] {
            assert_eq!(of(near), None, "{near}");
        }
        assert_ne!(of("0:0:1::").map(Network::number), of("0.0.1.0").map(Network::number));
    }
}
