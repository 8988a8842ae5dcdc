//! Nine daemons on loopback through a stall, a crash and a late join.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Expected, PATIENCE, SIZE, judge};
use crate::node::Node;
use crate::report::{Report, Target};
use crate::socket::{Publisher, Subscriber};

const TOPIC: &str = "lab";
/// Daemons from the start; the ninth joins late.
const NODES: usize = 8;
/// How long the publisher takes for all messages.
const SPAN: Duration = Duration::from_secs(25);

/// Who goes through what, and when.
const STOPPED: usize = 5;
const STOP_AT: Duration = Duration::from_secs(2);
const CONTINUE_AT: Duration = Duration::from_secs(22);
const KILLED: usize = 6;
const KILL_AT: Duration = Duration::from_secs(5);
const RESTART_AT: Duration = Duration::from_secs(8);
const JOIN_AT: Duration = Duration::from_secs(15);

struct Lab<'a> {
    daemon: &'a Path,
    folder: TempDir,
    bootstrap: Option<std::net::SocketAddr>,
}

impl Lab<'_> {
    async fn start(&self, index: usize) -> Result<Node> {
        let folder = self.folder.path().join(index.to_string());
        Ok(Node::start(self.daemon, &folder, self.bootstrap).await?.0)
    }
}

pub(super) async fn run(daemon: &Path, messages: u64, report: &mut Report) -> Result<()> {
    let run = format!("nine daemons, {messages} messages");
    eprintln!("{run}");
    let mut lab = Lab { daemon, folder: tempfile::tempdir()?, bootstrap: None };
    let mut nodes = Vec::new();
    for index in 0..NODES {
        let node = lab.start(index).await?;
        if index == 0 {
            lab.bootstrap = Some(node.udp_address().await?);
        }
        nodes.push(Some(node));
    }
    let mut expected = Vec::new();
    for node in nodes.iter().flatten() {
        let subscriber = Subscriber::to_topic(node, TOPIC).await?;
        expected.push(Expected { subscriber, messages: messages + 1 });
    }
    let publishing = nodes[1].as_ref().context("the publisher runs")?;
    let mut publisher = warm_up(publishing, &mut expected).await?;

    let trouble = trouble(&lab, &mut nodes, messages, &mut expected);
    let published = publish(&mut publisher, messages);
    let (trouble, published) = tokio::join!(trouble, published);
    trouble?;
    published?;
    let fate = publisher.settled(messages + 1, PATIENCE).await?;
    let refused = fate.refused.len() as f64;
    report.figure(&run, "refused", refused, "msg", Target::AtMost(0.0));
    judge(&run, &mut expected, Instant::now(), None, report).await;
    Ok(())
}

/// Publishes number 0 until everybody has it.
async fn warm_up(node: &Node, expected: &mut [Expected]) -> Result<Publisher> {
    let mut publisher = Publisher::connect(node, TOPIC).await?;
    publisher.feed(0, SIZE).await?;
    publisher.flush().await?;
    for Expected { subscriber, .. } in expected {
        if !subscriber.received(1, PATIENCE).await {
            bail!("the first message did not reach everybody");
        }
    }
    Ok(publisher)
}

async fn publish(publisher: &mut Publisher, messages: u64) -> Result<()> {
    let period = SPAN / u32::try_from(messages.max(1))?;
    let mut ticks = interval(period.max(Duration::from_micros(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 1..=messages {
        ticks.tick().await;
        publisher.feed(number, SIZE).await?;
        publisher.flush().await?;
    }
    Ok(())
}

async fn trouble(
    lab: &Lab<'_>,
    nodes: &mut Vec<Option<Node>>,
    messages: u64,
    expected: &mut Vec<Expected>,
) -> Result<()> {
    let started = Instant::now();
    let at = |after| tokio::time::sleep_until(started + after);
    at(STOP_AT).await;
    let stopped = nodes[STOPPED].as_ref().map(Node::pid).context("it runs")?;
    signal(stopped, Signal::STOP)?;
    at(KILL_AT).await;
    if let Some(node) = nodes[KILLED].take() {
        node.kill();
    }
    at(RESTART_AT).await;
    let restarted = lab.start(KILLED).await?;
    let subscriber = Subscriber::to_topic(&restarted, TOPIC).await?;
    // The client of the killed process is replaced by one that reads everything again.
    expected[KILLED] = Expected { subscriber, messages: messages + 1 };
    nodes[KILLED] = Some(restarted);
    at(JOIN_AT).await;
    let late = lab.start(NODES).await?;
    let subscriber = Subscriber::to_topic(&late, TOPIC).await?;
    expected.push(Expected { subscriber, messages: messages + 1 });
    nodes.push(Some(late));
    at(CONTINUE_AT).await;
    signal(stopped, Signal::CONT)
}

fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("a process id")?;
    Ok(kill_process(pid, signal)?)
}
