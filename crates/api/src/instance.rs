//! How a daemon and its clients find each other on one machine: the names of folders, files and
//! environment variables.
//!
//! A daemon keeps its files in its data folder: `x0x`, or `x0x-NAME` for a named instance, below the
//! platform's data folder, unless the environment or the configuration file names another. The
//! configuration file is `config.toml` in a folder of the same name below the platform's
//! configuration folder, unless the environment names another.

/// Holds `ip:port` of the API while a daemon runs.
pub const PORT_FILE: &str = "api.port";
/// Holds the API's bearer token.
pub const TOKEN_FILE: &str = "api-token";
/// Locked by a daemon for as long as it runs; holds its process id.
pub const LOCK_FILE: &str = "x0xd.lock";
/// Holds what a daemon in the background says, of its latest start.
pub const LOG_FILE: &str = "x0xd.log";
/// The configuration file.
pub const CONFIG_FILE: &str = "config.toml";

/// Environment variable with the path of the configuration file.
pub const CONFIG_VARIABLE: &str = "X0X_CONFIG";
/// Environment variable with the path of the data folder; wins over the configuration file.
pub const DATA_VARIABLE: &str = "X0X_DATA_DIR";
/// Environment variable with the path of the file that standard error goes to. Whoever starts a daemon
/// in the background sets it; the daemon keeps the file small, and names it.
pub const LOG_VARIABLE: &str = "X0X_BACKGROUND_LOG";
/// Environment variable with the instance's name; wins over the configuration file.
pub const NAME_VARIABLE: &str = "X0X_NAME";

/// Exit code of a daemon that does not start because of its configuration: `EX_CONFIG` of `sysexits.h`.
pub const EXIT_CONFIG: u8 = 78;

/// Longest instance name.
pub const MAX_NAME: usize = 64;

/// What an instance's folders are called.
#[must_use]
pub fn folder(name: Option<&str>) -> String {
    name.map_or_else(|| "x0x".to_owned(), |name| format!("x0x-{name}"))
}

/// The name of the instance that a folder belongs to: `None` inside for the one without a name,
/// `None` when it is no instance's folder.
#[must_use]
pub fn name_of_folder(folder: &str) -> Option<Option<&str>> {
    match folder {
        "x0x" => Some(None),
        _ => folder.strip_prefix("x0x-").map(Some),
    }
}

/// Whether this is an instance name: 1 to [`MAX_NAME`] letters, digits and `-`, not starting with
/// `-`. It is part of folders' names, so that it holds nothing that a path gives a meaning.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let starts_well = text.starts_with(|first: char| first.is_ascii_alphanumeric());
    let only_known = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    starts_well && only_known && text.len() <= MAX_NAME
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_carry_names() {
        for name in [None, Some("alice"), Some("a-1")] {
            assert_eq!(name_of_folder(&folder(name)), Some(name));
        }
        assert_eq!(name_of_folder("other"), None);
    }

    #[test]
    fn names_are_safe_in_paths() {
        let longest = "a".repeat(MAX_NAME);
        for good in ["a", "alice-2", "7", longest.as_str()] {
            assert!(is_name(good), "{good}");
        }
        let long = "a".repeat(MAX_NAME + 1);
        for bad in ["", "-a", "../a", "a/b", "a b", "a_b", "\u{e4}", long.as_str()] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
