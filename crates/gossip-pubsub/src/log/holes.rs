//! Where retention removed something from the middle of a log, so that a reader who comes by is told.

use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy)]
struct Hole {
    end: u64,
    /// Entries removed in it; what was replaced by something newer is not counted. None when that is
    /// not known.
    entries: Option<u64>,
    /// The removal that was the last in it.
    removal: u64,
}

/// Holes by the position where they begin. There is a retained run between any two.
#[derive(Debug, Default)]
pub(super) struct Holes {
    holes: BTreeMap<u64, Hole>,
    removals: u64,
}

impl Holes {
    /// Bytes that a hole takes, in a tree of which half may be empty.
    pub(super) const EACH: usize = 2 * size_of::<(u64, Hole)>();

    /// Of what was before a position something was removed, nobody knows how much.
    pub(super) fn before(end: u64) -> Self {
        let removals = u64::from(end > 0);
        let hole = Hole { end, entries: None, removal: removals };
        let holes = (end > 0).then_some((0, hole)).into_iter().collect();
        Self { holes, removals }
    }

    /// Notes that a run was removed; `room` is where the retained ones beside it end and begin.
    pub(super) fn add(&mut self, (start, end): (u64, u64), room: (u64, u64)) {
        self.removals += 1;
        let hole = Hole { end, entries: Some(end - start), removal: self.removals };
        self.holes.insert(start, hole);
        self.join(room);
    }

    /// Makes one of all the holes between where a retained run ends and the next one begins.
    pub(super) fn join(&mut self, room: (u64, u64)) {
        let within: Vec<(u64, Hole)> =
            self.holes.range(room.0..room.1).map(|(start, hole)| (*start, *hole)).collect();
        let Some(((first, mut joined), others)) = within.split_first().map(|(f, o)| (*f, o)) else {
            return;
        };
        for (start, hole) in others {
            self.holes.remove(start);
            joined.end = joined.end.max(hole.end);
            joined.entries = joined.entries.zip(hole.entries).map(|(one, two)| one + two);
            joined.removal = joined.removal.max(hole.removal);
        }
        self.holes.insert(first, joined);
    }

    /// Entries removed between two positions, in holes to which something was added after removal
    /// number `since`: 0 when something was, and it is not known how much; none when nothing was.
    pub(super) fn count(&self, from: u64, to: u64, since: u64) -> Option<u64> {
        let holding = self.holes.range(..=from).next_back();
        let within = holding.filter(|(_, hole)| hole.end > from);
        let later = self.holes.range(from.saturating_add(1)..to.max(from.saturating_add(1)));
        let told = within.into_iter().chain(later).filter(|(_, hole)| hole.removal > since);
        let of = |(start, hole): (&u64, &Hole)| {
            Some(hole.entries?.min(hole.end - from.clamp(*start, hole.end)))
        };
        let counts: Vec<Option<u64>> = told.map(of).collect();
        (!counts.is_empty()).then(|| counts.into_iter().sum::<Option<u64>>().unwrap_or(0))
    }

    pub(super) const fn removals(&self) -> u64 {
        self.removals
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.holes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_grow_together_unless_a_run_is_between() {
        let mut holes = Holes::default();
        holes.add((10, 20), (0, 30));
        holes.add((40, 50), (35, 60));
        assert_eq!((holes.len(), holes.removals()), (2, 2));
        assert_eq!(holes.count(0, 100, 0), Some(20));
        assert_eq!(holes.count(15, 100, 0), Some(15), "from within the first");
        assert_eq!(holes.count(0, 35, 0), Some(10), "up to the run between");
        assert_eq!(holes.count(0, 100, 1), Some(10), "the first was there already");
        // The run between goes, and with it what separated them.
        holes.add((30, 35), (0, 60));
        assert_eq!((holes.len(), holes.count(0, 100, 0)), (1, Some(25)));
        assert_eq!(holes.count(48, 100, 0), Some(2));
        assert_eq!(holes.count(50, 100, 0), None, "behind it");
    }

    #[test]
    fn all_holes_in_one_room_become_one() {
        let mut holes = Holes::default();
        for start in [10, 30, 50, 70] {
            holes.add((start, start + 5), (start - 5, start + 10));
        }
        // What was between them was replaced by something newer.
        holes.add((40, 45), (0, 100));
        assert_eq!((holes.len(), holes.count(0, 100, 0)), (1, Some(25)));
    }

    #[test]
    fn of_what_went_before_a_restart_the_number_is_not_known() {
        let mut holes = Holes::before(7);
        assert_eq!((holes.count(3, 100, 0), holes.count(3, 100, 1)), (Some(0), None));
        assert_eq!(holes.count(7, 100, 0), None);
        assert_eq!(Holes::before(0).len(), 0);
        holes.add((9, 12), (7, 20));
        assert_eq!((holes.len(), holes.count(7, 100, 0)), (2, Some(3)));
        assert_eq!(holes.count(3, 100, 0), Some(0), "more than three");
        assert_eq!(holes.count(3, 100, 1), Some(3), "of those that it is told of");
    }
}
