//! Letters in real time: the recipient is away, the sender ends before it returns, one holder is killed
//! for good, and all letters arrive once, in order, unreadable where they were kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use x0x_api::types::{
    DirectSendRequest, InboxAckRequest, InboxResponse, LettersResponse, OkResponse,
};
use x0x_api::{Base64, Operation, endpoint};

use crate::http::Http;
use crate::node::Node;
use crate::report::{Report, Target};

/// Daemons that keep letters: one more than each letter has copies.
const HOLDERS: usize = 4;
/// Of them, this one is killed while the recipient is away, and this one killed and restarted.
const KILLED: usize = 3;
const RESTARTED: usize = 2;
/// Copies of each letter.
const COPIES: u64 = 3;
const LETTERS: usize = 100;
/// With what each letter begins.
const TEXT: &str = "between the two of us:";
/// How long each step may take, beside the time for which the recipient is away.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(200);

struct Lab<'a> {
    daemon: &'a Path,
    folder: TempDir,
    holders: Vec<Option<Node>>,
}

pub(super) async fn run(daemon: &Path, minutes: u64, report: &mut Report) -> Result<()> {
    let run = format!("letters, recipient away for {minutes} min");
    eprintln!("{run}");
    let mut lab = Lab::start(daemon).await?;
    let recipient = lab.join("recipient").await?;
    let sender = lab.join("sender").await?;
    let to = recipient.agent_id().await?;
    lab.introduce(&[&recipient, &sender]).await?;
    recipient.kill();
    let away = Instant::now();
    send_all(&mut sender.http().await?, &to).await?;
    let kept = lab.keep(&sender).await?;
    sender.kill();
    let readable = lab.readable()?;
    lab.trouble().await?;
    tokio::time::sleep_until(away + Duration::from_secs(minutes * 60)).await;

    let returned = Instant::now();
    let recipient = lab.join("recipient").await?;
    let texts = receive_all(&mut recipient.http().await?).await?;
    let took = returned.elapsed();
    let status = letters(&mut recipient.http().await?).await?;
    let left = lab.left().await?;

    let sent: Vec<String> = (0..LETTERS).map(text).collect();
    let lost = sent.iter().filter(|text| !texts.contains(text)).count();
    let doubled = texts.len().saturating_sub(LETTERS - lost);
    let disordered = texts.windows(2).filter(|pair| pair[0] > pair[1]).count();
    let zero = Target::AtMost(0.0);
    report.note(&run, "letters", LETTERS as f64, "msg");
    report.note(&run, "copies at holders", kept as f64, "");
    report.figure(&run, "lost", lost as f64, "msg", zero);
    report.figure(&run, "doubled or strange", doubled as f64, "msg", zero);
    report.figure(&run, "out of order", disordered as f64, "msg", zero);
    report.figure(&run, "gaps told", status.gaps.len() as f64, "", zero);
    report.figure(&run, "files of holders that can be read", readable as f64, "", zero);
    report.figure(&run, "copies left at holders", left as f64, "", zero);
    report.note(&run, "return to last letter", took.as_secs_f64(), "s");
    Ok(())
}

fn text(number: usize) -> String {
    format!("{TEXT} {number:03}")
}

impl<'a> Lab<'a> {
    async fn start(daemon: &'a Path) -> Result<Self> {
        let mut lab = Self { daemon, folder: tempfile::tempdir()?, holders: Vec::new() };
        for index in 0..HOLDERS {
            let holder = lab.join(&format!("holder-{index}")).await?;
            lab.holders.push(Some(holder));
        }
        Ok(lab)
    }

    /// Starts a daemon, or starts it again, with the first holder as its way in.
    async fn join(&self, name: &str) -> Result<Node> {
        let bootstrap = match self.holders.first() {
            Some(Some(first)) => Some(first.udp_address().await?),
            _ => None,
        };
        Ok(Node::start(self.daemon, &self.folder.path().join(name), bootstrap).await?.0)
    }

    fn running(&self) -> impl Iterator<Item = &Node> {
        self.holders.iter().flatten()
    }

    /// Has everybody meet everybody, so that all have mailboxes of each other.
    async fn introduce(&self, others: &[&Node]) -> Result<()> {
        let all: Vec<&Node> = self.running().chain(others.iter().copied()).collect();
        let mut ids = Vec::with_capacity(all.len());
        for node in &all {
            ids.push(node.agent_id().await?);
        }
        for (number, node) in all.iter().enumerate() {
            let mut http = node.http().await?;
            for (_, id) in ids.iter().enumerate().filter(|(other, _)| *other != number) {
                let connect = serde_json::json!({ "agent_id": id });
                http.post(Operation::Connect, &connect).await?;
            }
        }
        let deadline = Instant::now() + PATIENCE;
        for node in others {
            let mut http = node.http().await?;
            while letters(&mut http).await?.mailboxes < all.len() as u64 - 1 {
                ensure!(Instant::now() < deadline, "not everybody gave a mailbox");
                sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Waits until each letter has its copies, and returns how many that are.
    async fn keep(&self, sender: &Node) -> Result<u64> {
        let deadline = Instant::now() + PATIENCE;
        let mut http = sender.http().await?;
        loop {
            let held = letters(&mut http).await?.held;
            if held.len() == LETTERS && held.iter().all(|message| message.holders >= COPIES) {
                return Ok(held.iter().map(|message| message.holders).sum());
            }
            ensure!(Instant::now() < deadline, "{} of {LETTERS} letters have holders", held.len());
            sleep(POLL).await;
        }
    }

    /// Files at holders in which a letter, or its form on the API, can be read.
    fn readable(&self) -> Result<usize> {
        // What whole groups of three bytes become does not depend on what follows.
        let encoded = Base64::encode(&TEXT.as_bytes()[..TEXT.len() / 3 * 3]);
        let parts = [TEXT.as_bytes(), encoded.as_bytes()];
        let mut files = Vec::new();
        for index in 0..HOLDERS {
            list(&self.folder.path().join(format!("holder-{index}")), &mut files)?;
        }
        let mut found = 0;
        for file in files {
            // A file that goes meanwhile holds nothing any more.
            let bytes = fs::read(&file).unwrap_or_default();
            let holds = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
            if parts.into_iter().any(holds) {
                eprintln!("{} can be read", file.display());
                found += 1;
            }
        }
        Ok(found)
    }

    /// Kills one holder for good, and one that starts again.
    async fn trouble(&mut self) -> Result<()> {
        for index in [KILLED, RESTARTED] {
            if let Some(holder) = self.holders[index].take() {
                holder.kill();
            }
        }
        let again = self.join(&format!("holder-{RESTARTED}")).await?;
        self.holders[RESTARTED] = Some(again);
        Ok(())
    }

    /// Copies that holders still have once they had time to delete what was received.
    async fn left(&self) -> Result<u64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut left = 0;
            for holder in self.running() {
                left += letters(&mut holder.http().await?).await?.holding.letters;
            }
            if left == 0 || Instant::now() > deadline {
                return Ok(left);
            }
            sleep(POLL).await;
        }
    }
}

async fn letters(http: &mut Http) -> Result<LettersResponse> {
    http.get(Operation::Letters).await
}

async fn send_all(http: &mut Http, to: &str) -> Result<()> {
    for number in 0..LETTERS {
        let body = DirectSendRequest {
            agent_id: to.to_owned(),
            payload: Base64::encode(text(number).as_bytes()),
            queue: true,
            ..DirectSendRequest::default()
        };
        let answer = http.post(Operation::DirectSend, &body).await?;
        ensure!(answer.status == 200, "letter {number}: {}", answer.status);
    }
    Ok(())
}

/// Reads until all letters are there, and then for whatever comes a second time.
async fn receive_all(http: &mut Http) -> Result<Vec<String>> {
    let path = format!("{}?limit=256", endpoint(Operation::Inbox).path);
    let mut texts = Vec::with_capacity(LETTERS);
    let deadline = Instant::now() + PATIENCE;
    let mut quiet = 0;
    while quiet < 10 && Instant::now() < deadline {
        let found: InboxResponse = http.send("GET", &path, b"").await?.read()?;
        let Some(newest) = found.messages.last() else {
            quiet += u32::from(texts.len() >= LETTERS);
            sleep(POLL).await;
            continue;
        };
        let through = Some(newest.number);
        let ack = InboxAckRequest { through, ..InboxAckRequest::default() };
        let _: OkResponse = http.post(Operation::InboxAck, &ack).await?.read()?;
        let text = |payload: &[u8]| String::from_utf8_lossy(payload).into_owned();
        texts.extend(found.messages.iter().map(|message| text(&message.payload.0)));
    }
    if texts.is_empty() {
        bail!("no letter arrived");
    }
    Ok(texts)
}

/// Every file below a folder.
fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        match path.is_dir() {
            true => list(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}
