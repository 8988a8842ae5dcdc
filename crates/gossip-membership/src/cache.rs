//! Peers remembered between runs, so that a node finds its way back with no bootstrap address.
//!
//! A JSON file of at most [`MAX_PEERS`] peers that had a session, newest first. It is written beside
//! itself and renamed, so that it is whole at any time; one that cannot be read is put aside as
//! `.corrupt`, and the node starts without. The functions here block.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use x0x_core::{MAX_ADDRESSES, MachineId, WallTime};

use crate::peer::Peer;

/// Most peers remembered; the one not met for longest is forgotten first.
pub const MAX_PEERS: usize = 256;
/// Largest file that is read. A full cache of IPv6 addresses takes about 160 KB.
pub const MAX_FILE: u64 = 1024 * 1024;
/// A peer not met for this long is not dialled any more.
const MAX_AGE: Duration = Duration::from_secs(90 * 24 * 3600);

const VERSION: u32 = 1;

/// The peers met last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerCache {
    /// Newest last.
    met: Vec<(WallTime, Peer)>,
}

/// The cache file could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file system refused.
    #[error("reading the peer cache: {0}")]
    Io(#[from] io::Error),
    /// Not a peer cache, or one from a newer version; it was put aside.
    #[error("the peer cache is not valid and was moved to {moved_to}")]
    Corrupt {
        /// Where it is now.
        moved_to: PathBuf,
    },
}

#[derive(Serialize, Deserialize)]
struct FileIn {
    version: u32,
    peers: Vec<PeerIn>,
}

#[derive(Serialize, Deserialize)]
struct PeerIn {
    id: MachineId,
    addresses: Vec<SocketAddr>,
    last_seen_ms: u64,
}

impl PeerCache {
    /// Reads a cache file. Without one the cache is empty. Entries without a usable address, of this
    /// machine itself or too old are left out; a time in the future counts as now.
    ///
    /// # Errors
    /// [`LoadError`]; the node can start with an empty cache then.
    pub fn load(path: &Path, local: MachineId, now: WallTime) -> Result<Self, LoadError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        let parsed = serde_json::from_slice::<FileIn>(&bytes);
        match parsed {
            Ok(file) if file.version == VERSION && bytes.len() as u64 <= MAX_FILE => {
                Ok(Self::verify(file, local, now))
            }
            _ => {
                let moved_to = with_suffix(path, ".corrupt");
                fs::rename(path, &moved_to)?;
                Err(LoadError::Corrupt { moved_to })
            }
        }
    }

    fn verify(file: FileIn, local: MachineId, now: WallTime) -> Self {
        let mut peers = file.peers;
        peers.sort_by_key(|peer| peer.last_seen_ms);
        let mut cache = Self::default();
        for entry in peers {
            let seen = WallTime::from_millis(entry.last_seen_ms).min(now);
            if seen + MAX_AGE >= now && entry.id != local {
                cache.note(seen, Peer::new(entry.id, entry.addresses));
            }
        }
        cache
    }

    /// Notes a peer that has a session now. False when there is nothing to remember.
    pub fn note(&mut self, now: WallTime, peer: Peer) -> bool {
        if !peer.is_dialable() {
            return false;
        }
        self.met.retain(|(_, known)| known.id() != peer.id());
        if self.met.len() >= MAX_PEERS {
            self.met.remove(0);
        }
        self.met.push((now, peer));
        true
    }

    /// The peers, the one met last first.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.met.iter().rev().map(|(_, peer)| peer)
    }

    /// The content of the cache file.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        debug_assert!(self.met.iter().all(|(_, peer)| peer.addresses().len() <= MAX_ADDRESSES));
        let entry = |(seen, peer): &(WallTime, Peer)| PeerIn {
            id: peer.id(),
            addresses: peer.addresses().to_vec(),
            last_seen_ms: seen.as_millis(),
        };
        let file = FileIn { version: VERSION, peers: self.met.iter().rev().map(entry).collect() };
        serde_json::to_vec_pretty(&file).expect("strings and numbers serialise")
    }
}

/// Writes a cache file so that a crash leaves the old one or the new one, readable by the owner
/// only. Missing folders are made.
///
/// # Errors
/// What the file system says.
pub fn write(path: &Path, json: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        private_folder(folder)?;
    }
    let temporary = with_suffix(path, ".tmp");
    let mut file = private_file(&temporary)?;
    file.write_all(json)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    // The rename itself must reach the disk.
    #[cfg(unix)]
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()?;
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(unix)]
fn private_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // Also when an earlier run left it with other permissions.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

#[cfg(not(unix))]
fn private_file(path: &Path) -> io::Result<File> {
    File::create(path)
}

#[cfg(unix)]
fn private_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
fn private_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);
    const LOCAL: MachineId = MachineId::new([0; 32]);

    fn peer(n: u16) -> Peer {
        let mut id = [1; 32];
        id[..2].copy_from_slice(&n.to_be_bytes());
        Peer::new(MachineId::new(id), [SocketAddr::from(([10, 0, 0, 1], n + 1))])
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    #[test]
    fn round_trip_newest_first_and_private() {
        let folder = folder();
        let path = folder.path().join("peer_cache").join("peers.json");
        assert_eq!(PeerCache::load(&path, LOCAL, NOW).expect("none yet"), PeerCache::default());
        let mut cache = PeerCache::default();
        for n in 0..300 {
            assert!(cache.note(NOW + Duration::from_secs(u64::from(n)), peer(n)));
        }
        assert!(!cache.note(NOW, Peer::new(LOCAL, [])), "nothing to dial");
        assert_eq!(cache.peers().count(), MAX_PEERS);
        assert_eq!(cache.peers().next(), Some(&peer(299)));
        write(&path, &cache.to_json()).expect("first write");
        write(&path, &cache.to_json()).expect("second write");
        let later = NOW + Duration::from_secs(3600);
        assert_eq!(PeerCache::load(&path, LOCAL, later).expect("readable"), cache);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode =
                |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
            assert_eq!(mode(&path), 0o600);
            assert_eq!(mode(path.parent().expect("in a folder")), 0o700);
        }
        let names = fs::read_dir(path.parent().expect("in a folder")).expect("readable").count();
        assert_eq!(names, 1, "no temporary file is left");
    }

    #[test]
    fn corrupt_files_are_put_aside() {
        let folder = folder();
        let path = folder.path().join("peers.json");
        let oversized = vec![b' '; usize::try_from(MAX_FILE).expect("small") + 1];
        let newer = br#"{"version":2,"peers":[]}"#;
        for bytes in [&b"{"[..], b"[1,2]", b"\xff", &oversized, newer, b""] {
            fs::write(&path, bytes).expect("writable");
            let error = PeerCache::load(&path, LOCAL, NOW);
            assert!(matches!(error, Err(LoadError::Corrupt { .. })));
            let aside = fs::read(folder.path().join("peers.json.corrupt")).expect("put aside");
            assert_eq!(aside, bytes);
            assert!(!path.exists());
        }
        assert!(matches!(PeerCache::load(folder.path(), LOCAL, NOW), Err(LoadError::Io(_))));
    }

    #[test]
    fn entries_are_checked() {
        let folder = folder();
        let path = folder.path().join("peers.json");
        let entry = |n: u8, address: &str, seen: u64| {
            let id = MachineId::new([n; 32]);
            format!(r#"{{"id":"{id}","addresses":["{address}"],"last_seen_ms":{seen}}}"#)
        };
        let now = NOW.as_millis();
        let entries = [
            entry(0, "10.0.0.1:1", now),
            entry(1, "0.0.0.0:1", now),
            entry(2, "10.0.0.1:0", now),
            entry(3, "10.0.0.1:1", 5),
            entry(4, "10.0.0.1:1", u64::MAX),
            entry(5, "10.0.0.1:1", now - 1),
        ];
        let json = format!(r#"{{"version":1,"peers":[{}]}}"#, entries.join(","));
        fs::write(&path, json).expect("writable");
        let cache = PeerCache::load(&path, LOCAL, NOW).expect("valid");
        let ids: Vec<MachineId> = cache.peers().map(Peer::id).collect();
        assert_eq!(ids, [MachineId::new([4; 32]), MachineId::new([5; 32])]);
    }
}
