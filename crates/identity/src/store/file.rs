//! Key files in a directory.
//!
//! A key file holds the PKCS#8 of a seed, is readable by its owner only, and appears whole or not at
//! all. A file that is there is never replaced: a damaged or exposed one is an error that names it,
//! since a key made in its place would silently be another identity. Only an import that was asked to
//! replaces the agent's files, and it keeps copies of the old ones.
//!
//! The calls block on the file system; an async caller runs them on a blocking thread.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use x0x_core::WallTime;
use zeroize::Zeroizing;

use super::Identity;
use crate::{
    AcceptedCertificate, AgentKeys, CERTIFICATE_VALIDITY, KEM_PKCS8_LEN, KemSecret, KeyError,
    MAX_ACCEPTED_CERTIFICATE, PKCS8_LEN, SecretKey, SignedCertificate,
    private_file::{self, Access, FileError},
};

/// Name of the file with a machine's key.
pub const MACHINE_FILE: &str = "machine.key";
const AGENT_FILE: &str = "agent.key";
const AGENT_KEM_FILE: &str = "agent_kem.key";
const USER_FILE: &str = "user.key";
const CERTIFICATE_FILE: &str = "agent.cert";
const GENERATION_FILE: &str = "agent.generation";
/// Bytes of a generation in decimal, with a line end.
const GENERATION_LEN: usize = 21;

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
    /// A file beside the keys is damaged.
    #[error("{path} is damaged; {advice}", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What to do.
        advice: &'static str,
    },
    /// The configuration names a user key that is not there. It is never made without being asked for.
    #[error("there is no user key at {path}; make one with: x0x user-id create", path = path.display())]
    NoUserKey {
        /// Where it should be.
        path: PathBuf,
    },
    /// There is a key already, which is not replaced.
    #[error("there is a key at {path} already", path = path.display())]
    Exists {
        /// Where.
        path: PathBuf,
    },
}

/// Whether an import may replace the agent that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Replace {
    /// No: it fails if there is one.
    Never,
    /// Yes. Its key files are kept beside the new ones, with its short id in their names.
    KeepCopy,
}

/// A directory of key files: `machine.key`, `agent.key`, `agent_kem.key` and, if there is a user,
/// `user.key` and `agent.cert`; `agent.generation` where the agent was moved here.
#[derive(Debug, Clone)]
pub struct IdentityStore {
    dir: PathBuf,
    user_key: Option<PathBuf>,
}

impl IdentityStore {
    /// Opens the directory, making it for its owner only when it is missing.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be made, or when other users may write to it.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let dir = dir.into();
        private_file::make_folder(&dir)?;
        Ok(Self { dir, user_key: None })
    }

    /// Takes the user's key from another place. It must be there then.
    #[must_use]
    pub fn with_user_key(mut self, path: impl Into<PathBuf>) -> Self {
        self.user_key = Some(path.into());
        self
    }

    /// Whether there is an agent's key.
    #[must_use]
    pub fn has_agent(&self) -> bool {
        self.dir.join(AGENT_FILE).symlink_metadata().is_ok()
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the user's key is, or would be.
    #[must_use]
    pub fn user_key_path(&self) -> PathBuf {
        self.user_key.clone().unwrap_or_else(|| self.dir.join(USER_FILE))
    }

    /// Loads the keys, making the machine's and the agent's where they are missing. The user's key is
    /// loaded but never made.
    ///
    /// # Errors
    /// [`StoreError`] naming the first file that cannot be used.
    pub fn load_or_create(&self) -> Result<Identity, StoreError> {
        let machine = self.ensure::<SecretKey>(MACHINE_FILE)?;
        let agent = self.ensure::<SecretKey>(AGENT_FILE)?;
        let user = self.load_path::<SecretKey>(&self.user_key_path())?;
        if let (Some(path), None) = (&self.user_key, &user) {
            return Err(StoreError::NoUserKey { path: path.clone() });
        }
        Ok(Identity {
            certificate: self.load_certificate(&agent)?,
            machine,
            agent,
            agent_kem: self.ensure::<KemSecret>(AGENT_KEM_FILE)?,
            user,
            generation: self.load_generation()?,
        })
    }

    /// Makes the user's key, at [`user_key_path`](Self::user_key_path).
    ///
    /// # Errors
    /// [`StoreError::Exists`] when there is one; it is left as it is.
    pub fn create_user(&self) -> Result<SecretKey, StoreError> {
        let path = self.user_key_path();
        let key = SecretKey::generate();
        match private_file::create(&path, &key.to_pkcs8()) {
            Ok(()) => Ok(key),
            Err(error) if taken(&error) => Err(StoreError::Exists { path }),
            Err(error) => Err(error.into()),
        }
    }

    /// The user's certificate for the agent: the one that is kept, or a new one when there is none,
    /// it is another user's, or [due for renewal](crate::AgentCertificate::renewal_due). Without a
    /// user's key, the one that is kept, whatever its state.
    ///
    /// # Errors
    /// [`StoreError`] when a new one cannot be kept.
    pub fn certify(
        &self,
        identity: &Identity,
        now: WallTime,
    ) -> Result<Option<AcceptedCertificate>, StoreError> {
        let Some(user) = &identity.user else { return Ok(identity.certificate.clone()) };
        if let Some(kept) = &identity.certificate {
            let certificate = kept.certificate().certificate();
            if certificate.user == user.public_key().user_id() && !certificate.renewal_due(now) {
                return Ok(Some(kept.clone()));
            }
        }
        let agent = identity.agent.public_key().agent_id();
        let issued = SignedCertificate::issue(user, agent, now, CERTIFICATE_VALIDITY);
        let accepted = AcceptedCertificate::accept(&identity.agent, issued);
        if let Some(accepted) = &accepted {
            let path = self.dir.join(CERTIFICATE_FILE);
            private_file::replace(&path, &accepted.encode(), Access::Owner)?;
        }
        Ok(accepted)
    }

    /// Makes the agent of an export that of this installation, as one that was moved here at `now`.
    /// The machine's key stays. What runs must be stopped first: it would go on as the old agent.
    ///
    /// The agent's key is written last, so a crash before leaves the old agent in place.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when there is another agent and `replace` forbids it.
    pub fn import_agent(
        &self,
        keys: &AgentKeys,
        now: WallTime,
        replace: Replace,
    ) -> Result<(), StoreError> {
        let path = self.dir.join(AGENT_FILE);
        if let Some(old) = self.load::<SecretKey>(AGENT_FILE)? {
            if replace == Replace::Never {
                return Err(StoreError::Exists { path });
            }
            let suffix = old.public_key().agent_id().short();
            for name in [AGENT_FILE, AGENT_KEM_FILE, CERTIFICATE_FILE, GENERATION_FILE] {
                self.keep_copy(name, &suffix)?;
            }
        }
        let generation = now.as_millis().max(keys.generation.saturating_add(1));
        let write = |name: &str, bytes: &[u8]| {
            private_file::replace(&self.dir.join(name), bytes, Access::Owner)
        };
        let certificate = keys.certificate.as_ref().map(AcceptedCertificate::encode);
        write(CERTIFICATE_FILE, &certificate.unwrap_or_default())?;
        write(GENERATION_FILE, format!("{generation}\n").as_bytes())?;
        write(AGENT_KEM_FILE, &keys.kem.to_pkcs8())?;
        Ok(write(AGENT_FILE, &keys.agent.to_pkcs8())?)
    }

    fn keep_copy(&self, name: &str, suffix: &str) -> Result<(), StoreError> {
        let Some(bytes) = private_file::read(&self.dir.join(name), MAX_ACCEPTED_CERTIFICATE)?
        else {
            return Ok(());
        };
        match private_file::create(&self.dir.join(format!("{name}.{suffix}")), &bytes) {
            // Kept by an earlier import.
            Err(error) if taken(&error) => Ok(()),
            result => Ok(result?),
        }
    }

    /// What was certified, if it is for this agent: an import that crashed leaves the one of another.
    fn load_certificate(
        &self,
        agent: &SecretKey,
    ) -> Result<Option<AcceptedCertificate>, StoreError> {
        let path = self.dir.join(CERTIFICATE_FILE);
        let bytes = private_file::read(&path, MAX_ACCEPTED_CERTIFICATE)?;
        let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else { return Ok(None) };
        let advice = "remove it, and the user certifies the agent again";
        let damaged = || StoreError::Damaged { path: path.clone(), advice };
        let read = AcceptedCertificate::decode(&bytes).map_err(|_| damaged())?;
        if read.claimed().agent != agent.public_key().agent_id() {
            return Ok(None);
        }
        read.verify().map(Some).map_err(|_| damaged())
    }

    fn load_generation(&self) -> Result<u64, StoreError> {
        let path = self.dir.join(GENERATION_FILE);
        let Some(bytes) = private_file::read(&path, GENERATION_LEN)? else { return Ok(0) };
        let text = std::str::from_utf8(&bytes).ok().and_then(|text| text.strip_suffix('\n'));
        let advice = "import the agent again";
        text.and_then(|text| text.parse().ok()).ok_or(StoreError::Damaged { path, advice })
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
            Err(error) if taken(&error) => self.load(name)?.ok_or_else(|| error.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn load<K: KeyFile>(&self, name: &str) -> Result<Option<K>, StoreError> {
        self.load_path(&self.dir.join(name))
    }

    fn load_path<K: KeyFile>(&self, path: &Path) -> Result<Option<K>, StoreError> {
        let Some(der) = private_file::read(path, K::LEN)? else { return Ok(None) };
        let corrupt = |source| StoreError::Corrupt { path: path.to_owned(), source };
        K::decode(&der).map(Some).map_err(corrupt)
    }
}

/// Whether a file was not created because its name is taken.
fn taken(error: &FileError) -> bool {
    matches!(error, FileError::Io { source, .. } if source.kind() == ErrorKind::AlreadyExists)
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
