//! The file itself: made privately, and set aside when it is damaged.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use crate::{config::MAX_DAMAGED_FILES, schema::APPLICATION_ID};

/// Bytes of SQLite's file header (<https://www.sqlite.org/fileformat.html>, section 1.3).
const HEADER_BYTES: usize = 100;

/// What a database begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Where the header holds the application's id.
const APPLICATION_ID_AT: usize = 68;

/// Files that SQLite keeps beside the database, by what their names add to it.
const COMPANIONS: [&str; 3] = ["-wal", "-journal", "-shm"];

/// Makes the file and the directories above it unless they exist; what others could read is made
/// private.
pub(crate) fn prepare(path: &Path) -> io::Result<()> {
    if let Some(dir) = path.parent()
        && !dir.as_os_str().is_empty()
        && !dir.try_exists()?
    {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(dir)?;
    }
    match fs::metadata(path) {
        // Looked at before it is opened, since opening a named pipe would wait.
        Ok(metadata) if !metadata.is_file() => Err(ErrorKind::InvalidInput.into()),
        Ok(metadata) => make_private(path, &metadata),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            options.open(path).map(drop)
        }
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn make_private(path: &Path, metadata: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    if metadata.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn make_private(_: &Path, _: &fs::Metadata) -> io::Result<()> {
    Ok(())
}

/// Whether a file that SQLite cannot read was a database of ours: its header still names us, or is
/// zeroed or cut short as a failing disk does. Anything else belongs to somebody.
pub(crate) fn was_ours(path: &Path) -> io::Result<bool> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    File::open(path)?.take(HEADER_BYTES as u64).read_to_end(&mut header)?;
    let id = header.get(APPLICATION_ID_AT..APPLICATION_ID_AT + 4);
    let named = id.map_or(header.starts_with(MAGIC), |id| id == APPLICATION_ID.to_be_bytes());
    Ok(named || header.iter().all(|byte| *byte == 0))
}

/// Renames a damaged database to the next free `<name>.corrupt-<n>`, its journal with it, and
/// deletes the oldest of those beyond [`MAX_DAMAGED_FILES`].
pub(crate) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let mut numbers = damaged(path)?;
    let next = numbers.last().map_or(1, |last| last + 1);
    let aside = damaged_name(path, next);
    // The journal first: without its database it is never applied to the new one.
    for companion in COMPANIONS {
        match fs::rename(with_suffix(path, companion), with_suffix(&aside, companion)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, &aside)?;
    numbers.push(next);
    let surplus = numbers.len().saturating_sub(MAX_DAMAGED_FILES);
    for number in &numbers[..surplus] {
        let oldest = damaged_name(path, *number);
        tracing::warn!(path = %oldest.display(), "deleting the oldest damaged database");
        let _ = fs::remove_file(&oldest);
        for companion in COMPANIONS {
            let _ = fs::remove_file(with_suffix(&oldest, companion));
        }
    }
    Ok(aside)
}

/// The damaged file in whose place a new database did not come yet: the last one, when there is no database.
pub(crate) fn replaced(path: &Path) -> io::Result<Option<PathBuf>> {
    if path.try_exists()? || path.parent().is_some_and(|dir| !dir.exists()) {
        return Ok(None);
    }
    Ok(damaged(path)?.last().map(|number| damaged_name(path, *number)))
}

/// Where a database is made that is to come in the place of a damaged one, cleared of an earlier attempt.
pub(crate) fn unfinished(path: &Path) -> io::Result<PathBuf> {
    let unfinished = with_suffix(path, ".new");
    for left in [unfinished.clone()].into_iter().chain(companions(&unfinished)) {
        match fs::remove_file(left) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(unfinished)
}

/// The files beside a database that SQLite keeps for it, as far as they exist.
pub(crate) fn companions(path: &Path) -> Vec<PathBuf> {
    let names = COMPANIONS.map(|companion| with_suffix(path, companion));
    names.into_iter().filter(|path| path.exists()).collect()
}

/// The numbers of the damaged files beside a database, in order.
fn damaged(path: &Path) -> io::Result<Vec<u64>> {
    let prefix = path.file_name().unwrap_or_default().to_string_lossy() + ".corrupt-";
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_prefix(&*prefix)?.parse::<u64>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn damaged_name(path: &Path, number: u64) -> PathBuf {
    with_suffix(path, &format!(".corrupt-{number}"))
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
