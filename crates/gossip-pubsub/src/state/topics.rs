//! The topics' logs: making and dropping them, appending, retention and congestion.

use std::{sync::Arc, time::Duration};

use x0x_core::{MachineId, TopicId, WallTime};
use x0x_identity::PublicKey;

use crate::{
    log::{Item, Removed, Route, TopicLog},
    retention::{ChainEnd, EPHEMERAL_FOR, Retention},
    run::Run,
    store::LogChange,
    subscriber::{Cursor, SubscriptionId},
};

use super::{
    Output, PubSubMachine, Timer, Topic,
    timers::{CONGESTION, SWEEP},
};

/// How late retention by age is looked at, at most: the wall clock may be set meanwhile.
const MAX_SWEEP: Duration = Duration::from_secs(3600);

/// How long past the retention an entry is still accepted: sweeps and clocks are not exact, and the
/// entry may be needed to continue its author's chain.
pub(super) const EXPIRY_SLACK_MS: u64 = 60 * 60 * 1000;

/// Runs of this author that wait for a topic to be loaded before publishing to it is busy. What the
/// publisher accepted before that follows.
const MAX_SIGNED: usize = 16;

impl PubSubMachine {
    /// Makes a topic's log, dropping the one that was without subscribers for longest if needed.
    /// There is one, since subscribed topics have a lower cap.
    pub(super) fn make_topic(&mut self, topic: TopicId) {
        if self.topics.contains_key(&topic) {
            return;
        }
        if self.topics.len() >= self.limits.topics {
            let idle = self
                .topics
                .iter()
                .filter(|(_, topic)| topic.subscribers.is_empty() && !topic.loading);
            let oldest = idle.min_by_key(|(_, topic)| topic.log.oldest()).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.drop_topic(&oldest);
                self.metrics.topics_evicted.inc();
            }
        }
        let log = TopicLog::new(self.rng.next_u64());
        let loading = self.storing;
        self.topics.insert(topic, Topic { log, loading, ..Topic::default() });
        if loading {
            self.outputs.push_back(Output::Load(topic));
        }
        // Peers that subscribed it before this node knew it read it from the start.
        for link in self.links.values_mut() {
            if let Some(state) = link.topics.get_mut(&topic) {
                state.restart();
            }
        }
    }

    pub(super) fn drop_topic(&mut self, id: &TopicId) {
        if let Some(topic) = self.topics.remove(id) {
            self.timers.drop_topic(*id);
            self.unstored_bytes -= topic.log.unstored_bytes();
            self.log_bytes -= topic.log.bytes();
            self.log_entries -= topic.log.entries();
            self.durable_bytes -= topic.log.durable_bytes();
            if topic.congested {
                self.outputs.push_back(Output::Congestion { topic: *id, congested: false });
            }
            if topic.full {
                self.outputs.push_back(Output::Full { topic: *id, full: false });
            }
            self.update_full();
        }
    }

    /// Appends a run and wakes whoever it may concern. Subscribers of a log that is stored wait for
    /// the store: what they have read is not to come again after a crash.
    pub(super) fn append(&mut self, run: &Arc<Run>, key: &PublicKey, route: Route, hops: u32) {
        let (id, author) = (run.body().topic(), run.body().author());
        // One author far ahead must not hide the times of all others, which are followed.
        if run.body().last_time().is_followed(self.wall) {
            self.latest = self.latest.max(run.body().last_time());
        }
        let arrival = self.arrival(route.peer, author == self.me);
        let append = |log: &mut TopicLog| {
            let replaced = log.append(Arc::clone(run), key, route, hops);
            log.arrived(&author, arrival);
            (replaced, log.last().cloned(), log.incarnation())
        };
        let Some((replaced, Some(item), log)) = self.change_log(&id, append) else { return };
        let start = Cursor::new(log, item.start);
        if item.is_stored() {
            self.persist_run(&item, start.log(), key);
        } else {
            self.appended_ephemeral(&id, &item);
        }
        for Item { start: position, .. } in replaced {
            self.metrics.runs_replaced.inc();
            self.persist(LogChange::Replace { topic: id, position });
        }
        if author == self.me {
            self.appended_own(run, start, item.is_stored());
        }
        let links = self.links.iter_mut();
        let peers: Vec<MachineId> =
            links.filter_map(|(peer, link)| link.wake(id).then_some(*peer)).collect();
        peers.into_iter().for_each(|peer| self.wake_link(peer));
        if !self.storing || !item.is_stored() {
            self.wake_subscribers(&id);
        }
        self.limit_epochs(&id, &author);
        self.limit_log(&id);
        self.schedule_age(&id);
    }

    pub(super) fn wake_subscribers(&mut self, id: &TopicId) {
        let Some(topic) = self.topics.get(id) else { return };
        let subscribers: Vec<SubscriptionId> = topic.subscribers.iter().copied().collect();
        subscribers.into_iter().for_each(|id| self.wake_subscriber(id));
    }

    /// Notes when an ephemeral run is to go.
    fn appended_ephemeral(&mut self, id: &TopicId, item: &Item) {
        let Some(topic) = self.topics.get_mut(id) else { return };
        topic.ephemeral.push_back((self.now, item.start));
        if topic.ephemeral.len() == 1 {
            self.timers.set(self.now + EPHEMERAL_FOR, Timer::Ephemeral(*id));
        }
        self.persist_reach(id, item);
    }

    /// An ephemeral run is gone before its time.
    fn not_ephemeral(&mut self, id: &TopicId, position: u64) {
        let Some(topic) = self.topics.get_mut(id) else { return };
        if let Ok(at) = topic.ephemeral.binary_search_by_key(&position, |(_, at)| *at) {
            topic.ephemeral.remove(at);
        }
        if topic.ephemeral.capacity() > 4 * topic.ephemeral.len().max(4) {
            topic.ephemeral.shrink_to(2 * topic.ephemeral.len());
        }
    }

    /// Removes ephemeral runs that were here for as long as they are kept.
    pub(super) fn expire_ephemeral(&mut self, id: &TopicId) {
        while let Some(topic) = self.topics.get_mut(id)
            && let Some((arrived, position)) = topic.ephemeral.front().copied()
        {
            let at = arrived + EPHEMERAL_FOR;
            if at > self.now {
                self.timers.set(at, Timer::Ephemeral(*id));
                return;
            }
            topic.ephemeral.pop_front();
            self.change_log(id, |log| log.expel(position));
        }
    }

    /// Looks at a topic's age once its oldest run may be past the retention, but not too often.
    fn schedule_age(&mut self, id: &TopicId) {
        let oldest = self.oldest_kept().as_millis();
        let Some(topic) = self.topics.get_mut(id).filter(|topic| !topic.aging) else { return };
        let Some(time) = topic.log.oldest_counted() else { return };
        topic.aging = true;
        let left = Duration::from_millis(time.wall().as_millis().saturating_sub(oldest));
        let after = left.clamp(SWEEP, MAX_SWEEP);
        self.timers.set(self.now + after, Timer::Age(*id));
    }

    pub(super) fn signed(&mut self, run: Arc<Run>) {
        let topic = run.body().topic();
        self.make_topic(topic);
        if let Some(state) = self.topics.get_mut(&topic) {
            if state.loading {
                state.signed.push(run);
                if state.signed.len() >= MAX_SIGNED && !state.congested {
                    state.congested = true;
                    self.outputs.push_back(Output::Congestion { topic, congested: true });
                }
                return;
            }
            state.own = true;
        }
        self.metrics.runs_signed.inc();
        let key = self.key.clone();
        self.append(&run, &key, Route::default(), 0);
        self.update_congestion(&topic);
    }

    /// Brings a topic, and then all topics, below their caps.
    pub(super) fn limit_log(&mut self, appended: &TopicId) {
        let (max_entries, max_bytes) = (self.limits.topic_entries, self.limits.topic_bytes);
        let passing = |topic: &Topic| topic.log.bytes() - topic.log.durable_bytes();
        while self.topics.get(appended).is_some_and(|topic| {
            topic.log.oldest().is_some()
                && (topic.log.entries() > max_entries as u64 || passing(topic) > max_bytes as u64)
        }) {
            self.evict(appended, TopicLog::evict);
        }
        while self.log_bytes - self.durable_bytes > self.limits.log_bytes as u64 {
            let largest = self.topics.iter().max_by_key(|(_, topic)| passing(topic));
            let Some(largest) = largest.map(|(id, _)| *id) else { break };
            self.evict(&largest, TopicLog::evict);
        }
        self.metrics.log_bytes.set(self.log_bytes);
        self.metrics.log_entries.set(self.log_entries);
        self.metrics.topics.set(self.topics.len() as u64);
    }

    /// Whether a topic, or all together, hold twice as much of the durable class as they may.
    pub(super) fn is_over(&self, id: &TopicId) -> bool {
        let of_topic = self.topics.get(id).map_or(0, |topic| topic.log.durable_bytes());
        of_topic > 2 * self.limits.durable_topic_bytes
            || self.durable_bytes > 2 * self.limits.durable_bytes
    }

    /// Tells the publisher which topics hold as much of the durable class as they may.
    fn update_full(&mut self) {
        let all = self.durable_bytes > self.limits.durable_bytes;
        for (id, topic) in &mut self.topics {
            let full = all || topic.log.durable_bytes() > self.limits.durable_topic_bytes;
            if full != topic.full {
                topic.full = full;
                self.outputs.push_back(Output::Full { topic: *id, full });
            }
        }
    }

    /// Lets go of runs that are kept for ever, and whose time has come.
    pub(super) fn release(&mut self, id: &TopicId, upto: &[ChainEnd]) {
        for end in upto {
            let Some(topic) = self.topics.get(id) else { return };
            for position in topic.log.released(end) {
                self.evict(id, |log| log.expel(position));
            }
        }
        self.metrics.log_bytes.set(self.log_bytes);
        self.metrics.log_entries.set(self.log_entries);
    }

    pub(super) fn evict(
        &mut self,
        id: &TopicId,
        which: impl FnOnce(&mut TopicLog) -> Option<Removed>,
    ) {
        let Some(Removed { item, oldest }) = self.change_log(id, which).flatten() else { return };
        self.metrics.runs_evicted.inc();
        if !item.is_stored() {
            return self.not_ephemeral(id, item.start);
        }
        let topic = *id;
        if !oldest {
            return self.persist(LogChange::Remove { topic, position: item.start });
        }
        let position = item.end();
        match self.outputs.back_mut() {
            Some(Output::Persist(LogChange::EvictTo { topic: last, position: upto }))
                if *last == topic =>
            {
                *upto = position;
            }
            _ => self.persist(LogChange::EvictTo { topic, position }),
        }
    }

    /// Changes a topic's log, and the sums over all topics with it.
    pub(super) fn change_log<T>(
        &mut self,
        id: &TopicId,
        change: impl FnOnce(&mut TopicLog) -> T,
    ) -> Option<T> {
        let log = &mut self.topics.get_mut(id)?.log;
        let before = (log.bytes(), log.entries(), log.unstored_bytes());
        let durable = log.durable_bytes();
        let result = change(log);
        self.log_bytes = self.log_bytes - before.0 + log.bytes();
        self.log_entries = self.log_entries - before.1 + log.entries();
        self.unstored_bytes = self.unstored_bytes - before.2 + log.unstored_bytes();
        self.durable_bytes = self.durable_bytes - durable + log.durable_bytes();
        if durable != log.durable_bytes() {
            self.update_full();
        }
        Some(result)
    }

    /// The earliest wall time that is still retained.
    pub(super) fn oldest_retained(&self) -> WallTime {
        let retention = u64::try_from(self.limits.retention.as_millis()).unwrap_or(u64::MAX);
        WallTime::from_millis(self.wall.as_millis().saturating_sub(retention))
    }

    /// The earliest wall time that is still accepted.
    pub(super) fn oldest_accepted(&self) -> WallTime {
        let oldest = self.oldest_retained().as_millis();
        WallTime::from_millis(oldest.saturating_sub(EXPIRY_SLACK_MS))
    }

    /// The earliest wall time of which runs of a class are still accepted.
    pub(super) fn oldest_accepted_of(&self, retention: Retention) -> WallTime {
        let accepted = self.oldest_accepted();
        if retention != Retention::Ephemeral {
            return accepted;
        }
        // An author's clock may be behind ours by as much as it may be ahead.
        let recent = EPHEMERAL_FOR + self.limits.clock_ahead;
        let recent = u64::try_from(recent.as_millis()).unwrap_or(u64::MAX);
        accepted.max(WallTime::from_millis(self.wall.as_millis().saturating_sub(recent)))
    }

    /// The earliest wall time of which nothing is removed for its age.
    pub(super) fn oldest_kept(&self) -> WallTime {
        let believed = self.believed.time(self.now).as_millis();
        let retention = u64::try_from(self.limits.retention.as_millis()).unwrap_or(u64::MAX);
        WallTime::from_millis(believed.saturating_sub(retention))
    }

    /// The earliest wall time of which anything is remembered: later than that it may be accepted.
    pub(super) fn oldest_known(&self) -> WallTime {
        let kept = self.oldest_kept().as_millis();
        WallTime::from_millis(kept.saturating_sub(EXPIRY_SLACK_MS))
    }

    pub(super) fn sweep_age(&mut self, id: &TopicId) {
        let oldest = self.oldest_kept();
        while self
            .topics
            .get(id)
            .is_some_and(|topic| topic.log.oldest().is_some_and(|time| time.wall() < oldest))
        {
            self.evict(id, TopicLog::evict_oldest);
        }
        self.forget_old(id);
        if let Some(topic) = self.topics.get_mut(id) {
            topic.aging = false;
        }
        self.schedule_age(id);
        self.drop_unused(id);
    }

    /// Drops the log of a topic without subscribers: a foreign one after its grace period, one with
    /// own entries once none of them is retained.
    pub(super) fn drop_unused(&mut self, id: &TopicId) {
        let (now, me) = (self.now, self.me);
        let Some(topic) = self.topics.get_mut(id) else { return };
        topic.drop_at = topic.drop_at.filter(|at| *at > now);
        let carried = topic.loading || (topic.own && topic.log.retains_author(&me));
        if topic.subscribers.is_empty() && topic.drop_at.is_none() && !carried {
            self.drop_topic(id);
        }
    }

    /// Tells the publisher when a live link of a topic, or the store, is too far behind, and when no
    /// more.
    pub(super) fn update_congestion(&mut self, id: &TopicId) {
        let Some(topic) = self.topics.get_mut(id) else { return };
        if !topic.own {
            return;
        }
        let unstored = topic.log.unstored_bytes();
        // Released at half the limit, so that it does not flicker.
        let share = if topic.congested { 2 } else { 1 };
        let mut congested = unstored > self.limits.unstored_topic_bytes / share;
        for link in self.links.values_mut() {
            let Some(place) = link.topics.get_mut(id).filter(|_| !link.banned) else { continue };
            congested |= place.holds(self.now, &topic.log, &self.limits);
        }
        if congested != topic.congested {
            topic.congested = congested;
            self.outputs.push_back(Output::Congestion { topic: *id, congested });
        }
        if congested {
            self.timers.once(self.now + CONGESTION, Timer::Congestion(*id));
        }
    }
}
