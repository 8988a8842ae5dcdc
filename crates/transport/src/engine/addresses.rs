//! What a wildcard binding means to a peer.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::outgoing;

/// The addresses under which a socket bound to `local` can be reached: itself, or for a wildcard
/// the addresses of the outgoing interfaces, then loopback.
pub(super) fn reachable(local: SocketAddr) -> Vec<SocketAddr> {
    if !local.ip().is_unspecified() {
        return vec![local];
    }
    let mut ips = Vec::new();
    if local.is_ipv6() {
        ips.extend(outgoing::v6());
    }
    ips.extend(outgoing::v4());
    if local.is_ipv6() {
        ips.push(Ipv6Addr::LOCALHOST.into());
    }
    ips.push(Ipv4Addr::LOCALHOST.into());
    ips.dedup();
    ips.into_iter().map(|ip| SocketAddr::new(ip, local.port())).collect()
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
