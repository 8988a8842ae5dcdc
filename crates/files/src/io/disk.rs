//! The real disk: records in a private folder, received files beside their parts.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use x0x_identity::private_file::{self, Access, FileError};

use crate::{
    error::WorkError,
    id::TransferId,
    name::numbered,
    record::{Direction, MAX_RECORD, Record},
    store::{Blob, FileStore, Part},
};

/// Most names that are tried for a file.
const MAX_NUMBER: u32 = 10_000;
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
}

fn failed(error: &io::Error) -> WorkError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => WorkError::NoSpace,
        _ => WorkError::Disk(error.to_string()),
    }
}

fn failed_file(error: FileError) -> WorkError {
    match error {
        FileError::Io { source, .. } if failed(&source) == WorkError::NoSpace => WorkError::NoSpace,
        other => WorkError::Disk(other.to_string()),
    }
}

impl DiskStore {
    /// Over a folder for records and one for received files; both are made when they are first used.
    #[must_use]
    pub fn new(state: impl Into<PathBuf>, downloads: impl Into<PathBuf>) -> Self {
        Self { state: state.into(), downloads: downloads.into() }
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
            Part::Tree => self.state.join(format!("{}.tree", record.id)),
        }
    }

    fn parts(record: &Record) -> &'static [Part] {
        match record.direction {
            Direction::Sending => &[Part::Tree],
            Direction::Receiving => &[Part::Values, Part::Content],
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
        let gone = |error: io::Error| WorkError::SourceGone(error.to_string());
        let mut options = OpenOptions::new();
        options.read(true);
        safely(&mut options);
        // Looked at before it is opened as well: opening alone may have an effect on a device.
        let found = fs::symlink_metadata(path).map_err(gone)?;
        let file = options.open(path).map_err(gone)?;
        let opened = file.metadata().map_err(gone)?;
        if !found.is_file() || !opened.is_file() {
            return Err(WorkError::SourceGone(crate::handle::NOT_A_FILE.into()));
        }
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
        let part = self.part_path(record, Part::Content);
        let folder = self.folder(record.folder.as_deref());
        let own = fs::symlink_metadata(&part).map_err(|error| failed(&error))?;
        for number in 1..=MAX_NUMBER {
            let name = match number {
                1 => record.name.clone(),
                n => numbered(&record.name, n),
            };
            let path = folder.join(name);
            match fs::hard_link(&part, &path) {
                Ok(()) => return sync_folder(folder).map(|()| path),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    // A crash came after the name was given and before that was noted.
                    if fs::symlink_metadata(&path).is_ok_and(|found| same(&found, &own)) {
                        return Ok(path);
                    }
                }
                Err(error) if failed(&error) == WorkError::NoSpace => {
                    return Err(WorkError::NoSpace);
                }
                Err(_) => {
                    if claim(&path).map_err(|error| failed(&error))? {
                        fs::rename(&part, &path).map_err(|error| failed(&error))?;
                        return sync_folder(folder).map(|()| path);
                    }
                }
            }
        }
        Err(WorkError::Disk("every name for the file is taken".into()))
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

/// Takes a name with an empty file, on file systems without hard links; false when it is taken.
fn claim(path: &Path) -> io::Result<bool> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> Result<(), WorkError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed(&error))
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> Result<(), WorkError> {
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
fn same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(not(unix))]
fn same(_: &Metadata, _: &Metadata) -> bool {
    false
}

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
