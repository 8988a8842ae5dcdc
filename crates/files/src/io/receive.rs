//! A file that arrives: its content, and beside it the value of each group that was verified.
//!
//! A value is written after its content and is the content's hash, so neither a crash nor a torn write
//! can make a group count that is not there: when the file is opened again, what does not match its
//! value is missing. Nothing has to wait for the disk on the way.

use std::{path::PathBuf, sync::Arc};

use sha2::{Digest, Sha256};

use super::Room;
use crate::{
    error::WorkError,
    ranges::RangeSet,
    record::Record,
    store::{Blob, FileStore, Part},
    tree::{self, GROUP, GROUP_LEN, VALUE, Value},
    wire::SliceIn,
};

/// Values read at once when a file is opened.
const VALUES_READ: usize = 2048;

/// Bytes after which it is begun to make them durable, so that little is left to be done at the end.
const SYNC_EVERY: u64 = 8 * 1024 * 1024;

/// A file that is being received.
#[derive(Debug)]
pub(crate) struct Receiving {
    record: Record,
    root: Value,
    content: Box<dyn Blob>,
    values: Box<dyn Blob>,
    /// The name that it has already.
    named: Option<PathBuf>,
    /// Over the first bytes of the file, as far as they came in order.
    sha256: Sha256,
    hashed: u64,
    room: Arc<Room>,
    /// Bytes that nobody has begun to make durable.
    unsynced: u64,
}

impl Receiving {
    /// Opens what is there, and says which groups hold. With `rewrite` they are written again: after the
    /// disk has failed to make them durable, it may believe that they are. `stop` is asked now and then.
    pub(crate) fn open(
        store: &dyn FileStore,
        record: Record,
        room: Arc<Room>,
        rewrite: bool,
        stop: impl Fn() -> bool,
    ) -> Result<(Self, RangeSet), WorkError> {
        let root = record.root.ok_or_else(|| WorkError::Disk("the offer has no hash".into()))?;
        let named = store.named(&record)?;
        let source = named.as_deref().and_then(|path| store.source(path).ok());
        let is_named = source.is_some();
        let content = match source {
            Some(content) => content,
            None => store.part(&record, Part::Content)?,
        };
        let values = store.part(&record, Part::Values)?;
        let named = named.filter(|_| is_named);
        let (sha256, hashed) = (Sha256::new(), 0);
        let unsynced = 0;
        let mut receiving =
            Self { record, root, content, values, named, sha256, hashed, room, unsynced };
        let mut there = receiving.verify(rewrite && !is_named, &stop)?;
        // What has the name is the user's by now.
        if is_named && there.len() < tree::groups(receiving.record.size) {
            receiving.named = None;
            receiving.content = store.part(&receiving.record, Part::Content)?;
            there = receiving.verify(rewrite, &stop)?;
        }
        Ok((receiving, there))
    }

    fn verify(&self, rewrite: bool, stop: &impl Fn() -> bool) -> Result<RangeSet, WorkError> {
        let mut there = RangeSet::new();
        let mut values = vec![0; VALUES_READ * VALUE];
        let mut buffer = vec![0; GROUP_LEN];
        let total = tree::groups(self.record.size);
        let mut group = 0;
        while group < total {
            let count = self.values.read_at(group * VALUE as u64, &mut values)?;
            if count < VALUE {
                break;
            }
            for value in values[..count].as_chunks::<VALUE>().0 {
                if stop() {
                    return Err(WorkError::Disconnected);
                }
                let len = tree::group_len(self.record.size, group);
                if *value != [0; VALUE] && len > 0 {
                    let read = self.content.read_at(group * GROUP, &mut buffer[..len])?;
                    if read == len && tree::leaf(group, &buffer[..len]) == *value {
                        there.insert(group..group + 1);
                        if rewrite {
                            self.content.write_at(group * GROUP, &buffer[..len])?;
                        }
                    }
                }
                group += 1;
            }
        }
        Ok(there)
    }

    /// Verifies a group and stores it.
    pub(crate) fn store(&mut self, store: &dyn FileStore, slice: SliceIn) -> Result<(), WorkError> {
        let slice =
            slice.verify(&self.root, self.record.size).map_err(|_| WorkError::BadContent)?;
        let (group, content) = (slice.group(), slice.content());
        self.room.take(store, self.record.folder.as_deref(), content.len() as u64)?;
        let stored = self
            .content
            .write_at(group * GROUP, content)
            .and_then(|()| self.values.write_at(group * VALUE as u64, slice.value()));
        if let Err(error) = stored {
            self.room.look_again();
            return Err(error);
        }
        if group * GROUP == self.hashed {
            self.sha256.update(content);
            self.hashed += content.len() as u64;
        }
        self.unsynced += content.len() as u64;
        Ok(())
    }

    /// What is to be made durable meanwhile, if there is enough of it.
    pub(crate) fn sync_ahead(&mut self) -> Option<Box<dyn Blob>> {
        let twin = (self.unsynced >= SYNC_EVERY).then(|| self.content.twin().ok()).flatten()?;
        self.unsynced = 0;
        Some(twin)
    }

    /// Checks the SHA-256 and gives the file its name, unless it is stopped before that. All groups are
    /// there.
    pub(crate) fn finish(
        &mut self,
        store: &dyn FileStore,
        stop: impl Fn() -> bool,
    ) -> Result<PathBuf, WorkError> {
        if self.record.size == 0 && tree::small_root(&[]) != self.root {
            return Err(WorkError::BadContent);
        }
        let mut buffer = vec![0; GROUP_LEN];
        while self.hashed < self.record.size {
            if stop() {
                return Err(WorkError::Disconnected);
            }
            let count = self.content.read_at(self.hashed, &mut buffer)?;
            if count == 0 {
                return Err(WorkError::Disk("the received file became shorter".into()));
            }
            self.sha256.update(&buffer[..count]);
            self.hashed += count as u64;
        }
        let sha256: [u8; 32] = self.sha256.clone().finalize().into();
        if self.record.sha256.is_some_and(|stated| stated != sha256) {
            return Err(WorkError::BadSha256);
        }
        self.content.sync().map_err(|_| WorkError::Unsynced)?;
        if stop() {
            return Err(WorkError::Disconnected);
        }
        match &self.named {
            Some(path) => Ok(path.clone()),
            None => store.publish(&self.record),
        }
    }
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use std::cell::Cell;

    use bytes::Bytes;
    use x0x_core::{AgentId, WallTime};

    use super::*;
    use crate::{
        id::TransferId,
        record::{Direction, Phase},
        testing::{DOWNLOADS, MemoryStore},
    };

    /// Of as many groups as fit, all the same.
    fn record(groups: u64) -> (Record, Vec<u8>) {
        let content = vec![7; groups as usize * GROUP_LEN];
        let record = Record {
            id: TransferId::new([1; 16]),
            direction: Direction::Receiving,
            peer: AgentId::new([1; 32]),
            machine: None,
            local: AgentId::new([2; 32]),
            name: "f".into(),
            size: groups * GROUP,
            root: Some(*blake3::hash(&content).as_bytes()),
            sha256: None,
            media_type: String::new(),
            phase: Phase::Active,
            reason: None,
            started: WallTime::from_millis(0),
            ended: None,
            source: None,
            modified: 0,
            folder: None,
            output: None,
        };
        (record, content)
    }

    /// Asks to stop after a number of questions.
    fn after(questions: u32) -> impl Fn() -> bool {
        let left = Cell::new(questions);
        move || left.replace(left.get().saturating_sub(1)) == 0
    }

    #[test]
    fn verifying_and_finishing_stop_when_asked() {
        let (record, content) = record(2);
        let (disk, room) = (MemoryStore::new(), Arc::new(Room::new(0)));
        let open =
            |stop: u32| Receiving::open(&disk, record.clone(), room.clone(), false, after(stop));
        let (mut file, there) = open(100).expect("opened");
        assert!(there.is_empty());
        let values = [0, 1].map(|group| tree::leaf(group, &content[..GROUP_LEN]));
        for group in [0, 1] {
            let slice = SliceIn {
                id: record.id,
                group,
                proof: Bytes::copy_from_slice(&values[1 - group as usize]),
                content: Bytes::copy_from_slice(&content[..GROUP_LEN]),
            };
            assert_eq!(file.store(&disk, slice), Ok(()));
        }
        assert_eq!(open(1).map(|_| ()), Err(WorkError::Disconnected), "in the second group");
        let (mut file, there) = open(100).expect("opened");
        assert_eq!(there, RangeSet::of(0..2));
        let name = format!("{DOWNLOADS}/f");
        for questions in [0, 1, 1] {
            assert_eq!(file.finish(&disk, after(questions)), Err(WorkError::Disconnected));
            assert_eq!(disk.get(&name), None);
        }
        assert_eq!(file.finish(&disk, || false), Ok(PathBuf::from(&name)));
        assert_eq!(disk.get(&name), Some(content));
    }
}
