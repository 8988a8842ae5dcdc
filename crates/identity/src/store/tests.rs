//! Key files survive, and whatever is wrong with them is told instead of repaired.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use proptest::prelude::*;

use super::*;
use crate::{private_file::FileError, testing::key};

const FILES: [&str; 3] = ["machine.key", "agent.key", "agent_kem.key"];

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("exists").permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("own file");
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("writable");
    set_mode(path, 0o600);
}

#[test]
fn keys_are_made_once_and_loaded_again() {
    let temp = tempfile::tempdir().expect("temp dir");
    let dir = temp.path().join("a/b");
    let store = IdentityStore::open(&dir).expect("made");
    let first = store.load_or_create().expect("made");
    let again = IdentityStore::open(&dir).expect("there").load_or_create().expect("loaded");

    assert_eq!(first.machine.public_key(), again.machine.public_key());
    assert_eq!(first.agent.public_key(), again.agent.public_key());
    assert_eq!(first.agent_kem.public_key(), again.agent_kem.public_key());
    assert_ne!(first.machine.public_key(), first.agent.public_key());
    assert!(first.user.is_none() && !dir.join("user.key").exists());

    assert_eq!(mode(&dir), 0o700);
    let mut names: Vec<_> =
        fs::read_dir(&dir).expect("readable").map(|e| e.expect("entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["agent.key", "agent_kem.key", "machine.key"], "no temporary file stays");
    assert!(FILES.iter().all(|name| mode(&dir.join(name)) == 0o600));
    assert_eq!(fs::read(dir.join("machine.key")).expect("readable"), *first.machine.to_pkcs8());
}

#[test]
fn a_user_key_is_loaded_but_never_made() {
    let temp = tempfile::tempdir().expect("temp dir");
    let store = IdentityStore::open(temp.path()).expect("there");
    write(&temp.path().join("user.key"), &key(7).to_pkcs8());
    let user = store.load_or_create().expect("loads").user.expect("there");
    assert_eq!(user.public_key(), key(7).public_key());
}

#[test]
fn debris_of_a_crash_is_ignored() {
    let temp = tempfile::tempdir().expect("temp dir");
    write(&temp.path().join(".machine.key.00000000000000ff.tmp"), b"half");
    let store = IdentityStore::open(temp.path()).expect("there");
    let made = store.load_or_create().expect("made").machine;
    assert_eq!(store.load_or_create().expect("loads").machine.public_key(), made.public_key());
}

#[test]
fn of_many_processes_one_makes_the_keys() {
    let temp = tempfile::tempdir().expect("temp dir");
    let ids: Vec<_> = std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let store = IdentityStore::open(temp.path()).expect("there");
                    store.load_or_create().expect("keys").machine.public_key().machine_id()
                })
            })
            .collect();
        tasks.into_iter().map(|task| task.join().expect("no panic")).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn exposed_files_and_directories_are_refused() {
    let temp = tempfile::tempdir().expect("temp dir");
    let store = IdentityStore::open(temp.path()).expect("there");
    store.load_or_create().expect("made");
    for name in FILES {
        let path = temp.path().join(name);
        set_mode(&path, 0o640);
        let error = store.load_or_create().expect_err("exposed");
        let StoreError::File(FileError::Exposed { path: named, mode: 0o640, .. }) = &error else {
            panic!("unexpected {error}");
        };
        assert_eq!(*named, path);
        assert!(error.to_string().contains("chmod 600"), "{error}");
        assert_eq!(mode(&path), 0o640, "the file is left as it is");
        set_mode(&path, 0o600);
    }
    set_mode(temp.path(), 0o770);
    let error = IdentityStore::open(temp.path()).expect_err("others may write");
    assert!(matches!(error, StoreError::File(FileError::Exposed { .. })));
    set_mode(temp.path(), 0o755);
    IdentityStore::open(temp.path()).expect("others may list the directory");
}

#[test]
fn what_is_not_a_file_is_refused() {
    let temp = tempfile::tempdir().expect("temp dir");
    let store = IdentityStore::open(temp.path()).expect("there");
    fs::create_dir(temp.path().join("agent.key")).expect("made");
    let error = store.load_or_create().expect_err("a directory");
    assert!(matches!(error, StoreError::File(FileError::NotAFile { .. })));
    write(&temp.path().join("plain"), b"");
    let error = IdentityStore::open(temp.path().join("plain")).expect_err("a file");
    assert!(matches!(error, StoreError::File(FileError::Io { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_damaged_file_is_named_and_kept(
        which in 0_usize..3,
        keep in 0_usize..53,
        extra in prop::collection::vec(any::<u8>(), 0..200),
        flip in 0_usize..22,
        how in 0_u8..3,
    ) {
        let temp = tempfile::tempdir().expect("temp dir");
        let store = IdentityStore::open(temp.path()).expect("there");
        store.load_or_create().expect("made");
        let path = temp.path().join(FILES[which]);
        let good = fs::read(&path).expect("readable");
        let mut bad = good.clone();
        match how {
            0 => bad.truncate(keep),
            1 => bad.extend(&extra),
            _ => bad[flip] ^= 0x01,
        }
        prop_assume!(bad != good);
        write(&path, &bad);

        let error = store.load_or_create().expect_err("damaged");
        let named = matches!(&error, StoreError::Corrupt { path: p, .. } if *p == path);
        prop_assert!(named, "{}", error);
        prop_assert!(error.to_string().contains(FILES[which]));
        prop_assert_eq!(fs::read(&path).expect("readable"), bad);
    }
}
