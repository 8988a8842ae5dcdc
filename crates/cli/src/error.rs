//! How a command fails, and with what exit code.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// Exit code when no daemon answers; the command line's own usage errors share it.
const NOT_RUNNING: u8 = 2;

/// The outcome of a command.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No daemon answers. The text says how to start one.
    NotRunning(String),
    /// The daemon refused.
    Refused {
        /// What it said.
        message: String,
        /// The HTTP status.
        status: u16,
    },
    /// Whoever reads our output went away.
    ClosedPipe,
    /// Anything else.
    Other(anyhow::Error),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::NotRunning(_) => ExitCode::from(NOT_RUNNING),
            Self::Refused { .. } | Self::ClosedPipe | Self::Other(_) => ExitCode::FAILURE,
        }
    }

    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::ClosedPipe)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(message) => f.write_str(message),
            Self::Refused { message, status } => write!(f, "{message} (HTTP {status})"),
            Self::ClosedPipe => f.write_str("the output was closed"),
            Self::Other(error) => f.write_str(&causes(error)),
        }
    }
}

/// An error and its causes, each once: some errors tell their cause in their own text already.
fn causes(error: &anyhow::Error) -> String {
    let causes = error.chain().map(ToString::to_string);
    causes.fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        known if known.contains(&cause) => text,
        known => format!("{known}: {cause}"),
    })
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Other(error.into())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ClosedPipe
        } else {
            Self::Other(error.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let inner = anyhow::anyhow!("connection reset").context("io: connection reset");
        let failure = Failure::Other(inner.context("no answer"));
        assert_eq!(failure.to_string(), "no answer: io: connection reset");
    }
}
