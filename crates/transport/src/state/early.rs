//! Early sessions: those over a link that this end dialled to its arbiter, from the peer's hello until its keep.
//!
//! The peer is proven, and what is sent rides with the last flight of the handshake. The arbiter may still take another
//! link: it then reads nothing of this one, and the session moves there. When it closes the link as a duplicate before that
//! other link is known here, the session waits for it, as its dial does.

use x0x_core::{MachineId, Tick};

use super::{LinkId, LinkState, Output, Session, Sessions, Timer};
use crate::{
    link::{LinkClosed, Side},
    wire::{CloseCode, Hello},
};

impl Session {
    /// Whether the arbiter has not taken it yet.
    pub(super) const fn is_early(&self) -> bool {
        self.number == 0
    }
}

/// Whether a link that ends so may be followed by another try.
pub(super) const fn is_fault(code: CloseCode) -> bool {
    matches!(code, CloseCode::Misbehaved | CloseCode::Timeout | CloseCode::WrongNetwork)
}

impl Sessions {
    /// Whether the session of this link is early.
    pub(super) fn is_early(&self, id: LinkId, peer: MachineId) -> bool {
        self.sessions.get(&peer).is_some_and(|session| session.link == id && session.is_early())
    }

    /// Whether a dialled link to the arbiter is the only one with it: then nothing says that it will take another.
    pub(super) fn may_begin_early(&self, id: LinkId, peer: MachineId) -> bool {
        let others = self.links.iter().any(|(other, link)| *other != id && link.peer == peer);
        !others && !self.sessions.contains_key(&peer) && self.dials.of_link(id).is_some()
    }

    pub(super) fn begin_early(&mut self, now: Tick, id: LinkId, hello: Hello) {
        if self.admit(now, id) {
            self.begin_session(now, id, 0, hello);
        }
    }

    /// The arbiter took the link.
    pub(super) fn taken(&mut self, now: Tick, id: LinkId, number: u64) {
        let Some(peer) = self.links.get(&id).map(|link| link.peer) else { return };
        let contested = self.forget_reconnect(peer);
        if let Some(session) = self.sessions.get_mut(&peer) {
            (session.number, session.contested) = (number, contested);
        }
        self.timers.cancel(Timer::Link(id));
        self.output(Output::Taken { link: id, peer });
        self.dials_reached(now, peer);
    }

    /// Whether the arbiter, by taking this link, has not taken that of the early session. If this end asked to replace a
    /// session it may have: then nothing is sent twice.
    pub(super) fn may_move(&self, id: LinkId, peer: MachineId, hello: &Hello) -> bool {
        let early = self.sessions.get(&peer).filter(|session| session.is_early());
        early.is_some_and(|session| session.instance == hello.instance)
            && self.links.get(&id).is_some_and(|link| !link.replaces)
    }

    /// The early session goes on over another link.
    pub(super) fn move_early(&mut self, now: Tick, id: LinkId, number: u64, mut hello: Hello) {
        let Some(link) = self.links.get(&id) else { return };
        let (peer, side, address) = (link.peer, link.side, link.address);
        self.retain_plausible(address, &mut hello);
        let contested = self.forget_reconnect(peer);
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        let from = std::mem::replace(&mut session.link, id);
        (session.number, session.contested) = (number, contested);
        session.listen_addresses = hello.listen_addresses;
        self.timers.cancel(Timer::Link(id));
        self.metrics.sessions_moved_early.inc();
        self.output(Output::Moved { from, to: id, side, peer });
        if self.links.remove(&from).is_some() {
            self.timers.cancel(Timer::Link(from));
            self.output(Output::Close { link: from, code: CloseCode::Duplicate });
        }
        self.dials_reached(now, peer);
    }

    /// Whether the end of an early session's link says that the arbiter has another one for it.
    pub(super) fn awaits_other_link(
        &self,
        id: LinkId,
        link: &LinkState,
        reason: &LinkClosed,
    ) -> bool {
        *reason == LinkClosed::Peer(CloseCode::Duplicate)
            && link.side == Side::Dialer
            && !link.replaces
            && self.is_early(id, link.peer)
            && self.dials.of_link(id).is_some()
    }

    /// Ends an early session that waits for a link: its dial has ended, or it is not wanted.
    pub(super) fn end_waiting(&mut self, now: Tick, peer: MachineId) {
        if self.drop_waiting(peer) {
            self.dials_reached(now, peer);
        }
    }

    /// The same without its dial.
    pub(super) fn drop_waiting(&mut self, peer: MachineId) -> bool {
        let waits =
            |session: &&Session| session.is_early() && !self.links.contains_key(&session.link);
        let Some(link) = self.sessions.get(&peer).filter(waits).map(|session| session.link) else {
            return false;
        };
        self.sessions.remove(&peer);
        self.metrics.sessions.set(self.sessions.len() as u64);
        self.output(Output::Down { link, peer });
        true
    }
}
