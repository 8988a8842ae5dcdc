//! Who pushes whose runs to whom: prune, graft, announcements and the shorter way.
//!
//! Plumtree (Leitão, Pereira, Rodrigues, "Epidemic Broadcast Trees", SRDS 2007). Each topic has one
//! shared tree of links, symmetric as far as both ends know; for one author a link may differ from
//! it in either direction, so that every author soon has a tree of its own shortest ways.

use std::time::Duration;

use x0x_core::{MachineId, TopicId};

use crate::{
    config::Dissemination,
    link::{ChainId, Control, LAZY_AT, Link},
    log::Route,
    missing::{Key, Report},
    retention::Retention,
    run::RunBody,
    wire::{AnnounceIn, Announced, GraftIn, PruneIn},
};

use super::{Output, PubSubMachine, Timer, timers::ENFORCE};

/// How long a link may take to prove that its way is shorter before another one may try.
const TRIAL: Duration = Duration::from_secs(2);

/// When a link that was tried, or failed, may be tried again.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// A prune may be lost or forgotten by the peer: it is repeated after this time, or four round trips.
const REPEAT_PRUNE: Duration = Duration::from_secs(1);

impl PubSubMachine {
    /// The links of a topic that are in its shared tree.
    fn eager_links(&self, topic: &TopicId) -> usize {
        let eager = |link: &&Link| link.topics.get(topic).is_some_and(|place| place.eager);
        self.links.values().filter(|link| !link.banned).filter(eager).count()
    }

    fn prunes(&self) -> bool {
        matches!(self.limits.dissemination, Dissemination::Tree | Dissemination::EagerFloor(_))
    }

    /// Sends a small frame to a link.
    pub(super) fn send_control(&mut self, peer: MachineId, control: Control) -> bool {
        let Some(link) = self.links.get_mut(&peer) else { return false };
        let pushed = link.push(control, &self.limits);
        if !pushed {
            self.metrics.controls_dropped.inc();
        }
        self.wake_link(peer);
        pushed
    }

    /// A run came again over another link than the first time: that link is not needed for its
    /// author.
    pub(super) fn duplicate(&mut self, peer: MachineId, body: &RunBody) {
        let (topic, chain) = (body.topic(), (body.author(), body.epoch()));
        let route = self.topics.get(&topic).and_then(|state| state.log.route(&chain.0, chain.1));
        if !self.prunes() || route.is_none_or(|route| route.peer == Some(peer)) {
            return;
        }
        let Some(link) = self.links.get(&peer) else { return };
        if body.first_seq() <= link.view(&topic, chain).asked {
            return;
        }
        let redundant = usize::from(self.limits.redundant_links);
        if redundant > 0 && self.parents(&topic, chain) <= 1 + redundant {
            return;
        }
        // A link that lost to one grafted for this author alone stays in the shared tree.
        let first = route.and_then(|route| self.links.get(&route.peer?));
        let shared = first.is_none_or(|link| !link.view(&topic, chain).grafted);
        self.prune(peer, topic, chain, shared);
    }

    /// Links that push an author's runs here, as far as is known.
    fn parents(&self, topic: &TopicId, chain: ChainId) -> usize {
        let pushes = |link: &&Link| {
            let view = link.view(topic, chain);
            let tree = link.topics.get(topic).is_some_and(|place| place.eager);
            view.pruned.is_none() && (view.grafted || tree)
        };
        self.links.values().filter(pushes).count()
    }

    /// Asks a link not to push an author's runs; with `shared`, to leave the shared tree if that is how
    /// it came to do so.
    pub(super) fn prune(&mut self, peer: MachineId, topic: TopicId, chain: ChainId, shared: bool) {
        let spare = self.eager_links(&topic) > 1;
        let Some(link) = self.links.get_mut(&peer) else { return };
        let pause = REPEAT_PRUNE.max(link.rtt * 4);
        let now = self.now;
        let Some(view) = link.view_mut(&topic, chain, &self.limits) else { return };
        if view.pruned.is_some_and(|at| now.since(at) < pause) {
            return;
        }
        let grafted = std::mem::take(&mut view.grafted);
        view.pruned = Some(now);
        let Some(place) = link.topics.get_mut(&topic) else { return };
        let tree = shared && place.eager && !grafted && spare;
        if tree {
            place.eager = false;
        }
        self.metrics.prunes_sent.inc();
        let (author, epoch) = chain;
        self.send_control(peer, Control::Prune(PruneIn { topic, author, epoch, tree }));
    }

    pub(super) fn pruned(&mut self, peer: MachineId, prune: PruneIn) {
        let PruneIn { topic, author, epoch, tree } = prune;
        let spare = self.eager_links(&topic) > 1;
        let known = self.topics.get(&topic).is_some_and(|t| t.log.head(&author, epoch) > 0);
        let Some(link) = self.links.get_mut(&peer) else { return };
        if !link.allowed.requests.take(self.now) {
            self.metrics.refused_wants.inc();
            return;
        }
        self.metrics.prunes_received.inc();
        let Some(place) = link.topics.get_mut(&topic) else { return };
        let leaves = tree && place.eager && spare;
        if leaves {
            place.eager = false;
        }
        if known && let Some(view) = link.view_mut(&topic, (author, epoch), &self.limits) {
            view.eager = if leaves { None } else { Some(false) };
        }
    }

    pub(super) fn grafted(&mut self, peer: MachineId, graft: GraftIn) {
        let GraftIn { topic, chain, tree } = graft;
        let Some(link) = self.links.get_mut(&peer) else { return };
        if !link.allowed.requests.take(self.now) {
            self.metrics.refused_wants.inc();
            return;
        }
        self.metrics.grafts_received.inc();
        let Some(place) = link.topics.get_mut(&topic) else { return };
        place.eager |= tree;
        let eager = (!place.eager).then_some(true);
        let Some((author, epoch, from)) = chain else { return };
        let Some(state) = self.topics.get(&topic) else { return };
        let head = state.log.head(&author, epoch);
        if head == 0 {
            return;
        }
        if let Some(view) = link.view_mut(&topic, (author, epoch), &self.limits) {
            view.eager = eager;
        }
        if from <= head && !link.pulls.begin((topic, (author, epoch)), from, head, &self.limits) {
            self.metrics.refused_wants.inc();
        }
        self.wake_link(peer);
    }

    /// Asks a link to push an author's runs.
    pub(super) fn graft(&mut self, peer: MachineId, key: Key, from: u64, upto: u64) -> bool {
        let (now, (topic, chain)) = (self.now, key);
        let tree = self.eager_links(&topic) == 0;
        let Some(link) = self.links.get_mut(&peer) else { return false };
        if let Some(view) = link.view_mut(&topic, chain, &self.limits) {
            view.grafted = true;
            view.pruned = None;
            if upto > 0 {
                view.ask(now, upto);
            }
        }
        if let Some(place) = link.topics.get_mut(&topic) {
            place.eager |= tree;
        }
        self.metrics.grafts_sent.inc();
        let chain = Some((chain.0, chain.1, from));
        self.send_control(peer, Control::Graft(GraftIn { topic, chain, tree }))
    }

    /// Keeps the shared tree of a topic from having no link here while there are some.
    pub(super) fn ensure_eager(&mut self, topic: &TopicId) {
        if self.eager_links(topic) == 0 {
            self.promote(topic, 1);
        }
    }

    /// Takes the best lazy links into the shared tree.
    fn promote(&mut self, topic: &TopicId, count: usize) {
        let now = self.now;
        let lazy = self.links.iter().filter(|(_, link)| {
            !link.banned && link.topics.get(topic).is_some_and(|place| !place.eager)
        });
        let mut lazy: Vec<_> =
            lazy.map(|(peer, link)| ((link.score.rank(now), link.rtt), *peer)).collect();
        lazy.sort_unstable();
        for (_, peer) in lazy.into_iter().take(count) {
            if let Some(link) = self.links.get_mut(&peer)
                && let Some(place) = link.topics.get_mut(topic)
            {
                place.eager = true;
            }
            self.metrics.grafts_sent.inc();
            let graft = GraftIn { topic: *topic, chain: None, tree: true };
            self.send_control(peer, Control::Graft(graft));
        }
    }

    /// Brings every topic to its least number of eager links, in the mode that has one.
    pub(super) fn enforce_floor(&mut self) {
        let Dissemination::EagerFloor(floor) = self.limits.dissemination else { return };
        let topics: Vec<TopicId> = self.topics.keys().copied().collect();
        for topic in topics {
            let eager = self.eager_links(&topic);
            self.promote(&topic, usize::from(floor).saturating_sub(eager));
        }
        self.timers.set(self.now + ENFORCE, Timer::Enforce);
    }

    pub(super) fn announced(&mut self, peer: MachineId, announce: AnnounceIn) {
        for (topic, head) in announce.heads {
            let Some(link) = self.links.get_mut(&peer) else { return };
            if !link.allowed.heads.take(self.now) {
                self.metrics.refused_heads.inc();
                return;
            }
            self.head_announced(peer, topic, head);
        }
    }

    fn head_announced(&mut self, peer: MachineId, topic: TopicId, head: Announced) {
        let Announced { author, epoch, seq, hops, pull } = head;
        let Some(state) = self.topics.get(&topic) else { return };
        let mine = state.log.head(&author, epoch);
        let takes = state.is_subscribed() && state.log.takes(&author, epoch);
        let Some(link) = self.links.get_mut(&peer) else { return };
        if takes || mine > 0 {
            link.note_have(&topic, (author, epoch), seq, &self.limits);
        }
        if seq <= mine {
            if author == self.me {
                self.confirmed(topic, epoch, seq);
            } else {
                self.consider(peer, (topic, (author, epoch)), hops);
            }
            return;
        }
        if !takes || self.is_put_off(&peer, &(topic, (author, epoch))) {
            return;
        }
        let wait = (!pull).then(|| self.graft_after(&topic, &peer));
        let key = (topic, (author, epoch));
        let report = Report { peer, upto: seq, hops, need_key: false, wait };
        if self.missing.note(self.now, key, report, &self.limits) {
            self.ask(key);
        }
    }

    /// How long the tree gets to bring what a link announced: as long as it usually takes, and as
    /// long as this link would take.
    pub(super) fn graft_after(&self, topic: &TopicId, peer: &MachineId) -> Duration {
        let eager =
            self.links.values().filter(|link| link.topics.get(topic).is_some_and(|t| t.eager));
        let worst = eager.map(|link| link.rtt).max().unwrap_or_default();
        let (least, most) = self.limits.graft_after;
        let lag = self.links.get(peer).map_or(Duration::ZERO, |link| link.lag);
        (worst * 2 + Duration::from_millis(50)).clamp(least, most.max(least)) + lag * 2
    }

    /// Tries a link as the parent of an author if its way is so much shorter than that of the present
    /// one. The first copy decides: whichever link it does not come over is pruned for it. So a link
    /// that says so and does not deliver costs nothing.
    pub(super) fn consider(&mut self, peer: MachineId, key: Key, hops: u32) {
        let (now, (topic, chain)) = (self.now, key);
        if self.limits.dissemination != Dissemination::Tree {
            return;
        }
        let Some(log) = self.topics.get(&topic).map(|state| &state.log) else { return };
        let Some(Route { peer: Some(parent), hops: Some(mine) }) = log.route(&chain.0, chain.1)
        else {
            return;
        };
        let shorter = hops.saturating_add(1).saturating_add(self.limits.hop_threshold) <= mine;
        if !shorter || parent == peer || self.is_trying(&topic, chain, &parent) {
            return;
        }
        let next = log.head(&chain.0, chain.1) + 1;
        let Some(link) = self.links.get_mut(&peer) else { return };
        if link.score.points(now) >= LAZY_AT {
            return;
        }
        let Some(view) = link.view_mut(&topic, chain, &self.limits) else { return };
        if view.tested.is_some_and(|at| now.since(at) < TRY_AGAIN) {
            return;
        }
        view.tested = Some(now);
        self.metrics.ways_shortened.inc();
        self.graft(peer, key, next, 0);
    }

    /// Whether a link is being tried in place of an author's parent.
    fn is_trying(&self, topic: &TopicId, chain: ChainId, parent: &MachineId) -> bool {
        self.links.iter().any(|(peer, link)| {
            let view = link.view(topic, chain);
            let tried = view.tested.is_some_and(|at| self.now.since(at) < TRIAL);
            peer != parent && view.grafted && tried
        })
    }

    /// The epoch and the last of this author's entries in a topic and class that a link confirmed.
    #[must_use]
    pub fn confirmed_upto(&self, topic: &TopicId, retention: Retention) -> (u64, u64) {
        let class = usize::from(retention.code());
        self.topics.get(topic).map_or((0, 0), |topic| topic.confirmed[class])
    }

    /// A link has this author's entries up to here.
    fn confirmed(&mut self, topic: TopicId, epoch: u64, seq: u64) {
        let Some(state) = self.topics.get_mut(&topic) else { return };
        let confirmed = &mut state.confirmed[usize::from(Retention::of_epoch(epoch).code())];
        if (epoch, seq) > *confirmed {
            *confirmed = (epoch, seq);
            self.outputs.push_back(Output::FirstHop { topic, epoch, seq });
        }
    }
}
