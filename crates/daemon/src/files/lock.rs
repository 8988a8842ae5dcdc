//! One daemon a data directory, and one for an agent's keys.

use std::{
    fs::{self, File, TryLockError},
    io::{ErrorKind, Read, Seek, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use x0x_agent::private_file::refuse_special;
use x0x_api::instance::LOCK_FILE;

use super::FileError;

/// How often a busy lock is tried again, and the pause between.
const LOCK_TRIES: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Keeps the keys for one daemon.
const KEYS_LOCK_FILE: &str = "keys.lock";

/// The data directory or the keys are not free.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another daemon has it.
    #[error("another x0xd{} uses the {what} {}", holder(.pid), .directory.display())]
    Held {
        /// What it uses.
        what: &'static str,
        /// The directory.
        directory: PathBuf,
        /// Process id of the other, as far as known.
        pid: Option<u32>,
    },
    /// The lock file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

fn holder(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// Holds a directory until it is dropped; the system frees it also when the process is killed.
#[derive(Debug)]
pub(crate) struct InstanceLock {
    _file: File,
}

impl InstanceLock {
    /// Takes a data directory.
    pub(crate) fn take(directory: &Path) -> Result<Self, LockError> {
        Self::take_as("data directory", directory, LOCK_FILE)
    }

    /// Takes the directory of an agent's keys: two daemons with the same keys take each other's messages. None where
    /// nothing can be written, as keys may be kept.
    pub(crate) fn take_keys(directory: &Path) -> Result<Option<Self>, LockError> {
        match Self::take_as("keys in", directory, KEYS_LOCK_FILE) {
            Ok(lock) => Ok(Some(lock)),
            Err(LockError::File(FileError::Io { source, .. }))
                if matches!(
                    source.kind(),
                    ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn take_as(what: &'static str, directory: &Path, name: &str) -> Result<Self, LockError> {
        let path = directory.join(name);
        refuse_special(&path)?;
        let mut file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(FileError::at("open", &path))?;
        match lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let (directory, pid) = (directory.to_owned(), pid(&file));
                return Err(LockError::Held { what, directory, pid });
            }
            Err(TryLockError::Error(error)) => {
                return Err(FileError::at("lock", &path)(error).into());
            }
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            write!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(FileError::at("write", &path))?;
        Ok(Self { _file: file })
    }
}

/// Takes the lock. A command line that looks whether a daemon runs holds it for microseconds, so a
/// busy one is tried a few times.
fn lock(file: &File) -> Result<(), TryLockError> {
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            outcome => return outcome,
        }
    }
    file.try_lock()
}

/// The process id that the holder wrote.
fn pid(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
