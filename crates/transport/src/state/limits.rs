//! How much strangers may take: links that are not sessions yet, and sessions, altogether and from
//! one network.
//!
//! Sessions are *wanted* when somebody here asked for them or an agent of theirs is preferred, and *held*
//! when a layer needs them. The others are strangers': they take at most three quarters of the places, and when there is none left
//! for a session that is wanted or held, the one of theirs that this machine used least recently
//! makes room.
//!
//! Networks are told apart only where addresses cost something; on the link and the site, single
//! addresses are. Those of this machine share the general limits alone.

use std::{collections::BTreeSet, net::IpAddr};

use x0x_core::{MachineId, Scope, Tick};

use super::{LinkId, LinkState, LinkUp, Output, Phase, Sessions};
use crate::{
    config::{MAX_PENDING_LINKS, MAX_PENDING_PER_NETWORK, MAX_PENDING_PER_PEER, MAX_PER_HOST},
    link::Side,
    prefix::Prefix,
    wire::CloseCode,
};

/// The networks that a stranger's address counts for, with what each may take when the smallest may take
/// `cap`.
fn networks(ip: IpAddr, cap: usize) -> impl Iterator<Item = (Prefix, usize)> {
    let (narrow, wide) = match Scope::of_path(ip) {
        Scope::Loopback => (None, None),
        Scope::Link | Scope::Site => (Some((Prefix::host(ip), MAX_PER_HOST)), None),
        _ => (Some((Prefix::of(ip), cap)), Prefix::site(ip).map(|site| (site, 2 * cap))),
    };
    narrow.into_iter().chain(wide)
}

fn is_of(link: &LinkState, network: Prefix) -> bool {
    networks(link.address.ip(), 0).any(|(of, _)| of == network)
}

impl Sessions {
    pub(super) fn on_accepted(&mut self, now: Tick, up: LinkUp) {
        if up.peer == self.local {
            self.output(Output::Close { link: up.link, code: CloseCode::Misbehaved });
        } else if self.may_wait(&up) && self.make_room(now) {
            self.add_link(now, up, Side::Acceptor, false, false);
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
        let mut networks = networks(up.address.ip(), MAX_PENDING_PER_NETWORK);
        of_peer < MAX_PENDING_PER_PEER
            && networks.all(|(network, cap)| {
                self.pending().filter(|(_, link)| is_of(link, network)).count() < cap
            })
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
    /// Sessions that are idle give way, and strangers' to those that are not.
    pub(super) fn admit(&mut self, now: Tick, id: LinkId) -> bool {
        let Some(link) = self.links.get_mut(&id) else { return false };
        link.wanted |= self.dials.want(link.peer);
        let room = if link.wanted || link.held {
            self.has_room(now) || self.evict_stranger(now)
        } else {
            let ip = link.address.ip();
            self.networks_have_room(now, ip) && self.strangers_have_room(now) && self.has_room(now)
        };
        if !room {
            self.metrics.links_refused_limit.inc();
            self.refuse(now, id, CloseCode::Limit);
        }
        room
    }

    /// Whether there is room for a further session, made if one is idle.
    fn has_room(&mut self, now: Tick) -> bool {
        !self.is_full() || self.evict_idle(now, |_| true)
    }

    /// Whether room could be made for a session that is wanted, or that is not.
    pub(super) fn may_have_room(&self, now: Tick, wanted: bool) -> bool {
        let strangers = self.strangers().count();
        let place = match wanted {
            true => !self.is_full() || strangers > 0,
            false => !self.is_full() && strangers < self.stranger_places(),
        };
        place || !self.idle(now, |_| true).is_empty()
    }

    /// Peers whose sessions are their own choice.
    fn strangers(&self) -> impl Iterator<Item = MachineId> {
        let all = self.sessions.iter().filter(|(_, session)| !session.held);
        let link = |id: &LinkId| self.links.get(id);
        all.filter(move |(_, session)| link(&session.link).is_some_and(|link| !link.wanted))
            .map(|(peer, _)| *peer)
    }

    /// Whether so many sessions are up that strangers' have to be counted exactly.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.sessions.len() >= self.stranger_places()
    }

    const fn stranger_places(&self) -> usize {
        self.config.max_sessions - self.config.max_sessions / 4
    }

    fn strangers_have_room(&mut self, now: Tick) -> bool {
        let strangers: BTreeSet<MachineId> = self.strangers().collect();
        strangers.len() < self.stranger_places()
            || self.evict_idle(now, |peer| strangers.contains(&peer))
    }

    /// Closes the strangers' session that this machine used least recently; false when there is none.
    fn evict_stranger(&mut self, now: Tick) -> bool {
        let used = |peer: &MachineId| self.sessions.get(peer).map(|session| session.used);
        let Some(peer) = self.strangers().min_by_key(|peer| (used(peer), *peer)) else {
            return false;
        };
        self.evict(now, peer);
        true
    }

    /// Whether all networks that the address counts for have room for a stranger's session.
    fn networks_have_room(&mut self, now: Tick, ip: IpAddr) -> bool {
        networks(ip, self.config.max_sessions_per_network).all(|(network, cap)| {
            let link = |peer: &MachineId| self.links.get(&self.sessions.get(peer)?.link);
            let strangers = self.strangers();
            let here = strangers.filter(|peer| link(peer).is_some_and(|link| is_of(link, network)));
            let here: BTreeSet<MachineId> = here.collect();
            here.len() < cap || self.evict_idle(now, |peer| here.contains(&peer))
        })
    }
}
