//! Joining through a contact, and the walks that spread a newcomer's links (DSN'07 §4.2).

use x0x_core::{MachineId, Tick};

use super::{HyParView, Request, dial::Purpose};
use crate::{peer::Peer, view::Source, wire::Message};

impl HyParView {
    /// Asks a contact with a session for a place in the overlay. One that linked with this node in the
    /// meantime, because it knew it from before, is asked all the same: for the peers that it tells of.
    pub(super) fn join(&mut self, now: Tick, contact: MachineId, across: bool) {
        let settled = self.active.contains(contact) && self.linked() >= self.target();
        if settled || self.requests.contains_key(&contact) {
            return;
        }
        let deadline = now + self.config.request_timeout;
        let request = Request { urgent: true, chosen: true, across, deadline };
        self.requests.insert(contact, request);
        self.metrics.requests.inc();
        self.send(contact, Message::Join);
    }

    /// A newcomer asks for a place. It is taken in when there is room or an eviction is allowed, and
    /// walked through the overlay in any case: a busy contact still finds it neighbours.
    pub(super) fn on_join(&mut self, now: Tick, newcomer: MachineId) {
        self.metrics.joins.inc();
        self.lost.forget(newcomer);
        let entries = self.introductions(newcomer);
        if self.active.contains(newcomer) {
            return self.send(newcomer, Message::NeighborReply { accept: true, entries });
        }
        self.grant(now, newcomer, true, entries);
        let joiner = self.session_peer(newcomer);
        if !joiner.is_dialable() {
            return;
        }
        let others: Vec<MachineId> = self.active.ids().filter(|id| *id != newcomer).collect();
        for to in others {
            let message =
                Message::ForwardJoin { ttl: self.config.active_walk, joiner: joiner.clone() };
            self.send(to, message);
        }
    }

    /// A newcomer walks by. The walk ends here when it has no hops left, when there is nowhere else
    /// to go, or when this node is short of neighbours itself.
    pub(super) fn on_forward_join(&mut self, now: Tick, from: MachineId, ttl: u8, joiner: Peer) {
        if !self.is_neighbour(from) {
            return;
        }
        let Some(joiner) = self.heard_of(from, joiner) else {
            return;
        };
        let id = joiner.id();
        if id != from && self.active.contains(id) {
            self.doubt(now, joiner.clone());
        }
        let short = self.linked() < self.target();
        if !self.is_busy(id) && (ttl == 0 || self.active.len() == 1 || short) {
            if !self.may_walk(now, from) {
                return;
            }
            self.metrics.walks_ended.inc();
            // Where the joiner is known to be goes first: a false walk must not make it unreachable.
            let known = self.passive.proven(id).or_else(|| self.lost.former(id));
            let target = known.map_or_else(|| joiner.clone(), |known| known.and_heard(&joiner));
            if !self.reach(now, target, Purpose::Walk) {
                self.learn(now, joiner, Source::Gossip, &[]);
            }
            return;
        }
        if ttl == self.config.passive_walk {
            self.learn(now, joiner.clone(), Source::Gossip, &[]);
        }
        if let (Some(left), Some(next)) =
            (ttl.checked_sub(1), self.active.choose(&[from, id], &mut self.rng))
        {
            self.send(next, Message::ForwardJoin { ttl: left, joiner });
        }
    }

    /// Whether one more walk of a neighbour may end here.
    fn may_walk(&mut self, now: Tick, from: MachineId) -> bool {
        let may = self.sessions.get_mut(&from).is_some_and(|session| session.walks.take(now));
        if !may {
            self.metrics.refused_walks.inc();
        }
        may
    }
}
