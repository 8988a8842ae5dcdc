//! Reaching peers without a session: each is dialled, and told why once its session is up.

use std::net::SocketAddr;

use x0x_core::{MachineId, PeerAddr, Tick};

use super::{DialFailure, HyParView, Output};
use crate::peer::Peer;

/// Most dials that the overlay has open at once.
pub const MAX_DIALS: usize = 8;

/// Most of them that walks cause. Whoever sends walks names whom to dial: the other dials are for peers
/// that this node picks, however many walks come.
pub const MAX_WALK_DIALS: usize = 2;

/// A dial without a result, or whose session has not been announced yet.
#[derive(Debug)]
pub(super) struct Dial {
    target: Target,
    purpose: Purpose,
    pub(super) deadline: Tick,
}

#[derive(Debug, PartialEq, Eq)]
enum Target {
    Peer(Peer),
    Address(SocketAddr),
}

/// What to ask of a peer once it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A way into the overlay; of no use any more when there are neighbours enough.
    Join,
    /// A way into what may be another part of the overlay, however many neighbours there are.
    Merge,
    /// A link; urgent when it is wanted even at the cost of another.
    Link { urgent: bool },
    /// Whom it knows: perhaps nobody that this node knows.
    Compare,
    /// An urgent link to a newcomer whose walk ended here.
    Walk,
}

impl Target {
    fn matches(&self, to: &PeerAddr) -> bool {
        match self {
            Self::Peer(peer) => to.id == Some(peer.id()),
            Self::Address(address) => to.id.is_none() && to.addresses.first() == Some(address),
        }
    }
}

impl HyParView {
    pub(super) const fn may_dial(&self) -> bool {
        self.dials.len() < MAX_DIALS
    }

    /// Whether a dial to this peer is under way.
    pub(super) fn is_dialling(&self, id: MachineId) -> bool {
        self.dials.iter().any(|dial| matches!(&dial.target, Target::Peer(peer) if peer.id() == id))
    }

    pub(super) fn is_dialling_address(&self, address: SocketAddr) -> bool {
        self.dials.iter().any(|dial| dial.target == Target::Address(address))
    }

    /// Number of dials of peers that this node picked, which may end in a link.
    pub(super) fn links_dialled(&self) -> usize {
        self.dials.len() - self.walks_dialled()
    }

    fn walks_dialled(&self) -> usize {
        self.dials.iter().filter(|dial| dial.purpose == Purpose::Walk).count()
    }

    /// Asks now when the peer has a session, else dials it. False when neither is possible.
    pub(super) fn reach(&mut self, now: Tick, peer: Peer, purpose: Purpose) -> bool {
        if self.has_session(peer.id()) {
            self.ask(now, peer.id(), purpose);
            return true;
        }
        let ending = self.sessions.contains_key(&peer.id());
        let crowded = purpose == Purpose::Walk && self.walks_dialled() >= MAX_WALK_DIALS;
        let refused = crowded || !self.may_dial() || self.is_dialling(peer.id());
        if ending || refused || !peer.is_dialable() {
            return false;
        }
        self.start_dial(now, peer.to_addr(), Target::Peer(peer), purpose);
        true
    }

    /// Dials an address whose owner is not known.
    pub(super) fn reach_address(&mut self, now: Tick, address: SocketAddr, purpose: Purpose) {
        let target = Target::Address(address);
        self.start_dial(now, PeerAddr::unknown(address), target, purpose);
    }

    /// A session is up: ask what the dial was for, if there was one.
    pub(super) fn on_reached(&mut self, now: Tick, id: MachineId) {
        let reached = |dial: &Dial| matches!(&dial.target, Target::Peer(p) if p.id() == id);
        if let Some(place) = self.dials.iter().position(reached) {
            let dial = self.dials.remove(place);
            if let Some(session) = self.sessions.get_mut(&id) {
                session.chosen &= dial.purpose != Purpose::Walk;
            }
            self.ask(now, id, dial.purpose);
        }
    }

    pub(super) fn on_dial_result(
        &mut self,
        now: Tick,
        to: &PeerAddr,
        result: Result<MachineId, DialFailure>,
    ) {
        let Some(place) = self.dials.iter().position(|dial| dial.target.matches(to)) else {
            return;
        };
        let mut dial = self.dials.remove(place);
        match result {
            Ok(id) => {
                if let Target::Address(address) = dial.target {
                    self.identify_bootstrap(address, id);
                    if id == self.local {
                        return;
                    }
                    dial.target = Target::Peer(Peer::new(id, [address]));
                }
                if self.has_session(id) {
                    self.ask(now, id, dial.purpose);
                } else if !self.is_dialling(id) {
                    self.dials.push(dial);
                }
            }
            Err(failure) => self.fail_dial(now, dial, failure),
        }
    }

    /// Gives up dials whose result or session never came.
    pub(super) fn expire_dials(&mut self, now: Tick) {
        while let Some(place) = self.dials.iter().position(|dial| dial.deadline <= now) {
            let dial = self.dials.remove(place);
            self.fail_dial(now, dial, DialFailure::Unreachable);
        }
    }

    fn start_dial(&mut self, now: Tick, to: PeerAddr, target: Target, purpose: Purpose) {
        // The transport gives up first, so that one peer is never dialled twice at a time.
        let deadline = now + self.config.dial_timeout * 2;
        self.dials.push(Dial { target, purpose, deadline });
        self.metrics.dials.inc();
        self.outputs.push_back(Output::Dial(to));
    }

    fn fail_dial(&mut self, now: Tick, dial: Dial, failure: DialFailure) {
        self.metrics.dials_failed.inc();
        let peer = match dial.target {
            Target::Address(address) => return self.fail_bootstrap(address, failure),
            Target::Peer(peer) => peer,
        };
        let id = peer.id();
        self.unidentify_bootstrap(id);
        if let DialFailure::Later(pause) = failure {
            let at = now + pause.max(self.config.retry_min);
            return self.passive.defer(id, at);
        }
        self.note_lost(now, peer, false);
    }
}
