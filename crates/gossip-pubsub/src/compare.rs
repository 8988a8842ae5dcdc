//! Range-based set reconciliation of a topic's chains (Meyer, "Range-Based Set Reconciliation",
//! SRDS 2023): both sides narrow down where their heads differ, in ranges of author and epoch.

use std::collections::BTreeMap;

use x0x_core::AgentId;

use crate::{
    config::{MAX_CONTROL_ITEMS, MAX_HEADS, MAX_RANGES},
    link::ChainId,
    log::{Fingerprint, Sum, TopicLog},
    wire::{Head, RangeBody, RangeIn},
};

#[cfg(test)]
mod tests;

/// A range that differs is split into this many.
const SPLIT: usize = 16;

/// Chains of a range that are listed rather than split further.
const LIST: usize = 32;

/// Most heads in one answer: as many again find room in the link's queue.
const MAX_LISTED: usize = MAX_CONTROL_ITEMS / 2;

/// The first chain that there can be.
pub(crate) const FIRST: ChainId = (AgentId::new([0; 32]), 0);

/// Chains of which a peer retains nothing and this node has less, by the head that they have there.
pub(crate) type Gone = BTreeMap<ChainId, u64>;

/// A log as it is compared with one peer: with what is gone at that peer, as if it had been here. So
/// nobody looks for it, and both find the same, whatever they removed to make room. Other peers are
/// asked all the same: what one says of it counts for that one alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compared<'a> {
    log: &'a TopicLog,
    gone: &'a Gone,
}

impl<'a> Compared<'a> {
    pub(crate) const fn new(log: &'a TopicLog, gone: &'a Gone) -> Self {
        Self { log, gone }
    }

    /// The heads between two chains, in order.
    fn heads(self, from: ChainId, to: Option<ChainId>) -> Vec<(Head, Sum)> {
        let mut heads: Vec<(Head, Sum)> = self.log.heads(from, to).collect();
        let known = heads.len();
        let gone =
            self.gone.range(from..).take_while(|(chain, _)| to.is_none_or(|to| **chain < to));
        for ((author, epoch), seq) in gone {
            let head = Head { author: *author, epoch: *epoch, seq: *seq, gone: true };
            let of = (head, Sum::of(author, *epoch, *seq));
            let held = heads.get(..known).unwrap_or_default();
            match held
                .binary_search_by_key(&(*author, *epoch), |(head, _)| (head.author, head.epoch))
            {
                Ok(at) => {
                    if let Some(held) = heads.get_mut(at).filter(|(held, _)| held.seq < *seq) {
                        *held = of;
                    }
                }
                // One that does not count any more.
                Err(_) if self.log.head(author, *epoch) >= *seq => {}
                Err(_) => heads.push(of),
            }
        }
        if heads.len() > known {
            heads.sort_unstable_by_key(|(head, _)| (head.author, head.epoch));
        }
        heads
    }

    /// All of it in one number.
    pub(crate) fn fingerprint(self) -> Fingerprint {
        let mut sum = *self.log.fingerprint();
        for ((author, epoch), seq) in self.gone {
            let (head, mark) = self.log.counted(author, *epoch);
            if head < *seq {
                sum.replace(mark, Sum::of(author, *epoch, *seq));
            }
        }
        sum
    }

    /// All heads.
    pub(crate) fn all(self) -> Vec<Head> {
        self.heads(FIRST, None).into_iter().map(|(head, _)| head).collect()
    }
}

/// The whole topic as ranges, to begin with.
pub(crate) fn begin(log: Compared<'_>) -> Vec<RangeIn> {
    split(log, FIRST, None)
}

/// What a peer's ranges are answered with.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The heads that it told of.
    pub(crate) told: Vec<Head>,
    /// Where that was all that it has: what else was gone there does not count any more.
    pub(crate) whole: Vec<(ChainId, Option<ChainId>)>,
    /// The ranges to send back; none when nothing is left to say.
    pub(crate) ranges: Vec<RangeIn>,
    /// There was no room for all that differs: the rest is found by another comparison.
    pub(crate) left: bool,
}

/// What an answer may still take.
struct Room {
    ranges: usize,
    heads: usize,
}

impl Room {
    /// Takes room for these, and for what is skipped beside them. False when there is not as much.
    fn take(&mut self, ranges: usize, heads: usize) -> bool {
        let fits = self.ranges > ranges && self.heads >= heads;
        if fits {
            self.ranges -= ranges + 1;
            self.heads -= heads;
        }
        fits
    }

    /// Whether whatever a range is split into finds room.
    const fn fits_split(&self) -> bool {
        self.ranges > SPLIT && self.heads >= LIST
    }
}

/// Answers a peer's ranges, those from `pivot` on first: when there is no room for all, each gets it in
/// some comparison.
pub(crate) fn answer(log: Compared<'_>, theirs: Vec<RangeIn>, pivot: usize) -> Answer {
    let starts = std::iter::once(Some(FIRST)).chain(theirs.iter().map(|range| range.end));
    let starts: Vec<_> = starts.map_while(|start| start).collect();
    let mut theirs: Vec<_> = starts.into_iter().zip(theirs).enumerate().collect();
    let pivot = pivot % theirs.len().max(1);
    theirs.rotate_left(pivot);
    let (mut answer, mut room) =
        (Answer::default(), Room { ranges: MAX_RANGES, heads: MAX_LISTED });
    let answered = theirs.into_iter().map(|(at, (start, RangeIn { end, body }))| {
        (at, end, answer_range(log, (start, end), body, &mut room, &mut answer))
    });
    let mut answered: Vec<_> = answered.collect();
    answered.sort_unstable_by_key(|(at, ..)| *at);
    for (_, end, ranges) in answered {
        if ranges.is_empty() {
            skip(end, &mut answer.ranges);
        } else {
            answer.ranges.extend(ranges);
        }
    }
    while answer.ranges.last().is_some_and(|range| range.body == RangeBody::Skip) {
        answer.ranges.pop();
    }
    answer
}

/// What is to be said of one range; nothing when it is equal, or there is no room.
fn answer_range(
    log: Compared<'_>,
    (start, end): (ChainId, Option<ChainId>),
    body: RangeBody,
    room: &mut Room,
    answer: &mut Answer,
) -> Vec<RangeIn> {
    let heads = match body {
        RangeBody::Skip => return Vec::new(),
        RangeBody::Fingerprint(theirs) if sum(log, start, end).digest() == theirs => {
            return Vec::new();
        }
        RangeBody::Fingerprint(_) => None,
        RangeBody::Heads { heads, reply } => {
            let more = if reply { ahead(log, start, end, &heads) } else { Vec::new() };
            answer.told.extend(heads);
            answer.whole.extend(reply.then_some((start, end)));
            Some(more)
        }
    };
    // A peer that has too little of the range cannot be told everything at once.
    let listed = heads.filter(|more| more.len() < MAX_HEADS || !room.fits_split());
    let ranges = match listed {
        Some(more) if more.is_empty() => return Vec::new(),
        Some(more) => vec![RangeIn { end, body: RangeBody::Heads { heads: more, reply: false } }],
        None if room.fits_split() => split(log, start, end),
        None => Vec::new(),
    };
    let heads = ranges.iter().map(RangeIn::heads).sum();
    if ranges.is_empty() || !room.take(ranges.len(), heads) {
        answer.left = true;
        return Vec::new();
    }
    ranges
}

/// The heads here that are beyond those of a list, or not in it.
pub(crate) fn ahead(
    log: Compared<'_>,
    from: ChainId,
    to: Option<ChainId>,
    theirs: &[Head],
) -> Vec<Head> {
    let theirs: BTreeMap<ChainId, u64> =
        theirs.iter().map(|head| ((head.author, head.epoch), head.seq)).collect();
    let mine = log.heads(from, to).into_iter().map(|(head, _)| head);
    let ahead = mine.filter(|head| {
        theirs.get(&(head.author, head.epoch)).is_none_or(|theirs| *theirs < head.seq)
    });
    ahead.take(MAX_HEADS).collect()
}

/// As [`ahead`], of all chains.
pub(crate) fn all_ahead(log: Compared<'_>, theirs: &[Head]) -> Vec<Head> {
    ahead(log, FIRST, None, theirs)
}

fn sum(log: Compared<'_>, from: ChainId, to: Option<ChainId>) -> Fingerprint {
    let mut sum = Fingerprint::default();
    if log.gone.is_empty() {
        log.log.heads(from, to).for_each(|(_, mark)| sum.add(mark));
    } else {
        log.heads(from, to).into_iter().for_each(|(_, mark)| sum.add(mark));
    }
    sum
}

fn skip(end: Option<ChainId>, ranges: &mut Vec<RangeIn>) {
    if let Some(RangeIn { end: last, body: RangeBody::Skip }) = ranges.last_mut() {
        *last = end;
    } else {
        ranges.push(RangeIn { end, body: RangeBody::Skip });
    }
}

/// Describes a range that differs: its heads when they are few, else the fingerprints of its parts.
fn split(log: Compared<'_>, from: ChainId, to: Option<ChainId>) -> Vec<RangeIn> {
    let chains = log.heads(from, to);
    if chains.len() <= LIST {
        let heads = chains.into_iter().map(|(head, _)| head).collect();
        return vec![RangeIn { end: to, body: RangeBody::Heads { heads, reply: true } }];
    }
    let mut parts = chains.chunks(chains.len().div_ceil(SPLIT)).peekable();
    let mut ranges = Vec::with_capacity(SPLIT);
    while let Some(part) = parts.next() {
        let mut sum = Fingerprint::default();
        part.iter().for_each(|(_, mark)| sum.add(*mark));
        let next = parts.peek().and_then(|next| next.first());
        let end = next.map_or(to, |(head, _)| Some((head.author, head.epoch)));
        ranges.push(RangeIn { end, body: RangeBody::Fingerprint(sum.digest()) });
    }
    ranges
}
