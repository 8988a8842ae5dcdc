//! Where the daemon is and what it accepts as proof: the files that a running instance leaves in
//! its data folder.

use std::fs::{self, File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use etcetera::BaseStrategy;
use serde::Deserialize;
use x0x_api::instance::{
    CONFIG_FILE, DATA_VARIABLE, LOCK_FILE, LOG_FILE, PORT_FILE, TOKEN_FILE, folder, is_name,
    name_of_folder,
};

use crate::error::{Failure, Result};

const TOKEN_VARIABLE: &str = "X0X_API_TOKEN";
/// Largest port or token file that is read.
const MAX_FILE: u64 = 4096;
/// Largest configuration file that is read.
const MAX_CONFIG: u64 = 1024 * 1024;

/// What the daemon's configuration file says about where it is. The rest is the daemon's business.
#[derive(Debug, Default, Deserialize)]
struct Settings {
    instance_name: Option<String>,
    data_dir: Option<PathBuf>,
    identity_dir: Option<PathBuf>,
}

impl Settings {
    /// Reads a file that must exist.
    fn read(path: &Path) -> Result<Self> {
        let describe = || format!("cannot read configuration file {}", path.display());
        let text = read_small(path, MAX_CONFIG)?;
        let text = text.ok_or_else(|| anyhow!("it does not exist").context(describe()))?;
        let broken = |error: toml::de::Error| Failure::Config(format!("{}:\n{error}", describe()));
        toml::from_str(&text).map_err(broken)
    }

    /// Those of an instance: of the given file, else of the one at the platform's place, if it is there.
    /// The name in it holds where none is given.
    fn find(bases: &Bases, name: Option<&str>, config: Option<&Path>) -> Result<Self> {
        let usual = bases.config.join(folder(name)).join(CONFIG_FILE);
        let mut settings = match config {
            Some(path) => Self::read(path)?,
            None if usual.is_file() => Self::read(&usual)?,
            None => Self::default(),
        };
        let named = settings.instance_name.filter(|name| is_name(name));
        settings.instance_name = name.map(str::to_owned).or(named);
        Ok(settings)
    }
}

/// Where the keys of an instance are.
pub(crate) fn key_folder(name: Option<&str>, config: Option<&Path>) -> Result<PathBuf> {
    let bases = Bases::of_platform()?;
    let settings = Settings::find(&bases, name, config)?;
    let usual = || bases.home.join(format!(".{}", folder(settings.instance_name.as_deref())));
    Ok(settings.identity_dir.unwrap_or_else(usual))
}

/// One daemon of this user, by name.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    /// None for the default instance.
    pub(crate) name: Option<String>,
    /// Where its data is.
    pub(crate) folder: PathBuf,
}

impl Instance {
    /// The instance with this name, running or not: where the environment says, else where the
    /// configuration file does, else at the platform's place. The daemon looks in the same order.
    pub(crate) fn named(name: Option<&str>, config: Option<&Path>) -> Result<Self> {
        let folder = std::env::var_os(DATA_VARIABLE).filter(|value| !value.is_empty());
        if let Some(folder) = folder {
            return Ok(Self { name: name.map(str::to_owned), folder: folder.into() });
        }
        Self::configured(&Bases::of_platform()?, name, config)
    }

    fn configured(bases: &Bases, name: Option<&str>, config: Option<&Path>) -> Result<Self> {
        let settings = Settings::find(bases, name, config)?;
        let name = settings.instance_name;
        let folder = settings.data_dir.unwrap_or_else(|| bases.data.join(folder(name.as_deref())));
        Ok(Self { name, folder })
    }

    /// Every instance that runs or ended without cleaning up, the default one first.
    pub(crate) fn all() -> Result<Vec<Self>> {
        Self::all_below(&Bases::of_platform()?.data)
    }

    fn all_below(base: &Path) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(base) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(error.into()),
        };
        for entry in entries {
            let entry = entry?.file_name();
            let Some(name) = entry.to_str().and_then(name_of_folder) else { continue };
            let instance = Self { name: name.map(str::to_owned), folder: base.join(&entry) };
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
        let Some(text) = read_small(&path, MAX_FILE)? else { return Ok(None) };
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
        read_small(&self.folder.join(LOCK_FILE), MAX_FILE).ok()??.trim().parse().ok()
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

    /// The address of a daemon that runs, as far as it has told one.
    fn running_address(&self) -> Result<Option<SocketAddr>> {
        Ok(match self.api_address()? {
            Some(address) if self.is_running()? => Some(address),
            _ => None,
        })
    }

    /// Why it does not answer: it does not run, or it runs and has no time.
    pub(crate) fn silent(&self) -> Failure {
        if !self.is_running().unwrap_or(false) {
            return self.not_running();
        }
        let process = self.process().map(|pid| format!(" (process {pid})")).unwrap_or_default();
        Failure::Busy(match &self.name {
            Some(name) => format!("Named instance '{name}' runs{process} but does not answer"),
            None => format!("Daemon runs{process} but does not answer"),
        })
    }

    /// The file that holds what a daemon in the background says; it is empty, and its owner's alone.
    pub(crate) fn new_log(&self) -> Result<(PathBuf, File)> {
        let path = self.folder.join(LOG_FILE);
        let open = || {
            let mut folders = fs::DirBuilder::new();
            let mut options = fs::OpenOptions::new();
            options.write(true).create(true).truncate(true);
            #[cfg(unix)]
            {
                std::os::unix::fs::DirBuilderExt::mode(&mut folders, 0o700);
                std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            }
            folders.recursive(true).create(&self.folder)?;
            // Not through a link. Nobody else may make one in this folder.
            if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
                fs::remove_file(&path)?;
            }
            let emptied = options.open(&path)?;
            #[cfg(unix)]
            emptied.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
            drop(emptied);
            // Where the daemon empties it when it is large, the next line has to be its first.
            File::options().append(true).open(&path)
        };
        let file = open().with_context(|| format!("cannot write {}", path.display()))?;
        Ok((path, file))
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

    /// The token in the instance's file. It is for the running instance alone.
    fn token(&self) -> Result<Option<String>> {
        Ok(read_small(&self.folder.join(TOKEN_FILE), MAX_FILE)?
            .map(|token| token.trim().to_owned()))
    }
}

/// The token that the user gives, for whatever address the user gives.
fn given_token() -> Option<String> {
    std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty())
}

/// An API to call.
#[derive(Clone)]
pub(crate) struct Target {
    /// `http://host:port`, without a slash at the end.
    pub(crate) url: String,
    pub(crate) token: Option<String>,
    pub(crate) instance: Instance,
    /// Whether the address is that of the running instance, and not just one that the user gave.
    pub(crate) is_instance: bool,
}

impl Target {
    /// Finds the API: the URL `api` if given, else what the port file of the running instance says.
    /// The instance's token goes to the instance alone: whoever listens at another address would have
    /// it from then on.
    pub(crate) fn find(
        api: Option<&str>,
        name: Option<&str>,
        config: Option<&Path>,
    ) -> Result<Self> {
        let instance = Instance::named(name, config)?;
        let Some(url) = api else {
            let Some(address) = instance.running_address()? else { return Err(instance.silent()) };
            return Self::at(instance, address);
        };
        // The one that is meant, else whichever of this user's is there.
        let others = Instance::all().unwrap_or_default();
        for found in std::iter::once(instance.clone()).chain(others) {
            // A port file that cannot be read says nothing of an address that is given.
            let running = found.running_address().ok().flatten();
            if let Some(address) = running.filter(|running| names(url, *running)) {
                return Self::at(found, address);
            }
        }
        let (url, token) = (url.to_owned(), given_token());
        Ok(Self { url, token, instance, is_instance: false })
    }

    /// The API of a running instance at a known address.
    pub(crate) fn at(instance: Instance, address: SocketAddr) -> Result<Self> {
        let token = match given_token() {
            Some(token) => Some(token),
            None => instance.token()?,
        };
        Ok(Self { url: format!("http://{address}"), token, instance, is_instance: true })
    }

    /// Why a call that needs a token cannot be made without one.
    pub(crate) fn no_token(&self) -> Failure {
        let url = &self.url;
        Failure::NoToken(if self.is_instance {
            format!("there is no token for {url}: its api-token file is gone")
        } else {
            format!(
                "{url} is not the address of a running instance, so the instance's token is not sent \
                 there; if you trust it, set {TOKEN_VARIABLE} to its token"
            )
        })
    }

    /// Nobody answers there.
    pub(crate) fn silent(&self) -> Failure {
        if self.is_instance {
            self.instance.silent()
        } else {
            Failure::Unreachable(format!("{} does not answer", self.url))
        }
    }
}

/// Whether a URL as [`url_of`] gives it names a loopback address, by its digits or as `localhost`. A name
/// that has to be looked up may be anybody's.
fn names(url: &str, address: SocketAddr) -> bool {
    let host = url.strip_prefix("http://").unwrap_or(url);
    let local = host.strip_prefix("localhost:").map(|port| port.parse() == Ok(address.port()));
    address.ip().is_loopback() && local.unwrap_or_else(|| host.parse() == Ok(address))
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

/// Where the platform keeps files of this user.
struct Bases {
    home: PathBuf,
    config: PathBuf,
    data: PathBuf,
}

impl Bases {
    fn of_platform() -> Result<Self> {
        let strategy = etcetera::base_strategy::choose_native_strategy()
            .context("there is no home folder, so no data folder")?;
        Ok(Self {
            home: strategy.home_dir().to_owned(),
            config: strategy.config_dir(),
            data: strategy.data_dir(),
        })
    }
}

fn read_small(path: &Path, max: u64) -> Result<Option<String>> {
    let describe = || format!("cannot read {}", path.display());
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(anyhow::Error::new(error).context(describe()).into()),
        Ok(metadata) if metadata.len() > max => {
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
    fn only_the_running_instances_own_address_is_its_address() {
        let address = "127.0.0.1:12700".parse().unwrap();
        for own in ["http://127.0.0.1:12700", "http://localhost:12700"] {
            assert!(names(own, address), "{own}");
        }
        for other in [
            "http://127.0.0.1:12701",
            "http://localhost:12701",
            "http://[::1]:12700",
            "http://127.0.0.2:12700",
            "http://localhost.example:12700",
            "http://127.0.0.1.example:12700",
            "http://2130706433:12700",
        ] {
            assert!(!names(other, address), "{other}");
        }
        assert!(!names("http://192.0.2.1:1", "192.0.2.1:1".parse().unwrap()));
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
    fn the_configuration_file_says_where_the_data_is() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let bases = Bases { home: at("home"), config: at("config"), data: at("data") };
        let find = |name, config| Instance::configured(&bases, name, config).unwrap();
        assert_eq!(find(None, None).folder, bases.data.join("x0x"));
        assert_eq!(find(Some("bob"), None).folder, bases.data.join("x0x-bob"));

        let write = |folder: &str, text: &str| {
            let folder = bases.config.join(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(CONFIG_FILE), text).unwrap();
        };
        write("x0x", "log_level = 'info'\ninstance_name = 'carol'");
        let found = find(None, None);
        assert_eq!(
            (found.name.as_deref(), found.folder),
            (Some("carol"), bases.data.join("x0x-carol"))
        );
        write("x0x-bob", "data_dir = '/elsewhere'\n[sessions]\nmax = 3");
        assert_eq!(find(Some("bob"), None).folder, Path::new("/elsewhere"));

        let given = place.path().join("given.toml");
        assert!(Instance::configured(&bases, None, Some(&given)).is_err());
        fs::write(&given, "data_dir = '/given'").unwrap();
        assert_eq!(find(Some("bob"), Some(&given)).folder, Path::new("/given"));
        fs::write(&given, "data_dir = 7").unwrap();
        let error = Instance::configured(&bases, None, Some(&given)).unwrap_err();
        assert!(error.to_string().contains("given.toml"), "{error}");
    }

    fn instance(base: &Path, name: Option<&str>) -> Instance {
        Instance { name: name.map(str::to_owned), folder: base.join(folder(name)) }
    }

    #[test]
    fn an_instance_runs_while_its_lock_is_held() {
        let base = tempfile::tempdir().unwrap();
        let instance = instance(base.path(), None);
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
        let instance = instance(base.path(), Some("a"));
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
