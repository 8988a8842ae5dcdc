//! Keys that order a list, between any two of which there is room for more.

use crate::dot::Dot;

/// Longest key in bytes. A list that is inserted into at one place over and over needs new keys then.
pub const MAX_KEY: usize = 128;

/// A place in a list: a fraction in base 256 with its last digit not zero. Items with equal keys, which
/// agents inserted at one place at once, are ordered by their dots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OrderKey {
    /// The fraction's digits.
    pub key: Vec<u8>,
    /// The operation that made the item.
    pub dot: Dot,
}

/// A key between two others; none at an end of the list. `None` when there is no room for one of
/// [`MAX_KEY`] bytes, or they are not in order.
///
/// ```
/// use x0x_gossip_crdt::types::between;
///
/// let middle = between(None, None).expect("an empty list has room");
/// let before = between(None, Some(&middle)).expect("so has its start");
/// assert!(before < middle);
/// assert_eq!(between(Some(&middle), Some(&middle)), None);
/// ```
#[must_use]
pub fn between(before: Option<&[u8]>, after: Option<&[u8]>) -> Option<Vec<u8>> {
    let low = before.unwrap_or_default();
    if after.is_some_and(|after| low >= after) {
        return None;
    }
    let mut high = after;
    let mut key = Vec::with_capacity(low.len() + 1);
    for index in 0..MAX_KEY {
        let from = u16::from(low.get(index).copied().unwrap_or(0));
        let to = high.map_or(256, |high| high.get(index).copied().map_or(0, u16::from));
        if to > from + 1 {
            // Lists grow at their end: little steps there keep the keys short.
            let step = if high.is_none() && before.is_some() {
                8.min((to - from) / 2)
            } else {
                (to - from) / 2
            };
            key.push((from + step) as u8);
            return Some(key);
        }
        key.push(from as u8);
        if to > from {
            // Whatever follows is below the other key.
            high = None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use x0x_core::SeededRng;

    #[test]
    fn there_is_room_between_any_two_keys() {
        let mut rng = SeededRng::from_number(7);
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for _ in 0..2000 {
            let at = rng.below(keys.len() + 1);
            let before = at.checked_sub(1).map(|at| keys[at].as_slice());
            let key = between(before, keys.get(at).map(Vec::as_slice)).unwrap();
            keys.insert(at, key);
        }
        assert!(keys.is_sorted_by(|a, b| a < b), "seed 7");
        assert!(keys.iter().all(|key| key.last() != Some(&0)));
    }

    #[test]
    fn a_long_list_has_short_keys() {
        let mut last: Vec<u8> = between(None, None).unwrap();
        for _ in 0..1000 {
            let next = between(Some(&last), None).unwrap();
            assert!(next > last);
            last = next;
        }
        assert!(last.len() <= 64, "{}", last.len());
    }
}
