//! How much strangers may take: links that are not sessions yet, and sessions, altogether and from
//! one network.
//!
//! Networks are told apart only where addresses cost something: those of this machine, link or site
//! share the general limits alone.

use std::{collections::BTreeSet, net::IpAddr};

use x0x_core::{MachineId, Scope, Tick};

use super::{LinkId, LinkState, LinkUp, Output, Phase, Sessions};
use crate::{
    config::{MAX_PENDING_LINKS, MAX_PENDING_PER_NETWORK, MAX_PENDING_PER_PEER},
    link::Side,
    prefix::Prefix,
    wire::CloseCode,
};

/// The network that a stranger's address counts for.
fn network(ip: IpAddr) -> Option<Prefix> {
    (Scope::of_path(ip) == Scope::Global).then(|| Prefix::of(ip))
}

impl Sessions {
    pub(super) fn on_accepted(&mut self, now: Tick, up: LinkUp) {
        if up.peer == self.local {
            self.output(Output::Close { link: up.link, code: CloseCode::Misbehaved });
        } else if self.may_wait(&up) && self.make_room(now) {
            self.add_link(now, up, Side::Acceptor, false);
        } else {
            self.metrics.links_refused_limit.inc();
            self.output(Output::Close { link: up.link, code: CloseCode::Limit });
        }
    }

    fn pending(&self) -> impl Iterator<Item = (&LinkId, &LinkState)> {
        self.links.iter().filter(|(_, link)| !matches!(link.phase, Phase::Session))
    }

    /// Whether the peer and its network have a place left among the links on their way.
    fn may_wait(&self, up: &LinkUp) -> bool {
        let of_peer = self.pending().filter(|(_, link)| link.peer == up.peer).count();
        let from = network(up.address.ip());
        let of_network =
            self.pending().filter(|(_, link)| network(link.address.ip()) == from).count();
        of_peer < MAX_PENDING_PER_PEER && (from.is_none() || of_network < MAX_PENDING_PER_NETWORK)
    }

    /// Gives up the oldest link that a peer opened when there are too many: an honest peer's hello
    /// comes within a round trip, so whoever waits longest is the least likely to be one. Links
    /// whose hello came go last.
    fn make_room(&mut self, now: Tick) -> bool {
        if self.pending().count() < MAX_PENDING_LINKS {
            return true;
        }
        let accepted = self.pending().filter(|(_, link)| link.side == Side::Acceptor);
        let oldest = accepted.min_by_key(|(id, link)| (matches!(link.phase, Phase::Keep(_)), **id));
        let Some(oldest) = oldest.map(|(id, _)| *id) else { return false };
        self.metrics.links_evicted.inc();
        self.refuse(now, oldest, CloseCode::Limit);
        true
    }

    /// Whether there is room for the session that this link would be; it is closed otherwise.
    /// Sessions that are idle give way.
    pub(super) fn admit(&mut self, now: Tick, id: LinkId) -> bool {
        let room = self.network_has_room(now, id) && self.has_room(now);
        if !room {
            self.metrics.links_refused_limit.inc();
            self.refuse(now, id, CloseCode::Limit);
        }
        room
    }

    /// Whether there is room for a further session, made if it can be.
    pub(super) fn has_room(&mut self, now: Tick) -> bool {
        !self.is_full() || self.evict_idle(now, |_| true)
    }

    /// Sessions that this machine dialled are its own choice and count for nobody.
    fn network_has_room(&mut self, now: Tick, id: LinkId) -> bool {
        let Some(link) = self.links.get(&id).filter(|link| link.side == Side::Acceptor) else {
            return true;
        };
        let Some(from) = network(link.address.ip()) else { return true };
        let links = self
            .sessions
            .iter()
            .filter_map(|(peer, session)| self.links.get(&session.link).map(|link| (*peer, link)));
        let accepted = links.filter(|(_, link)| link.side == Side::Acceptor);
        let of_network: BTreeSet<MachineId> = accepted
            .filter(|(_, link)| network(link.address.ip()) == Some(from))
            .map(|(peer, _)| peer)
            .collect();
        of_network.len() < self.config.max_sessions_per_network
            || self.evict_idle(now, |peer| of_network.contains(&peer))
    }
}
