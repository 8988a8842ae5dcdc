//! What the machine is like now, for people who look at it.

use std::time::Duration;

use x0x_core::{MachineId, TopicId};

use super::PubSubMachine;

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
    /// Chains with retained entries.
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
        }
    }

    fn topic_snapshot(&self, id: &TopicId) -> Option<TopicSnapshot> {
        let topic = self.topics.get(id)?;
        let (mut eager, mut lazy, mut equal) = (0, 0, 0);
        let digest = topic.log.fingerprint().digest();
        let links = self.links.values().filter(|link| !link.banned);
        for place in links.filter_map(|link| link.topics.get(id)) {
            eager += usize::from(place.eager);
            lazy += usize::from(!place.eager);
            equal += usize::from(place.equal == Some(digest));
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
