//! Collections with caps and a fixed iteration order.

use std::{
    collections::{VecDeque, vec_deque},
    hash::Hash,
};

use indexmap::IndexSet;

use crate::SeededRng;

/// A set with insertion order and uniform random choice. Iteration never depends on a hash, so a
/// run replays from its seed.
#[derive(Debug, Clone)]
pub struct IndexedSet<T: Hash + Eq>(IndexSet<T>);

impl<T: Hash + Eq> Default for IndexedSet<T> {
    fn default() -> Self {
        Self(IndexSet::new())
    }
}

impl<T: Hash + Eq> IndexedSet<T> {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an item; false when it was there already.
    pub fn insert(&mut self, item: T) -> bool {
        self.0.insert(item)
    }

    /// Removes an item; false when it was not there. The last item takes its place.
    pub fn remove(&mut self, item: &T) -> bool {
        self.0.swap_remove(item)
    }

    /// Removes and returns a uniformly chosen item.
    pub fn take_random(&mut self, rng: &mut SeededRng) -> Option<T> {
        let index = rng.below(self.len());
        self.0.swap_remove_index(index)
    }

    /// A uniformly chosen item.
    pub fn choose(&self, rng: &mut SeededRng) -> Option<&T> {
        self.0.get_index(rng.below(self.len()))
    }

    /// Up to `count` different items in random order.
    pub fn sample(&self, count: usize, rng: &mut SeededRng) -> Vec<&T> {
        let mut items: Vec<&T> = self.0.iter().collect();
        rng.shuffle(&mut items);
        items.truncate(count);
        items
    }

    /// Whether the item is in the set.
    pub fn contains(&self, item: &T) -> bool {
        self.0.contains(item)
    }

    /// Number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The items, in order.
    pub fn iter(&self) -> indexmap::set::Iter<'_, T> {
        self.0.iter()
    }
}

impl<'a, T: Hash + Eq> IntoIterator for &'a IndexedSet<T> {
    type Item = &'a T;
    type IntoIter = indexmap::set::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: Hash + Eq> FromIterator<T> for IndexedSet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self(items.into_iter().collect())
    }
}

/// The queue is at its count or byte cap; the item comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueFull<T>(pub T);

/// A first-in, first-out queue capped both by count and by bytes.
#[derive(Debug, Clone)]
pub struct BoundedQueue<T> {
    items: VecDeque<(usize, T)>,
    bytes: usize,
    max_items: usize,
    max_bytes: usize,
}

impl<T> BoundedQueue<T> {
    /// An empty queue that holds at most `max_items` items of `max_bytes` bytes together.
    #[must_use]
    pub fn new(max_items: usize, max_bytes: usize) -> Self {
        Self { items: VecDeque::new(), bytes: 0, max_items, max_bytes }
    }

    /// Appends an item that accounts for `bytes`.
    ///
    /// # Errors
    /// [`QueueFull`] with the item when a cap would be passed. An item larger than the byte cap is
    /// taken by an empty queue, so that it can pass at all.
    pub fn push(&mut self, item: T, bytes: usize) -> Result<(), QueueFull<T>> {
        let over_bytes = self.bytes.saturating_add(bytes) > self.max_bytes;
        if self.items.len() >= self.max_items || (over_bytes && !self.items.is_empty()) {
            return Err(QueueFull(item));
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.items.push_back((bytes, item));
        Ok(())
    }

    /// Takes the oldest item.
    pub fn pop(&mut self) -> Option<T> {
        let (bytes, item) = self.items.pop_front()?;
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(item)
    }

    /// Looks at the oldest item.
    #[must_use]
    pub fn front(&self) -> Option<&T> {
        self.items.front().map(|(_, item)| item)
    }

    /// Number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes the items account for.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The items, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let items: vec_deque::Iter<'_, (usize, T)> = self.items.iter();
        items.map(|(_, item)| item)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn choice_covers_every_item() {
        let set: IndexedSet<u32> = (0..8).collect();
        let mut rng = SeededRng::from_number(1);
        let seen: std::collections::BTreeSet<u32> =
            (0..200).filter_map(|_| set.choose(&mut rng).copied()).collect();
        assert_eq!(seen.len(), 8);
        assert_eq!(set.sample(3, &mut rng).len(), 3);
        let mut set = set;
        assert!((0..8).all(|_| set.take_random(&mut rng).is_some()));
        assert!(set.take_random(&mut rng).is_none() && set.choose(&mut rng).is_none());
    }

    #[test]
    fn an_oversized_item_passes_an_empty_queue() {
        let mut queue = BoundedQueue::new(4, 10);
        queue.push("big", 100).expect("empty queue takes it");
        assert_eq!(queue.push("next", 1), Err(QueueFull("next")));
        assert_eq!(queue.pop(), Some("big"));
        assert_eq!(queue.bytes(), 0);
    }

    proptest! {
        #[test]
        fn queue_keeps_order_and_caps(ops in prop::collection::vec((any::<bool>(), 0_usize..20), 0..300)) {
            let mut queue = BoundedQueue::new(8, 64);
            let mut model = VecDeque::new();
            for (n, (push, bytes)) in ops.into_iter().enumerate() {
                if push {
                    if queue.push(n, bytes).is_ok() {
                        model.push_back(n);
                    }
                } else {
                    prop_assert_eq!(queue.pop(), model.pop_front());
                }
                prop_assert!(queue.len() <= 8 && queue.bytes() <= 64);
                prop_assert_eq!(queue.len(), model.len());
            }
        }
    }
}
