//! What there is to send to links and to deliver to subscribers, one item at a time.

use bytes::Bytes;
use x0x_core::{AgentId, MachineId, TopicId, WallTime};

use crate::{
    config::{Limits, MAX_INLINE_HEADS},
    link::{Link, Offer, Outgoing, Scan, Step, View},
    log::{Item, TopicLog},
    run::publish_frame,
    wire::{self, AnnounceIn, Before, FrameKind, SubscriptionsWire, TopicHeads},
};

use super::{Output, PubSubMachine, THROTTLE, Timer, Topic};

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
        let outgoing = self
            .next_subscriptions(peer)
            .or_else(|| self.next_control(peer))
            .or_else(|| self.next_heads(peer))
            .or_else(|| self.next_run(peer));
        let link = self.links.get_mut(&peer)?;
        if (link.runs_throttled || link.topics_throttled) && link.throttle_at.is_none() {
            let at = self.now + THROTTLE;
            link.throttle_at = Some(at);
            self.timers.set(at, Timer::Throttle(peer));
        }
        let outgoing = outgoing?;
        let link = self.links.get_mut(&peer)?;
        link.offer = Some(outgoing.offer);
        self.wake_link(peer);
        Some(outgoing.message)
    }

    fn next_subscriptions(&mut self, peer: MachineId) -> Option<Outgoing> {
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
            let heads = topic_heads(topic, self.topics.get(&topic)).encode();
            bytes += heads.len();
            encoded.push(heads);
            added.push(topic);
        }
        if !set && removed.is_empty() && added.is_empty() {
            return None;
        }
        let message = wire::encode(FrameKind::Subscriptions(SubscriptionsWire {
            set,
            again,
            add: encoded,
            remove: removed.iter().map(|topic| wire::copy(topic.as_bytes())).collect(),
            leave: false,
        }));
        Some(Outgoing { message, offer: Offer::Subscriptions { set, again, added, removed } })
    }

    fn next_control(&mut self, peer: MachineId) -> Option<Outgoing> {
        let control = self.links.get_mut(&peer)?.next_control()?;
        Some(Outgoing { message: control.encode(), offer: Offer::Control(control) })
    }

    /// The heads that were gathered, when it is time.
    fn next_heads(&mut self, peer: MachineId) -> Option<Outgoing> {
        let link = self.links.get_mut(&peer)?;
        if link.heads_at.is_none_or(|at| at > self.now) {
            return None;
        }
        let heads = link.take_heads();
        if heads.is_empty() {
            return None;
        }
        link.heads_sent = Some(self.now);
        self.metrics.heads_announced.add(heads.len() as u64);
        Some(Outgoing { message: AnnounceIn::encode(&heads), offer: Offer::Heads(heads) })
    }

    /// Makes sure that gathered heads are sent in a while: soon after a quiet time, at a slower beat
    /// in a steady flow.
    pub(super) fn schedule_heads(&mut self, peer: MachineId) {
        let soon = self.now + self.limits.announce_delay;
        if let Some(link) = self.links.get_mut(&peer)
            && !link.heads.is_empty()
            && link.heads_at.is_none()
        {
            let beat = link.heads_sent.map(|at| at + self.limits.announce_every);
            let at = beat.map_or(soon, |beat| soon.max(beat));
            link.heads_at = Some(at);
            self.timers.set(at, Timer::Heads(peer));
        }
    }

    /// The next run: of what was asked for and of what is pushed, in turns.
    fn next_run(&mut self, peer: MachineId) -> Option<Outgoing> {
        let link = self.links.get_mut(&peer)?;
        link.pulls_turn = !link.pulls_turn;
        if link.pulls_turn {
            self.next_pulled(peer).or_else(|| self.next_pushed(peer))
        } else {
            self.next_pushed(peer).or_else(|| self.next_pulled(peer))
        }
    }

    fn next_pushed(&mut self, peer: MachineId) -> Option<Outgoing> {
        let oldest = self.oldest_retained();
        let last_chance = self.closing.then_some(self.me);
        loop {
            let link = self.links.get_mut(&peer).filter(|link| !link.runs_throttled)?;
            let Some(topic) = link.next_topic() else {
                self.schedule_heads(peer);
                return self.next_heads(peer);
            };
            let Some(state) = self.topics.get(&topic) else { continue };
            let scan = Scan { now: self.now, limits: &self.limits, oldest, last_chance };
            let (step, evicted) = link.scan(scan, topic, &state.log);
            self.metrics.entries_evicted_unsent.add(evicted);
            let outgoing = match step {
                Step::Done => None,
                Step::HeadsFull => {
                    link.wake(topic);
                    link.heads_at = Some(self.now);
                    self.next_heads(peer)
                }
                Step::Push(item) => {
                    let (body, cursor) = (item.run.body(), item.start);
                    let chain = (body.author(), body.epoch());
                    let (message, key) = publish(link, &self.limits, &state.log, item, oldest);
                    let had = sent(link, &topic, item, &self.limits);
                    if let Some(place) = link.topics.get_mut(&topic) {
                        place.cursor = item.end();
                    }
                    link.wake(topic);
                    self.metrics.runs_sent.inc();
                    self.metrics.entries_sent.add(item.run.len());
                    self.metrics.keys_sent.add(u64::from(key.is_some()));
                    Some(Outgoing { message, offer: Offer::Run { topic, cursor, chain, had, key } })
                }
            };
            if self.topics.get(&topic).is_some_and(|state| state.congested) {
                self.update_congestion(&topic);
            }
            if outgoing.is_some() {
                return outgoing;
            }
        }
    }

    fn next_pulled(&mut self, peer: MachineId) -> Option<Outgoing> {
        let oldest = self.oldest_retained();
        loop {
            let link = self.links.get_mut(&peer).filter(|link| !link.runs_throttled)?;
            let ((topic, chain), next) = link.pulls.front()?;
            let log = self.topics.get(&topic).map(|state| &state.log);
            let log = log.filter(|log| !log.is_blocked(&chain.0));
            let item = log.and_then(|log| Some((log, log.serve(&chain.0, chain.1, next)?)));
            let Some((log, item)) = item else {
                link.pulls.end();
                continue;
            };
            let body = item.run.body();
            let after = body.last_seq() + 1;
            if body.is_expired(oldest) {
                link.pulls.sent(after, false);
                continue;
            }
            if !link.pace(self.now, item.run.len()) {
                link.runs_throttled = true;
                return None;
            }
            // What follows a gap may be refused: the peer asks for it once it accepts the gap.
            let gap = body.first_seq() > next;
            link.pulls.sent(after, gap);
            let (message, key) = publish(link, &self.limits, log, item, oldest);
            let had = sent(link, &topic, item, &self.limits);
            self.metrics.runs_sent.inc();
            self.metrics.runs_pulled.inc();
            self.metrics.entries_sent.add(item.run.len());
            self.metrics.keys_sent.add(u64::from(key.is_some()));
            let offer = Offer::Pulled { topic, chain, next, had, key };
            if self.topics.get(&topic).is_some_and(|state| state.congested) {
                self.update_congestion(&topic);
            }
            return Some(Outgoing { message, offer });
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
        link.refuse_offer(self.now, &self.limits);
        self.metrics.sends_refused.inc();
    }

    pub(super) fn writable(&mut self, peer: MachineId) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.paused = false;
        self.wake_link(peer);
    }
}

/// A topic with what is held of it, in as much detail as fits.
pub(super) fn topic_heads(topic: TopicId, state: Option<&Topic>) -> TopicHeads {
    let Some(log) = state.map(|state| &state.log) else {
        return TopicHeads { topic, heads: Vec::new(), fingerprint: [0; 16], chains: 0 };
    };
    let fingerprint = log.fingerprint();
    let inline = fingerprint.chains() as usize <= MAX_INLINE_HEADS;
    let heads = if inline { log.all_heads() } else { Vec::new() };
    TopicHeads { topic, heads, fingerprint: fingerprint.digest(), chains: fingerprint.chains() }
}

/// Notes that a run is sent on a link; what was noted before, in case it is refused.
fn sent(link: &mut Link, topic: &TopicId, item: &Item, limits: &Limits) -> View {
    let body = item.run.body();
    let Some(view) = link.view_mut(topic, (body.author(), body.epoch()), limits) else {
        return View::default();
    };
    let had = *view;
    view.have = view.have.max(body.last_seq());
    had
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
    let known = link.keys_sent.contains(&author);
    let key = if known { None } else { log.key(&author) };
    let before = if body.first_seq() == 1 || !log.is_floor(run, oldest) {
        Before::Held
    } else if item.missed == 0 {
        Before::Removed
    } else {
        Before::Unheard
    };
    let Some(key) = key else {
        // Keeps a key that is in use from being evicted before one that is not.
        link.keys_sent.promote(&author);
        if before == Before::Held {
            return (run.frame(item.hops), None);
        }
        let encoded = run.encoded().clone();
        return (publish_frame(encoded, Bytes::new(), before, item.hops + 1), None);
    };
    link.note_key(author, limits);
    let author_key = wire::copy(key.as_bytes());
    let encoded = run.encoded().clone();
    (publish_frame(encoded, author_key, before, item.hops + 1), Some(author))
}
