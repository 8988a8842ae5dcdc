//! Against eclipse: no network has more than its share of the active view, as long as there is anybody
//! else, and the view grows with the overlay.

use x0x_core::{MachineId, Tick};

use super::HyParView;
use crate::{estimate::neighbours_for, network::Network, peer::Peer};

/// Most neighbours that are looked for, however large the overlay seems.
const MAX_TARGET: usize = 8;

impl HyParView {
    /// Below this many neighbours more are looked for at once: the configured number, or what the
    /// overlay's size asks for.
    pub(super) fn target(&self) -> usize {
        let wanted = neighbours_for(self.estimate.nodes()).min(MAX_TARGET);
        wanted.min(self.config.active_max - 1).max(self.config.active_target)
    }

    /// The network that a peer counts for: where its packets come from, or else where it listens.
    pub(super) fn network_of(&self, id: MachineId, peer: Option<&Peer>) -> Option<Network> {
        match self.sessions.get(&id) {
            Some(session) => session.network,
            None => peer.and_then(listens_in),
        }
    }

    /// Whether the network of a peer has its share of neighbours already.
    fn is_crowded(&self, network: Option<Network>) -> bool {
        let Some(network) = network else { return false };
        let of_network =
            self.active.ids().filter(|id| self.network_of(*id, None) == Some(network)).count();
        of_network >= self.config.max_per_network
    }

    /// Whether a peer may become a neighbour as far as its network goes. One beyond the share may only
    /// while the node is short of neighbours and knows nobody of another network: a laboratory in one
    /// network works, and a crowd of strangers does not keep the others out.
    pub(super) fn admits(&self, now: Tick, id: MachineId, peer: Option<&Peer>) -> bool {
        let known = self.sessions.get(&id).map(|session| &session.peer).or(peer);
        if known.is_some_and(|peer| !self.admits_reach(peer.hint().reach)) {
            return false;
        }
        if !self.is_crowded(self.network_of(id, peer)) {
            return true;
        }
        self.active.len() < self.target() && !self.knows_others(now)
    }

    /// Whether a known peer of a network with room can be asked now.
    fn knows_others(&self, now: Tick) -> bool {
        let other = |peer: &Peer| {
            !self.is_busy(peer.id()) && !self.is_crowded(self.network_of(peer.id(), Some(peer)))
        };
        self.passive.is_any_ready(now, other)
    }

    /// Whether a candidate may be asked for a link now.
    pub(super) fn suits(&self, now: Tick, peer: &Peer) -> bool {
        !self.is_busy(peer.id()) && self.admits(now, peer.id(), Some(peer))
    }
}

/// The network of a peer's first address.
pub(super) fn listens_in(peer: &Peer) -> Option<Network> {
    peer.addresses().first().and_then(|address| Network::of(address.ip()))
}
