//! Key files in a directory.
//!
//! A key file holds the PKCS#8 of a seed, is readable by its owner only, and appears whole or not at
//! all. A file that is there is never replaced: a damaged or exposed one is an error that names it,
//! since a key made in its place would silently be another identity.
//!
//! The calls block on the file system; an async caller runs them on a blocking thread.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::Identity;
use crate::{
    KEM_PKCS8_LEN, KemSecret, KeyError, PKCS8_LEN, SecretKey,
    private_file::{self, FileError},
};

const MACHINE_FILE: &str = "machine.key";
const AGENT_FILE: &str = "agent.key";
const AGENT_KEM_FILE: &str = "agent_kem.key";
const USER_FILE: &str = "user.key";

/// A key could not be loaded or kept. The message names the file, and what to do where that is
/// clear; nothing on disk was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file or its directory cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not a key file, or damaged.
    #[error("{path} is not a valid key file ({source}); restore it from a backup", path = path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
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
        private_file::make_folder(&dir)?;
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
        match private_file::create(&path, &key.encode()) {
            Ok(()) => Ok(key),
            // Another process was faster. Its key counts.
            Err(FileError::Io { action, path, source })
                if source.kind() == ErrorKind::AlreadyExists =>
            {
                self.load(name)?.ok_or_else(|| FileError::Io { action, path, source }.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn load<K: KeyFile>(&self, name: &str) -> Result<Option<K>, StoreError> {
        let path = self.dir.join(name);
        let Some(der) = private_file::read(&path, K::LEN)? else { return Ok(None) };
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
