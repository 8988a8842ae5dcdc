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

mod moves_and_users {
    //! Users, certificates, and agents that are moved.

    use std::time::Duration;

    use x0x_core::WallTime;

    use super::*;
    use crate::{AgentKeys, Identity, testing::kem_key};

    const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn keys_of(identity: &Identity) -> AgentKeys {
        AgentKeys {
            agent: identity.agent.clone(),
            kem: identity.agent_kem.clone(),
            generation: identity.generation,
            certificate: identity.certificate.clone(),
        }
    }

    #[test]
    fn a_user_key_is_made_on_request_and_only_once() {
        let temp = tempfile::tempdir().expect("temp dir");
        let store = IdentityStore::open(temp.path().join("a")).expect("there");
        let made = store.create_user().expect("made");
        assert_eq!(mode(&store.user_key_path()), 0o600);
        assert!(matches!(store.create_user(), Err(StoreError::Exists { .. })));
        let user = store.load_or_create().expect("loads").user.expect("there");
        assert_eq!(user.public_key(), made.public_key());

        // Elsewhere: it must be there, and nothing makes it silently.
        let path = temp.path().join("me.key");
        let store = IdentityStore::open(temp.path().join("b")).expect("there").with_user_key(&path);
        let error = store.load_or_create().expect_err("missing");
        assert!(
            matches!(&error, StoreError::NoUserKey { path: named } if *named == path),
            "{error}"
        );
        assert!(!path.exists());
        store.create_user().expect("made");
        assert!(store.load_or_create().expect("loads").user.is_some());
    }

    #[test]
    fn a_certificate_is_kept_and_renewed() {
        let temp = tempfile::tempdir().expect("temp dir");
        let store = IdentityStore::open(temp.path()).expect("there");
        let plain = store.load_or_create().expect("loads");
        assert_eq!(store.certify(&plain, NOW).expect("no user"), None);

        store.create_user().expect("made");
        let identity = store.load_or_create().expect("loads");
        let first = store.certify(&identity, NOW).expect("kept").expect("there");
        let identity = store.load_or_create().expect("loads");
        assert_eq!(identity.certificate.as_ref(), Some(&first));
        assert_eq!(store.certify(&identity, NOW + DAY).expect("kept"), Some(first.clone()));
        let renewed = store.certify(&identity, NOW + DAY * 300).expect("kept").expect("there");
        let serial = |accepted: &AcceptedCertificate| accepted.certificate().certificate().serial;
        assert!(serial(&renewed) > serial(&first));

        // Another user takes over; without any, the last certificate stays.
        write(&temp.path().join("user.key"), &key(51).to_pkcs8());
        let identity = store.load_or_create().expect("loads");
        let other = store.certify(&identity, NOW).expect("kept").expect("there");
        assert_eq!(other.certificate().certificate().user, key(51).public_key().user_id());
        fs::remove_file(temp.path().join("user.key")).expect("there");
        let identity = store.load_or_create().expect("loads");
        assert_eq!(store.certify(&identity, NOW + DAY * 900).expect("kept"), Some(other));

        write(&temp.path().join("agent.cert"), b"damaged");
        let error = store.load_or_create().expect_err("damaged");
        assert!(error.to_string().contains("agent.cert"), "{error}");
    }

    #[test]
    fn an_agent_is_moved() {
        let temp = tempfile::tempdir().expect("temp dir");
        let home = IdentityStore::open(temp.path().join("old")).expect("there");
        home.create_user().expect("made");
        let mut old = home.load_or_create().expect("loads");
        old.certificate = home.certify(&old, NOW).expect("kept");
        assert_eq!(old.generation, 0);

        let away = IdentityStore::open(temp.path().join("new")).expect("there");
        away.import_agent(&keys_of(&old), NOW, Replace::Never).expect("an empty place");
        let new = away.load_or_create().expect("loads");
        assert_eq!(new.agent.public_key(), old.agent.public_key());
        assert_eq!(new.agent_kem.public_key(), old.agent_kem.public_key());
        assert_ne!(new.machine.public_key(), old.machine.public_key());
        assert_eq!((new.generation, new.certificate.is_some()), (NOW.as_millis(), true));
        assert!(new.user.is_none(), "a user's key does not travel with the agent");

        // On to a third one, whose clock is far behind.
        let third = IdentityStore::open(temp.path().join("third")).expect("there");
        third
            .import_agent(&keys_of(&new), WallTime::from_millis(5), Replace::Never)
            .expect("moved");
        assert_eq!(third.load_or_create().expect("loads").generation, NOW.as_millis() + 1);
    }

    #[test]
    fn an_import_replaces_only_when_asked_and_keeps_a_copy() {
        let temp = tempfile::tempdir().expect("temp dir");
        let store = IdentityStore::open(temp.path()).expect("there");
        let old = store.load_or_create().expect("loads");
        let keys = AgentKeys { agent: key(5), kem: kem_key(5), generation: 0, certificate: None };
        let refused = store.import_agent(&keys, NOW, Replace::Never);
        assert!(matches!(refused, Err(StoreError::Exists { .. })));
        assert_eq!(
            store.load_or_create().expect("loads").agent.public_key(),
            old.agent.public_key()
        );

        for _ in 0..2 {
            store.import_agent(&keys, NOW, Replace::KeepCopy).expect("replaced");
        }
        let new = store.load_or_create().expect("loads");
        assert_eq!(new.agent.public_key(), key(5).public_key());
        assert_eq!(new.machine.public_key(), old.machine.public_key());
        let copy =
            temp.path().join(format!("agent.key.{}", old.agent.public_key().agent_id().short()));
        assert_eq!(fs::read(&copy).expect("kept"), *old.agent.to_pkcs8());
        assert_eq!(mode(&copy), 0o600);

        write(&temp.path().join("agent.generation"), b"many\n");
        let error = store.load_or_create().expect_err("damaged");
        assert!(error.to_string().contains("agent.generation"), "{error}");
    }
}
