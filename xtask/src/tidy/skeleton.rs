//! Every protocol crate has the same shape, and every wire schema its specification.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use super::finding::Finding;
use crate::workspace;

/// Crates with a machine, a driver and a handle.
const PROTOCOL_CRATES: [&str; 8] = [
    "transport",
    "gossip-membership",
    "gossip-pubsub",
    "gossip-crdt",
    "presence",
    "rendezvous",
    "direct",
    "files",
];

/// Modules of a protocol crate; each is a file or a folder.
const MODULES: [&str; 7] = ["config", "wire", "state", "driver", "handle", "error", "metrics"];

/// Checks the crates below `crates/` and the specifications below `docs/protocol/`.
pub(super) fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let files = relative(root, "crates")?;
    let crates: BTreeSet<&str> = files.iter().filter_map(|path| path.split('/').nth(1)).collect();
    for name in crates {
        findings.extend(check_crate(name, &files));
        if let Ok(text) = std::fs::read_to_string(root.join(format!("crates/{name}/src/lib.rs"))) {
            findings.extend(check_guide(name, &text));
        }
    }
    if root.join("docs/protocol").is_dir() {
        findings.extend(check_protocols(&relative(root, "docs/protocol")?));
    }
    Ok(findings)
}

fn relative(root: &Path, folder: &str) -> Result<BTreeSet<String>> {
    let files = workspace::files(root, folder)?;
    Ok(files.iter().filter_map(|path| path.to_str()).map(str::to_owned).collect())
}

fn check_crate(name: &str, files: &BTreeSet<String>) -> Vec<Finding> {
    let folder = format!("crates/{name}");
    let missing = |item: &str, what: &str| {
        Finding::error("crate-skeleton", &folder, item, format!("{what} is missing"))
    };
    let has = |path: &str| files.contains(&format!("{folder}/{path}"));
    let mut findings = Vec::new();
    if !has("README.md") {
        findings.push(missing("README.md", "README.md"));
    }
    if !has("src/lib.rs") && !has("src/main.rs") {
        findings.push(missing("lib.rs", "src/lib.rs or src/main.rs"));
    }
    if PROTOCOL_CRATES.contains(&name) {
        for module in MODULES {
            let file = format!("src/{module}.rs");
            let in_folder = files.iter().any(|path| {
                path.strip_prefix(&folder)
                    .is_some_and(|path| path.starts_with(&format!("/src/{module}/")))
            });
            if !has(&file) && !in_folder {
                findings.push(missing(module, &file));
            }
        }
    }
    findings
}

/// A library opens with a guide that holds an example which runs as a test.
fn check_guide(name: &str, text: &str) -> Vec<Finding> {
    let path = format!("crates/{name}/src/lib.rs");
    if !text.starts_with("//!") {
        return vec![Finding::error("crate-guide", path, "guide", "the file opens with no `//!`")];
    }
    let runs = text.lines().any(|line| {
        let line = line.trim_start();
        let example = line.strip_prefix("//! ```");
        example.is_some_and(|rest| rest.is_empty() || rest == "no_run" || rest == "rust")
    });
    if runs || text.contains("#![doc = include_str!") {
        return Vec::new();
    }
    vec![Finding::error("crate-guide", path, "doctest", "the guide holds no example")]
}

fn check_protocols(files: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        let (stem, extension) = file.rsplit_once('.').unwrap_or((file, ""));
        let other = match extension {
            "proto" => format!("{stem}.md"),
            "md" if !stem.ends_with("/README") => format!("{stem}.proto"),
            _ => continue,
        };
        if !files.contains(&other) {
            let message = format!("{other} is missing: a schema and its prose go together");
            findings.push(Finding::error("protocol-docs", file, other, message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(files: &[&str]) -> BTreeSet<String> {
        files.iter().map(|file| (*file).to_owned()).collect()
    }

    #[test]
    fn a_protocol_crate_has_every_part() {
        let mut files = set(&["crates/direct/README.md", "crates/direct/src/lib.rs"]);
        assert_eq!(check_crate("direct", &files).len(), MODULES.len());
        for module in MODULES.iter().skip(1) {
            files.insert(format!("crates/direct/src/{module}.rs"));
        }
        files.insert("crates/direct/src/config/limits.rs".to_owned());
        assert!(check_crate("direct", &files).is_empty());
    }

    #[test]
    fn other_crates_need_a_readme_and_an_entry() {
        assert_eq!(check_crate("cli", &set(&["crates/cli/Cargo.toml"])).len(), 2);
        let files = set(&["crates/cli/README.md", "crates/cli/src/main.rs"]);
        assert!(check_crate("cli", &files).is_empty());
    }

    #[test]
    fn a_guide_has_a_running_example() {
        assert!(check_guide("a", "//! A.\n//!\n//! ```\n//! a();\n//! ```\n").is_empty());
        assert_eq!(check_guide("a", "//! A.\n//! ```text\n//! ```text\n")[0].item, "doctest");
        assert_eq!(check_guide("a", "mod a;")[0].item, "guide");
    }

    #[test]
    fn schemas_and_specifications_pair_up() {
        let files = set(&["docs/protocol/a.proto", "docs/protocol/a.md", "docs/protocol/b.md"]);
        assert_eq!(check_protocols(&files).len(), 1);
    }
}
