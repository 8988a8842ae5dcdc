//! Where log lines go: standard error, and a file when `X0X_LOG_DIR` is set.

use std::{
    env, fs,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    sync::Mutex,
};

use tracing_subscriber::{
    EnvFilter,
    fmt::{
        MakeWriter,
        writer::{BoxMakeWriter, MakeWriterExt},
    },
};

use crate::config::{Config, LogFormat};

/// Logging cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// `RUST_LOG` does not parse.
    #[error("RUST_LOG: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The log file cannot be opened.
    #[error("cannot open log file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The process logs already.
    #[error("logging is set up already")]
    Twice,
}

/// Starts logging for this process.
///
/// # Errors
/// [`LogError`].
pub fn start(config: &Config) -> Result<(), LogError> {
    let filter = match env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(text)?,
        _ => EnvFilter::try_new(config.log_level.to_string())?,
    };
    let directory = env::var_os("X0X_LOG_DIR").filter(|directory| !directory.is_empty());
    let colour = directory.is_none()
        && io::stderr().is_terminal()
        && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let writer = match directory {
        Some(directory) => BoxMakeWriter::new(io::stderr.and(log_file(Path::new(&directory))?)),
        None => BoxMakeWriter::new(io::stderr),
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let result = match config.log_format {
        LogFormat::Json => lines.json().try_init(),
        LogFormat::Text => lines.with_ansi(colour).try_init(),
    };
    result.map_err(|_| LogError::Twice)
}

fn log_file(directory: &Path) -> Result<impl for<'a> MakeWriter<'a> + use<>, LogError> {
    let path = directory.join(format!("x0xd-{}.log", std::process::id()));
    let open = || {
        fs::create_dir_all(directory)?;
        fs::OpenOptions::new().create(true).append(true).open(&path)
    };
    match open() {
        Ok(file) => Ok(Mutex::new(file)),
        Err(source) => Err(LogError::File { path, source }),
    }
}
