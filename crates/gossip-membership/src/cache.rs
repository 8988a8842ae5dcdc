//! Peers remembered between runs, so that a node finds its way back with no bootstrap address.
//!
//! A JSON file of at most [`MAX_DIALLED`] peers that were dialled and [`MAX_INBOUND`] that came by
//! themselves. Anybody can come with any number of keys, so that those who came never displace those
//! who were found, and are few of those dialled at the next start: a flood of sessions does not decide
//! where a node begins. Up to [`MAX_ANCHORS`] of them are marked: neighbours of long standing, which a
//! restarted node goes back to first, so that a restart is no occasion to cut it off.
//!
//! The file is written beside itself and renamed, so that it is whole at any time; one that cannot be
//! read is put aside as `.corrupt`, and the node starts without. The functions here block.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use x0x_core::{MachineId, WallTime};

use crate::peer::Peer;

/// Most peers remembered that this node dialled with success; of these, the one not met for longest
/// is forgotten first.
pub const MAX_DIALLED: usize = 192;
/// Most peers remembered that only ever came by themselves; again the one not met for longest is
/// forgotten first.
pub const MAX_INBOUND: usize = 64;
/// At a start, for each of those that came by themselves this many others are dialled.
const DIALLED_PER_INBOUND: usize = 3;
/// Of those that came by themselves, this many are dialled in any case: a node that was only ever
/// dialled knows no others.
const MIN_INBOUND: usize = 8;
/// Most peers marked as anchors.
pub const MAX_ANCHORS: usize = 2;
/// Largest file that is read. A full cache of IPv6 addresses takes about 160 KB.
pub const MAX_FILE: u64 = 1024 * 1024;
/// Failed dials in a row after which a peer is dialled after all others. It is not forgotten: it may have
/// been this machine that had no way out.
pub const DEMOTED_AFTER: u32 = 5;
/// A peer not met for this long is not dialled any more.
const MAX_AGE: Duration = Duration::from_secs(90 * 24 * 3600);

const VERSION: u32 = 1;

/// The peers met last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerCache {
    dialled: Met,
    inbound: Met,
    /// Some of the peers in either.
    anchors: Vec<MachineId>,
}

/// A remembered peer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CachedPeer {
    /// Which one, and where it may be dialled.
    pub peer: Peer,
    /// When it was met last.
    pub seen: WallTime,
    /// This node found it; else it only ever came by itself.
    pub dialled: bool,
    /// A neighbour of long standing, dialled first at a start.
    pub anchor: bool,
    /// Dials that failed since it was met.
    pub failures: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    seen: WallTime,
    peer: Peer,
    failures: u32,
}

/// Peers, the one met last comes last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Met(Vec<Known>);

impl Met {
    fn remove(&mut self, id: MachineId) -> Option<Peer> {
        let place = self.0.iter().position(|known| known.peer.id() == id)?;
        Some(self.0.remove(place).peer)
    }

    fn push(&mut self, seen: WallTime, peer: Peer, max: usize) {
        if self.0.len() >= max {
            self.0.remove(0);
        }
        self.0.push(Known { seen, peer, failures: 0 });
    }

    fn get_mut(&mut self, id: MachineId) -> Option<&mut Known> {
        self.0.iter_mut().find(|known| known.peer.id() == id)
    }

    /// Those that answered lately come before those that fail; of each, the one met last first.
    fn best_first(&self) -> impl Iterator<Item = &Known> {
        let failing = |known: &&Known| known.failures >= DEMOTED_AFTER;
        let newest = || self.0.iter().rev();
        newest().filter(move |known| !failing(known)).chain(newest().filter(failing))
    }
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
    #[serde(default)]
    dialled: bool,
    #[serde(default)]
    anchor: bool,
    #[serde(default)]
    failures: u32,
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
                cache.note(seen, Peer::new(entry.id, entry.addresses), entry.dialled);
                if let Some(known) = cache.known_mut(entry.id) {
                    known.failures = entry.failures;
                }
                if entry.anchor && cache.anchors.len() < MAX_ANCHORS {
                    cache.anchors.push(entry.id);
                }
            }
        }
        cache
    }

    /// Notes a peer that has a session now, which this node opened if it `dialled`. False when there
    /// is nothing to remember.
    pub fn note(&mut self, now: WallTime, peer: Peer, dialled: bool) -> bool {
        if !peer.is_dialable() {
            return false;
        }
        self.inbound.remove(peer.id());
        let found = self.dialled.remove(peer.id());
        match found {
            _ if dialled => self.dialled.push(now, peer, MAX_DIALLED),
            // It came this time. Where it was found once may still be a way to it.
            Some(known) => {
                let addresses = peer.addresses().iter().chain(known.addresses()).copied();
                self.dialled.push(now, Peer::new(peer.id(), addresses), MAX_DIALLED);
            }
            None => self.inbound.push(now, peer, MAX_INBOUND),
        }
        true
    }

    /// Notes that a peer was dialled and did not answer. False when it is not remembered.
    pub fn note_failure(&mut self, id: MachineId) -> bool {
        let known = self.known_mut(id);
        known.map(|known| known.failures = known.failures.saturating_add(1)).is_some()
    }

    fn known_mut(&mut self, id: MachineId) -> Option<&mut Known> {
        match self.dialled.get_mut(id) {
            Some(known) => Some(known),
            None => self.inbound.get_mut(id),
        }
    }

    /// All peers: those that were dialled, then those that came, each with the best one first.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.dialled.best_first().chain(self.inbound.best_first()).map(|known| &known.peer)
    }

    /// All that is remembered, in the order in which it would be dialled.
    pub fn entries(&self) -> impl Iterator<Item = CachedPeer> {
        self.in_order().map(|(known, dialled)| CachedPeer {
            peer: known.peer.clone(),
            seen: known.seen,
            dialled,
            anchor: self.anchors.contains(&known.peer.id()),
            failures: known.failures,
        })
    }

    /// Marks the anchors; those of peers that are not remembered are left out. False when they are
    /// the same as before.
    pub fn set_anchors(&mut self, anchors: impl IntoIterator<Item = MachineId>) -> bool {
        let mut known = Vec::new();
        for id in anchors {
            if known.len() < MAX_ANCHORS && self.peers().any(|peer| peer.id() == id) {
                known.push(id);
            }
        }
        known.sort_unstable();
        let changed = known != self.anchors;
        self.anchors = known;
        changed
    }

    /// The peers to begin with, best first: the anchors, then one of those that came by themselves for each three that
    /// were dialled, and a few of them if there are not that many.
    pub fn to_dial(&self) -> impl Iterator<Item = &Peer> {
        let most = MIN_INBOUND.max(self.dialled.0.len() / DIALLED_PER_INBOUND);
        let mut came = 0;
        self.in_order().filter_map(move |(known, dialled)| {
            let anchor = self.anchors.contains(&known.peer.id());
            came += usize::from(!dialled && !anchor);
            (dialled || anchor || came <= most).then_some(&known.peer)
        })
    }

    /// All peers in the order of a start, and whether each was dialled.
    fn in_order(&self) -> impl Iterator<Item = (&Known, bool)> {
        let is_anchor = |known: &&Known| self.anchors.contains(&known.peer.id());
        let other = move |known: &&Known| !is_anchor(known);
        let (found, came) = (self.dialled.best_first(), self.inbound.best_first());
        let anchors = found.map(|known| (known, true)).chain(came.map(|known| (known, false)));
        let anchors = anchors.filter(move |(known, _)| is_anchor(known));
        let mut found = self.dialled.best_first().filter(other).map(|known| (known, true));
        let mut came = self.inbound.best_first().filter(other).map(|known| (known, false));
        let mut turn = 0;
        let others = std::iter::from_fn(move || {
            turn += 1;
            if turn % (DIALLED_PER_INBOUND + 1) == 0 {
                came.next().or_else(|| found.next())
            } else {
                found.next().or_else(|| came.next())
            }
        });
        anchors.chain(others)
    }

    /// The content of the cache file.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let entry = |known: &Known, dialled| PeerIn {
            id: known.peer.id(),
            addresses: known.peer.addresses().to_vec(),
            last_seen_ms: known.seen.as_millis(),
            dialled,
            anchor: self.anchors.contains(&known.peer.id()),
            failures: known.failures,
        };
        let dialled = self.dialled.0.iter().rev().map(|known| entry(known, true));
        let inbound = self.inbound.0.iter().rev().map(|known| entry(known, false));
        let file = FileIn { version: VERSION, peers: dialled.chain(inbound).collect() };
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
            assert!(cache.note(NOW + Duration::from_secs(u64::from(n)), peer(n), n % 2 == 1));
        }
        assert!(!cache.note(NOW, Peer::new(LOCAL, []), true), "nothing to dial");
        assert_eq!(cache.peers().count(), 150 + MAX_INBOUND);
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
    fn who_does_not_answer_is_dialled_last_and_not_forgotten() {
        let mut cache = PeerCache::default();
        for n in 0..4 {
            cache.note(NOW + Duration::from_secs(u64::from(n)), peer(n), true);
        }
        for _ in 0..DEMOTED_AFTER {
            assert!(cache.note_failure(peer(3).id()));
        }
        assert!(!cache.note_failure(peer(9).id()), "not remembered");
        let order = |cache: &PeerCache| cache.to_dial().cloned().collect::<Vec<_>>();
        assert_eq!(order(&cache), [peer(2), peer(1), peer(0), peer(3)]);
        let folder = folder();
        let path = folder.path().join("peers.json");
        write(&path, &cache.to_json()).expect("written");
        let mut read = PeerCache::load(&path, LOCAL, NOW).expect("readable");
        assert_eq!(order(&read), order(&cache));
        assert_eq!(read.entries().last().map(|last| last.failures), Some(DEMOTED_AFTER));
        // Whoever is met again counts as before.
        read.note(NOW + Duration::from_secs(9), peer(3), true);
        assert_eq!(order(&read)[0], peer(3));
    }

    #[test]
    fn a_flood_of_sessions_displaces_nobody_who_was_found() {
        let mut cache = PeerCache::default();
        for n in 0..20 {
            cache.note(NOW, peer(n), true);
        }
        let later = NOW + Duration::from_secs(60);
        for n in 100..1000 {
            cache.note(later, peer(n), false);
        }
        assert_eq!(cache.peers().count(), 20 + MAX_INBOUND);
        let begin: Vec<&Peer> = cache.to_dial().collect();
        assert_eq!(begin.len(), 20 + MIN_INBOUND);
        assert_eq!(begin[..4], [&peer(19), &peer(18), &peer(17), &peer(999)]);
        assert!((0..20).all(|n| begin.contains(&&peer(n))));

        // One that was found comes by itself from elsewhere, and one that came is found.
        let moved = Peer::new(peer(3).id(), peer(30).addresses().iter().copied());
        cache.note(later, moved, false);
        let known = cache.peers().next().expect("known");
        assert_eq!(known.addresses(), [peer(30).addresses(), peer(3).addresses()].concat());
        cache.note(later, peer(999), true);
        assert_eq!(cache.peers().next(), Some(&peer(999)));
        assert_eq!(cache.peers().count(), 20 + MAX_INBOUND);
        for n in 2000..3000 {
            cache.note(later, peer(n), true);
        }
        assert_eq!(cache.peers().count(), MAX_DIALLED + MAX_INBOUND - 1);
    }

    #[test]
    fn a_node_that_was_only_ever_dialled_has_somebody_to_begin_with() {
        let mut cache = PeerCache::default();
        for n in 0..100 {
            cache.note(NOW, peer(n), false);
        }
        let begin: Vec<&Peer> = cache.to_dial().collect();
        assert_eq!((begin.len(), begin[0]), (MIN_INBOUND, &peer(99)));
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

    #[test]
    fn anchors_come_first_and_are_remembered() {
        let folder = folder();
        let path = folder.path().join("peers.json");
        let mut cache = PeerCache::default();
        (0..20).for_each(|n| assert!(cache.note(NOW, peer(n), n % 2 == 0)));
        let unknown = peer(99).id();
        assert!(cache.set_anchors([peer(3).id(), unknown, peer(4).id(), peer(5).id()]));
        assert!(!cache.set_anchors([peer(4).id(), peer(3).id()]), "the same two");
        write(&path, &cache.to_json()).expect("written");
        let cache = PeerCache::load(&path, LOCAL, NOW).expect("valid");
        let first: Vec<MachineId> = cache.to_dial().take(2).map(Peer::id).collect();
        assert_eq!(first, [peer(4).id(), peer(3).id()], "the one that was dialled, then the other");
        let all: std::collections::BTreeSet<_> = cache.to_dial().map(Peer::id).collect();
        assert_eq!((all.len(), cache.to_dial().count()), (19, 19), "each once, 8 of 9 that came");
    }
}
