//! Which instances this user has, by the files they leave.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use x0x_api::instance::{LOCK_FILE, PORT_FILE, name_of_folder};

use crate::config::Paths;

/// How long a running daemon takes to accept a connection at most.
const PROBE_TIME: Duration = Duration::from_millis(500);

/// An instance that left an `api.port` file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Instance {
    /// Its name; `default` for the unnamed one.
    pub name: String,
    /// Where its API listened.
    pub api_address: SocketAddr,
    /// Whether it still does.
    pub state: InstanceState,
}

/// What became of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstanceState {
    /// It runs, and takes connections.
    Running,
    /// It runs, and takes none now.
    Busy,
    /// It was killed: whoever listens there now is not the daemon.
    Stale,
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Busy => "busy",
            Self::Stale => "stale",
        })
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<24} {:<24} {}", self.name, self.api_address.to_string(), self.state)
    }
}

/// The instances, by name.
#[must_use]
pub fn list(paths: &Paths) -> Vec<Instance> {
    let Ok(entries) = fs::read_dir(paths.data_base()) else { return Vec::new() };
    let mut found: Vec<_> = entries.filter_map(|entry| instance(&entry.ok()?.path())).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn instance(directory: &Path) -> Option<Instance> {
    let name = name_of_folder(directory.file_name()?.to_str()?)?.unwrap_or("default");
    let api_address = fs::read_to_string(directory.join(PORT_FILE)).ok()?.trim().parse().ok()?;
    let state = if !is_locked(&directory.join(LOCK_FILE)) {
        InstanceState::Stale
    } else if TcpStream::connect_timeout(&api_address, PROBE_TIME).is_ok() {
        InstanceState::Running
    } else {
        InstanceState::Busy
    };
    Some(Instance { name: name.to_owned(), api_address, state })
}

/// Whether a daemon holds the lock, which goes with its process. A shared one is tried, so that two who
/// look at once do not take each other for a daemon.
fn is_locked(path: &Path) -> bool {
    let lock = File::open(path).map(|file| file.try_lock_shared());
    matches!(lock, Ok(Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_found_by_their_port_files() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let paths = Paths::below(directory.path());
        assert!(list(&paths).is_empty());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let running = listener.local_addr().expect("bound").to_string();
        let taken = running.as_str();
        let mut locks = Vec::new();
        for (folder, text, is_held) in [
            ("x0x", taken, true),
            ("x0x-busy", "127.0.0.1:1", true),
            ("x0x-killed", taken, false),
            ("x0x-gone", "127.0.0.1:1", false),
            ("x0x-odd", "?", true),
            ("y", "", true),
        ] {
            let folder = paths.data_base().join(folder);
            fs::create_dir_all(&folder).expect("made");
            fs::write(folder.join(PORT_FILE), text).expect("written");
            let lock = File::create(folder.join(LOCK_FILE)).expect("made");
            if is_held {
                lock.lock().expect("locked");
            }
            locks.push(lock);
        }
        let found: Vec<_> =
            list(&paths).into_iter().map(|found| (found.name, found.state)).collect();
        let expected = [
            ("busy", InstanceState::Busy),
            ("default", InstanceState::Running),
            ("gone", InstanceState::Stale),
            ("killed", InstanceState::Stale),
        ];
        assert_eq!(found, expected.map(|(name, state)| (name.to_owned(), state)));
    }
}
