//! Local subscribers: each a position in its topic's log, and batches read from there.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use x0x_core::{AgentId, TopicId, WallTime};

use crate::{
    config::{MAX_RUN_BYTES, MAX_RUN_ENTRIES},
    log::TopicLog,
    run::Run,
    time::HybridTime,
};

/// Names a local subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub(crate) u64);

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Start {
    /// With everything that is retained, here or at the neighbours: a late joiner misses nothing
    /// within the retention.
    #[default]
    Retained,
    /// With what is published from now on. Clocks differ, so on a node that has just joined the
    /// topic, entries of the last five minutes may come too; nothing new is skipped.
    Live,
}

/// One message of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The topic.
    pub topic: TopicId,
    /// Who published it; proven by signature.
    pub author: AgentId,
    /// The author's log lifetime: a restarted author begins a greater one.
    pub epoch: u64,
    /// Contiguous from 1 within author, epoch and topic.
    pub seq: u64,
    /// When the author published it, by the author's clock.
    pub time: WallTime,
    /// The content.
    pub payload: Bytes,
}

/// What a subscription yields.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// The next message, exactly once and in the order of its author.
    Message(Message),
    /// Messages that this subscription will never see: they were evicted before it read them, or no
    /// neighbour could supply them any more. For [`Start::Retained`] this includes what an author
    /// published before the oldest entry that is to be had: nobody can tell whether retention took
    /// it or a neighbour withheld it.
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// A part of a batch, unpacked by the reader.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    Lagged(u64),
    /// The entries of a run from this index on.
    Run(Arc<Run>, usize),
    #[cfg(feature = "test-util")]
    Message(Message),
}

/// Deliveries handed over at once: at most [`MAX_RUN_ENTRIES`] messages of [`MAX_RUN_BYTES`] bytes
/// together.
#[derive(Debug, Default)]
pub struct Batch {
    pieces: VecDeque<Piece>,
    /// Encoded bytes of its runs, which it keeps in memory.
    bytes: u64,
    charge: Option<Charge>,
}

/// Bytes accounted for in a shared total until this is dropped.
#[derive(Debug)]
struct Charge {
    total: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Encoded bytes of its runs.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts the batch in a total of bytes until it is read or dropped.
    pub fn charge(&mut self, total: &Arc<AtomicU64>) {
        total.fetch_add(self.bytes, Ordering::Relaxed);
        self.charge = Some(Charge { total: Arc::clone(total), bytes: self.bytes });
    }

    /// Messages in it, and messages that it tells were missed.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        self.pieces.iter().fold((0, 0), |(messages, missed), piece| match piece {
            Piece::Run(run, from) => (messages + run.len().saturating_sub(*from as u64), missed),
            Piece::Lagged(count) => (messages, missed + count),
            #[cfg(feature = "test-util")]
            Piece::Message(_) => (messages + 1, missed),
        })
    }

    #[cfg(feature = "test-util")]
    pub(crate) fn of(piece: Piece) -> Self {
        Self { pieces: VecDeque::from([piece]), ..Self::default() }
    }
}

impl Iterator for Batch {
    type Item = Delivery;

    fn next(&mut self) -> Option<Delivery> {
        loop {
            match self.pieces.front_mut()? {
                Piece::Run(run, index) => {
                    if let Some(message) = message(run, *index) {
                        *index += 1;
                        return Some(Delivery::Message(message));
                    }
                    self.pieces.pop_front();
                }
                Piece::Lagged(missed) => {
                    let missed = *missed;
                    self.pieces.pop_front();
                    return Some(Delivery::Lagged { missed });
                }
                #[cfg(feature = "test-util")]
                Piece::Message(message) => {
                    let message = message.clone();
                    self.pieces.pop_front();
                    return Some(Delivery::Message(message));
                }
            }
        }
    }
}

fn message(run: &Run, index: usize) -> Option<Message> {
    let body = run.body();
    let entry = body.entries().get(index)?;
    Some(Message {
        topic: body.topic(),
        author: body.author(),
        epoch: body.epoch(),
        seq: body.first_seq() + index as u64,
        time: entry.time.wall(),
        payload: entry.payload.clone(),
    })
}

/// A subscription's place in its topic.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) topic: TopicId,
    /// Position of the next entry.
    cursor: u64,
    /// The position before the batch handed out last, in case it is refused.
    offered: u64,
    /// Entries from before this are skipped.
    not_before: HybridTime,
    /// Its channel is full.
    pub(crate) full: bool,
    /// Whether it is in the machine's queue of subscribers with something to read.
    pub(crate) queued: bool,
}

impl Subscriber {
    pub(crate) const fn new(topic: TopicId, cursor: u64, not_before: HybridTime) -> Self {
        Self { topic, cursor, offered: cursor, not_before, full: false, queued: false }
    }

    /// Reads the next batch.
    pub(crate) fn next_batch(&mut self, log: &TopicLog) -> Batch {
        self.offered = self.cursor;
        let mut batch = VecDeque::new();
        let lagged = log.base().saturating_sub(self.cursor);
        if lagged > 0 {
            batch.push_back(Piece::Lagged(lagged));
            self.cursor = log.base();
        }
        let (mut entries, mut bytes) = (0, 0);
        for item in log.from(self.cursor) {
            let body = item.run.body();
            let skip = body.entries().partition_point(|entry| entry.time < self.not_before);
            let count = body.entries().len() - skip;
            let size = item.run.encoded().len() as u64;
            let full = entries + count > MAX_RUN_ENTRIES || bytes + size > MAX_RUN_BYTES as u64;
            if full && entries > 0 {
                break;
            }
            if count > 0 {
                // One that reads from now on misses nothing of the time before.
                let told = !item.begins || self.not_before == HybridTime::default();
                if item.missed > 0 && told {
                    batch.push_back(Piece::Lagged(item.missed));
                }
                batch.push_back(Piece::Run(Arc::clone(&item.run), skip));
                entries += count;
                bytes += size;
            }
            self.cursor = item.end();
        }
        Batch { pieces: batch, bytes, charge: None }
    }

    /// Goes back to before the batch handed out last.
    pub(crate) const fn refuse(&mut self) {
        self.cursor = self.offered;
        self.full = true;
    }
}
