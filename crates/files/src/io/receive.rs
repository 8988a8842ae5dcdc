//! A file that arrives: its content, and beside it the value of each group that was verified.
//!
//! A value is written after its content and is the content's hash, so neither a crash nor a torn write
//! can make a group count that is not there: when the file is opened again, what does not match its
//! value is missing. Nothing has to wait for the disk on the way.

use sha2::{Digest, Sha256};

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
/// Groups after which the free space is looked at again: 32 MiB.
const SPACE_CHECK: u32 = 256;

/// A file that is being received.
#[derive(Debug)]
pub(crate) struct Receiving {
    record: Record,
    root: Value,
    content: Box<dyn Blob>,
    values: Box<dyn Blob>,
    /// Over the first bytes of the file, as far as they came in order.
    sha256: Sha256,
    hashed: u64,
    keep_free: u64,
    unchecked: u32,
}

impl Receiving {
    /// Opens what is there, and says which groups hold.
    pub(crate) fn open(
        store: &dyn FileStore,
        record: Record,
        keep_free: u64,
    ) -> Result<(Self, RangeSet), WorkError> {
        let root = record.root.ok_or_else(|| WorkError::Disk("the offer has no hash".into()))?;
        let content = store.part(&record, Part::Content)?;
        let values = store.part(&record, Part::Values)?;
        let (sha256, hashed, unchecked) = (Sha256::new(), 0, 0);
        let receiving =
            Self { record, root, content, values, sha256, hashed, keep_free, unchecked };
        let there = receiving.verify()?;
        Ok((receiving, there))
    }

    fn verify(&self) -> Result<RangeSet, WorkError> {
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
                let len = tree::group_len(self.record.size, group);
                if *value != [0; VALUE] && len > 0 {
                    let read = self.content.read_at(group * GROUP, &mut buffer[..len])?;
                    if read == len && tree::leaf(group, &buffer[..len]) == *value {
                        there.insert(group..group + 1);
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
        if self.unchecked == 0 {
            let free = store.free(self.record.folder.as_deref())?;
            if free < self.keep_free.saturating_add(slice.content().len() as u64) {
                return Err(WorkError::NoSpace);
            }
        }
        self.unchecked = (self.unchecked + 1) % SPACE_CHECK;
        let (group, content) = (slice.group(), slice.content());
        let stored = self
            .content
            .write_at(group * GROUP, content)
            .and_then(|()| self.values.write_at(group * VALUE as u64, slice.value()));
        if let Err(error) = stored {
            self.unchecked = 0;
            return Err(error);
        }
        if group * GROUP == self.hashed {
            self.sha256.update(content);
            self.hashed += content.len() as u64;
        }
        Ok(())
    }

    /// Checks the SHA-256 and gives the file its name. All groups are there.
    pub(crate) fn finish(
        &mut self,
        store: &dyn FileStore,
    ) -> Result<std::path::PathBuf, WorkError> {
        if self.record.size == 0 && tree::small_root(&[]) != self.root {
            return Err(WorkError::BadContent);
        }
        let mut buffer = vec![0; GROUP_LEN];
        while self.hashed < self.record.size {
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
        self.content.sync()?;
        store.publish(&self.record)
    }
}
