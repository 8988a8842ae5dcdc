//! Sets of numbers as ranges: which groups of a file are there, asked for, or missing.

use std::{collections::BTreeMap, ops::Range};

/// A set of numbers, kept as ranges that neither touch nor overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// Start to end.
    ranges: BTreeMap<u64, u64>,
    len: u64,
}

impl RangeSet {
    /// No numbers.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: BTreeMap::new(), len: 0 }
    }

    /// The numbers of one range.
    #[must_use]
    pub fn of(range: Range<u64>) -> Self {
        let mut set = Self::new();
        set.insert(range);
        set
    }

    /// How many numbers there are.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many ranges it takes to write them down.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.ranges.len()
    }

    /// Whether a number is in the set.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        self.ranges.range(..=number).next_back().is_some_and(|(_, end)| number < *end)
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.ranges.iter().map(|(start, end)| *start..*end)
    }

    /// Adds the numbers of a range.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        // What touches it is joined with it.
        if let Some((before, until)) = self.ranges.range(..start).next_back()
            && *until >= start
        {
            start = *before;
        }
        let joined: Vec<u64> = self.ranges.range(start..=end).map(|(start, _)| *start).collect();
        for other in joined {
            if let Some(until) = self.ranges.remove(&other) {
                self.len -= until - other;
                end = end.max(until);
            }
        }
        self.ranges.insert(start, end);
        self.len += end - start;
    }

    /// Adds the numbers of another set.
    pub fn extend(&mut self, other: &Self) {
        other.iter().for_each(|range| self.insert(range));
    }

    /// Takes the numbers of a range out.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.ranges.range(..range.start).next_back();
        let from = first.map_or(range.start, |(start, _)| *start);
        let hit: Vec<(u64, u64)> =
            self.ranges.range(from..range.end).map(|(start, end)| (*start, *end)).collect();
        for (start, end) in hit.into_iter().filter(|(_, end)| *end > range.start) {
            self.ranges.remove(&start);
            self.len -= end - start;
            for rest in [start..range.start, range.end..end] {
                if rest.start < rest.end {
                    self.ranges.insert(rest.start, rest.end);
                    self.len += rest.end - rest.start;
                }
            }
        }
    }

    /// Takes up to `max` of the lowest numbers out, as long as they follow each other.
    pub fn take_first(&mut self, max: u64) -> Option<Range<u64>> {
        let (start, end) = self.ranges.first_key_value().map(|(start, end)| (*start, *end))?;
        let taken = start..end.min(start.saturating_add(max));
        self.remove(taken.clone());
        (!taken.is_empty()).then_some(taken)
    }

    /// Empties the set.
    pub fn clear(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set(steps in prop::collection::vec((0_u8..3, 0_u64..60, 0_u64..20), 1..60)) {
            let (mut set, mut model) = (RangeSet::new(), BTreeSet::new());
            for (what, start, len) in steps {
                let range = start..start + len;
                match what {
                    0 => {
                        set.insert(range.clone());
                        model.extend(range);
                    }
                    1 => {
                        set.remove(range.clone());
                        model.retain(|number| !range.contains(number));
                    }
                    _ => {
                        if let Some(taken) = set.take_first(len) {
                            prop_assert!(taken.end - taken.start <= len);
                            for number in taken {
                                prop_assert_eq!(model.pop_first(), Some(number));
                            }
                        }
                    }
                }
                prop_assert_eq!(set.iter().flatten().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(set.len(), model.len() as u64);
                prop_assert!((0..90).all(|number| set.contains(number) == model.contains(&number)));
                let ends: Vec<_> = set.iter().collect();
                prop_assert!(ends.windows(2).all(|pair| pair[0].end < pair[1].start));
            }
        }
    }
}
