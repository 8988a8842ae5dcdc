//! `api.port`: where the API of a running daemon listens.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use x0x_agent::private_file::{Access, replace};
use x0x_api::instance::PORT_FILE;

use super::FileError;

/// The file, removed when this is dropped.
#[derive(Debug)]
pub(crate) struct PortFile {
    path: PathBuf,
}

impl PortFile {
    /// Removes what a killed daemon left, so that nobody takes it for the new one's.
    pub(crate) fn remove_stale(directory: &Path) -> Result<(), FileError> {
        let path = directory.join(PORT_FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(FileError::at("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Writes `ip:port`.
    pub(crate) fn write(directory: &Path, address: SocketAddr) -> Result<Self, FileError> {
        let path = directory.join(PORT_FILE);
        replace(&path, address.to_string().as_bytes(), Access::Anybody)?;
        Ok(Self { path })
    }
}

impl Drop for PortFile {
    fn drop(&mut self) {
        // A file that is gone already needs no removal, and nobody is left to tell.
        let _ = fs::remove_file(&self.path);
    }
}
