//! Where the daemon is and what it accepts as proof: the files that a running instance leaves in
//! its data folder.

use std::fs::{self, File, TryLockError};
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
/// Locked by a daemon for as long as it runs; holds its process id.
const LOCK_FILE: &str = "x0xd.lock";
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

    /// Whether a daemon runs. A port file alone does not show it: one that was killed leaves its file,
    /// and anybody may listen on that port since. The lock goes with the process.
    pub(crate) fn is_running(&self) -> Result<bool> {
        let Some(lock) = self.open_lock()? else { return Ok(false) };
        // A shared one, so that two commands at once do not take each other for a daemon.
        self.is_held(lock.try_lock_shared())
    }

    /// Removes the port file that a killed daemon left. While the lock is held here none can start.
    pub(crate) fn remove_stale_port(&self) -> Result<()> {
        let Some(lock) = self.open_lock()? else { return Ok(()) };
        if self.is_held(lock.try_lock())? {
            return Ok(());
        }
        match fs::remove_file(self.folder.join(PORT_FILE)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Process id of the daemon that runs or ran last, as far as it can be read.
    pub(crate) fn process(&self) -> Option<u32> {
        read_small(&self.folder.join(LOCK_FILE)).ok()??.trim().parse().ok()
    }

    fn open_lock(&self) -> Result<Option<File>> {
        let path = self.folder.join(LOCK_FILE);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let context = format!("cannot open {}", path.display());
                Err(anyhow::Error::new(error).context(context).into())
            }
        }
    }

    fn is_held(&self, attempt: Result<(), TryLockError>) -> Result<bool> {
        match attempt {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => {
                let context = format!("cannot lock {}", self.folder.join(LOCK_FILE).display());
                Err(anyhow::Error::new(error).context(context).into())
            }
        }
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
    /// Finds the API: the URL `api` if given, else what the port file of the running instance says.
    /// The token goes nowhere else.
    pub(crate) fn find(api: Option<&str>, name: Option<&str>) -> Result<Self> {
        let instance = Instance::named(name)?;
        let url = match api {
            Some(url) => url.to_owned(),
            None => match instance.api_address()? {
                Some(address) if instance.is_running()? => format!("http://{address}"),
                _ => return Err(instance.not_running()),
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

/// The URL of an API that is given as `HOST:PORT` or as a URL.
pub(crate) fn url_of(text: &str) -> Result<String, String> {
    if text.starts_with("https://") {
        return Err("the local API speaks plain HTTP on loopback, not https".to_owned());
    }
    let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let (host, port) = address.rsplit_once(':').unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(plain),
    };
    if is_host && port.parse::<u16>().is_ok_and(|port| port > 0) {
        Ok(format!("http://{address}"))
    } else {
        Err("expected HOST:PORT or http://HOST:PORT".to_owned())
    }
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
        assert_eq!(url_of("[::1]:7").unwrap(), "http://[::1]:7");
        assert_eq!(url_of("localhost:7").unwrap(), "http://localhost:7");
        let bad = ["", "garbage", ":1", "a:", "a:0", "a:70000", "a:x", "::1:7", "[x]:7", "a b:1"];
        for text in bad.into_iter().chain(["https://a:1", "http://user@a:1", "a:1/path"]) {
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
    fn an_instance_runs_while_its_lock_is_held() {
        let base = tempfile::tempdir().unwrap();
        let instance = Instance::below(base.path(), None);
        assert!(!instance.is_running().unwrap());
        fs::create_dir(&instance.folder).unwrap();
        let port = instance.folder.join(PORT_FILE);
        fs::write(&port, "127.0.0.1:9").unwrap();
        let lock = File::create(instance.folder.join(LOCK_FILE)).unwrap();
        fs::write(instance.folder.join(LOCK_FILE), "77").unwrap();
        assert_eq!(instance.process(), Some(77));
        lock.lock().unwrap();
        assert!(instance.is_running().unwrap());
        instance.remove_stale_port().unwrap();
        assert!(port.exists(), "a running daemon keeps its file");
        lock.unlock().unwrap();
        assert!(!instance.is_running().unwrap());
        instance.remove_stale_port().unwrap();
        assert!(!port.exists());
        instance.remove_stale_port().unwrap();
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
