//! Which of a peer's own addresses are worth remembering: a peer must not make this machine send
//! packets to places that the peer itself has no business in.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// How far an address reaches, nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Loopback,
    Link,
    /// Private and shared address space (RFC 1918, RFC 6598, RFC 4193).
    Site,
    Global,
}

/// The scope of a unicast address; `None` for what is no machine's address.
fn scope(ip: IpAddr) -> Option<Scope> {
    let ip = ip.to_canonical();
    if ip.is_unspecified() || ip.is_multicast() {
        return None;
    }
    if ip.is_loopback() {
        return Some(Scope::Loopback);
    }
    Some(match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            match (a, b) {
                // "This network" and the reserved class E with the broadcast address.
                (0 | 240.., _) => return None,
                (169, 254) => Scope::Link,
                (100, 64..=127) => Scope::Site,
                _ if ip.is_private() => Scope::Site,
                _ => Scope::Global,
            }
        }
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Scope::Link,
        IpAddr::V6(ip) if ip.is_unique_local() => Scope::Site,
        // IPv4-compatible addresses, long obsolete, would hide an IPv4 target.
        IpAddr::V6(ip) if ip.segments()[..6] == [0; 6] => return None,
        IpAddr::V6(_) => Scope::Global,
    })
}

/// Whether a peer whose packets come from `seen` may say that it listens at `claimed`: there is
/// somebody there, and the address reaches as far as the path to the peer does. A peer on the
/// internet cannot point into this machine or its site; one on the same site can name both.
pub(super) fn is_plausible(claimed: SocketAddr, seen: SocketAddr) -> bool {
    // The cloud providers' metadata service answers on a link-local address.
    const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));
    let Some(reach) = scope(claimed.ip()) else { return false };
    let path = scope(seen.ip()).unwrap_or(Scope::Global);
    claimed.port() != 0 && claimed.ip().to_canonical() != METADATA && reach >= path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plausible(claimed: &str, seen: &str) -> bool {
        is_plausible(claimed.parse().expect("an address"), seen.parse().expect("an address"))
    }

    #[test]
    fn a_peer_reaches_no_nearer_than_it_is() {
        let internet = "198.51.100.7:4000";
        assert!(plausible("198.51.100.7:9000", internet));
        assert!(plausible("[2001:db8::1]:9000", internet));
        for nearer in ["127.0.0.1", "10.1.2.3", "192.168.1.1", "100.64.0.1", "169.254.1.1"] {
            assert!(!plausible(&format!("{nearer}:9000"), internet), "{nearer}");
            assert!(!plausible(&format!("[::ffff:{nearer}]:9000"), internet), "mapped {nearer}");
            assert!(plausible(&format!("{nearer}:9000"), &format!("{nearer}:5")), "{nearer}");
        }
        for nearer in ["[::1]:9000", "[fe80::1]:9000", "[fd00::1]:9000", "[::10.0.0.1]:9000"] {
            assert!(!plausible(nearer, internet), "{nearer}");
        }
        assert!(plausible("10.0.0.2:9000", "192.168.0.9:1"));
        assert!(!plausible("127.0.0.1:9000", "192.168.0.9:1"));
        assert!(plausible("10.0.0.2:9000", "127.0.0.1:1"));
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
            "[::]:9000",
            "[ff02::fb]:5353",
            "198.51.100.7:0",
        ] {
            assert!(!plausible(nobody, "127.0.0.1:4000"), "{nobody}");
        }
    }
}
