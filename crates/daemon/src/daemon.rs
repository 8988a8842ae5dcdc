//! A running daemon: an agent, its API, and their files.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use x0x_agent::{Agent, AgentConfig, private_file::make_folder};

use crate::{
    app::App,
    config::{Config, RoleName},
    error::StartError,
    files::{ApiToken, InstanceLock, PortFile},
    http::{auth::Guard, router, server},
    transfers, warnings, webhook,
};

/// How long open connections get to end when the daemon stops.
const GRACE: Duration = Duration::from_secs(2);
/// How long the agent gets to tell its peers and save its state.
const AGENT_GRACE: Duration = Duration::from_secs(5);

/// A running daemon. Call [`shutdown`](Self::shutdown) to end it; dropping it only frees its data
/// directory.
#[derive(Debug)]
pub struct Daemon {
    app: Arc<App>,
    server: JoinHandle<()>,
    kill: CancellationToken,
    // Fields are dropped in this order: the port file goes before the lock is free.
    port_file: PortFile,
    lock: (InstanceLock, Option<InstanceLock>),
}

impl Daemon {
    /// Takes the data directory, opens the API, starts the agent, and serves. Returns as soon as the
    /// API answers; the network is joined in the background.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running or behind then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        make_folder(&config.data_dir)?;
        let lock = InstanceLock::take(&config.data_dir)?;
        make_folder(&config.identity_dir)?;
        let keys = InstanceLock::take_keys(&config.identity_dir)?;
        PortFile::remove_stale(&config.data_dir)?;
        let token = ApiToken::load_or_create(&config.data_dir)?;
        let (listener, api_address) = listen(config.api_address).await?;
        let agent = Agent::builder(agent_config(&config)).start().await?;
        let stop = CancellationToken::new();
        let kill = CancellationToken::new();
        let app = App::new(agent, api_address, Guard::new(token, api_address), stop);
        let transfers = transfers::forward(app.agent.file_events(), app.bus.clone());
        let until_stopped = app.stop.clone();
        app.tasks.spawn(async move { until_stopped.run_until_cancelled(transfers).await });
        let serve = server::serve(listener, router(&app), Arc::clone(&app), kill.clone());
        let server = tokio::spawn(serve);
        app.tasks.spawn(warnings::log(Arc::clone(&app)));
        if let Some(webhook) = config.mail.webhook {
            app.tasks.spawn(webhook::run(Arc::clone(&app), webhook));
        }
        let port_file = match PortFile::write(&config.data_dir, api_address) {
            Ok(file) => file,
            Err(error) => {
                app.stop.cancel();
                app.agent.shutdown().await;
                return Err(error.into());
            }
        };
        tracing::info!(%api_address, agent = %app.agent.agent_id(), "started");
        Ok(Self { app, server, kill, port_file, lock: (lock, keys) })
    }

    /// Where the API listens.
    #[must_use]
    pub fn api_address(&self) -> SocketAddr {
        self.app.api_address
    }

    /// The API's token.
    #[must_use]
    pub fn token(&self) -> &ApiToken {
        self.app.guard.token()
    }

    /// The agent that the daemon serves.
    #[must_use]
    pub fn agent(&self) -> &Agent {
        &self.app.agent
    }

    /// Waits until a client asks the daemon to stop.
    pub async fn stop_requested(&self) {
        self.app.stop.cancelled().await;
    }

    /// Stops: takes no more connections, tells streams and sessions, gives open connections two
    /// seconds, stops the agent, and removes `api.port`.
    pub async fn shutdown(self) {
        let Self { app, server, kill, port_file, lock } = self;
        app.stop.cancel();
        // Ends at once by the token; a panic in it was reported when it happened.
        let _ = server.await;
        app.tasks.close();
        if tokio::time::timeout(GRACE, app.tasks.wait()).await.is_err() {
            tracing::warn!("connections did not end in time");
            kill.cancel();
        }
        app.subscriptions.clear().await;
        if tokio::time::timeout(AGENT_GRACE, app.agent.shutdown()).await.is_err() {
            tracing::warn!("the agent did not stop in time");
        }
        drop(port_file);
        drop(lock);
        tracing::info!("stopped");
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let bind = async {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    bind.await.map_err(|source| StartError::Listen { address, source })
}

fn agent_config(config: &Config) -> AgentConfig {
    let mut agent = AgentConfig::new(&config.identity_dir, &config.data_dir);
    agent.user_key.clone_from(&config.user_key_path);
    agent.private_files.clone_from(&config.config_files);
    agent.bind = config.bind_address;
    agent.role = config.role.into();
    agent.bootstrap.clone_from(&config.bootstrap_peers);
    agent.mdns = config.mdns;
    agent.mdns_announce_id = config.mdns_announce_id;
    agent.pure_pq = config.pure_pq;
    agent.sessions.max_sessions = config.max_sessions;
    agent.sessions.max_sessions_per_network = config.max_sessions_per_network;
    agent.sessions.relay.enabled = config.relay;
    agent.sessions.relay.use_others = config.relay_by_others;
    agent.streams.dial = config.relay_by_others;
    agent.port_mapping = config.port_mapping;
    agent.streams.listen = config.relay_tcp.port(config.role);
    agent.gossip.clone_from(&config.gossip);
    agent.store_bytes = config.store_bytes;
    agent.mail_retention = config.mail.retention;
    agent.mail_durability = config.mail.durability.into();
    agent.letters.clone_from(&config.letters);
    agent.downloads.clone_from(&config.files.folder);
    if config.role == RoleName::Agent {
        agent.accept_files = config.files.rules();
    }
    agent.files_keep_free = config.files.keep_free;
    agent.heartbeat = config.heartbeat;
    agent.announcement_ttl = config.identity_ttl;
    if let Some(network) = &config.network {
        agent.network.clone_from(network);
    }
    agent
}
