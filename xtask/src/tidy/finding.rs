//! What a rule reports.

use std::fmt;
use std::path::{Path, PathBuf};

/// Whether a finding fails the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    Error,
    Warning,
}

/// One breach of a rule, at a place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    /// Relative to the workspace root.
    pub(super) path: PathBuf,
    /// Counted from 1; 0 when the finding is about the file as a whole.
    pub(super) line: usize,
    /// The rule's name, as the allow-list spells it.
    pub(super) rule: &'static str,
    /// What the finding is about (a function, a dependency, a word), as the allow-list spells it.
    pub(super) item: String,
    pub(super) message: String,
}

impl Finding {
    /// An error about the file as a whole.
    pub(super) fn error(
        rule: &'static str,
        path: impl AsRef<Path>,
        item: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Error,
            path: path.as_ref().to_path_buf(),
            line: 0,
            rule,
            item: item.into(),
            message: message.into(),
        }
    }

    /// The same finding at a line.
    pub(super) fn at(mut self, line: usize) -> Self {
        self.line = line;
        self
    }

    /// The same finding, no longer failing the run.
    pub(super) fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}", self.path.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {severity}: {} [{}]", self.message, self.rule)
    }
}
