//! Items of a log in the payloads of a topic: most fit into one, a commit of a large group does not.
//!
//! A payload is one byte that says what follows: 0 a whole item; 1 a part of one, behind the item's SHA-256,
//! the part's number and how many there are, both two bytes big-endian.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use x0x_core::AgentId;

use crate::wire::MAX_LOG_ITEM;

/// Bytes of an item in one payload.
pub const PART: usize = 48 * 1024;
/// Items of a log that wait for their other parts; the oldest goes first.
pub const MAX_PARTIAL: usize = 8;
/// Bytes of them.
pub const MAX_PARTIAL_BYTES: usize = 2 * MAX_LOG_ITEM;
/// Parts of the largest item, with what seals it.
const MAX_PARTS: usize = (MAX_LOG_ITEM + 64).div_ceil(PART);

const WHOLE: u8 = 0;
const FRACTION: u8 = 1;
const HEADER: usize = 1 + 32 + 2 + 2;

/// The payloads of an item, in order. None of one that is larger than an item may be.
#[must_use]
pub fn split(item: &Bytes) -> Option<Vec<Bytes>> {
    if item.len() <= PART {
        return Some(vec![[&[WHOLE], item.as_ref()].concat().into()]);
    }
    let parts = item.len().div_ceil(PART);
    let count = u16::try_from(parts).ok().filter(|_| parts <= MAX_PARTS)?;
    let hash: [u8; 32] = Sha256::digest(item).into();
    let payload = |(number, part): (u16, &[u8])| {
        let header = [&[FRACTION], &hash[..], &number.to_be_bytes(), &count.to_be_bytes()].concat();
        Bytes::from([&header[..], part].concat())
    };
    Some((0..count).zip(item.chunks(PART)).map(payload).collect())
}

/// An item of which parts are here.
#[derive(Debug)]
struct Partial {
    parts: BTreeMap<u16, Bytes>,
    count: u16,
    bytes: usize,
}

/// Which item, and who publishes it: nobody else adds to it.
type Name = (AgentId, [u8; 32]);

/// Items that wait for their other parts.
#[derive(Debug, Default)]
pub struct Fragments {
    partial: BTreeMap<Name, Partial>,
    order: VecDeque<Name>,
    bytes: usize,
}

impl Fragments {
    /// Takes a payload; returns the item that is whole by it. What is malformed is nothing.
    pub fn take(&mut self, author: AgentId, payload: &Bytes) -> Option<Bytes> {
        match *payload.first()? {
            WHOLE => Some(payload.slice(1..)),
            FRACTION => self.take_part(author, payload),
            _ => None,
        }
    }

    fn take_part(&mut self, author: AgentId, payload: &Bytes) -> Option<Bytes> {
        let (hash, numbers) = payload.get(1..HEADER)?.split_first_chunk::<32>()?;
        let [a, b, c, d] = *numbers.first_chunk()?;
        let (number, count) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let part = payload.slice(HEADER..);
        let shape = number < count && usize::from(count) <= MAX_PARTS && count > 1;
        let last = number + 1 == count;
        if !shape || part.is_empty() || part.len() > PART || (!last && part.len() < PART) {
            return None;
        }
        let name = (author, *hash);
        if !self.partial.contains_key(&name) {
            self.order.push_back(name);
            let empty = Partial { parts: BTreeMap::new(), count, bytes: 0 };
            self.partial.insert(name, empty);
        }
        let partial = self.partial.get_mut(&name)?;
        if partial.count != count || partial.parts.contains_key(&number) {
            return None;
        }
        partial.bytes += part.len();
        self.bytes += part.len();
        partial.parts.insert(number, part);
        if partial.parts.len() < usize::from(count) {
            self.evict();
            return None;
        }
        let whole = self.remove(&name)?;
        let item: Vec<u8> = whole.parts.into_values().flatten().collect();
        let hashed: [u8; 32] = Sha256::digest(&item).into();
        (hashed == name.1).then(|| item.into())
    }

    fn remove(&mut self, name: &Name) -> Option<Partial> {
        let gone = self.partial.remove(name)?;
        self.bytes -= gone.bytes;
        self.order.retain(|known| known != name);
        Some(gone)
    }

    fn evict(&mut self) {
        while (self.partial.len() > MAX_PARTIAL || self.bytes > MAX_PARTIAL_BYTES)
            && let Some(oldest) = self.order.front().copied()
        {
            self.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn author(n: u8) -> AgentId {
        AgentId::new([n; 32])
    }

    #[test]
    fn a_large_item_is_whole_again_in_any_order_and_with_repeats() {
        let item: Bytes = (0..3 * PART + 17).map(|n| n.to_le_bytes()[0]).collect();
        let mut parts = split(&item).expect("parts");
        assert_eq!(parts.len(), 4);
        parts.reverse();
        let mut fragments = Fragments::default();
        let again = parts[0].clone();
        assert_eq!(fragments.take(author(1), &again), None);
        let whole: Vec<Bytes> =
            parts.iter().filter_map(|part| fragments.take(author(1), part)).collect();
        assert_eq!(whole, [item]);
        assert_eq!((fragments.bytes, fragments.partial.len(), fragments.order.len()), (0, 0, 0));
    }

    #[test]
    fn nobody_adds_to_the_item_of_another() {
        let item = Bytes::from(vec![7; 2 * PART]);
        let parts = split(&item).expect("parts");
        let mut fragments = Fragments::default();
        assert_eq!(fragments.take(author(1), &parts[0]), None);
        assert_eq!(fragments.take(author(2), &parts[1]), None);
        assert_eq!(fragments.take(author(1), &parts[1]), Some(item));
    }

    #[test]
    fn an_altered_part_makes_no_item() {
        let item = Bytes::from(vec![7; 2 * PART]);
        let mut parts = split(&item).expect("parts");
        let mut altered = parts[1].to_vec();
        altered[HEADER] ^= 1;
        parts[1] = altered.into();
        let mut fragments = Fragments::default();
        assert!(parts.iter().all(|part| fragments.take(author(1), part).is_none()));
        assert_eq!(fragments.bytes, 0);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut fragments = Fragments::default();
        for n in 0..100_u8 {
            let item = Bytes::from(vec![n; 2 * PART]);
            fragments.take(author(n), &split(&item).expect("parts")[0]);
        }
        assert_eq!(fragments.partial.len(), MAX_PARTIAL);
        assert_eq!(fragments.bytes, MAX_PARTIAL * PART);
        assert!(split(&Bytes::from(vec![0; MAX_LOG_ITEM + PART + 64])).is_none());
    }

    proptest! {
        #[test]
        fn any_payload_is_survived(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut fragments = Fragments::default();
            let payload = Bytes::from(payload);
            let _ = fragments.take(author(1), &payload);
            prop_assert!(fragments.bytes <= 200);
        }
    }
}
