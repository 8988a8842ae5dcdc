//! What a daemon is started with: defaults, then the TOML file, then flags.

mod file;
mod files;
mod letters;
mod mail;
mod paths;
mod relay;

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

pub use file::{ConfigError, LogFormat, LogLevel, RoleName};
pub use files::{FileRule, FilesSettings};
pub use mail::{DurabilityName, MailSettings, Webhook, WebhookSecret};
pub use paths::Paths;
pub use relay::TcpRelay;

use file::FileConfig;
use x0x_agent::{GossipLimits, LettersConfig, SessionConfig};
use x0x_api::instance::is_name;

/// Most bootstrap peers.
const MAX_BOOTSTRAP_PEERS: usize = 64;
/// UDP port of the QUIC endpoint of the unnamed instance.
pub const DEFAULT_QUIC_PORT: u16 = 5483;
/// TCP port of the API of the unnamed instance.
pub const DEFAULT_API_PORT: u16 = 12700;
/// Bytes that the database of topics may take on disk.
pub(crate) const DEFAULT_STORE_BYTES: u64 = 1024 * 1024 * 1024;
/// Seconds between announcements of the agent.
pub const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(300);
/// How long an announcement counts: three heartbeats.
pub const DEFAULT_IDENTITY_TTL: Duration = Duration::from_secs(900);

/// What the command line sets; it wins over the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The configuration file. Without one, the platform's place is tried.
    pub config: Option<PathBuf>,
    /// Instance name.
    pub name: Option<String>,
    /// API port, keeping the address.
    pub api_port: Option<u16>,
    /// UDP address of the QUIC endpoint.
    pub bind: Option<SocketAddr>,
    /// Data directory.
    pub data_dir: Option<PathBuf>,
    /// Machines to contact first, besides those of the file.
    pub bootstrap: Vec<SocketAddr>,
    /// Forget the bootstrap peers of the file.
    pub no_bootstrap: bool,
    /// Whether machines without UDP are taken, and where.
    pub relay_tcp: Option<TcpRelay>,
}

/// A complete configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Name of this instance, if it is not the default one.
    pub instance_name: Option<String>,
    /// UDP address of the QUIC endpoint.
    pub bind_address: SocketAddr,
    /// TCP address of the API; port 0 takes a free one.
    pub api_address: SocketAddr,
    /// Whether `api_address` may be one that other machines can reach.
    pub allow_remote_api: bool,
    /// Where `api.port`, `api-token` and the peer cache live.
    pub data_dir: PathBuf,
    /// Where the keys live.
    pub identity_dir: PathBuf,
    /// The user's key, where it is not `user.key` there. It must exist: it is never made silently.
    pub user_key_path: Option<PathBuf>,
    /// What this daemon is for.
    pub role: RoleName,
    /// Machines to contact first.
    pub bootstrap_peers: Vec<SocketAddr>,
    /// Whether this machine announces itself to others on its links, and looks for them.
    pub mdns: bool,
    /// Whether it tells them its id.
    pub mdns_announce_id: bool,
    /// Whether keys are exchanged by ML-KEM-768 alone. Without it, X25519MLKEM768 is preferred.
    pub pure_pq: bool,
    /// Name of the network; machines of different networks do not talk.
    pub network: Option<String>,
    /// Most live sessions with other machines.
    pub max_sessions: usize,
    /// Most of these that machines of one network (/24 of IPv4, /56 of IPv6) opened; loopback, the
    /// link and the site are exempt.
    pub max_sessions_per_network: usize,
    /// Whether packets of peers that cannot reach each other are relayed, within quotas.
    pub relay: bool,
    /// Whether others relay packets of this machine when it cannot reach a peer otherwise, and are dialled over TCP
    /// when UDP does not pass.
    pub relay_by_others: bool,
    /// Whether this machine takes others over TCP.
    pub relay_tcp: TcpRelay,
    /// Whether gateways are asked for a port that leads here.
    pub port_mapping: bool,
    /// What topics keep in memory and for how long, and every other bound of gossip.
    pub gossip: GossipLimits,
    /// Bytes that the database of topics may take on disk.
    pub store_bytes: u64,
    /// How files are received.
    pub files: FilesSettings,
    /// How direct messages are kept.
    pub mail: MailSettings,
    /// Sealed letters kept for others, and left with others.
    pub letters: LettersConfig,
    /// Time between announcements.
    pub heartbeat: Duration,
    /// How long an announcement counts.
    pub identity_ttl: Duration,
    /// Least severe log lines to write; `RUST_LOG` wins over it.
    pub log_level: LogLevel,
    /// Form of log lines.
    pub log_format: LogFormat,
    /// The file that this was read from, and the folders of those of other instances: they may hold secrets.
    pub config_files: Vec<PathBuf>,
    /// Keys of the file that are not known.
    pub unknown_keys: Vec<String>,
    /// Keys of the file that the original daemon knows and that change nothing in this version.
    pub keys_without_effect: Vec<String>,
}

impl Config {
    /// Everything below one directory, on free loopback ports: for tests and examples.
    #[must_use]
    pub fn isolated(directory: &Path) -> Self {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            bind_address: free,
            api_address: free,
            mdns: false,
            data_dir: directory.join("data"),
            identity_dir: directory.join("identity"),
            ..Self::defaults(None, &Paths::below(directory))
        }
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// A file that cannot be read, a value that is not valid, or a home directory that is not known.
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        Self::load_with(overrides, &Paths::of_platform()?)
    }

    /// Reads the configuration, with the platform's directories given.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with(overrides: &Overrides, paths: &Paths) -> Result<Self, ConfigError> {
        let flag_name = overrides.name.clone().map(valid_name).transpose()?;
        let (file, ignored) = match &overrides.config {
            Some(path) => FileConfig::read(path)?,
            None => FileConfig::read_if_present(&paths.config_file(flag_name.as_deref()))?,
        };
        let file_name = file.instance_name.clone().map(valid_name).transpose()?;
        let name = flag_name.or(file_name);
        let mut config = Self::defaults(name, paths);
        config.config_files.extend(overrides.config.clone());
        config.unknown_keys = ignored.unknown;
        config.keys_without_effect = ignored.without_effect;
        file.apply(&mut config)?;
        config.apply_overrides(overrides);
        config.check()?;
        Ok(config)
    }

    fn defaults(name: Option<String>, paths: &Paths) -> Self {
        let named = name.is_some();
        let port = |default| if named { 0 } else { default };
        let sessions = SessionConfig::default();
        Self {
            bind_address: (Ipv6Addr::UNSPECIFIED, port(DEFAULT_QUIC_PORT)).into(),
            api_address: (Ipv4Addr::LOCALHOST, port(DEFAULT_API_PORT)).into(),
            allow_remote_api: false,
            data_dir: paths.data_dir(name.as_deref()),
            identity_dir: paths.identity_dir(name.as_deref()),
            user_key_path: None,
            role: RoleName::Agent,
            bootstrap_peers: Vec::new(),
            mdns: true,
            mdns_announce_id: false,
            pure_pq: false,
            network: None,
            max_sessions: sessions.max_sessions,
            max_sessions_per_network: sessions.max_sessions_per_network,
            relay: sessions.relay.enabled,
            relay_by_others: sessions.relay.use_others,
            relay_tcp: TcpRelay::default(),
            port_mapping: true,
            gossip: GossipLimits::default(),
            store_bytes: DEFAULT_STORE_BYTES,
            files: FilesSettings::default(),
            mail: MailSettings::default(),
            letters: LettersConfig::default(),
            heartbeat: DEFAULT_HEARTBEAT,
            identity_ttl: DEFAULT_IDENTITY_TTL,
            log_level: LogLevel::Warn,
            log_format: LogFormat::Text,
            config_files: paths.config_folders(),
            unknown_keys: Vec::new(),
            keys_without_effect: Vec::new(),
            instance_name: name,
        }
    }

    fn apply_overrides(&mut self, overrides: &Overrides) {
        if let Some(port) = overrides.api_port {
            self.api_address.set_port(port);
        }
        if let Some(bind) = overrides.bind {
            self.bind_address = bind;
        }
        if let Some(data_dir) = &overrides.data_dir {
            self.data_dir.clone_from(data_dir);
        }
        if let Some(relay_tcp) = overrides.relay_tcp {
            self.relay_tcp = relay_tcp;
        }
        if overrides.no_bootstrap {
            self.bootstrap_peers.clear();
        }
        for peer in &overrides.bootstrap {
            if !self.bootstrap_peers.contains(peer) {
                self.bootstrap_peers.push(*peer);
            }
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        if !self.api_address.ip().is_loopback() && !self.allow_remote_api {
            return Err(ConfigError::RemoteApi(self.api_address));
        }
        if self.bootstrap_peers.len() > MAX_BOOTSTRAP_PEERS {
            return Err(ConfigError::Value {
                key: "bootstrap_peers",
                reason: format!("more than {MAX_BOOTSTRAP_PEERS} addresses"),
            });
        }
        if self.identity_ttl < self.heartbeat {
            return Err(ConfigError::Value {
                key: "identity_ttl_secs",
                reason: format!(
                    "{} is shorter than heartbeat_interval_secs ({}): agents would expire between \
                     announcements",
                    self.identity_ttl.as_secs(),
                    self.heartbeat.as_secs()
                ),
            });
        }
        Ok(())
    }
}

/// As a file that gives this configuration, for `--check`.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peers: Vec<String> =
            self.bootstrap_peers.iter().map(|peer| format!("\"{peer}\"")).collect();
        if let Some(name) = &self.instance_name {
            writeln!(f, "instance_name = {name:?}")?;
        }
        if let Some(network) = &self.network {
            writeln!(f, "network = {}", toml::Value::from(network.as_str()))?;
        }
        writeln!(f, "bind_address = \"{}\"", self.bind_address)?;
        writeln!(f, "api_address = \"{}\"", self.api_address)?;
        writeln!(f, "allow_remote_api = {}", self.allow_remote_api)?;
        writeln!(f, "data_dir = {}", path_value(&self.data_dir))?;
        writeln!(f, "identity_dir = {}", path_value(&self.identity_dir))?;
        if let Some(path) = &self.user_key_path {
            writeln!(f, "user_key_path = {}", path_value(path))?;
        }
        writeln!(f, "role = \"{}\"", self.role)?;
        writeln!(f, "bootstrap_peers = [{}]", peers.join(", "))?;
        writeln!(f, "mdns = {}", self.mdns)?;
        writeln!(f, "mdns_announce_id = {}", self.mdns_announce_id)?;
        writeln!(f, "pure_pq = {}", self.pure_pq)?;
        writeln!(f, "heartbeat_interval_secs = {}", self.heartbeat.as_secs())?;
        writeln!(f, "identity_ttl_secs = {}", self.identity_ttl.as_secs())?;
        writeln!(f, "log_level = \"{}\"", self.log_level)?;
        writeln!(f, "log_format = \"{}\"", self.log_format)?;
        writeln!(f, "\n[sessions]\nmax = {}", self.max_sessions)?;
        writeln!(f, "max_per_network = {}", self.max_sessions_per_network)?;
        writeln!(f, "relay = {}", self.relay)?;
        writeln!(f, "\n[relay]\nuse_others = {}", self.relay_by_others)?;
        write!(f, "{}", self.relay_tcp)?;
        writeln!(f, "\n[nat]\nport_mapping = {}", self.port_mapping)?;
        writeln!(f, "\n[gossip]\nretention_secs = {}", self.gossip.retention.as_secs())?;
        writeln!(f, "topic_bytes = {}", self.gossip.topic_bytes)?;
        writeln!(f, "topic_entries = {}", self.gossip.topic_entries)?;
        writeln!(f, "log_bytes = {}", self.gossip.log_bytes)?;
        writeln!(f, "store_bytes = {}", self.store_bytes)?;
        write!(f, "\n{}\n{}\n{}", self.mail, letters::Shown(&self.letters), self.files)
    }
}

fn path_value(path: &Path) -> toml::Value {
    toml::Value::from(path.to_string_lossy().into_owned())
}

fn valid_name(name: String) -> Result<String, ConfigError> {
    if is_name(&name) { Ok(name) } else { Err(ConfigError::Name(name)) }
}

#[cfg(test)]
mod tests;
