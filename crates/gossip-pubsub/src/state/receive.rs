//! What peers send: cheap checks first, then the signature, then the log.

use std::collections::BTreeSet;

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

/// Points for a run that no honest peer forwards, although its author may have signed it.
const DUBIOUS: u32 = 1;

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
        let subscribed =
            if change.again { self.subscribed_topics().collect() } else { BTreeSet::new() };
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.heard = true;
        if change.again {
            link.announce = subscribed;
        }
        if change.set {
            let all: Vec<_> = link.topics.keys().copied().collect();
            all.iter().for_each(|topic| link.drop_topic(topic));
        }
        change.remove.iter().for_each(|topic| link.drop_topic(topic));
        for TopicHeads { topic, heads } in change.add {
            link.drop_topic(&topic);
            let full = link.topics.len() >= MAX_SUBSCRIBED_TOPICS;
            if full || !link.subscribes.take(self.now) {
                self.metrics.refused_subscriptions.inc();
                continue;
            }
            let (base, end) =
                self.topics.get(&topic).map_or((0, 0), |state| (state.log.base(), state.log.end()));
            link.topics.insert(topic, LinkTopic::at(base, base == end));
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
        if !link.requests.take(self.now) {
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
        place.rewind(position);
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
        let (now, head) = (self.now, self.head_of(body));
        let entries = u32::try_from(body.entries().len()).unwrap_or(u32::MAX);
        let Some(link) = self.links.get_mut(&peer) else { return };
        if !link.entries.take_many(now, entries) {
            self.metrics.refused_rate.inc();
            return self.want_from(peer, body, head + 1, false);
        }
        if !self.is_timely(body) || !self.is_wanted(peer, body, run.signature(), floor) {
            return;
        }
        // Only what costs a signature check; everything else is cheap.
        if !self.links.get_mut(&peer).is_some_and(|link| link.runs.take(now)) {
            self.metrics.refused_run_rate.inc();
            return self.want_from(peer, body, head + 1, false);
        }
        match self.key_of(body, author_key) {
            Ok(Some(key)) => {
                let pending = PendingRun { peer, run, key, floor };
                self.outputs.push_back(Output::Verify(Box::new(pending)));
            }
            Ok(None) => self.want_from(peer, body, head + 1, true),
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
        if body.last_time().wall() < self.oldest_accepted() {
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
        // equivocation sends blocked ones. An author that signs two histories makes it send runs that
        // contradict ours: the signature tells whether that is the author's doing or the peer's.
        let points = match topic.log.relation(body, signature) {
            Relation::Next | Relation::Conflict => return true,
            Relation::Fork => {
                self.metrics.refused_mischained.inc();
                return true;
            }
            Relation::Overlap => {
                self.metrics.refused_overlap.inc();
                return true;
            }
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

    /// Entries are missing before this run. They are asked for; only when the sender says that it
    /// has nothing older, the gap is accepted: as soon as all other links said so too, or when they
    /// did not supply what is missing in time. A link that has more is preferred.
    fn accepts_gap(&mut self, peer: MachineId, body: &RunBody, head: u64, floor: bool) -> bool {
        if !floor {
            self.metrics.refused_gap.inc();
            self.want_from(peer, body, head + 1, false);
            return false;
        }
        let RunBody { topic, author, epoch, first_seq, .. } = *body;
        let floor_of = |id: &MachineId| {
            self.links.get(id).and_then(|link| link.wants.floor(topic, (author, epoch), head))
        };
        let others = self.other_links(peer, body);
        let floors: Vec<_> = others.iter().filter_map(floor_of).collect();
        let lower = floors.iter().any(|floor| floor.first < first_seq);
        let patience = self.limits.gap_patience * if lower { 2 } else { 1 };
        let waited = floor_of(&peer).is_some_and(|own| self.now.since(own.since) >= patience);
        if waited || (floors.len() == others.len() && !lower) {
            return true;
        }
        self.metrics.refused_gap.inc();
        let want = WantIn { topic, author, epoch, from_seq: head + 1, need_key: false };
        let Some(link) = self.links.get_mut(&peer) else { return false };
        let said = (first_seq, body.last_seq());
        let is_new = link.wants.note_floor(self.now, want, said, &self.limits);
        self.set_timeout(self.limits.gap_patience);
        if is_new && floors.is_empty() {
            others.into_iter().for_each(|other| self.ask(other, want));
        }
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

    /// Asks a link once for what another one says exists.
    fn ask(&mut self, peer: MachineId, want: WantIn) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.wants.ask(want, &self.limits);
        }
        self.wake_link(peer);
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
            Relation::Conflict | Relation::Fork | Relation::Overlap => {
                return self.equivocation(run);
            }
            // Decided before the signature was checked, and nothing came between.
            _ if !self.is_wanted(peer, body, run.signature(), floor) => return,
            _ => {}
        }
        let head = self.head_of(body);
        if !self.admit_author(&body.topic, &body.author) {
            self.metrics.refused_authors.inc();
            return;
        }
        self.metrics.entries_missed.add((body.first_seq - 1).saturating_sub(head));
        self.note_have(peer, body);
        self.metrics.runs_accepted.inc();
        self.metrics.entries_accepted.add(run.len());
        self.append(run, &key);
    }

    fn equivocation(&mut self, run: Run) {
        let body = run.body();
        let (author, id) = (body.author, body.topic);
        let Some(topic) = self.topics.get_mut(&id) else { return };
        let common = body.last_seq().min(topic.log.head(&author, body.epoch));
        topic.log.block(&author);
        self.metrics.equivocations.inc();
        // Known to be so even when the first is retained no more, but no longer to be shown.
        let Some(first) = topic.log.find(&author, body.epoch, common).cloned() else { return };
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
