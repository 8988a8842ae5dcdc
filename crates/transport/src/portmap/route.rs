//! The gateway before this machine.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use x0x_core::Scope;

use super::Way;
use crate::interfaces::Network;

/// Most bytes of the system's table of routes that are read.
#[cfg(target_os = "linux")]
const MAX_TABLE: u64 = 64 * 1024;

/// Tells the way to the internet.
pub trait Gateways: fmt::Debug + Send + Sync + 'static {
    /// The way of a machine with these addresses, if it leads over a gateway that may translate.
    fn way(&self, network: &Network) -> Option<Way>;
}

/// What the system says: Linux's table of routes, and nothing elsewhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemGateways;

impl Gateways for SystemGateways {
    fn way(&self, network: &Network) -> Option<Way> {
        way(network, system_gateway()?)
    }
}

/// The way over a gateway, from the address whose link it is on. One that is on the internet itself needs none.
fn way(network: &Network, gateway: Ipv4Addr) -> Option<Way> {
    let routed = network.interfaces().iter().filter(|interface| interface.default_routed);
    let mut on_link = routed.filter(|interface| interface.contains(gateway.into()));
    let own = on_link.find_map(|interface| match interface.ip {
        IpAddr::V4(own) if Scope::of(interface.ip) != Some(Scope::Global) => Some(own),
        _ => None,
    })?;
    (own != gateway).then_some(Way { gateway, own })
}

#[cfg(target_os = "linux")]
fn system_gateway() -> Option<Ipv4Addr> {
    use std::io::Read;

    let mut table = String::new();
    let file = std::fs::File::open("/proc/net/route").ok()?;
    file.take(MAX_TABLE).read_to_string(&mut table).ok()?;
    default_gateway(&table)
}

#[cfg(not(target_os = "linux"))]
const fn system_gateway() -> Option<Ipv4Addr> {
    None
}

/// The gateway of the default route with the least metric in a table as proc(5) shows it.
#[cfg(any(target_os = "linux", test))]
fn default_gateway(table: &str) -> Option<Ipv4Addr> {
    /// The route is up, and leads over a gateway.
    const FLAGS: u32 = 0x1 | 0x2;
    let routes = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[_, destination, gateway, flags, _, _, metric, mask, ..] = fields.as_slice() else {
            return None;
        };
        let hex = |text| u32::from_str_radix(text, 16).ok();
        let default = hex(destination)? == 0 && hex(mask)? == 0;
        let usable = default && hex(flags)? & FLAGS == FLAGS;
        // Addresses are shown as numbers of the machine's byte order.
        let gateway = Ipv4Addr::from(hex(gateway)?.to_ne_bytes());
        usable.then_some((metric.parse::<u32>().ok()?, gateway))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, gateway)| gateway)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interfaces::Interface;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_default_route_with_the_least_metric_counts() {
        let table = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
            wlan0 00000000 FE01A8C0 0003 0 0 600 00000000 0 0 0\n\
            eth0 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0\n\
            eth0 0001A8C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n\
            eth0 00000000\n\
            down0 00000000 0901A8C0 0002 0 0 1 00000000 0 0 0\n";
        assert_eq!(default_gateway(table), Some(Ipv4Addr::new(192, 168, 1, 1)));
        assert_eq!(default_gateway(""), None);
    }

    #[test]
    fn a_gateway_is_asked_only_from_a_private_address_on_its_link() {
        let network = |ip: Ipv4Addr| {
            let mut interface = Interface::new(1, ip.into(), 24);
            interface.default_routed = true;
            Network::new([interface])
        };
        let (gateway, own) = (Ipv4Addr::new(192, 168, 1, 1), Ipv4Addr::new(192, 168, 1, 7));
        assert_eq!(way(&network(own), gateway), Some(Way { gateway, own }));
        assert_eq!(way(&network(Ipv4Addr::new(10, 0, 0, 7)), gateway), None);
        assert_eq!(way(&network(Ipv4Addr::new(8, 8, 4, 7)), Ipv4Addr::new(8, 8, 4, 1)), None);
    }
}
