//! What is missing and asked for on one link.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use x0x_core::{Tick, TopicId};

use crate::{config::Limits, wire::WantIn};

use super::ChainId;

/// How often a missing range is asked for in short intervals.
const MAX_TRIES: u32 = 5;

/// How often after that: what is missing may still come when the peer has room or log again.
const SLOW_RETRY: Duration = Duration::from_secs(30);

type Key = (TopicId, ChainId);

/// A missing range that was asked for.
#[derive(Debug)]
struct Missing {
    /// Entries up to here are known to exist.
    upto: u64,
    need_key: bool,
    retry_at: Tick,
    tries: u32,
    floor: Option<Floor>,
}

/// The peer says that a run which leaves a gap is the oldest that it has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Floor {
    /// Since when.
    pub(crate) since: Tick,
    /// The end of what was held here before the gap.
    head: u64,
    /// The first entry of that run.
    pub(crate) first: u64,
}

const fn key_of(want: &WantIn) -> Key {
    (want.topic, (want.author, want.epoch))
}

/// The requests of one link.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    /// Ready to be sent; at most twice [`Limits::link_wants`].
    queue: VecDeque<WantIn>,
    /// At most [`Limits::link_wants`]; one that was asked for in vain makes room.
    missing: BTreeMap<Key, Missing>,
    /// Topics of ranges for which there was no room.
    crowded: BTreeSet<TopicId>,
}

/// What became of the missing ranges at a retry.
#[derive(Debug, Default)]
pub(crate) struct Retried {
    /// Ranges asked for slowly from now on.
    pub(crate) slowed: u64,
    /// When to look again.
    pub(crate) next: Option<Tick>,
    /// Topics to be subscribed again, which brings whatever is missing of them.
    pub(crate) resubscribe: BTreeSet<TopicId>,
}

impl Wants {
    /// The next request to send.
    pub(crate) fn pop(&mut self) -> Option<WantIn> {
        self.queue.pop_front()
    }

    /// Puts back a request that was refused.
    pub(crate) fn put_back(&mut self, want: WantIn) {
        self.queue.push_front(want);
    }

    /// Asks once for a range that another link says exists.
    pub(crate) fn ask(&mut self, want: WantIn, limits: &Limits) {
        if self.queue.len() < limits.link_wants * 2 {
            self.queue.push_back(want);
        }
    }

    /// Asks for a missing range until it arrives, unless it is asked for already.
    pub(crate) fn want(&mut self, now: Tick, want: WantIn, upto: u64, limits: &Limits) {
        if let Some(true) = self.note(now, want, upto, limits) {
            self.ask(want, limits);
        }
    }

    /// Notes that the peer has nothing between a head and `run_first`; what it has after it is asked
    /// for again in a while. True when the peer says so for the first time of this head.
    pub(crate) fn note_floor(
        &mut self,
        now: Tick,
        want: WantIn,
        (run_first, upto): (u64, u64),
        limits: &Limits,
    ) -> bool {
        self.note(now, want, upto, limits);
        let Some(missing) = self.missing.get_mut(&key_of(&want)) else { return false };
        let head = want.from_seq - 1;
        if missing.floor.is_some_and(|floor| floor.head == head) {
            return false;
        }
        missing.floor = Some(Floor { since: now, head, first: run_first });
        true
    }

    /// What the peer said of its floor after this head.
    pub(crate) fn floor(&self, topic: TopicId, chain: ChainId, head: u64) -> Option<Floor> {
        self.missing.get(&(topic, chain))?.floor.filter(|floor| floor.head == head)
    }

    /// Remembers a missing range: whether it is new, or `None` when there was no room for it.
    fn note(&mut self, now: Tick, want: WantIn, upto: u64, limits: &Limits) -> Option<bool> {
        if let Some(missing) = self.missing.get_mut(&key_of(&want)) {
            missing.upto = missing.upto.max(upto);
            missing.need_key |= want.need_key;
            return Some(false);
        }
        if self.missing.len() >= limits.link_wants {
            let vain = self.missing.iter().find(|(_, missing)| missing.tries >= MAX_TRIES);
            let Some(vain) = vain.map(|(key, _)| *key) else {
                self.crowded.insert(want.topic);
                return None;
            };
            self.missing.remove(&vain);
        }
        let (need_key, retry_at) = (want.need_key, now + limits.gap_patience);
        let missing = Missing { upto, need_key, retry_at, tries: 1, floor: None };
        self.missing.insert(key_of(&want), missing);
        Some(true)
    }

    /// Asks again for what is still missing, and forgets what arrived. `head` is `None` when a topic
    /// is no longer subscribed.
    pub(crate) fn retry(
        &mut self,
        now: Tick,
        limits: &Limits,
        head: impl Fn(&TopicId, &ChainId) -> Option<u64>,
    ) -> Retried {
        let mut retried = Retried::default();
        let queue = &mut self.queue;
        self.missing.retain(|(topic, chain), missing| {
            let Some(head) = head(topic, chain).filter(|head| *head < missing.upto) else {
                return false;
            };
            if now >= missing.retry_at {
                missing.tries = missing.tries.saturating_add(1);
                retried.slowed += u64::from(missing.tries == MAX_TRIES);
                let slow = missing.tries >= MAX_TRIES;
                missing.retry_at = now + if slow { SLOW_RETRY } else { limits.gap_patience };
                if queue.len() < limits.link_wants * 2 {
                    let ((author, epoch), need_key) = (*chain, missing.need_key);
                    queue.push_back(WantIn {
                        topic: *topic,
                        author,
                        epoch,
                        from_seq: head + 1,
                        need_key,
                    });
                }
            }
            retried.next =
                Some(retried.next.map_or(missing.retry_at, |at| at.min(missing.retry_at)));
            true
        });
        // Those asked for in vain make room.
        let kept = self.missing.values().filter(|missing| missing.tries < MAX_TRIES).count();
        if kept <= limits.link_wants / 2 {
            retried.resubscribe = std::mem::take(&mut self.crowded);
        } else if !self.crowded.is_empty() {
            retried.next = Some(now + limits.gap_patience);
        }
        retried
    }
}

#[cfg(test)]
mod tests {
    use x0x_core::AgentId;

    use super::*;

    fn want(author: u8) -> WantIn {
        WantIn {
            topic: TopicId::new([1; 32]),
            author: AgentId::new([author; 32]),
            epoch: 1,
            from_seq: 1,
            need_key: false,
        }
    }

    #[test]
    fn what_is_missing_is_asked_for_until_it_arrives() {
        let (mut wants, limits) = (Wants::default(), Limits::default());
        let mut now = Tick::ZERO;
        wants.want(now, want(1), 10, &limits);
        let mut asked = 0;
        let mut slowed = 0;
        for _ in 0..60 {
            while wants.pop().is_some() {
                asked += 1;
            }
            now = now + limits.gap_patience;
            slowed += wants.retry(now, &limits, |_, _| Some(3)).slowed;
        }
        assert_eq!(slowed, 1);
        assert_eq!(asked, 5 + 3, "five times in 8 s, then every 30 s until 118 s");
        assert_eq!(wants.retry(now, &limits, |_, _| Some(10)).next, None);
    }

    #[test]
    fn a_full_table_subscribes_again_when_there_is_room() {
        let limits = Limits { link_wants: 2, ..Limits::default() };
        let (mut wants, now) = (Wants::default(), Tick::ZERO);
        (0..3).for_each(|author| wants.want(now, want(author), 10, &limits));
        assert!(wants.retry(now, &limits, |_, _| Some(3)).resubscribe.is_empty());
        let retried = wants.retry(now, &limits, |_, chain| {
            Some(if chain.0 == AgentId::new([0; 32]) { 10 } else { 3 })
        });
        assert_eq!(retried.resubscribe.len(), 1);
        // One that was asked for in vain makes room.
        wants.want(now, want(4), 10, &limits);
        for n in 1..6 {
            let _ = wants.retry(now + limits.gap_patience * n, &limits, |_, _| Some(3));
        }
        wants.want(now, want(5), 10, &limits);
        assert!(wants.crowded.is_empty());
    }
}
