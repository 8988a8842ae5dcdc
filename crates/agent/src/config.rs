//! How an agent is set up.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use x0x_direct::{Quotas, letters::LettersConfig, mail::Retention};
use x0x_files::AcceptRule;
use x0x_gossip_pubsub::Limits as GossipLimits;
use x0x_presence::PresenceConfig;
use x0x_store::Durability;
use x0x_transport::{SessionConfig, quic::StreamConfig};

use crate::Role;

/// Where topic logs are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Storage {
    /// In the file `x0x.db` of the data folder: a publish is acknowledged once it is there, and
    /// subscribers go on where they were after a restart.
    #[default]
    Disk,
    /// In memory only, for agents that do not outlive their process.
    Memory,
}

/// Settings of an [`Agent`](crate::Agent). All have defaults but the two folders.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AgentConfig {
    /// Folder of the key files (`machine.key`, `agent.key`, `user.key`), made 0700.
    pub identity_dir: PathBuf,
    /// The user's key, where it is not `user.key` in that folder. It must be there: a user's key is
    /// never made without being asked for.
    pub user_key: Option<PathBuf>,
    /// Further files with secrets, such as the configuration of whoever runs this agent. As all of the above, they are
    /// never sent as files.
    pub private_files: Vec<PathBuf>,
    /// Folder of everything else, such as `contacts.json`, `peer_cache/` and `x0x.db`.
    pub data_dir: PathBuf,
    /// Where the QUIC endpoint listens. Default `[::]:0`: any interface, any free port.
    pub bind: SocketAddr,
    /// What this node is for.
    pub role: Role,
    /// First-contact hints. Default none: known peers are found through the peer cache.
    pub bootstrap: Vec<SocketAddr>,
    /// Machines of different networks refuse each other. Default `x0x`.
    pub network: String,
    /// Announce this machine to others on its links by multicast DNS, under a random name, and look for them.
    /// Without effect on an endpoint that is bound to loopback. Default false.
    pub mdns: bool,
    /// Let everybody on these links know the machine's id, so that contacts find it at once. Default false.
    pub mdns_announce_id: bool,
    /// Ask gateways by PCP or NAT-PMP for a port that leads here. Without effect on an endpoint that is bound to
    /// loopback. Default false.
    pub port_mapping: bool,
    /// Offer pure ML-KEM-768 alone, without the X25519 hybrid. Default false.
    pub pure_pq: bool,
    /// Limits and times of sessions, such as how many there may be.
    pub sessions: SessionConfig,
    /// Packets over TCP, where UDP does not pass: whether this machine dials so, and takes others. Default: it
    /// dials, and takes none.
    pub streams: StreamConfig,
    /// Where topic logs are kept. Default on disk.
    pub storage: Storage,
    /// Bytes that the database may take on disk; the oldest of what it keeps goes. Default 1 GiB.
    pub store_bytes: u64,
    /// What mail that is acknowledged, and letters that are posted, outlive. Default the end of the process.
    pub mail_durability: Durability,
    /// How much mail may lie unread.
    pub mail_quotas: Quotas,
    /// What is kept of mail and letters.
    pub mail_retention: Retention,
    /// Sealed letters: whether and how much is kept for others, and when own messages are left with them.
    pub letters: LettersConfig,
    /// Where received files go; made 0700. Default `downloads` in the data folder.
    pub downloads: Option<PathBuf>,
    /// Which offered files are accepted without a question. Default none.
    pub accept_files: Vec<AcceptRule>,
    /// Bytes of the disk that received files leave free. Default 64 MiB.
    pub files_keep_free: u64,
    /// What topics keep in memory, for how long, and every other bound of gossip.
    pub gossip: GossipLimits,
    /// How this agent shows that it is there.
    pub presence: PresenceConfig,
    /// Period of announcements. Default 300 s.
    pub heartbeat: Duration,
    /// How long an announcement counts as fresh. Default 900 s.
    pub announcement_ttl: Duration,
}

impl AgentConfig {
    /// The defaults over two folders.
    #[must_use]
    pub fn new(identity_dir: impl Into<PathBuf>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            identity_dir: identity_dir.into(),
            user_key: None,
            private_files: Vec::new(),
            data_dir: data_dir.into(),
            bind: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
            role: Role::default(),
            bootstrap: Vec::new(),
            network: "x0x".to_owned(),
            mdns: false,
            mdns_announce_id: false,
            port_mapping: false,
            pure_pq: false,
            sessions: SessionConfig::default(),
            streams: StreamConfig::default(),
            storage: Storage::Disk,
            store_bytes: 1024 * 1024 * 1024,
            downloads: None,
            accept_files: Vec::new(),
            files_keep_free: 64 * 1024 * 1024,
            mail_durability: Durability::default(),
            mail_quotas: Quotas::default(),
            mail_retention: Retention::default(),
            letters: LettersConfig::default(),
            gossip: GossipLimits::default(),
            presence: PresenceConfig::default(),
            heartbeat: Duration::from_secs(300),
            announcement_ttl: Duration::from_secs(900),
        }
    }

    /// Where data are kept; none when they are in memory.
    pub(crate) fn kept_in(&self) -> Option<PathBuf> {
        (self.storage == Storage::Disk).then(|| self.data_dir.clone())
    }
}
