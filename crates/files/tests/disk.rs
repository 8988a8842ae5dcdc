//! The real disk: what is written where, who may read it, and what is refused.
#![cfg(unix)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use x0x_files::{
    Blob, Change, DiskStore, FileStore, Files, FilesConfig, Part, Phase, Record, SendFile,
    SendFileError, TransferId, WorkError,
    testing::{MemoryStore, agent, connect, peer},
    tree::GROUP_LEN,
};
use x0x_transport::testing::{LinkModel, MemoryNetwork, TokioClock, node};
use x0x_trust::testing::FakePolicy;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

/// A disk that does not keep that a file is complete.
#[derive(Debug)]
struct Unrecorded(DiskStore);

impl FileStore for Unrecorded {
    fn load(&self) -> Result<Vec<Record>, WorkError> {
        self.0.load()
    }

    fn save(&self, record: &Record) -> Result<(), WorkError> {
        match record.phase {
            Phase::Complete => Err(WorkError::Disk("the process was killed".into())),
            _ => self.0.save(record),
        }
    }

    fn forget(&self, record: &Record) -> Result<(), WorkError> {
        self.0.forget(record)
    }

    fn discard(&self, record: &Record) -> Result<(), WorkError> {
        self.0.discard(record)
    }

    fn source(&self, path: &Path) -> Result<Box<dyn Blob>, WorkError> {
        self.0.source(path)
    }

    fn part(&self, record: &Record, part: Part) -> Result<Box<dyn Blob>, WorkError> {
        self.0.part(record, part)
    }

    fn publish(&self, record: &Record) -> Result<PathBuf, WorkError> {
        self.0.publish(record)
    }

    fn named(&self, record: &Record) -> Result<Option<PathBuf>, WorkError> {
        self.0.named(record)
    }

    fn free(&self, folder: Option<&Path>) -> Result<u64, WorkError> {
        self.0.free(folder)
    }
}

async fn received(folder: &Path, name: &str, bytes: &[u8]) -> (DiskStore, TransferId, Files) {
    let store = DiskStore::new(folder.join("state"), folder.join("downloads"));
    let (id, files) = received_by(store.clone(), name, bytes).await;
    (store, id, files)
}

/// A file comes to a real disk, in real time since files are no part of a paused clock.
async fn received_by(store: impl FileStore, name: &str, bytes: &[u8]) -> (TransferId, Files) {
    let network = MemoryNetwork::new(1, LinkModel::default());
    let alice = peer(&network, 1, MemoryStore::new()).await;
    let mut config = FilesConfig::new(vec![agent(2)]);
    config.keep_free = 0;
    let bob = node(&network, 2);
    let (files, _seeks) = Files::start(
        Arc::new(bob),
        Arc::new(store),
        Arc::new(FakePolicy::new()),
        Arc::new(TokioClock::new()),
        config,
    )
    .await
    .expect("it starts");
    connect(&alice, 2).await;
    alice.disk.put("/f", bytes);
    let mut file = SendFile::new(agent(2), "/f");
    file.name = Some(name.to_owned());
    let id = alice.files.send(file).await.expect("sent");
    let phase = async |wanted: Phase| {
        let seen = async {
            while files.transfer(id).await.is_none_or(|info| info.record.phase != wanted) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), seen).await.expect("in time");
    };
    phase(Phase::Offered).await;
    files.change(id, Change::Accept { folder: None }).await.expect("accepted");
    phase(Phase::Complete).await;
    (id, files)
}

#[tokio::test]
async fn received_files_are_private_whole_and_beside_what_is_there() {
    let temp = tempfile::tempdir().expect("a folder");
    let downloads = temp.path().join("downloads");
    let bytes = vec![7; 3 * GROUP_LEN + 5];
    for expected in ["passwd", "passwd (2)"] {
        let (store, id, files) = received(temp.path(), "../../etc/passwd", &bytes).await;
        let path = downloads.join(expected);
        assert_eq!(fs::read(&path).expect("it is there"), bytes);
        assert_eq!((mode(&path), mode(&downloads)), (0o600, 0o700));
        files.shutdown().await;
        let records = store.load().expect("it loads");
        let record = records.iter().find(|record| record.id == id).expect("it is kept");
        assert_eq!(record.output.as_deref(), Some(&*path));
        assert_eq!(mode(&temp.path().join("state").join(format!("{id}.transfer"))), 0o600);
    }
    assert_eq!(fs::read_dir(&downloads).expect("a folder").count(), 2, "no parts stay");
}

#[tokio::test]
async fn a_link_in_the_way_is_not_followed() {
    let temp = tempfile::tempdir().expect("a folder");
    let downloads = temp.path().join("downloads");
    fs::create_dir(&downloads).expect("made");
    fs::set_permissions(&downloads, fs::Permissions::from_mode(0o700)).expect("own folder");
    let victim = temp.path().join("victim");
    fs::write(&victim, b"mine").expect("written");
    symlink(&victim, downloads.join("f")).expect("linked");
    received(temp.path(), "f", b"theirs").await;
    assert_eq!(fs::read(&victim).expect("there"), b"mine");
    assert_eq!(fs::read(downloads.join("f (2)")).expect("there"), b"theirs");
}

#[tokio::test]
async fn hostile_names_lead_nowhere() {
    let temp = tempfile::tempdir().expect("a folder");
    let downloads = temp.path().join("downloads");
    let store = DiskStore::new(temp.path().join("state"), &downloads);
    let long = "n".repeat(300);
    for (offered, given) in [
        ("../../outside", "outside"),
        ("/etc/outside", "outside (2)"),
        ("..", "unnamed"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("a\0b", "ab"),
        ("two\nlines", "twolines"),
        ("exe\u{202e}gpj.exe", "exegpj.exe"),
        (".bashrc", "bashrc"),
        (
            ".x0x-07070707-0707-0707-0707-070707070707.part",
            "x0x-07070707-0707-0707-0707-070707070707.part",
        ),
        (&*long, &long[..200]),
    ] {
        let (id, files) = received_by(store.clone(), offered, b"x").await;
        let info = files.transfer(id).await.expect("known");
        assert_eq!(info.record.output.as_deref(), Some(&*downloads.join(given)), "{offered:?}");
        files.shutdown().await;
    }
    let names = |folder: &Path| fs::read_dir(folder).expect("a folder").count();
    assert_eq!(names(&downloads), 11, "each has one");
    assert_eq!(names(temp.path()), 2, "and nothing is beside the two folders");
}

/// Whoever talks an agent into sending a file does not get its keys, by whatever name they are called.
#[test]
fn keys_and_state_are_no_sources() {
    let temp = tempfile::tempdir().expect("a folder");
    let folder = temp.path().canonicalize().expect("it is there");
    let at = |name: &str| folder.join(name);
    for (name, content) in [
        ("keys/machine.key", "secret"),
        ("data/x0x.db", "letters"),
        ("data/deep/er/file", "too"),
        ("data/downloads/received", "theirs"),
        ("elsewhere/user.key", "secret"),
        ("elsewhere/keys-are-not-here", "mine"),
        ("keys-of-the-house", "mine"),
    ] {
        fs::create_dir_all(at(name).parent().expect("a folder")).expect("made");
        fs::write(at(name), content).expect("written");
    }
    symlink(at("keys"), at("elsewhere/way")).expect("made");
    symlink(at("keys/machine.key"), at("elsewhere/link")).expect("made");
    fs::hard_link(at("keys/machine.key"), at("elsewhere/second name")).expect("made");
    fs::hard_link(at("elsewhere/user.key"), at("elsewhere/third name")).expect("made");
    fs::hard_link(at("keys-of-the-house"), at("elsewhere/fourth name")).expect("made");
    let store = DiskStore::new(at("data/transfers"), at("data/downloads"));
    let open = store.clone();
    assert!(open.source(&at("keys/machine.key")).is_ok(), "unless it is told");
    let own = [at("keys"), at("data"), at("elsewhere/user.key"), at("absent")];
    let store = store.protecting(own);
    for never in [
        "keys/machine.key",
        "keys/../keys/machine.key",
        "elsewhere/way/machine.key",
        "elsewhere/second name",
        "elsewhere/third name",
        "elsewhere/user.key",
        "data/x0x.db",
        "data/deep/er/file",
        "data/downloads/../x0x.db",
    ] {
        let refused = store.source(&at(never)).expect_err(never);
        assert!(matches!(refused, WorkError::SourceProtected(_)), "{never}: {refused}");
    }
    assert!(store.source(&at("elsewhere/link")).is_err(), "links are not followed at all");
    for sent in [
        "data/downloads/received",
        "elsewhere/keys-are-not-here",
        "keys-of-the-house",
        "elsewhere/fourth name",
    ] {
        assert!(store.source(&at(sent)).is_ok(), "{sent}");
    }
    let above = DiskStore::new(at("data/transfers"), &folder).protecting([at("keys")]);
    assert!(above.source(&at("keys/machine.key")).is_err(), "received into the folder above");
    assert!(above.source(&at("elsewhere/second name")).is_err());
    assert!(above.source(&at("keys-of-the-house")).is_ok());
    #[cfg(target_os = "linux")]
    for system in ["/proc/self/environ", "/proc/version", "/sys/kernel/uevent_seqnum"] {
        if Path::new(system).exists() {
            assert!(store.source(Path::new(system)).is_err(), "{system}");
        }
    }
}

/// The folders of other agents are known by what is in them, wherever they are.
#[test]
fn a_marked_folder_is_not_sent_from() {
    let temp = tempfile::tempdir().expect("a folder");
    let folder = fs::canonicalize(temp.path()).expect("it is there");
    let at = |name: &str| folder.join(name);
    for name in [
        "other/machine.key",
        "other/agent.key",
        "other/deep/er/file",
        "own/x0x.db",
        "own/downloads/received",
        "work/report",
    ] {
        fs::create_dir_all(at(name).parent().expect("a folder")).expect("made");
        fs::write(at(name), name).expect("written");
    }
    let store = DiskStore::new(at("own/transfers"), at("own/downloads"));
    let store = store.protecting_marked(["machine.key", "x0x.db"]);
    for never in ["other/machine.key", "other/agent.key", "other/deep/er/file", "own/x0x.db"] {
        let refused = store.source(&at(never)).expect_err(never);
        assert!(matches!(refused, WorkError::SourceProtected(_)), "{never}: {refused}");
    }
    for sent in ["own/downloads/received", "work/report"] {
        assert!(store.source(&at(sent)).is_ok(), "{sent}");
    }
}

#[test]
fn only_regular_files_are_sources() {
    let temp = tempfile::tempdir().expect("a folder");
    let store = DiskStore::new(temp.path().join("state"), temp.path().join("downloads"));
    let file = temp.path().join("file");
    fs::write(&file, b"x").expect("written");
    assert_eq!(store.source(&file).and_then(|file| file.stat()).map(|stat| stat.0), Ok(1));
    let link = temp.path().join("link");
    symlink(&file, &link).expect("linked");
    let gone = |path: &Path| matches!(store.source(path), Err(WorkError::SourceGone(_)));
    assert!(gone(&link) && gone(temp.path()) && gone(Path::new("/dev/null")));
    assert!(gone(&temp.path().join("none")));
    let pipe = temp.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success() && gone(&pipe), "and it is not waited for");
}

#[tokio::test]
async fn the_user_hears_what_is_wrong_with_a_path() {
    let temp = tempfile::tempdir().expect("a folder");
    let network = MemoryNetwork::new(1, LinkModel::default());
    let start = Files::start(
        Arc::new(node(&network, 1)),
        Arc::new(DiskStore::new(temp.path().join("state"), temp.path().join("downloads"))),
        Arc::new(FakePolicy::new()),
        Arc::new(TokioClock::new()),
        FilesConfig::new(vec![agent(1)]),
    );
    let (files, _seeks) = start.await.expect("it starts");
    let send = async |path: &str| files.send(SendFile::new(agent(2), path)).await;
    assert_eq!(send("/dev/null").await, Err(SendFileError::NotAFile));
    assert_eq!(send("/").await, Err(SendFileError::NotAFile));
    assert!(matches!(send("/none").await, Err(SendFileError::Unreadable(_))));
    assert_eq!(send("x").await, Err(SendFileError::NotAbsolute));
    files.shutdown().await;
    assert_eq!(send("/etc/hostname").await, Err(SendFileError::Closed));
}

#[test]
fn damaged_records_and_open_folders_are_refused() {
    let temp = tempfile::tempdir().expect("a folder");
    let state = temp.path().join("state");
    let store = DiskStore::new(&state, temp.path().join("downloads"));
    assert_eq!(store.load(), Ok(Vec::new()));
    let name = format!("{}.transfer", TransferId::new([1; 16]));
    fs::write(state.join(&name), b"\xff\xff").expect("written");
    fs::set_permissions(state.join(&name), fs::Permissions::from_mode(0o600)).expect("own file");
    assert_eq!(store.load(), Ok(Vec::new()), "a damaged one is left out");
    let shared = temp.path().join("shared");
    fs::create_dir(&shared).expect("made");
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).expect("own folder");
    let error = store.free(Some(&shared)).expect_err("others may write there");
    assert!(error.to_string().contains("chmod"), "{error}");
    assert!(store.free(None).is_ok_and(|free| free > 0));
}

#[tokio::test]
async fn a_file_gets_its_name_without_links_too() {
    let temp = tempfile::tempdir().expect("a folder");
    let downloads = temp.path().join("downloads");
    let store = DiskStore::new(temp.path().join("state"), &downloads).without_links();
    let bytes = vec![7; GROUP_LEN + 5];
    for expected in ["f", "f (2)"] {
        let (_, files) = received_by(store.clone(), "f", &bytes).await;
        assert_eq!(fs::read(downloads.join(expected)).expect("it is there"), bytes);
        files.shutdown().await;
    }
    assert_eq!(fs::read_dir(&downloads).expect("a folder").count(), 2, "nothing else stays");
}

#[tokio::test]
async fn a_crash_between_name_and_record_neither_loses_nor_repeats_a_file() {
    for links in [true, false] {
        let temp = tempfile::tempdir().expect("a folder");
        let downloads = temp.path().join("downloads");
        let store = DiskStore::new(temp.path().join("state"), &downloads);
        let store = if links { store } else { store.without_links() };
        let bytes = vec![7; GROUP_LEN + 5];
        // The file has its name, and the record does not know.
        let (id, files) = received_by(Unrecorded(store.clone()), "f", &bytes).await;
        files.shutdown().await;
        // A new process finds all of it, without its sender.
        let network = MemoryNetwork::new(2, LinkModel::default());
        let started = Files::start(
            Arc::new(node(&network, 2)),
            Arc::new(store),
            Arc::new(FakePolicy::new()),
            Arc::new(TokioClock::new()),
            FilesConfig::new(vec![agent(2)]),
        );
        let (files, _seeks) = started.await.expect("it starts");
        let whole = async {
            while files.transfer(id).await.is_none_or(|info| info.record.phase != Phase::Complete) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), whole).await.expect("complete in time");
        files.shutdown().await;
        assert_eq!(fs::read(downloads.join("f")).expect("there"), bytes, "links: {links}");
        assert_eq!(fs::read_dir(&downloads).expect("a folder").count(), 1, "links: {links}");
    }
}
