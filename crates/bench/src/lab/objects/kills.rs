//! Five daemons that write all the time, one of which is killed at a random moment again and again: what was
//! acknowledged is there in the end, everywhere, and all replicas are equal.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, sleep_until};

use super::{LIST, MAX_WRITES, STORES, equal, join, keys, put, send, store, tasks};
use crate::http::Http;
use crate::lab::PATIENCE;
use crate::lab::mail::Choices;
use crate::node::Node;
use crate::report::{Report, Target};

const NODES: usize = 5;
/// The shortest pause between the writes of one daemon.
const PACE: Duration = Duration::from_millis(20);
/// How long the others go on after a kill, before the killed one starts again.
const AWAY: Duration = Duration::from_millis(300);
/// Of so many writes one is a task.
const TASKS: u64 = 1 + STORES as u64;

/// What a daemon was told.
#[derive(Default)]
struct Told {
    /// Keys with their store, and tasks, that it acknowledged.
    keys: BTreeSet<String>,
    tasks: BTreeSet<String>,
    /// Writes that it refused although it ran.
    refused: u64,
    /// Writes that ended with it.
    killed: u64,
}

struct Lab<'a> {
    daemon: &'a Path,
    folder: TempDir,
    nodes: Vec<Option<Node>>,
    told: Vec<Told>,
    written: Vec<u64>,
    pace: Duration,
}

pub(crate) async fn run(daemon: &Path, seconds: u64, seed: u64, report: &mut Report) -> Result<()> {
    let run = format!("objects, kills for {seconds} s, seed {seed}");
    eprintln!("{run}");
    let mut lab = Lab::start(daemon, seconds).await?;
    let (mut rng, mut kills) = (Choices(seed), 0);
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        let moment = Instant::now() + Duration::from_millis(rng.below(1500) + 100);
        let victim = rng.below(NODES as u64) as usize;
        lab.round(victim, moment).await.with_context(|| format!("kill {kills}"))?;
        kills += 1;
    }
    report.note(&run, "kills", f64::from(kills), "");
    lab.judge(&run, report).await
}

impl<'a> Lab<'a> {
    async fn start(daemon: &'a Path, seconds: u64) -> Result<Self> {
        // Each daemon writes to all objects in turn: together they stay within each object's log.
        let most = (MAX_WRITES * (STORES as u64 + 1) / NODES as u64).max(1);
        let pace = PACE.max(Duration::from_secs(seconds) / u32::try_from(most)?);
        let (folder, nodes) = (tempfile::tempdir()?, Vec::new());
        let told = (0..NODES).map(|_| Told::default()).collect();
        let mut lab = Self { daemon, folder, nodes, told, written: vec![0; NODES], pace };
        for index in 0..NODES {
            lab.nodes.push(None);
            lab.begin(index).await?;
            join(lab.node(index)?).await?;
        }
        Ok(lab)
    }

    fn node(&self, index: usize) -> Result<&Node> {
        self.nodes.get(index).and_then(Option::as_ref).context("a daemon that runs")
    }

    /// Starts a daemon, told of another one that runs.
    async fn begin(&mut self, index: usize) -> Result<()> {
        let other = self.nodes.iter().flatten().next();
        let bootstrap = match other {
            Some(other) => Some(other.udp_address().await?),
            None => None,
        };
        let folder = self.folder.path().join(index.to_string());
        let (node, _) = Node::start(self.daemon, &folder, bootstrap).await?;
        if let Some(place) = self.nodes.get_mut(index) {
            *place = Some(node);
        }
        Ok(())
    }

    /// All write; one is killed at the moment while it does, and comes back a little later.
    async fn round(&mut self, victim: usize, moment: Instant) -> Result<()> {
        let mut clients = Vec::new();
        for index in 0..NODES {
            clients.push(self.node(index)?.http().await?);
        }
        let until = moment + AWAY;
        let Self { nodes, told, written, pace, .. } = self;
        let pace = *pace;
        let kill = async {
            sleep_until(moment).await;
            if let Some(node) = nodes.get_mut(victim).and_then(Option::take) {
                node.kill();
            }
        };
        let writers = clients.into_iter().enumerate().zip(told).zip(written);
        let writes = writers.map(|(((index, http), told), next)| {
            write(http, index, (index == victim, until, pace), told, next)
        });
        tokio::join!(kill, join_all(writes));
        self.begin(victim).await
    }

    async fn judge(&self, run: &str, report: &mut Report) -> Result<()> {
        let nodes: Vec<&Node> = self.nodes.iter().flatten().collect();
        let equal = equal(&nodes).await;
        let (mut lost, mut acknowledged, mut refused, mut killed) = (0, 0, 0, 0);
        for node in &nodes {
            let (keys, tasks) = (keys(node).await?, tasks(node).await?);
            for told in &self.told {
                lost += told.keys.difference(&keys).count();
                lost += told.tasks.difference(&tasks).count();
            }
        }
        for told in &self.told {
            acknowledged += told.keys.len() + told.tasks.len();
            refused += told.refused;
            killed += told.killed;
        }
        let zero = Target::AtMost(0.0);
        report.note(run, "acknowledged", acknowledged as f64, "writes");
        report.note(run, "killed on their way", killed as f64, "writes");
        report.note(run, "refused by a daemon that ran", refused as f64, "writes");
        report.figure(run, "lost, of all replicas", lost as f64, "writes", zero);
        let waited = equal.unwrap_or(PATIENCE * 2).as_secs_f64();
        let limit = Target::AtMost(PATIENCE.as_secs_f64());
        report.figure(run, "equal at rest after", waited, "s", limit);
        Ok(())
    }
}

/// Writes until it is time, or the daemon is gone. Each key is written once, so that none hides another's loss.
async fn write(
    mut http: Http,
    index: usize,
    (is_victim, until, pace): (bool, Instant, Duration),
    told: &mut Told,
    next: &mut u64,
) {
    while Instant::now() < until {
        *next += 1;
        let number = *next;
        let text = format!("{index}-{number}");
        let answer = if number.is_multiple_of(TASKS) {
            send(&mut http, "POST", &format!("{LIST}/tasks"), &json!({"title": text})).await
        } else {
            put(&mut http, number, &text, &text).await
        };
        let task = |body: &[u8]| {
            let body: Value = serde_json::from_slice(body).ok()?;
            Some(body["task_id"].as_str()?.to_owned())
        };
        match answer {
            Ok(answer) if answer.status == 200 => {
                told.keys.insert(format!("{}/{text}", store(number)));
            }
            Ok(answer) if answer.status == 201 => told.tasks.extend(task(&answer.body)),
            Ok(_) => told.refused += 1,
            // The connection ended, or the call took too long.
            Err(_) if is_victim => return told.killed += 1,
            Err(_) => return told.refused += 1,
        }
        sleep(pace).await;
    }
}
