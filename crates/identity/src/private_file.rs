//! Files that only their owner may read: keys, tokens, state. One writer for all of them.
//!
//! A file appears whole or not at all, is 0600 from its first byte, and is on disk with its name
//! before a call returns ([`Access`] makes the one exception). Writing follows no link, and reading waits for no pipe. Folders are made
//! 0700; one that others may write to is refused, since they could put a file of their own in the
//! place of any in it.
//!
//! The calls block on the file system; an async caller runs them on a blocking thread. On systems
//! without Unix permissions, the user's profile folder is what keeps others out.
//!
//! ```
//! use x0x_identity::private_file;
//!
//! let folder = std::env::temp_dir().join(format!("x0x-doc-{}", std::process::id()));
//! private_file::make_folder(&folder)?;
//! let path = folder.join("state");
//! private_file::replace(&path, b"one", private_file::Access::Owner)?;
//! private_file::replace(&path, b"two", private_file::Access::Owner)?;
//! assert_eq!(private_file::read(&path, 100)?.as_deref().map(Vec::as_slice), Some(&b"two"[..]));
//! # std::fs::remove_dir_all(folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::random::random;

/// A file or folder cannot be used; the message names it, and what to do where that is clear.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Users other than the owner may read or change it.
    #[error(
        "{path} is accessible to other users (mode {mode:03o}); if nobody else has used it, run: \
         chmod {fix:o} {path}",
        path = path.display()
    )]
    Exposed {
        /// Which file or folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they should be.
        fix: u32,
    },
    /// A folder, link, pipe or the like stands where a file should be.
    #[error("{path} is not a regular file", path = path.display())]
    NotAFile {
        /// What stands there.
        path: PathBuf,
    },
}

impl FileError {
    /// For `map_err`: what was tried, and with what.
    pub fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// Who may read a file that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Its owner only.
    Owner,
    /// Whom the process's file mode mask lets: for what is no secret and is written at every start,
    /// so that it need not survive a crash of the system and nothing waits for the disk.
    Anybody,
}

/// Makes a folder and its parents for their owner only. One that is there already must not be
/// writable by others; reading its list of names does no harm.
///
/// # Errors
/// [`FileError`].
pub fn make_folder(path: &Path) -> Result<(), FileError> {
    let error = |source| FileError::at("make folder", path)(source);
    if !path.try_exists().map_err(error)? {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path).map_err(error)?;
        sync_folder(parent(path)).map_err(error)?;
    }
    let metadata = fs::metadata(path).map_err(FileError::at("look at", path))?;
    if !metadata.is_dir() {
        return Err(FileError::at("use folder", path)(ErrorKind::NotADirectory.into()));
    }
    check_mode(path, &metadata, 0o022, 0o700)
}

/// Refuses what is there but no regular file, links included: for files that are no one else's to
/// place, and before a file is opened for writing.
///
/// # Errors
/// [`FileError::NotAFile`].
pub fn refuse_special(path: &Path) -> Result<(), FileError> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => Err(FileError::NotAFile { path: path.to_owned() }),
        _ => Ok(()),
    }
}

/// The contents of a file, or its first bytes when it is longer than `max`: one more than that, so
/// that the length shows. `None` when there is no such file.
///
/// # Errors
/// [`FileError`]; [`FileError::Exposed`] when others may read or change it.
pub fn read(path: &Path, max: usize) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
    let error = |source| FileError::at("read", path)(source);
    // Looked at before it is opened, since opening a named pipe would wait.
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(FileError::NotAFile { path: path.to_owned() }),
        Err(problem) if problem.kind() == ErrorKind::NotFound => return Ok(None),
        Err(problem) => return Err(error(problem)),
    }
    let file = File::open(path).map_err(error)?;
    check_mode(path, &file.metadata().map_err(error)?, 0o077, 0o600)?;
    let limit = max.saturating_add(1);
    // Of this size from the start where it is small, so that no copy of a secret is left behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit.min(64 * 1024)));
    file.take(limit as u64).read_to_end(&mut bytes).map_err(error)?;
    Ok(Some(bytes))
}

/// Makes a file that is not there yet, whole and durable or not at all.
///
/// # Errors
/// [`FileError::Io`] with [`ErrorKind::AlreadyExists`] when the name is taken: whoever took it was
/// faster, and its file is left as it is.
pub fn create(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    put(path, bytes, Access::Owner, take_name).map_err(FileError::at("create", path))
}

/// Writes a whole file: readers see the old one or the new one, also after a crash.
///
/// # Errors
/// [`FileError`]; the old file is still there then.
pub fn replace(path: &Path, bytes: &[u8], access: Access) -> Result<(), FileError> {
    put(path, bytes, access, |temporary, path| fs::rename(temporary, path))
        .map_err(FileError::at("write", path))
}

fn put(
    path: &Path,
    bytes: &[u8],
    access: Access,
    publish: impl FnOnce(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
    let suffix = u64::from_be_bytes(*random());
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{suffix:016x}.tmp"));
    let temporary = path.with_file_name(temporary);
    let result = write_new(&temporary, bytes, access).and_then(|()| publish(&temporary, path));
    // Gone already after a rename; otherwise a link to the published file, or debris.
    let _ = fs::remove_file(&temporary);
    result?;
    match access {
        Access::Owner => sync_folder(parent(path)),
        Access::Anybody => Ok(()),
    }
}

fn write_new(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let mut options = OpenOptions::new();
    // Nothing that is there already is written to or followed.
    options.write(true).create_new(true);
    #[cfg(unix)]
    if access == Access::Owner {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    match access {
        Access::Owner => file.sync_all(),
        Access::Anybody => Ok(()),
    }
}

/// Gives a complete file its name. A link, unlike a rename, fails when the name is taken, so that of
/// two processes only one wins; a rename serves file systems without links.
fn take_name(temporary: &Path, path: &Path) -> io::Result<()> {
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

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(unix)]
fn check_mode(path: &Path, metadata: &Metadata, forbidden: u32, fix: u32) -> Result<(), FileError> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
    if mode & forbidden == 0 {
        return Ok(());
    }
    Err(FileError::Exposed { path: path.to_owned(), mode, fix })
}

/// Permissions are the business of the profile folder here.
#[cfg(not(unix))]
fn check_mode(_: &Path, _: &Metadata, _: u32, _: u32) -> Result<(), FileError> {
    Ok(())
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Folders cannot be synced here; the file system journals names itself.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("exists").permissions().mode() & 0o777
    }

    #[test]
    fn files_are_replaced_whole_and_created_once() {
        let temp = tempfile::tempdir().expect("temp dir");
        let folder = temp.path().join("a/b");
        make_folder(&folder).expect("made");
        make_folder(&folder).expect("there");
        assert_eq!((mode(&folder), mode(&temp.path().join("a"))), (0o700, 0o700));
        let path = folder.join("secret");
        assert!(read(&path, 10).expect("no file").is_none());
        replace(&path, b"one", Access::Owner).expect("written");
        replace(&path, b"second", Access::Owner).expect("written");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(**read(&path, 3).expect("read").as_ref().expect("there"), *b"seco");
        let error = create(&path, b"third").expect_err("the name is taken");
        let FileError::Io { source, .. } = &error else { panic!("unexpected {error}") };
        assert_eq!(source.kind(), ErrorKind::AlreadyExists);
        create(&folder.join("other"), b"x").expect("free");
        assert_eq!(mode(&folder.join("other")), 0o600);
        replace(&folder.join("public"), b"x", Access::Anybody).expect("written");
        assert_eq!(fs::read_dir(&folder).expect("there").count(), 3, "no temporary file stays");
    }

    #[test]
    fn what_others_may_touch_is_refused() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("secret");
        replace(&path, b"one", Access::Owner).expect("written");
        for exposed in [0o640, 0o620, 0o604] {
            fs::set_permissions(&path, fs::Permissions::from_mode(exposed)).expect("own file");
            assert!(matches!(read(&path, 10), Err(FileError::Exposed { fix: 0o600, .. })));
        }
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o720)).expect("own folder");
        let error = make_folder(temp.path()).expect_err("others may write");
        assert!(error.to_string().contains("chmod 700"), "{error}");
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).expect("own folder");
        make_folder(temp.path()).expect("others may list");
    }

    #[test]
    fn writing_follows_no_link() {
        let temp = tempfile::tempdir().expect("temp dir");
        let (victim, link) = (temp.path().join("victim"), temp.path().join("link"));
        replace(&victim, b"keep", Access::Owner).expect("written");
        std::os::unix::fs::symlink(&victim, &link).expect("linked");
        assert!(matches!(refuse_special(&link), Err(FileError::NotAFile { .. })));
        assert!(read(&link, 10).expect("a link may be read").is_some());
        assert!(create(&link, b"x").is_err());
        replace(&link, b"new", Access::Owner).expect("the link itself is replaced");
        assert_eq!(fs::read(&victim).expect("there"), b"keep");
        assert!(matches!(read(temp.path(), 10), Err(FileError::NotAFile { .. })));
    }
}
