//! What members wrote in encrypted groups, as far back as there is room for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque, btree_map};

use bytes::Bytes;
use prost::Message;
use x0x_core::{AgentId, WallTime};
use x0x_mls::{Batch, Change, Entry, MlsStore, Space};
use zeroize::Zeroizing;

use super::Text;
use crate::{
    error::GroupsError,
    limits::{MAX_TEXT_BYTES, MAX_TEXTS},
    wire::{GroupId, PastText},
};

/// The number of a group's first text: what is handed over from before gets those below.
const FIRST: u64 = MAX_TEXTS as u64;

#[derive(Clone, PartialEq, Message)]
struct TextRecord {
    #[prost(bytes = "bytes", tag = "1")]
    author: Bytes,
    #[prost(string, tag = "2")]
    room: String,
    #[prost(bytes = "bytes", tag = "3")]
    id: Bytes,
    #[prost(uint64, tag = "4")]
    at_ms: u64,
    #[prost(bytes = "bytes", tag = "5")]
    payload: Bytes,
    /// It was written when the policy let members hand it on.
    #[prost(bool, tag = "6")]
    shared: bool,
    /// Who handed it over; empty of what was read in the log.
    #[prost(bytes = "bytes", tag = "7")]
    handed_by: Bytes,
}

impl TextRecord {
    fn name(&self) -> Option<Name> {
        let author = AgentId::new(self.author.as_ref().try_into().ok()?);
        Some((author, self.id.as_ref().try_into().ok()?))
    }
}

/// A text to be written down.
pub(crate) struct Written<'a> {
    pub(crate) author: AgentId,
    pub(crate) room: &'a str,
    pub(crate) id: [u8; 16],
    pub(crate) payload: &'a Bytes,
    pub(crate) at: WallTime,
    /// The policy lets members hand it on.
    pub(crate) shared: bool,
}

/// A text's author, and the author's name for it.
type Name = (AgentId, [u8; 16]);

/// A text that is kept.
#[derive(Debug)]
struct Known {
    number: u64,
    size: usize,
    /// None of a damaged one.
    name: Option<Name>,
}

/// The texts of one group by number.
#[derive(Debug)]
struct Kept {
    texts: VecDeque<Known>,
    names: BTreeSet<Name>,
    bytes: usize,
    next: u64,
}

impl Default for Kept {
    fn default() -> Self {
        Self { texts: VecDeque::new(), names: BTreeSet::new(), bytes: 0, next: FIRST }
    }
}

impl Kept {
    fn take(&mut self, known: Known) {
        self.bytes += known.size;
        self.next = self.next.max(known.number + 1);
        self.names.extend(known.name);
        self.texts.push_back(known);
    }

    fn give_up(&mut self, count: usize) {
        for known in self.texts.drain(..count) {
            self.bytes -= known.size;
            if let Some(name) = known.name {
                self.names.remove(&name);
            }
        }
    }
}

/// A text on its way into the history.
pub(crate) struct Addition {
    /// What makes it part of it.
    pub(crate) batch: Batch,
    group: GroupId,
    gone: usize,
    known: Known,
}

/// Texts from before on their way into the history.
pub(crate) struct Past {
    /// What makes them part of it.
    pub(crate) batch: Batch,
    group: GroupId,
    /// The newest first.
    known: Vec<Known>,
}

impl Past {
    /// How many are new.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}

/// Which texts there are; they themselves are in the store.
#[derive(Debug, Default)]
pub(crate) struct History {
    groups: BTreeMap<GroupId, Kept>,
}

fn number(entry: &Entry) -> Option<u64> {
    entry.key.as_slice().try_into().ok().map(u64::from_be_bytes)
}

impl History {
    fn kept<S: MlsStore + ?Sized>(
        &mut self,
        store: &S,
        group: GroupId,
    ) -> Result<&mut Kept, GroupsError> {
        match self.groups.entry(group) {
            btree_map::Entry::Occupied(kept) => Ok(kept.into_mut()),
            btree_map::Entry::Vacant(place) => {
                let mut kept = Kept::default();
                for entry in store.load(Space::History(*group.as_bytes()))? {
                    let Some(number) = number(&entry) else { continue };
                    let record = TextRecord::decode(entry.value.as_slice()).ok();
                    let name = record.and_then(|record| record.name());
                    kept.take(Known { number, size: entry.value.len(), name });
                }
                Ok(place.insert(kept))
            }
        }
    }

    /// What writes a text down; nothing if it is there already. To be told by [`added`](Self::added) once it is
    /// written.
    pub(crate) fn add<S: MlsStore + ?Sized>(
        &mut self,
        store: &S,
        group: GroupId,
        text: &Written<'_>,
    ) -> Result<Option<Addition>, GroupsError> {
        let space = Space::History(*group.as_bytes());
        let kept = self.kept(store, group)?;
        let name = (text.author, text.id);
        if kept.names.contains(&name) {
            return Ok(None);
        }
        let record = TextRecord {
            author: Bytes::copy_from_slice(text.author.as_bytes()),
            room: text.room.to_owned(),
            id: Bytes::copy_from_slice(&text.id),
            at_ms: text.at.as_millis(),
            payload: text.payload.clone(),
            shared: text.shared,
            handed_by: Bytes::new(),
        };
        let value = Zeroizing::new(record.encode_to_vec());
        let known = Known { number: kept.next, size: value.len(), name: Some(name) };
        let key = |number: u64| number.to_be_bytes().to_vec();
        let mut batch = vec![Change::Put(space, Entry { key: key(known.number), chunk: 0, value })];
        let (mut gone, mut bytes) = (0, kept.bytes + known.size);
        while let Some(oldest) = kept.texts.get(gone)
            && (kept.texts.len() + 1 - gone > MAX_TEXTS || bytes > MAX_TEXT_BYTES)
        {
            batch.push(Change::Cut(space, key(oldest.number), 0));
            bytes -= oldest.size;
            gone += 1;
        }
        Ok(Some(Addition { batch, group, gone, known }))
    }

    /// A text is written down.
    pub(crate) fn added(&mut self, addition: Addition) {
        let kept = self.groups.entry(addition.group).or_default();
        kept.give_up(addition.gone);
        kept.take(addition.known);
    }

    /// What puts texts from before in front of those that are here, the newest of them first and as many as there is
    /// room for; none that is here. To be told by [`preceded`](Self::preceded) once it is written.
    pub(crate) fn precede<S: MlsStore + ?Sized>(
        &mut self,
        store: &S,
        group: GroupId,
        by: AgentId,
        texts: &[PastText],
        now: WallTime,
    ) -> Result<Past, GroupsError> {
        let space = Space::History(*group.as_bytes());
        let kept = self.kept(store, group)?;
        let mut number = kept.texts.front().map_or(kept.next, |first| first.number);
        let (mut bytes, mut names) = (kept.bytes, BTreeSet::new());
        let (mut batch, mut known) = (Batch::new(), Vec::new());
        for text in texts.iter().rev() {
            let name = (text.author, text.id);
            if kept.names.contains(&name) || !names.insert(name) {
                continue;
            }
            let record = TextRecord {
                author: Bytes::copy_from_slice(text.author.as_bytes()),
                room: text.room.clone(),
                id: Bytes::copy_from_slice(&text.id),
                at_ms: text.at.min(now).as_millis(),
                payload: text.payload.clone(),
                shared: true,
                handed_by: Bytes::copy_from_slice(by.as_bytes()),
            };
            let value = Zeroizing::new(record.encode_to_vec());
            bytes += value.len();
            let full = kept.texts.len() + known.len() >= MAX_TEXTS || bytes > MAX_TEXT_BYTES;
            let Some(before) = number.checked_sub(1).filter(|_| !full) else { break };
            number = before;
            known.push(Known { number, size: value.len(), name: Some(name) });
            let key = number.to_be_bytes().to_vec();
            batch.push(Change::Put(space, Entry { key, chunk: 0, value }));
        }
        Ok(Past { batch, group, known })
    }

    /// Texts from before are written down.
    pub(crate) fn preceded(&mut self, past: Past) {
        let kept = self.groups.entry(past.group).or_default();
        for known in past.known {
            kept.bytes += known.size;
            kept.names.extend(known.name);
            kept.texts.push_front(known);
        }
    }

    /// The texts of a group that may be handed on, oldest first.
    pub(crate) fn shared<S: MlsStore + ?Sized>(
        &self,
        store: &S,
        group: GroupId,
    ) -> Result<Vec<PastText>, GroupsError> {
        let entries = store.load(Space::History(*group.as_bytes()))?;
        let text = |entry: &Entry| {
            let record = TextRecord::decode(entry.value.as_slice()).ok()?;
            let (author, id) = record.name()?;
            record.shared.then(|| PastText {
                author,
                room: record.room,
                id,
                at: WallTime::from_millis(record.at_ms),
                payload: record.payload,
            })
        };
        Ok(entries.iter().filter_map(text).collect())
    }

    /// The texts of a group, oldest first.
    pub(crate) fn read<S: MlsStore + ?Sized>(
        &mut self,
        store: &S,
        group: GroupId,
    ) -> Result<Vec<Text>, GroupsError> {
        let entries = store.load(Space::History(*group.as_bytes()))?;
        let text = |entry: &Entry| {
            let number = number(entry)?;
            let record = TextRecord::decode(entry.value.as_slice()).ok()?;
            let (author, id) = record.name()?;
            Some(Text {
                number,
                author,
                room: record.room,
                id,
                at: WallTime::from_millis(record.at_ms),
                payload: record.payload,
                handed_by: record.handed_by.as_ref().try_into().ok().map(AgentId::new),
            })
        };
        Ok(entries.iter().filter_map(text).collect())
    }
}

#[cfg(test)]
mod tests {
    use x0x_mls::testing::MemoryStore;

    use super::*;

    const AUTHOR: AgentId = AgentId::new([2; 32]);

    fn add(history: &mut History, store: &MemoryStore, id: u64, payload: &Bytes) -> bool {
        let mut name = [0; 16];
        name[..8].copy_from_slice(&id.to_be_bytes());
        let at = WallTime::from_millis(1);
        let text = Written {
            author: AUTHOR,
            room: "",
            id: name,
            payload,
            at,
            shared: id.is_multiple_of(2),
        };
        let addition = history.add(store, GROUP, &text).expect("read");
        let Some(mut addition) = addition else { return false };
        store.commit(std::mem::take(&mut addition.batch)).expect("written");
        history.added(addition);
        true
    }

    const GROUP: GroupId = GroupId::new([1; 32]);

    #[test]
    fn the_oldest_texts_give_way_and_the_rest_survives() {
        let (store, mut history) = (MemoryStore::new(), History::default());
        for n in 0..=MAX_TEXTS as u64 {
            assert!(add(&mut history, &store, n, &Bytes::from(n.to_string())));
        }
        let mut again = History::default();
        let texts = again.read(&store, GROUP).expect("read");
        assert_eq!(texts.len(), MAX_TEXTS);
        assert_eq!(texts[0].payload, "1");
        let large = Bytes::from(vec![0; MAX_TEXT_BYTES - 100]);
        assert!(add(&mut again, &store, 9_999, &large));
        let texts = again.read(&store, GROUP).expect("read");
        assert!(texts.len() < MAX_TEXTS, "a large one takes the room of many: {}", texts.len());
        assert_eq!(texts.last().expect("one").payload.len(), large.len());
    }

    #[test]
    fn a_text_is_written_down_once_also_across_a_restart() {
        let (store, mut history) = (MemoryStore::new(), History::default());
        assert!(add(&mut history, &store, 1, &Bytes::from_static(b"a")));
        assert!(!add(&mut history, &store, 1, &Bytes::from_static(b"a")));
        let mut again = History::default();
        assert!(!add(&mut again, &store, 1, &Bytes::from_static(b"a")));
        assert!(add(&mut again, &store, 2, &Bytes::from_static(b"b")));
        assert_eq!(again.read(&store, GROUP).expect("read").len(), 2);
    }

    fn past(id: u8, payload: &'static [u8]) -> PastText {
        let at = WallTime::from_millis(u64::from(id));
        let payload = Bytes::from_static(payload);
        PastText { author: AUTHOR, room: String::new(), id: [id; 16], at, payload }
    }

    fn precede(history: &mut History, store: &MemoryStore, texts: &[PastText]) -> usize {
        let now = WallTime::from_millis(50);
        let mut past = history.precede(store, GROUP, HANDED_BY, texts, now).expect("read");
        store.commit(std::mem::take(&mut past.batch)).expect("written");
        let new = past.len();
        history.preceded(past);
        new
    }

    const HANDED_BY: AgentId = AgentId::new([3; 32]);

    #[test]
    fn what_was_before_stands_before_what_came_and_is_told_apart() {
        let (store, mut history) = (MemoryStore::new(), History::default());
        assert!(add(&mut history, &store, 2, &Bytes::from_static(b"own")));
        let mut own = [0; 16];
        own[7] = 2;
        let known = PastText { id: own, ..past(9, b"forged") };
        let texts = [past(10, b"one"), past(99, b"two"), past(10, b"again"), known];
        assert_eq!(precede(&mut history, &store, &texts), 2);
        assert_eq!(precede(&mut history, &store, &texts), 0);
        let mut again = History::default();
        assert_eq!(precede(&mut again, &store, &texts), 0, "also after a restart");
        let read = again.read(&store, GROUP).expect("read");
        let told: Vec<_> = read.iter().map(|text| (&text.payload[..], text.handed_by)).collect();
        let expected: [(&[u8], _); 3] =
            [(b"two", Some(HANDED_BY)), (b"again", Some(HANDED_BY)), (b"own", None)];
        assert_eq!(told, expected);
        assert!(read.iter().all(|text| text.at.as_millis() <= 50), "nothing is of the future");
    }

    #[test]
    fn what_was_before_takes_only_the_room_that_is_left() {
        let (store, mut history) = (MemoryStore::new(), History::default());
        for n in 0..MAX_TEXTS as u64 - 1 {
            assert!(add(&mut history, &store, n, &Bytes::new()));
        }
        assert_eq!(precede(&mut history, &store, &[past(98, b"older"), past(99, b"newer")]), 1);
        assert_eq!(history.read(&store, GROUP).expect("read")[0].payload, "newer");
        assert!(add(&mut history, &store, 9_999, &Bytes::new()));
        let texts = history.read(&store, GROUP).expect("read");
        assert_eq!((texts.len(), texts[0].handed_by), (MAX_TEXTS, None));
    }

    #[test]
    fn what_was_written_in_confidence_is_not_handed_on() {
        let (store, mut history) = (MemoryStore::new(), History::default());
        for id in 1..=4 {
            assert!(add(&mut history, &store, id, &Bytes::from(id.to_string())));
        }
        assert_eq!(precede(&mut history, &store, &[past(99, b"before")]), 1);
        let shared = history.shared(&store, GROUP).expect("read");
        let shared: Vec<_> = shared.iter().map(|text| &text.payload[..]).collect();
        assert_eq!(shared, [&b"before"[..], b"2", b"4"]);
    }
}
