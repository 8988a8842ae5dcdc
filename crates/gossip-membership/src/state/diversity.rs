//! Against eclipse: no network has more than its share of the active view, as long as there is anybody
//! else, and the view grows with the overlay.
//!
//! A share is what the places of the view are over the networks that were reached so far, at most
//! [`max_per_network`](crate::OverlayConfig::max_per_network) and at least one. So whoever owns a few
//! networks has as few of the places, however many machines it runs there; and neighbours beyond a
//! share that shrank make room, one by one, for those that are better spread.

use x0x_core::{MachineId, Tick};

use super::HyParView;
use crate::{estimate::neighbours_for, network::Network, peer::Peer};

/// Most neighbours that are looked for, however large the overlay seems.
const MAX_TARGET: usize = 8;
/// Where no more networks than this were reached, their machines fill the view.
const FEW: usize = 2;

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
            None => peer.and_then(Network::of_peer),
        }
    }

    /// Counts the networks that this node reached. What it only heard of does not count: a liar could
    /// name any number.
    pub(super) fn count_networks(&mut self) {
        let mut networks: Vec<Network> = Vec::new();
        let neighbours = self.active.ids().filter_map(|id| self.network_of(id, None));
        let tried = self.book.all_tried().filter_map(Network::of_peer);
        for network in neighbours.chain(tried) {
            if networks.len() >= self.config.active_max {
                break;
            }
            if !networks.contains(&network) {
                networks.push(network);
            }
        }
        self.networks = networks.len();
    }

    /// How many neighbours each of so many networks may have.
    fn share(&self, networks: usize) -> usize {
        let places = self.config.active_max / networks.max(1);
        places.clamp(1, self.config.max_per_network)
    }

    fn neighbours_in(&self, network: Network) -> usize {
        self.active.ids().filter(|id| self.network_of(*id, None) == Some(network)).count()
    }

    /// Whether the network of a peer has its share of neighbours already.
    pub(super) fn is_crowded(&self, network: Option<Network>) -> bool {
        let share = self.share(self.networks);
        network.is_some_and(|network| self.neighbours_in(network) >= share)
    }

    /// Whether a peer may become a neighbour as far as its network goes. One beyond the share may only
    /// while the node is short of neighbours and nobody of another network can be asked: a laboratory
    /// in a network or two works, and a crowd of strangers does not keep the others out.
    pub(super) fn admits(&self, now: Tick, id: MachineId, peer: Option<&Peer>) -> bool {
        let known = self.sessions.get(&id).map(|session| &session.peer).or(peer);
        if known.is_some_and(|peer| !self.admits_reach(peer.hint().reach)) {
            return false;
        }
        if !self.is_crowded(self.network_of(id, peer)) {
            return true;
        }
        let wanted = if self.networks > FEW { self.target() } else { self.config.fill() };
        self.active.len() < wanted && !self.may_ask_others(now)
    }

    /// Whether a known peer of a network with room can be asked now.
    fn may_ask_others(&self, now: Tick) -> bool {
        self.passive.is_any_ready(now, |peer| self.is_other(peer))
    }

    fn is_other(&self, peer: &Peer) -> bool {
        !self.is_busy(peer.id())
            && !self.is_crowded(self.network_of(peer.id(), Some(peer)))
            && self.admits_reach(peer.hint().reach)
    }

    /// Whether a candidate may be asked for a link now.
    pub(super) fn suits(&self, now: Tick, peer: &Peer) -> bool {
        !self.is_busy(peer.id()) && self.admits(now, peer.id(), Some(peer))
    }

    /// The first candidate of each network, so that one drawn of them is of any network as likely as of
    /// another, however many are of it. On the own site each peer counts for itself.
    pub(super) fn one_a_network(&self, candidates: &[&Peer]) -> Vec<Peer> {
        let mut seen: Vec<Network> = Vec::new();
        let mut first = |peer: &Peer| {
            let Some(network) = self.network_of(peer.id(), Some(peer)) else { return true };
            let is_new = !seen.contains(&network);
            seen.extend(is_new.then_some(network));
            is_new
        };
        candidates.iter().filter(|peer| first(peer)).map(|peer| Peer::clone(peer)).collect()
    }

    /// Neighbours beyond the share of their network that may have to make room, the latest first.
    fn beyond(&self, share: usize) -> Vec<MachineId> {
        let of = |id: MachineId| Some((self.network_of(id, None)?, id));
        let known: Vec<(Network, MachineId)> = self.active.ids().filter_map(of).collect();
        let count = |network| known.iter().filter(|(other, _)| *other == network).count();
        let crowded = |(network, _): &&(Network, MachineId)| count(*network) > share;
        if !known.iter().any(|neighbour| crowded(&neighbour)) {
            return Vec::new();
        }
        let evictable: Vec<MachineId> = self.evictable().collect();
        let mut beyond: Vec<(Network, MachineId)> = Vec::new();
        for (network, id) in known.iter().rev().filter(crowded) {
            let gone = beyond.iter().filter(|(other, _)| other == network).count();
            if evictable.contains(id) && count(*network) - gone > share {
                beyond.push((*network, *id));
            }
        }
        beyond.into_iter().map(|(_, id)| id).collect()
    }

    /// Neighbours that do not count, because better spread ones can be asked to take their places.
    pub(super) fn spare(&self, now: Tick) -> usize {
        let beyond = self.beyond(self.share(self.networks)).len();
        if beyond > 0 && self.may_ask_others(now) { beyond } else { 0 }
    }

    /// Neighbours, and requests and dials that may give one, without those that are beyond the share of
    /// their network while others are known.
    pub(super) fn settled(&self, now: Tick) -> usize {
        self.linked() - self.spare(now)
    }

    /// Who has to make room for a peer with a session: a neighbour beyond the share of its network, once
    /// that of the peer counts too.
    pub(super) fn in_place_of(&self, other: MachineId) -> Option<MachineId> {
        let network = self.network_of(other, None);
        if self.is_crowded(network) {
            return None;
        }
        let is_new = network.is_some_and(|network| self.neighbours_in(network) == 0);
        self.beyond(self.share(self.networks + usize::from(is_new))).first().copied()
    }
}
