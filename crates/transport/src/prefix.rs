//! The network that an address belongs to, as far as strangers are counted by it.

use std::net::IpAddr;

/// What one customer usually holds: a /24 of IPv4, a /56 of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Prefix {
    v6: bool,
    bits: u64,
}

impl Prefix {
    /// The network of an address; IPv4 mapped into IPv6 counts as IPv4.
    pub(crate) fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self { v6: false, bits: u64::from(u32::from(ip) >> 8) },
            IpAddr::V6(ip) => Self { v6: true, bits: (u128::from(ip) >> 72) as u64 },
        }
    }

    /// What one provider often holds, a /16 of IPv4 or a /32 of IPv6: machines of two of these are less
    /// likely to be in one hand.
    pub(crate) fn wide(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self { v6: false, bits: u64::from(u32::from(ip) >> 16) },
            IpAddr::V6(ip) => Self { v6: true, bits: (u128::from(ip) >> 96) as u64 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_24_or_56_bits() {
        let of = |text: &str| Prefix::of(text.parse().expect("an address"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.255"));
        assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
        assert_eq!(of("2001:db8:0:aa00::1"), of("2001:db8:0:aaff::2"));
        assert_ne!(of("2001:db8:0:aa00::1"), of("2001:db8:0:ab00::1"));
        assert_ne!(of("0.0.1.1"), of("::"));
        let wide = |text: &str| Prefix::wide(text.parse().expect("an address"));
        assert_eq!(wide("192.0.2.1"), wide("::ffff:192.0.99.1"));
        assert_ne!(wide("192.0.2.1"), wide("192.1.2.1"));
        assert_eq!(wide("2001:db8:1::1"), wide("2001:db8:ffff::1"));
        assert_ne!(wide("2001:db8::1"), wide("2001:db9::1"));
    }
}
