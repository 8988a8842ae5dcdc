//! How a command fails, and with what exit code.

use std::fmt;
use std::io;
use std::process::ExitCode;

use serde_json::{Value, json};

/// Exit code when no daemon answers; the command line's own usage errors share it.
const NO_ANSWER: u8 = 2;
/// Exit code when what was waited for did not come in time.
const NOTHING_CAME: u8 = 3;

/// The outcome of a command.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No daemon runs. The text says how to start one.
    NotRunning(String),
    /// The daemon runs and does not answer.
    Busy(String),
    /// Nobody answers at the address that the user gave.
    Unreachable(String),
    /// The call needs a token, and there is none that may be sent there.
    NoToken(String),
    /// The daemon refused.
    Refused {
        /// What it said.
        message: String,
        /// Its code, where it gave one.
        code: Option<String>,
        /// The HTTP status.
        status: u16,
        /// The message that was not acknowledged, where it may have been sent.
        request_id: Option<String>,
    },
    /// What was waited for did not come in time; that much is printed already.
    Nothing,
    /// What is wrong is in the answer, which is printed already.
    Reported {
        /// How much is wrong.
        text: String,
        /// Whether a daemon answers.
        answers: bool,
    },
    /// Whoever reads our output went away.
    ClosedPipe,
    /// The configuration file is not one.
    Config(String),
    /// Anything else.
    Other(anyhow::Error),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::NotRunning(_)
            | Self::Busy(_)
            | Self::Unreachable(_)
            | Self::Reported { answers: false, .. } => ExitCode::from(NO_ANSWER),
            Self::Nothing => ExitCode::from(NOTHING_CAME),
            Self::NoToken(_)
            | Self::Config(_)
            | Self::Refused { .. }
            | Self::Reported { .. }
            | Self::ClosedPipe
            | Self::Other(_) => ExitCode::FAILURE,
        }
    }

    /// What went wrong, for programs: the daemon's code, or one of our own.
    fn code(&self) -> &str {
        match self {
            Self::NotRunning(_) => "not_running",
            Self::Busy(_) => "busy",
            Self::Unreachable(_) => "unreachable",
            Self::NoToken(_) => "no_token",
            Self::Config(_) => "invalid_config",
            Self::Refused { code: Some(code), .. } => code,
            Self::Nothing => "nothing_came",
            Self::Refused { .. } | Self::Reported { .. } | Self::ClosedPipe | Self::Other(_) => {
                "failed"
            }
        }
    }

    /// The body that a failure of the daemon's API has, whoever failed.
    pub(crate) fn body(&self) -> Value {
        let text = match self {
            Self::Refused { message, .. } => message.clone(),
            other => other.to_string(),
        };
        let mut body = body(self.code(), &text);
        if let Self::Refused { request_id: Some(id), .. } = self {
            body["request_id"] = json!(id);
        }
        body
    }

    /// Whether the answer says what is wrong.
    pub(crate) fn is_reported(&self) -> bool {
        matches!(self, Self::Reported { .. } | Self::Nothing)
    }

    /// Whether no part of the text is a daemon's answer.
    pub(crate) const fn is_our_own(&self) -> bool {
        matches!(self, Self::Config(_))
    }

    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::ClosedPipe)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(message)
            | Self::Busy(message)
            | Self::Unreachable(message)
            | Self::NoToken(message)
            | Self::Config(message)
            | Self::Reported { text: message, .. } => f.write_str(message),
            Self::Refused { message, status, .. } => write!(f, "{message} (HTTP {status})"),
            Self::Nothing => f.write_str("nothing came in time"),
            Self::ClosedPipe => f.write_str("the output was closed"),
            Self::Other(error) => f.write_str(&causes(error)),
        }
    }
}

/// The body of a failure.
pub(crate) fn body(code: &str, error: &str) -> Value {
    json!({ "ok": false, "error": error, "code": code })
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
