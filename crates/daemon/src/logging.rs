//! Where log lines go: standard error, and a file when `X0X_LOG_DIR` is set. A daemon in the background
//! has a file as standard error, which is kept small.

use std::{
    env,
    fs::{self, File},
    io::{self, IsTerminal, Write},
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
use x0x_api::instance::LOG_VARIABLE;

use crate::config::{Config, LogFormat};

/// Bytes of the log of a daemon in the background; a larger one is begun anew.
const MAX_BACKGROUND_LOG: u64 = 4 * 1024 * 1024;

/// The file that standard error goes to, as whoever started this daemon in the background said.
pub(crate) fn background_log() -> Option<PathBuf> {
    let path = env::var_os(LOG_VARIABLE).filter(|path| !path.is_empty())?;
    Some(path.into())
}

/// Log lines to a file that is emptied when it has become large.
#[derive(Debug)]
struct Bounded {
    /// Positioned at the end with each write.
    file: File,
    max: u64,
}

impl Bounded {
    fn open(path: &Path, max: u64) -> io::Result<Self> {
        // Both rights: one to write at the end, one to cut.
        Ok(Self { file: File::options().read(true).append(true).open(path)?, max })
    }
}

impl Write for Bounded {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let length = self.file.metadata()?.len();
        if length.saturating_add(line.len() as u64) > self.max {
            self.file.set_len(0)?;
        }
        self.file.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

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
    // Where it cannot be opened, standard error leads there all the same.
    let bounded = background_log().and_then(|path| Bounded::open(&path, MAX_BACKGROUND_LOG).ok());
    let colour = directory.is_none()
        && io::stderr().is_terminal()
        && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let main = match bounded {
        Some(bounded) => BoxMakeWriter::new(Mutex::new(bounded)),
        None => BoxMakeWriter::new(io::stderr),
    };
    let writer = match directory {
        Some(directory) => BoxMakeWriter::new(main.and(log_file(Path::new(&directory))?)),
        None => main,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_in_the_background_stays_small() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("log");
        fs::write(&path, "before\n").expect("written");
        let mut log = Bounded::open(&path, 20).expect("opened");
        log.write_all(b"a line\n").expect("written");
        assert_eq!(fs::read(&path).expect("read"), b"before\na line\n");
        log.write_all(b"another line\n").expect("written");
        assert_eq!(fs::read(&path).expect("read"), b"another line\n");
        assert!(Bounded::open(&folder.path().join("absent"), 20).is_err(), "it is made by others");
    }
}
