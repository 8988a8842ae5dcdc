//! Ranges that a peer asked for, sent from the chains they belong to.

use std::collections::{BTreeMap, VecDeque};

use x0x_core::{AgentId, TopicId};

use crate::{config::Limits, missing::Key};

/// A range on its way.
#[derive(Debug, Clone, Copy)]
struct Pull {
    /// The next entry.
    next: u64,
    upto: u64,
}

/// The ranges of one link, in turns.
#[derive(Debug, Default)]
pub(crate) struct Pulls {
    /// At most [`Limits::link_wants`].
    ranges: BTreeMap<Key, Pull>,
    turns: VecDeque<Key>,
}

impl Pulls {
    /// Begins a range, or goes back in the one of the same chain. False when there are too many.
    pub(crate) fn begin(&mut self, key: Key, from: u64, upto: u64, limits: &Limits) -> bool {
        if let Some(pull) = self.ranges.get_mut(&key) {
            pull.next = pull.next.min(from);
            pull.upto = pull.upto.max(upto);
            return true;
        }
        if self.ranges.len() >= limits.link_wants {
            return false;
        }
        self.ranges.insert(key, Pull { next: from, upto });
        self.turns.push_back(key);
        true
    }

    /// A run was appended to a chain: if the chain is on its way, the run goes behind it rather than
    /// being pushed before it.
    pub(crate) fn extend(&mut self, key: &Key, last: u64) -> bool {
        let Some(pull) = self.ranges.get_mut(key) else { return false };
        pull.upto = pull.upto.max(last);
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// The range whose turn it is, and its next entry.
    pub(crate) fn front(&self) -> Option<(Key, u64)> {
        let key = self.turns.front()?;
        self.ranges.get(key).map(|pull| (*key, pull.next))
    }

    /// The front range is sent up to this entry, and the next range has its turn. `last` ends it.
    pub(crate) fn sent(&mut self, next: u64, last: bool) {
        let Some(key) = self.turns.pop_front() else { return };
        let Some(pull) = self.ranges.get_mut(&key) else { return };
        pull.next = next;
        if last || next > pull.upto {
            self.ranges.remove(&key);
        } else {
            self.turns.push_back(key);
        }
    }

    /// Ends the front range: nothing of it is left to send.
    pub(crate) fn end(&mut self) {
        if let Some(key) = self.turns.pop_front() {
            self.ranges.remove(&key);
        }
    }

    /// Goes back to a run that was refused.
    pub(crate) fn put_back(&mut self, key: Key, next: u64) {
        if let Some(pull) = self.ranges.get_mut(&key) {
            pull.next = next;
            return;
        }
        self.ranges.insert(key, Pull { next, upto: next });
        self.turns.push_front(key);
    }

    /// Whether a range of this topic is on its way.
    pub(crate) fn any_of(&self, topic: &TopicId) -> bool {
        let first = (*topic, (AgentId::new([0; 32]), 0));
        self.ranges.range(first..).next().is_some_and(|((of, _), _)| of == topic)
    }

    pub(crate) fn drop_topic(&mut self, topic: &TopicId) {
        self.ranges.retain(|(of, _), _| of != topic);
        self.turns.retain(|(of, _)| of != topic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> Key {
        (TopicId::new([1; 32]), (AgentId::new([n; 32]), 1))
    }

    #[test]
    fn ranges_take_turns_and_grow_while_they_are_sent() {
        let (mut pulls, limits) = (Pulls::default(), Limits { link_wants: 2, ..Limits::default() });
        assert!(pulls.begin(key(1), 3, 4, &limits) && pulls.begin(key(2), 1, 1, &limits));
        assert!(!pulls.begin(key(3), 1, 1, &limits), "at most two");
        assert_eq!(pulls.front(), Some((key(1), 3)));
        pulls.sent(4, false);
        assert_eq!(pulls.front(), Some((key(2), 1)));
        pulls.sent(2, false);
        assert!(pulls.extend(&key(1), 6) && !pulls.extend(&key(2), 2));
        assert!(pulls.any_of(&TopicId::new([1; 32])) && !pulls.any_of(&TopicId::new([0; 32])));
        pulls.sent(5, false);
        pulls.sent(7, false);
        assert_eq!(pulls.front(), None);
        pulls.put_back(key(1), 5);
        assert_eq!(pulls.front(), Some((key(1), 5)));
    }
}
