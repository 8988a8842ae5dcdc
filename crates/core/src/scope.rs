//! How far an address reaches, and who may name it: the one policy for every address that another
//! machine tells of itself or of a third one.
//!
//! A machine must not make this one send packets to places that it has no business in. So a source
//! names only addresses that reach at least as far as the path to the source itself: one on the
//! internet cannot point into this machine's site, one on the same site can name both.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How far an address reaches, nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// This machine.
    Loopback,
    /// One link (RFC 3927, RFC 4291 §2.5.6).
    Link,
    /// Private and shared address space (RFC 1918, RFC 6598, RFC 4193, RFC 3879).
    Site,
    /// Everything else. The documentation ranges are among it: laboratories use them.
    Global,
}

impl Scope {
    /// The scope of a machine's address. `None` for what no machine has: unspecified, multicast,
    /// "this network" (0.0.0.0/8), the reserved class E (240.0.0.0/4) with the broadcast address.
    ///
    /// IPv4 inside IPv6 counts as what it is: mapped (`::ffff:0:0/96`) and translated
    /// (`64:ff9b::/96`, RFC 6052), and the ends of tunnels of 6to4 (`2002::/16`, RFC 3056) and Teredo
    /// (`2001::/32`, RFC 4380). The obsolete IPv4-compatible form is no address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Option<Self> {
        let ip = ip.to_canonical();
        if ip.is_unspecified() || ip.is_multicast() {
            return None;
        }
        if ip.is_loopback() {
            return Some(Self::Loopback);
        }
        match ip {
            IpAddr::V4(ip) => Self::of_v4(ip),
            IpAddr::V6(ip) => Self::of_v6(ip),
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Option<Self> {
        let [a, b, ..] = ip.octets();
        match (a, b) {
            (0 | 240.., _) => None,
            (169, 254) => Some(Self::Link),
            (100, 64..=127) => Some(Self::Site),
            _ if ip.is_private() => Some(Self::Site),
            _ => Some(Self::Global),
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Option<Self> {
        match ip.segments() {
            [0, 0, 0, 0, 0, 0, ..] => None,
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
                Self::of_inner(high, low)
            }
            // The client's address is written inverted.
            [0x2001, 0, .., high, low] => Self::of_inner(!high, !low),
            [0xfec0..=0xfeff, ..] => Some(Self::Site),
            _ if ip.is_unicast_link_local() => Some(Self::Link),
            _ if ip.is_unique_local() => Some(Self::Site),
            _ => Some(Self::Global),
        }
    }

    /// The scope of an IPv4 address in two segments of an IPv6 one.
    fn of_inner(high: u16, low: u16) -> Option<Self> {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Self::of(Ipv4Addr::new(a, b, c, d).into())
    }

    /// The scope of the path to a machine whose packets come from `ip`. Global, which allows least,
    /// for an address that tells nothing.
    #[must_use]
    pub fn of_path(ip: IpAddr) -> Self {
        Self::of(ip).unwrap_or(Self::Global)
    }

    /// Whether a source at the end of a path of this scope may name the address: a machine may have
    /// it ([`dialable`]), and it reaches as far as the path does.
    ///
    /// ```
    /// use x0x_core::Scope;
    ///
    /// assert!(Scope::Global.may_name("198.51.100.7:5483".parse()?));
    /// assert!(!Scope::Global.may_name("10.0.0.7:5483".parse()?));
    /// assert!(Scope::Site.may_name("10.0.0.7:5483".parse()?));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[must_use]
    pub fn may_name(self, address: SocketAddr) -> bool {
        dialable(address).and_then(|address| Self::of(address.ip())).is_some_and(|at| at >= self)
    }
}

/// Where the metadata services of cloud providers answer, which hand out credentials.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// The address in its plain form, IPv4 mapped into IPv6 unwrapped; `None` when nobody may name it:
/// port 0, an address without a [`Scope`], a cloud provider's metadata service.
#[must_use]
pub fn dialable(address: SocketAddr) -> Option<SocketAddr> {
    let ip = address.ip().to_canonical();
    let nobodys = address.port() == 0 || Scope::of(ip).is_none() || METADATA.contains(&ip);
    // An IPv6 address keeps its interface, without which a link-local one means nothing.
    let plain = if address.is_ipv6() && ip.is_ipv6() {
        address
    } else {
        SocketAddr::new(ip, address.port())
    };
    (!nobodys).then_some(plain)
}

/// Whether a machine whose packets come from `source` may name the address `claimed`, as its own or
/// as that of another: [`Scope::may_name`] for the path to it.
#[must_use]
pub fn may_name(source: SocketAddr, claimed: SocketAddr) -> bool {
    Scope::of_path(source.ip()).may_name(claimed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn may(claimed: &str, source: &str) -> bool {
        may_name(parse(source), parse(claimed))
    }

    #[test]
    fn a_source_names_nothing_nearer_than_itself() {
        let internet = "198.51.100.7:4000";
        for far in ["198.51.100.7:9000", "192.0.2.1:9000", "[2001:db8::1]:9000"] {
            assert!(may(far, internet), "{far}");
        }
        for nearer in
            ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.1.1"]
        {
            assert!(!may(&format!("{nearer}:9000"), internet), "{nearer}");
            assert!(!may(&format!("[::ffff:{nearer}]:9000"), internet), "mapped {nearer}");
            assert!(!may(&format!("[64:ff9b::{nearer}]:9000"), internet), "translated {nearer}");
            assert!(may(&format!("{nearer}:9000"), &format!("{nearer}:5")), "{nearer}");
        }
        // 10.0.0.1, 127.0.0.1 and 192.168.1.1 at the end of a tunnel; the last two inverted.
        for tunnel in
            ["[2002:a00:1::1]:9", "[2002:7f00:1::]:9", "[2001::80ff:fffe]:9", "[2001::3f57:fefe]:9"]
        {
            assert!(!may(tunnel, internet), "{tunnel}");
        }
        assert!(may("[2002:c633:6407::1]:9", internet) && may("[2001::39cc:9bf8]:9", internet));
        for nearer in ["[::1]:9", "[fe80::1]:9", "[fd00::1]:9", "[fec0::1]:9", "[::10.0.0.1]:9"] {
            assert!(!may(nearer, internet), "{nearer}");
        }
        assert!(may("[64:ff9b::198.51.100.7]:9", internet));
        assert!(may("10.0.0.2:9000", "192.168.0.9:1"));
        assert!(!may("127.0.0.1:9000", "192.168.0.9:1"));
        assert!(may("10.0.0.2:9000", "127.0.0.1:1"));
        assert!(!may("10.0.0.2:9000", "0.0.0.0:0"), "nothing is known of the path");
    }

    #[test]
    fn nobodys_addresses_are_refused_from_everywhere() {
        for nobody in [
            "0.0.0.0:9000",
            "0.1.2.3:9000",
            "255.255.255.255:9000",
            "240.0.0.1:9000",
            "224.0.0.251:5353",
            "169.254.169.254:80",
            "100.100.100.200:80",
            "[fd00:ec2::254]:80",
            "[::ffff:169.254.169.254]:80",
            "[::]:9000",
            "[::ffff:0.0.0.0]:9000",
            "[ff02::fb]:5353",
            "198.51.100.7:0",
        ] {
            assert!(!may(nobody, "127.0.0.1:4000"), "{nobody}");
            assert_eq!(dialable(parse(nobody)), None, "{nobody}");
        }
    }

    #[test]
    fn dialable_addresses_are_plain_and_keep_their_interface() {
        assert_eq!(dialable(parse("[::ffff:10.0.0.1]:7")), Some(parse("10.0.0.1:7")));
        assert_eq!(dialable(parse("[fe80::1%3]:7")), Some(parse("[fe80::1%3]:7")));
    }
}
