//! One file between two daemons while the path of their session changes: it has to arrive whole, and not to stand
//! still for long.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tokio::time::{Instant, sleep, timeout};
use x0x_api::{
    Operation,
    types::{AgentResponse, PathKind, PeerSession, PeersResponse, Transfer, TransferStatus},
};

use super::{
    JOIN, Kind, MEET, PORT, PUBLIC, SEEDS, bind, connect, joined,
    world::{self, World},
};
use crate::{
    http::Http,
    node::{Network, Node},
    report::{Report, Target},
    transfer,
};

/// How often the receiver is looked at.
const POLL: Duration = Duration::from_millis(10);
/// How long a file may take: relays forward a mebibyte a second.
const PATIENCE: Duration = Duration::from_secs(300);
/// Where the sender moves to.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 99);

/// What happens in the middle of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// A direct path comes to work, while a relay carries the session.
    Upgrade,
    /// The direct path ends.
    Blocked,
    /// The sender gets another address.
    Moved,
    /// The relay that carries the session ends.
    RelayKilled,
}

impl Trouble {
    const ALL: [Self; 4] = [Self::Upgrade, Self::Blocked, Self::Moved, Self::RelayKilled];

    const fn name(self) -> &'static str {
        match self {
            Self::Upgrade => "path upgraded",
            Self::Blocked => "direct path blocked",
            Self::Moved => "sender's address changed",
            Self::RelayKilled => "relay killed",
        }
    }

    /// How long the file may stand still.
    const fn stall(self) -> f64 {
        if matches!(self, Self::RelayKilled) { 10.0 } else { 3.0 }
    }

    const fn begins_relayed(self) -> bool {
        matches!(self, Self::Upgrade | Self::RelayKilled)
    }
}

/// Sends a file through each trouble.
pub(in crate::lab) async fn run(daemon: &Path, mebibytes: u64, report: &mut Report) -> Result<()> {
    tokio::select! {
        done = async {
            for trouble in Trouble::ALL {
                through(daemon, trouble, mebibytes, report).await.context(trouble.name())?;
            }
            Ok(())
        } => done,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    }
}

/// Two public daemons that know two others, from which both have packets forwarded if need be.
struct Pair {
    seeds: Vec<Node>,
    ends: Vec<Node>,
    world: World,
    _folder: tempfile::TempDir,
}

impl Pair {
    async fn start(daemon: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut world = World::new()?;
        let known = SEEDS.map(|address| SocketAddr::from((address, PORT)));
        let (mut seeds, mut ends) = (Vec::new(), Vec::new());
        for (number, address) in SEEDS.into_iter().chain(PUBLIC).enumerate() {
            let place = world.machine(&format!("machine{number}"), Kind::None, address)?;
            let bootstrap = known.iter().copied().take(number).collect();
            let network = Network { bind: bind(), bootstrap, takes_tcp: false };
            let home = folder.path().join(format!("machine{number}"));
            if number >= SEEDS.len() {
                // Until the pair is asked to meet.
                world::block(&place, &PUBLIC)?;
            }
            let node = Node::start_on(place, daemon, &home, &network).await?.0;
            if number < SEEDS.len() {
                seeds.push(node);
            } else {
                timeout(JOIN * 4, joined(&node, Kind::None)).await??;
                ends.push(node);
            }
        }
        Ok(Self { seeds, ends, world, _folder: folder })
    }

    fn block(&self, blocked: bool) -> Result<()> {
        let from: &[Ipv4Addr] = if blocked { &PUBLIC } else { &[] };
        self.ends.iter().try_for_each(|end| world::block(&end.place, from))
    }

    /// The sender's session with the receiver.
    async fn session(&self) -> Result<Option<PeerSession>> {
        let peers: PeersResponse = self.ends[0].http().await?.get(Operation::Peers).await?;
        let agent: AgentResponse = self.ends[1].http().await?.get(Operation::Agent).await?;
        let found = peers.peers.into_iter().find(|peer| peer.id == agent.machine_id);
        Ok(found.map(|peer| peer.session))
    }

    async fn path(&self) -> Result<Option<PathKind>> {
        Ok(self.session().await?.map(|session| session.path))
    }

    async fn begin(&mut self, trouble: Trouble) -> Result<()> {
        match trouble {
            Trouble::Upgrade => self.block(false)?,
            Trouble::Blocked => self.block(true)?,
            Trouble::Moved => self.world.move_to(&mut self.ends[0].place, ELSEWHERE)?,
            Trouble::RelayKilled => {
                let via = self.session().await?.and_then(|session| session.via);
                let via = via.context("no relay carries the session")?;
                for number in 0..self.seeds.len() {
                    let agent: AgentResponse =
                        self.seeds[number].http().await?.get(Operation::Agent).await?;
                    if agent.machine_id == via {
                        self.seeds.swap_remove(number).kill();
                        break;
                    }
                }
                ensure!(self.seeds.len() < SEEDS.len(), "the relay is not one of the public ones");
            }
        }
        Ok(())
    }
}

async fn through(
    daemon: &Path,
    trouble: Trouble,
    mebibytes: u64,
    report: &mut Report,
) -> Result<()> {
    let run = trouble.name();
    eprintln!("{run}");
    let mut pair = Pair::start(daemon).await?;
    pair.block(trouble.begins_relayed())?;
    connect(&pair.ends[0], &pair.ends[1]).await?;
    let expected = if trouble.begins_relayed() { PathKind::Relayed } else { PathKind::Direct };
    let deadline = Instant::now() + MEET;
    while pair.path().await? != Some(expected) {
        ensure!(Instant::now() < deadline, "the session does not begin {expected:?}");
        sleep(POLL).await;
    }
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("sent.bin");
    let bytes = mebibytes << 20;
    transfer::write_random(&file, bytes)?;
    let id = transfer::send(&pair.ends[0], &pair.ends[1].agent_id().await?, &file).await?;
    let mut http = pair.ends[1].http().await?;
    transfer::accept(&mut http, &id, MEET).await?;
    let done = watch(&mut pair, trouble, (&mut http, &id, bytes), report).await?;
    let output = done.output_path.context("a received file has a path")?;
    let lost = if std::fs::read(&file)? == std::fs::read(output)? { 0.0 } else { 1.0 };
    report.figure(run, "files that differ", lost, "", Target::AtMost(0.0));
    let path = pair.path().await?;
    let ends_direct = !matches!(trouble, Trouble::Blocked | Trouble::RelayKilled);
    let as_expected = matches!(path, Some(PathKind::Direct)) == ends_direct;
    let unexpected = f64::from(u8::from(!as_expected));
    report.figure(
        run,
        "sessions on another path than expected",
        unexpected,
        "",
        Target::AtMost(0.0),
    );
    Ok(())
}

/// Follows a file to its end, and changes the path after the first eighth.
async fn watch(
    pair: &mut Pair,
    trouble: Trouble,
    (http, id, bytes): (&mut Http, &str, u64),
    report: &mut Report,
) -> Result<Transfer> {
    let run = trouble.name();
    let started = Instant::now();
    let (mut bytes_seen, mut progress_at, mut stall) = (0, started, Duration::ZERO);
    let (mut changed, mut upgraded) = (None, None);
    let done: Transfer = loop {
        ensure!(started.elapsed() < PATIENCE, "the file takes too long, {bytes_seen} of {bytes}");
        let seen = transfer::look(http, id).await?.context("the transfer is gone")?;
        let now = Instant::now();
        if seen.bytes_transferred > bytes_seen {
            bytes_seen = seen.bytes_transferred;
            progress_at = now;
        }
        stall = stall.max(now - progress_at);
        match seen.status {
            TransferStatus::Complete => break seen,
            TransferStatus::Failed | TransferStatus::Rejected => {
                bail!("it failed: {:?}", seen.error)
            }
            _ => {}
        }
        if changed.is_none() && bytes_seen >= bytes / 8 {
            pair.begin(trouble).await?;
            changed = Some(Instant::now());
        }
        if let (Some(at), None, Trouble::Upgrade) = (changed, upgraded, trouble)
            && pair.path().await? == Some(PathKind::Direct)
        {
            upgraded = Some(at.elapsed());
        }
        sleep(POLL).await;
    };
    let at = changed.context("the file was complete before anything changed")?;
    report.note(run, "sent before", (at - started).as_secs_f64(), "s");
    report.note(run, "sent after", at.elapsed().as_secs_f64(), "s");
    if let Some(after) = upgraded {
        report.note(run, "direct after", after.as_secs_f64(), "s");
    }
    let limit = Target::AtMost(trouble.stall());
    report.figure(run, "longest stall", stall.as_secs_f64(), "s", limit);
    Ok(done)
}
