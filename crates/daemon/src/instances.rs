//! Which instances this user has, by the files they leave.

use std::{
    fmt, fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use x0x_api::instance::{PORT_FILE, name_of_folder};

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
    pub running: bool,
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.running { "running" } else { "stale" };
        write!(f, "{:<24} {:<24} {state}", self.name, self.api_address.to_string())
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
    let running = TcpStream::connect_timeout(&api_address, PROBE_TIME).is_ok();
    Some(Instance { name: name.to_owned(), api_address, running })
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
        for (folder, text) in
            [("x0x", running.as_str()), ("x0x-gone", "127.0.0.1:1"), ("x0x-odd", "?"), ("y", "")]
        {
            let folder = paths.data_base().join(folder);
            fs::create_dir_all(&folder).expect("made");
            fs::write(folder.join(PORT_FILE), text).expect("written");
        }
        let found: Vec<_> =
            list(&paths).into_iter().map(|found| (found.name, found.running)).collect();
        assert_eq!(found, [("default".to_owned(), true), ("gone".to_owned(), false)]);
    }
}
