//! The addresses that this machine has, and when they change.
//!
//! A [`Network`] is what the machine has at one moment. [`follow`] keeps the latest one: whoever holds its
//! receiver sees each change once the interfaces have settled. Where the system tells of changes (Linux, by
//! netlink) nothing wakes up between them; elsewhere it is looked every fifteen seconds.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use x0x_core::Scope;

#[cfg(feature = "lan")]
mod system;
#[cfg(feature = "tokio")]
mod watch;

#[cfg(feature = "lan")]
pub use self::system::SystemInterfaces;
#[cfg(feature = "tokio")]
pub use self::watch::{NetworkWatch, SETTLE, follow};
use crate::link::BoxFuture;

/// Most addresses of interfaces that are looked at; those of a host of many containers are cut.
pub const MAX_ADDRESSES_SEEN: usize = 128;

/// An address of an interface of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Interface {
    /// The system's number of the interface.
    pub index: u32,
    /// The address.
    pub ip: IpAddr,
    /// How many of its first bits all addresses of the link share.
    pub prefix: u8,
    /// Whether packets to the internet leave from this address.
    pub default_routed: bool,
    /// Whether others are on the link: false for loopback and tunnels with one other end.
    pub shared: bool,
}

impl Interface {
    /// An address on a link with others, from which no packets go to the internet.
    #[must_use]
    pub const fn new(index: u32, ip: IpAddr, prefix: u8) -> Self {
        Self { index, ip, prefix, default_routed: false, shared: true }
    }

    /// Whether the link to which the address belongs has this address, too.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.ip, ip.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                let bits = u32::from(own) ^ u32::from(ip);
                bits.leading_zeros() >= u32::from(self.prefix).min(32)
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => {
                let bits = u128::from(own) ^ u128::from(ip);
                bits.leading_zeros() >= u32::from(self.prefix).min(128)
            }
            _ => false,
        }
    }
}

/// The addresses of all interfaces, those from which packets go to the internet first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Network(Vec<Interface>);

impl Network {
    /// Of these addresses, at most [`MAX_ADDRESSES_SEEN`]; those that no machine can have are left out.
    #[must_use]
    pub fn new(all: impl IntoIterator<Item = Interface>) -> Self {
        let real = all.into_iter().filter(|interface| Scope::of(interface.ip).is_some());
        let mut all: Vec<Interface> = real.collect();
        all.sort_unstable_by_key(|interface| (!interface.default_routed, *interface));
        all.dedup();
        all.truncate(MAX_ADDRESSES_SEEN);
        Self(all)
    }

    /// All addresses.
    #[must_use]
    pub fn interfaces(&self) -> &[Interface] {
        &self.0
    }

    /// Whether this machine has the address, as far as is known: not all are listed of a machine with very
    /// many, nor where the system does not list any.
    #[must_use]
    pub fn is_own(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let all_known = (1..MAX_ADDRESSES_SEEN).contains(&self.0.len());
        !all_known || ip.is_loopback() || self.0.iter().any(|interface| interface.ip == ip)
    }

    /// Whether an address is on a link that this machine shares with others.
    #[must_use]
    pub fn is_on_link(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|interface| interface.shared && interface.contains(ip))
    }

    /// Where others may reach a socket that is bound to `local`: there, or for a wildcard, with its port, at
    /// the addresses from which packets go to the internet. Where a family has none of these, all others of
    /// it count that are more than link-local. Loopback comes last.
    #[must_use]
    pub fn addresses(&self, local: SocketAddr) -> Vec<SocketAddr> {
        if !local.ip().is_unspecified() {
            return vec![local];
        }
        let mut ips = Vec::new();
        if local.is_ipv6() {
            ips.extend(self.of_family(false));
        }
        ips.extend(self.of_family(true));
        if local.is_ipv6() {
            ips.push(Ipv6Addr::LOCALHOST.into());
        }
        ips.push(Ipv4Addr::LOCALHOST.into());
        ips.into_iter().map(|ip| SocketAddr::new(ip, local.port())).collect()
    }

    fn of_family(&self, v4: bool) -> Vec<IpAddr> {
        let family = self.0.iter().filter(|interface| interface.ip.is_ipv4() == v4);
        let wide = family.filter(|interface| Scope::of(interface.ip) >= Some(Scope::Site));
        let (routed, others): (Vec<&Interface>, Vec<&Interface>) =
            wide.partition(|interface| interface.default_routed);
        let chosen = if routed.is_empty() { others } else { routed };
        chosen.into_iter().map(|interface| interface.ip).collect()
    }
}

/// Where interfaces are learned from.
pub trait InterfaceSource: Send + Sync + fmt::Debug + 'static {
    /// What there is now; `None` when the system does not say.
    fn scan(&self) -> Option<Network>;

    /// Waits until something may have changed. Dropping the future loses nothing.
    fn changed(&self) -> BoxFuture<'_, ()>;
}

#[cfg(test)]
mod tests;
