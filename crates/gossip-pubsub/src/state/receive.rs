//! What peers send: cheap checks first, then the signature, then the log.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use x0x_core::{MachineId, Tick};
use x0x_identity::PublicKey;

use crate::{
    error::{VerifyError, WireError},
    link::Control,
    log::{Relation, Route},
    retention::Retention,
    retention::began,
    run::{Run, RunBody, RunIn},
    store::LogChange,
    wire::{Announced, Before, FrameIn, PublishIn},
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
    before: Before,
    hops: u32,
}

/// A run after the check of its signature.
#[derive(Debug)]
pub struct CheckedRun {
    peer: MachineId,
    key: PublicKey,
    hops: u32,
    result: Result<Arc<Run>, VerifyError>,
    /// What its sender says of what is older.
    before: Before,
}

impl PendingRun {
    /// Checks the signature; about 60 µs and 0.6 µs for each entry.
    #[must_use]
    pub fn verify(self) -> CheckedRun {
        let Self { peer, run, key, before, hops } = self;
        let result = run.verify_after(&key, hops).map(Arc::new);
        CheckedRun { peer, key, hops, result, before }
    }

    /// What the run says.
    #[must_use]
    pub const fn body(&self) -> &RunBody {
        self.run.body()
    }

    /// The signature to be checked.
    #[must_use]
    pub const fn signature(&self) -> &Bytes {
        self.run.signature()
    }

    /// The run as it arrived: equal bytes are the same run.
    #[must_use]
    pub const fn encoded(&self) -> &Bytes {
        self.run.encoded()
    }

    /// Takes a run that was verified before for this one, so that many machines in one process check
    /// and store it once. Another run than this one counts as a bad signature.
    #[must_use]
    pub fn known(self, run: Arc<Run>) -> CheckedRun {
        let same = run.encoded() == self.run.encoded();
        let result = if same { Ok(run) } else { Err(VerifyError::BadSignature) };
        let Self { peer, key, before, hops, .. } = self;
        CheckedRun { peer, key, hops, result, before }
    }
}

impl PubSubMachine {
    pub(super) fn receive(&mut self, peer: MachineId, message: Bytes) {
        let Some(link) = self.links.get(&peer) else { return self.receive_first(peer, message) };
        if link.banned {
            return;
        }
        match FrameIn::decode(message) {
            Ok(frame) => self.received(peer, frame),
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

    /// A frame of a peer without a link: its subscriptions make one. If they do not, it is told that
    /// there is none, in case it did not hear so: it would count on it for ever.
    fn receive_first(&mut self, peer: MachineId, message: Bytes) {
        match FrameIn::decode(message) {
            Ok(FrameIn::Subscriptions(subscriptions)) if subscriptions.leave => {}
            Ok(FrameIn::Subscriptions(subscriptions)) if self.admit_stranger(peer) => {
                return self.subscriptions(peer, subscriptions);
            }
            Ok(_) => {
                let message = Control::Leave.encode();
                self.outputs.push_back(Output::Send { peer, message });
            }
            Err(_) => {}
        }
        self.metrics.refused_no_link.inc();
    }

    fn received(&mut self, peer: MachineId, frame: FrameIn) {
        match frame {
            FrameIn::Subscriptions(subscriptions) => self.subscriptions(peer, subscriptions),
            FrameIn::Publish(publish) => self.publish(peer, publish),
            FrameIn::Want(want) => self.wanted(peer, want),
            FrameIn::Announce(announce) => self.announced(peer, announce),
            FrameIn::Prune(prune) => self.pruned(peer, prune),
            FrameIn::Graft(graft) => self.grafted(peer, graft),
            FrameIn::Digest(digest) => self.digest_received(peer, digest),
            FrameIn::Heads(heads) => self.heads_received(peer, heads),
            FrameIn::Ranges(ranges) => self.ranges_received(peer, ranges),
            FrameIn::FindPeers(search) => self.peers_wanted(peer, search),
            FrameIn::PeersFound(found) => self.peers_found(peer, found),
            FrameIn::Unknown => self.metrics.frames_unknown.inc(),
        }
    }

    fn publish(&mut self, peer: MachineId, publish: PublishIn) {
        let PublishIn { run, author_key, before, hops } = publish;
        let body = run.body();
        if body.network != self.network {
            self.metrics.refused_network.inc();
            return self.penalize(peer, FORGERY);
        }
        if !self.is_subscribed(&body.topic) {
            // Not held against the peer: our unsubscribing may still be on its way to it.
            self.metrics.refused_topic.inc();
            return;
        }
        let now = self.now;
        let entries = u32::try_from(body.entries().len()).unwrap_or(u32::MAX);
        let Some(link) = self.links.get_mut(&peer) else { return };
        if !link.allowed.entries.take_many(now, entries) {
            self.metrics.refused_rate.inc();
            return self.lack_later(peer, body);
        }
        if !self.is_timely(body) {
            return self.put_off(peer, body);
        }
        if !self.is_wanted(peer, body, run.signature(), before) {
            let key = (body.topic, (body.author, body.epoch));
            // The key is sent once, so it is kept although the run comes too early.
            if author_key.is_some()
                && self.missing.contains(&key)
                && self.key_of(body, author_key).is_err()
            {
                self.metrics.refused_key.inc();
                self.penalize(peer, FORGERY);
            }
            return;
        }
        if self.is_store_behind(body) {
            self.metrics.refused_store.inc();
            return self.lack_later(peer, body);
        }
        // Only what costs a signature check; everything else is cheap.
        if !self.links.get_mut(&peer).is_some_and(|link| link.allowed.runs.take(now)) {
            self.metrics.refused_run_rate.inc();
            return self.lack_later(peer, body);
        }
        if !self.author_may(body, now, entries) {
            self.metrics.refused_author_rate.inc();
            return self.lack_later(peer, body);
        }
        if !self.may_introduce(peer, body) {
            return self.put_off(peer, body);
        }
        match self.key_of(body, author_key) {
            Ok(Some(_)) if !self.may_check(&peer) => {
                self.metrics.refused_checks.inc();
                self.lack_later(peer, body);
            }
            Ok(Some(key)) => {
                let pending = PendingRun { peer, run, key, before, hops };
                self.outputs.push_back(Output::Verify(Box::new(pending)));
            }
            Ok(None) => {
                let key = (body.topic, (body.author, body.epoch));
                self.lack(peer, key, body.last_seq(), true);
            }
            Err(KeyRefused) => {
                self.metrics.refused_key.inc();
                self.penalize(peer, FORGERY);
            }
        }
    }

    /// Whether an author may bring so many entries into a topic now, over whichever links.
    fn author_may(&mut self, body: &RunBody, now: Tick, entries: u32) -> bool {
        let Some(topic) = self.topics.get_mut(&body.topic) else { return false };
        let allowed = topic.log.allowance(&body.author, now, &self.limits);
        allowed.is_none_or(|bucket| bucket.take_many(now, entries))
    }

    /// Whether another signature of a link's may be checked: within the budget of all links, and if
    /// others used that up, within what this one has for itself.
    fn may_check(&mut self, peer: &MachineId) -> bool {
        let now = self.now;
        let own = self.links.get_mut(peer).map(|link| &mut link.allowed.checks);
        self.checks.take(now) || own.is_some_and(|own| own.take(now))
    }

    /// Whether the run's times are within what is retained and what clocks may differ by.
    fn is_timely(&self, body: &RunBody) -> bool {
        let latest = self.wall + self.limits.clock_ahead;
        let started = began(body.epoch);
        if body.last_time().wall() > latest || started > latest.as_millis() {
            self.metrics.refused_future.inc();
            return false;
        }
        if body.retention() == Retention::Durable {
            let full = self.is_over(&body.topic());
            if full {
                self.metrics.refused_full.inc();
            }
            return !full;
        }
        if body.last_time().wall() < self.oldest_accepted_of(body.retention()) {
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
        before: Before,
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
            Relation::Gap { head } => return self.accepts_gap(peer, body, head, before),
            Relation::Duplicate => {
                self.metrics.duplicates.inc();
                self.came(peer, body, false);
                self.note_have(peer, body);
                self.duplicate(peer, body);
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

    fn head_of(&self, body: &RunBody) -> u64 {
        self.topics.get(&body.topic).map_or(0, |topic| topic.log.head(&body.author, body.epoch))
    }

    fn note_have(&mut self, peer: MachineId, body: &RunBody) {
        if let Some(link) = self.links.get_mut(&peer) {
            let chain = (body.author, body.epoch);
            link.note_have(&body.topic, chain, body.last_seq(), &self.limits);
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
        let CheckedRun { peer, key, hops, result, before } = checked;
        self.metrics.signatures_verified.inc();
        let Ok(run) = result else {
            self.metrics.refused_signature.inc();
            return self.penalize(peer, FORGERY);
        };
        let body = run.body();
        let Some(topic) = self.topics.get(&body.topic) else { return };
        let known = topic.log.key(&body.author).is_some();
        match topic.log.relation(body, run.signature()) {
            Relation::Next => {}
            Relation::Conflict | Relation::Fork | Relation::Overlap => {
                return self.equivocation(run);
            }
            // Decided before the signature was checked, and nothing came between.
            _ if !self.is_wanted(peer, body, run.signature(), before) => return,
            _ => {}
        }
        let head = self.head_of(body);
        if !self.admit_author(peer, &body.topic, &body.author) {
            self.metrics.refused_authors.inc();
            return self.put_off(peer, body);
        }
        if let Some(link) = self.links.get_mut(&peer).filter(|_| !known) {
            link.score.introduced(self.now);
        }
        let gap = body.missed_after(head);
        self.metrics.entries_missed.add(gap);
        self.metrics.runs_accepted.inc();
        self.metrics.entries_accepted.add(run.len());
        let route = self.brought(peer, body, hops);
        let (chain, last) = ((body.topic, (body.author, body.epoch)), body.last_seq());
        self.append(&run, &key, route, hops);
        self.made_progress(peer, chain, last, gap > 0);
    }

    /// A link brought a run first; how it came.
    fn brought(&mut self, peer: MachineId, body: &RunBody, hops: u32) -> Route {
        let key = (body.topic, (body.author, body.epoch));
        let last = body.last_seq();
        let pulled = self.missing.is_asked(&key, &peer) | self.came(peer, body, true);
        let Some(link) = self.links.get_mut(&peer) else { return Route::default() };
        link.score.delivered();
        let Some(view) = link.view_mut(&key.0, key.1, &self.limits) else {
            return Route { peer: Some(peer), hops: None };
        };
        view.have = view.have.max(last);
        if hops == 1 {
            // The author's own machine learns that its entries have left it, however they came.
            let (author, epoch) = key.1;
            let head = Announced { author, epoch, seq: last, hops, pull: false };
            link.add_head(key.0, head);
            self.schedule_heads(peer);
        }
        Route { peer: Some(peer), hops: (!pulled).then_some(hops) }
    }

    /// A run came over a link, as the first copy or not; whether it was asked for there. How long it
    /// took tells what waits in the link's queue. Sending the same again tells nothing.
    fn came(&mut self, peer: MachineId, body: &RunBody, first: bool) -> bool {
        let (now, last) = (self.now, body.last_seq());
        let key = (body.topic, (body.author, body.epoch));
        let (heard, usual) = (self.missing.heard(&key), self.graft_after(&key.0, &peer));
        let Some(link) = self.links.get_mut(&peer) else { return false };
        let (lag, rtt) = (link.lag, link.rtt);
        let Some(view) = link.view_mut(&key.0, key.1, &self.limits) else { return false };
        let pulled = body.first_seq <= view.asked;
        if last <= view.brought {
            return pulled;
        }
        view.brought = last;
        if pulled {
            let asked = view.asked_at.replace(now);
            link.answered_at = Some(now);
            if let Some(asked) = asked {
                link.came_late(now.since(asked).saturating_sub(rtt * 3 / 2));
            }
        } else if first {
            // Beyond what the tree gets when the link is not late.
            let usual = usual.saturating_sub(lag * 2);
            link.came_late(heard.map_or(Duration::ZERO, |at| now.since(at).saturating_sub(usual)));
        }
        pulled
    }

    fn equivocation(&mut self, second: Arc<Run>) {
        let body = second.body();
        let (author, id) = (body.author, body.topic);
        let Some(topic) = self.topics.get_mut(&id) else { return };
        let common = body.last_seq().min(topic.log.head(&author, body.epoch));
        topic.log.block(&author);
        if self.storing {
            self.outputs.push_back(Output::Persist(LogChange::Block { topic: id, author }));
        }
        self.metrics.equivocations.inc();
        // Known to be so even when the first is retained no more, but no longer to be shown.
        let Some(first) = topic.log.find(&author, body.epoch, common).cloned() else { return };
        if self.equivocations.len() >= self.limits.equivocation_proofs {
            self.equivocations.pop_front();
        }
        self.equivocations.push_back(Equivocation { author, topic: id, first, second });
    }

    fn penalize(&mut self, peer: MachineId, points: u32) {
        let now = self.now;
        let Some(link) = self.links.get_mut(&peer).filter(|link| !link.banned) else { return };
        if !link.score.add(now, points) {
            return;
        }
        link.banned = true;
        let topics: Vec<_> = link.topics.keys().copied().collect();
        self.metrics.peers_disconnected.inc();
        if self.banned.len() >= self.limits.penalties {
            self.banned.pop_lru();
        }
        self.banned.put(peer, now + self.limits.ban);
        self.outputs.push_back(Output::Disconnect(peer));
        self.missing.remove_peer(&peer, now);
        topics.iter().for_each(|topic| self.ensure_eager(topic));
    }
}

/// The key that came with a run is not its author's.
struct KeyRefused;
