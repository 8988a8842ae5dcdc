//! Files in the data directory that other programs read, and the lock that keeps it for one daemon.

mod lock;
mod port;
mod token;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub(crate) use lock::InstanceLock;
pub use lock::LockError;
pub(crate) use port::{PORT_FILE, PortFile};
pub use token::ApiToken;

/// A file or directory of the daemon cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}")]
pub struct FileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { action, path, source }
    }
}

/// Makes a directory and its parents; a new one is for its owner only.
pub(crate) fn private_directory(path: &Path) -> Result<(), FileError> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(FileError::at("create directory", path))?;
    restrict(path, 0o700).map_err(FileError::at("restrict access to", path))
}

#[cfg(unix)]
fn restrict(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature on every platform")]
fn restrict(_: &Path, _: u32) -> io::Result<()> {
    // The user's profile directory is private already.
    Ok(())
}

/// Writes a whole file: readers see the old one or the new one. `private` ones are 0600 from the
/// first byte on, and on disk before this returns.
fn write_atomically(path: &Path, text: &str, private: bool) -> Result<(), FileError> {
    use std::io::Write;

    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let write = || -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        if private {
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
        let mut file = options.open(&temporary)?;
        if private {
            restrict(&temporary, 0o600)?;
        }
        file.write_all(text.as_bytes())?;
        if private {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        // The failure that matters is the first one.
        let _ = fs::remove_file(&temporary);
        FileError::at("write", path)(error)
    })
}

#[cfg(test)]
mod tests;
