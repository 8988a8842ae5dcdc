//! Joining parts of the overlay that have lost each other.
//!
//! A full view does not show that the overlay is whole: both sides of a partition fill theirs, and the
//! peers that each side only knows do not change that. So once in each `probe_interval` a node tries
//! somebody who may be beyond: a neighbour that it lost, a bootstrap address that is silent, or a peer
//! that it reached before. A single link across joins the sides again.

use std::net::SocketAddr;

use x0x_core::{MachineId, Tick};

use super::{HyParView, dial::Purpose};
use crate::{peer::Peer, wire::Message};

/// Most peers remembered that are beyond and had no room.
pub(super) const MAX_BEYOND: usize = 16;

/// A way to what may be another part of the overlay.
enum Way {
    /// A neighbour that was lost.
    Former(Peer),
    /// A bootstrap address where nobody has answered.
    Silent(SocketAddr),
    /// A peer that was reached once.
    Tried(Peer),
}

impl HyParView {
    /// Tries to reach the other side of a partition that may be healed.
    pub(super) fn probe(&mut self, now: Tick) {
        if let Some(peer) = self.beyond.pop_front() {
            let _ = self.reach(now, peer, Purpose::Link { urgent: true });
            return;
        }
        let former = self.lost.ready(now, |id| self.is_busy(id)).cloned();
        let silent: Vec<SocketAddr> = self.silent_bootstrap().collect();
        let address = silent.get(self.rng.below(silent.len())).copied();
        let tried = self.book.tried(now, |peer| self.is_beyond(peer));
        let tried = tried.get(self.rng.below(tried.len())).map(|peer| Peer::clone(peer));
        let mut ways = Vec::new();
        ways.extend(former.map(Way::Former));
        ways.extend(address.map(Way::Silent));
        // Whoever was lost or never found is the more likely to be beyond.
        let others = tried.map(Way::Tried).filter(|_| ways.is_empty() || self.rng.chance(0.3));
        ways.extend(others);
        if ways.is_empty() {
            return;
        }
        // Without a free dial the next probe comes soon enough.
        match ways.swap_remove(self.rng.below(ways.len())) {
            Way::Former(peer) => {
                self.lost.defer(peer.id(), now, self.config.retry_max);
                let _ = self.reach(now, peer, Purpose::Link { urgent: true });
            }
            Way::Silent(address) if self.may_dial() => {
                self.reach_address(now, address, Purpose::Merge);
            }
            Way::Silent(_) => {}
            Way::Tried(peer) => {
                let _ = self.reach(now, peer, Purpose::Compare);
            }
        }
    }

    /// Whether a peer that was reached once is nobody's neighbour as far as this node knows.
    fn is_beyond(&self, peer: &Peer) -> bool {
        !self.is_busy(peer.id()) && self.lost.former(peer.id()).is_none()
    }

    /// Asks a peer whom it knows.
    pub(super) fn ask_whom_it_knows(&mut self, now: Tick, id: MachineId) {
        if self.active.contains(id) {
            return;
        }
        self.metrics.comparisons.inc();
        // Nonces of pings count from one; this one only has to differ from them.
        let nonce = self.rng.next_u64() | 1 << 63;
        self.comparing = Some((id, nonce, now + self.config.request_timeout));
        self.send(id, Message::Ping { nonce, suspected: None, sample: true });
    }

    pub(super) fn is_comparing(&self, id: MachineId, nonce: u64) -> bool {
        self.comparing.is_some_and(|(peer, asked, _)| (peer, asked) == (id, nonce))
    }

    /// A peer told whom it knows. Where that is nobody that this node knows, the two may be in parts
    /// of the overlay that have lost each other: a link joins them. It is no urgent one, because in
    /// a large overlay two samples often have nobody in common.
    pub(super) fn compare(&mut self, now: Tick, id: MachineId, entries: Vec<Peer>) {
        let late = self.comparing.take().is_none_or(|(.., until)| until < now);
        if late {
            return;
        }
        let shared =
            |peer: &Peer| self.active.contains(peer.id()) || self.passive.contains(peer.id());
        let apart = !entries.iter().any(shared);
        self.integrate(now, id, entries, &[]);
        if apart {
            let _ = self.reach(now, self.session_peer(id), Purpose::Link { urgent: false });
        }
    }

    pub(super) fn arm_probe(&mut self, now: Tick) {
        if self.linked() < self.target() {
            // A node short of neighbours tries them sooner anyway.
            self.next_probe = None;
        } else if self.next_probe.is_none() && self.is_anybody_beyond() {
            self.next_probe = Some(self.around(now, self.config.probe_interval));
        }
    }

    fn is_anybody_beyond(&self) -> bool {
        !self.beyond.is_empty()
            || self.lost.next_ready(|id| self.is_busy(id)).is_some()
            || self.silent_bootstrap().next().is_some()
            || self.book.next_ready(|peer| self.is_beyond(peer)).is_some()
    }

    /// Bootstrap addresses where nobody has answered.
    fn silent_bootstrap(&self) -> impl Iterator<Item = SocketAddr> {
        let silent = self.bootstrap.iter().filter(|bootstrap| bootstrap.id.is_none());
        silent.map(|bootstrap| bootstrap.address).filter(|at| !self.is_dialling_address(*at))
    }

    /// A peer that may be beyond has no room, but told of others there: each is asked in its turn, until
    /// there is a link.
    pub(super) fn no_room_beyond(&mut self, peer: Peer, others: &[Peer]) {
        for peer in others.iter().cloned().chain([peer]) {
            let known = self.beyond.iter().any(|known| known.id() == peer.id());
            if !known && peer.is_dialable() && self.beyond.len() < MAX_BEYOND {
                self.beyond.push_back(peer);
            }
        }
    }

    /// There is a link to a peer: if it was to one beyond, the parts are one.
    pub(super) fn linked_beyond(&mut self, id: MachineId) {
        if self.beyond.iter().any(|peer| peer.id() == id) {
            self.beyond.clear();
        }
    }
}
