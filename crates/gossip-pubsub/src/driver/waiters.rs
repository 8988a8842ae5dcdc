//! Who waits for what: entries to be published, links that subscribe a topic, a first hop.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::oneshot;
use x0x_core::TopicId;

use crate::{
    error::PublishError, pubsub::Published, retention::Retention, state::PubSubMachine,
    subscriber::Cursor,
};

/// Most calls that wait for links or for a first hop at a time.
pub(crate) const MAX_WAITERS: usize = 1024;

/// Where an entry is published.
pub(crate) type Reply = oneshot::Sender<Result<Published, PublishError>>;

/// Entries of which somebody wants to know when they are published: those that wait for the signer
/// or the store, so no more than may wait there.
#[derive(Debug, Default)]
pub(crate) struct Publishing(BTreeMap<(TopicId, Retention), VecDeque<Waiting>>);

/// Who waits for an entry, by epoch and sequence number.
type Waiting = (u64, u64, Reply);

/// A run that joined the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appended {
    pub(crate) topic: TopicId,
    pub(crate) epoch: u64,
    pub(crate) seqs: (u64, u64),
    pub(crate) start: Cursor,
}

impl Publishing {
    /// Notes who waits for an entry; they come in the order of their entries.
    pub(crate) fn wait(&mut self, topic: TopicId, epoch: u64, seq: u64, reply: Reply) {
        let line = (topic, Retention::of_epoch(epoch));
        self.0.entry(line).or_default().push_back((epoch, seq, reply));
    }

    /// Tells those who wait for an entry of a run.
    pub(crate) fn published(&mut self, run: Appended, result: Result<usize, PublishError>) {
        let Appended { topic, epoch, seqs: (first, last), start } = run;
        let line = (topic, Retention::of_epoch(epoch));
        let Some(waiting) = self.0.get_mut(&line) else { return };
        while waiting.front().is_some_and(|(of, seq, _)| (*of, *seq) <= (epoch, last)) {
            let Some((_, seq, reply)) = waiting.pop_front() else { break };
            let position = start.position() + (seq + 1).saturating_sub(first);
            let cursor = Some(Cursor::new(start.log(), position));
            // Who does not wait any more does not want to know.
            let entry = result.map(|neighbors| Published { epoch, seq, cursor, neighbors });
            let _ = reply.send(entry);
        }
        if waiting.is_empty() {
            self.0.remove(&line);
        }
    }
}

/// Calls that wait for the world to change.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    ready: Vec<(TopicId, usize, oneshot::Sender<usize>)>,
    hops: Vec<(TopicId, (u64, u64), oneshot::Sender<()>)>,
}

impl Waiters {
    fn has_room(&mut self) -> bool {
        self.ready.retain(|(_, _, reply)| !reply.is_closed());
        self.hops.retain(|(_, _, reply)| !reply.is_closed());
        self.ready.len() + self.hops.len() < MAX_WAITERS
    }

    /// Waits until so many links subscribe a topic. A call beyond the limit is dropped.
    pub(crate) fn ready(&mut self, topic: TopicId, links: usize, reply: oneshot::Sender<usize>) {
        if self.has_room() {
            self.ready.push((topic, links, reply));
        }
    }

    /// Waits until a link has an own entry. A call beyond the limit is dropped.
    pub(crate) fn hop(&mut self, topic: TopicId, entry: (u64, u64), reply: oneshot::Sender<()>) {
        if self.has_room() {
            self.hops.push((topic, entry, reply));
        }
    }

    /// A link has own entries up to this one.
    pub(crate) fn first_hop(&mut self, topic: TopicId, upto: (u64, u64)) {
        let class = Retention::of_epoch(upto.0);
        let done = self.hops.extract_if(.., |(of, entry, _)| {
            *of == topic && Retention::of_epoch(entry.0) == class && *entry <= upto
        });
        done.for_each(|(_, _, reply)| {
            let _ = reply.send(());
        });
    }

    /// Looks whether topics have as many links as is waited for.
    pub(crate) fn look(&mut self, machine: &PubSubMachine) {
        if self.ready.is_empty() {
            return;
        }
        let enough =
            |(topic, links, _): &mut (TopicId, usize, _)| machine.topic_links(topic) >= *links;
        for (topic, _, reply) in self.ready.extract_if(.., enough) {
            let _ = reply.send(machine.topic_links(&topic));
        }
    }
}
