//! The network that an address belongs to, as far as strangers are counted by it.

use std::net::IpAddr;

/// The addresses that share their first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Prefix {
    v6: bool,
    len: u8,
    bits: u128,
}

impl Prefix {
    /// IPv4 mapped into IPv6 counts as IPv4.
    fn new(ip: IpAddr, v4_len: u8, v6_len: u8) -> Self {
        let (v6, len, bits) = match ip.to_canonical() {
            IpAddr::V4(ip) => (false, v4_len, u128::from(u32::from(ip) >> (32 - v4_len))),
            IpAddr::V6(ip) => (true, v6_len, u128::from(ip) >> (128 - v6_len)),
        };
        Self { v6, len, bits }
    }

    /// What one customer usually holds: a /24 of IPv4, a /56 of IPv6.
    pub(crate) fn of(ip: IpAddr) -> Self {
        Self::new(ip, 24, 56)
    }

    /// What one customer may hold besides, where the provider is generous: a /48 of IPv6.
    pub(crate) fn site(ip: IpAddr) -> Option<Self> {
        ip.to_canonical().is_ipv6().then(|| Self::new(ip, 24, 48))
    }

    /// The address itself.
    pub(crate) fn host(ip: IpAddr) -> Self {
        Self::new(ip, 32, 128)
    }

    /// What one provider often holds, a /16 of IPv4 or a /32 of IPv6: machines of two of these are less
    /// likely to be in one hand.
    pub(crate) fn wide(ip: IpAddr) -> Self {
        Self::new(ip, 16, 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_told_apart_by_their_bits() {
        let of = |text: &str| Prefix::of(text.parse().expect("an address"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.255"));
        assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
        assert_eq!(of("2001:db8:0:aa00::1"), of("2001:db8:0:aaff::2"));
        assert_ne!(of("2001:db8:0:aa00::1"), of("2001:db8:0:ab00::1"));
        assert_ne!(of("0.0.1.1"), of("::"));
        let site = |text: &str| Prefix::site(text.parse().expect("an address"));
        assert_eq!(site("192.0.2.1"), None);
        assert_eq!(site("::ffff:192.0.2.1"), None);
        assert_eq!(site("2001:db8:0:aa00::1"), site("2001:db8:0:ab00::1"));
        assert_ne!(site("2001:db8:0:aa00::1"), site("2001:db8:1:aa00::1"));
        let host = |text: &str| Prefix::host(text.parse().expect("an address"));
        assert_eq!(host("10.0.0.1"), host("::ffff:10.0.0.1"));
        assert_ne!(host("10.0.0.1"), host("10.0.0.2"));
        assert_ne!(host("fd00::1"), host("fd00::2"));
        let wide = |text: &str| Prefix::wide(text.parse().expect("an address"));
        assert_eq!(wide("192.0.2.1"), wide("::ffff:192.0.99.1"));
        assert_ne!(wide("192.0.2.1"), wide("192.1.2.1"));
        assert_eq!(wide("2001:db8:1::1"), wide("2001:db8:ffff::1"));
        assert_ne!(wide("2001:db8::1"), wide("2001:db9::1"));
    }
}
