//! What a wildcard binding means to a peer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Documentation addresses (RFC 5737, RFC 3849): routed like any other, owned by nobody.
const PROBE_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
const PROBE_V6: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9);

/// The addresses under which a socket bound to `local` can be reached: itself, or for a wildcard
/// the addresses of the outgoing interfaces, then loopback.
pub(super) fn reachable(local: SocketAddr) -> Vec<SocketAddr> {
    if !local.ip().is_unspecified() {
        return vec![local];
    }
    let mut ips = Vec::new();
    if local.is_ipv6() {
        ips.extend(outgoing(PROBE_V6));
    }
    ips.extend(outgoing(PROBE_V4));
    if local.is_ipv6() {
        ips.push(Ipv6Addr::LOCALHOST.into());
    }
    ips.push(Ipv4Addr::LOCALHOST.into());
    ips.dedup();
    ips.into_iter().map(|ip| SocketAddr::new(ip, local.port())).collect()
}

/// The address that packets to `target` would leave from. Connecting a UDP socket only asks the
/// routing table; nothing is sent.
fn outgoing(target: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(target).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_become_usable_addresses_of_the_same_port() {
        let fixed: SocketAddr = "127.0.0.1:7000".parse().unwrap();
        assert_eq!(reachable(fixed), [fixed]);
        for (any, has_v6) in [("0.0.0.0:7000", false), ("[::]:7000", true)] {
            let all = reachable(any.parse().unwrap());
            assert!(all.iter().all(|a| a.port() == 7000 && !a.ip().is_unspecified()), "{all:?}");
            assert!(all.contains(&fixed));
            assert_eq!(all.contains(&"[::1]:7000".parse().unwrap()), has_v6);
        }
    }
}
