//! Keys that order tasks: byte strings between which there is always another one, so that a task is
//! moved by changing its own key alone. Tasks with equal keys, put to the same place at the same time,
//! follow each other by id.

/// Longest key in bytes.
pub const MAX_PLACE: usize = 64;
/// Bytes of the keys that appending gives.
const APPENDED: usize = 6;
/// Distance between keys that appending gives, so that what is put between them stays short.
const STEP: u64 = 1 << 16;

/// A key behind all of those up to `last`. Grows no longer however many are appended.
pub(crate) fn behind(last: Option<&[u8]>) -> Vec<u8> {
    let Some(last) = last else { return number(1 << 47) };
    let mut head = [0_u8; 8];
    for (byte, from) in head[2..].iter_mut().zip(last) {
        *byte = *from;
    }
    match u64::from_be_bytes(head).checked_add(STEP) {
        Some(next) if next < 1 << 48 => number(next),
        // All that there is was appended: what follows shares the last place, ordered by id.
        _ => vec![0xff; APPENDED],
    }
}

fn number(place: u64) -> Vec<u8> {
    place.to_be_bytes()[8 - APPENDED..].to_vec()
}

/// A key between two, either of which may be missing; `None` when there is no room for a key of the
/// length that a key may have.
pub(crate) fn between(low: Option<&[u8]>, high: Option<&[u8]>) -> Option<Vec<u8>> {
    let Some(high) = high else { return Some(behind(low)) };
    let low = low.unwrap_or_default();
    if low >= high {
        return None;
    }
    let mut key = Vec::new();
    // Whether what was taken so far is already below `high`, so that it bounds nothing more.
    let mut below = false;
    for index in 0..MAX_PLACE {
        let floor = u16::from(low.get(index).copied().unwrap_or(0));
        let ceiling = match high.get(index) {
            Some(byte) if !below => u16::from(*byte),
            None if !below => return None,
            _ => 256,
        };
        let middle = floor.midpoint(ceiling);
        if middle > floor {
            key.push(u8::try_from(middle).ok()?);
            return Some(key);
        }
        key.push(u8::try_from(floor).ok()?);
        below |= floor < ceiling;
    }
    None
}

/// Whether bytes may be a key.
pub(crate) const fn is_place(key: &[u8]) -> bool {
    !key.is_empty() && key.len() <= MAX_PLACE
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn appending_stays_short_and_ordered() {
        let mut last = behind(None);
        for _ in 0..100_000 {
            let next = behind(Some(&last));
            assert!(next > last && next.len() == APPENDED);
            last = next;
        }
        assert_eq!(behind(Some(&[0xff; 6])), [0xff; 6], "the end of the range is shared");
    }

    #[test]
    fn the_same_place_takes_hundreds() {
        let (low, mut high) = (behind(None), behind(Some(&behind(None))));
        for n in 0..450 {
            let key = between(Some(&low), Some(&high)).unwrap_or_else(|| panic!("room for {n}"));
            assert!(low < key && key < high && is_place(&key));
            high = key;
        }
        let mut high = behind(None);
        for _ in 0..450 {
            let key = between(None, Some(&high)).expect("room at the front");
            assert!(key < high && is_place(&key));
            high = key;
        }
        assert_eq!(between(Some(b"a"), Some(b"a")), None);
        assert_eq!(between(None, Some(&[0])), None, "nothing is before the first of all");
    }

    proptest! {
        #[test]
        fn a_key_lies_between(
            mut one in prop::collection::vec(any::<u8>(), 1..8),
            mut two in prop::collection::vec(any::<u8>(), 1..8),
        ) {
            if one > two {
                std::mem::swap(&mut one, &mut two);
            }
            if let Some(key) = between(Some(&one), Some(&two)) {
                prop_assert!(one < key && key < two, "{one:?} {key:?} {two:?}");
                prop_assert!(is_place(&key));
            }
        }
    }
}
