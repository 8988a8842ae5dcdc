//! Active links: asked for, granted or refused, ended (DSN'07 §4.3).

use x0x_core::{MachineId, Tick};

use super::{HyParView, Output, Request, dial::Purpose};
use crate::{peer::Peer, view::Source, wire::Message};

/// Neighbours that nobody pushes out, because they have been there for longest.
const PROTECTED_OLDEST: usize = 2;

impl HyParView {
    /// Neighbours, and requests and dials of this node's own choice that may give one. Those that walks
    /// cause do not count: a neighbour that sends walks to nowhere would keep this node from looking for
    /// others.
    pub(super) fn linked(&self) -> usize {
        let open = self.requests.iter().filter(|(_, request)| request.chosen);
        let requested = open.filter(|(id, _)| !self.active.contains(**id)).count();
        self.active.len() + requested + self.links_dialled()
    }

    /// A peer is reached: ask for what it was dialled for.
    pub(super) fn ask(&mut self, now: Tick, id: MachineId, purpose: Purpose) {
        match purpose {
            Purpose::Join if self.needs_contact(now) => self.join(now, id, false),
            Purpose::Join => {
                let peer = self.session_peer(id);
                self.learn(now, peer, Source::Gossip, &[]);
            }
            Purpose::Merge => self.join(now, id, true),
            Purpose::Compare => self.ask_whom_it_knows(now, id),
            Purpose::Link { urgent } => self.request(now, id, urgent, true),
            Purpose::Walk => self.request(now, id, true, false),
        }
    }

    /// Asks for a link: to a peer that this node picked, or one whose walk ended here.
    fn request(&mut self, now: Tick, id: MachineId, urgent: bool, chosen: bool) {
        if self.active.contains(id) || self.requests.contains_key(&id) {
            return;
        }
        // What cannot be kept is not asked for: it might cost the other side a link.
        let keepable = self.has_room(chosen)
            || self.in_place_of(id).is_some()
            || (urgent && self.evictable().next().is_some());
        if !keepable {
            return;
        }
        if !self.admits(now, id, None) {
            self.metrics.refused_network.inc();
            return self.defer(now, id);
        }
        let high = urgent || self.active.is_empty();
        let deadline = now + self.config.request_timeout;
        let across = urgent && chosen;
        self.requests.insert(id, Request { urgent: high, chosen, across, deadline });
        self.metrics.requests.inc();
        self.send(id, Message::Neighbor { high });
    }

    pub(super) fn on_neighbor(&mut self, now: Tick, from: MachineId, high: bool) {
        self.lost.forget(from);
        // Whoever has nobody else, because it was restarted, needs more peers than this one.
        let entries = if high { self.introductions(from) } else { Vec::new() };
        if self.active.contains(from) {
            return self.send(from, Message::NeighborReply { accept: true, entries });
        }
        self.grant(now, from, high, entries);
    }

    /// Peers for a newcomer to go on with, neighbours first: a node that was restarted dials its old
    /// neighbours sooner than they notice.
    pub(super) fn introductions(&mut self, to: MachineId) -> Vec<Peer> {
        let count = self.shuffle_len();
        self.sample(count, count, to).0
    }

    /// Grants a link when there is room, or when an urgent one may push another out; answers.
    pub(super) fn grant(&mut self, now: Tick, to: MachineId, urgent: bool, entries: Vec<Peer>) {
        let accept = self.admits_counted(now, to) && self.take_place(now, to, urgent);
        self.send(to, Message::NeighborReply { accept, entries });
        if accept {
            self.metrics.accepts.inc();
            self.add_link(now, to);
        } else {
            self.metrics.rejects.inc();
            let peer = self.session_peer(to);
            self.learn(now, peer, Source::Gossip, &[]);
        }
    }

    pub(super) fn on_neighbor_reply(
        &mut self,
        now: Tick,
        from: MachineId,
        accept: bool,
        entries: Vec<Peer>,
    ) {
        let request = self.requests.remove(&from);
        if request.is_some() {
            if !accept && request.as_ref().is_some_and(|request| request.across) {
                let others = self.heard_of_all(from, entries.clone());
                self.no_room_beyond(self.session_peer(from), &others);
            }
            self.integrate(now, from, entries, &[]);
        }
        if self.active.contains(from) {
            // Both asked at once and this side granted first; the reply to that decides.
            return;
        }
        let Some(request) = request else {
            self.metrics.refused_unsolicited.inc();
            if accept {
                self.send(from, Message::Disconnect { alive: true });
            }
            return;
        };
        if !accept {
            self.metrics.requests_refused.inc();
            return self.defer(now, from);
        }
        if let Some(session) = self.sessions.get_mut(&from) {
            session.chosen |= request.chosen;
        }
        if self.admits_counted(now, from) && self.take_place(now, from, request.urgent) {
            self.add_link(now, from);
        } else {
            self.send(from, Message::Disconnect { alive: true });
            self.defer(now, from);
        }
    }

    pub(super) fn on_disconnect(&mut self, now: Tick, from: MachineId, alive: bool) {
        if let Some(peer) = self.drop_link(now, from) {
            if alive {
                self.learn(now, peer, Source::Gossip, &[]);
                return self.defer(now, from);
            }
            self.note_lost(now, peer, true);
        }
        if !alive {
            self.requests.remove(&from);
            if let Some(peer) = self.passive.remove(from) {
                self.note_lost(now, peer, false);
            }
        }
    }

    /// Whether the sender of a neighbour's message is one. If not, it is told that the link is over,
    /// unless an answer that makes it one may be on its way.
    pub(super) fn is_neighbour(&mut self, from: MachineId) -> bool {
        if self.active.contains(from) {
            return true;
        }
        self.metrics.refused_stranger.inc();
        if !self.requests.contains_key(&from) {
            self.metrics.links_repaired.inc();
            self.send(from, Message::Disconnect { alive: true });
        }
        false
    }

    pub(super) fn expire_requests(&mut self, now: Tick) {
        let late: Vec<MachineId> = self
            .requests
            .iter()
            .filter(|(_, request)| request.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.requests.remove(&id);
            self.metrics.requests_expired.inc();
            self.defer(now, id);
        }
    }

    /// Leaves a peer that refused alone for a while, longer each time.
    pub(super) fn defer(&mut self, now: Tick, id: MachineId) {
        if self.active.contains(id) {
            return;
        }
        let peer = self.session_peer(id);
        self.learn(now, peer, Source::Gossip, &[]);
        let doublings = self.passive.refusals(id).min(10);
        let pause = self.config.refusal_min.saturating_mul(1 << doublings);
        let until = self.around(now, pause.min(self.config.refusal_max));
        self.passive.defer(id, until);
    }

    /// Notes a peer as lost. A former neighbour is dialled again when nobody better is known.
    pub(super) fn note_lost(&mut self, now: Tick, peer: Peer, neighbour: bool) {
        let denied_until = now + self.config.deny_time;
        if !neighbour {
            self.book.failed(now, peer.id(), self.config.retry_max);
        }
        let retry_min = self.config.retry_min;
        let retry = neighbour.then(|| (self.around(now, retry_min), retry_min * 2));
        self.passive.remove(peer.id());
        self.lost.insert(peer, denied_until, retry);
    }

    /// Ends the link at this side, if there is one.
    pub(super) fn drop_link(&mut self, now: Tick, id: MachineId) -> Option<Peer> {
        let peer = self.active.remove(id)?;
        self.unwatch(id);
        if self.active.len() < self.target() {
            self.shuffle_soon(now);
        }
        self.outputs.push_back(Output::NeighborDown(id));
        Some(peer)
    }

    fn admits_counted(&self, now: Tick, id: MachineId) -> bool {
        let admits = self.admits(now, id, None);
        if !admits {
            self.metrics.refused_network.inc();
        }
        admits
    }

    /// Whether there is a place for one more neighbour, which this node picked or not.
    fn has_room(&self, chosen: bool) -> bool {
        self.active.len() < self.config.active_max && (chosen || !self.is_inbound_full())
    }

    /// Whether as many neighbours were not picked by this node as may be.
    fn is_inbound_full(&self) -> bool {
        let inbound = self.active.ids().filter(|id| !self.is_chosen(*id)).count();
        inbound >= self.config.inbound_max
    }

    /// Whether this node picked a peer, or is about to.
    fn is_chosen(&self, id: MachineId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.chosen)
            || self.requests.get(&id).is_some_and(|request| request.chosen)
    }

    /// Finds a place for a peer, if need be by dropping a neighbour; false when there is none.
    fn take_place(&mut self, now: Tick, id: MachineId, urgent: bool) -> bool {
        let chosen = self.is_chosen(id);
        if self.has_room(chosen) {
            return true;
        }
        if let Some(crowded) = self.in_place_of(id) {
            self.metrics.spread.inc();
            self.demote(now, crowded);
            return true;
        }
        let made = urgent && self.make_room(now);
        if !made && !chosen && self.active.len() < self.config.active_max {
            self.metrics.refused_inbound.inc();
        }
        made
    }

    /// Neighbours that may have to make room for strangers: not those known for longest, and not
    /// those that this node chose and dialled itself. A flood of strangers cannot cut it off from them.
    pub(super) fn evictable(&self) -> impl Iterator<Item = MachineId> {
        self.active.ids().skip(PROTECTED_OLDEST).filter(|id| !self.is_chosen(*id))
    }

    /// Drops a random neighbour, if strangers may cause that now.
    fn make_room(&mut self, now: Tick) -> bool {
        let evictable: Vec<MachineId> = self.evictable().collect();
        let Some(&id) = evictable.get(self.rng.below(evictable.len())) else {
            return false;
        };
        if !self.evictions.take(now) {
            return false;
        }
        self.demote(now, id);
        true
    }

    /// Ends the link to a neighbour that lives, to give its place to another.
    pub(super) fn demote(&mut self, now: Tick, id: MachineId) {
        self.metrics.demotions.inc();
        self.send(id, Message::Disconnect { alive: true });
        if let Some(peer) = self.drop_link(now, id) {
            self.learn(now, peer, Source::Gossip, &[]);
            self.defer(now, id);
        }
    }

    fn add_link(&mut self, now: Tick, id: MachineId) {
        let mut peer = self.session_peer(id);
        if let Some(known) = self.passive.remove(id)
            && !peer.is_dialable()
        {
            peer = known;
        }
        self.lost.forget(id);
        self.bootstrap_linked(now, id);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.chosen |= self.requests.get(&id).is_some_and(|request| request.chosen);
        }
        self.active.push(peer);
        self.count_networks();
        self.watch(now, id);
        self.linked_beyond(id);
        self.introduce(id);
        self.outputs.push_back(Output::NeighborUp(id));
        if self.active.len() == 1 {
            self.shuffle_soon(now);
        }
    }
}
