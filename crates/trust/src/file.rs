//! `contacts.json`: written whole, kept twice, and never believed when it is damaged.
//!
//! The file carries a hash of its content, so that a flipped bit is damage and not another contact. The
//! same bytes are kept in `contacts.json.bak`. A damaged file is set aside under a name of its own and
//! the backup takes its place; what happened is told ([`Loaded`]), since a list that silently became
//! empty would unblock everybody.
//!
//! The calls block on the file system; an async caller runs them on a blocking thread.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use x0x_core::{AgentId, MachineId, UserId, WallTime};
use x0x_identity::{
    Subject,
    private_file::{self, Access, FileError},
};

use crate::{
    contacts::Contact,
    error::OpenError,
    revocations::{RevocationRecord, Revoker},
    state::TrustState,
};

#[cfg(all(test, unix))]
mod tests;

/// Largest file in bytes: every contact and revocation at its largest.
pub const MAX_FILE: usize = 48 * 1024 * 1024;
/// Most damaged files that are kept; the last one is replaced then.
const MAX_DAMAGED: usize = 8;
const VERSION: u32 = 1;
/// What the marker of a loss says to whoever opens it.
const MARKER_TEXT: &[u8] =
    b"The contacts and their backup were damaged, and are beside this file. Whoever was blocked \
    was not any more.\nPut a whole contacts.json back, or block anew; then remove this file.\n";

/// How the contacts were found at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loaded {
    /// There were none yet.
    Fresh,
    /// Whole.
    Whole,
    /// Damaged or gone; the backup is whole, and has taken its place.
    FromBackup {
        /// Where the damaged file is now, if there was one.
        damaged: Option<PathBuf>,
    },
    /// Damaged, and the backup too, now or at an earlier start. The list was empty then, and whoever was blocked was
    /// not any more. That is said at each start until somebody removes the marker.
    Lost {
        /// Where damaged files are now.
        damaged: Vec<PathBuf>,
        /// The file to be removed by whoever has seen to it.
        marker: PathBuf,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    contacts: Vec<Contact>,
    revocations: Vec<FileRevocation>,
    /// SHA-256 of the other fields as compact JSON, in hex.
    sha256: String,
}

#[derive(Serialize)]
struct Content<'a> {
    version: u32,
    contacts: &'a [Contact],
    revocations: &'a [FileRevocation],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Machine,
    Agent,
    User,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRevocation {
    kind: Kind,
    id: AgentId,
    reason: String,
    /// Milliseconds since the Unix epoch.
    timestamp_ms: u64,
    /// Made here, for this installation alone.
    local: bool,
    revoker_id: Option<UserId>,
}

impl From<&RevocationRecord> for Option<FileRevocation> {
    fn from(record: &RevocationRecord) -> Self {
        let kind = match record.subject {
            Subject::Machine(_) => Kind::Machine,
            Subject::Agent(_) => Kind::Agent,
            Subject::User(_) => Kind::User,
            _ => return None,
        };
        Some(FileRevocation {
            kind,
            id: AgentId::new(*record.subject.as_bytes()),
            reason: record.reason.clone(),
            timestamp_ms: record.at.as_millis(),
            local: record.by == Revoker::Local,
            revoker_id: match record.by {
                Revoker::User(user) => Some(user),
                Revoker::Local | Revoker::Itself => None,
            },
        })
    }
}

impl From<FileRevocation> for RevocationRecord {
    fn from(kept: FileRevocation) -> Self {
        let id = *kept.id.as_bytes();
        Self {
            subject: match kept.kind {
                Kind::Machine => Subject::Machine(MachineId::new(id)),
                Kind::Agent => Subject::Agent(AgentId::new(id)),
                Kind::User => Subject::User(UserId::new(id)),
            },
            by: match (kept.local, kept.revoker_id) {
                (true, _) => Revoker::Local,
                (false, Some(user)) => Revoker::User(user),
                (false, None) => Revoker::Itself,
            },
            reason: kept.reason,
            at: WallTime::from_millis(kept.timestamp_ms),
        }
    }
}

/// Where the contacts of an installation are kept.
#[derive(Debug, Clone)]
pub struct ContactsFile {
    path: PathBuf,
    backup: PathBuf,
    marker: PathBuf,
}

impl ContactsFile {
    /// The file at `path`, whose folder is there; the backup is beside it.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let (backup, marker) = (with_suffix(&path, ".bak"), with_suffix(&path, ".lost"));
        Self { path, backup, marker }
    }

    /// Reads the contacts, and repairs what can be repaired.
    ///
    /// # Errors
    /// [`OpenError`] when the disk fails, or when other users may read or change a file.
    pub fn load(&self) -> Result<(TrustState, Loaded), OpenError> {
        let (state, loaded) = self.load_or_repair()?;
        // A loss is not forgotten because something was written since, or the daemon was started once more.
        let was_lost = self.marker.exists();
        Ok((state, if was_lost { self.lost() } else { loaded }))
    }

    fn lost(&self) -> Loaded {
        let damaged = self.damaged_names().filter(|path| path.exists()).collect();
        Loaded::Lost { damaged, marker: self.marker.clone() }
    }

    fn load_or_repair(&self) -> Result<(TrustState, Loaded), OpenError> {
        let main = read(&self.path)?;
        if let Some(Ok(state)) = main {
            return Ok((state, Loaded::Whole));
        }
        let backup = read(&self.backup)?;
        let has_main = main.is_some();
        if !has_main && backup.is_none() {
            return Ok((TrustState::default(), Loaded::Fresh));
        }
        if let Some(Ok(state)) = backup {
            let damaged = has_main.then(|| self.set_aside(&self.path)).transpose()?;
            self.write(&self.path, &state)?;
            return Ok((state, Loaded::FromBackup { damaged }));
        }
        // First, so that a crash between does not make a first start of it.
        private_file::replace(&self.marker, MARKER_TEXT, Access::Owner)?;
        let found = [(has_main, &self.path), (backup.is_some(), &self.backup)];
        for (_, path) in found.into_iter().filter(|(is_there, _)| *is_there) {
            self.set_aside(path)?;
        }
        Ok((TrustState::default(), self.lost()))
    }

    /// Writes the contacts: first the file, then the backup, each whole or not at all.
    ///
    /// # Errors
    /// [`FileError`]. The old file, or the new one, is there then.
    pub fn save(&self, state: &TrustState) -> Result<(), FileError> {
        self.write(&self.path, state)?;
        self.write(&self.backup, state)
    }

    fn write(&self, path: &Path, state: &TrustState) -> Result<(), FileError> {
        let bytes = encode(state)
            .map_err(|error| FileError::at("write", &self.path)(io::Error::other(error)))?;
        private_file::replace(path, &bytes, Access::Owner)
    }

    /// Gives a damaged file a name of its own.
    fn set_aside(&self, path: &Path) -> Result<PathBuf, FileError> {
        let mut names = self.damaged_names();
        let last = self.damaged_name(MAX_DAMAGED);
        let aside = names.find(|path| !path.exists()).unwrap_or(last);
        fs::rename(path, &aside).map_err(FileError::at("set aside", path))?;
        Ok(aside)
    }

    fn damaged_name(&self, n: usize) -> PathBuf {
        with_suffix(&self.path, &format!(".damaged-{n}"))
    }

    fn damaged_names(&self) -> impl Iterator<Item = PathBuf> {
        (1..=MAX_DAMAGED).map(|n| self.damaged_name(n))
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

/// What a file says; `None` when there is none, the inner error when it is damaged.
fn read(path: &Path) -> Result<Option<Result<TrustState, Damaged>>, FileError> {
    let bytes = private_file::read(path, MAX_FILE)?;
    Ok(bytes.map(|bytes| if bytes.len() > MAX_FILE { Err(Damaged) } else { decode(&bytes) }))
}

/// The bytes are not a whole file of contacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a whole file of contacts")]
pub struct Damaged;

/// The bytes of a file.
///
/// # Errors
/// What `serde_json` says, which it has no reason to.
pub fn encode(state: &TrustState) -> Result<Vec<u8>, serde_json::Error> {
    let contacts: Vec<Contact> = state.contacts().cloned().collect();
    let revocations: Vec<_> = state.revocations().filter_map(Into::into).collect();
    let sha256 = digest(&contacts, &revocations)?;
    let document = Document { version: VERSION, contacts, revocations, sha256 };
    let mut bytes = serde_json::to_vec_pretty(&document)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads the bytes of a file.
///
/// # Errors
/// [`Damaged`], whatever is wrong.
pub fn decode(bytes: &[u8]) -> Result<TrustState, Damaged> {
    let document: Document = serde_json::from_slice(bytes).map_err(|_| Damaged)?;
    let expected = digest(&document.contacts, &document.revocations).map_err(|_| Damaged)?;
    if document.version != VERSION || document.sha256 != expected {
        return Err(Damaged);
    }
    let revocations = document.revocations.into_iter().map(Into::into).collect();
    Ok(TrustState::restore(document.contacts, revocations))
}

fn digest(
    contacts: &[Contact],
    revocations: &[FileRevocation],
) -> Result<String, serde_json::Error> {
    let content = serde_json::to_vec(&Content { version: VERSION, contacts, revocations })?;
    Ok(data_encoding::HEXLOWER.encode(&Sha256::digest(content)))
}
