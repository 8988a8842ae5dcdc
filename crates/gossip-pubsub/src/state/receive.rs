//! What peers send: cheap checks first, then the signature, then the log.

use bytes::Bytes;
use x0x_core::MachineId;
use x0x_identity::PublicKey;

use crate::{
    config::MAX_SUBSCRIBED_TOPICS,
    error::{VerifyError, WireError},
    link::{LinkTopic, Penalty},
    log::Relation,
    run::{Run, RunBody, RunIn},
    wire::{FrameIn, PublishIn, SubscriptionsIn, TopicHeads, WantIn},
};

use super::{Equivocation, Output, PubSubMachine};

/// Points for what an honest peer never sends, whatever the author did.
const FORGERY: u32 = 10;

/// Points for what an honest peer may send, but rarely.
const DUBIOUS: u32 = 1;

/// How long past the retention an entry is still accepted: sweeps and clocks are not exact, and the
/// entry may be needed to continue its author's chain.
const EXPIRY_SLACK_MS: u64 = 60 * 60 * 1000;

/// A run that passed the cheap checks and waits for its signature to be checked.
#[derive(Debug)]
pub struct PendingRun {
    peer: MachineId,
    run: RunIn,
    key: PublicKey,
    floor: bool,
}

/// A run after the check of its signature.
#[derive(Debug)]
pub struct CheckedRun {
    peer: MachineId,
    key: PublicKey,
    floor: bool,
    result: Result<Run, VerifyError>,
}

impl PendingRun {
    /// Checks the signature; about 60 µs and 0.6 µs for each entry.
    #[must_use]
    pub fn verify(self) -> CheckedRun {
        let result = self.run.verify(&self.key);
        CheckedRun { peer: self.peer, key: self.key, floor: self.floor, result }
    }
}

impl PubSubMachine {
    pub(super) fn receive(&mut self, peer: MachineId, message: Bytes) {
        let Some(link) = self.links.get(&peer) else {
            self.metrics.refused_no_link.inc();
            return;
        };
        if link.banned {
            return;
        }
        match FrameIn::decode(message) {
            Ok(FrameIn::Subscriptions(subscriptions)) => self.subscriptions(peer, subscriptions),
            Ok(FrameIn::Publish(publish)) => self.publish(peer, publish),
            Ok(FrameIn::Want(want)) => self.wanted(peer, want),
            Ok(FrameIn::Unknown) => self.metrics.frames_unknown.inc(),
            Err(error) => {
                match error {
                    WireError::Oversized { .. } => &self.metrics.refused_oversized,
                    WireError::Unsigned => &self.metrics.refused_unsigned,
                    WireError::Malformed(_) => &self.metrics.refused_malformed,
                }
                .inc();
                self.penalize(peer, FORGERY);
            }
        }
    }

    fn subscriptions(&mut self, peer: MachineId, change: SubscriptionsIn) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.heard = true;
        if change.set {
            let all: Vec<_> = link.topics.keys().copied().collect();
            all.iter().for_each(|topic| link.drop_topic(topic));
        }
        change.remove.iter().for_each(|topic| link.drop_topic(topic));
        for TopicHeads { topic, heads } in change.add {
            link.drop_topic(&topic);
            let full = link.topics.len() >= MAX_SUBSCRIBED_TOPICS;
            if full || !link.subscribes.take(self.now, 1) {
                self.metrics.refused_subscriptions.inc();
                continue;
            }
            let cursor = self.topics.get(&topic).map_or(0, |state| state.log.base());
            link.topics.insert(topic, LinkTopic::at(cursor));
            for head in heads {
                link.note_have(topic, (head.author, head.epoch), head.seq, &self.limits);
            }
            link.wake(topic);
        }
        self.wake_link(peer);
        self.update_gauges();
    }

    fn wanted(&mut self, peer: MachineId, want: WantIn) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if !link.requests.take(self.now, 1) {
            self.metrics.refused_wants.inc();
            return;
        }
        self.metrics.wants_received.inc();
        if want.need_key {
            link.keys_sent.pop(&want.author);
        }
        let Some(topic) = self.topics.get(&want.topic) else { return };
        let Some(position) = topic.log.position(&want.author, want.epoch, want.from_seq) else {
            return;
        };
        let Some(place) = link.topics.get_mut(&want.topic) else { return };
        // What was sent of the other authors is noted, so going back repeats only this one.
        place.cursor = place.cursor.min(position);
        let chain = (want.author, want.epoch);
        link.reset_have(want.topic, chain, Some(want.from_seq.saturating_sub(1)));
        link.wake(want.topic);
        self.wake_link(peer);
    }

    fn publish(&mut self, peer: MachineId, publish: PublishIn) {
        let PublishIn { run, author_key, floor } = publish;
        let body = run.body();
        if body.network != self.network {
            self.metrics.refused_network.inc();
            return self.penalize(peer, FORGERY);
        }
        let subscribed =
            self.topics.get(&body.topic).is_some_and(|topic| !topic.subscribers.is_empty());
        if !subscribed {
            // Not held against the peer: our unsubscribing may still be on its way to it.
            self.metrics.refused_topic.inc();
            return;
        }
        let entries = body.entries().len() as u64;
        if !self.links.get_mut(&peer).is_some_and(|link| link.entries.take(self.now, entries)) {
            self.metrics.refused_rate.inc();
            let head = self.head_of(body);
            return self.want_from(peer, body, head + 1, false);
        }
        if !self.is_timely(body) || !self.is_wanted(peer, body, run.signature(), floor) {
            return;
        }
        match self.key_of(body, author_key) {
            Ok(Some(key)) => {
                let pending = PendingRun { peer, run, key, floor };
                self.outputs.push_back(Output::Verify(Box::new(pending)));
            }
            Ok(None) => {
                let head = self.head_of(body);
                self.want_from(peer, body, head + 1, true);
            }
            Err(KeyRefused) => {
                self.metrics.refused_key.inc();
                self.penalize(peer, FORGERY);
            }
        }
    }

    /// Whether the run's times are within what is retained and what clocks may differ by.
    fn is_timely(&self, body: &RunBody) -> bool {
        let latest = self.wall + self.limits.clock_ahead;
        let started = body.epoch >> 20;
        if body.last_time().wall() > latest || started > latest.as_millis() {
            self.metrics.refused_future.inc();
            return false;
        }
        let oldest = self.oldest_retained().as_millis().saturating_sub(EXPIRY_SLACK_MS);
        if body.last_time().wall().as_millis() < oldest {
            self.metrics.refused_expired.inc();
            return false;
        }
        true
    }

    /// Decides by its place in the log whether a run is worth verifying, and acts on it if not.
    fn is_wanted(
        &mut self,
        peer: MachineId,
        body: &RunBody,
        signature: &[u8],
        floor: bool,
    ) -> bool {
        let Some(topic) = self.topics.get(&body.topic) else { return false };
        // An honest peer that holds less than we do sends old runs, and one that has not noticed an
        // equivocation sends blocked ones. An author that signs two histories can even make it send
        // runs that do not fit ours, though rarely.
        let points = match topic.log.relation(body, signature) {
            Relation::Next | Relation::Conflict => return true,
            Relation::Gap { head } => return self.accepts_gap(peer, body, head, floor),
            Relation::Duplicate => {
                self.metrics.duplicates.inc();
                self.note_have(peer, body);
                0
            }
            Relation::Old => {
                self.metrics.refused_replayed.inc();
                0
            }
            Relation::Blocked => {
                self.metrics.refused_blocked.inc();
                0
            }
            Relation::Overlap => {
                self.metrics.refused_overlap.inc();
                DUBIOUS
            }
            Relation::Mischained => {
                self.metrics.refused_mischained.inc();
                DUBIOUS
            }
        };
        if points > 0 {
            self.penalize(peer, points);
        }
        false
    }

    /// Entries are missing before this run. They are asked for; only when the sender has nothing
    /// older and no other link supplied them in time, the gap is accepted.
    fn accepts_gap(&mut self, peer: MachineId, body: &RunBody, head: u64, floor: bool) -> bool {
        if floor {
            let others = self.other_links(peer, body);
            if others.is_empty() {
                return true;
            }
            let (now, patience) = (self.now, self.limits.gap_patience);
            let topic = self.topics.get_mut(&body.topic);
            let Some(since) = topic.and_then(|t| t.log.gap_since(&body.author, body.epoch)) else {
                return true;
            };
            match *since {
                Some(since) if now.since(since) >= patience => return true,
                Some(_) => {}
                None => {
                    *since = Some(now);
                    others.into_iter().for_each(|other| {
                        self.want_from(other, body, head + 1, false);
                    });
                }
            }
        }
        self.metrics.refused_gap.inc();
        self.want_from(peer, body, head + 1, false);
        false
    }

    /// The other links that subscribe the run's topic, or have not said yet, so may hold it.
    fn other_links(&self, peer: MachineId, body: &RunBody) -> Vec<MachineId> {
        let others = self.links.iter().filter(|(other, link)| {
            let may_hold = !link.heard || link.topics.contains_key(&body.topic);
            **other != peer && !link.banned && may_hold
        });
        others.map(|(other, _)| *other).collect()
    }

    fn head_of(&self, body: &RunBody) -> u64 {
        self.topics.get(&body.topic).map_or(0, |topic| topic.log.head(&body.author, body.epoch))
    }

    fn want_from(&mut self, peer: MachineId, body: &RunBody, from_seq: u64, need_key: bool) {
        let RunBody { topic, author, epoch, .. } = *body;
        let want = WantIn { topic, author, epoch, from_seq, need_key };
        self.want(peer, want, body.last_seq());
    }

    fn note_have(&mut self, peer: MachineId, body: &RunBody) {
        if let Some(link) = self.links.get_mut(&peer) {
            let chain = (body.author, body.epoch);
            link.note_have(body.topic, chain, body.last_seq(), &self.limits);
        }
    }

    /// The author's key: known, or brought along and checked against the author's id.
    fn key_of(
        &mut self,
        body: &RunBody,
        brought: Option<Bytes>,
    ) -> Result<Option<PublicKey>, KeyRefused> {
        let author = body.author;
        let logged = self.topics.get(&body.topic).and_then(|topic| topic.log.key(&author));
        if let Some(key) = logged.or_else(|| self.keys.get(&author)) {
            let same = brought.is_none_or(|brought| brought[..] == key.as_bytes()[..]);
            return if same { Ok(Some(key.clone())) } else { Err(KeyRefused) };
        }
        let Some(brought) = brought else { return Ok(None) };
        let key = PublicKey::from_bytes(&brought).map_err(|_| KeyRefused)?;
        if key.agent_id() != author {
            return Err(KeyRefused);
        }
        if self.keys.len() >= self.limits.keys {
            self.keys.pop_lru();
        }
        self.keys.put(author, key.clone());
        Ok(Some(key))
    }

    pub(super) fn verified(&mut self, checked: CheckedRun) {
        let CheckedRun { peer, key, floor, result } = checked;
        self.metrics.signatures_verified.inc();
        let Ok(run) = result else {
            self.metrics.refused_signature.inc();
            return self.penalize(peer, FORGERY);
        };
        let body = run.body();
        let Some(topic) = self.topics.get(&body.topic) else { return };
        match topic.log.relation(body, run.signature()) {
            Relation::Next => {}
            Relation::Conflict => return self.equivocation(run),
            // Decided before the signature was checked, and nothing came between.
            _ if !self.is_wanted(peer, body, run.signature(), floor) => return,
            _ => {}
        }
        let head = self.head_of(body);
        if !self.admit_author(body) {
            self.metrics.refused_authors.inc();
            return;
        }
        if head > 0 {
            self.metrics.entries_missed.add((body.first_seq - 1).saturating_sub(head));
        }
        self.note_have(peer, body);
        self.metrics.runs_accepted.inc();
        self.metrics.entries_accepted.add(run.len());
        self.append(run, &key);
    }

    /// Whether the run's author is known in its topic or there is room for one more.
    fn admit_author(&mut self, body: &RunBody) -> bool {
        let Some(topic) = self.topics.get_mut(&body.topic) else { return false };
        if topic.log.knows(&body.author) {
            return true;
        }
        let full =
            topic.log.authors() >= self.limits.topic_authors || self.authors >= self.limits.authors;
        if !full {
            return true;
        }
        let forgotten = topic.log.forget_author();
        self.authors -= usize::from(forgotten);
        forgotten
    }

    fn equivocation(&mut self, run: Run) {
        let body = run.body();
        let (author, id) = (body.author, body.topic);
        let Some(topic) = self.topics.get_mut(&id) else { return };
        let common = body.last_seq().min(topic.log.head(&author, body.epoch));
        let Some(first) = topic.log.find(&author, body.epoch, common).cloned() else { return };
        topic.log.block(&author);
        self.metrics.equivocations.inc();
        if self.equivocations.len() >= self.limits.equivocation_proofs {
            self.equivocations.pop_front();
        }
        let second = std::sync::Arc::new(run);
        self.equivocations.push_back(Equivocation { author, topic: id, first, second });
    }

    fn penalize(&mut self, peer: MachineId, points: u32) {
        let now = self.now;
        if self.penalties.len() >= self.limits.penalties && !self.penalties.contains(&peer) {
            self.penalties.pop_lru();
        }
        let penalty = self.penalties.get_or_insert_mut(peer, || Penalty::new(now));
        if penalty.add(now, points)
            && let Some(link) = self.links.get_mut(&peer)
            && !link.banned
        {
            link.banned = true;
            self.metrics.peers_disconnected.inc();
            self.outputs.push_back(Output::Disconnect(peer));
        }
    }
}

/// The key that came with a run is not its author's.
struct KeyRefused;
