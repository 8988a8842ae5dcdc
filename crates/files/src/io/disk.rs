//! The real disk: records in a private folder, received files beside their parts.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use x0x_identity::private_file::{self, Access, FileError};

use super::{protected::Protected, publish::Publish};
use crate::{
    error::WorkError,
    id::TransferId,
    record::{Direction, MAX_RECORD, Record},
    store::{Blob, FileStore, Part},
};

/// Most records that are looked at; there are never as many unless somebody else put them there.
const MAX_RECORDS: usize = 4096;
const RECORD: &str = "transfer";

/// Transfers on the real disk.
///
/// `<state>/<id>.transfer` is a record and `<state>/<id>.tree` the hash tree of a file that is sent.
/// What arrives grows as `.x0x-<id>.part` in the folder where it will stay, next to `.x0x-<id>.values`.
/// All of them, and both folders, are their owner's alone.
#[derive(Debug, Clone)]
pub struct DiskStore {
    state: PathBuf,
    downloads: PathBuf,
    protected: Protected,
    /// Whether second links to a file may be tried.
    links: bool,
}

pub(super) fn failed(error: &io::Error) -> WorkError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => WorkError::NoSpace,
        _ => WorkError::Disk(error.to_string()),
    }
}

pub(super) fn failed_file(error: FileError) -> WorkError {
    match error {
        FileError::Io { source, .. } if failed(&source) == WorkError::NoSpace => WorkError::NoSpace,
        other => WorkError::Disk(other.to_string()),
    }
}

impl DiskStore {
    /// Over a folder for records and one for received files; both are made when they are first used.
    #[must_use]
    pub fn new(state: impl Into<PathBuf>, downloads: impl Into<PathBuf>) -> Self {
        let (state, downloads) = (state.into(), downloads.into());
        let protected = Protected::new([], downloads.clone());
        Self { state, downloads, protected, links: true }
    }

    /// Sends nothing that is, or is in, one of these files and folders, by whatever name and through
    /// whatever links. What has been received is excepted.
    #[must_use]
    pub fn protecting(mut self, paths: impl IntoIterator<Item = PathBuf>) -> Self {
        self.protected = Protected::new(paths, self.downloads.clone());
        self
    }

    /// Nor anything below a folder that has a file of one of these names in it: the folders of other agents of the
    /// same user, wherever they are.
    #[must_use]
    pub fn protecting_marked(mut self, names: impl IntoIterator<Item = &'static str>) -> Self {
        self.protected.marked_by(names);
        self
    }

    /// The same on a file system without hard links.
    #[cfg(feature = "test-util")]
    #[must_use]
    pub fn without_links(mut self) -> Self {
        self.links = false;
        self
    }

    /// Where received files go.
    #[must_use]
    pub fn downloads(&self) -> &Path {
        &self.downloads
    }

    fn record_path(&self, id: TransferId) -> PathBuf {
        self.state.join(format!("{id}.{RECORD}"))
    }

    fn folder<'a>(&'a self, folder: Option<&'a Path>) -> &'a Path {
        folder.unwrap_or(&self.downloads)
    }

    fn part_path(&self, record: &Record, part: Part) -> PathBuf {
        let folder = self.folder(record.folder.as_deref());
        match part {
            Part::Content => folder.join(format!(".x0x-{}.part", record.id)),
            Part::Values => folder.join(format!(".x0x-{}.values", record.id)),
            Part::Name => folder.join(format!(".x0x-{}.name", record.id)),
            Part::Tree => self.state.join(format!("{}.tree", record.id)),
        }
    }

    fn publishing<'a>(&'a self, record: &'a Record) -> Publish<'a> {
        Publish {
            record,
            folder: self.folder(record.folder.as_deref()),
            part: self.part_path(record, Part::Content),
            note: self.part_path(record, Part::Name),
            links: self.links,
        }
    }

    fn parts(record: &Record) -> &'static [Part] {
        match record.direction {
            Direction::Sending => &[Part::Tree],
            Direction::Receiving => &[Part::Values, Part::Content, Part::Name],
        }
    }
}

impl FileStore for DiskStore {
    fn load(&self) -> Result<Vec<Record>, WorkError> {
        private_file::make_folder(&self.state).map_err(failed_file)?;
        let entries = fs::read_dir(&self.state).map_err(|error| failed(&error))?;
        let mut records = Vec::new();
        for entry in entries.take(MAX_RECORDS) {
            let path = entry.map_err(|error| failed(&error))?.path();
            if path.extension().is_none_or(|extension| extension != RECORD) {
                continue;
            }
            let read = private_file::read(&path, MAX_RECORD).map_err(failed_file);
            match read.map(|bytes| bytes.map(|bytes| Record::decode(&bytes))) {
                Ok(Some(Ok(record))) if self.record_path(record.id) == path => records.push(record),
                Ok(None) => {}
                _ => tracing::warn!(path = %path.display(), "the record of a transfer is damaged"),
            }
        }
        records.sort_by_key(|record| record.id);
        Ok(records)
    }

    fn save(&self, record: &Record) -> Result<(), WorkError> {
        private_file::make_folder(&self.state).map_err(failed_file)?;
        let path = self.record_path(record.id);
        private_file::replace(&path, &record.encode(), Access::Owner).map_err(failed_file)
    }

    fn forget(&self, record: &Record) -> Result<(), WorkError> {
        self.discard(record)?;
        remove(&self.record_path(record.id))
    }

    fn discard(&self, record: &Record) -> Result<(), WorkError> {
        Self::parts(record).iter().try_for_each(|part| remove(&self.part_path(record, *part)))
    }

    fn source(&self, path: &Path) -> Result<Box<dyn Blob>, WorkError> {
        // One that is not there is not sent; a disk or a process at its limit may be well again later.
        let gone = |error: io::Error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::NotADirectory => {
                WorkError::SourceGone(error.to_string())
            }
            _ => failed(&error),
        };
        let regular = |found: &fs::Metadata| match found.is_file() {
            true => Ok(()),
            false => Err(WorkError::SourceGone(crate::handle::NOT_A_FILE.into())),
        };
        let mut options = OpenOptions::new();
        options.read(true);
        safely(&mut options);
        // Looked at before it is opened as well: opening alone may have an effect on a device.
        regular(&fs::symlink_metadata(path).map_err(gone)?)?;
        let file = options.open(path).map_err(gone)?;
        let found = file.metadata().map_err(gone)?;
        regular(&found)?;
        self.protected.check(path, &found).map_err(gone)?.map_err(WorkError::SourceProtected)?;
        Ok(Box::new(DiskBlob(file)))
    }

    fn part(&self, record: &Record, part: Part) -> Result<Box<dyn Blob>, WorkError> {
        let path = self.part_path(record, part);
        if let Some(folder) = path.parent() {
            private_file::make_folder(folder).map_err(failed_file)?;
        }
        private_file::refuse_special(&path).map_err(failed_file)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        safely(&mut options);
        let file = options.open(&path).map_err(|error| failed(&error))?;
        let metadata = file.metadata().map_err(|error| failed(&error))?;
        if !metadata.is_file() {
            return Err(WorkError::Disk(format!("{} is not a regular file", path.display())));
        }
        Ok(Box::new(DiskBlob(file)))
    }

    fn publish(&self, record: &Record) -> Result<PathBuf, WorkError> {
        self.publishing(record).run()
    }

    fn named(&self, record: &Record) -> Result<Option<PathBuf>, WorkError> {
        self.publishing(record).named()
    }

    fn free(&self, folder: Option<&Path>) -> Result<u64, WorkError> {
        let folder = self.folder(folder);
        private_file::make_folder(folder).map_err(failed_file)?;
        free_bytes(folder).map_err(|error| failed(&error))
    }
}

fn remove(path: &Path) -> Result<(), WorkError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(&error)),
        _ => Ok(()),
    }
}

#[cfg(unix)]
pub(super) fn sync_folder(folder: &Path) -> Result<(), WorkError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed(&error))
}

#[cfg(not(unix))]
pub(super) fn sync_folder(_: &Path) -> Result<(), WorkError> {
    Ok(())
}

/// Follows no link, waits for no pipe, and what is made is the owner's alone.
#[cfg(unix)]
fn safely(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    options.mode(0o600).custom_flags(flags.bits().cast_signed());
}

#[cfg(not(unix))]
fn safely(_: &mut OpenOptions) {}

#[cfg(unix)]
fn free_bytes(folder: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Not asked here; writing tells.
#[cfg(not(unix))]
fn free_bytes(_: &Path) -> io::Result<u64> {
    Ok(u64::MAX)
}

#[derive(Debug)]
struct DiskBlob(File);

impl Blob for DiskBlob {
    fn stat(&self) -> Result<(u64, u64), WorkError> {
        let metadata = self.0.metadata().map_err(|error| failed(&error))?;
        let changed = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let nanos = changed.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        Ok((metadata.len(), nanos))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, WorkError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match read_some(&self.0, offset + filled as u64, &mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), WorkError> {
        let mut written = 0;
        while written < bytes.len() {
            match write_some(&self.0, offset + written as u64, &bytes[written..]) {
                Ok(0) => return Err(WorkError::Disk("nothing could be written".into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        Ok(())
    }

    fn twin(&self) -> Result<Box<dyn Blob>, WorkError> {
        let twin = self.0.try_clone().map_err(|error| failed(&error))?;
        Ok(Box::new(Self(twin)))
    }

    fn sync(&self) -> Result<(), WorkError> {
        self.0.sync_all().map_err(|error| failed(&error))
    }
}

#[cfg(unix)]
fn read_some(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

#[cfg(unix)]
fn write_some(file: &File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_some(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}

#[cfg(windows)]
fn write_some(file: &File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, bytes, offset)
}
