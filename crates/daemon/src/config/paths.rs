//! Where the platform keeps configuration, data and keys.

use std::{
    fs,
    path::{Path, PathBuf},
};

use etcetera::BaseStrategy;
use x0x_api::instance::{CONFIG_FILE, folder, name_of_folder};

use super::file::ConfigError;

/// Most folders of other instances that are looked at.
const MAX_FOLDERS: usize = 1024;

/// The platform's base directories.
#[derive(Debug, Clone)]
pub struct Paths {
    home: PathBuf,
    config_base: PathBuf,
    data_base: PathBuf,
}

impl Paths {
    /// The directories of this user on this platform; `HOME`, `XDG_CONFIG_HOME` and
    /// `XDG_DATA_HOME` are respected.
    ///
    /// # Errors
    /// [`ConfigError::NoHome`] when there is no home directory.
    pub fn of_platform() -> Result<Self, ConfigError> {
        let strategy =
            etcetera::base_strategy::choose_native_strategy().map_err(|_| ConfigError::NoHome)?;
        Ok(Self {
            home: strategy.home_dir().to_owned(),
            config_base: strategy.config_dir(),
            data_base: strategy.data_dir(),
        })
    }

    /// All of them below one directory.
    #[must_use]
    pub fn below(directory: &Path) -> Self {
        Self {
            home: directory.to_owned(),
            config_base: directory.join("config"),
            data_base: directory.join("share"),
        }
    }

    /// Where the configuration file of an instance is looked for.
    #[must_use]
    pub fn config_file(&self, name: Option<&str>) -> PathBuf {
        self.config_base.join(folder(name)).join(CONFIG_FILE)
    }

    /// The folders of all configuration files that are there now, and of the default one.
    pub(super) fn config_folders(&self) -> Vec<PathBuf> {
        let folders = fs::read_dir(&self.config_base).into_iter().flatten().flatten();
        let is_ours = |entry: &fs::DirEntry| {
            entry.file_name().to_str().is_some_and(|name| name_of_folder(name).is_some())
        };
        let named = folders.filter(is_ours).take(MAX_FOLDERS).map(|entry| entry.path());
        named.chain([self.config_base.join(folder(None))]).collect()
    }

    /// Data directory of an instance.
    #[must_use]
    pub fn data_dir(&self, name: Option<&str>) -> PathBuf {
        self.data_base.join(folder(name))
    }

    /// Where the data directories of all instances are.
    #[must_use]
    pub fn data_base(&self) -> &Path {
        &self.data_base
    }

    /// Key directory of an instance.
    #[must_use]
    pub fn identity_dir(&self, name: Option<&str>) -> PathBuf {
        self.home.join(format!(".{}", folder(name)))
    }
}
