//! Files are private, reused, and gone when they should be.

use std::{fs, path::Path};

use x0x_agent::private_file::make_folder;
use x0x_api::instance::PORT_FILE;

use super::*;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[cfg(unix)]
fn restrict(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
}

#[cfg(not(unix))]
fn restrict(_: &Path, _: u32) {}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).expect("it exists").permissions().mode() & 0o777
}

#[test]
fn a_token_is_made_once_and_kept() {
    let directory = directory();
    let token = ApiToken::load_or_create(directory.path()).expect("made");
    let text = fs::read_to_string(directory.path().join("api-token")).expect("written");
    assert_eq!(text, token.as_str());
    assert_eq!(text.len(), 64);
    assert!(text.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let again = ApiToken::load_or_create(directory.path()).expect("read");
    assert_eq!(again.as_str(), token.as_str());
    assert!(token.matches(text.as_bytes()));
    assert!(!token.matches(&text.as_bytes()[..63]));
    assert!(!token.matches(b""));
    assert_eq!(format!("{token:?}"), "ApiToken(..)");
}

#[test]
fn an_unusable_token_is_replaced() {
    for text in ["", "short", "with space 0123456789012345678901234567890", "\u{e4}\u{e4}"] {
        let directory = directory();
        fs::write(directory.path().join("api-token"), text).expect("written");
        restrict(&directory.path().join("api-token"), 0o600);
        let token = ApiToken::load_or_create(directory.path()).expect("made");
        assert_eq!(token.as_str().len(), 64, "{text:?}");
    }
    let directory = directory();
    let own = "a-token-of-my-own-choice-0123456789";
    fs::write(directory.path().join("api-token"), format!("{own}\n")).expect("written");
    restrict(&directory.path().join("api-token"), 0o600);
    assert_eq!(ApiToken::load_or_create(directory.path()).expect("read").as_str(), own);
}

#[cfg(unix)]
#[test]
fn secrets_are_private_whatever_was_there() {
    let base = directory();
    let data = base.path().join("a/b");
    make_folder(&data).expect("made");
    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&base.path().join("a")), 0o700);
    ApiToken::load_or_create(&data).expect("made");
    assert_eq!(mode(&data.join("api-token")), 0o600);
    let names: Vec<_> = fs::read_dir(&data).expect("there").flatten().collect();
    assert_eq!(names.len(), 1, "no temporary file stays");
}

#[cfg(unix)]
#[test]
fn a_token_that_others_could_read_is_replaced() {
    let directory = directory();
    let path = directory.path().join("api-token");
    let old = ApiToken::load_or_create(directory.path()).expect("made");
    for exposed in [0o644, 0o640, 0o620] {
        restrict(&path, exposed);
        let new = ApiToken::load_or_create(directory.path()).expect("made");
        assert!(!new.matches(old.as_str().as_bytes()), "{exposed:o}");
        assert_eq!(mode(&path), 0o600);
    }
}

#[cfg(unix)]
#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let directory = directory();
    for shared in [0o777, 0o720, 0o702] {
        restrict(directory.path(), shared);
        let error = make_folder(directory.path()).expect_err("others may write");
        assert!(error.to_string().contains("chmod 700"), "{error}");
    }
    for fine in [0o700, 0o755] {
        restrict(directory.path(), fine);
        make_folder(directory.path()).expect("only its owner writes");
    }
}

#[test]
fn the_port_file_lives_as_long_as_its_owner() {
    let directory = directory();
    let path = directory.path().join(PORT_FILE);
    let address = "127.0.0.1:4321".parse().expect("an address");
    let file = PortFile::write(directory.path(), address).expect("written");
    assert_eq!(fs::read_to_string(&path).expect("there"), "127.0.0.1:4321");
    drop(file);
    assert!(!path.exists());
    fs::write(&path, "left behind").expect("written");
    PortFile::remove_stale(directory.path()).expect("removed");
    assert!(!path.exists());
    PortFile::remove_stale(directory.path()).expect("nothing to remove");
}

#[test]
fn a_directory_has_one_holder() {
    let directory = directory();
    let first = InstanceLock::take(directory.path()).expect("free");
    let error = InstanceLock::take(directory.path()).expect_err("held");
    let LockError::Held { pid, .. } = &error else { panic!("unexpected {error}") };
    assert_eq!(*pid, Some(std::process::id()));
    assert!(error.to_string().contains("another x0xd"));
    drop(first);
    InstanceLock::take(directory.path()).expect("free again");
}

#[cfg(unix)]
#[test]
fn links_in_the_place_of_files_are_refused_and_not_followed() {
    let directory = directory();
    let victim = directory.path().join("victim");
    fs::write(&victim, "keep").expect("written");
    for name in ["api-token", "x0xd.lock"] {
        std::os::unix::fs::symlink(&victim, directory.path().join(name)).expect("linked");
    }
    let error = ApiToken::load_or_create(directory.path()).expect_err("a link");
    assert!(error.to_string().contains("not a regular file"), "{error}");
    let error = InstanceLock::take(directory.path()).expect_err("a link");
    assert!(error.to_string().contains("not a regular file"), "{error}");
    assert_eq!(fs::read_to_string(&victim).expect("still there"), "keep");
}
