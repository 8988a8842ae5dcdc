//! The topics' logs: making and dropping them, appending, retention and congestion.

use std::sync::Arc;

use x0x_core::{MachineId, TopicId, WallTime};
use x0x_identity::PublicKey;

use crate::{run::Run, subscriber::SubscriptionId};

use super::{Output, PubSubMachine, SHORT_TICK, SWEEP, Topic};

impl PubSubMachine {
    /// Makes a topic's log, dropping the one that was without subscribers for longest if needed.
    /// There is one, since subscribed topics have a lower cap.
    pub(super) fn make_topic(&mut self, topic: TopicId) {
        if self.topics.contains_key(&topic) {
            return;
        }
        if self.topics.len() >= self.limits.topics {
            let idle = self.topics.iter().filter(|(_, topic)| topic.subscribers.is_empty());
            let oldest = idle.min_by_key(|(_, topic)| topic.log.oldest()).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.drop_topic(&oldest);
                self.metrics.topics_evicted.inc();
            }
        }
        self.topics.insert(topic, Topic::default());
        // Peers that subscribed it before this node knew it read it from the start.
        for link in self.links.values_mut() {
            if let Some(state) = link.topics.get_mut(&topic) {
                state.cursor = 0;
            }
        }
    }

    pub(super) fn drop_topic(&mut self, id: &TopicId) {
        if let Some(topic) = self.topics.remove(id) {
            self.log_bytes -= topic.log.bytes();
            self.log_entries -= topic.log.entries();
            self.authors -= topic.log.authors();
            if topic.congested {
                self.outputs.push_back(Output::Congestion { topic: *id, congested: false });
            }
        }
    }

    /// Appends a run and wakes whoever it may concern.
    pub(super) fn append(&mut self, run: Run, key: &PublicKey) {
        let id = run.body().topic();
        self.latest = self.latest.max(run.body().last_time());
        let Some(topic) = self.topics.get_mut(&id) else { return };
        let authors = topic.log.authors();
        let (bytes, entries) = (run.size() as u64, run.len());
        topic.log.append(Arc::new(run), key);
        self.authors += topic.log.authors() - authors;
        self.log_bytes += bytes;
        self.log_entries += entries;
        let subscribers: Vec<SubscriptionId> = topic.subscribers.iter().copied().collect();
        let peers: Vec<MachineId> = self
            .links
            .iter_mut()
            .filter_map(|(peer, link)| link.wake(id).then_some(*peer))
            .collect();
        peers.into_iter().for_each(|peer| self.wake_link(peer));
        subscribers.into_iter().for_each(|id| self.wake_subscriber(id));
        self.evict(&id);
        self.set_timeout(SWEEP);
    }

    pub(super) fn signed(&mut self, run: Run) {
        let topic = run.body().topic();
        self.make_topic(topic);
        if let Some(state) = self.topics.get_mut(&topic) {
            state.own = true;
        }
        self.metrics.runs_signed.inc();
        let key = self.key.clone();
        self.append(run, &key);
        self.update_congestion(&topic);
    }

    /// Brings a topic, and then all topics, below their caps.
    fn evict(&mut self, appended: &TopicId) {
        let (max_entries, max_bytes) = (self.limits.topic_entries, self.limits.topic_bytes);
        while self.topics.get(appended).is_some_and(|topic| {
            topic.log.entries() > max_entries as u64 || topic.log.bytes() > max_bytes as u64
        }) {
            self.evict_oldest(appended);
        }
        while self.log_bytes > self.limits.log_bytes as u64 {
            let largest = self.topics.iter().max_by_key(|(_, topic)| topic.log.bytes());
            let Some(largest) = largest.map(|(id, _)| *id) else { break };
            self.evict_oldest(&largest);
        }
        self.update_gauges();
    }

    fn evict_oldest(&mut self, id: &TopicId) {
        let Some(run) = self.topics.get_mut(id).and_then(|topic| topic.log.evict()) else {
            return;
        };
        self.log_bytes -= run.size() as u64;
        self.log_entries -= run.len();
        self.metrics.runs_evicted.inc();
    }

    /// The earliest wall time that is still retained.
    pub(super) fn oldest_retained(&self) -> WallTime {
        let retention = u64::try_from(self.limits.retention.as_millis()).unwrap_or(u64::MAX);
        WallTime::from_millis(self.wall.as_millis().saturating_sub(retention))
    }

    pub(super) fn sweep_age(&mut self) {
        let oldest = self.oldest_retained();
        let ids: Vec<TopicId> = self.topics.keys().copied().collect();
        for id in ids {
            while self
                .topics
                .get(&id)
                .is_some_and(|topic| topic.log.oldest().is_some_and(|time| time.wall() < oldest))
            {
                self.evict_oldest(&id);
            }
        }
    }

    /// Drops the logs of topics without subscribers: foreign ones after their grace period, those
    /// with own entries once nothing is retained.
    pub(super) fn sweep_topics(&mut self) {
        let (now, me) = (self.now, self.key.agent_id());
        let unused = |topic: &Topic| {
            let over = topic.drop_at.is_none_or(|at| at <= now);
            let carried = topic.own && topic.log.retains_author(&me);
            topic.subscribers.is_empty() && over && !carried
        };
        let unused: Vec<TopicId> =
            self.topics.iter().filter(|(_, topic)| unused(topic)).map(|(id, _)| *id).collect();
        unused.iter().for_each(|id| self.drop_topic(id));
        self.topics.values_mut().for_each(|topic| {
            topic.drop_at = topic.drop_at.filter(|at| *at > now);
        });
    }

    /// Tells the publisher when a live link of a topic is too far behind, and when no more.
    pub(super) fn update_congestion(&mut self, id: &TopicId) {
        let Some(topic) = self.topics.get_mut(id) else { return };
        if !topic.own {
            return;
        }
        // Released at half the limit, so that it does not flicker.
        let share = if topic.congested { 2 } else { 1 };
        let mut links = self.links.values();
        let congested =
            links.any(|link| link.is_behind(self.now, id, &topic.log, &self.limits, share));
        if congested != topic.congested {
            topic.congested = congested;
            self.outputs.push_back(Output::Congestion { topic: *id, congested });
        }
        if congested {
            self.set_timeout(SHORT_TICK);
        }
    }
}
