//! Keeping the active view filled: from the passive view by really dialling, from former neighbours
//! and bootstrap addresses when nobody else is known.
//!
//! Below the target every candidate is tried at once, one after the other; between the target and
//! the last free place one in each `fill_interval`. When nobody is left to try, no timer runs.

use std::{net::SocketAddr, time::Duration};

use x0x_core::{MachineId, Tick};

use super::{
    DialFailure, HyParView,
    dial::{MAX_DIALS, Purpose},
};
use crate::{
    book::MAX_BUCKETS,
    cache::MAX_ANCHORS,
    peer::{Peer, usable},
    view::Source,
};

/// Most bootstrap addresses used; further ones are ignored.
pub const MAX_BOOTSTRAP: usize = 32;

/// Dials that are not used for filling the view beyond the target, so that names that lead nowhere
/// leave some for contacts.
const CONTACT_DIALS: usize = 2;

/// A configured way into the overlay.
#[derive(Debug)]
pub(super) struct Bootstrap {
    pub(super) address: SocketAddr,
    /// Who answered there last.
    pub(super) id: Option<MachineId>,
    next: Tick,
    pause: Duration,
}

impl HyParView {
    pub(super) fn on_start(&mut self, now: Tick, addresses: Vec<SocketAddr>, cached: Vec<Peer>) {
        // Best first, so that the best are remembered as those reached last.
        for peer in cached.iter().take(self.config.tried_max).rev() {
            self.book.reached(peer.clone());
        }
        let anchors: Vec<Peer> = cached.iter().take(MAX_ANCHORS).cloned().collect();
        for peer in cached.into_iter().take(self.config.passive_max) {
            self.learn(now, peer, Source::Session, &[]);
        }
        for address in addresses.into_iter().filter_map(usable) {
            let known = self.bootstrap.iter().any(|bootstrap| bootstrap.address == address);
            if !known && self.bootstrap.len() < MAX_BOOTSTRAP {
                let pause = self.config.retry_min;
                self.bootstrap.push(Bootstrap { address, id: None, next: now, pause });
            }
        }
        // Before the cached peers, so that configured addresses are never starved by stale ones.
        self.try_bootstrap(now);
        for peer in anchors {
            if self.suits(now, &peer) {
                let _ = self.reach(now, peer, Purpose::Link { urgent: false });
            }
        }
    }

    /// Does what the state asks for; ends every input and timeout.
    pub(super) fn maintain(&mut self, now: Tick) {
        if self.left {
            return;
        }
        let short = self.active.len() < self.target();
        self.short_since = short.then(|| self.short_since.unwrap_or(now));
        while self.settled(now) < self.target() && self.try_candidate(now) {}
        let fill_due = self.next_fill.is_some_and(|at| at <= now);
        if fill_due {
            self.next_fill = None;
            let spare = self.dials.len() + CONTACT_DIALS < MAX_DIALS;
            if spare && self.settled(now) < self.config.fill() {
                self.try_candidate(now);
            }
        }
        self.try_bootstrap(now);
        if self.next_probe.is_some_and(|at| at <= now) {
            self.next_probe = None;
            self.probe(now);
        }
        self.arm_fill(now);
        self.arm_probe(now);
    }

    /// When a bootstrap address must be tried next.
    pub(super) fn next_bootstrap(&self) -> Option<Tick> {
        let from = self.contact_from().filter(|_| self.may_dial())?;
        let idle = self.bootstrap.iter().filter(|b| !self.is_bootstrap_busy(b));
        idle.map(|b| b.next.max(from)).min()
    }

    /// Notes who answered at an address; one of this machine itself is of no use.
    pub(super) fn identify_bootstrap(&mut self, address: SocketAddr, id: MachineId) {
        if id == self.local {
            return self.bootstrap.retain(|bootstrap| bootstrap.address != address);
        }
        for bootstrap in self.bootstrap.iter_mut().filter(|b| b.address == address) {
            bootstrap.id = Some(id);
        }
    }

    pub(super) fn fail_bootstrap(&mut self, address: SocketAddr, failure: DialFailure) {
        if failure == DialFailure::OwnAddress {
            self.bootstrap.retain(|bootstrap| bootstrap.address != address);
        }
    }

    /// A machine did not answer: another may live at its bootstrap address now.
    pub(super) fn unidentify_bootstrap(&mut self, id: MachineId) {
        for bootstrap in self.bootstrap.iter_mut().filter(|b| b.id == Some(id)) {
            bootstrap.id = None;
        }
    }

    /// A bootstrap peer is a neighbour: should it be lost, the first retry comes soon.
    pub(super) fn bootstrap_linked(&mut self, now: Tick, id: MachineId) {
        let pause = self.config.retry_min;
        for bootstrap in self.bootstrap.iter_mut().filter(|b| b.id == Some(id)) {
            bootstrap.next = now + pause;
            bootstrap.pause = pause;
        }
    }

    /// Asks one candidate for a link; false when there is none that may be asked now.
    fn try_candidate(&mut self, now: Tick) -> bool {
        let mut ready = self.passive.ready(now, |peer| self.suits(now, peer));
        self.rng.shuffle(&mut ready);
        let ready = self.one_a_network(&ready);
        let peer = if let Some(peer) = ready.get(self.rng.below(ready.len())) {
            peer.clone()
        } else if self.linked() >= self.target() {
            return false;
        } else if let Some(peer) = self.lost.ready(now, |id| self.is_busy(id)) {
            let peer = peer.clone();
            self.lost.defer(peer.id(), now, self.config.retry_max);
            peer
        } else if let Some(peer) = self.reserve(now) {
            peer
        } else {
            return false;
        };
        self.reach(now, peer, Purpose::Link { urgent: false })
    }

    /// A peer known beside the views.
    fn reserve(&mut self, now: Tick) -> Option<Peer> {
        let first = self.rng.below(MAX_BUCKETS);
        let mut peers = self.book.tried(now, |peer| self.is_reserve(now, peer));
        if peers.is_empty() {
            let believed = |peer: &Peer| !self.lost.denies(peer.id(), now);
            let suits = |peer: &Peer| believed(peer) && self.is_reserve(now, peer);
            peers = self.book.hearsay(first, suits);
        }
        peers.get(self.rng.below(peers.len())).map(|peer| Peer::clone(peer))
    }

    /// Whether a peer of the book may be asked; those of the views have their own turns.
    fn is_reserve(&self, now: Tick, peer: &Peer) -> bool {
        let id = peer.id();
        let has_turn = self.passive.contains(id) || self.lost.former(id).is_some();
        !has_turn && self.suits(now, peer)
    }

    /// Whether a candidate needs no further attempt now.
    pub(super) fn is_busy(&self, id: MachineId) -> bool {
        self.active.contains(id)
            || self.requests.contains_key(&id)
            || self.is_dialling(id)
            || (self.sessions.contains_key(&id) && !self.has_session(id))
    }

    fn arm_fill(&mut self, now: Tick) {
        let linked = self.settled(now);
        // With all dials in use, the next result comes back here.
        if linked >= self.config.fill() || !self.may_dial() {
            self.next_fill = None;
            return;
        }
        let busy = |id: MachineId| self.is_busy(id);
        let short = linked < self.target();
        if !short && self.next_fill.is_some_and(|pending| pending > now) {
            return;
        }
        let passive = self.passive.next_ready(|peer| self.suits(now, peer));
        let lost = if short { self.lost.next_ready(busy) } else { None };
        let tried = if short { self.book.next_ready(|p| self.is_reserve(now, p)) } else { None };
        self.next_fill = match [passive, lost, tried].into_iter().flatten().min() {
            Some(at) if short => Some(at.max(now + Duration::from_millis(1))),
            Some(at) => {
                let interval = self.config.fill_interval;
                Some(self.around(now, interval).max(at))
            }
            None => None,
        };
    }

    /// From when on a contact is of use: at once without a single neighbour, or short of them with
    /// nobody left to ask; and when those who were asked came to nothing for as long as a dial may take,
    /// since names that lead nowhere can be told without end.
    fn contact_from(&self) -> Option<Tick> {
        if self.active.is_empty() || self.linked() < self.target() {
            return Some(Tick::ZERO);
        }
        self.short_since.map(|since| since + self.config.dial_timeout)
    }

    /// Whether to ask a contact for a place now.
    pub(super) fn needs_contact(&self, now: Tick) -> bool {
        self.contact_from().is_some_and(|at| at <= now)
    }

    fn is_bootstrap_busy(&self, bootstrap: &Bootstrap) -> bool {
        self.is_dialling_address(bootstrap.address)
            || bootstrap.id.is_some_and(|id| self.is_busy(id))
    }

    fn try_bootstrap(&mut self, now: Tick) {
        for place in 0..self.bootstrap.len() {
            if !self.may_dial() || !self.needs_contact(now) {
                return;
            }
            let bootstrap = &self.bootstrap[place];
            if bootstrap.next > now || self.is_bootstrap_busy(bootstrap) {
                continue;
            }
            let (address, id, pause) = (bootstrap.address, bootstrap.id, bootstrap.pause);
            let next = self.around(now, pause);
            self.bootstrap[place].next = next;
            self.bootstrap[place].pause = (pause * 2).min(self.config.retry_max);
            match id {
                Some(id) => {
                    let _ = self.reach(now, Peer::new(id, [address]), Purpose::Join);
                }
                None => self.reach_address(now, address, Purpose::Join),
            }
        }
    }
}
