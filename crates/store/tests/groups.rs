//! Encrypted groups over the file, through restarts and refusals.

use std::sync::Arc;

use x0x_core::WallTime;
use x0x_identity::testing;
use x0x_mls::{
    Change, Entry, Event, GroupError, Groups, MlsGroups, MlsStore, Space, Suite, verify_key_package,
};
use x0x_store::{GROUPS_FILE, GroupsFile, OpenError};

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);

fn put(space: Space, key: &[u8], chunk: u32, value: &[u8]) -> Change {
    Change::Put(space, Entry { key: key.to_vec(), chunk, value: value.to_vec().into() })
}

#[test]
fn what_is_committed_is_loaded_in_order_and_what_fails_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(GROUPS_FILE);
    let file = GroupsFile::open(&path).unwrap();
    let (one, other) = (Space::Epoch([1; 32]), Space::Epoch([2; 32]));
    let batch: Vec<_> = (0..20).rev().map(|n| put(one, b"k", n, &[n as u8])).collect();
    file.commit(batch).unwrap();
    file.commit(vec![put(other, b"k", 0, b"x"), Change::Cut(one, b"k".to_vec(), 12)]).unwrap();
    let huge = vec![0; x0x_mls::MAX_KEY + 1];
    assert!(file.commit(vec![put(one, b"new", 0, b"x"), put(one, &huge, 0, b"x")]).is_err());
    drop(file);

    let file = GroupsFile::open(&path).unwrap();
    let chunks: Vec<u32> = file.load(one).unwrap().iter().map(|entry| entry.chunk).collect();
    assert_eq!(chunks, (0..12).collect::<Vec<_>>());
    file.commit(vec![Change::Drop(one)]).unwrap();
    assert!(file.load(one).unwrap().is_empty());
    assert_eq!(file.load(other).unwrap().len(), 1);
}

#[test]
fn a_file_of_somebody_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("theirs.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    assert!(matches!(GroupsFile::open(&path), Err(OpenError::Foreign { .. })));
    let path = dir.path().join("text");
    std::fs::write(&path, "a text that is long enough not to be taken for an empty file").unwrap();
    assert!(GroupsFile::open(&path).is_err());
}

#[cfg(unix)]
#[test]
fn nobody_else_reads_the_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made").join(GROUPS_FILE);
    drop(GroupsFile::open(&path).unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_group_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let open = |n: u64| {
        let file = GroupsFile::open(&dir.path().join(format!("{n}.bin"))).unwrap();
        Groups::open(file, Arc::new(testing::key(n)), NOW).unwrap()
    };
    let (mut a, mut b) = (open(1), open(2));
    let package = b.key_packages(Suite::Hybrid, 1, NOW).unwrap().swap_remove(0);
    let group = a.create(Suite::Hybrid).unwrap();
    let added = a.commit(group, vec![verify_key_package(&package, NOW).unwrap()], &[]).unwrap();
    b.join(&added.welcome.unwrap(), None).unwrap();
    let before = a.encrypt(group, b"", b"before").unwrap();
    drop((a, b));

    let (mut a, mut b) = (open(1), open(2));
    assert_eq!(a.pending().len(), 2, "the commit and the message are still to be sent");
    let read = b.process(&before.frame).unwrap();
    assert!(matches!(&read[0], Event::Message { payload, .. } if payload == "before"));
    assert!(matches!(a.encrypt(group, b"", b"x"), Err(GroupError::RefreshFirst)));
    let refresh = a.refresh(group).unwrap();
    let after = a.encrypt(group, b"", b"after").unwrap();
    b.process(&refresh.frame).unwrap();
    let read = b.process(&after.frame).unwrap();
    assert!(matches!(&read[0], Event::Message { payload, .. } if payload == "after"));
}
