//! Sessions that go by a relay or in a stream, until a direct path is found.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use x0x_core::{MachineId, Tick};

use super::Actor;
use crate::{
    sock::{
        prober::Input,
        table::{is_detour, is_relayed},
    },
    state::LinkId,
};

/// Waits before a direct path is sought again; the last one repeats.
const RETRIES: [Duration; 4] = [
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(300),
];

#[derive(Debug, Clone, Copy)]
struct Upgrade {
    tries: usize,
    at: Tick,
}

/// The searches for direct paths of all sessions that have none.
#[derive(Debug, Default)]
pub(super) struct Upgrades {
    all: BTreeMap<LinkId, Upgrade>,
    /// Where this machine was at the last look.
    own: Vec<SocketAddr>,
}

impl Upgrades {
    pub(super) fn forget(&mut self, link: LinkId) {
        self.all.remove(&link);
    }

    /// Whether a direct path of a session that has none is to be sought now.
    fn is_due(&mut self, now: Tick, link: LinkId, moved: bool) -> bool {
        let first = Upgrade { tries: 0, at: now + RETRIES[0] };
        let upgrade = self.all.entry(link).or_insert(first);
        if moved {
            *upgrade = Upgrade { tries: 0, at: now };
        }
        let due = upgrade.at <= now;
        if due {
            upgrade.tries = (upgrade.tries + 1).min(RETRIES.len() - 1);
            upgrade.at = now + RETRIES[upgrade.tries];
        }
        due
    }
}

impl Actor {
    /// Seeks direct paths for sessions that have none: the end that dialled, again and again; either end, when it
    /// finds itself at another address.
    pub(super) fn check_upgrades(&mut self, now: Tick) {
        let mut detours = Vec::new();
        for (id, handle) in &self.links {
            let Some(session) = &handle.session else { continue };
            let address = handle.link.remote_address();
            if is_detour(address) {
                detours.push((*id, session.peer, session.is_dialled(), is_relayed(address)));
            } else {
                self.upgrades.forget(*id);
            }
        }
        let streamed = detours.iter().filter(|(.., by_relay)| !by_relay).count();
        let metrics = &self.context.metrics;
        metrics.sessions_by_relay.set((detours.len() - streamed) as u64);
        metrics.sessions_by_stream.set(streamed as u64);
        if detours.is_empty() {
            return self.upgrades.own.clear();
        }
        let own = self.own_candidates();
        let known = !self.upgrades.own.is_empty();
        let moved = std::mem::replace(&mut self.upgrades.own, own) != self.upgrades.own && known;
        for (id, peer, dialled, by_relay) in detours {
            let due = dialled && self.upgrades.is_due(now, id, moved);
            if due {
                self.probe_listening(id, now);
            }
            // Who takes streams is reached by packets, too, once any pass.
            if by_relay && (due || (!dialled && moved)) {
                self.punch(peer);
            }
        }
    }

    /// Asks at the addresses where the peer of a session without a direct path says that it listens.
    fn probe_listening(&mut self, id: LinkId, now: Tick) {
        let Some(flow) = self.paths.flow(id) else { return };
        for address in self.places(now, id) {
            if !is_detour(address) {
                self.paths.probe(now, Input::Probe { flow, address });
            }
        }
        self.carry_probes();
    }

    /// Asks whether the peer of a session that this machine dialled answers at an address that was found. A
    /// direct one is of use only to a session that goes by a relay.
    pub(super) fn probe_session(&mut self, peer: MachineId, address: SocketAddr) {
        let Some(id) = self.dialled_session(peer) else { return };
        let relayed = self.is_by_relay(id);
        if let Some(flow) = self.paths.flow(id).filter(|_| relayed || is_relayed(address)) {
            self.paths.probe(self.now(), Input::Probe { flow, address });
            self.carry_probes();
        }
    }

    /// The link of the session with a peer, if this machine dialled it.
    fn dialled_session(&self, peer: MachineId) -> Option<LinkId> {
        let dialled = self.links.iter().filter(|(_, handle)| {
            let session = handle.session.as_ref();
            session.is_some_and(|session| session.peer == peer && session.is_dialled())
        });
        dialled.map(|(id, _)| *id).next_back()
    }

    fn is_by_relay(&self, id: LinkId) -> bool {
        self.links.get(&id).is_some_and(|handle| is_relayed(handle.link.remote_address()))
    }

    /// Whether a peer that was reached by a relay is still to be reached otherwise.
    pub(super) fn wants_direct(&self, peer: MachineId) -> bool {
        self.dialled_session(peer).is_some_and(|id| self.is_by_relay(id))
    }

    /// A way by a relay is over: whoever is on it looks for another at once.
    pub(super) fn on_way_closed(&mut self, way: SocketAddr, relay: MachineId) {
        let on_it = self.links.iter().filter(|(_, handle)| handle.link.remote_address() == way);
        let sessions = on_it.filter_map(|(id, handle)| Some((*id, handle.session.clone()?)));
        let dialled = sessions.filter(|(_, session)| session.is_dialled());
        let dialled: Vec<_> = dialled.map(|(id, session)| (id, session.peer)).collect();
        let now = self.now();
        for (id, peer) in dialled {
            let received = self.links.get(&id).and_then(|handle| handle.link.received());
            self.paths.ask(id, received.unwrap_or(0));
            self.probe_listening(id, now);
            self.seek_relay(peer, Some(relay));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direct_path_is_sought_more_and_more_seldom_and_at_once_after_a_move() {
        let mut upgrades = Upgrades::default();
        let at = |secs: u64| Tick::from_millis(secs * 1000);
        let link = LinkId(1);
        let due: Vec<u64> =
            (0..1000).filter(|secs| upgrades.is_due(at(*secs), link, false)).collect();
        assert_eq!(due, [5, 20, 80, 380, 680, 980]);
        assert!(upgrades.is_due(at(1000), link, true));
        assert!(!upgrades.is_due(at(1001), link, false));
        assert!(upgrades.is_due(at(1015), link, false));
        upgrades.forget(link);
        assert!(upgrades.all.is_empty());
    }
}
