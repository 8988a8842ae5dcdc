//! Where log lines go: standard error, and a file when `X0X_LOG_DIR` is set.

use std::{
    env, fs,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    sync::Mutex,
};

use tracing_subscriber::{
    Layer as _,
    filter::Targets,
    fmt::{
        self, MakeWriter,
        writer::{BoxMakeWriter, MakeWriterExt},
    },
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
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
    let filter: Targets = match env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => text.parse()?,
        _ => config.log_level.to_string().parse()?,
    };
    let directory = env::var_os("X0X_LOG_DIR").filter(|directory| !directory.is_empty());
    let colour = directory.is_none()
        && io::stderr().is_terminal()
        && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let writer = match directory {
        Some(directory) => BoxMakeWriter::new(io::stderr.and(log_file(Path::new(&directory))?)),
        None => BoxMakeWriter::new(io::stderr),
    };
    let lines = fmt::layer().with_writer(writer);
    let lines = match config.log_format {
        LogFormat::Json => lines.json().boxed(),
        LogFormat::Text => lines.with_ansi(colour).boxed(),
    };
    // Targets and levels, without the patterns of an `EnvFilter`, which would bring a regular
    // expression engine into the binary.
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|_| LogError::Twice)
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
