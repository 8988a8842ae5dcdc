//! Damage is never believed, never fatal, and never silent.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use x0x_identity::{AgentBinding, SignedRevocation, testing::key};

use super::*;
use crate::{Change, IdentityType, Level};

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);

/// Contacts of every kind, and revocations of every kind.
fn state() -> TrustState {
    let (mut state, mut events) = (TrustState::default(), Vec::new());
    let agent = |n| AgentId::new([n; 32]);
    let machine = MachineId::new([9; 32]);
    let revoked = SignedRevocation::of_user(&key(1), NOW, "left \"us\"").expect("short");
    for change in [
        Change::Put { agent: agent(1), level: Level::Blocked, label: Some("Eve ü".to_owned()) },
        Change::Put { agent: agent(2), level: Level::Trusted, label: None },
        Change::PutMachine {
            agent: agent(2),
            machine,
            label: Some("desk".to_owned()),
            pinned: true,
        },
        Change::PutPlace {
            agent: agent(2),
            machine,
            addresses: vec![
                ([192, 0, 2, 1], 5483).into(),
                ([0xfd00, 0, 0, 0, 0, 0, 0, 1], 1).into(),
            ],
        },
        Change::Update { agent: agent(3), level: None, identity_type: Some(IdentityType::Trusted) },
        Change::Revoke { agent: agent(4), reason: "stolen".to_owned() },
        Change::Learn(revoked.revocation().clone()),
    ] {
        state.apply(NOW, &change, &mut events).expect("fine");
    }
    let binding = AgentBinding {
        agent: agent(3),
        machine,
        not_before: NOW,
        not_after: NOW + Duration::from_secs(60),
        generation: 7,
    };
    state.observe(&binding, NOW, &mut events);
    state.observe_user(agent(3), UserId::new([5; 32]), NOW);
    state
}

fn bytes(state: &TrustState) -> Vec<u8> {
    encode(state).expect("encodes")
}

/// Whole, or the very same content.
fn harmless(good: &[u8], damaged: &[u8]) -> bool {
    decode(damaged).map_or(true, |state| bytes(&state) == good)
}

#[test]
fn what_is_kept_comes_back() {
    let state = state();
    let again = decode(&bytes(&state)).expect("whole");
    assert!(again.contacts().eq(state.contacts()));
    assert!(again.revocations().eq(state.revocations()));
    assert_eq!(again.counts()[..3], [3, 1, 2]);
    assert_eq!(decode(&bytes(&TrustState::default())).map(|state| state.counts()), Ok([0; 4]));
}

#[test]
fn a_cut_at_any_place_shows() {
    let good = bytes(&state());
    // Without the line end the content is whole.
    for length in 0..good.len() - 1 {
        assert!(decode(&good[..length]).is_err(), "cut to {length}");
    }
    assert!(decode(&good[..good.len() - 1]).is_ok());
}

#[test]
fn a_flipped_bit_at_any_place_shows() {
    let good = bytes(&state());
    let mut damaged = good.clone();
    for at in 0..good.len() {
        for bit in 0..8 {
            damaged[at] ^= 1 << bit;
            assert!(harmless(&good, &damaged), "bit {bit} of byte {at}");
            damaged[at] = good[at];
        }
    }
}

#[test]
fn other_versions_and_unknown_fields_are_not_guessed_at() {
    let text = String::from_utf8(bytes(&state())).expect("JSON");
    assert!(decode(text.replace("\"version\": 1", "\"version\": 2").as_bytes()).is_err());
    assert!(
        decode(text.replace("{\n  \"version\"", "{\n  \"x\": 1, \"version\"").as_bytes()).is_err()
    );
    for other in ["", "{}", "null", "[]", r#"{"contacts":[],"revocations":[]}"#] {
        assert!(decode(other.as_bytes()).is_err(), "{other}");
    }
}

struct Folder {
    temp: tempfile::TempDir,
    file: ContactsFile,
}

impl Folder {
    fn new() -> Self {
        let temp = tempfile::tempdir().expect("temp dir");
        let file = ContactsFile::at(temp.path().join("contacts.json"));
        Self { temp, file }
    }

    fn put(&self, path: &Path, content: &[u8]) {
        private_file::replace(path, content, Access::Owner).expect("written");
    }

    fn load(&self) -> (Vec<u8>, Loaded) {
        let (state, loaded) = self.file.load().expect("no error of the disk");
        (bytes(&state), loaded)
    }

    fn names(&self) -> usize {
        fs::read_dir(self.temp.path()).expect("there").count()
    }
}

#[test]
fn the_first_start_and_a_whole_file() {
    let folder = Folder::new();
    assert_eq!(folder.load(), (bytes(&TrustState::default()), Loaded::Fresh));
    assert_eq!(folder.names(), 0, "looking makes no file");
    folder.file.save(&state()).expect("saved");
    assert_eq!(folder.load(), (bytes(&state()), Loaded::Whole));
    let mode = fs::metadata(&folder.file.path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode, folder.names()), (0o600, 2));
}

#[test]
fn whatever_happens_to_the_file_the_backup_takes_its_place() {
    let good = bytes(&state());
    let cut = (0..good.len() - 1).step_by(61).map(|length| good[..length].to_vec());
    let flipped = (0..good.len()).step_by(67).map(|at| {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        bad
    });
    for bad in cut.chain(flipped).filter(|bad| decode(bad).is_err()) {
        let folder = Folder::new();
        folder.file.save(&state()).expect("saved");
        folder.put(&folder.file.path, &bad);
        let (loaded, how) = folder.load();
        assert_eq!(loaded, good);
        let Loaded::FromBackup { damaged: Some(aside) } = how else { panic!("unexpected {how:?}") };
        assert_eq!(fs::read(&aside).expect("kept"), bad, "what was damaged can be looked at");
        assert_eq!(folder.load(), (good.clone(), Loaded::Whole), "repaired");
    }
}

#[test]
fn a_file_that_is_gone_is_not_an_empty_list() {
    let folder = Folder::new();
    folder.file.save(&state()).expect("saved");
    fs::remove_file(&folder.file.path).expect("there");
    assert_eq!(folder.load(), (bytes(&state()), Loaded::FromBackup { damaged: None }));
    fs::remove_file(&folder.file.backup).expect("there");
    assert_eq!(folder.load(), (bytes(&state()), Loaded::Whole), "the file alone is enough");
}

#[test]
fn two_damaged_files_are_told_and_kept() {
    let folder = Folder::new();
    for n in 1..12 {
        folder.put(&folder.file.path, format!("damaged {n}").as_bytes());
        folder.put(&folder.file.backup, b"damaged too");
        let (loaded, how) = folder.load();
        assert_eq!(loaded, bytes(&TrustState::default()));
        let expected = (2 * n).min(MAX_DAMAGED);
        let is_lost = matches!(&how, Loaded::Lost { damaged, .. } if damaged.len() == expected);
        assert!(is_lost, "{how:?}");
    }
    assert_eq!(folder.names(), MAX_DAMAGED + 1, "their number is bounded");
    folder.put(&folder.file.path, b"");
    let (_, how) = folder.load();
    assert!(matches!(how, Loaded::Lost { .. }), "an empty file is damage: {how:?}");
}

#[test]
fn a_loss_is_told_until_somebody_has_seen_to_it() {
    let folder = Folder::new();
    folder.put(&folder.file.path, b"damaged");
    folder.put(&folder.file.backup, b"damaged too");
    let lost = |how: &Loaded| matches!(how, Loaded::Lost { damaged, .. } if damaged.len() == 2);
    for _ in 0..3 {
        let (loaded, how) = folder.load();
        assert!(loaded == bytes(&TrustState::default()) && lost(&how), "{how:?}");
    }
    // A revocation that comes by itself is written, and is no answer to it.
    folder.file.save(&state()).expect("saved");
    let (loaded, how) = folder.load();
    assert!(loaded == bytes(&state()) && lost(&how), "{how:?}");
    fs::remove_file(&folder.file.path).expect("there");
    assert!(lost(&folder.load().1), "nor is the backup");
    let Loaded::Lost { marker, .. } = folder.load().1 else { panic!("it is told") };
    fs::remove_file(marker).expect("there");
    assert_eq!(folder.load(), (bytes(&state()), Loaded::Whole));
}

#[test]
fn a_file_that_others_may_change_is_refused() {
    let folder = Folder::new();
    folder.file.save(&state()).expect("saved");
    fs::set_permissions(&folder.file.path, fs::Permissions::from_mode(0o664)).expect("own file");
    let error = folder.file.load().expect_err("exposed");
    assert!(error.to_string().contains("chmod 600"), "{error}");
}
