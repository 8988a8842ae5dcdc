//! The figures, one file for each group, in the order of the design's table.

mod clients;
pub(crate) mod direct;
mod direct_ws;
mod files;
mod flood;
mod groups;
mod objects;
mod publish;
mod resources;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use crate::node::Cluster;
use crate::report::Report;

/// Bytes of every message.
const SIZE: usize = 256;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Cluster sizes of the publish burst besides 2.
    more_burst_nodes: &'static [usize],
    /// Cluster sizes of the burst from REST clients.
    rest_nodes: &'static [usize],
    /// Cluster sizes of the paced publisher and of the idle run.
    small_and_large: &'static [usize],
    burst: u64,
    rest_burst: u64,
    paced: u64,
    direct: u64,
    direct_parallel: u64,
    /// Texts in an encrypted group.
    group_texts: u64,
    /// Operations of a shared store.
    object_operations: u64,
    /// Sizes of files in MiB.
    files: &'static [u64],
    starts: usize,
    /// Clients of the local API that wait.
    clients: usize,
    idle: Duration,
    /// How long after the last send deliveries are waited for.
    patience: Duration,
}

impl Scale {
    pub(crate) const FULL: Self = Self {
        more_burst_nodes: &[5, 8],
        rest_nodes: &[2, 3, 8],
        small_and_large: &[2, 8],
        burst: 10_000,
        rest_burst: 8_000,
        paced: 500,
        direct: 1_000,
        direct_parallel: 10_000,
        group_texts: 500,
        object_operations: 50_000,
        files: &[16, 256, 1024],
        starts: 11,
        clients: 900,
        idle: Duration::from_secs(30),
        patience: Duration::from_secs(30),
    };

    pub(crate) const QUICK: Self = Self {
        more_burst_nodes: &[3],
        rest_nodes: &[2],
        small_and_large: &[2],
        burst: 2_000,
        rest_burst: 800,
        paced: 100,
        direct: 200,
        direct_parallel: 1_000,
        group_texts: 100,
        object_operations: 2_000,
        files: &[16, 64],
        starts: 3,
        clients: 200,
        idle: Duration::from_secs(5),
        patience: Duration::from_secs(10),
    };
}

/// A group of figures.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// Binary size and time to start
    Start,
    /// Memory and CPU of idle daemons
    Idle,
    /// Two daemons: publish burst, direct messages, memory after load
    Pair,
    /// Memory of clients that wait, and what one that stalls does to others
    Clients,
    /// A stranger's flood beside a contact's direct messages
    Flood,
    /// Files between two daemons
    Files,
    /// Publish bursts over WebSocket to more daemons
    Burst,
    /// Publish bursts from REST clients
    Rest,
    /// A paced publisher
    Paced,
    /// An encrypted group
    Groups,
    /// A shared store with many operations, and who joins it late
    Objects,
}

/// Measures the groups named, all when none is. Progress goes to standard error.
pub(crate) async fn run(
    daemon: &Path,
    scale: Scale,
    only: &[Group],
    report: &mut Report,
) -> Result<()> {
    for group in Group::value_variants() {
        if only.is_empty() || only.contains(group) {
            measure(*group, daemon, scale, report).await?;
        }
    }
    Ok(())
}

async fn measure(group: Group, daemon: &Path, scale: Scale, report: &mut Report) -> Result<()> {
    let sizes: &[usize] = match group {
        Group::Start | Group::Clients => &[],
        Group::Pair | Group::Files | Group::Objects => &[2],
        Group::Flood => &[4],
        Group::Burst => scale.more_burst_nodes,
        Group::Rest => scale.rest_nodes,
        Group::Idle | Group::Paced | Group::Groups => scale.small_and_large,
    };
    if group == Group::Start {
        resources::binary_size(daemon, report)?;
        resources::start(daemon, scale, report).await?;
    }
    if group == Group::Clients {
        clients::measure(daemon, scale, report).await?;
    }
    for &nodes in sizes {
        let cluster = Cluster::start(daemon, nodes).await?;
        match group {
            Group::Start | Group::Clients => {}
            Group::Idle => resources::idle(&cluster, scale, report).await?,
            Group::Pair => {
                publish::burst(&cluster, scale, report).await?;
                direct::measure(&cluster, scale, report).await?;
                resources::after_load(&cluster, report)?;
            }
            Group::Files => files::measure(&cluster, scale, report).await?,
            Group::Flood => flood::measure(&cluster, scale, report).await?,
            Group::Burst => publish::burst(&cluster, scale, report).await?,
            Group::Rest => publish::rest_burst(&cluster, scale, report).await?,
            Group::Paced => publish::paced(&cluster, scale, report).await?,
            Group::Groups => groups::measure(&cluster, scale, report).await?,
            Group::Objects => objects::measure(&cluster, scale, report).await?,
        }
    }
    Ok(())
}

/// Announces a run and names it.
fn begin(name: &str, nodes: usize) -> String {
    let run = format!("{name}, {nodes} nodes");
    eprintln!("{run}");
    run
}

fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}
