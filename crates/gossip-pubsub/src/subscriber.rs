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
    log::{Item, TopicLog},
    retention::Retention,
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
    /// With what follows a place in this node's log, such as that of the last message that was read
    /// before the reader or the service stopped. When the log is another one by now, or the place is
    /// no longer retained, the reader is told and begins with the oldest that is.
    After(Cursor),
}

/// A place in one node's log of a topic: behind a message that was delivered here. It means nothing
/// on other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    log: u64,
    position: u64,
}

impl Cursor {
    /// The place with these numbers.
    #[must_use]
    pub const fn new(log: u64, position: u64) -> Self {
        Self { log, position }
    }

    /// Which life of the topic's log it is of.
    #[must_use]
    pub const fn log(&self) -> u64 {
        self.log
    }

    /// Entries before it, those that are evicted and those that a crash lost included.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }
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
    /// Contiguous from 1 within author, epoch and topic; each retention class has its own epochs.
    pub seq: u64,
    /// When the author published it, by the author's clock.
    pub time: WallTime,
    /// The content.
    pub payload: Bytes,
    /// The place behind it, to go on from with [`Start::After`].
    pub cursor: Cursor,
    /// How long it is kept.
    pub retention: Retention,
    /// Bytes that it takes in the log, its part of what its run is signed with included.
    pub logged: u64,
    /// How many messages of this author and epoch just before it are missing here, since no neighbour
    /// could supply them. They are counted in the [`Delivery::Lagged`] before it, too.
    pub gap: u64,
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
        /// How many; 0 when that cannot be known: the reader's cursor is of another log, or of before
        /// a restart and something behind it is not retained any more.
        missed: u64,
    },
}

/// A part of a batch, unpacked by the reader.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    Lagged(u64),
    /// The entries of a run from this index on.
    Run {
        run: Arc<Run>,
        index: usize,
        start: Cursor,
        gap: u64,
    },
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
            Piece::Run { run, index, .. } => {
                (messages + run.len().saturating_sub(*index as u64), missed)
            }
            Piece::Lagged(count) => (messages, missed + count),
            #[cfg(feature = "test-util")]
            Piece::Message(_) => (messages + 1, missed),
        })
    }

    /// Adds what follows.
    pub(crate) fn append(&mut self, mut next: Self) {
        self.pieces.append(&mut next.pieces);
        self.bytes += next.bytes;
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
                Piece::Run { run, index, start, gap } => {
                    if let Some(message) = message(run, *index, *start, *gap) {
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

fn message(run: &Run, index: usize, start: Cursor, gap: u64) -> Option<Message> {
    let body = run.body();
    let entry = body.entries().get(index)?;
    Some(Message {
        topic: body.topic(),
        author: body.author(),
        epoch: body.epoch(),
        seq: body.first_seq() + index as u64,
        time: entry.time.wall(),
        payload: entry.payload.clone(),
        cursor: Cursor { position: start.position + index as u64 + 1, ..start },
        retention: body.retention(),
        logged: (run.size() as u64).div_ceil(run.len().max(1)),
        gap: if index == 0 { gap } else { 0 },
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
    /// The log's count of removals when it began here: it is not told of those.
    since: u64,
    /// It is to be told that its cursor was of another log, or that what followed it went before a restart.
    astray: bool,
    /// The batch handed out last told it.
    told: bool,
    /// The topic is being read from the store, and where the subscription begins then.
    pub(crate) waits: Option<Start>,
    /// Its channel is full.
    pub(crate) full: bool,
    /// Whether it is in the machine's queue of subscribers with something to read.
    pub(crate) queued: bool,
}

impl Subscriber {
    /// A subscription that waits for its topic to be read from the store.
    pub(crate) fn waiting(topic: TopicId, start: Start) -> Self {
        Self {
            topic,
            cursor: 0,
            offered: 0,
            not_before: HybridTime::default(),
            since: 0,
            astray: false,
            told: false,
            waits: Some(start),
            full: false,
            queued: false,
        }
    }

    /// Begins at a place in the log. `live_from` is the time from which entries are new.
    pub(crate) fn begin(&mut self, log: &TopicLog, start: Start, live_from: HybridTime) {
        self.waits = None;
        self.since = log.removals();
        self.cursor = match start {
            Start::Retained => log.base(),
            Start::Live => {
                self.not_before = live_from;
                log.end()
            }
            Start::After(cursor) if cursor.log == log.incarnation() => {
                // Told at once of what went before a restart, it is not told of it again on the way.
                let taken = log.taken_behind(cursor.position);
                self.astray = taken.is_some();
                self.since = taken.unwrap_or(0);
                cursor.position.min(log.end())
            }
            Start::After(_) => {
                self.astray = true;
                log.base()
            }
        };
        self.offered = self.cursor;
    }

    /// Reads the next batch, up to where the log is readable.
    pub(crate) fn next_batch(&mut self, log: &TopicLog) -> Batch {
        self.offered = self.cursor;
        let mut batch = VecDeque::new();
        if std::mem::take(&mut self.astray) {
            batch.push_back(Piece::Lagged(0));
            self.told = true;
        } else {
            self.told = false;
        }
        let (mut entries, mut bytes, mut full) = (0, 0, false);
        for item in log.from(self.cursor).take_while(|item| item.end() <= log.readable()) {
            let (skip, gap) = self.place_in(item);
            let count = item.run.body().entries().len() - skip;
            let size = item.run.encoded().len() as u64;
            full = entries > 0
                && (entries + count > MAX_RUN_ENTRIES || bytes + size > MAX_RUN_BYTES as u64);
            if full {
                break;
            }
            self.pass_holes(log, item.start, &mut batch);
            if count > 0 {
                if gap > 0 {
                    batch.push_back(Piece::Lagged(gap));
                }
                let start = Cursor { log: log.incarnation(), position: item.start };
                batch.push_back(Piece::Run { run: Arc::clone(&item.run), index: skip, start, gap });
                entries += count;
                bytes += size;
            }
            self.cursor = item.end();
        }
        if !full {
            let unread = log.at(self.cursor).map_or(u64::MAX, |item| item.start);
            self.pass_holes(log, unread.min(log.readable()), &mut batch);
        }
        Batch { pieces: batch, bytes, charge: None }
    }

    /// The entries of a run that are skipped, and how many of its author are missing before it.
    fn place_in(&self, item: &Item) -> (usize, u64) {
        let entries = item.run.body().entries();
        let old = entries.partition_point(|entry| entry.time < self.not_before);
        // A cursor may be in the middle of a run.
        let read = usize::try_from(self.cursor.saturating_sub(item.start)).unwrap_or(0);
        // One that reads from now on misses nothing of the time before.
        let told = !item.begins || self.not_before == HybridTime::default();
        (old.max(read), if told && read == 0 { item.missed } else { 0 })
    }

    /// Moves on to a position, and tells what retention removed before it.
    fn pass_holes(&mut self, log: &TopicLog, to: u64, batch: &mut VecDeque<Piece>) {
        if to > self.cursor {
            if let Some(lost) = log.lost(self.cursor, to, self.since) {
                batch.push_back(Piece::Lagged(lost));
            }
            self.cursor = to;
        }
    }

    /// Goes back to before the batch handed out last.
    pub(crate) fn refuse(&mut self) {
        self.cursor = self.offered;
        self.astray |= self.told;
        self.full = true;
    }
}
