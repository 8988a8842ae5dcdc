//! Reconciliation: with whom and when a topic is compared, and what follows from it.

use std::time::Duration;

use x0x_core::{MachineId, TopicId};

use crate::{
    compare::{self, Answer, Compared, Gone},
    config::MAX_HEADS,
    link::{Control, UNSERVED_AT},
    wire::{DigestIn, Head, HeadsIn, RangesIn, TopicHeads, WantIn},
};

use super::{PubSubMachine, Timer};

/// When a topic is compared again of which something was not answered or found no room.
const AGAIN: Duration = Duration::from_secs(3);

impl PubSubMachine {
    /// Compares topics again with links that told of more than there was room for, once there is.
    pub(super) fn compare_crowded(&mut self) {
        for (peer, topic) in self.missing.take_crowded(&self.limits) {
            self.send_digest(peer, &topic);
        }
    }

    /// Sets the time of a topic's next comparison.
    pub(super) fn schedule_reconcile(&mut self, topic: TopicId) {
        let every = u64::try_from(self.limits.reconcile_every.as_micros()).unwrap_or(u64::MAX / 2);
        let jitter = every / 10 * 3;
        let after =
            Duration::from_micros(self.rng.range(every - jitter, every.saturating_add(jitter)));
        self.timers.set(self.now + after, Timer::Reconcile(topic));
    }

    /// The time of a topic's regular comparison.
    pub(super) fn reconcile(&mut self, topic: &TopicId) {
        if self.is_subscribed(topic) {
            self.schedule_reconcile(*topic);
            self.compare(topic);
        }
    }

    /// Compares a topic with one of its links drawn at random, unless both are known to be equal.
    pub(super) fn compare(&mut self, topic: &TopicId) {
        if let Some(state) = self.topics.get_mut(topic) {
            state.compare_at = None;
        }
        let subscribes = self
            .links
            .iter()
            .filter(|(_, link)| !link.banned && !link.paused && link.topics.contains_key(topic));
        let peers: Vec<MachineId> = subscribes.map(|(peer, _)| *peer).collect();
        let Some(peer) = peers.get(self.rng.below(peers.len())).copied() else { return };
        self.send_digest(peer, topic);
    }

    /// Compares a topic with a link, unless both are known to be equal.
    pub(super) fn send_digest(&mut self, peer: MachineId, topic: &TopicId) {
        let Some(digest) = self.digest(&peer, topic) else { return };
        let place = self.links.get(&peer).and_then(|link| link.topics.get(topic));
        if place.is_some_and(|place| place.equal != Some(digest.fingerprint)) {
            self.metrics.comparisons.inc();
            self.send_control(peer, Control::Digest(digest));
        }
    }

    /// What is held of a topic, as it is compared with a link.
    fn compared(&self, peer: &MachineId, topic: &TopicId) -> Option<Compared<'_>> {
        static NONE: Gone = Gone::new();
        let state = self.topics.get(topic).filter(|state| !state.loading)?;
        let place = self.links.get(peer).and_then(|link| link.topics.get(topic));
        Some(Compared::new(&state.log, place.map_or(&NONE, |place| &place.gone)))
    }

    pub(super) fn digest(&self, peer: &MachineId, topic: &TopicId) -> Option<DigestIn> {
        let fingerprint = self.compared(peer, topic)?.fingerprint();
        let chains = fingerprint.chains();
        Some(DigestIn { topic: *topic, fingerprint: fingerprint.digest(), chains })
    }

    /// Whether a link may have a comparison answered, which reads what is held of the topic.
    pub(super) fn serves(&mut self, peer: MachineId, topic: &TopicId) -> bool {
        let now = self.now;
        let chains = self.topics.get(topic).map_or(0, |state| state.log.fingerprint().chains());
        let Some(link) = self.links.get_mut(&peer) else { return false };
        let served = link.score.points(now) < UNSERVED_AT && link.allowed.compare(now, chains);
        if !served {
            self.metrics.refused_comparisons.inc();
        }
        served
    }

    /// A peer subscribed a topic: what it has of it is compared at once.
    pub(super) fn compare_subscription(&mut self, peer: MachineId, theirs: TopicHeads) {
        let TopicHeads { topic, heads, fingerprint, chains } = theirs;
        if self.found_equal(peer, &topic, fingerprint) {
            return;
        }
        let mine = self.topics.get(&topic).map_or(0, |state| state.log.fingerprint().chains());
        if heads.len() == chains as usize && mine as usize <= MAX_HEADS {
            // When the topic is still to be announced to the peer, it learns from that.
            let pending = self.links.get(&peer).is_some_and(|link| link.announce.contains(&topic));
            self.compare_heads(peer, HeadsIn { topic, heads, reply: !pending });
        } else {
            self.told(peer, topic, &heads);
            self.compare_further(peer, topic, chains);
        }
    }

    pub(super) fn digest_received(&mut self, peer: MachineId, digest: DigestIn) {
        let topic = digest.topic;
        if !self.serves(peer, &topic) {
            return;
        }
        let place = self.links.get(&peer).and_then(|link| link.topics.get(&topic));
        let known = place.is_none_or(|place| place.equal == Some(digest.fingerprint));
        if !self.found_equal(peer, &topic, digest.fingerprint) {
            self.compare_further(peer, topic, digest.chains);
        } else if !known && let Some(mine) = self.digest(&peer, &topic) {
            // Told once, so that neither asks again while nothing changes.
            self.send_control(peer, Control::Digest(mine));
        }
    }

    /// Whether a link has the same of a topic; also when there is nothing to compare it with.
    fn found_equal(&mut self, peer: MachineId, topic: &TopicId, theirs: [u8; 16]) -> bool {
        let Some(mine) = self.digest(&peer, topic) else { return true };
        let equal = mine.fingerprint == theirs;
        let link = self.links.get_mut(&peer);
        if let Some(place) = link.and_then(|link| link.topics.get_mut(topic)) {
            place.equal = equal.then_some(theirs);
        }
        equal
    }

    /// The topics differ: by lists when both are short, else by ranges.
    fn compare_further(&mut self, peer: MachineId, topic: TopicId, theirs: u32) {
        let Some(mine) = self.compared(&peer, &topic) else { return };
        let chains = mine.fingerprint().chains() as usize;
        if chains <= MAX_HEADS && theirs as usize <= MAX_HEADS {
            let heads = HeadsIn { topic, heads: mine.all(), reply: true };
            self.send_list(peer, topic, Control::Heads(heads));
        } else {
            let ranges = RangesIn { topic, ranges: compare::begin(mine) };
            self.send_list(peer, topic, Control::Ranges(ranges));
        }
    }

    /// Sends a part of a comparison; when there is no room for it, the topic is compared again.
    fn send_list(&mut self, peer: MachineId, topic: TopicId, control: Control) {
        if !self.send_control(peer, control) {
            self.compare_soon(topic);
        }
    }

    /// Compares a topic out of turn in a while.
    pub(super) fn compare_soon(&mut self, topic: TopicId) {
        let at = self.now + AGAIN;
        if let Some(state) = self.topics.get_mut(&topic)
            && state.compare_at.is_none()
        {
            state.compare_at = Some(at);
            self.timers.set(at, Timer::Compare(topic));
        }
    }

    pub(super) fn heads_received(&mut self, peer: MachineId, heads: HeadsIn) {
        if self.serves(peer, &heads.topic) {
            self.compare_heads(peer, heads);
        }
    }

    fn compare_heads(&mut self, peer: MachineId, theirs: HeadsIn) {
        let HeadsIn { topic, heads, reply } = theirs;
        if reply && let Some(link) = self.links.get_mut(&peer) {
            link.forget_gone(&topic, compare::FIRST, None);
        }
        self.told(peer, topic, &heads);
        let subscribes = self.links.get(&peer).is_some_and(|link| link.topics.contains_key(&topic));
        if !reply || !subscribes {
            return;
        }
        let Some(mine) = self.compared(&peer, &topic) else { return };
        let heads = compare::all_ahead(mine, &heads);
        if !heads.is_empty() {
            let heads = HeadsIn { topic, heads, reply: false };
            self.send_list(peer, topic, Control::Heads(heads));
        }
    }

    pub(super) fn ranges_received(&mut self, peer: MachineId, ranges: RangesIn) {
        let topic = ranges.topic;
        if !self.serves(peer, &topic) {
            return;
        }
        let pivot = self.rng.below(ranges.ranges.len().max(1));
        let Some(mine) = self.compared(&peer, &topic) else { return };
        let Answer { told, whole, ranges, left } = compare::answer(mine, ranges.ranges, pivot);
        if let Some(link) = self.links.get_mut(&peer) {
            whole.into_iter().for_each(|(from, to)| link.forget_gone(&topic, from, to));
        }
        self.told(peer, topic, &told);
        if left {
            self.compare_soon(topic);
        }
        if !ranges.is_empty() {
            self.send_list(peer, topic, Control::Ranges(RangesIn { topic, ranges }));
        }
    }

    /// A link has entries up to these: what is missing of them here is asked for.
    fn told(&mut self, peer: MachineId, topic: TopicId, heads: &[Head]) {
        for head in heads {
            let chain = (head.author, head.epoch);
            let Some(state) = self.topics.get(&topic) else { return };
            let mine = state.log.head(&head.author, head.epoch);
            let lacks = mine < head.seq && state.is_subscribed();
            // What is not taken here is as good as gone there.
            let gone = lacks && (head.gone || !state.log.takes(&head.author, head.epoch));
            if let Some(link) = self.links.get_mut(&peer) {
                link.note_have(&topic, chain, head.seq, &self.limits);
                link.note_gone(&topic, chain, gone.then_some(head.seq), &self.limits);
            }
            if lacks && !gone {
                self.lack(peer, (topic, chain), head.seq, false);
            }
        }
    }

    /// A peer asks for entries.
    pub(super) fn wanted(&mut self, peer: MachineId, want: WantIn) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if !link.allowed.requests.take(self.now) {
            self.metrics.refused_wants.inc();
            return;
        }
        self.metrics.wants_received.inc();
        if want.need_key {
            link.keys_sent.pop(&want.author);
        }
        let Some(topic) = self.topics.get(&want.topic) else { return };
        let head = topic.log.head(&want.author, want.epoch);
        if !link.topics.contains_key(&want.topic) || want.from_seq > head {
            return;
        }
        let key = (want.topic, (want.author, want.epoch));
        link.catches_up(&key, want.from_seq);
        if !link.pulls.begin(key, want.from_seq, head, &self.limits) {
            self.metrics.refused_wants.inc();
        }
        self.wake_link(peer);
    }
}
