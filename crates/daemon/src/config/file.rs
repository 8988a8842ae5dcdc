//! The TOML file. Every key is optional; unknown ones are reported, not fatal.

use std::{
    fmt,
    io::{self, Read},
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use x0x_agent::{Role, SessionConfig};

#[cfg(test)]
use super::files::RuleTable;
use super::{Config, TcpRelay, files::FilesTable, letters::LettersTable, mail::MailTable};

/// Largest configuration file that is read.
const MAX_FILE: u64 = 1024 * 1024;
/// Longest network name in bytes.
const MAX_NETWORK_NAME: usize = 64;
/// Longest interval that is accepted, a day.
const MAX_INTERVAL_SECS: u64 = 86_400;
/// How short and how long topics may be kept, in seconds: a minute to thirty days.
const MIN_RETENTION: u64 = 60;
const MAX_RETENTION: u64 = 30 * 86_400;
/// The least and the most that topics may keep in memory.
const MIN_TOPIC_BYTES: u64 = 1024 * 1024;
const MAX_LOG_BYTES: u64 = 1024 * 1024 * 1024;
const MIN_TOPIC_ENTRIES: u64 = 1024;
const MAX_TOPIC_ENTRIES: u64 = 1024 * 1024;
/// The least and the most that the database may take on disk.
const MIN_STORE_BYTES: u64 = 16 * 1024 * 1024;
const MAX_STORE_BYTES: u64 = 1024 * 1024 * 1024 * 1024;
/// The most that gossip may hold in memory by its limits, whatever peers do.
const MAX_GOSSIP_MEMORY: usize = 4 * 1024 * 1024 * 1024;

/// The configuration cannot be used. The text names the file and the key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not TOML, or a key has the wrong type.
    #[error("configuration file {path}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// A value of the right type that makes no sense.
    #[error("configuration key `{key}`: {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// Why.
        reason: String,
    },
    /// The instance name is not one.
    #[error(
        "`{0}` is not an instance name: use 1 to 64 letters, digits and `-`, not starting with `-`"
    )]
    Name(String),
    /// The API address can be reached by other machines.
    #[error(
        "api_address {0} is not a loopback address: whoever reaches it and learns the token controls \
         this agent; set `allow_remote_api = true` if that is meant"
    )]
    RemoteApi(SocketAddr),
    /// The platform knows no home directory.
    #[error("no home directory is known; set HOME")]
    NoHome,
}

/// Least severe log lines to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// For developers.
    Debug,
    /// The course of events.
    Info,
    /// What deserves attention.
    Warn,
    /// Failures.
    Error,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        })
    }
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// What a daemon is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RoleName {
    /// Its agent.
    Agent,
    /// A first contact of others: it keeps more records for them, and accepts no files by rule.
    Bootstrap,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Agent => Self::Agent,
            RoleName::Bootstrap => Self::Bootstrap,
        }
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Bootstrap => "bootstrap",
        })
    }
}

macro_rules! table {
    ($(#[$doc:meta])* $name:ident { $($key:ident: $kind:ty,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(default)]
        pub(super) struct $name {
            $(pub(super) $key: Option<$kind>,)+
        }

        impl $name {
            /// The names of its keys.
            const KEYS: &[&str] = &[$(stringify!($key)),+];
        }
    };
}

/// Keys of the original daemon's file that mean nothing to this version, so that a file written for
/// it is told apart from one with a misspelt key.
const WITHOUT_EFFECT: &[&str] = &[
    "directory_digest_interval_secs",
    "directory_resubscribe_jitter_ms",
    "group_card_republish_interval_secs",
    "presence_beacon_interval_secs",
    "presence_event_poll_interval_secs",
    "presence_offline_timeout_secs",
    "rendezvous_enabled",
    "rendezvous_validity_ms",
    "update",
];

table! {
    /// The table `[sessions]`.
    SessionsTable {
        max: usize,
        max_per_network: usize,
        relay: bool,
    }
}

table! {
    /// The table `[relay]`.
    RelayTable {
        use_others: bool,
        tcp: TcpRelay,
    }
}

table! {
    /// The table `[nat]`.
    NatTable {
        port_mapping: bool,
    }
}

table! {
    /// The table `[gossip]`.
    GossipTable {
        retention_secs: u64,
        topic_bytes: u64,
        topic_entries: u64,
        log_bytes: u64,
        store_bytes: u64,
    }
}

/// Keys of the original daemon's table `[gossip]` that mean nothing to this version.
const GOSSIP_WITHOUT_EFFECT: &[&str] =
    &["active_view_size", "passive_view_size", "arwl", "prwl", "dispatch_workers"];

table! {
    /// The file's keys.
    FileConfig {
        instance_name: String,
        bind_address: SocketAddr,
        api_address: SocketAddr,
        allow_remote_api: bool,
        data_dir: PathBuf,
        identity_dir: PathBuf,
        user_key_path: PathBuf,
        role: RoleName,
        bootstrap_peers: Vec<SocketAddr>,
        mdns: bool,
        mdns_announce_id: bool,
        pure_pq: bool,
        network: String,
        heartbeat_interval_secs: u64,
        identity_ttl_secs: u64,
        log_level: LogLevel,
        log_format: LogFormat,
        sessions: SessionsTable,
        relay: RelayTable,
        nat: NatTable,
        gossip: GossipTable,
        files: FilesTable,
        mail: MailTable,
        letters: LettersTable,
    }
}

/// Every key, with the names of its tables before it.
#[cfg(test)]
pub(super) fn keys() -> std::collections::BTreeSet<String> {
    let tables = [
        ("sessions", SessionsTable::KEYS),
        ("relay", RelayTable::KEYS),
        ("nat", NatTable::KEYS),
        ("gossip", GossipTable::KEYS),
        ("files", FilesTable::KEYS),
        ("files.accept", RuleTable::KEYS),
        ("mail", MailTable::KEYS),
        ("letters", LettersTable::KEYS),
    ];
    let is_table = |key: &&&str| tables.iter().any(|(table, _)| *table == **key);
    let own = FileConfig::KEYS.iter().filter(|key| !is_table(key)).map(ToString::to_string);
    let of_table = |(table, keys): &(&str, &'static [&'static str])| {
        let table = (*table).to_owned();
        keys.iter().map(move |key| format!("{table}.{key}"))
    };
    own.chain(tables.iter().flat_map(of_table)).collect()
}

/// Keys of a file that change nothing.
#[derive(Debug, Default)]
pub(super) struct Ignored {
    /// Not known.
    pub(super) unknown: Vec<String>,
    /// Known, and without effect in this version.
    pub(super) without_effect: Vec<String>,
}

impl Ignored {
    fn of(table: &toml::Table) -> Self {
        let mut ignored = Self::default();
        for (key, value) in table {
            if WITHOUT_EFFECT.contains(&key.as_str()) {
                ignored.without_effect.push(key.clone());
            } else if !FileConfig::KEYS.contains(&key.as_str()) {
                ignored.unknown.push(key.clone());
            } else if let toml::Value::Table(inner) = value {
                let (known, without_effect) = match key.as_str() {
                    "gossip" => (GossipTable::KEYS, GOSSIP_WITHOUT_EFFECT),
                    "files" => (FilesTable::KEYS, &[][..]),
                    "relay" => (RelayTable::KEYS, &[][..]),
                    "nat" => (NatTable::KEYS, &[][..]),
                    "mail" => (MailTable::KEYS, &[][..]),
                    "letters" => (LettersTable::KEYS, &[][..]),
                    _ => (SessionsTable::KEYS, &[][..]),
                };
                for inner in inner.keys().filter(|key| !known.contains(&key.as_str())) {
                    let named = format!("{key}.{inner}");
                    if without_effect.contains(&inner.as_str()) {
                        ignored.without_effect.push(named);
                    } else {
                        ignored.unknown.push(named);
                    }
                }
            }
        }
        ignored
    }
}

impl FileConfig {
    /// Reads a file that must exist. Also gives the keys that change nothing.
    pub(super) fn read(path: &Path) -> Result<(Self, Ignored), ConfigError> {
        let read = || -> io::Result<String> {
            let mut text = String::new();
            std::fs::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
            Ok(text)
        };
        let text = read().map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            message: error.to_string(),
        })
    }

    /// The same for a file that may be absent.
    pub(super) fn read_if_present(path: &Path) -> Result<(Self, Ignored), ConfigError> {
        match Self::read(path) {
            Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Default::default())
            }
            result => result,
        }
    }

    fn parse(text: &str) -> Result<(Self, Ignored), toml::de::Error> {
        let table: toml::Table = toml::from_str(text)?;
        Ok((toml::from_str(text)?, Ignored::of(&table)))
    }

    /// Puts the given values over the defaults.
    pub(super) fn apply(self, config: &mut Config) -> Result<(), ConfigError> {
        fn set<T>(slot: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *slot = value;
            }
        }
        set(&mut config.bind_address, self.bind_address);
        set(&mut config.api_address, self.api_address);
        set(&mut config.allow_remote_api, self.allow_remote_api);
        set(&mut config.data_dir, self.data_dir);
        set(&mut config.identity_dir, self.identity_dir);
        config.user_key_path = self.user_key_path.or_else(|| config.user_key_path.take());
        set(&mut config.role, self.role);
        set(&mut config.bootstrap_peers, self.bootstrap_peers);
        set(&mut config.mdns, self.mdns);
        set(&mut config.mdns_announce_id, self.mdns_announce_id);
        set(&mut config.pure_pq, self.pure_pq);
        set(&mut config.log_level, self.log_level);
        set(&mut config.log_format, self.log_format);
        if let Some(relay) = self.relay {
            relay.apply(config);
        }
        if let Some(nat) = self.nat {
            set(&mut config.port_mapping, nat.port_mapping);
        }
        if let Some(sessions) = self.sessions {
            sessions.apply(config)?;
        }
        if let Some(gossip) = self.gossip {
            gossip.apply(config)?;
        }
        if let Some(files) = self.files {
            files.apply(&mut config.files)?;
        }
        if let Some(mail) = self.mail {
            mail.apply(&mut config.mail)?;
        }
        if let Some(letters) = self.letters {
            letters.apply(&mut config.letters)?;
        }
        if let Some(network) = self.network {
            config.network = Some(network_name(network)?);
        }
        if let Some(secs) = self.heartbeat_interval_secs {
            config.heartbeat = interval("heartbeat_interval_secs", secs)?;
        }
        if let Some(secs) = self.identity_ttl_secs {
            config.identity_ttl = interval("identity_ttl_secs", secs)?;
        } else {
            // Three announcements may be lost before an agent counts as gone.
            config.identity_ttl = config.identity_ttl.max(config.heartbeat * 3);
        }
        Ok(())
    }
}

impl RelayTable {
    fn apply(self, config: &mut Config) {
        config.relay_by_others = self.use_others.unwrap_or(config.relay_by_others);
        config.relay_tcp = self.tcp.unwrap_or(config.relay_tcp);
    }
}

impl SessionsTable {
    /// A cap for one network above the cap for all is the cap for all.
    fn apply(self, config: &mut Config) -> Result<(), ConfigError> {
        // The default is the most that there may be.
        let most = SessionConfig::default().max_sessions;
        let cap = |key, value: Option<usize>| match value {
            Some(other) if !(1..=most).contains(&other) => {
                let reason = format!("{other} is not between 1 and {most}");
                Err(ConfigError::Value { key, reason })
            }
            value => Ok(value),
        };
        if let Some(relay) = self.relay {
            config.relay = relay;
        }
        if let Some(max) = cap("sessions.max", self.max)? {
            config.max_sessions = max;
        }
        if let Some(max) = cap("sessions.max_per_network", self.max_per_network)? {
            config.max_sessions_per_network = max;
        }
        config.max_sessions_per_network = config.max_sessions_per_network.min(config.max_sessions);
        Ok(())
    }
}

impl GossipTable {
    fn apply(self, config: &mut Config) -> Result<(), ConfigError> {
        let number = |key, value: Option<u64>, slot: &mut usize, range: RangeInclusive<u64>| {
            if let Some(value) = value {
                let value = within(key, value, range)?;
                *slot = usize::try_from(value).unwrap_or(usize::MAX);
            }
            Ok(())
        };
        let limits = &mut config.gossip;
        if let Some(secs) = self.retention_secs {
            let secs = within("gossip.retention_secs", secs, MIN_RETENTION..=MAX_RETENTION)?;
            limits.retention = Duration::from_secs(secs);
        }
        let bytes = MIN_TOPIC_BYTES..=MAX_LOG_BYTES;
        let entries = MIN_TOPIC_ENTRIES..=MAX_TOPIC_ENTRIES;
        number("gossip.topic_bytes", self.topic_bytes, &mut limits.topic_bytes, bytes.clone())?;
        number("gossip.topic_entries", self.topic_entries, &mut limits.topic_entries, entries)?;
        number("gossip.log_bytes", self.log_bytes, &mut limits.log_bytes, bytes)?;
        if limits.topic_bytes > limits.log_bytes {
            let (topic, all) = (limits.topic_bytes, limits.log_bytes);
            let reason = format!("one topic may not take more ({topic}) than all together ({all})");
            return Err(ConfigError::Value { key: "gossip.topic_bytes", reason });
        }
        if let Some(bytes) = self.store_bytes {
            let range = MIN_STORE_BYTES..=MAX_STORE_BYTES;
            config.store_bytes = within("gossip.store_bytes", bytes, range)?;
        }
        let bound = limits.memory_bound();
        if bound > MAX_GOSSIP_MEMORY {
            let reason = format!(
                "with these limits peers could make this daemon hold {bound} bytes, more than \
                 {MAX_GOSSIP_MEMORY}"
            );
            return Err(ConfigError::Value { key: "gossip", reason });
        }
        Ok(())
    }
}

fn within(key: &'static str, value: u64, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
    if range.contains(&value) {
        return Ok(value);
    }
    let reason = format!("{value} is not between {} and {}", range.start(), range.end());
    Err(ConfigError::Value { key, reason })
}

fn interval(key: &'static str, secs: u64) -> Result<Duration, ConfigError> {
    within(key, secs, 1..=MAX_INTERVAL_SECS).map(Duration::from_secs)
}

fn network_name(name: String) -> Result<String, ConfigError> {
    if name.is_empty() || name.len() > MAX_NETWORK_NAME {
        let reason = format!("use 1 to {MAX_NETWORK_NAME} bytes");
        return Err(ConfigError::Value { key: "network", reason });
    }
    Ok(name)
}
