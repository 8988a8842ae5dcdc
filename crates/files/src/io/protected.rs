//! Files that are never sent: whoever talks an agent into sending a file must not get its keys.

use std::{
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
};

const OWN: &str = "it belongs to the keys, the state or the settings of an agent";
const CHANGED: &str = "another file was put in its place";
#[cfg(unix)]
const SYSTEM: &str = "it is no content but a view into the system";

/// Where the system shows itself as files, some of which hold secrets of processes.
#[cfg(unix)]
const SYSTEM_FOLDERS: [&str; 3] = ["/proc", "/sys", "/dev"];
/// Most files of the protected folders that a file with several names is held against.
#[cfg(unix)]
const MAX_COMPARED: usize = 4096;
/// How deep below a protected folder they are looked for.
#[cfg(unix)]
const MAX_DEPTH: usize = 3;

/// Files and folders of which nothing is sent.
#[derive(Debug, Clone, Default)]
pub(super) struct Protected {
    paths: Vec<PathBuf>,
    /// Names of files that make a folder one of them.
    markers: Vec<&'static str>,
    /// Below one of them, and sent all the same.
    except: Option<PathBuf>,
}

impl Protected {
    pub(super) fn new(paths: impl IntoIterator<Item = PathBuf>, except: PathBuf) -> Self {
        Self { paths: paths.into_iter().collect(), markers: Vec::new(), except: Some(except) }
    }

    pub(super) fn marked_by(&mut self, names: impl IntoIterator<Item = &'static str>) {
        self.markers.extend(names);
    }

    /// How deep the nearest folder with a marker is that a file is in.
    fn marked_depth(&self, place: &Path) -> Option<usize> {
        let is_marked = |folder: &Path| self.markers.iter().any(|name| folder.join(name).is_file());
        let folder = place.ancestors().skip(1).find(|folder| is_marked(folder))?;
        Some(folder.components().count())
    }

    /// Looks at a file that is open: at where it really is, whatever links lead there, and at what other
    /// names it has. `Ok(Err(..))` says why it is not sent.
    pub(super) fn check(
        &self,
        path: &Path,
        opened: &Metadata,
    ) -> io::Result<Result<(), &'static str>> {
        let place = fs::canonicalize(path)?;
        // What is looked at must be what was opened: folders on the way may have been exchanged since.
        if !is_same(&fs::metadata(&place)?, opened) {
            return Ok(Err(CHANGED));
        }
        #[cfg(unix)]
        if SYSTEM_FOLDERS.iter().any(|folder| place.starts_with(folder)) {
            return Ok(Err(SYSTEM));
        }
        // A folder that is not there, or not to be seen, holds nothing that could be opened.
        let real = |path: &PathBuf| fs::canonicalize(path).ok();
        let depth = |path: PathBuf| place.starts_with(&path).then(|| path.components().count());
        let own = self.paths.iter().filter_map(real).filter_map(depth).max();
        let own = own.max(self.marked_depth(&place));
        let except = self.except.as_ref().and_then(real).and_then(depth);
        // The nearer one counts: whoever receives into the home folder still keeps the keys in it.
        let is_own = own.is_some_and(|own| except.is_none_or(|except| except <= own));
        Ok(if is_own || self.has_name_of_own(opened) { Err(OWN) } else { Ok(()) })
    }

    /// Whether another name of the file is below a protected folder.
    #[cfg(unix)]
    fn has_name_of_own(&self, opened: &Metadata) -> bool {
        use std::os::unix::fs::MetadataExt;

        if opened.nlink() < 2 {
            return false;
        }
        let mut left = MAX_COMPARED;
        let mut real = self.paths.iter().filter_map(|path| fs::canonicalize(path).ok());
        real.any(|path| self.leads_to(&path, opened, MAX_DEPTH, &mut left))
    }

    /// Whether a path is the file, or one of the files below it is. One that is too much to look at might be.
    #[cfg(unix)]
    fn leads_to(&self, path: &Path, opened: &Metadata, depth: usize, left: &mut usize) -> bool {
        let Some(fewer) = left.checked_sub(1) else { return true };
        *left = fewer;
        let Ok(found) = fs::symlink_metadata(path) else { return false };
        if !found.is_dir() {
            return is_same(&found, opened);
        }
        let Some(depth) = depth.checked_sub(1) else { return false };
        let Ok(entries) = fs::read_dir(path) else { return false };
        let own = entries.flatten().map(|entry| entry.path());
        own.filter(|path| self.except.as_ref() != Some(path))
            .any(|path| self.leads_to(&path, opened, depth, left))
    }

    #[cfg(not(unix))]
    const fn has_name_of_own(&self, _: &Metadata) -> bool {
        false
    }
}

#[cfg(unix)]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Whether both have the same size and time: what this platform tells of a file.
#[cfg(not(unix))]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.len(), one.modified().ok()) == (other.len(), other.modified().ok())
}
