//! What is missing: whom to ask for it, and when to go on without it.

use std::time::Duration;

use x0x_core::{MachineId, TopicId};

use crate::{
    config::Dissemination,
    link::{Control, Link},
    missing::{Choice, Key, Report},
    run::RunBody,
    wire::{Before, WantIn},
};

use super::PubSubMachine;

/// How long a link that brings other runs that it was asked for is waited for before another one is
/// asked; longer where what it brings takes longer and nobody else promised it.
const BUSY: Duration = Duration::from_secs(10);

/// Broken promises at which nobody waits for another one of a link before a gap is accepted.
const DISTRUSTED_AT: u32 = 16;

/// How long a link is not asked for a chain of which it sent what cannot be accepted now: too old or
/// too new by the clock here, or of one author too many.
const PUT_OFF: Duration = Duration::from_secs(30);

/// How long after a subscription a search for other subscribers has had its time: it begins after two
/// seconds, and whoever is found is dialled.
const SEARCHED: Duration = Duration::from_secs(6);

/// How long after a rate was exceeded what was refused is asked for.
pub(super) const COOL: Duration = Duration::from_millis(500);

impl PubSubMachine {
    /// Asks for a missing range now.
    pub(super) fn ask(&mut self, key: Key) {
        let (topic, (author, epoch)) = key;
        if !self.is_subscribed(&topic) {
            return self.missing.remove(&key);
        }
        let (now, links) = (self.now, &self.links);
        let head = self.topics.get(&topic).map_or(0, |state| state.log.head(&author, epoch));
        let rank = |peer: &MachineId| {
            let link = links.get(peer).filter(|link| !link.banned)?;
            Some(link.rank(now))
        };
        let settled = (self.is_settled(&topic), self.patience(&topic, Before::Unheard));
        match self.missing.choose(now, &key, head, settled, rank) {
            Choice::Ask { peer, need_key, tree, upto } => {
                let until = now + self.ask_again(&key, &peer);
                self.missing.asked(&key, peer, (now, until));
                let tree = tree && !need_key;
                if tree && self.limits.dissemination == Dissemination::Tree {
                    self.graft(peer, key, head + 1, upto);
                    return;
                }
                if let Some(link) = self.links.get_mut(&peer)
                    && let Some(view) = link.view_mut(&topic, key.1, &self.limits)
                {
                    view.ask(now, upto);
                }
                self.metrics.wants_sent.inc();
                let want = WantIn { topic, author, epoch, from_seq: head + 1, need_key };
                self.send_control(peer, Control::Want(want));
            }
            Choice::Wait(at) => self.missing.reschedule(key, at.max(now + self.limits.ask_again)),
            Choice::GiveUp => {
                self.missing.remove(&key);
                self.metrics.missing_given_up.inc();
                self.compare_soon(topic);
                self.compare_crowded();
            }
        }
    }

    /// How long a link gets to answer: as long as its answers take lately, and more with each try.
    fn ask_again(&self, key: &Key, peer: &MachineId) -> Duration {
        let (rtt, lag) = self.links.get(peer).map_or_else(Default::default, |l| (l.rtt, l.lag));
        let once = self.limits.ask_again.max(rtt * 3 / 2) + lag * 2;
        let (tries, _) = self.missing.tries(key);
        (once * (1 << tries.min(4))).min(self.limits.gap_patience.max(once))
    }

    /// A missing range did not come in time.
    pub(super) fn overdue(&mut self, key: Key) {
        let now = self.now;
        let (tries, asked) = self.missing.tries(&key);
        let log = self.topics.get(&key.0).map(|state| &state.log);
        let head = log.map_or(0, |log| log.head(&key.1.0, key.1.1));
        let parent = log.and_then(|log| log.route(&key.1.0, key.1.1)?.peer);
        if let Some(peer) = asked
            && let Some(link) = self.links.get_mut(&peer)
        {
            // It may be sending what it was asked for before that.
            let pause = self.limits.ask_again.max(link.rtt * 2) + link.lag;
            let answers = link.answered_at.is_some_and(|at| now.since(at) < pause);
            let others = self.missing.promised(&key, head, &peer).next().is_some();
            let patience = if others { BUSY } else { BUSY.max(link.lag * 4) };
            if answers && self.missing.waited(&key, now) < patience {
                return self.missing.reschedule(key, now + pause);
            }
            // Asked on another one's word, it owes nothing.
            if self.missing.is_promised(&key, head, &peer) {
                link.score.broke_promise(now);
                self.metrics.promises_broken.inc();
            }
        } else if let Some(link) = parent.and_then(|peer| self.links.get_mut(&peer))
            && tries == 0
            && let Some(view) = link.view_mut(&key.0, key.1, &self.limits)
        {
            // A parent that failed does not become one again soon for being near.
            view.tested = Some(now);
        }
        self.ask(key);
    }

    /// A run was accepted; what else is missing of its chain is waited for anew, or asked for at once
    /// when it will not come by itself.
    pub(super) fn made_progress(&mut self, from: MachineId, key: Key, head: u64, after_gap: bool) {
        use crate::missing::Progress;
        if !self.missing.contains(&key) {
            return;
        }
        let (_, asked) = self.missing.tries(&key);
        let wait = match asked {
            Some(peer) => self.ask_again(&key, &peer),
            None => self.graft_after(&key.0, &from),
        };
        match self.missing.progress(&key, head, &from, (self.now, self.now + wait)) {
            Progress::Done(best) => {
                if let Some((peer, hops)) = best {
                    self.consider(peer, key, hops);
                }
                self.compare_crowded();
            }
            Progress::Some if after_gap => self.ask(key),
            _ => {}
        }
    }

    /// Notes entries that a link has, and asks for them at once.
    pub(super) fn lack(&mut self, peer: MachineId, key: Key, upto: u64, need_key: bool) {
        if self.is_put_off(&peer, &key) {
            return;
        }
        let report = Report { peer, upto, hops: u32::MAX, need_key, wait: None };
        if self.missing.note(self.now, key, report, &self.limits) {
            self.ask(key);
        }
    }

    /// A run was refused for a reason that lasts: its link is not asked for the chain for a while.
    /// Other links are, since this one may have made the run up.
    pub(super) fn put_off(&mut self, peer: MachineId, body: &RunBody) {
        let key = (body.topic(), (body.author(), body.epoch()));
        let until = self.now + PUT_OFF;
        if let Some(link) = self.links.get_mut(&peer)
            && let Some(view) = link.view_mut(&key.0, key.1, &self.limits)
        {
            view.put_off = Some(until);
        }
        self.missing.retract(&key, &peer, self.now);
    }

    /// Whether a link is not to be asked for a chain now.
    pub(super) fn is_put_off(&self, peer: &MachineId, key: &Key) -> bool {
        let until = self.links.get(peer).and_then(|link| link.view(&key.0, key.1).put_off);
        until.is_some_and(|until| until > self.now)
    }

    /// Notes a run that was refused for its rate, to be asked for in a while.
    pub(super) fn lack_later(&mut self, peer: MachineId, body: &RunBody) {
        let key = (body.topic(), (body.author(), body.epoch()));
        let (upto, wait) = (body.last_seq(), Some(COOL));
        let report = Report { peer, upto, hops: u32::MAX, need_key: false, wait };
        self.missing.note(self.now, key, report, &self.limits);
    }

    /// How long others may contradict a link that has nothing older, before that is believed. With one
    /// link only, that is until a search for subscribers has had its time. What that link never had
    /// itself may be had wherever it should have come from: two rounds of comparison, within which
    /// whoever is connected is to have it, pass before it is given up.
    fn patience(&self, topic: &TopicId, before: Before) -> Duration {
        let usual = self.limits.gap_patience;
        if self.topic_links(topic) > 1 {
            return usual;
        }
        if before == Before::Unheard {
            return usual.max(self.limits.reconcile_every * 26 / 10);
        }
        let since = self.topics.get(topic).and_then(|state| state.subscribed_at);
        let searched = since.map_or(SEARCHED, |at| SEARCHED.saturating_sub(self.now.since(at)));
        usual.max(searched)
    }

    /// Whether those who may hold a topic had time to say what they hold: it was subscribed a while
    /// ago. With one link only nobody can contradict it.
    fn is_settled(&self, topic: &TopicId) -> bool {
        let since = self.topics.get(topic).and_then(|state| state.subscribed_at);
        since.is_some_and(|at| self.now.since(at) >= self.limits.gap_patience)
            && self.topic_links(topic) > 1
    }

    /// Entries are missing before this run. They are asked for; only when the sender says that it
    /// has nothing older, the gap is accepted: as soon as all other links said so too, or when they
    /// did not supply what is missing in time, but never while one of them has promised it and was
    /// not tried in vain. A link that has more is preferred.
    pub(super) fn accepts_gap(
        &mut self,
        peer: MachineId,
        body: &RunBody,
        head: u64,
        before: Before,
    ) -> bool {
        let RunBody { topic, author, epoch, first_seq, .. } = *body;
        let (key, upto) = ((topic, (author, epoch)), body.last_seq());
        if before == Before::Held {
            self.metrics.refused_gap.inc();
            let asked = self.missing.tries(&key).1;
            self.lack(peer, key, upto, false);
            if asked.is_some_and(|other| other != peer) {
                // Another link is sending what is missing: what this one pushes is of no use.
                self.prune(peer, topic, key.1, false);
            }
            return false;
        }
        let others = self.other_links(peer, body);
        let floor_of = |id: &MachineId| self.missing.floor(&key, id, head);
        let floors: Vec<_> = others.iter().filter_map(floor_of).collect();
        let lower = floors.iter().any(|floor| floor.first < first_seq);
        let patience = self.patience(&topic, before) * if lower { 2 } else { 1 };
        let waited = floor_of(&peer).is_some_and(|own| self.now.since(own.since) >= patience);
        let agreed = floors.len() == others.len() && !lower && self.is_settled(&topic);
        let trusted = |link: &Link| !link.banned && link.score.broken(self.now) < DISTRUSTED_AT;
        let promised = self
            .missing
            .promised(&key, head, &peer)
            .any(|other| self.links.get(&other).is_some_and(trusted));
        if (waited || agreed) && !promised {
            return true;
        }
        self.metrics.refused_gap.inc();
        let report = Report { peer, upto, hops: u32::MAX, need_key: false, wait: None };
        let limits = &self.limits;
        let floor = (head, first_seq, patience);
        if self.missing.note_floor(self.now, key, report, floor, limits) {
            self.missing.suggest(&key, others.into_iter());
            self.ask(key);
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
}
