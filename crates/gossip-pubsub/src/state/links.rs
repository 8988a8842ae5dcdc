//! Links: which sessions are one, and what they are told is subscribed here.

use std::collections::BTreeSet;

use x0x_core::{MachineId, PeerAddr, TopicId, WallTime};

use crate::{
    config::{Dissemination, MAX_SUBSCRIBED_TOPICS, MAX_WAITING_LINKS},
    link::{Control, Link, LinkTopic, Score},
    wire::{SubscriptionsIn, TopicHeads},
};

use super::{Output, PubSubMachine};

/// What was published within this time before the end may not have been asked for yet.
const RECENT_MS: u64 = 2000;

impl PubSubMachine {
    /// Tells every link that a topic is subscribed here, or no longer is.
    pub(super) fn announce(&mut self, topic: TopicId, subscribed: bool) {
        let peers: Vec<MachineId> = self.links.keys().copied().collect();
        for peer in peers {
            if let Some(link) = self.links.get_mut(&peer) {
                if subscribed {
                    link.retract.remove(&topic);
                    link.announce.insert(topic);
                } else {
                    link.announce.remove(&topic);
                    if link.announced.contains(&topic) {
                        link.retract.insert(topic);
                    }
                }
            }
            self.wake_link(peer);
        }
    }

    pub(super) fn link_up(&mut self, peer: MachineId) {
        if self.banned.get(&peer).is_some_and(|until| *until > self.now) {
            self.metrics.refused_banned.inc();
            return;
        }
        if let Some(link) = self.links.get_mut(&peer) {
            // It spoke first.
            link.neighbor = true;
            return self.update_hold(&peer);
        }
        self.waiting.retain(|waiting| *waiting != peer);
        if self.links.len() < self.limits.links || self.evict_stranger(true) {
            self.admit(peer, false, true);
        } else {
            self.metrics.refused_links.inc();
            if self.waiting.len() < MAX_WAITING_LINKS {
                self.waiting.push_back(peer);
            }
        }
        self.update_gauges();
    }

    /// Makes a session a link. One that waited has announced its subscriptions in vain and is asked
    /// for them.
    fn admit(&mut self, peer: MachineId, waited: bool, neighbor: bool) {
        let mut link = Link::new(self.now, &self.limits);
        link.neighbor = neighbor;
        link.announce = self.subscribed_topics().collect();
        link.announce_again = waited;
        if let Some(score) = self.scores.pop(&peer) {
            link.score = score;
        }
        self.links.insert(peer, link);
        self.wake_link(peer);
    }

    /// Makes the session of a peer a link that is no neighbour: one that sends its subscriptions, or
    /// was dialled for a topic. False when there is no room for such a stranger. They leave room for
    /// neighbours, and those from one network leave room for those from others.
    pub(super) fn admit_stranger(&mut self, peer: MachineId) -> bool {
        if self.banned.get(&peer).is_some_and(|until| *until > self.now) {
            self.metrics.refused_banned.inc();
            return false;
        }
        let crowd = self.network_strangers(&peer);
        let room = self.links.len() < self.limits.links
            && !self.waiting.contains(&peer)
            && crowd < self.limits.network_strangers
            && (self.strangers().count() < self.limits.strangers
                || (self.is_dialled(&peer) && self.evict_stranger(false)));
        if room {
            self.admit(peer, false, false);
        } else {
            self.metrics.refused_strangers.inc();
        }
        room
    }

    fn strangers(&self) -> impl Iterator<Item = (&MachineId, &Link)> {
        self.links.iter().filter(|(_, link)| !link.neighbor)
    }

    /// Whether this node dialled a peer for a topic.
    fn is_dialled(&self, peer: &MachineId) -> bool {
        self.topics.values().any(|topic| topic.dialled.contains(peer))
    }

    /// Ends the link of a stranger: one that was not dialled from here, and of those one that shares
    /// no topic, the worst first. Without `any`, none that was dialled.
    fn evict_stranger(&mut self, any: bool) -> bool {
        let now = self.now;
        let ranked = self
            .strangers()
            .map(|(peer, link)| ((!self.is_dialled(peer), !link.held, link.rank(now)), *peer));
        let worst = ranked.filter(|((inbound, ..), _)| any || *inbound).max();
        let Some((_, peer)) = worst else { return false };
        self.outputs.push_back(Output::Send { peer, message: Control::Leave.encode() });
        self.remove_link(&peer)
    }

    /// Keeps the sessions of strangers that share a topic.
    pub(super) fn update_holds(&mut self) {
        let strangers: Vec<MachineId> = self.strangers().map(|(peer, _)| *peer).collect();
        strangers.iter().for_each(|peer| self.update_hold(peer));
    }

    fn update_hold(&mut self, peer: &MachineId) {
        let Some(link) = self.links.get_mut(peer) else { return };
        let topics = &self.topics;
        let shared = |topic| topics.get(topic).is_some_and(super::Topic::is_subscribed);
        let held = !link.neighbor && !link.banned && link.topics.keys().any(shared);
        if held != link.held {
            link.held = held;
            self.outputs.push_back(Output::Hold { peer: *peer, held });
        }
    }

    /// The session is over.
    pub(super) fn link_down(&mut self, peer: &MachineId) {
        self.paths.remove(peer);
        self.end_link(peer);
    }

    fn end_link(&mut self, peer: &MachineId) {
        self.waiting.retain(|waiting| waiting != peer);
        if self.remove_link(peer)
            && let Some(next) = self.waiting.pop_front()
        {
            self.admit(next, true, true);
        }
        self.update_gauges();
    }

    /// Whether there was one.
    fn remove_link(&mut self, peer: &MachineId) -> bool {
        let Some(link) = self.links.remove(peer) else { return false };
        self.remember(*peer, link.score);
        if link.held {
            self.outputs.push_back(Output::Hold { peer: *peer, held: false });
        }
        self.timers.drop_link(*peer);
        self.missing.remove_peer(peer, self.now);
        // Another one may be dialled in its place.
        self.topics.values_mut().for_each(|topic| {
            topic.dialled.remove(peer);
        });
        for topic in link.topics.keys() {
            self.update_congestion(topic);
            self.ensure_eager(topic);
        }
        true
    }

    /// Keeps how a peer behaved beyond its link.
    fn remember(&mut self, peer: MachineId, score: Score) {
        if self.scores.len() >= self.limits.penalties {
            self.scores.pop_lru();
        }
        self.scores.put(peer, score);
    }

    /// The peer is no neighbour any more: it is told, and the link ends once that is sent.
    pub(super) fn link_left(&mut self, peer: MachineId) {
        self.waiting.retain(|waiting| *waiting != peer);
        if self.links.contains_key(&peer) {
            self.outputs.push_back(Output::Send { peer, message: Control::Leave.encode() });
            self.end_link(&peer);
        }
    }

    /// The service ends: every link gets what this author published just now, whether it is pushed to
    /// or not, since nobody will be here to be asked for it.
    pub(super) fn closing(&mut self) {
        self.closing = true;
        let recent = self.wall.as_millis().saturating_sub(RECENT_MS);
        let recent = WallTime::from_millis(recent);
        let mut woken = Vec::new();
        for (id, topic) in self.topics.iter().filter(|(_, topic)| topic.own) {
            for (epoch, first, head) in topic.log.recent(&self.me, recent) {
                let chain = (self.me, epoch);
                for (peer, link) in &mut self.links {
                    let from = first.max(link.view(id, chain).have + 1);
                    if link.topics.contains_key(id) && from <= head {
                        link.pulls.begin((*id, chain), from, head, &self.limits);
                        woken.push(*peer);
                    }
                }
            }
        }
        woken.into_iter().for_each(|peer| self.wake_link(peer));
    }

    pub(super) fn address(&mut self, address: PeerAddr) {
        if let Some(link) = address.id.and_then(|peer| self.links.get_mut(&peer)) {
            link.address = Some(address);
        }
    }

    pub(super) fn subscriptions(&mut self, peer: MachineId, change: SubscriptionsIn) {
        if change.leave {
            return self.end_link(&peer);
        }
        if change.again {
            self.announce_again(peer);
        }
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.heard = true;
        // What is not subscribed costs nothing to remove; what is, was paid for when it was added.
        let mut dropped: BTreeSet<TopicId> = change.remove.into_iter().collect();
        dropped.retain(|topic| link.topics.contains_key(topic));
        if change.set {
            dropped.extend(link.topics.keys().copied());
        }
        dropped.iter().for_each(|topic| link.drop_topic(topic));
        for add in change.add {
            self.subscription(peer, add);
        }
        for topic in dropped {
            self.ensure_eager(&topic);
            self.update_congestion(&topic);
        }
        self.update_hold(&peer);
        self.wake_link(peer);
        self.update_gauges();
    }

    /// The peer did not hear what is subscribed here.
    fn announce_again(&mut self, peer: MachineId) {
        let subscribed: BTreeSet<TopicId> = self.subscribed_topics().collect();
        let Some(link) = self.links.get_mut(&peer) else { return };
        let count = u32::try_from(subscribed.len()).unwrap_or(u32::MAX).max(1);
        if link.allowed.topics.take_many(self.now, count) {
            link.announce = subscribed;
        } else {
            self.metrics.refused_subscriptions.inc();
        }
    }

    /// The peer subscribes a topic.
    fn subscription(&mut self, peer: MachineId, add: TopicHeads) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        let full =
            link.topics.len() >= MAX_SUBSCRIBED_TOPICS && !link.topics.contains_key(&add.topic);
        if full || !link.allowed.topics.take(self.now) {
            self.metrics.refused_subscriptions.inc();
            return;
        }
        let end = self.topics.get(&add.topic).map_or(0, |state| state.log.end());
        let eager = self.begins_eager(&add.topic, &peer);
        if let Some(link) = self.links.get_mut(&peer) {
            link.add_topic(add.topic, LinkTopic::at(end, eager));
        }
        if self.serves(peer, &add.topic) {
            self.compare_subscription(peer, add);
        } else {
            self.compare_soon(add.topic);
        }
    }

    /// Whether a new link of a topic begins as a part of the shared tree.
    fn begins_eager(&self, topic: &TopicId, peer: &MachineId) -> bool {
        match self.limits.dissemination {
            Dissemination::Mesh(degree) => {
                let others = self.links.iter().filter(|(other, _)| *other != peer);
                let eager =
                    others.filter(|(_, link)| link.topics.get(topic).is_some_and(|t| t.eager));
                eager.count() < usize::from(degree)
            }
            _ => true,
        }
    }
}
