//! A peer that may be dialled, with addresses that passed the hygiene rules.

use std::net::{IpAddr, SocketAddr};

use x0x_core::{MAX_ADDRESSES, MachineId, PeerAddr, Scope, dialable};
use x0x_transport::{ReachClass, SignedRecord};

/// Most addresses that are kept, or passed on, of a peer that others tell of. Nobody signs what is
/// told of a third party, so that each is one more dial that a liar can aim at a victim.
pub const MAX_HEARD: usize = 2;

/// What is told of a machine's signed record along with its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct Hint {
    /// How it can be reached.
    pub reach: ReachClass,
    /// Names the record, if the teller has one.
    pub record: Option<[u8; 16]>,
}

impl Hint {
    /// From its parts.
    #[must_use]
    pub const fn new(reach: ReachClass, record: Option<[u8; 16]>) -> Self {
        Self { reach, record }
    }

    /// That of a record.
    #[must_use]
    pub const fn of(record: &SignedRecord) -> Self {
        Self { reach: record.record().reach, record: Some(record.hash()) }
    }
}

/// A known machine and where it may be reached: at most [`MAX_ADDRESSES`] usable addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    id: MachineId,
    addresses: Vec<SocketAddr>,
    hint: Hint,
}

impl Peer {
    /// Keeps the usable ones of the given addresses, each once, the first [`MAX_ADDRESSES`] of them.
    #[must_use]
    pub fn new(id: MachineId, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let usable = addresses.into_iter().filter_map(usable);
        Self { id, addresses: PeerAddr::known(id, usable).addresses, hint: Hint::default() }
    }

    /// With what is told of its record.
    #[must_use]
    pub const fn with_hint(mut self, hint: Hint) -> Self {
        self.hint = hint;
        self
    }

    /// What is told of its record.
    #[must_use]
    pub const fn hint(&self) -> Hint {
        self.hint
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

    /// Without the addresses that nobody at the end of a path of this scope may name.
    pub(crate) fn named_over(mut self, path: Scope) -> Self {
        self.addresses.retain(|address| path.may_name(*address));
        self
    }

    /// Of what was heard of a peer, the first [`MAX_HEARD`] addresses.
    pub(crate) fn first_heard(mut self) -> Self {
        self.addresses.truncate(MAX_HEARD);
        self
    }

    /// Takes a further claim about a peer that was only heard of: one address of it, in the last
    /// place. So no claim keeps the others out, neither the first one nor the latest.
    pub(crate) fn hear(&mut self, claim: &Self) {
        if claim.hint.record.is_some() {
            self.hint = claim.hint;
        }
        let unknown = claim.addresses.iter().find(|address| !self.addresses.contains(address));
        if let Some(address) = unknown {
            self.addresses.truncate(MAX_HEARD - 1);
            self.addresses.push(*address);
        }
    }

    /// What is known of a peer for sure, then what was just heard of it.
    pub(crate) fn and_heard(&self, claim: &Self) -> Self {
        let sure = self.addresses.iter().take(MAX_ADDRESSES - MAX_HEARD);
        let addresses = sure.chain(claim.addresses.iter().take(MAX_HEARD)).copied();
        Self::new(self.id, addresses).with_hint(self.hint)
    }
}

/// The address in its plain form, unless it can never be a peer's: one that nobody may name (see
/// [`dialable`]), or an IPv6 link-local one (its interface does not travel).
#[must_use]
pub fn usable(address: SocketAddr) -> Option<SocketAddr> {
    let address = dialable(address)?;
    let ip = address.ip();
    let local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    (!local).then(|| SocketAddr::new(ip, address.port()))
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
    fn a_claim_about_a_peer_brings_one_address_and_keeps_no_other_out() {
        let id = MachineId::new([1; 32]);
        let claim = |ports: &[u16]| {
            Peer::new(id, ports.iter().map(|port| SocketAddr::from(([192, 0, 2, 1], *port))))
        };
        let mut peer = claim(&[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(peer.addresses().len(), MAX_ADDRESSES);
        peer = peer.first_heard();
        assert_eq!(peer, claim(&[1, 2]));
        peer.hear(&claim(&[2, 1]));
        assert_eq!(peer, claim(&[1, 2]), "nothing new");
        peer.hear(&claim(&[2, 9, 8]));
        assert_eq!(peer, claim(&[1, 9]));
        let sure = claim(&[11, 12, 13, 14, 15, 16, 17, 18]);
        assert_eq!(sure.and_heard(&peer), claim(&[11, 12, 13, 14, 15, 16, 1, 9]));
        assert_eq!(Peer::from_addr(&PeerAddr::unknown(peer.addresses()[0])), None);
    }
}
