//! What the machine is like now, for people who look at it.

use std::time::Duration;

use x0x_core::{MachineId, TopicId};

use crate::{
    config::{
        AUTHOR_BYTES, HEAD_BYTES, MAX_ANNOUNCED, MAX_CONTROL_ITEMS, MAX_EPOCHS,
        MAX_SUBSCRIBED_TOPICS, MAX_WAITING_LINKS, MISSING_BYTES,
    },
    link::Link,
    log::TopicLog,
};

use super::{PubSubMachine, Topic, peers::MAX_SEARCHES};

/// One link.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkSnapshot {
    /// The peer.
    pub peer: MachineId,
    /// It is a neighbour of the overlay; else it subscribes a topic of ours.
    pub neighbor: bool,
    /// The measured round trip, or the 50 ms that are assumed at first.
    pub rtt: Duration,
    /// Its queue is full.
    pub slow: bool,
    /// Points for misbehaviour; at 100 it is disconnected.
    pub penalty: u32,
    /// Promises that it broke lately.
    pub broken_promises: u32,
    /// Topics that it subscribes.
    pub topics: usize,
}

/// One topic with a log here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicSnapshot {
    /// The topic.
    pub topic: TopicId,
    /// Local subscriptions.
    pub subscriptions: usize,
    /// Entries retained.
    pub entries: u64,
    /// Bytes retained, with bookkeeping.
    pub bytes: u64,
    /// Authors whose key is known.
    pub authors: usize,
    /// Chains that count: those with entries within the retention, here or elsewhere.
    pub chains: u32,
    /// Links in the topic's shared tree, to which runs are pushed.
    pub eager: usize,
    /// Links to which heads are announced.
    pub lazy: usize,
    /// Chains of which something is known to be missing.
    pub missing: usize,
    /// A link is so far behind that publishing waits.
    pub congested: bool,
    /// Links that were found to hold the same.
    pub equal: usize,
}

/// How full a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableSnapshot {
    /// What it holds. Of tables that each link or topic has, this is the fullest.
    pub name: &'static str,
    /// Entries now.
    pub len: usize,
    /// Most entries that there may be.
    pub max: usize,
}

/// All links and topics, in the order of their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The links.
    pub links: Vec<LinkSnapshot>,
    /// Sessions that wait to become links.
    pub waiting: usize,
    /// The topics.
    pub topics: Vec<TopicSnapshot>,
    /// Chains of which something is known to be missing, in all topics.
    pub missing: usize,
    /// Every table that a peer can fill.
    pub tables: Vec<TableSnapshot>,
    /// Bytes that all this takes, counted as [`Limits::memory_bound`](crate::Limits::memory_bound)
    /// counts what it may take.
    pub memory: usize,
}

impl PubSubMachine {
    /// What the machine is like now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let links = self.links.iter().map(|(peer, link)| LinkSnapshot {
            peer: *peer,
            neighbor: link.neighbor,
            rtt: link.rtt,
            slow: link.paused,
            penalty: link.score.points(self.now),
            broken_promises: link.score.broken(self.now),
            topics: link.topics.len(),
        });
        Snapshot {
            links: links.collect(),
            waiting: self.waiting.len(),
            topics: self.topics.keys().filter_map(|topic| self.topic_snapshot(topic)).collect(),
            missing: self.missing.len(),
            tables: self.tables(),
            memory: self.memory(),
        }
    }

    fn tables(&self) -> Vec<TableSnapshot> {
        let limits = &self.limits;
        let of_links =
            |size: &dyn Fn(&Link) -> usize| self.links.values().map(size).max().unwrap_or(0);
        let of_topics = |size: &dyn Fn(&TopicLog) -> usize| {
            self.topics.values().map(|topic| size(&topic.log)).max().unwrap_or(0)
        };
        let all_topics = |size: &dyn Fn(&TopicLog) -> usize| -> usize {
            self.topics.values().map(|topic| size(&topic.log)).sum()
        };
        let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let strangers = self.links.values().filter(|link| !link.neighbor).count();
        let ephemeral = self.topics.values().map(|topic| topic.ephemeral.len()).max();
        let durable = limits.durable_chains();
        let timers = 2 + 6 * self.topics.len() + 2 * self.links.len();
        let tables = [
            ("topics", self.topics.len(), limits.topics),
            ("subscriptions", self.subscribers.len(), limits.subscriptions),
            ("links", self.links.len(), limits.links),
            ("strangers", strangers, limits.strangers),
            ("waiting sessions", self.waiting.len(), MAX_WAITING_LINKS),
            ("paths", self.paths.len(), MAX_WAITING_LINKS),
            ("missing ranges", self.missing.len(), limits.missing),
            ("missing ranges of a link", self.missing.most_owned(), limits.link_missing),
            ("crowded topics of a link", self.missing.most_crowded(), MAX_SUBSCRIBED_TOPICS),
            ("crowding links", self.missing.crowding(), limits.links),
            ("keys", self.keys.len(), limits.keys),
            ("scores", self.scores.len(), limits.penalties),
            ("bans", self.banned.len(), limits.penalties),
            ("searches", self.searches.len(), MAX_SEARCHES),
            ("proofs", self.equivocations.len(), limits.equivocation_proofs),
            ("timers", self.timers.len(), timers),
            ("authors", all_topics(&TopicLog::authors), limits.authors),
            ("authors of a topic", of_topics(&TopicLog::authors), limits.topic_authors),
            ("former authors", all_topics(&TopicLog::former_authors), limits.former_authors),
            ("further epochs", all_topics(&TopicLog::spare), limits.spare_chains + durable),
            ("entries of a topic", of_topics(&|log| whole(log.entries())), limits.topic_entries),
            ("bytes of a topic", of_topics(&|log| whole(log.bytes())), limits.topic_bytes),
            ("bytes of all topics", whole(self.log_bytes), limits.log_bytes),
            ("topics of a link", of_links(&|link| link.topics.len()), MAX_SUBSCRIBED_TOPICS),
            ("ephemeral runs of a topic", ephemeral.unwrap_or(0), limits.topic_entries),
            ("epochs of an author", of_topics(&TopicLog::longest), MAX_EPOCHS),
            ("chains gone at a link", of_links(&Link::gone), limits.link_heads),
            ("chains of a link", of_links(&Link::views), limits.link_heads),
            ("keys sent on a link", of_links(&|link| link.keys_sent.len()), limits.keys),
            ("heads for a link", of_links(&|link| link.heads.len()), MAX_ANNOUNCED),
            ("ranges for a link", of_links(&|link| link.pulls.len()), limits.link_wants + 1),
            // And one that was refused.
            ("frames for a link", of_links(&|link| link.controls().0), 2 * limits.link_wants + 1),
            ("items for a link", of_links(&|link| link.controls().1), 2 * MAX_CONTROL_ITEMS),
        ];
        let table = |(name, len, max)| TableSnapshot { name, len, max };
        tables.into_iter().map(table).collect()
    }

    fn memory(&self) -> usize {
        let log = |topic: &Topic| topic.log.authors() * AUTHOR_BYTES + topic.log.author_bytes();
        let link = |link: &Link| {
            let (controls, items) = link.controls();
            let topics =
                link.topics.len() + link.announce.len() + link.announced.len() + link.retract.len();
            let heads = link.heads.len() + link.pulls.len() + controls + topics;
            let chains = link.views() * Link::VIEW_PLACE + link.gone() * Link::GONE_PLACE;
            chains + heads * HEAD_BYTES + items * HEAD_BYTES / 2 + link.keys_sent.len() * 100
        };
        let proofs =
            self.equivocations.iter().map(|proof| proof.first.size() + proof.second.size());
        let small = self.paths.len() + self.scores.len() + self.banned.len() + self.searches.len();
        usize::try_from(self.log_bytes).unwrap_or(usize::MAX)
            + self.topics.values().map(log).sum::<usize>()
            + self.keys.len() * AUTHOR_BYTES
            + self.links.values().map(link).sum::<usize>()
            + proofs.sum::<usize>()
            + self.missing.len() * MISSING_BYTES
            + (self.waiting.len() + small + 8 * self.topics.len()) * HEAD_BYTES
    }

    fn topic_snapshot(&self, id: &TopicId) -> Option<TopicSnapshot> {
        let topic = self.topics.get(id)?;
        let (mut eager, mut lazy, mut equal) = (0, 0, 0);
        let links = self.links.iter().filter(|(_, link)| !link.banned);
        for (peer, place) in links.filter_map(|(peer, link)| Some((peer, link.topics.get(id)?))) {
            eager += usize::from(place.eager);
            lazy += usize::from(!place.eager);
            equal += usize::from(
                place.equal.is_some()
                    && place.equal == self.digest(peer, id).map(|digest| digest.fingerprint),
            );
        }
        Some(TopicSnapshot {
            topic: *id,
            subscriptions: topic.subscribers.len(),
            entries: topic.log.entries(),
            bytes: topic.log.bytes(),
            authors: topic.log.authors(),
            chains: topic.log.fingerprint().chains(),
            eager,
            lazy,
            missing: self.missing.of_topic(id),
            congested: topic.congested,
            equal,
        })
    }
}
