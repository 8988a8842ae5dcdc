//! Where the daemon is and what it accepts as proof: the files that a running instance leaves in
//! its data folder.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use etcetera::BaseStrategy;

use crate::error::{Failure, Result};

const PORT_FILE: &str = "api.port";
const TOKEN_FILE: &str = "api-token";
const TOKEN_VARIABLE: &str = "X0X_API_TOKEN";
/// Read by the daemon too, so that both look in one place.
const DATA_VARIABLE: &str = "X0X_DATA_DIR";
/// Where an unnamed daemon listens unless it is told otherwise.
const DEFAULT_API: &str = "127.0.0.1:12700";
/// Largest port or token file that is read.
const MAX_FILE: u64 = 4096;

/// One daemon of this user, by name.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    /// None for the default instance.
    pub(crate) name: Option<String>,
    folder: PathBuf,
}

impl Instance {
    /// The instance with this name, running or not.
    pub(crate) fn named(name: Option<&str>) -> Result<Self> {
        match std::env::var_os(DATA_VARIABLE) {
            Some(folder) if !folder.is_empty() => {
                Ok(Self { name: name.map(str::to_owned), folder: folder.into() })
            }
            _ => Ok(Self::below(&data_base()?, name)),
        }
    }

    fn below(base: &Path, name: Option<&str>) -> Self {
        let folder = match name {
            Some(name) => base.join(format!("x0x-{name}")),
            None => base.join("x0x"),
        };
        Self { name: name.map(str::to_owned), folder }
    }

    /// Every instance that runs or ended without cleaning up, the default one first.
    pub(crate) fn all() -> Result<Vec<Self>> {
        Self::all_below(&data_base()?)
    }

    fn all_below(base: &Path) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(base) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(error.into()),
        };
        for entry in entries {
            let folder = entry?.file_name();
            let name = match folder.to_str() {
                Some("x0x") => None,
                Some(folder) => match folder.strip_prefix("x0x-") {
                    Some(name) => Some(name),
                    None => continue,
                },
                None => continue,
            };
            let instance = Self::below(base, name);
            if instance.folder.join(PORT_FILE).is_file() {
                found.push(instance);
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The address in the port file, if there is one.
    pub(crate) fn api_address(&self) -> Result<Option<SocketAddr>> {
        let path = self.folder.join(PORT_FILE);
        let Some(text) = read_small(&path)? else { return Ok(None) };
        let address = text.trim().parse().ok();
        let address = address.with_context(|| format!("{} holds no address", path.display()))?;
        Ok(Some(address))
    }

    /// How to start it, as a sentence for people.
    pub(crate) fn not_running(&self) -> Failure {
        Failure::NotRunning(match &self.name {
            Some(name) => format!(
                "Named instance '{name}' is not running. Start it with: x0x --name {name} start"
            ),
            None => "Daemon is not running. Start it with: x0x start".to_owned(),
        })
    }

    fn token(&self) -> Result<Option<String>> {
        if let Ok(token) = std::env::var(TOKEN_VARIABLE)
            && !token.is_empty()
        {
            return Ok(Some(token));
        }
        Ok(read_small(&self.folder.join(TOKEN_FILE))?.map(|token| token.trim().to_owned()))
    }
}

/// An API to call.
#[derive(Clone)]
pub(crate) struct Target {
    /// `http://host:port`, without a slash at the end.
    pub(crate) url: String,
    pub(crate) token: Option<String>,
    pub(crate) instance: Instance,
}

impl Target {
    /// Finds the API: `api` if given, else the instance's port file, else the default address.
    pub(crate) fn find(api: Option<&str>, name: Option<&str>) -> Result<Self> {
        let instance = Instance::named(name)?;
        let url = match api {
            Some(text) => url_of(text)?,
            None => match instance.api_address()? {
                Some(address) => format!("http://{address}"),
                None if instance.name.is_some() => return Err(instance.not_running()),
                None => format!("http://{DEFAULT_API}"),
            },
        };
        Self::of(instance, url)
    }

    /// The API of a running instance at a known address.
    pub(crate) fn at(instance: Instance, address: SocketAddr) -> Result<Self> {
        Self::of(instance, format!("http://{address}"))
    }

    fn of(instance: Instance, url: String) -> Result<Self> {
        Ok(Self { url, token: instance.token()?, instance })
    }
}

fn url_of(text: &str) -> Result<String> {
    if text.starts_with("https://") {
        return Err(anyhow!("the local API speaks plain HTTP on loopback, not https").into());
    }
    let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    if address.is_empty() || address.contains(['/', '?', '#', '@']) {
        return Err(anyhow!("`{text}` is not HOST:PORT").into());
    }
    Ok(format!("http://{address}"))
}

fn data_base() -> Result<PathBuf> {
    let strategy = etcetera::base_strategy::choose_native_strategy()
        .context("there is no home folder, so no data folder")?;
    Ok(strategy.data_dir())
}

fn read_small(path: &Path) -> Result<Option<String>> {
    let describe = || format!("cannot read {}", path.display());
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(anyhow::Error::new(error).context(describe()).into()),
        Ok(metadata) if metadata.len() > MAX_FILE => {
            return Err(anyhow!("{} is too large", path.display()).into());
        }
        Ok(_) => {}
    }
    Ok(Some(fs::read_to_string(path).with_context(describe)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_urls_are_taken_alike() {
        for text in ["127.0.0.1:1", "http://127.0.0.1:1", "http://127.0.0.1:1/"] {
            assert_eq!(url_of(text).unwrap(), "http://127.0.0.1:1");
        }
        for text in ["", "https://a:1", "http://user@a:1", "a:1/path"] {
            assert!(url_of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn instances_are_folders_with_a_port_file() {
        let base = tempfile::tempdir().unwrap();
        for folder in ["x0x-bob", "x0x", "x0x-idle", "other"] {
            fs::create_dir(base.path().join(folder)).unwrap();
        }
        for folder in ["x0x-bob", "x0x", "other"] {
            fs::write(base.path().join(folder).join(PORT_FILE), "127.0.0.1:9").unwrap();
        }
        let names: Vec<_> =
            Instance::all_below(base.path()).unwrap().into_iter().map(|found| found.name).collect();
        assert_eq!(names, [None, Some("bob".to_owned())]);
        assert!(Instance::all_below(&base.path().join("absent")).unwrap().is_empty());
    }

    #[test]
    fn a_port_file_holds_an_address() {
        let base = tempfile::tempdir().unwrap();
        let instance = Instance::below(base.path(), Some("a"));
        fs::create_dir(&instance.folder).unwrap();
        assert_eq!(instance.api_address().unwrap(), None);
        fs::write(instance.folder.join(PORT_FILE), "127.0.0.1:4711\n").unwrap();
        assert_eq!(instance.api_address().unwrap().unwrap().port(), 4711);
        fs::write(instance.folder.join(PORT_FILE), "4711").unwrap();
        assert!(instance.api_address().is_err());
        fs::write(instance.folder.join(PORT_FILE), "1".repeat(5000)).unwrap();
        assert!(instance.api_address().is_err());
    }
}
