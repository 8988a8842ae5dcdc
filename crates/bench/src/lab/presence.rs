//! Daemons that are each other's contacts on a machine that is fully busy, one of which stands still for
//! five seconds again and again: nobody is ever seen offline, until somebody is killed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};
use x0x_api::Operation;
use x0x_api::types::{AddContactRequest, PresenceState, PresenceStatusResponse};

use crate::http::Http;
use crate::node::{Cluster, Node};
use crate::report::{Report, Target};

const NODES: usize = 5;
/// Who stands still, for how long, and how often.
const STOPPED: usize = 1;
const STILL: Duration = Duration::from_secs(5);
const EVERY: Duration = Duration::from_secs(20);
/// Who is killed in the end.
const KILLED: usize = 4;
/// How soon its contacts are to see it offline, as the documentation of presence says, and how long is
/// waited for that.
const OFFLINE: Duration = Duration::from_secs(33);
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at everybody.
const POLL: Duration = Duration::from_millis(250);

/// Threads that leave no core idle, until it is dropped.
struct Load(Arc<AtomicBool>);

impl Load {
    fn start() -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cores {
            let ends = Arc::clone(&ends);
            std::thread::spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(ends)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One daemon's view of the others.
struct Viewer {
    number: usize,
    http: Http,
}

struct Lab {
    ids: Vec<String>,
    viewers: Vec<Viewer>,
}

impl Lab {
    async fn new(nodes: &[Node]) -> Result<Self> {
        let mut ids = Vec::with_capacity(nodes.len());
        for node in nodes {
            ids.push(node.agent_id().await?);
        }
        let mut viewers = Vec::with_capacity(nodes.len());
        for (number, node) in nodes.iter().enumerate() {
            let mut http = node.http().await?;
            for (other, id) in ids.iter().enumerate().filter(|(other, _)| *other != number) {
                let trust_level = Some("known".to_owned());
                let contact = AddContactRequest { agent_id: id.clone(), trust_level, label: None };
                let added = http.post(Operation::AddContact, &contact).await?;
                ensure!(added.status == 201, "contact {other} of {number}: {}", added.status);
                let connect = serde_json::json!({ "agent_id": id });
                http.post(Operation::Connect, &connect).await?;
            }
            viewers.push(Viewer { number, http });
        }
        Ok(Self { ids, viewers })
    }

    /// Who is seen offline by whom, but by those that stand still.
    async fn offline(&mut self, silent: Option<usize>) -> Result<Vec<(usize, usize)>> {
        let mut seen = Vec::new();
        for viewer in self.viewers.iter_mut().filter(|viewer| Some(viewer.number) != silent) {
            for (subject, id) in self.ids.iter().enumerate() {
                if subject == viewer.number {
                    continue;
                }
                let path = x0x_api::endpoint(Operation::PresenceStatus).path;
                let path = path.replace("{agent_id}", id);
                let status: PresenceStatusResponse =
                    viewer.http.send("GET", &path, b"").await?.read()?;
                if matches!(status.state, PresenceState::Offline | PresenceState::Unknown) {
                    seen.push((viewer.number, subject));
                }
            }
        }
        Ok(seen)
    }
}

pub(super) async fn run(daemon: &Path, minutes: u64, report: &mut Report) -> Result<()> {
    let run = format!("{NODES} busy contacts, {minutes} min");
    eprintln!("{run}");
    let mut cluster = Cluster::start(daemon, NODES).await?;
    let mut lab = Lab::new(&cluster.nodes).await?;
    let deadline = Instant::now() + PATIENCE;
    while !lab.offline(None).await?.is_empty() {
        ensure!(Instant::now() < deadline, "the contacts do not see each other");
        sleep(POLL).await;
    }
    let load = Load::start();
    let (stalls, false_offline) = stall(&cluster.nodes[STOPPED], &mut lab, minutes).await?;
    drop(load);
    report.note(&run, "stalls of 5 s", stalls as f64, "");
    report.figure(&run, "seen offline falsely", false_offline as f64, "", Target::AtMost(0.0));
    let took = kill(&mut cluster, &mut lab).await?.as_secs_f64();
    let limit = Target::AtMost(OFFLINE.as_secs_f64());
    report.figure(&run, "killed to offline everywhere", took, "s", limit);
    Ok(())
}

/// Stops and continues one for as long as it takes; how often, and how often anybody was seen offline.
async fn stall(stopped: &Node, lab: &mut Lab, minutes: u64) -> Result<(u64, u64)> {
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    let (mut stalls, mut false_offline) = (0, 0);
    while Instant::now() < end {
        let begun = Instant::now();
        signal(stopped.pid(), Signal::STOP)?;
        stalls += 1;
        let mut still = true;
        while begun.elapsed() < EVERY {
            if still && begun.elapsed() >= STILL {
                signal(stopped.pid(), Signal::CONT)?;
                still = false;
            }
            // It answers nothing while it stands still.
            let seen = lab.offline(still.then_some(STOPPED)).await?;
            for (viewer, subject) in &seen {
                eprintln!("{viewer} sees {subject} offline");
            }
            false_offline += seen.len() as u64;
            sleep(POLL).await;
        }
    }
    Ok((stalls, false_offline))
}

/// How long it takes until all see that one was killed.
async fn kill(cluster: &mut Cluster, lab: &mut Lab) -> Result<Duration> {
    lab.viewers.retain(|viewer| viewer.number != KILLED);
    let begun = Instant::now();
    cluster.nodes.remove(KILLED).kill();
    loop {
        let seen = lab.offline(None).await?;
        let by = seen.iter().filter(|(_, subject)| *subject == KILLED).count();
        if by == lab.viewers.len() {
            return Ok(begun.elapsed());
        }
        ensure!(begun.elapsed() < PATIENCE, "seen by {by} of {} only", lab.viewers.len());
        sleep(POLL).await;
    }
}

fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("a process id")?;
    Ok(kill_process(pid, signal)?)
}
