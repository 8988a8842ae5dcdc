//! The table `[files]`: where received files go, and which are accepted without a question.

use std::{fmt, path::PathBuf};

use serde::Deserialize;
use x0x_agent::{AcceptRule, trust::Level};

use super::{ConfigError, path_value};

/// Bytes of the disk that received files leave free.
const DEFAULT_KEEP_FREE: u64 = 64 * 1024 * 1024;
/// Most rules.
const MAX_RULES: usize = 64;

/// How files are received.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilesSettings {
    /// Where they go, if not into `downloads` in the data directory.
    pub folder: Option<PathBuf>,
    /// Bytes of the disk that they leave free.
    pub keep_free: u64,
    /// Which are accepted without a question; the first rule that holds counts.
    pub accept: Vec<FileRule>,
}

/// Accepts files of those trusted at least this much, up to a size.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileRule {
    /// Unknown, known or trusted.
    pub trust: Level,
    /// Largest file in bytes.
    pub max_bytes: u64,
    /// Where they go, if not where others go.
    pub folder: Option<PathBuf>,
}

impl Default for FilesSettings {
    fn default() -> Self {
        Self { folder: None, keep_free: DEFAULT_KEEP_FREE, accept: Vec::new() }
    }
}

impl FilesSettings {
    /// The rules as the agent takes them.
    pub(crate) fn rules(&self) -> Vec<AcceptRule> {
        let rule = |rule: &FileRule| AcceptRule {
            strangers: rule.trust <= Level::Unknown,
            known: rule.trust <= Level::Known,
            trusted: true,
            max_size: rule.max_bytes,
            folder: rule.folder.clone(),
        };
        self.accept.iter().map(rule).collect()
    }
}

/// The table as it is in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct FilesTable {
    folder: Option<PathBuf>,
    keep_free_bytes: Option<u64>,
    accept: Vec<RuleTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleTable {
    trust: Level,
    max_bytes: u64,
    folder: Option<PathBuf>,
}

#[cfg(test)]
impl RuleTable {
    /// The names of its keys.
    pub(super) const KEYS: &[&str] = &["trust", "max_bytes", "folder"];
}

impl FilesTable {
    /// The names of its keys.
    pub(super) const KEYS: &[&str] = &["folder", "keep_free_bytes", "accept"];

    pub(super) fn apply(self, files: &mut FilesSettings) -> Result<(), ConfigError> {
        files.folder = self.folder.map(|path| absolute("files.folder", path)).transpose()?;
        files.keep_free = self.keep_free_bytes.unwrap_or(files.keep_free);
        if self.accept.len() > MAX_RULES {
            let reason = format!("more than {MAX_RULES} rules");
            return Err(ConfigError::Value { key: "files.accept", reason });
        }
        for RuleTable { trust, max_bytes, folder } in self.accept {
            if trust == Level::Blocked {
                let reason = "nothing of blocked agents is ever accepted".to_owned();
                return Err(ConfigError::Value { key: "files.accept.trust", reason });
            }
            let folder = folder.map(|path| absolute("files.accept.folder", path)).transpose()?;
            files.accept.push(FileRule { trust, max_bytes, folder });
        }
        Ok(())
    }
}

fn absolute(key: &'static str, path: PathBuf) -> Result<PathBuf, ConfigError> {
    if path.is_absolute() {
        return Ok(path);
    }
    let reason = format!("{} is not an absolute path", path.display());
    Err(ConfigError::Value { key, reason })
}

/// As a part of a file that gives these settings.
impl fmt::Display for FilesSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[files]\nkeep_free_bytes = {}", self.keep_free)?;
        if let Some(folder) = &self.folder {
            writeln!(f, "folder = {}", path_value(folder))?;
        }
        for rule in &self.accept {
            writeln!(f, "\n[[files.accept]]\ntrust = \"{}\"", rule.trust)?;
            writeln!(f, "max_bytes = {}", rule.max_bytes)?;
            if let Some(folder) = &rule.folder {
                writeln!(f, "folder = {}", path_value(folder))?;
            }
        }
        Ok(())
    }
}
