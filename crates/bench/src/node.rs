//! Daemons under measurement.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use x0x_api::Operation;
use x0x_api::types::{AgentResponse, HealthResponse, NetworkStatusResponse, PeersResponse};

use crate::http::Http;
use crate::place::Place;
use crate::process::{self, Memory};

/// How long a daemon may take to start or to find its peers.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a starting daemon is looked at: well below the time that is measured.
const POLL: Duration = Duration::from_micros(250);
/// Bytes a second that a daemon at rest may send, three times what it does.
const QUIET: u64 = 1024;
/// How long daemons that have just met may take to come to rest.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

/// Variables that would change what is measured.
const INHERITED: [&str; 6] =
    ["XDG_DATA_HOME", "XDG_CONFIG_HOME", "RUST_LOG", "X0X_LOG_DIR", "X0X_NAME", "X0X_DATA_DIR"];

/// Where a daemon listens, and whom it knows.
pub(crate) struct Network {
    pub(crate) bind: SocketAddr,
    pub(crate) bootstrap: Vec<SocketAddr>,
    /// Whether it takes machines without UDP over TCP.
    pub(crate) takes_tcp: bool,
}

/// A running daemon.
pub(crate) struct Node {
    child: Child,
    /// Where it runs, and so from where its API is reached.
    pub(crate) place: Place,
    pub(crate) api: SocketAddr,
    pub(crate) token: String,
}

impl Node {
    /// Starts a daemon in a folder, which may hold the keys of an earlier one, and measures how
    /// long it takes until it says that it is healthy.
    pub(crate) async fn start(
        daemon: &Path,
        folder: &Path,
        bootstrap: Option<SocketAddr>,
    ) -> Result<(Self, Duration)> {
        Self::start_in(Place::default(), daemon, folder, bootstrap).await
    }

    /// The same at a place of its own.
    pub(crate) async fn start_in(
        place: Place,
        daemon: &Path,
        folder: &Path,
        bootstrap: Option<SocketAddr>,
    ) -> Result<(Self, Duration)> {
        let bind = SocketAddr::from((place.address(), 0));
        let bootstrap = bootstrap.into_iter().collect();
        let network = Network { bind, bootstrap, takes_tcp: false };
        Self::start_on(place, daemon, folder, &network).await
    }

    /// The same with an address to bind, and with any number of machines to begin with.
    pub(crate) async fn start_on(
        place: Place,
        daemon: &Path,
        folder: &Path,
        network: &Network,
    ) -> Result<(Self, Duration)> {
        let config = write_config(folder, network)?;
        let port_file = folder.join("data/api.port");
        let _ = fs::remove_file(&port_file);
        let started = Instant::now();
        let mut command = place.command(daemon);
        command.arg("--config").arg(config).env("HOME", folder);
        for name in INHERITED {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let describe = || format!("cannot run {}", daemon.display());
        let mut child = command.spawn().with_context(describe)?;
        let api = loop {
            let text = fs::read_to_string(&port_file).unwrap_or_default();
            if let Ok(address) = text.trim().parse() {
                break address;
            }
            if let Some(status) = child.try_wait()? {
                bail!("the daemon ended with {status}");
            }
            if started.elapsed() > PATIENCE {
                bail!("the daemon wrote no port file");
            }
            sleep(POLL).await;
        };
        let mut http = Http::over(place.connect(api).await?, api, "");
        let _: HealthResponse = http.get(Operation::Health).await?;
        let elapsed = started.elapsed();
        let token = fs::read_to_string(folder.join("data/api-token"))?.trim().to_owned();
        Ok((Self { child, place, api, token }, elapsed))
    }

    /// A new connection to its API.
    pub(crate) async fn http(&self) -> Result<Http> {
        Ok(Http::over(self.place.connect(self.api).await?, self.api, &self.token))
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// The same of one whose place is taken by another.
    pub(crate) fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        process::memory(self.child.id())
    }

    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        process::cpu_time(self.child.id())
    }

    /// The id of its agent.
    pub(crate) async fn agent_id(&self) -> Result<String> {
        let agent: AgentResponse = self.http().await?.get(Operation::Agent).await?;
        Ok(agent.agent_id.to_string())
    }

    /// Bytes that it put on the network so far, IP and UDP headers included.
    pub(crate) async fn network_bytes(&self) -> Result<u64> {
        let path = x0x_api::endpoint(Operation::Metrics).path;
        let answer = self.http().await?.send("GET", path, b"").await?;
        let text = String::from_utf8(answer.body)?;
        let bytes = counter(&text, "udp_sent_bytes").context("no metric of sent bytes")?;
        let datagrams = counter(&text, "udp_sent_datagrams").context("no metric of datagrams")?;
        Ok(bytes + datagrams * 28)
    }

    pub(crate) async fn udp_address(&self) -> Result<SocketAddr> {
        let status: NetworkStatusResponse =
            self.http().await?.get(Operation::NetworkStatus).await?;
        status.local_addr.context("the daemon has no UDP address")
    }

    /// How many peers it lists.
    pub(crate) async fn peers(&self) -> Result<usize> {
        let answer: PeersResponse = self.http().await?.get(Operation::Peers).await?;
        Ok(answer.peers.len())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Its folder is temporary: there is nothing to end gracefully for.
        self.end();
    }
}

/// Daemons that know each other, in a folder of their own.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    _folder: TempDir,
}

impl Cluster {
    /// Starts daemons and waits until each has a peer.
    pub(crate) async fn start(daemon: &Path, count: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut nodes: Vec<Node> = Vec::with_capacity(count);
        let mut bootstrap = None;
        for index in 0..count {
            let (node, _) =
                Node::start(daemon, &folder.path().join(index.to_string()), bootstrap).await?;
            bootstrap = Some(match bootstrap {
                Some(first) => first,
                None => node.udp_address().await?,
            });
            nodes.push(node);
        }
        let cluster = Self { nodes, _folder: folder };
        let deadline = Instant::now() + PATIENCE;
        for node in &cluster.nodes {
            while node.peers().await? == 0 {
                if Instant::now() > deadline {
                    bail!("the daemons did not find each other");
                }
                sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(cluster)
    }

    /// CPU time of all daemons so far.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        self.nodes.iter().map(Node::cpu_time).sum()
    }

    /// Bytes that all daemons put on the network so far.
    pub(crate) async fn network_bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        for node in &self.nodes {
            bytes += node.network_bytes().await?;
        }
        Ok(bytes)
    }

    /// Waits until the daemons send little of themselves: those that have just met introduce one
    /// another, which is no part of what a message costs.
    pub(crate) async fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + SETTLED_WITHIN;
        let quiet = QUIET * self.nodes.len() as u64;
        while Instant::now() < deadline {
            let before = self.network_bytes().await?;
            sleep(Duration::from_secs(1)).await;
            if self.network_bytes().await? - before <= quiet {
                break;
            }
        }
        Ok(())
    }
}

fn write_config(folder: &Path, network: &Network) -> Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let peers = network.bootstrap.iter().map(|address| format!("{:?}", address.to_string()));
    let peers = peers.collect::<Vec<_>>().join(", ");
    let bind = network.bind;
    let takes_tcp = network.takes_tcp;
    let text = format!(
        "bind_address = \"{bind}\"\napi_address = \"127.0.0.1:0\"\nmdns = false\ndata_dir = {:?}\n\
         identity_dir = {:?}\nbootstrap_peers = [{peers}]\nnetwork = \"bench\"\n\
         [relay]\ntcp = {takes_tcp}\n",
        folder.join("data"),
        folder.join("identity"),
    );
    let path = folder.join("config.toml");
    fs::write(&path, text)?;
    Ok(path)
}

/// Sum over the samples of an OpenMetrics counter whose name ends in `name`.
fn counter(text: &str, name: &str) -> Option<u64> {
    let values = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (sample, value) = line.rsplit_once(' ')?;
        let metric = sample.split('{').next()?;
        let metric = metric.strip_suffix("_total").unwrap_or(metric);
        metric.ends_with(name).then(|| value.parse::<f64>().ok())?
    });
    values.reduce(|sum, value| sum + value).map(|sum| sum as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_the_end_of_their_name() {
        let text = "# TYPE x0x_udp_sent_bytes counter\nx0x_udp_sent_bytes_total 12\n\
                    x0x_udp_sent_bytes_total{a=\"b\"} 30\nx0x_other_total 5\n";
        assert_eq!(counter(text, "udp_sent_bytes"), Some(42));
        assert_eq!(counter(text, "udp_sent_datagrams"), None);
    }
}
