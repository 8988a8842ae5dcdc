//! Daemons under measurement: started in temporary folders, joined, and stopped.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::{client::Http, process};

/// How long a daemon may take to come up, or a cluster to form.
const PATIENCE: Duration = Duration::from_secs(30);

/// One running daemon. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    pub(crate) api: SocketAddr,
    pub(crate) token: String,
    /// From the start of the process to the first healthy answer.
    pub(crate) start: Duration,
}

impl Daemon {
    /// Starts a daemon in `dir`; keys that are there already are used.
    pub(crate) async fn start(
        x0xd: &Path,
        dir: &Path,
        bootstrap: Option<&str>,
    ) -> anyhow::Result<Self> {
        let data = dir.join("data");
        std::fs::create_dir_all(&data)?;
        let config = dir.join("config.toml");
        let peers = bootstrap.map(|peer| format!("\"{peer}\"")).unwrap_or_default();
        std::fs::write(
            &config,
            format!(
                "bind_address = \"127.0.0.1:0\"\napi_address = \"127.0.0.1:0\"\n\
                 data_dir = {data:?}\nidentity_dir = {keys:?}\nbootstrap_peers = [{peers}]\n",
                keys = dir.join("keys"),
            ),
        )?;
        let begin = now();
        let child = Command::new(x0xd)
            .arg("--config")
            .arg(&config)
            .env("HOME", dir)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("starting x0xd")?;
        let port_file = data.join("api.port");
        let mut daemon = Self {
            child,
            api: SocketAddr::from(([127, 0, 0, 1], 0)),
            token: String::new(),
            start: Duration::ZERO,
        };
        daemon.api = daemon.wait_for_port(&port_file, begin).await?;
        daemon.token = std::fs::read_to_string(data.join("api-token"))?.trim().to_owned();
        let mut http = daemon.http().await?;
        http.get("/health").await?;
        daemon.start = begin.elapsed();
        Ok(daemon)
    }

    async fn wait_for_port(
        &mut self,
        port_file: &PathBuf,
        begin: Instant,
    ) -> anyhow::Result<SocketAddr> {
        loop {
            if let Ok(text) = std::fs::read_to_string(port_file)
                && let Ok(address) = text.trim().parse()
            {
                return Ok(address);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("x0xd ended with {status} before it was up");
            }
            if begin.elapsed() > PATIENCE {
                bail!("x0xd did not write {}", port_file.display());
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    }

    pub(crate) async fn http(&self) -> anyhow::Result<Http> {
        Http::connect(self.api, &self.token).await
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already; there is nothing more to do then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Daemons that know each other.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) daemons: Vec<Daemon>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    /// Starts `nodes` daemons that bootstrap from the first, and waits until each has a session with
    /// every other.
    pub(crate) async fn start(x0xd: &Path, nodes: usize) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let first = Daemon::start(x0xd, &folder.path().join("0"), None).await?;
        let status = first.http().await?.get("/network/status").await?;
        let hub = status["local_addr"].as_str().context("no local_addr")?.to_owned();
        let mut daemons = vec![first];
        for n in 1..nodes {
            let dir = folder.path().join(n.to_string());
            daemons.push(Daemon::start(x0xd, &dir, Some(&hub)).await?);
        }
        let cluster = Self { daemons, _folder: folder };
        cluster.wait_for_mesh().await?;
        Ok(cluster)
    }

    async fn wait_for_mesh(&self) -> anyhow::Result<()> {
        let others = self.daemons.len() as u64 - 1;
        let begin = now();
        for daemon in &self.daemons {
            let mut http = daemon.http().await?;
            loop {
                let peers = http.get("/health").await?["peers"].as_u64().unwrap_or(0);
                if peers >= others {
                    break;
                }
                if begin.elapsed() > PATIENCE {
                    bail!("a node has {peers} of {others} peers after {PATIENCE:?}");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// CPU seconds of all daemons so far.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        self.daemons.iter().map(|daemon| process::cpu_seconds(daemon.pid())).sum()
    }

    /// Bytes that all daemons have sent over UDP so far, from their own counters.
    pub(crate) async fn udp_bytes(&self) -> anyhow::Result<f64> {
        let mut total = 0.0;
        for daemon in &self.daemons {
            let page = daemon.http().await?.text("/metrics").await?;
            total += page
                .lines()
                .find(|line| line.starts_with("x0x_socket_sent_bytes"))
                .and_then(|line| line.split_whitespace().nth(1))
                .and_then(|value| value.parse::<f64>().ok())
                .unwrap_or(0.0);
        }
        Ok(total)
    }
}

/// The monotonic clock.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
