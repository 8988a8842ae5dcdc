//! A peer that may be dialled, with addresses that passed the hygiene rules.

use std::net::{IpAddr, SocketAddr};

use x0x_core::{MAX_ADDRESSES, MachineId, PeerAddr};

/// A known machine and where it may be reached: at most [`MAX_ADDRESSES`] usable addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    id: MachineId,
    addresses: Vec<SocketAddr>,
}

impl Peer {
    /// Keeps the usable ones of the given addresses, each once, the first [`MAX_ADDRESSES`] of them.
    #[must_use]
    pub fn new(id: MachineId, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let mut peer = Self { id, addresses: Vec::new() };
        peer.extend(addresses);
        peer
    }

    /// The same for an address record; `None` when it names no machine.
    #[must_use]
    pub fn from_addr(addr: &PeerAddr) -> Option<Self> {
        Some(Self::new(addr.id?, addr.addresses.iter().copied()))
    }

    /// The machine.
    #[must_use]
    pub const fn id(&self) -> MachineId {
        self.id
    }

    /// Its usable addresses, best first.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Whether there is an address to dial.
    #[must_use]
    pub const fn is_dialable(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// What the transport dials.
    #[must_use]
    pub fn to_addr(&self) -> PeerAddr {
        PeerAddr { id: Some(self.id), addresses: self.addresses.clone() }
    }

    /// Appends further addresses while there is room. What is known stays: gossip cannot push a
    /// good address out.
    pub(crate) fn extend(&mut self, addresses: impl IntoIterator<Item = SocketAddr>) {
        for address in addresses.into_iter().filter_map(usable) {
            if self.addresses.len() < MAX_ADDRESSES && !self.addresses.contains(&address) {
                self.addresses.push(address);
            }
        }
    }

    /// Without loopback addresses, for what a peer on another machine says: they would mean this
    /// machine.
    pub(crate) fn without_loopback(mut self) -> Self {
        self.addresses.retain(|address| !address.ip().is_loopback());
        self
    }
}

/// The address in its plain form, unless it can never be a peer's: port 0, an unspecified,
/// multicast or broadcast address, or an IPv6 link-local one (its scope does not travel).
#[must_use]
pub fn usable(address: SocketAddr) -> Option<SocketAddr> {
    let ip = address.ip().to_canonical();
    let refused = match ip {
        IpAddr::V4(v4) => v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let refused = refused || address.port() == 0 || ip.is_unspecified() || ip.is_multicast();
    (!refused).then(|| SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &[&str]) -> Vec<SocketAddr> {
        text.iter().map(|t| t.parse().expect("an address")).collect()
    }

    #[test]
    fn useless_addresses_are_dropped() {
        let given = addresses(&[
            "10.0.0.1:1",
            "0.0.0.0:1",
            "10.0.0.1:0",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "[::]:1",
            "[ff02::1]:1",
            "[fe80::1]:1",
            "[::ffff:10.0.0.1]:1",
            "[2001:db8::1]:1",
        ]);
        let peer = Peer::new(MachineId::new([1; 32]), given);
        assert_eq!(peer.addresses(), addresses(&["10.0.0.1:1", "[2001:db8::1]:1"]));
    }

    #[test]
    fn known_addresses_stay_first() {
        let mut peer = Peer::new(MachineId::new([1; 32]), addresses(&["127.0.0.1:5"]));
        peer.extend((1..100).map(|port| SocketAddr::from(([10, 0, 0, 1], port))));
        assert_eq!(peer.addresses().len(), MAX_ADDRESSES);
        assert_eq!(peer.addresses()[0], addresses(&["127.0.0.1:5"])[0]);
        assert_eq!(peer.without_loopback().addresses().len(), MAX_ADDRESSES - 1);
        assert_eq!(Peer::from_addr(&PeerAddr::unknown(addresses(&["10.0.0.1:1"])[0])), None);
    }
}
