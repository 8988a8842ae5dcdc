//! Range-based set reconciliation of a topic's chains (Meyer, "Range-Based Set Reconciliation",
//! SRDS 2023): both sides narrow down where their heads differ, in ranges of author and epoch.

use std::collections::BTreeMap;

use x0x_core::AgentId;

use crate::{
    config::{MAX_HEADS, MAX_RANGES},
    link::ChainId,
    log::{Fingerprint, TopicLog},
    wire::{Head, RangeBody, RangeIn},
};

#[cfg(test)]
mod tests;

/// A range that differs is split into this many.
const SPLIT: usize = 16;

/// Chains of a range that are listed rather than split further.
const LIST: usize = 32;

/// The first chain that there can be.
const FIRST: ChainId = (AgentId::new([0; 32]), 0);

/// The whole topic as ranges, to begin with.
pub(crate) fn begin(log: &TopicLog) -> Vec<RangeIn> {
    let mut ranges = Vec::new();
    split(log, FIRST, None, &mut ranges);
    ranges
}

/// Answers a peer's ranges: which heads it told of, and the ranges to send back, none when nothing is
/// left to say.
pub(crate) fn answer(log: &TopicLog, theirs: Vec<RangeIn>) -> (Vec<Head>, Vec<RangeIn>) {
    let (mut told, mut ranges) = (Vec::new(), Vec::new());
    let mut from = Some(FIRST);
    for RangeIn { end, body } in theirs {
        let Some(start) = from else { break };
        let crowded = ranges.len() + SPLIT + 1 > MAX_RANGES;
        match body {
            RangeBody::Skip => skip(end, &mut ranges),
            // What there is no room for is found in the next round.
            RangeBody::Fingerprint(_) if crowded => skip(end, &mut ranges),
            RangeBody::Fingerprint(fingerprint) => {
                if sum(log, start, end).digest() == fingerprint {
                    skip(end, &mut ranges);
                } else {
                    split(log, start, end, &mut ranges);
                }
            }
            RangeBody::Heads { heads, reply } => {
                let more = if reply { ahead(log, start, end, &heads) } else { Vec::new() };
                told.extend(heads);
                if more.is_empty() {
                    skip(end, &mut ranges);
                } else if more.len() >= MAX_HEADS && !crowded {
                    // The peer has too little of the range to be told everything at once.
                    split(log, start, end, &mut ranges);
                } else {
                    let body = RangeBody::Heads { heads: more, reply: false };
                    ranges.push(RangeIn { end, body });
                }
            }
        }
        from = end;
    }
    while ranges.last().is_some_and(|range| range.body == RangeBody::Skip) {
        ranges.pop();
    }
    (told, ranges)
}

/// The heads here that are beyond those of a list, or not in it.
pub(crate) fn ahead(
    log: &TopicLog,
    from: ChainId,
    to: Option<ChainId>,
    theirs: &[Head],
) -> Vec<Head> {
    let theirs: BTreeMap<ChainId, u64> =
        theirs.iter().map(|head| ((head.author, head.epoch), head.seq)).collect();
    let mine = log.heads(from, to).map(|(head, _)| head);
    let ahead = mine.filter(|head| {
        theirs.get(&(head.author, head.epoch)).is_none_or(|theirs| *theirs < head.seq)
    });
    ahead.take(MAX_HEADS).collect()
}

/// As [`ahead`], of all chains.
pub(crate) fn all_ahead(log: &TopicLog, theirs: &[Head]) -> Vec<Head> {
    ahead(log, FIRST, None, theirs)
}

fn sum(log: &TopicLog, from: ChainId, to: Option<ChainId>) -> Fingerprint {
    let mut sum = Fingerprint::default();
    log.heads(from, to).for_each(|(_, mark)| sum.add(mark));
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
fn split(log: &TopicLog, from: ChainId, to: Option<ChainId>, ranges: &mut Vec<RangeIn>) {
    let chains: Vec<_> = log.heads(from, to).collect();
    if chains.len() <= LIST {
        let heads = chains.into_iter().map(|(head, _)| head).collect();
        ranges.push(RangeIn { end: to, body: RangeBody::Heads { heads, reply: true } });
        return;
    }
    let mut parts = chains.chunks(chains.len().div_ceil(SPLIT)).peekable();
    while let Some(part) = parts.next() {
        let mut sum = Fingerprint::default();
        part.iter().for_each(|(_, mark)| sum.add(*mark));
        let next = parts.peek().and_then(|next| next.first());
        let end = next.map_or(to, |(head, _)| Some((head.author, head.epoch)));
        ranges.push(RangeIn { end, body: RangeBody::Fingerprint(sum.digest()) });
    }
}
