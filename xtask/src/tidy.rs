//! `cargo xtask tidy`: the house rules that a machine can hold.
//!
//! Each rule is a file below `tidy/` whose checks are plain functions from text to findings, so that
//! they are tested on small samples. Exceptions live in `xtask/tidy-allow.toml`, each with a reason;
//! an exception that no longer excuses anything is itself a failure.

mod allow;
mod finding;
mod graph;
mod manifest;
mod purity;
mod size;
mod skeleton;
mod source;
mod text;

use anyhow::{Context, Result, bail};
use cargo_metadata::MetadataCommand;

use crate::workspace;
use allow::AllowList;
use finding::{Finding, Severity};
use source::SourceFile;

/// Runs every rule, prints the findings, and fails if any of them is an error.
pub(crate) fn run() -> Result<()> {
    let root = workspace::root()?;
    let mut findings = Vec::new();

    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("cargo metadata failed")?;
    findings.extend(graph::check(&metadata));
    findings.extend(manifest::check(&root, &metadata)?);
    findings.extend(skeleton::check(&root)?);

    for path in workspace::files(&root, ".")? {
        let bytes = std::fs::read(root.join(&path))?;
        let Ok(content) = String::from_utf8(bytes) else { continue };
        findings.extend(text::check(&path, &content));
        if path.extension().is_some_and(|extension| extension == "rs") {
            let file = SourceFile::parse(&path, &content)?;
            findings.extend(size::check(&file));
            findings.extend(purity::check(&file));
        }
    }

    let allow = AllowList::read(&root.join("xtask/tidy-allow.toml"))?;
    report(allow.apply(findings))
}

fn report(mut findings: Vec<Finding>) -> Result<()> {
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    let warnings = findings.len() - errors;
    println!("tidy: {errors} errors, {warnings} warnings");
    if errors > 0 {
        bail!("tidy found {errors} errors");
    }
    Ok(())
}
