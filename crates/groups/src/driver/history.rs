//! What members wrote in encrypted groups, as far back as there is room for it.

use std::collections::{BTreeMap, VecDeque, btree_map};

use bytes::Bytes;
use prost::Message;
use x0x_core::{AgentId, WallTime};
use x0x_mls::{Change, Entry, MlsStore, Space};
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

/// The texts of one group by number.
#[derive(Debug, Default)]
struct Kept {
    sizes: VecDeque<(u64, usize)>,
    bytes: usize,
    next: u64,
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
                    kept.sizes.push_back((number, entry.value.len()));
                    kept.bytes += entry.value.len();
                    kept.next = kept.next.max(number + 1);
                }
                Ok(place.insert(kept))
            }
        }
    }

    /// Writes a text down.
    #[expect(clippy::too_many_arguments, reason = "what a text is made of")]
    pub(crate) fn add<S: MlsStore + ?Sized>(
        &mut self,
        store: &S,
        group: GroupId,
        author: AgentId,
        room: &str,
        id: [u8; 16],
        payload: &Bytes,
        at: WallTime,
    ) -> Result<(), GroupsError> {
        let space = Space::History(*group.as_bytes());
        let kept = self.kept(store, group)?;
        let record = TextRecord {
            author: Bytes::copy_from_slice(author.as_bytes()),
            room: room.to_owned(),
            id: Bytes::copy_from_slice(&id),
            at_ms: at.as_millis(),
            payload: payload.clone(),
        };
        let value = Zeroizing::new(record.encode_to_vec());
        let (size, key) = (value.len(), kept.next);
        let name = |number: u64| number.to_be_bytes().to_vec();
        let mut batch = vec![Change::Put(space, Entry { key: name(key), chunk: 0, value })];
        let (mut gone, mut bytes) = (0, kept.bytes + size);
        while let Some((number, size)) = kept.sizes.get(gone)
            && (kept.sizes.len() + 1 - gone > MAX_TEXTS || bytes > MAX_TEXT_BYTES)
        {
            batch.push(Change::Cut(space, name(*number), 0));
            bytes -= size;
            gone += 1;
        }
        store.commit(batch)?;
        kept.sizes.drain(..gone);
        kept.sizes.push_back((key, size));
        (kept.bytes, kept.next) = (bytes, key + 1);
        Ok(())
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
            Some(Text {
                number,
                author: AgentId::new(record.author.as_ref().try_into().ok()?),
                room: record.room,
                id: record.id.as_ref().try_into().ok()?,
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

    #[test]
    fn the_oldest_texts_give_way_and_the_rest_survives() {
        let (store, group) = (MemoryStore::new(), GroupId::new([1; 32]));
        let at = WallTime::from_millis(1);
        let mut history = History::default();
        for n in 0..=MAX_TEXTS {
            let payload = Bytes::from(n.to_string());
            history
                .add(&store, group, AgentId::new([2; 32]), "", [3; 16], &payload, at)
                .expect("written");
        }
        let mut again = History::default();
        let texts = again.read(&store, group).expect("read");
        assert_eq!(texts.len(), MAX_TEXTS);
        assert_eq!(texts[0].payload, "1");
        let payload = Bytes::from(vec![0; MAX_TEXT_BYTES - 100]);
        again.add(&store, group, AgentId::new([2; 32]), "r", [4; 16], &payload, at).expect("kept");
        let texts = again.read(&store, group).expect("read");
        assert!(texts.len() < MAX_TEXTS, "a large one takes the room of many: {}", texts.len());
        let last = texts.last().expect("one");
        assert_eq!((last.room.as_str(), last.payload.len()), ("r", MAX_TEXT_BYTES - 100));
    }
}
