//! Key files in a directory.
//!
//! A key file holds the PKCS#8 of a seed, is readable by its owner only, and appears whole or not at
//! all. A file that is there is never replaced: a damaged or exposed one is an error that names it,
//! since a key made in its place would silently be another identity.
//!
//! The calls block on the file system; an async caller runs them on a blocking thread.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::Identity;
use crate::{KEM_PKCS8_LEN, KemSecret, KeyError, PKCS8_LEN, SecretKey, random::random};

const MACHINE_FILE: &str = "machine.key";
const AGENT_FILE: &str = "agent.key";
const AGENT_KEM_FILE: &str = "agent_kem.key";
const USER_FILE: &str = "user.key";

/// A key could not be loaded or kept. The message names the file, and what to do where that is
/// clear; nothing on disk was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Users other than the owner may read or change it.
    #[error(
        "{path} is accessible to other users (mode {mode:03o}); if nobody else has read it, run: \
         chmod {fix:o} {path}",
        path = path.display()
    )]
    Exposed {
        /// Which file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they should be.
        fix: u32,
    },
    /// Not a key file, or damaged.
    #[error("{path} is not a valid key file ({source}); restore it from a backup", path = path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
    /// A directory, socket or the like stands where a key file should be.
    #[error("{path} is not a regular file", path = path.display())]
    NotAFile {
        /// What stands there.
        path: PathBuf,
    },
}

/// A directory of key files: `machine.key`, `agent.key`, `agent_kem.key` and, if there is a user,
/// `user.key`.
#[derive(Debug, Clone)]
pub struct IdentityStore {
    dir: PathBuf,
}

impl IdentityStore {
    /// Opens the directory, making it for its owner only when it is missing.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be made, or when other users may write to it.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let dir = dir.into();
        make_dir(&dir).map_err(|source| StoreError::Io { path: dir.clone(), source })?;
        check_dir(&dir)?;
        Ok(Self { dir })
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Loads the keys, making the machine's and the agent's where they are missing. The user's key is
    /// loaded but never made.
    ///
    /// # Errors
    /// [`StoreError`] naming the first file that cannot be used.
    pub fn load_or_create(&self) -> Result<Identity, StoreError> {
        Ok(Identity {
            machine: self.ensure::<SecretKey>(MACHINE_FILE)?,
            agent: self.ensure::<SecretKey>(AGENT_FILE)?,
            agent_kem: self.ensure::<KemSecret>(AGENT_KEM_FILE)?,
            user: self.load::<SecretKey>(USER_FILE)?,
        })
    }

    fn ensure<K: KeyFile>(&self, name: &str) -> Result<K, StoreError> {
        if let Some(key) = self.load(name)? {
            return Ok(key);
        }
        let key = K::make();
        let path = self.dir.join(name);
        match create_file(&self.dir, name, &key.encode()) {
            Ok(()) => Ok(key),
            // Another process was faster. Its key counts.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                self.load(name)?.ok_or(StoreError::Io { path, source: error })
            }
            Err(source) => Err(StoreError::Io { path, source }),
        }
    }

    fn load<K: KeyFile>(&self, name: &str) -> Result<Option<K>, StoreError> {
        let path = self.dir.join(name);
        let Some(der) = read_file(&path, K::LEN)? else { return Ok(None) };
        K::decode(&der).map(Some).map_err(|source| StoreError::Corrupt { path, source })
    }
}

/// A key with a PKCS#8 form of fixed length.
trait KeyFile: Sized {
    const LEN: usize;
    fn make() -> Self;
    fn decode(der: &[u8]) -> Result<Self, KeyError>;
    fn encode(&self) -> Zeroizing<Vec<u8>>;
}

impl KeyFile for SecretKey {
    const LEN: usize = PKCS8_LEN;

    fn make() -> Self {
        Self::generate()
    }

    fn decode(der: &[u8]) -> Result<Self, KeyError> {
        Self::from_pkcs8(der)
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        self.to_pkcs8()
    }
}

impl KeyFile for KemSecret {
    const LEN: usize = KEM_PKCS8_LEN;

    fn make() -> Self {
        Self::generate()
    }

    fn decode(der: &[u8]) -> Result<Self, KeyError> {
        Self::from_pkcs8(der)
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        self.to_pkcs8()
    }
}

/// The contents of a key file, or of its first bytes when it is longer than `len`; `None` when there
/// is no such file.
fn read_file(path: &Path, len: usize) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    let io_error = |source| StoreError::Io { path: path.to_owned(), source };
    // Looked at before it is opened, since opening a named pipe would wait.
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(StoreError::NotAFile { path: path.to_owned() }),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(error)),
    }
    let file = File::open(path).map_err(io_error)?;
    check_mode(path, &file.metadata().map_err(io_error)?, 0o077, 0o600)?;
    // One byte more than expected is enough to see that the length is wrong.
    let limit = len + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit));
    file.take(limit as u64).read_to_end(&mut bytes).map_err(io_error)?;
    Ok(Some(bytes))
}

/// Makes a file that is not there yet, whole and durable or not at all.
fn create_file(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let suffix = u64::from_be_bytes(*random());
    let temporary = dir.join(format!(".{name}.{suffix:016x}.tmp"));
    let result = write_new(&temporary, bytes).and_then(|()| publish(&temporary, &dir.join(name)));
    // Gone already after a rename; otherwise a link to the published file, or debris.
    let _ = fs::remove_file(&temporary);
    result?;
    sync_dir(dir)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Gives a complete file its name. A link, unlike a rename, fails when the name is taken, so that of
/// two processes only one wins; a rename serves file systems without links.
fn publish(temporary: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(temporary, path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            if path.try_exists()? {
                return Err(ErrorKind::AlreadyExists.into());
            }
            fs::rename(temporary, path)
        }
        result => result,
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.try_exists()? {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => Ok(()),
    }
}

/// Whoever can write to the directory can put another key in place; reading its list of names does
/// no harm.
fn check_dir(dir: &Path) -> Result<(), StoreError> {
    let metadata =
        fs::metadata(dir).map_err(|source| StoreError::Io { path: dir.to_owned(), source })?;
    if !metadata.is_dir() {
        let source = ErrorKind::NotADirectory.into();
        return Err(StoreError::Io { path: dir.to_owned(), source });
    }
    check_mode(dir, &metadata, 0o022, 0o700)
}

#[cfg(unix)]
fn check_mode(
    path: &Path,
    metadata: &fs::Metadata,
    forbidden: u32,
    fix: u32,
) -> Result<(), StoreError> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
    if mode & forbidden == 0 {
        return Ok(());
    }
    Err(StoreError::Exposed { path: path.to_owned(), mode, fix })
}

/// Permissions are the business of the profile directory here.
#[cfg(not(unix))]
fn check_mode(_: &Path, _: &fs::Metadata, _: u32, _: u32) -> Result<(), StoreError> {
    Ok(())
}

#[cfg(unix)]
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Directories cannot be synced here; the file system journals names itself.
#[cfg(not(unix))]
fn sync_dir(_: &Path) -> io::Result<()> {
    Ok(())
}
