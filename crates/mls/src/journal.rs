//! Messages on their way to or from the layer above, committed with the state they belong to.
//!
//! What was encrypted is kept until its bytes are safe elsewhere, what was decrypted until its text is:
//! a crash in between costs neither, and neither is made twice.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use x0x_core::AgentId;
use zeroize::Zeroizing;

use crate::{
    error::GroupError,
    store::{Batch, Change, Entry, MlsStore, Space},
    wire::GroupId,
};

/// Entries that the layer above may leave before nothing more is encrypted or decrypted.
pub const MAX_JOURNAL: usize = 4096;

/// A message that the layer above has not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pending {
    /// A frame that has to be published in the group's log.
    Outgoing {
        /// The group.
        group: GroupId,
        /// The bytes.
        frame: Bytes,
    },
    /// A message that was decrypted.
    Received {
        /// The group.
        group: GroupId,
        /// Who wrote it.
        author: AgentId,
        /// The data that was authenticated with it.
        aad: Bytes,
        /// The text.
        payload: Bytes,
    },
}

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(bytes = "bytes", tag = "1")]
    group: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    author: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    aad: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    data: Bytes,
}

impl Record {
    fn read(bytes: &[u8]) -> Option<Pending> {
        let record = Self::decode(bytes).ok()?;
        let group = GroupId(record.group.as_ref().try_into().ok()?);
        if record.author.is_empty() {
            return Some(Pending::Outgoing { group, frame: record.data });
        }
        let author = AgentId::new(record.author.as_ref().try_into().ok()?);
        Some(Pending::Received { group, author, aad: record.aad, payload: record.data })
    }

    fn of(pending: &Pending) -> Self {
        match pending {
            Pending::Outgoing { group, frame } => Self {
                group: Bytes::copy_from_slice(&group.0),
                data: frame.clone(),
                ..Self::default()
            },
            Pending::Received { group, author, aad, payload } => Self {
                group: Bytes::copy_from_slice(&group.0),
                author: Bytes::copy_from_slice(author.as_bytes()),
                aad: aad.clone(),
                data: payload.clone(),
            },
        }
    }
}

/// The journal's entries; the store holds the same.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    entries: BTreeMap<u64, Pending>,
    next: u64,
}

impl Journal {
    pub(crate) fn load<S: MlsStore + ?Sized>(store: &S) -> Result<Self, GroupError> {
        let mut journal = Self::default();
        for entry in store.load(Space::Journal)? {
            let id = entry.key.as_slice().try_into().map(u64::from_be_bytes);
            let (Ok(id), Some(pending)) = (id, Record::read(&entry.value)) else {
                return Err(GroupError::internal("a journal entry"));
            };
            journal.next = journal.next.max(id + 1);
            journal.entries.insert(id, pending);
        }
        Ok(journal)
    }

    pub(crate) fn check_room(&self) -> Result<(), GroupError> {
        if self.entries.len() < MAX_JOURNAL {
            Ok(())
        } else {
            Err(GroupError::Limit("messages not acknowledged"))
        }
    }

    /// Adds an entry to a batch. It counts once [`committed`](Self::committed) says so.
    pub(crate) fn write(&self, pending: &Pending, batch: &mut Batch) -> u64 {
        let value = Zeroizing::new(Record::of(pending).encode_to_vec());
        let key = self.next.to_be_bytes().to_vec();
        batch.push(Change::Put(Space::Journal, Entry { key, chunk: 0, value }));
        self.next
    }

    pub(crate) fn committed(&mut self, id: u64, pending: Pending) {
        self.next = id + 1;
        self.entries.insert(id, pending);
    }

    pub(crate) fn acknowledge(ids: &[u64]) -> Batch {
        let cut = |id: &u64| Change::Cut(Space::Journal, id.to_be_bytes().to_vec(), 0);
        ids.iter().map(cut).collect()
    }

    pub(crate) fn forget(&mut self, ids: &[u64]) {
        ids.iter().for_each(|id| drop(self.entries.remove(id)));
    }

    pub(crate) fn pending(&self) -> Vec<(u64, Pending)> {
        self.entries.iter().map(|(id, pending)| (*id, pending.clone())).collect()
    }
}
