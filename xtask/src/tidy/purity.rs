//! Pure files hold no clock, socket, thread, runtime, unseeded randomness or hash-order collection;
//! the QUIC library is named in one folder; no channel is unbounded.

use super::finding::Finding;
use super::source::{SourceFile, Word};

/// Names of pure files: the stem, or its part before the first `_`, or a folder below `src/`.
const PURE_NAMES: [&str; 7] = ["state", "wire", "frame", "view", "log", "run", "hyparview"];

/// Crates whose files of those names are protocol machines and messages.
const PROTOCOL_CRATES: [&str; 13] = [
    "identity",
    "transport",
    "gossip-membership",
    "gossip-pubsub",
    "gossip-crdt",
    "presence",
    "rendezvous",
    "trust",
    "direct",
    "files",
    "mls",
    "groups",
    "testkit",
];

/// Files of `core` that may name the system's clock: the one that reads it, so that everything else
/// can be handed one, and the crate root that re-exports it.
const CLOCK_FILES: [&str; 2] = ["time.rs", "lib.rs"];

/// Words that have no place in a pure file, and why.
const BANNED_WORDS: [(&str, &str); 18] = [
    ("tokio", "no async runtime"),
    ("tokio_util", "no async runtime"),
    ("futures_util", "no async runtime"),
    ("async", "no async code"),
    ("await", "no async code"),
    ("spawn", "no tasks or threads"),
    ("Instant", "the time is an argument"),
    ("SystemTime", "the time is an argument"),
    ("SystemClock", "the time is an argument"),
    ("UdpSocket", "no sockets"),
    ("TcpStream", "no sockets"),
    ("TcpListener", "no sockets"),
    ("thread_rng", "randomness comes from the caller's seed"),
    ("getrandom", "randomness comes from the caller's seed"),
    ("OsRng", "randomness comes from the caller's seed"),
    ("HashMap", "hash order is not deterministic; use BTreeMap or IndexedSet"),
    ("HashSet", "hash order is not deterministic; use BTreeSet or IndexedSet"),
    ("DefaultHasher", "hash order is not deterministic"),
];

/// Paths that have no place in a pure file, and why.
const BANNED_PATHS: [(&[&str], &str); 4] = [
    (&["std", "fs"], "no files"),
    (&["std", "env"], "no environment"),
    (&["std", "thread"], "no threads"),
    (&["rand", "rng"], "randomness comes from the caller's seed"),
];

/// Channels without a bound, by the names of tokio, futures and crossbeam.
const UNBOUNDED: [&str; 3] = ["unbounded_channel", "UnboundedSender", "UnboundedReceiver"];
const MPSC: &[&str] = &["mpsc", "unbounded"];

/// Checks the words of a file.
pub(super) fn check(file: &SourceFile) -> Vec<Finding> {
    if file.is_test_file() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if is_pure(file) {
        findings.extend(impurities(file));
    }
    let quinn_allowed = may_name_quinn(&file.parts());
    for (index, word) in file.words.iter().enumerate() {
        if matches!(word.text.as_str(), "quinn" | "quinn_proto") && !quinn_allowed {
            let message = "`quinn` is named outside crates/transport/src/engine".to_owned();
            findings.push(Finding::error("quinn-seam", &file.path, "quinn", message).at(word.line));
        }
        if UNBOUNDED.contains(&word.text.as_str()) || starts_path(&file.words[index..], MPSC) {
            let message = format!("`{}`: every queue has a named bound", word.text);
            findings
                .push(Finding::error("unbounded", &file.path, &word.text, message).at(word.line));
        }
    }
    findings
}

fn is_pure(file: &SourceFile) -> bool {
    match file.parts().as_slice() {
        ["crates", "core", "src", inner @ ..] => {
            !matches!(inner, [name] if CLOCK_FILES.contains(name))
        }
        ["crates", name, "src", inner @ ..] => {
            PROTOCOL_CRATES.contains(name)
                && inner.iter().any(|part| {
                    let stem = part.strip_suffix(".rs").unwrap_or(part);
                    let head = stem.split('_').next().unwrap_or(stem);
                    PURE_NAMES.contains(&head)
                })
        }
        _ => false,
    }
}

fn may_name_quinn(parts: &[&str]) -> bool {
    matches!(parts, ["crates", "transport", "src", "engine" | "engine.rs", ..])
        || matches!(parts, ["crates", "bench", ..])
}

fn impurities(file: &SourceFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut report = |word: &Word, name: String, reason: &str| {
        let message = format!("`{name}` in a pure file: {reason}");
        findings.push(Finding::error("pure-file", &file.path, name, message).at(word.line));
    };
    for (index, word) in file.words.iter().enumerate() {
        if let Some((name, reason)) = BANNED_WORDS.iter().find(|(name, _)| word.text == *name) {
            report(word, (*name).to_owned(), reason);
        }
        for (path, reason) in BANNED_PATHS {
            if starts_path(&file.words[index..], path) {
                report(word, path.join("::"), reason);
            }
        }
    }
    findings
}

fn starts_path(words: &[Word], path: &[&str]) -> bool {
    words.len() >= path.len()
        && words.iter().zip(path).all(|(word, part)| word.text == *part)
        && words[..path.len() - 1].iter().all(|word| word.joined)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn items(path: &str, content: &str) -> Vec<String> {
        check(&SourceFile::parse(Path::new(path), content).unwrap())
            .into_iter()
            .map(|finding| finding.item)
            .collect()
    }

    #[test]
    fn a_machine_may_not_read_a_clock_or_spawn() {
        let content =
            "fn a() { let t = std::time::Instant::now(); task.spawn(); std::fs::read(p) }";
        let found = items("crates/direct/src/state.rs", content);
        assert_eq!(found, ["Instant", "spawn", "std::fs"]);
        assert_eq!(items("crates/direct/src/state/inbox.rs", content).len(), 3);
        assert_eq!(items("crates/direct/src/wire_v2.rs", content).len(), 3);
        assert!(items("crates/direct/src/driver.rs", content).is_empty());
        assert!(items("crates/daemon/src/log.rs", content).is_empty());
    }

    #[test]
    fn core_is_pure_but_for_the_clock() {
        let content = "use std::time::Instant;";
        assert_eq!(items("crates/core/src/id.rs", content), ["Instant"]);
        assert!(items("crates/core/src/time.rs", content).is_empty());
    }

    #[test]
    fn macros_are_looked_into_and_tests_are_not() {
        let content = "fn a() { m!(HashMap::new()) }\n#[cfg(test)]\nmod tests { use tokio; }";
        assert_eq!(items("crates/direct/src/state.rs", content), ["HashMap"]);
    }

    #[test]
    fn quinn_has_one_home() {
        let content = "use quinn::Endpoint;";
        assert_eq!(items("crates/transport/src/driver.rs", content), ["quinn"]);
        assert!(items("crates/transport/src/engine/quic.rs", content).is_empty());
        assert!(items("crates/transport/tests/hostile.rs", content).is_empty());
    }

    #[test]
    fn unbounded_channels_are_refused_everywhere() {
        let content = "fn a() { let (tx, rx) = mpsc::unbounded_channel(); }";
        assert_eq!(items("crates/daemon/src/ws.rs", content), ["unbounded_channel"]);
        assert_eq!(items("crates/daemon/src/ws.rs", "use futures::mpsc::unbounded;"), ["mpsc"]);
        assert!(items("crates/daemon/src/ws.rs", "fn a() { let unbounded = 1; }").is_empty());
    }
}
