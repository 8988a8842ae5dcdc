//! How long the signer waits for more: callers that were just answered often come again at once, and
//! a signature costs as much for one entry as for many, here and at every subscriber.
//!
//! The same idea as a database's group commit that waits for other open transactions. A publisher at
//! rest never waits: nobody else was answered.

use std::time::Duration;

use x0x_core::{Tick, TopicId};

use crate::config::MAX_RUN_ENTRIES;

/// Longest wait for callers that were answered. Those who come again end it, so its length costs only
/// those who wait for somebody who left.
const LONGEST: Duration = Duration::from_millis(8);

/// Shortest wait, after callers who did not come again. They return within a fraction of it, unless
/// the machine is busy with what they sent.
const SHORTEST: Duration = Duration::from_millis(1);

/// How long after an answer a publisher counts as busy.
const REST: Duration = Duration::from_millis(2);

/// Whom the signer waits for.
#[derive(Debug)]
pub(crate) struct Gather {
    last: Option<Answered>,
    /// Doubled when all who were awaited came, halved when the time ran out.
    wait: Duration,
}

#[derive(Debug)]
struct Answered {
    topic: TopicId,
    /// Entries of the run that was answered, and those that waited at that moment: as many may soon
    /// wait together.
    entries: usize,
    at: Tick,
    until: Tick,
}

impl Default for Gather {
    fn default() -> Self {
        Self { last: None, wait: LONGEST }
    }
}

impl Gather {
    /// The callers of a run were answered while others waited.
    pub(crate) fn answered(&mut self, now: Tick, topic: TopicId, run: usize, waiting: usize) {
        let (entries, until) = (run + waiting, now + self.wait);
        self.last = Some(Answered { topic, entries, at: now, until });
    }

    /// Whether a topic's entries may be signed now, or should wait for more.
    pub(crate) fn is_enough(&self, now: Tick, topic: &TopicId, entries: usize) -> bool {
        let Some(last) = &self.last else { return true };
        last.topic != *topic || entries >= last.entries || now >= last.until
    }

    /// So many entries of a topic are signed now: whether those who were awaited came decides how long
    /// the next wait may be.
    pub(crate) fn begins(&mut self, topic: &TopicId, entries: usize) {
        let Some(last) = self.last.as_ref().filter(|last| last.topic == *topic) else { return };
        let all = entries >= last.entries.min(MAX_RUN_ENTRIES);
        self.wait = if all { self.wait * 2 } else { self.wait / 2 }.clamp(SHORTEST, LONGEST);
    }

    /// Whether nobody was answered lately: what waits now is likely to be all for a while.
    pub(crate) fn is_at_rest(&self, now: Tick) -> bool {
        self.last.as_ref().is_none_or(|last| now.since(last.at) >= REST)
    }

    /// How many entries end the wait before its time; 0 without a wait.
    pub(crate) fn awaited(&self, now: Tick) -> usize {
        self.last.as_ref().filter(|last| now < last.until).map_or(0, |last| last.entries)
    }

    /// When the wait ends, if there is one.
    pub(crate) fn until(&self, now: Tick) -> Option<Tick> {
        self.last.as_ref().map(|last| last.until).filter(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TopicId = TopicId::new([1; 32]);
    const B: TopicId = TopicId::new([2; 32]);

    #[test]
    fn one_publisher_alone_never_waits() {
        let mut gather = Gather::default();
        assert!(gather.is_at_rest(Tick::ZERO) && gather.is_enough(Tick::ZERO, &A, 1));
        gather.answered(Tick::ZERO, A, 1, 0);
        assert!(!gather.is_at_rest(Tick::ZERO) && gather.is_enough(Tick::ZERO, &A, 1));
        assert!(gather.is_at_rest(Tick::ZERO + REST));
    }

    #[test]
    fn callers_that_return_are_signed_together() {
        let mut gather = Gather::default();
        gather.answered(Tick::ZERO, A, 4, 4);
        assert!(!gather.is_enough(Tick::ZERO, &A, 7));
        assert!(gather.is_enough(Tick::ZERO, &A, 8));
        assert!(gather.is_enough(Tick::ZERO, &B, 1), "another topic does not wait");
        assert_eq!((gather.awaited(Tick::ZERO), gather.awaited(Tick::ZERO + LONGEST)), (8, 0));
        assert_eq!(gather.until(Tick::ZERO), Some(Tick::ZERO + LONGEST));
        assert!(gather.is_enough(Tick::ZERO + LONGEST, &A, 1), "those who left hold nobody up");
        assert_eq!(gather.until(Tick::ZERO + LONGEST), None);
    }

    #[test]
    fn callers_that_stay_away_are_waited_for_ever_shorter() {
        let mut gather = Gather::default();
        let wait = |gather: &mut Gather| {
            gather.answered(Tick::ZERO, A, 2, 0);
            gather.until(Tick::ZERO).unwrap().since(Tick::ZERO)
        };
        let mut waits = Vec::new();
        for came in [2, 1, 1, 1, 1, 2, 2] {
            waits.push(wait(&mut gather).as_millis());
            gather.begins(&B, 1);
            gather.begins(&A, came);
        }
        assert_eq!(waits, [8, 8, 4, 2, 1, 1, 2]);
        gather.answered(Tick::ZERO, A, MAX_RUN_ENTRIES, MAX_RUN_ENTRIES);
        gather.begins(&A, MAX_RUN_ENTRIES);
        assert_eq!(wait(&mut gather).as_millis(), 8, "a full run is all that can be had");
    }
}
