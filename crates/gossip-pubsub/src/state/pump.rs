//! What there is to send to links and to deliver to subscribers, one item at a time.

use bytes::Bytes;
use x0x_core::{AgentId, MachineId, TopicId, WallTime};

use crate::{
    config::Limits,
    link::{Link, Offer, Outgoing},
    log::{Item, TopicLog},
    wire::{self, FrameKind, PublishWire, SubscriptionsWire, TopicHeads, WantIn},
};

use super::{Output, PubSubMachine, THROTTLE};

/// Bytes of one subscriptions frame after which the rest goes into the next.
const ANNOUNCE_BYTES: usize = 256 * 1024;

impl PubSubMachine {
    pub(super) fn next_output(&mut self) -> Option<Output> {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            if let Some(peer) = self.ready_links.pop_front() {
                if let Some(message) = self.next_frame(peer) {
                    return Some(Output::Send { peer, message });
                }
            } else if let Some(id) = self.ready_subscribers.pop_front() {
                if let Some(output) = self.next_delivery(id) {
                    return Some(output);
                }
            } else {
                return None;
            }
        }
    }

    /// The next frame for a link; the link stays in the queue, behind the others, until it has
    /// nothing more.
    fn next_frame(&mut self, peer: MachineId) -> Option<Bytes> {
        let link = self.links.get_mut(&peer)?;
        link.queued = false;
        if !link.can_send() {
            return None;
        }
        link.offer = None;
        let outgoing = self.next_control(peer).or_else(|| self.next_run(peer));
        let link = self.links.get_mut(&peer)?;
        if link.runs_throttled || link.topics_throttled {
            self.set_timeout(THROTTLE);
        }
        let outgoing = outgoing?;
        let link = self.links.get_mut(&peer)?;
        link.offer = Some(outgoing.offer);
        self.wake_link(peer);
        Some(outgoing.message)
    }

    fn next_control(&mut self, peer: MachineId) -> Option<Outgoing> {
        let link = self.links.get_mut(&peer)?;
        let set = std::mem::take(&mut link.announce_set);
        let again = std::mem::take(&mut link.announce_again);
        let removed: Vec<TopicId> = std::mem::take(&mut link.retract).into_iter().collect();
        removed.iter().for_each(|topic| {
            link.announced.remove(topic);
        });
        let (mut added, mut encoded, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < ANNOUNCE_BYTES
            && !link.topics_throttled
            && let Some(topic) = link.announce.first().copied()
        {
            if !link.paced_topics.take(self.now) {
                link.topics_throttled = true;
                break;
            }
            link.announce.remove(&topic);
            link.announced.insert(topic);
            let heads = self.topics.get(&topic).map_or_else(Vec::new, |state| state.log.heads());
            let heads = TopicHeads { topic, heads }.encode();
            bytes += heads.len();
            encoded.push(heads);
            added.push(topic);
        }
        // What is subscribed goes before what is wanted of it.
        if !set && removed.is_empty() && added.is_empty() {
            let want = link.wants.pop()?;
            self.metrics.wants_sent.inc();
            return Some(Outgoing { message: want.encode(), offer: Offer::Want(want) });
        }
        let message = wire::encode(FrameKind::Subscriptions(SubscriptionsWire {
            set,
            again,
            add: encoded,
            remove: removed.iter().map(|topic| wire::copy(topic.as_bytes())).collect(),
        }));
        Some(Outgoing { message, offer: Offer::Announce { set, again, added, removed } })
    }

    fn next_run(&mut self, peer: MachineId) -> Option<Outgoing> {
        let oldest = self.oldest_retained();
        loop {
            let link = self.links.get_mut(&peer).filter(|link| !link.runs_throttled)?;
            let topic = link.next_topic()?;
            let Some(state) = self.topics.get(&topic) else { continue };
            let (item, evicted) = link.next_run(self.now, topic, &state.log, oldest);
            self.metrics.entries_evicted_unsent.add(evicted);
            let congested = state.congested;
            let outgoing = item.map(|item| {
                let outgoing = publish(link, &self.limits, &state.log, item, oldest);
                let body = item.run.body();
                let chain = (body.author(), body.epoch());
                let had = link.note_have(topic, chain, body.last_seq(), &self.limits);
                let offer = Offer::Run { topic, cursor: item.start, chain, had, key: outgoing.1 };
                if let Some(place) = link.topics.get_mut(&topic) {
                    place.cursor = item.end();
                }
                link.wake(topic);
                self.metrics.runs_sent.inc();
                self.metrics.entries_sent.add(item.run.len());
                self.metrics.keys_sent.add(u64::from(outgoing.1.is_some()));
                Outgoing { message: outgoing.0, offer }
            });
            if congested {
                self.update_congestion(&topic);
            }
            if outgoing.is_some() {
                return outgoing;
            }
        }
    }

    fn next_delivery(&mut self, id: super::SubscriptionId) -> Option<Output> {
        let subscriber = self.subscribers.get_mut(&id)?;
        subscriber.queued = false;
        if subscriber.full {
            return None;
        }
        let topic = self.topics.get(&subscriber.topic)?;
        let batch = subscriber.next_batch(&topic.log);
        if batch.is_empty() {
            return None;
        }
        self.wake_subscriber(id);
        Some(Output::Deliver { subscription: id, batch })
    }

    pub(super) fn send_refused(&mut self, peer: &MachineId) {
        let Some(link) = self.links.get_mut(peer) else { return };
        link.refuse_offer();
        self.metrics.sends_refused.inc();
    }

    pub(super) fn writable(&mut self, peer: MachineId) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.paused = false;
        self.wake_link(peer);
    }

    /// Asks a link for a missing range.
    pub(super) fn want(&mut self, peer: MachineId, want: WantIn, upto: u64) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.wants.want(self.now, want, upto, &self.limits);
        self.wake_link(peer);
        self.set_timeout(self.limits.gap_patience);
    }

    /// Asks again for what is still missing after a while.
    pub(super) fn retry_missing(&mut self) {
        let peers: Vec<MachineId> = self.links.keys().copied().collect();
        for peer in peers {
            let Some(link) = self.links.get_mut(&peer) else { continue };
            let head = |topic: &TopicId, chain: &crate::link::ChainId| {
                let topic = self.topics.get(topic).filter(|state| !state.subscribers.is_empty())?;
                Some(topic.log.head(&chain.0, chain.1))
            };
            let retried = link.wants.retry(self.now, &self.limits, head);
            self.metrics.wants_slowed.add(retried.slowed);
            for topic in retried.resubscribe {
                if self.topics.get(&topic).is_some_and(|state| !state.subscribers.is_empty()) {
                    link.announce.insert(topic);
                    self.metrics.resubscribed.inc();
                }
            }
            self.wake_link(peer);
            if let Some(next) = retried.next {
                self.set_timeout(next.since(self.now));
            }
        }
    }
}

/// The frame of a run for a link, with the author's key the first time.
fn publish(
    link: &mut Link,
    limits: &Limits,
    log: &TopicLog,
    item: &Item,
    oldest: WallTime,
) -> (Bytes, Option<AgentId>) {
    let run = &item.run;
    let body = run.body();
    let author = body.author();
    let key = log.key(&author).filter(|_| !link.keys_sent.contains(&author));
    let floor = body.first_seq() > 1 && log.is_floor(run, oldest);
    let Some(key) = key else {
        // Keeps a key that is in use from being evicted before one that is not.
        link.keys_sent.promote(&author);
        if !floor {
            return (run.frame().clone(), None);
        }
        let author_key = Bytes::new();
        let publish = PublishWire { run: run.encoded().clone(), author_key, floor };
        return (wire::encode(FrameKind::Publish(publish)), None);
    };
    link.note_key(author, limits);
    let author_key = wire::copy(key.as_bytes());
    let publish = PublishWire { run: run.encoded().clone(), author_key, floor };
    (wire::encode(FrameKind::Publish(publish)), Some(author))
}
