//! The list of exceptions, each with its reason.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::finding::Finding;

/// The parsed `tidy-allow.toml`: `[[allow]]` tables of `rule`, `path`, `item` and `reason`.
#[derive(Debug, Default)]
pub(super) struct AllowList {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    rule: String,
    path: String,
    item: String,
}

impl AllowList {
    /// Reads the list from a file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let table: toml::Table = text.parse()?;
        let Some(list) = table.get("allow") else { return Ok(Self::default()) };
        let list = list.as_array().context("`allow` is not a list of tables")?;
        let mut entries = Vec::with_capacity(list.len());
        for value in list {
            let field = |name: &str| {
                let value = value.get(name).and_then(toml::Value::as_str).unwrap_or_default();
                if value.is_empty() {
                    bail!("an entry has no `{name}`");
                }
                Ok(value.to_owned())
            };
            field("reason")?;
            entries.push(Entry {
                rule: field("rule")?,
                path: field("path")?,
                item: field("item")?,
            });
        }
        Ok(Self { entries })
    }

    /// Removes what the list excuses, and reports the entries that excuse nothing.
    pub(super) fn apply(&self, findings: Vec<Finding>) -> Vec<Finding> {
        let mut used = vec![false; self.entries.len()];
        let mut kept = Vec::with_capacity(findings.len());
        for finding in findings {
            match self.entries.iter().position(|entry| entry.excuses(&finding)) {
                Some(index) => used[index] = true,
                None => kept.push(finding),
            }
        }
        for (entry, used) in self.entries.iter().zip(used) {
            if !used {
                let message =
                    format!("the exception for {} excuses nothing; remove it", entry.item);
                kept.push(Finding::error("stale-exception", &entry.path, &entry.item, message));
            }
        }
        kept
    }
}

impl Entry {
    fn excuses(&self, finding: &Finding) -> bool {
        self.rule == finding.rule
            && finding.path == Path::new(&self.path)
            && self.item == finding.item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"
        [[allow]]
        rule = "function-length"
        path = "a.rs"
        item = "long"
        reason = "one match over a closed table"
    "#;

    #[test]
    fn an_entry_excuses_its_finding_only() {
        let list = AllowList::parse(LIST).unwrap();
        let excused = Finding::error("function-length", "a.rs", "long", "too long").at(4);
        let other = Finding::error("function-length", "a.rs", "longer", "too long");
        assert_eq!(list.apply(vec![excused, other.clone()]), [other]);
    }

    #[test]
    fn an_entry_that_excuses_nothing_is_reported() {
        let kept = AllowList::parse(LIST).unwrap().apply(Vec::new());
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].rule, "stale-exception");
    }

    #[test]
    fn an_entry_needs_a_reason() {
        let text = LIST.replace("one match over a closed table", "");
        assert!(AllowList::parse(&text).is_err());
    }
}
