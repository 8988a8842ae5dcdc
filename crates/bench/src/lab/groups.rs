//! Encrypted groups through trouble: members that are killed while they commit and write, and a group whose
//! halves add and remove members while they are parted. [`hidden`] searches what goes over the wires.

pub(super) mod hidden;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use x0x_api::Operation;
use x0x_api::types::{
    GroupMembersResponse, GroupRevisionResponse, InviteRequest, InviteResponse, RoomRequest,
    SetRoleRequest,
};

use super::mail::Choices;
use super::namespaces::Network;
use crate::groups::{agree, call, diagnosis, found, join, say, texts};
use crate::node::Node;
use crate::report::{Report, Target};

/// Members of the group that is killed.
const MEMBERS: usize = 8;
/// How long all may take to be of one state, one epoch and one history.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long a call may take whose daemon may be killed meanwhile.
const CALL: Duration = Duration::from_secs(10);
/// Texts that a daemon keeps of a group, less a few.
const KEPT: usize = 480;
/// Kills between two looks at whether all agree.
const LOOK: u32 = 10;

struct Lab<'a> {
    daemon: &'a Path,
    folder: TempDir,
    nodes: Vec<Option<Node>>,
    group: String,
    /// Texts that their writers were told are written.
    said: Vec<String>,
    next: u64,
}

pub(super) async fn kills(daemon: &Path, kills: u32, seed: u64, report: &mut Report) -> Result<()> {
    let run = format!("groups, {kills} kills, seed {seed}");
    eprintln!("{run}");
    let mut lab = Lab::start(daemon).await?;
    let (mut rng, mut slowest) = (Choices(seed), Duration::ZERO);
    for kill in 0..kills {
        lab.trouble(&mut rng).await.with_context(|| format!("kill {kill}"))?;
        if kill % LOOK == LOOK - 1 {
            slowest = slowest.max(lab.agree().await?);
        }
    }
    slowest = slowest.max(lab.agree().await?);
    let missing = missing(&lab.all(), &lab.group, &lab.said).await?;
    report.note(&run, "texts written", lab.said.len() as f64, "");
    report.figure(&run, "texts missing", missing as f64, "", Target::AtMost(0.0));
    report.note(&run, "slowest agreement", slowest.as_secs_f64(), "s");
    Ok(())
}

/// Waits until every text is read by every daemon; those that are not in the end.
async fn missing(nodes: &[&Node], group: &str, said: &[String]) -> Result<usize> {
    let begun = Instant::now();
    loop {
        let (mut lacking, over) = (0, begun.elapsed() > PATIENCE);
        for node in nodes {
            let read = texts(node, group).await?;
            let lacks: Vec<&String> = said.iter().filter(|text| !read.contains(text)).collect();
            lacking += lacks.len();
            if over && !lacks.is_empty() {
                eprintln!("{lacks:?} of {}", diagnosis(node, group).await?);
            }
        }
        if lacking == 0 || over {
            return Ok(lacking);
        }
        sleep(Duration::from_millis(500)).await;
    }
}

async fn promote(by: &Node, group: &str, agent: &str) -> Result<()> {
    let mut http = by.http().await?;
    let request = SetRoleRequest { role: "admin".to_owned() };
    let parameters = [("id", group), ("agent_id", agent)];
    let _: GroupRevisionResponse =
        call(&mut http, Operation::SetRole, &parameters, &request).await?;
    Ok(())
}

impl<'a> Lab<'a> {
    async fn start(daemon: &'a Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut lab = Lab {
            daemon,
            folder,
            nodes: (0..MEMBERS).map(|_| None).collect(),
            group: String::new(),
            said: Vec::new(),
            next: 0,
        };
        for n in 0..MEMBERS {
            lab.begin(n).await?;
        }
        let (group, link) = found(lab.all()[0], MEMBERS as u32).await?;
        lab.group = group;
        for node in &lab.all()[1..] {
            join(node, &link).await?;
        }
        lab.agree().await?;
        let admin = lab.all()[1].agent_id().await?;
        promote(lab.all()[0], &lab.group, &admin).await?;
        lab.agree().await?;
        Ok(lab)
    }

    fn all(&self) -> Vec<&Node> {
        self.nodes.iter().flatten().collect()
    }

    async fn agree(&self) -> Result<Duration> {
        agree(&self.all(), &self.group, PATIENCE).await
    }

    /// Starts a daemon, with whatever one of its folder left.
    async fn begin(&mut self, n: usize) -> Result<()> {
        let known = self.nodes.iter().flatten().next();
        let known: Option<SocketAddr> = match known {
            Some(node) => Some(node.udp_address().await?),
            None => None,
        };
        let folder = self.folder.path().join(n.to_string());
        let (node, _) = Node::start(self.daemon, &folder, known).await?;
        self.nodes[n] = Some(node);
        Ok(())
    }

    /// Some write and change the group, one of them is killed meanwhile, and started again.
    async fn trouble(&mut self, rng: &mut Choices) -> Result<()> {
        let victim = rng.below(MEMBERS as u64) as usize;
        let mut busy = Vec::new();
        for n in [victim, rng.below(MEMBERS as u64) as usize] {
            self.next += 1;
            let text = (self.said.len() < KEPT).then(|| format!("text {}", self.next));
            let Some(node) = &self.nodes[n] else { continue };
            let (mut http, group, room) = (node.http().await?, self.group.clone(), n < 2);
            let number = self.next.to_string();
            busy.push(tokio::spawn(async move {
                if room {
                    // An operation, and by the next that comes in again a commit.
                    let parameters = [("id", group.as_str()), ("room", "lab")];
                    let request = RoomRequest { topic: number, closed: false };
                    let set: Result<GroupRevisionResponse> =
                        call(&mut http, Operation::SetRoom, &parameters, &request).await;
                    set?;
                }
                let Some(text) = text else { return Ok(None) };
                say(&mut http, &group, &text).await?;
                anyhow::Ok(Some(text))
            }));
        }
        sleep(Duration::from_millis(rng.below(60))).await;
        if let Some(node) = self.nodes[victim].take() {
            node.kill();
        }
        for task in busy {
            // Whoever was killed did not say that it is written.
            if let Ok(Ok(Ok(Some(text)))) = timeout(CALL, task).await {
                self.said.push(text);
            }
        }
        self.begin(victim).await
    }
}

/// A daemon on each side that is no member yet, beside four that are.
const SIDE: u8 = 5;

pub(super) async fn split(daemon: &Path, cut: Duration, report: &mut Report) -> Result<()> {
    let run = format!("group split 4/4 for {} s", cut.as_secs());
    eprintln!("{run}");
    let folder = tempfile::tempdir()?;
    let mut network = Network::new()?;
    let mut nodes: Vec<Node> = Vec::new();
    let mut bootstrap = None;
    for number in 0..2 * SIDE {
        let place = network.place(number % 2, number / 2)?;
        let home = folder.path().join(number.to_string());
        let (node, _) = Node::start_in(place, daemon, &home, bootstrap).await?;
        if bootstrap.is_none() {
            bootstrap = Some(node.udp_address().await?);
        }
        nodes.push(node);
    }
    let (group, link) = found(&nodes[0], 16).await?;
    for node in &nodes[1..MEMBERS] {
        join(node, &link).await?;
    }
    let members: Vec<&Node> = nodes[..MEMBERS].iter().collect();
    agree(&members, &group, PATIENCE).await?;
    promote(&nodes[0], &group, &nodes[1].agent_id().await?).await?;
    agree(&members, &group, PATIENCE).await?;

    network.set_joined(false)?;
    let begun = Instant::now();
    let mut said = Vec::new();
    // Even numbers are on one side, odd ones on the other; the last two of each come and go.
    for side in 0..2_usize {
        let (admin, gone, new) = (&nodes[side], &nodes[side + 6], &nodes[side + 8]);
        let parameters = [("id", group.as_str()), ("agent_id", &gone.agent_id().await?)];
        let mut http = admin.http().await?;
        let removed: Result<GroupMembersResponse> =
            call(&mut http, Operation::RemoveMember, &parameters, &()).await;
        removed?;
        let request = InviteRequest { expiry_secs: None, uses: Some(1) };
        let invite: InviteResponse =
            call(&mut http, Operation::Invite, &[("id", &group)], &request).await?;
        join(new, &invite.invite_link).await?;
        for node in [side, side + 2, side + 4] {
            let text = format!("of {node} on side {side}");
            say(&mut nodes[node].http().await?, &group, &text).await?;
            said.push(text);
        }
    }
    sleep(cut.saturating_sub(begun.elapsed())).await;
    network.set_joined(true)?;
    let mended = Instant::now();
    let stay: Vec<&Node> = [0, 1, 2, 3, 4, 5, 8, 9].map(|n| &nodes[n]).to_vec();
    agree(&stay, &group, PATIENCE).await?;
    report.note(&run, "mended to one state and epoch", mended.elapsed().as_secs_f64(), "s");
    let missing = missing(&stay[..6], &group, &said).await?;
    report.figure(&run, "texts missing", missing as f64, "", Target::AtMost(0.0));
    for (n, node) in stay.iter().enumerate() {
        say(&mut node.http().await?, &group, &format!("after {n}")).await?;
    }
    let after: Vec<String> = (0..stay.len()).map(|n| format!("after {n}")).collect();
    let missing = self::missing(&stay, &group, &after).await?;
    report.figure(&run, "texts missing afterwards", missing as f64, "", Target::AtMost(0.0));
    Ok(())
}
