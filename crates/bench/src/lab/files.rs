//! One large file, and ten at once, while the receiver is killed three times, the sender twice, and the
//! link between them is cut.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use x0x_api::types::{TransferState, TransferStatus};

use super::namespaces::Network;
use crate::node::Node;
use crate::place::Place;
use crate::report::{Report, Target};
use crate::transfer;

const MIB: u64 = 1024 * 1024;
/// How long the link is down.
const CUT: Duration = Duration::from_secs(20);
/// How long everything may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// Files at once, and the parts of the large one that each has.
const MANY: u64 = 10;

/// What happens, and how many hundredths of the whole must be there before it does.
#[derive(Clone, Copy)]
enum Trouble {
    KillReceiver,
    KillSender,
    Cut,
}

const TROUBLES: [(u64, Trouble); 6] = [
    (8, Trouble::KillReceiver),
    (22, Trouble::KillSender),
    (36, Trouble::KillReceiver),
    (50, Trouble::Cut),
    (64, Trouble::KillSender),
    (78, Trouble::KillReceiver),
];

pub(super) async fn run(daemon: &Path, mebibytes: u64, report: &mut Report) -> Result<()> {
    for (files, each) in [(1, mebibytes), (MANY, mebibytes / MANY)] {
        let run = format!("{files} × {each} MiB");
        eprintln!("{run}");
        let mut lab = Lab::start(daemon).await?;
        lab.go_through(files, each * MIB, &run, report).await?;
    }
    Ok(())
}

struct Lab<'a> {
    daemon: &'a Path,
    folder: TempDir,
    network: Network,
    places: [Place; 3],
    /// A machine that stays, the sender, the receiver.
    nodes: [Option<Node>; 3],
}

impl<'a> Lab<'a> {
    async fn start(daemon: &'a Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut network = Network::new()?;
        let places = [network.place(0, 0)?, network.place(0, 1)?, network.place(1, 0)?];
        let mut lab = Self { daemon, folder, network, places, nodes: [None, None, None] };
        for number in 0..3 {
            lab.launch(number).await?;
        }
        Ok(lab)
    }

    async fn launch(&mut self, number: usize) -> Result<()> {
        let bootstrap = match &self.nodes[0] {
            Some(first) if number > 0 => Some(first.udp_address().await?),
            _ => None,
        };
        let home = self.folder.path().join(number.to_string());
        let place = self.places[number].clone();
        let (node, _) = Node::start_in(place, self.daemon, &home, bootstrap).await?;
        self.nodes[number] = Some(node);
        Ok(())
    }

    fn node(&self, number: usize) -> Result<&Node> {
        self.nodes[number].as_ref().context("the node runs")
    }

    async fn kill(&mut self, number: usize) -> Result<()> {
        if let Some(node) = self.nodes[number].take() {
            node.kill();
        }
        self.launch(number).await
    }

    async fn go_through(
        &mut self,
        files: u64,
        bytes: u64,
        run: &str,
        report: &mut Report,
    ) -> Result<()> {
        let to = self.node(2)?.agent_id().await?;
        // Strangers may not offer ten files.
        let from = self.node(1)?.agent_id().await?;
        let body = format!("{{\"agent_id\":\"{from}\",\"level\":\"known\"}}");
        let mut http = self.node(2)?.http().await?;
        let answer = http.send("POST", "/contacts/trust", body.as_bytes()).await?;
        ensure!(answer.status == 200, "the sender is no contact");
        let mut sent = Vec::new();
        for number in 0..files {
            let path = self.folder.path().join(format!("{number}.bin"));
            transfer::write_random(&path, bytes)?;
            let id = transfer::send(self.node(1)?, &to, &path).await?;
            transfer::accept(&mut http, &id, PATIENCE).await?;
            sent.push((id, path));
        }
        let started = Instant::now();
        // What was stored before a kill and is not found again would be sent twice.
        let mut lost: u64 = 0;
        for (share, trouble) in TROUBLES {
            let seen = self.reach(&sent, files * bytes * share / 100).await?;
            match trouble {
                Trouble::KillReceiver => {
                    self.kill(2).await?;
                    lost += seen.saturating_sub(self.reopened(&sent).await?);
                }
                Trouble::KillSender => self.kill(1).await?,
                Trouble::Cut => {
                    self.network.set_joined(false)?;
                    sleep(CUT).await;
                    self.network.set_joined(true)?;
                }
            }
        }
        let mut wrong = 0.0;
        let mut http = self.node(2)?.http().await?;
        for (id, path) in &sent {
            let done = transfer::wait(&mut http, id, PATIENCE, |transfer| {
                transfer.status == TransferStatus::Complete
            });
            let output = done.await?.output_path.context("a received file has a path")?;
            let same = sha256(path)? == sha256(&PathBuf::from(output))?;
            wrong += f64::from(u8::from(!same));
        }
        report.figure(run, "files that differ", wrong, "files", Target::AtMost(0.0));
        let share = 100.0 * lost as f64 / (files * bytes) as f64;
        report.figure(run, "verified bytes sent again", share, "%", Target::AtMost(1.0));
        report.note(run, "in all, the cut included", started.elapsed().as_secs_f64(), "s");
        Ok(())
    }

    /// Waits until this many bytes are stored.
    async fn reach(&self, sent: &[(String, PathBuf)], bytes: u64) -> Result<u64> {
        let mut http = self.node(2)?.http().await?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut stored = 0;
            for (id, _) in sent {
                let transfer = transfer::look(&mut http, id).await?;
                stored += transfer.map_or(0, |transfer| transfer.bytes_transferred);
            }
            if stored >= bytes {
                return Ok(stored);
            }
            ensure!(Instant::now() < deadline, "{stored} of {bytes} bytes came");
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// What a receiver that was started again finds stored.
    async fn reopened(&self, sent: &[(String, PathBuf)]) -> Result<u64> {
        let mut http = self.node(2)?.http().await?;
        let mut found = 0;
        for (id, _) in sent {
            let opened = transfer::wait(&mut http, id, PATIENCE, |transfer| {
                transfer.status == TransferStatus::Complete
                    || (transfer.state != TransferState::WaitingForTurn
                        && transfer.bytes_transferred > 0)
            });
            found += opened.await?.bytes_transferred;
        }
        Ok(found)
    }
}

fn sha256(path: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(path).output().context("cannot run sha256sum")?;
    ensure!(output.status.success(), "sha256sum failed");
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split(' ').next().context("no hash")?.to_owned())
}
