//! Two daemons that are killed again and again while one sends the other direct messages: what was
//! acknowledged arrives once, and what was queued in order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use x0x_api::types::{
    AddContactRequest, ConsumerRequest, DirectSendRequest, InboxAckRequest, InboxResponse,
    OkResponse,
};
use x0x_api::{Base64, Operation, endpoint};

use super::PATIENCE;
use crate::http::Http;
use crate::node::Node;
use crate::report::{Report, Target};

/// The consumer that counts.
const CONSUMER: &str = "lab";
/// How long one call may take: the daemon may be killed meanwhile.
const CALL: Duration = Duration::from_secs(5);

struct Lab<'a> {
    daemon: &'a Path,
    folder: TempDir,
    sender: Option<Node>,
    receiver: Option<Node>,
    recipient: String,
    slowest_start: Duration,
    sent: Sent,
    inbox: Vec<String>,
}

/// Choices that a seed repeats: SplitMix64 (Steele, Lea and Flood, 2014).
pub(super) struct Choices(pub(super) u64);

impl Choices {
    pub(super) const fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// What was told of messages, by their text.
#[derive(Default)]
struct Sent {
    /// Queued, in order.
    queued: Vec<String>,
    /// Received, as the sender was told.
    received: BTreeSet<String>,
    /// Neither: killed meanwhile.
    unknown: BTreeSet<String>,
    next: u64,
}

pub(super) async fn run(daemon: &Path, kills: u32, seed: u64, report: &mut Report) -> Result<()> {
    let run = format!("mail, {kills} kills, seed {seed}");
    eprintln!("{run}");
    let mut lab = Lab::start(daemon).await?;
    let mut rng = Choices(seed);
    for kill in 0..kills {
        let moment = Instant::now() + Duration::from_millis(rng.below(180) + 20);
        lab.send_until(moment).await?;
        lab.kill(rng.below(2) == 0).await.with_context(|| format!("kill {kill}"))?;
        lab.read().await?;
    }
    lab.read_all().await?;
    lab.judge(&run, report);
    Ok(())
}

impl<'a> Lab<'a> {
    async fn start(daemon: &'a Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (receiver, _) = Node::start(daemon, &folder.path().join("receiver"), None).await?;
        let bootstrap = Some(receiver.udp_address().await?);
        let (sender, _) = Node::start(daemon, &folder.path().join("sender"), bootstrap).await?;
        let recipient = receiver.agent_id().await?;
        let mut http = receiver.http().await?;
        let consumer = ConsumerRequest { consumer: CONSUMER.to_owned(), start: None };
        http.post(Operation::InboxCreateConsumer, &consumer).await?;
        // Strangers may leave a few messages in a second and no more.
        let contact = AddContactRequest {
            agent_id: sender.agent_id().await?,
            trust_level: Some("known".to_owned()),
            label: None,
        };
        http.post(Operation::AddContact, &contact).await?;
        let (sender, receiver) = (Some(sender), Some(receiver));
        let (slowest_start, sent) = (Duration::ZERO, Sent::default());
        let inbox = Vec::new();
        Ok(Self { daemon, folder, sender, receiver, recipient, slowest_start, sent, inbox })
    }

    /// Sends both ways of sending, one after the other, until it is time to kill.
    async fn send_until(&mut self, moment: Instant) -> Result<()> {
        let sender = self.sender.as_ref().context("the sender runs")?;
        let mut http = sender.http().await?;
        while Instant::now() < moment {
            self.sent.next += 1;
            let queue = self.sent.next.is_multiple_of(2);
            let text = format!("{}-{}", if queue { "q" } else { "d" }, self.sent.next);
            let body = DirectSendRequest {
                agent_id: self.recipient.clone(),
                payload: Base64::encode(text.as_bytes()),
                queue,
                ..DirectSendRequest::default()
            };
            let sending = http.post(Operation::DirectSend, &body);
            // What is on its way when the time is over is killed with the daemon.
            let Ok(answer) = tokio::time::timeout_at(moment, sending).await else {
                self.sent.unknown.insert(text);
                return Ok(());
            };
            match answer {
                Ok(answer) if answer.status == 200 && queue => self.sent.queued.push(text),
                Ok(answer) if answer.status == 200 => drop(self.sent.received.insert(text)),
                _ => drop(self.sent.unknown.insert(text)),
            }
        }
        Ok(())
    }

    /// Kills one end, and starts it again.
    async fn kill(&mut self, sender: bool) -> Result<()> {
        let (victim, other, name) = match sender {
            true => (&mut self.sender, &self.receiver, "sender"),
            false => (&mut self.receiver, &self.sender, "receiver"),
        };
        if let Some(node) = victim.take() {
            node.kill();
        }
        let bootstrap = other.as_ref().context("the other one runs")?.udp_address().await?;
        let folder = self.folder.path().join(name);
        let (node, took) = Node::start(self.daemon, &folder, Some(bootstrap)).await?;
        *victim = Some(node);
        self.slowest_start = self.slowest_start.max(took);
        Ok(())
    }

    /// Reads and acknowledges what is in the inbox now; returns how much that was.
    async fn read(&mut self) -> Result<usize> {
        let receiver = self.receiver.as_ref().context("the receiver runs")?;
        let mut http = receiver.http().await?;
        let before = self.inbox.len();
        loop {
            let found = page(&mut http).await?;
            let Some(newest) = found.messages.last() else { return Ok(self.inbox.len() - before) };
            let ack = InboxAckRequest {
                consumer: Some(CONSUMER.to_owned()),
                through: Some(newest.number),
                ..InboxAckRequest::default()
            };
            let _: OkResponse = http.post(Operation::InboxAck, &ack).await?.read()?;
            let text = |payload: &[u8]| String::from_utf8_lossy(payload).into_owned();
            self.inbox.extend(found.messages.iter().map(|message| text(&message.payload.0)));
        }
    }

    /// The same until the last message that was queued is there, and nothing more comes.
    async fn read_all(&mut self) -> Result<()> {
        let mut deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.read().await? > 0 {
                deadline = Instant::now() + PATIENCE;
                continue;
            }
            let last = self.sent.queued.last();
            if last.is_none_or(|last| self.inbox.contains(last)) {
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    fn judge(&self, run: &str, report: &mut Report) {
        let mut times: BTreeMap<&str, u64> = BTreeMap::new();
        self.inbox.iter().for_each(|text| *times.entry(text).or_default() += 1);
        let acknowledged = self.sent.queued.iter().chain(&self.sent.received);
        let lost = acknowledged.clone().filter(|text| !times.contains_key(text.as_str())).count();
        let doubled = times.values().filter(|times| **times > 1).count();
        let mut known: BTreeSet<&str> = acknowledged.map(String::as_str).collect();
        known.extend(self.sent.unknown.iter().map(String::as_str));
        let strange = times.keys().filter(|text| !known.contains(*text)).count();
        let queued: Vec<&String> =
            self.inbox.iter().filter(|text| text.starts_with("q-")).collect();
        let number = |text: &str| text[2..].parse::<u64>().unwrap_or_default();
        let disordered = queued.windows(2).filter(|pair| number(pair[0]) > number(pair[1])).count();
        let zero = Target::AtMost(0.0);
        report.note(run, "queued", self.sent.queued.len() as f64, "msg");
        report.note(run, "sent at once", self.sent.received.len() as f64, "msg");
        report.note(run, "killed on their way", self.sent.unknown.len() as f64, "msg");
        report.figure(run, "lost", lost as f64, "msg", zero);
        report.figure(run, "doubled", doubled as f64, "msg", zero);
        report.figure(run, "never sent", strange as f64, "msg", zero);
        report.figure(run, "queued, out of order", disordered as f64, "msg", zero);
        let start = self.slowest_start.as_secs_f64() * 1000.0;
        report.figure(run, "slowest start", start, "ms", Target::AtMost(1000.0));
    }
}

async fn page(http: &mut Http) -> Result<InboxResponse> {
    let path = format!("{}?consumer={CONSUMER}&limit=256", endpoint(Operation::Inbox).path);
    let found = tokio::time::timeout(CALL, http.send("GET", &path, b"")).await??;
    let found: InboxResponse = found.read()?;
    if found.missed > 0 {
        bail!("{} messages are not kept any more", found.missed);
    }
    Ok(found)
}
