//! Topics that outlive the service: reading them, and telling the store what changes.

use std::{sync::Arc, time::Duration};

use x0x_core::{TopicId, WallTime};
use x0x_identity::PublicKey;

use crate::{
    config::MAX_OWN_TOPICS,
    log::{Item, SKIPPED, TopicLog},
    retention::Retention,
    run::{Run, RunBody},
    store::{LogChange, RestoredTopic},
    subscriber::{Cursor, SubscriptionId},
};

use super::{Output, PubSubMachine, Timer, Topic, authors::ESTABLISHED, live_from};

/// How often the store is told what is past the retention.
const EXPIRE: Duration = Duration::from_secs(3600);

impl PubSubMachine {
    /// What was stored of a topic is here: it joins in.
    pub(super) fn restored(&mut self, id: TopicId, stored: Option<Box<RestoredTopic>>) {
        let (incarnation, oldest_retained) = (self.rng.next_u64(), self.oldest_retained());
        let Some(topic) = self.topics.get_mut(&id).filter(|topic| topic.loading) else { return };
        topic.loading = false;
        topic.log = match stored {
            Some(stored) => {
                self.metrics.runs_restored.add(stored.runs() as u64);
                self.metrics.refused_stored.add(stored.refused());
                TopicLog::restored(*stored)
            }
            None => TopicLog::new(incarnation),
        };
        if self.storing {
            topic.log.follow_store();
        }
        topic.own = topic.log.retains_author(&self.me);
        let span = u64::try_from(ESTABLISHED.as_millis()).unwrap_or(u64::MAX);
        topic.log.recognise(&self.me, span, self.limits.topic_authors / 2);
        topic.log.expire(oldest_retained);
        self.log_bytes += topic.log.bytes();
        self.log_entries += topic.log.entries();
        self.durable_bytes += topic.log.durable_bytes();
        self.latest = self.latest.max(topic.log.latest());
        let (end, signed) = (topic.log.end(), std::mem::take(&mut topic.signed));
        let subscribers: Vec<SubscriptionId> = topic.subscribers.iter().copied().collect();
        let live_from = live_from(self.wall, &self.limits);
        for id in &subscribers {
            if let Some(subscriber) = self.subscribers.get_mut(id)
                && let Some(start) = subscriber.waits
            {
                subscriber.begin(&topic.log, start, live_from);
            }
        }
        // Peers compare what was stored; they are sent what follows.
        for link in self.links.values_mut() {
            if let Some(place) = link.topics.get_mut(&id) {
                place.cursor = end;
            }
        }
        self.limit_former(&id);
        // The last one tells the publisher when it was held back.
        signed.into_iter().for_each(|run| self.signed(run));
        self.limit_log(&id);
        self.sweep_age(&id);
        subscribers.iter().for_each(|id| self.wake_subscriber(*id));
        if self.is_subscribed(&id) {
            self.begin_subscribed(id);
        }
        self.tell_links(id);
        self.carry_next();
    }

    /// This author published in these topics before: they are read one after the other, so that peers
    /// get what was acknowledged though nobody here subscribes it. They leave half of the memory for
    /// others.
    pub(super) fn carry(&mut self, topics: Vec<TopicId>) {
        self.to_carry = topics.into();
        self.to_carry.truncate(MAX_OWN_TOPICS.min(self.limits.topics / 2));
        self.carry_next();
    }

    fn carry_next(&mut self) {
        while self.log_bytes <= self.limits.log_bytes as u64 / 2
            && let Some(topic) = self.to_carry.pop_front()
        {
            if !self.topics.contains_key(&topic) {
                return self.make_topic(topic);
            }
        }
    }

    /// Links that subscribe a topic learn what was stored of it.
    fn tell_links(&mut self, id: TopicId) {
        let subscribed = self.links.iter().filter(|(_, link)| link.topics.contains_key(&id));
        let peers: Vec<_> = subscribed.map(|(peer, _)| *peer).collect();
        peers.into_iter().for_each(|peer| self.send_digest(peer, &id));
    }

    /// Keeps the former authors of all topics, those of one that was read included, below their cap.
    fn limit_former(&mut self, id: &TopicId) {
        let all: usize = self.topics.values().map(|topic| topic.log.former_authors()).sum();
        let surplus = all.saturating_sub(self.limits.former_authors);
        if surplus > 0
            && let Some(topic) = self.topics.get_mut(id)
        {
            topic.log.limit_former(topic.log.former_authors().saturating_sub(surplus));
        }
    }

    /// The store has what is before a place: subscribers may read it.
    pub(super) fn stored_upto(&mut self, id: &TopicId, upto: Cursor) {
        let Some(topic) = self.topics.get(id) else { return };
        if topic.loading || topic.log.incarnation() != upto.log() {
            return;
        }
        let congested = topic.congested;
        self.change_log(id, |log| log.set_stored(upto.position()));
        if congested {
            self.update_congestion(id);
        }
        self.wake_subscribers(id);
    }

    /// Whether so much of a run's topic, or of all, waits for the store that the run is better
    /// fetched later.
    pub(super) fn is_store_behind(&self, run: &RunBody) -> bool {
        let limits = &self.limits;
        let of_topic = |topic: &Topic| topic.log.unstored_bytes() > limits.unstored_topic_bytes;
        run.retention() != Retention::Ephemeral
            && (self.store_behind
                || self.unstored_bytes > limits.unstored_bytes
                || self.topics.get(&run.topic()).is_some_and(of_topic))
    }

    /// Stores a run that joined the log.
    pub(super) fn persist_run(&mut self, log_item: &Item, incarnation: u64, key: &PublicKey) {
        let Item { run, start, missed, begins, .. } = log_item;
        self.persist(LogChange::Append {
            incarnation,
            position: *start,
            missed: *missed,
            begins: *begins,
            run: Arc::clone(run),
            key: key.clone(),
        });
    }

    /// Stores how far the positions of a log reach, now and then while entries join it that are not
    /// stored: they have been read, and their positions are not given out again.
    pub(super) fn persist_reach(&mut self, id: &TopicId, item: &Item) {
        let step = |position: u64| position / (SKIPPED / 2);
        if step(item.start) != step(item.end())
            && let Some(incarnation) = self.topics.get(id).map(|topic| topic.log.incarnation())
        {
            let (topic, position) = (*id, item.end());
            self.persist(LogChange::Reach { topic, incarnation, position });
        }
    }

    pub(super) fn persist(&mut self, change: LogChange) {
        if self.storing {
            self.outputs.push_back(Output::Persist(change));
        }
    }

    /// Changes of a topic were not stored. What is in its log takes their place: nothing changes where it
    /// is stored already.
    pub(super) fn store_again(&mut self, id: &TopicId) {
        let Some(topic) = self.topics.get(id).filter(|topic| !topic.loading) else { return };
        if !self.storing {
            return;
        }
        let (log, topic) = (&topic.log, *id);
        let evicted = LogChange::EvictTo { topic, position: log.base() };
        let runs = log.from(0).filter(|item| item.is_stored()).filter_map(|item| {
            Some(LogChange::Append {
                incarnation: log.incarnation(),
                position: item.start,
                missed: item.missed,
                begins: item.begins,
                run: Arc::clone(&item.run),
                key: log.key(&item.run.body().author())?.clone(),
            })
        });
        let blocked = log.blocked().map(|author| LogChange::Block { topic, author });
        let changes = std::iter::once(evicted).chain(runs).chain(blocked);
        self.outputs.extend(changes.map(Output::Persist));
    }

    /// Says that a run of this author is in the log.
    pub(super) fn appended_own(&mut self, run: &Run, start: Cursor, is_stored: bool) {
        let body = run.body();
        self.outputs.push_back(Output::Appended {
            topic: body.topic(),
            epoch: body.epoch(),
            seqs: (body.first_seq(), body.last_seq()),
            start,
            stored: self.storing && is_stored,
        });
    }

    pub(super) fn expire_stored(&mut self) {
        let before = self.oldest_known();
        if before > WallTime::default() {
            self.outputs.push_back(Output::Persist(LogChange::Expire { before }));
        }
        self.timers.set(self.now + EXPIRE, Timer::Expire);
    }
}
