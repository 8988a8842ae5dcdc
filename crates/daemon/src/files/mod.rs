//! Files in the data directory that other programs read, and the lock that keeps it for one daemon.

mod lock;
mod port;
mod token;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
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

/// Makes a directory and its parents for their owner only. One that is there already must not be
/// writable by others, who could put their own files in the place of the daemon's.
pub(crate) fn private_directory(path: &Path) -> Result<(), FileError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(FileError::at("create directory", path))?;
    let metadata = fs::metadata(path).map_err(FileError::at("look at", path))?;
    if open_to_others(&metadata, 0o022) {
        let text = "other users may write to it (chmod go-w makes it private)";
        let error = io::Error::new(io::ErrorKind::PermissionDenied, text);
        return Err(FileError::at("use directory", path)(error));
    }
    Ok(())
}

/// Refuses what is there but no regular file: opening a pipe would wait for its other end, and
/// writing through a link would change its target.
fn refuse_special(path: &Path) -> Result<(), FileError> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
            Err(FileError::at("use", path)(error))
        }
        _ => Ok(()),
    }
}

/// Whether any of these permissions is given.
#[cfg(unix)]
fn open_to_others(metadata: &fs::Metadata, permissions: u32) -> bool {
    std::os::unix::fs::MetadataExt::mode(metadata) & permissions != 0
}

#[cfg(not(unix))]
const fn open_to_others(_: &fs::Metadata, _: u32) -> bool {
    // The user's profile directory is private already.
    false
}

/// Writes a whole file: readers see the old one or the new one. `private` ones are 0600 from the
/// first byte on, and on disk before this returns.
fn write_atomically(path: &Path, text: &str, private: bool) -> Result<(), FileError> {
    use std::io::Write;

    let mut random = [0; 8];
    getrandom::fill(&mut random)
        .map_err(|error| FileError::at("write", path)(io::Error::other(error)))?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", HEXLOWER.encode(&random)));
    let temporary = PathBuf::from(temporary);
    let mut options = fs::OpenOptions::new();
    // Nothing that is there already is written to or followed.
    options.write(true).create_new(true);
    #[cfg(unix)]
    if private {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    let mut file = options.open(&temporary).map_err(FileError::at("create", &temporary))?;
    let mut write = || -> io::Result<()> {
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
