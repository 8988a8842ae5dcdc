//! Pairs of daemons, each behind a translator of some kind, that have to meet by the id of an agent alone.
//!
//! Each pair gets an internet of its own with two public daemons, which both know and which are all that
//! they know. Both daemons have the configuration that their users would have.

mod gateway;
mod kinds;
pub(super) mod loss;
pub(super) mod paths;
mod world;

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};
use x0x_api::{
    Operation,
    types::{
        AgentResponse, ConnectOutcome, ConnectRequest, ConnectResponse, PathKind, PeersResponse,
        TransferStatus,
    },
};

pub(crate) use self::kinds::Kind;
use self::{
    kinds::{Way, expected},
    world::World,
};
use crate::{
    node::{Network, Node},
    report::{Report, Target},
    stats::Samples,
    transfer,
};

/// The port of every daemon.
const PORT: u16 = 5483;
/// The public daemons, in two networks, so that they may confirm addresses.
const SEEDS: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 1)];
/// Where the pair's packets come out.
const PUBLIC: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 10), Ipv4Addr::new(203, 0, 113, 20)];
/// How long a daemon may take to find a public one.
const JOIN: Duration = Duration::from_secs(5);
/// How long a pair may take to meet.
const MEET: Duration = Duration::from_secs(20);
/// Between two attempts.
const RETRY: Duration = Duration::from_millis(50);
/// Bytes of the file that each sends the other, and how long it may take.
const FILE: u64 = 1024 * 1024;
const SENT: Duration = Duration::from_secs(30);
/// How soon a pair has to have met, in milliseconds.
const SOON: f64 = 2000.0;
/// How long one that a relay joined first may take to be direct where that can be.
const UPGRADE: Duration = Duration::from_secs(10);

/// What became of a pair.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Meeting {
    from: Kind,
    to: Kind,
    run: u32,
    expected: Way,
    way: Way,
    /// From when the second one had joined to a session between them.
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_ms: Option<f64>,
    /// From then on to a direct path, where a relay was first.
    #[serde(skip_serializing_if = "Option::is_none")]
    upgrade_ms: Option<f64>,
    /// The overlay had brought them together before they were asked to.
    before_asked: bool,
    /// Files that arrived whole, one each way.
    files: u8,
}

impl Meeting {
    /// Of a pair whose daemons did not come so far.
    fn failed(from: Kind, to: Kind, run: u32) -> Self {
        let (expected, way) = (expected(from, to), Way::Nothing);
        let (connect_ms, upgrade_ms) = (None, None);
        Self { from, to, run, expected, way, connect_ms, upgrade_ms, before_asked: false, files: 0 }
    }

    fn is_as_expected(&self) -> bool {
        self.way.meets(self.expected) && self.files == 2
    }
}

/// Which pairs meet.
#[derive(Clone, Copy)]
pub(super) struct Pairs<'a> {
    /// Of these kinds; of all, when none is named.
    pub(super) only: &'a [Kind],
    /// So often.
    pub(super) runs: u32,
    /// Each pair of different kinds once, else every kind dials every kind.
    pub(super) one_way: bool,
}

impl Pairs<'_> {
    fn kinds(&self) -> Vec<Kind> {
        let wanted = |kind: &Kind| self.only.is_empty() || self.only.contains(kind);
        Kind::ALL.into_iter().filter(wanted).collect()
    }

    fn all(&self) -> Vec<(Kind, Kind)> {
        let kinds = self.kinds();
        let pairs = kinds.iter().flat_map(|from| kinds.iter().map(move |to| (*from, *to)));
        pairs.filter(|(from, to)| !self.one_way || from < to).collect()
    }
}

/// Has the pairs meet. What goes wrong with one of them is told, and the others go on.
pub(super) async fn run(daemon: &Path, pairs: Pairs<'_>, report: &mut Report) -> Result<()> {
    tokio::select! {
        done = meet_all(daemon, pairs, report) => done,
        // What was begun is removed as it is dropped.
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    }
}

async fn meet_all(daemon: &Path, pairs: Pairs<'_>, report: &mut Report) -> Result<()> {
    // Without the means nobody meets, and that is no row.
    drop(World::new()?);
    let mut meetings = Vec::new();
    for run in 1..=pairs.runs {
        for (from, to) in pairs.all() {
            let meeting = match meet(daemon, (from, to), run).await {
                Ok(meeting) => meeting,
                // One that does not even begin is a row, too.
                Err(error) => {
                    eprintln!("  {from} to {to}: {error:#}");
                    Meeting::failed(from, to, run)
                }
            };
            let took = meeting.connect_ms.map(|ms| format!(" in {ms:.0} ms")).unwrap_or_default();
            eprintln!("  {from} to {to}: {}{took}", meeting.way.letter());
            meetings.push(meeting);
        }
    }
    eprint!("{}", matrix(&pairs.kinds(), &meetings));
    judge(&meetings, report);
    report.add_meetings(meetings);
    Ok(())
}

fn judge(meetings: &[Meeting], report: &mut Report) {
    const RUN: &str = "pairs behind translators";
    let count = |is: fn(&Meeting) -> bool| meetings.iter().filter(|it| is(it)).count() as f64;
    report.note(RUN, "meetings", meetings.len() as f64, "");
    report.note(RUN, "direct", count(|it| it.way == Way::Direct), "");
    report.note(RUN, "relayed", count(|it| it.way == Way::Relayed), "");
    report.note(RUN, "relayed over TCP", count(|it| it.way == Way::RelayedTcp), "");
    report.note(RUN, "brought together by the overlay", count(|it| it.before_asked), "");
    let wrong = count(|it| !it.is_as_expected());
    report.figure(RUN, "not as expected", wrong, "", Target::AtMost(0.0));
    let mut times = Samples::default();
    let millis = meetings.iter().filter_map(|meeting| meeting.connect_ms);
    times.extend(millis.map(|ms| Duration::from_secs_f64(ms / 1000.0)));
    let upgrades = meetings.iter().filter_map(|meeting| meeting.upgrade_ms);
    report.note(RUN, "direct after a relay", upgrades.clone().count() as f64, "");
    if let Some(longest) = upgrades.reduce(f64::max) {
        report.note(RUN, "the longest of these", longest, "ms");
    }
    if times.is_empty() {
        return;
    }
    report.note(RUN, "connect p50", times.percentile_ms(50.0), "ms");
    report.figure(RUN, "connect p95", times.percentile_ms(95.0), "ms", Target::AtMost(SOON));
}

/// The table of the ways, rows dial columns; what is not as expected has a mark.
fn matrix(kinds: &[Kind], meetings: &[Meeting]) -> String {
    let mut text = format!("\n{:<20}", "");
    for to in kinds {
        _ = write!(text, "{to:<20}");
    }
    for from in kinds {
        _ = write!(text, "\n{from:<20}");
        for to in kinds {
            let of_pair = meetings.iter().filter(|it| (it.from, it.to) == (*from, *to));
            let cell: String = of_pair
                .map(|it| {
                    format!("{}{}", it.way.letter(), if it.is_as_expected() { "" } else { "!" })
                })
                .collect();
            _ = write!(text, "{cell:<20}");
        }
    }
    text + "\n"
}

async fn meet(daemon: &Path, (from, to): (Kind, Kind), run: u32) -> Result<Meeting> {
    let folder = tempfile::tempdir()?;
    let mut world = World::new()?;
    let seeds = SEEDS.map(|address| SocketAddr::from((address, PORT)));
    let mut nodes = Vec::new();
    for (number, address) in SEEDS.into_iter().enumerate() {
        let place = world.machine(&format!("seed{number}"), Kind::None, address)?;
        let bootstrap = seeds[..number].to_vec();
        let network = Network { bind: bind(), bootstrap, takes_tcp: true };
        let home = folder.path().join(format!("seed{number}"));
        nodes.push(Node::start_on(place, daemon, &home, &network).await?.0);
    }
    let (mut pair, mut _gateways) = (Vec::new(), Vec::new());
    for (number, kind) in [from, to].into_iter().enumerate() {
        let name = format!("pair{number}");
        let place = world.machine(&name, kind, PUBLIC[number])?;
        if kind == Kind::PortMapping {
            _gateways.push(gateway::serve(&world.router(&name), PUBLIC[number]).await?);
        }
        let network = Network { bind: bind(), bootstrap: seeds.to_vec(), takes_tcp: false };
        let home = folder.path().join(format!("pair{number}"));
        let node = Node::start_on(place, daemon, &home, &network).await?.0;
        joined(&node, kind).await?;
        if kind == Kind::PortMapping {
            gateway::leased(&node, PUBLIC[number]).await?;
        }
        pair.push(node);
    }
    let (mut way, connect_ms, before_asked) = connect(&pair[0], &pair[1]).await?;
    let (expected, mut upgrade_ms) = (expected(from, to), None);
    if expected == Way::Direct && matches!(way, Way::Relayed | Way::RelayedTcp) {
        (way, upgrade_ms) = upgraded(&pair[0], &pair[1]).await?;
    }
    let mut files = 0;
    if way != Way::Nothing {
        for (sender, receiver) in [(0, 1), (1, 0)] {
            let path = folder.path().join(format!("{sender}.bin"));
            match send(&pair[sender], &pair[receiver], &path).await {
                Ok(()) => files += 1,
                Err(error) => eprintln!("  {from} to {to}: {error:#}"),
            }
        }
    }
    Ok(Meeting { from, to, run, expected, way, connect_ms, upgrade_ms, before_asked, files })
}

/// As a daemon binds that was not told anything.
fn bind() -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, PORT).into()
}

/// Waits until a daemon has sessions with all public ones.
async fn joined(node: &Node, kind: Kind) -> Result<()> {
    let deadline = Instant::now() + JOIN;
    while node.peers().await? < SEEDS.len() {
        ensure!(Instant::now() < deadline, "the daemon behind {kind} did not join");
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Asks one for a session with the other's agent, until there is one.
async fn connect(from: &Node, to: &Node) -> Result<(Way, Option<f64>, bool)> {
    let agent: AgentResponse = to.http().await?.get(Operation::Agent).await?;
    let body = ConnectRequest { agent_id: agent.agent_id.to_string() };
    let started = Instant::now();
    while let Some(left) = MEET.checked_sub(started.elapsed()) {
        let mut http = from.http().await?;
        let Ok(answer) = timeout(left, http.post(Operation::Connect, &body)).await else { break };
        let outcome = answer?.read::<ConnectResponse>()?.outcome;
        if !matches!(outcome, ConnectOutcome::Unreachable | ConnectOutcome::NotFound) {
            let took = started.elapsed().as_secs_f64() * 1000.0;
            let way = way(from, to).await?;
            return Ok((way, Some(took), outcome == ConnectOutcome::AlreadyConnected));
        }
        sleep(RETRY).await;
    }
    Ok((Way::Nothing, None, false))
}

/// How the session of a pair goes now.
async fn way(from: &Node, to: &Node) -> Result<Way> {
    let agent: AgentResponse = to.http().await?.get(Operation::Agent).await?;
    let over_tcp = has_stream(from).await? || has_stream(to).await?;
    let peers: PeersResponse = from.http().await?.get(Operation::Peers).await?;
    let peer = peers.peers.into_iter().find(|peer| peer.id == agent.machine_id);
    Ok(match peer.context("the session is gone")?.session.path {
        PathKind::Relayed if over_tcp => Way::RelayedTcp,
        PathKind::Relayed => Way::Relayed,
        PathKind::Stream => bail!("a pair of which neither takes streams has one"),
        _ => Way::Direct,
    })
}

/// Waits until a session over a relay goes directly, and says how long that took.
async fn upgraded(from: &Node, to: &Node) -> Result<(Way, Option<f64>)> {
    let started = Instant::now();
    loop {
        let (way, took) = (way(from, to).await?, started.elapsed());
        if way == Way::Direct {
            return Ok((way, Some(took.as_secs_f64() * 1000.0)));
        } else if took >= UPGRADE {
            return Ok((way, None));
        }
        sleep(RETRY).await;
    }
}

/// Whether a daemon has a session that goes over TCP.
async fn has_stream(node: &Node) -> Result<bool> {
    let peers: PeersResponse = node.http().await?.get(Operation::Peers).await?;
    Ok(peers.peers.iter().any(|peer| peer.session.path == PathKind::Stream))
}

async fn send(sender: &Node, receiver: &Node, path: &Path) -> Result<()> {
    transfer::write_random(path, FILE)?;
    let id = transfer::send(sender, &receiver.agent_id().await?, path).await?;
    let mut http = receiver.http().await?;
    transfer::accept(&mut http, &id, SENT).await?;
    let done = transfer::wait(&mut http, &id, SENT, |transfer| {
        transfer.status == TransferStatus::Complete
    });
    let output = done.await?.output_path.context("a received file has a path")?;
    ensure!(std::fs::read(path)? == std::fs::read(output)?, "the file differs");
    Ok(())
}
