//! Manifests inherit: one version, one lint list, one place for each dependency's requirement.

use std::path::Path;

use anyhow::{Context, Result};
use cargo_metadata::Metadata;
use toml::{Table, Value};

use super::finding::Finding;
use super::graph::manifest_path;

/// Keys of `[package]` that every member takes from the workspace.
const INHERITED: [&str; 5] = ["version", "edition", "rust-version", "license", "publish"];
const DEPENDENCY_TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// Checks every member's manifest, and the internal entries of the root manifest.
pub(super) fn check(root: &Path, metadata: &Metadata) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for package in metadata.workspace_packages() {
        let path = manifest_path(metadata, package);
        findings.extend(check_member(&path, &read(root, &path)?));
    }
    findings.extend(check_root(&read(root, "Cargo.toml")?));
    Ok(findings)
}

fn read(root: &Path, path: &str) -> Result<Table> {
    let text =
        std::fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))?;
    text.parse().with_context(|| format!("in {path}"))
}

fn inherits(value: Option<&Value>) -> bool {
    value.and_then(|value| value.get("workspace")).and_then(Value::as_bool) == Some(true)
}

fn check_member(path: &str, manifest: &Table) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut report = |item: &str, message: String| {
        findings.push(Finding::error("manifest", path, item, message));
    };
    let package = manifest.get("package");
    for key in INHERITED {
        if !inherits(package.and_then(|package| package.get(key))) {
            report(key, format!("`package.{key}` is not inherited from the workspace"));
        }
    }
    if package.and_then(|package| package.get("description")).is_none() {
        report("description", "`package.description` is missing".to_owned());
    }
    if !inherits(manifest.get("lints")) {
        report("lints", "`lints` is not inherited from the workspace".to_owned());
    }
    for table in DEPENDENCY_TABLES {
        let Some(table) = manifest.get(table).and_then(Value::as_table) else { continue };
        for (name, value) in table {
            // A crate's tests may depend on the crate itself, for its `test-util` feature.
            let itself = value.get("path").and_then(Value::as_str) == Some(".");
            if !inherits(Some(value)) && !itself {
                report(name, format!("`{name}` is not taken from `workspace.dependencies`"));
            }
        }
    }
    findings
}

fn check_root(manifest: &Table) -> Vec<Finding> {
    let workspace = manifest.get("workspace");
    let version = workspace
        .and_then(|workspace| workspace.get("package"))
        .and_then(|package| package.get("version"))
        .and_then(Value::as_str);
    let dependencies = workspace
        .and_then(|workspace| workspace.get("dependencies"))
        .and_then(Value::as_table)
        .into_iter()
        .flatten();
    let mut findings = Vec::new();
    for (name, value) in dependencies.filter(|(name, _)| name.starts_with("x0x-")) {
        if value.get("path").is_none() {
            let message = format!("`{name}` is ours and has no `path`");
            findings.push(Finding::error("manifest", "Cargo.toml", name, message));
        }
        // An unpublished crate carries a path alone, so that publishing strips it.
        if let Some(own) = value.get("version").and_then(Value::as_str)
            && Some(own) != version
        {
            let message = format!("`{name}` is out of step with the workspace's version");
            findings.push(Finding::error("manifest", "Cargo.toml", name, message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        text.parse().unwrap()
    }

    #[test]
    fn a_member_inherits_everything() {
        let good = table(
            "package = { description = 'a', version.workspace = true, edition.workspace = true, \
             rust-version.workspace = true, license.workspace = true, publish.workspace = true }\n\
             lints.workspace = true\n\
             [dependencies]\nbytes.workspace = true\n\
             [dev-dependencies]\nitself = { path = '.', features = ['test-util'] }",
        );
        assert!(check_member("a", &good).is_empty());
        let bad = table("[package]\nversion = '1.0.0'\n[dependencies]\nbytes = '1'");
        let items: Vec<_> = check_member("a", &bad).into_iter().map(|f| f.item).collect();
        assert_eq!(items.len(), INHERITED.len() + 3);
        assert!(items.contains(&"bytes".to_owned()));
    }

    #[test]
    fn internal_entries_keep_step() {
        let root = table(
            "[workspace.package]\nversion = '0.2.0'\n[workspace.dependencies]\n\
             x0x-a = { path = 'a', version = '0.2.0' }\nx0x-b = { path = 'b', version = '0.1.0' }\n\
             x0x-c = { version = '0.2.0' }\nx0x-d = { path = 'd' }\nbytes = '1'",
        );
        let items: Vec<_> = check_root(&root).into_iter().map(|f| f.item).collect();
        assert_eq!(items, ["x0x-b", "x0x-c"]);
    }
}
