//! Finding subscribers of a topic that are no neighbours.
//!
//! A search crosses up to three links, each time to the links that subscribe the topic, or to a few
//! others when none does; answers go back the way it came. Whoever began it dials a few of those
//! found and tells them its subscriptions, which makes the sessions links.

use std::{collections::BTreeSet, time::Duration};

use x0x_core::{MachineId, PeerAddr, TopicId};

use crate::{
    link::Control,
    wire::{FindPeersIn, MAX_FOUND, MAX_TTL, PeersFoundIn},
};

use super::{Output, PubSubMachine, Timer, Topic};

/// Links of a topic below which more subscribers are looked for, and most that are dialled for it.
const ENOUGH: usize = 3;

/// Links that a search is passed on to when none of them subscribes the topic.
const SPREAD: usize = 3;

/// Searches on their way through this node; the oldest is forgotten.
pub(super) const MAX_SEARCHES: usize = 512;

/// How long after a topic's begin it is looked whether it has enough links, and how often then.
const FIRST_LOOK: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_secs(60);

impl PubSubMachine {
    /// Looks in a while whether a topic has enough links.
    pub(super) fn schedule_search(&mut self, topic: TopicId) {
        self.timers.set(self.now + FIRST_LOOK, Timer::Search(topic));
    }

    /// Looks for subscribers of a topic that has too few links.
    pub(super) fn search(&mut self, topic: &TopicId) {
        if !self.is_subscribed(topic) {
            return;
        }
        self.timers.set(self.now + LOOK, Timer::Search(*topic));
        if self.topic_links(topic) >= ENOUGH {
            return;
        }
        let id = self.rng.next_u64();
        self.searches.put((*topic, id), None);
        self.forget_searches();
        self.metrics.searches_sent.inc();
        self.spread(FindPeersIn { topic: *topic, id, ttl: MAX_TTL }, None);
    }

    fn forget_searches(&mut self) {
        while self.searches.len() > MAX_SEARCHES {
            self.searches.pop_lru();
        }
    }

    /// Sends a search to the links that may know more.
    fn spread(&mut self, search: FindPeersIn, from: Option<MachineId>) {
        let open = self.links.iter().filter(|(peer, link)| !link.banned && Some(**peer) != from);
        let (near, far): (Vec<_>, Vec<_>) =
            open.partition(|(_, link)| link.topics.contains_key(&search.topic));
        let near: Vec<MachineId> = near.into_iter().map(|(peer, _)| *peer).collect();
        let mut far: Vec<MachineId> = far.into_iter().map(|(peer, _)| *peer).collect();
        self.rng.shuffle(&mut far);
        far.truncate(SPREAD.saturating_sub(near.len()));
        for peer in near.into_iter().chain(far) {
            self.send_control(peer, Control::FindPeers(search));
        }
    }

    /// A peer looks for subscribers of a topic.
    pub(super) fn peers_wanted(&mut self, peer: MachineId, search: FindPeersIn) {
        let FindPeersIn { topic, id, ttl } = search;
        let now = self.now;
        let Some(link) = self.links.get_mut(&peer) else { return };
        // The same search comes over several links.
        if self.searches.contains(&(topic, id)) {
            return;
        }
        if !link.allowed.searches.take(now) {
            self.metrics.refused_searches.inc();
            return;
        }
        let passed = ttl > 1 && link.allowed.passed.take(now);
        self.searches.put((topic, id), Some(peer));
        self.forget_searches();
        let subscribes = self.links.iter().filter(|(other, link)| {
            **other != peer && !link.banned && link.topics.contains_key(&topic)
        });
        let found = subscribes.filter_map(|(_, link)| link.address.clone());
        let found: Vec<PeerAddr> = found.take(MAX_FOUND).collect();
        let found = self.nameable(&peer, found);
        if !found.is_empty() {
            let found = PeersFoundIn { topic, id, peers: found };
            self.send_control(peer, Control::PeersFound(found));
        }
        if passed {
            self.spread(FindPeersIn { topic, id, ttl: ttl - 1 }, Some(peer));
        }
    }

    /// Subscribers that a peer found: for this node, or to be passed back.
    pub(super) fn peers_found(&mut self, peer: MachineId, found: PeersFoundIn) {
        let now = self.now;
        let Some(link) = self.links.get_mut(&peer) else { return };
        if !link.allowed.found.take(now) {
            self.metrics.refused_searches.inc();
            return;
        }
        // A stranger does not make this node, or others, send packets into the own network.
        let found = PeersFoundIn { peers: self.nameable(&peer, found.peers), ..found };
        match self.searches.get(&(found.topic, found.id)).copied() {
            Some(Some(back)) if back != peer && !found.peers.is_empty() => {
                self.send_control(back, Control::PeersFound(found));
            }
            Some(None) => self.dial(found),
            _ => {}
        }
    }

    /// Subscribers that were found elsewhere.
    pub(super) fn introduced(&mut self, topic: TopicId, mut peers: Vec<PeerAddr>) {
        peers.truncate(MAX_FOUND);
        self.dial(PeersFoundIn { topic, id: 0, peers });
    }

    /// Dials subscribers that were found, until the topic has enough links.
    fn dial(&mut self, found: PeersFoundIn) {
        let has = self.topic_links(&found.topic);
        let mut strangers = self.limits.strangers;
        strangers = strangers.saturating_sub(self.topics.values().map(|t| t.dialled.len()).sum());
        let Some(topic) = self.topics.get_mut(&found.topic).filter(|t| Topic::is_subscribed(t))
        else {
            return;
        };
        for address in found.peers {
            let Some(peer) = address.id else { continue };
            // Those that are links already are counted there.
            let dialling = topic.dialled.iter().filter(|peer| !self.links.contains_key(*peer));
            let room = has + dialling.count() < ENOUGH && strangers > 0;
            if room && !self.links.contains_key(&peer) && topic.dialled.insert(peer) {
                strangers -= 1;
                self.metrics.topic_peers_dialled.inc();
                self.outputs.push_back(Output::Dial(address));
            }
        }
    }

    /// A session with a peer is up that was dialled for a topic: it becomes a link.
    pub(super) fn dialled(&mut self, peer: MachineId, up: bool) {
        let mut wanted = false;
        for topic in self.topics.values_mut() {
            wanted |= topic.dialled.contains(&peer) && topic.is_subscribed();
            if !up {
                topic.dialled.remove(&peer);
            }
        }
        if up && wanted && !self.links.contains_key(&peer) {
            self.admit_stranger(peer);
        }
    }

    /// A topic is no longer subscribed: peers that are links for it alone are left.
    pub(super) fn leave_topic_peers(&mut self, topic: &TopicId) {
        let Some(state) = self.topics.get_mut(topic) else { return };
        for peer in std::mem::take(&mut state.dialled) {
            let others = self.topics.values().any(|topic| topic.dialled.contains(&peer));
            let shared = self.links.get(&peer).is_none_or(|link| {
                let ours: BTreeSet<&TopicId> = self
                    .topics
                    .iter()
                    .filter(|(_, t)| t.is_subscribed())
                    .map(|(id, _)| id)
                    .collect();
                link.neighbor || link.topics.keys().any(|of| of != topic && ours.contains(of))
            });
            if !others && !shared {
                self.link_left(peer);
            }
        }
    }
}
