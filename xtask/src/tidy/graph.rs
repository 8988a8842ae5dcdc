//! The dependency direction between the workspace's crates.

use std::collections::BTreeSet;

use cargo_metadata::{Dependency, DependencyKind, Metadata, Package};

use super::finding::Finding;

/// The crates of the layers, lowest first.
const LAYERS: [&str; 14] = [
    "x0x-core",
    "x0x-identity",
    "x0x-transport",
    "x0x-trust",
    "x0x-gossip-membership",
    "x0x-gossip-pubsub",
    "x0x-gossip-crdt",
    "x0x-presence",
    "x0x-rendezvous",
    "x0x-direct",
    "x0x-files",
    "x0x-mls",
    "x0x-groups",
    "x0x-store",
];

/// What each crate's code may depend on. A crate that is not listed may depend on none of ours.
const ALLOWED: [(&str, &[&str]); 21] = [
    ("x0x-core", &[]),
    ("x0x-identity", &["x0x-core"]),
    ("x0x-transport", &["x0x-core", "x0x-identity"]),
    ("x0x-trust", &["x0x-core", "x0x-identity"]),
    ("x0x-mls", &["x0x-core", "x0x-identity"]),
    ("x0x-gossip-membership", &["x0x-core", "x0x-transport"]),
    ("x0x-gossip-pubsub", &["x0x-core", "x0x-identity", "x0x-transport", "x0x-gossip-membership"]),
    ("x0x-gossip-crdt", &["x0x-core", "x0x-identity", "x0x-gossip-pubsub"]),
    ("x0x-presence", &["x0x-core", "x0x-identity", "x0x-transport", "x0x-gossip-membership"]),
    ("x0x-rendezvous", &["x0x-core", "x0x-identity", "x0x-transport", "x0x-gossip-pubsub"]),
    ("x0x-direct", &["x0x-core", "x0x-identity", "x0x-trust", "x0x-transport"]),
    ("x0x-files", &["x0x-core", "x0x-identity", "x0x-trust", "x0x-transport"]),
    ("x0x-groups", &["x0x-core", "x0x-identity", "x0x-mls", "x0x-trust", "x0x-gossip-pubsub"]),
    ("x0x-store", &LAYERS),
    ("x0x-agent", &LAYERS),
    ("x0x-api", &["x0x-core"]),
    ("x0x-daemon", &["x0x-core", "x0x-agent", "x0x-api"]),
    ("x0x-cli", &["x0x-api"]),
    ("x0x-mcp", &["x0x-api"]),
    ("x0x-bench", &["x0x-api"]),
    (
        "x0x-testkit",
        &[
            "x0x-core",
            "x0x-identity",
            "x0x-transport",
            "x0x-gossip-membership",
            "x0x-gossip-pubsub",
            "x0x-gossip-crdt",
            "x0x-groups",
            "x0x-presence",
            "x0x-rendezvous",
        ],
    ),
];

/// What the tests of a crate may depend on besides: those of the daemon play hostile peers, which are made
/// of the layers themselves; those of objects run over gossip in memory, below which are sessions in memory.
const TESTS_ALLOWED: [(&str, &[&str]); 2] = [
    (
        "x0x-daemon",
        &[
            "x0x-identity",
            "x0x-transport",
            "x0x-gossip-membership",
            "x0x-gossip-pubsub",
            "x0x-rendezvous",
        ],
    ),
    ("x0x-gossip-crdt", &["x0x-transport"]),
];

/// Crates that bring the whole composition together; the others take their neighbours without
/// default features, so that a pure core never pulls in a driver.
const COMPOSERS: [&str; 2] = ["x0x-agent", "x0x-store"];

/// Libraries that only the named crates may depend on.
const SEAMS: [(&str, &[&str]); 5] = [
    ("quinn-proto", &["x0x-transport"]),
    ("quinn", &["x0x-transport", "x0x-bench"]),
    ("rustls", &["x0x-transport", "x0x-bench"]),
    ("axum", &["x0x-daemon"]),
    ("rusqlite", &["x0x-store"]),
];

/// Checks every package of the workspace.
pub(super) fn check(metadata: &Metadata) -> Vec<Finding> {
    let packages = metadata.workspace_packages();
    let ours: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let with_defaults: BTreeSet<&str> = packages
        .iter()
        .filter(|package| package.features.contains_key("default"))
        .map(|package| package.name.as_str())
        .collect();
    let mut findings = Vec::new();
    for package in packages {
        let path = manifest_path(metadata, package);
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            let broken = if ours.contains(name) {
                let with_defaults = with_defaults.contains(name);
                edge_broken(package.name.as_str(), dependency, with_defaults)
            } else {
                seam_broken(package.name.as_str(), name)
            };
            if let Some(message) = broken {
                findings.push(Finding::error("dependency-direction", &path, name, message));
            }
        }
    }
    findings
}

/// A package's manifest, relative to the workspace root.
pub(super) fn manifest_path(metadata: &Metadata, package: &Package) -> String {
    let path = &package.manifest_path;
    path.strip_prefix(&metadata.workspace_root).unwrap_or(path).to_string()
}

fn edge_broken(package: &str, dependency: &Dependency, has_defaults: bool) -> Option<String> {
    let name = dependency.name.as_str();
    let allowed = ALLOWED.iter().find(|(crate_name, _)| *crate_name == package);
    let allowed = allowed.map_or(&[][..], |(_, list)| *list);
    if dependency.kind == DependencyKind::Development {
        let besides = TESTS_ALLOWED.iter().find(|(crate_name, _)| *crate_name == package);
        let besides = besides.is_some_and(|(_, list)| list.contains(&name));
        let fine = name == package || name == "x0x-testkit" || allowed.contains(&name) || besides;
        return (!fine).then(|| format!("{package}'s tests may not depend on {name}"));
    }
    if !allowed.contains(&name) {
        return Some(format!("{package} may not depend on {name}; see ARCHITECTURE.md"));
    }
    let layer = LAYERS.contains(&package) && !COMPOSERS.contains(&package);
    let defaults = dependency.uses_default_features && has_defaults;
    (layer && defaults).then(|| {
        format!("{package} takes {name} with default features; take its pure part and its trait")
    })
}

fn seam_broken(package: &str, dependency: &str) -> Option<String> {
    let (_, homes) = SEAMS.iter().find(|(name, _)| *name == dependency)?;
    (!homes.contains(&package))
        .then(|| format!("only {} may depend on {dependency}", homes.join(" and ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_points_downwards_only() {
        for (name, allowed) in ALLOWED {
            let Some(rank) = LAYERS.iter().position(|layer| *layer == name) else { continue };
            if COMPOSERS.contains(&name) {
                continue;
            }
            for dependency in allowed {
                let below = LAYERS.iter().position(|layer| layer == dependency).unwrap();
                assert!(below < rank, "{name} -> {dependency}");
            }
        }
    }

    #[test]
    fn seams_name_their_homes() {
        assert!(seam_broken("x0x-transport", "quinn").is_none());
        assert!(seam_broken("x0x-agent", "quinn").is_some());
        assert!(seam_broken("x0x-agent", "bytes").is_none());
    }

    #[test]
    fn a_sideways_edge_and_default_features_are_refused() {
        let parse = |text: &str| -> Dependency { cargo_metadata_dependency(text) };
        let sideways = parse("x0x-presence");
        assert!(edge_broken("x0x-direct", &sideways, false).unwrap().contains("may not"));
        let downwards = parse("x0x-transport");
        assert!(edge_broken("x0x-direct", &downwards, false).is_none());
        assert!(edge_broken("x0x-direct", &downwards, true).unwrap().contains("default features"));
        assert!(edge_broken("x0x-agent", &downwards, true).is_none());
        assert!(edge_broken("xtask", &downwards, false).is_some());
    }

    fn cargo_metadata_dependency(name: &str) -> Dependency {
        let text = format!(
            r#"{{"name":"{name}","source":null,"req":"^0.1","kind":null,"optional":false,
               "uses_default_features":true,"features":[],"target":null,"rename":null,
               "registry":null,"path":null}}"#
        );
        serde_json::from_str(&text).unwrap()
    }
}
