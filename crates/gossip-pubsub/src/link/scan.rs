//! Moving a link along a topic's log: what is pushed, what is announced, what is passed over.

use x0x_core::{AgentId, Tick, TopicId, WallTime};

use crate::{
    config::{Dissemination, Limits},
    log::{Item, TopicLog},
    wire::Announced,
};

use super::{LAZY_AT, Link, View};

/// Runs passed over in one turn. The rest follows at the next
/// [`THROTTLE`](crate::state::THROTTLE), so that a peer that subscribes again and again costs little.
const MAX_SCAN: usize = 4096;

/// What a scan needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scan<'a> {
    pub(crate) now: Tick,
    pub(crate) limits: &'a Limits,
    /// Entries from before this are not sent any more.
    pub(crate) oldest: WallTime,
    /// This author's runs are pushed to everybody: there will be no other chance.
    pub(crate) last_chance: Option<AgentId>,
}

/// Where a scan ended.
#[derive(Debug)]
pub(crate) enum Step<'log> {
    /// At a run to be pushed.
    Push(&'log Item),
    /// At a head for which there is no room until those before it are announced.
    HeadsFull,
    /// At the end, or as far as it may go for now.
    Done,
}

impl Link {
    /// Moves the peer's place in a log to the next run that is to be pushed, past those it has and
    /// those that are announced. The second value counts entries that were evicted before they could
    /// be sent. Throttles the link when it sent or passed as much as it may for now.
    pub(crate) fn scan<'log>(
        &mut self,
        scan: Scan<'_>,
        topic: TopicId,
        log: &'log TopicLog,
    ) -> (Step<'log>, u64) {
        let lazy = self.score.points(scan.now) >= LAZY_AT;
        let Some(state) = self.topics.get(&topic) else { return (Step::Done, 0) };
        let mut cursor = state.cursor.max(log.evicted());
        let evicted = log.evicted().saturating_sub(state.cursor);
        let tree = state.eager;
        let mut step = Step::Done;
        for (scanned, item) in log.from(cursor).enumerate() {
            if scanned >= MAX_SCAN {
                self.throttle(topic);
                break;
            }
            let body = item.run.body();
            let chain = (body.author(), body.epoch());
            let view = self.view(&topic, chain);
            let expired = body.is_expired(scan.oldest);
            if view.have < body.last_seq() && !expired && !log.is_blocked(&chain.0) {
                let size = item.run.encoded().len();
                let last_chance = scan.last_chance == Some(chain.0);
                let large = size > scan.limits.announce_above && !last_chance;
                let last = body.last_seq();
                if self.pulls.extend(&(topic, chain), last) {
                    // It follows the range that the peer asked for.
                } else if !large && pushes(scan, view, tree, lazy, chain.0) {
                    if self.pace(scan.now, item.run.len()) {
                        step = Step::Push(item);
                    } else {
                        self.throttle(topic);
                    }
                    break;
                } else if view.told < last && !self.announce(scan, topic, item, large) {
                    step = Step::HeadsFull;
                    break;
                }
            }
            cursor = item.end();
        }
        if log.from(cursor).next().is_none() {
            // Behind the last run there may be places whose runs were removed.
            cursor = log.end();
        }
        let caught_up = cursor >= log.end() && !self.pulls.any_of(&topic);
        if let Some(state) = self.topics.get_mut(&topic) {
            state.cursor = cursor;
            state.live |= caught_up;
        }
        (step, evicted)
    }

    fn throttle(&mut self, topic: TopicId) {
        self.runs_throttled = true;
        self.wake(topic);
    }

    /// Whether a run of this many entries may be sent now.
    pub(crate) fn pace(&mut self, now: Tick, entries: u64) -> bool {
        let entries = u32::try_from(entries).unwrap_or(u32::MAX);
        self.paced_runs.take(now) && self.paced_entries.take_many(now, entries)
    }

    fn announce(&mut self, scan: Scan<'_>, topic: TopicId, item: &Item, pull: bool) -> bool {
        let body = item.run.body();
        let (author, epoch, seq) = (body.author(), body.epoch(), body.last_seq());
        let hops = item.hops;
        if !self.add_head(topic, Announced { author, epoch, seq, hops, pull }) {
            return false;
        }
        if let Some(view) = self.view_mut(&topic, (author, epoch), scan.limits) {
            view.told = seq;
        }
        if pull {
            // Nobody gets it before it is announced.
            self.heads_at = Some(scan.now);
        }
        true
    }
}

fn pushes(scan: Scan<'_>, view: View, tree: bool, lazy: bool, author: AgentId) -> bool {
    if scan.limits.dissemination == Dissemination::Flood || scan.last_chance == Some(author) {
        return true;
    }
    !lazy && view.eager.unwrap_or(tree)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{link::LinkTopic, log::Route, run::NetworkId, testing::RunForge};

    #[test]
    fn a_long_log_that_the_peer_has_is_passed_over_in_turns() {
        let key = x0x_identity::testing::key(70);
        let (topic, wall) = (crate::topic_id("t"), WallTime::from_millis(1_800_000_000_000));
        let forge = RunForge::new(key, NetworkId::from_name("link"), topic, wall);
        let run = Arc::new(forge.run(None, &[b"x"]));
        let mut log = TopicLog::default();
        let public = forge.key.public_key();
        for _ in 0..2 * MAX_SCAN {
            log.append(Arc::clone(&run), public, Route::default(), 0);
        }
        let limits = Limits::default();
        let mut link = Link::new(Tick::ZERO, &limits);
        link.add_topic(topic, LinkTopic::at(0, true));
        link.note_have(&topic, (forge.author(), forge.epoch), 1, &limits);
        let scan = Scan { now: Tick::ZERO, limits: &limits, oldest: wall, last_chance: None };
        let mut turns = 1;
        while matches!(link.scan(scan, topic, &log).0, Step::Done) && link.runs_throttled {
            assert_eq!(link.next_topic(), Some(topic), "it goes on in the next turn");
            link.runs_throttled = false;
            turns += 1;
        }
        assert_eq!((turns, link.topics[&topic].cursor), (2, log.end()));
    }
}
