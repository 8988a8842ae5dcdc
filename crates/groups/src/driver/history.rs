//! What members wrote in encrypted groups, as far back as there is room for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque, btree_map};

use bytes::Bytes;
use prost::Message;
use x0x_core::{AgentId, WallTime};
use x0x_mls::{Batch, Change, Entry, MlsStore, Space};
use zeroize::Zeroizing;

use super::Text;
use crate::{error::GroupsError, wire::GroupId};

/// Texts of a group that are kept; the oldest goes first.
pub const MAX_TEXTS: usize = 512;
/// Bytes of them.
pub const MAX_TEXT_BYTES: usize = 8 * 1024 * 1024;

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
#[derive(Debug, Default)]
struct Kept {
    texts: VecDeque<Known>,
    names: BTreeSet<Name>,
    bytes: usize,
    next: u64,
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
        let text = Written { author: AUTHOR, room: "", id: name, payload, at };
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
}
