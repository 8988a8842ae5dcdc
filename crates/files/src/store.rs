//! What the driver needs of a disk, narrow enough for a fake that fails at will.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::{error::WorkError, record::Record};

/// A file that belongs to a transfer and is not the user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Part {
    /// What has arrived of a received file.
    Content,
    /// The verified values of its groups.
    Values,
    /// Which name a received file is given, where its file system cannot tell.
    Name,
    /// The hash tree of a file that is sent.
    Tree,
}

/// Records and files of transfers. Every call may block.
pub trait FileStore: Send + Sync + fmt::Debug + 'static {
    /// The records that were kept. A damaged one is left out.
    ///
    /// # Errors
    /// [`WorkError`] when the disk fails.
    fn load(&self) -> Result<Vec<Record>, WorkError>;

    /// Keeps a record, whole and durable or not at all.
    ///
    /// # Errors
    /// [`WorkError`]; what was kept before is still there.
    fn save(&self, record: &Record) -> Result<(), WorkError>;

    /// Forgets a record, and the parts of its transfer.
    ///
    /// # Errors
    /// [`WorkError`] when the disk fails.
    fn forget(&self, record: &Record) -> Result<(), WorkError>;

    /// Drops the parts of a transfer.
    ///
    /// # Errors
    /// [`WorkError`] when the disk fails.
    fn discard(&self, record: &Record) -> Result<(), WorkError>;

    /// Opens a file of the user for reading: a regular one, no link.
    ///
    /// # Errors
    /// [`WorkError::SourceGone`], or [`WorkError::SourceProtected`] for one that is never sent.
    fn source(&self, path: &Path) -> Result<Box<dyn Blob>, WorkError>;

    /// Opens a part for reading and writing, empty when it is not there.
    ///
    /// # Errors
    /// [`WorkError`] when the folder cannot be used or the disk fails.
    fn part(&self, record: &Record, part: Part) -> Result<Box<dyn Blob>, WorkError>;

    /// Gives the received content its name in its folder, or a numbered one beside it: nothing is ever
    /// overwritten. Harmless when repeated: the same content keeps the name that it has.
    ///
    /// # Errors
    /// [`WorkError`] when the disk fails.
    fn publish(&self, record: &Record) -> Result<PathBuf, WorkError>;

    /// Where the content is that [`publish`](Self::publish) has named before, if it is in its part no more: a
    /// crash came before the record knew. It may not be the same content by now.
    ///
    /// # Errors
    /// [`WorkError`] when the disk fails.
    fn named(&self, _: &Record) -> Result<Option<PathBuf>, WorkError> {
        Ok(None)
    }

    /// Bytes free in a folder, or in the usual one.
    ///
    /// # Errors
    /// [`WorkError`] when the folder cannot be used.
    fn free(&self, folder: Option<&Path>) -> Result<u64, WorkError>;
}

/// Bytes on a disk.
pub trait Blob: Send + fmt::Debug {
    /// How many there are, and when they were last changed, in nanoseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`WorkError`] when the disk fails.
    fn stat(&self) -> Result<(u64, u64), WorkError>;

    /// Fills a buffer from a place on; gives how much there was.
    ///
    /// # Errors
    /// [`WorkError`] when the disk fails.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, WorkError>;

    /// Writes all the bytes.
    ///
    /// # Errors
    /// [`WorkError::NoSpace`] when the disk is full; a part of them may be there then.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), WorkError>;

    /// The same bytes again, so that they can be made durable while more are written.
    ///
    /// # Errors
    /// [`WorkError`] when the disk fails.
    fn twin(&self) -> Result<Box<dyn Blob>, WorkError>;

    /// Waits until everything is durable.
    ///
    /// # Errors
    /// [`WorkError`] when the disk fails.
    fn sync(&self) -> Result<(), WorkError>;
}
