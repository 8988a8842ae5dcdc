//! How a received file gets its name: by a second link where the file system has those, else by renaming
//! over a claim. Nothing is overwritten, and a crash in between neither loses the file nor names it twice.

use std::{
    fs::{self, Metadata, OpenOptions},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use x0x_identity::private_file::{self, Access};

use super::disk::{failed, failed_file, sync_folder};
use crate::{error::WorkError, name::numbered, record::Record};

/// Most names that are tried for a file.
const MAX_NUMBER: u32 = 10_000;
/// Longest note of a number.
const MAX_NOTE: usize = 10;

/// Where a file's parts are and where it goes.
pub(super) struct Publish<'a> {
    pub(super) record: &'a Record,
    pub(super) folder: &'a Path,
    /// The content that has arrived.
    pub(super) part: PathBuf,
    /// Which name was tried, where links cannot tell that.
    pub(super) note: PathBuf,
    /// Whether links may be tried.
    pub(super) links: bool,
}

impl Publish<'_> {
    fn path(&self, number: u32) -> PathBuf {
        self.folder.join(match number {
            1 => self.record.name.clone(),
            n => numbered(&self.record.name, n),
        })
    }

    /// Gives the content its name, or the first numbered one that is free.
    pub(super) fn run(&self) -> Result<PathBuf, WorkError> {
        let own = fs::symlink_metadata(&self.part).map_err(|error| failed(&error))?;
        let noted = self.noted()?;
        for number in 1..=MAX_NUMBER {
            let path = self.path(number);
            let found = fs::symlink_metadata(&path).ok();
            // A crash came after the name was given and before that was recorded.
            if found.as_ref().is_some_and(|found| same(found, &own)) {
                return Ok(path);
            }
            let claimed = noted == Some(number) && found.as_ref().is_some_and(is_empty);
            if found.is_some() && !claimed {
                continue;
            }
            if let Some(path) = self.name(path, number, claimed)? {
                return Ok(path);
            }
        }
        Err(WorkError::Disk("every name for the file is taken".into()))
    }

    /// Gives it one name; nothing when somebody else was faster.
    fn name(
        &self,
        path: PathBuf,
        number: u32,
        claimed: bool,
    ) -> Result<Option<PathBuf>, WorkError> {
        if self.links && !claimed {
            match fs::hard_link(&self.part, &path) {
                Ok(()) => return sync_folder(self.folder).map(|()| Some(path)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
                Err(error) if failed(&error) == WorkError::NoSpace => {
                    return Err(WorkError::NoSpace);
                }
                // The file system has none.
                Err(_) => {}
            }
        }
        self.rename(path, number, claimed)
    }

    fn rename(
        &self,
        path: PathBuf,
        number: u32,
        claimed: bool,
    ) -> Result<Option<PathBuf>, WorkError> {
        let note = number.to_string();
        private_file::replace(&self.note, note.as_bytes(), Access::Owner).map_err(failed_file)?;
        if !claimed && !claim(&path).map_err(|error| failed(&error))? {
            return Ok(None);
        }
        if let Err(error) = fs::rename(&self.part, &path) {
            // Only the claim is taken back, whatever it has become meanwhile.
            if fs::symlink_metadata(&path).is_ok_and(|found| is_empty(&found)) {
                let _ = fs::remove_file(&path);
            }
            return Err(failed(&error));
        }
        sync_folder(self.folder).map(|()| Some(path))
    }

    fn noted(&self) -> Result<Option<u32>, WorkError> {
        let note = private_file::read(&self.note, MAX_NOTE).map_err(failed_file)?;
        let number = note.and_then(|note| std::str::from_utf8(&note).ok()?.parse().ok());
        Ok(number.filter(|number| (1..=MAX_NUMBER).contains(number)))
    }

    /// The name that the content got before, when it was renamed to it.
    pub(super) fn named(&self) -> Result<Option<PathBuf>, WorkError> {
        if fs::symlink_metadata(&self.part).is_ok() {
            return Ok(None);
        }
        let path = self.noted()?.map(|number| self.path(number));
        let size = self.record.size;
        let whole = |found: Metadata| found.is_file() && found.len() == size;
        Ok(path.filter(|path| fs::symlink_metadata(path).is_ok_and(whole)))
    }
}

fn is_empty(found: &Metadata) -> bool {
    found.is_file() && found.len() == 0
}

/// Takes a name with an empty file; false when it is taken.
fn claim(path: &Path) -> io::Result<bool> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(not(unix))]
fn same(_: &Metadata, _: &Metadata) -> bool {
    false
}
