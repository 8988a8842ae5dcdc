//! Ten daemons, five on each side of a cut, with publishers on both.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

use super::namespaces::Network;
use super::{Expected, PATIENCE, SIZE, judge};
use crate::node::Node;
use crate::report::Report;
use crate::socket::{Publisher, Subscriber};

/// Daemons on each side.
const SIDE: u8 = 5;
/// One topic for each side's publisher, so that the order of each author is checked.
const TOPICS: [&str; 2] = ["lab-left", "lab-right"];
/// A publisher's period.
const PACE: Duration = Duration::from_millis(100);
/// How soon after the cut is mended everybody must have everything.
const HEAL: Duration = Duration::from_secs(5);

pub(super) async fn run(daemon: &Path, cut: Duration, report: &mut Report) -> Result<()> {
    let run = format!("partition 5/5 of {} s", cut.as_secs());
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
    let mut expected = Vec::new();
    for topic in TOPICS {
        for node in &nodes {
            let subscriber = Subscriber::to_topic(node, topic).await?;
            expected.push(Expected { subscriber, messages: 1 });
        }
    }
    let mut left = Publisher::connect(&nodes[0], TOPICS[0]).await?;
    let mut right = Publisher::connect(&nodes[1], TOPICS[1]).await?;
    publish(&mut left, &mut right, 0).await?;
    for Expected { subscriber, .. } in &mut expected {
        if !subscriber.received(1, PATIENCE).await {
            bail!("the first message did not reach everybody");
        }
    }

    network.set_joined(false)?;
    let (started, mut number) = (Instant::now(), 0);
    while started.elapsed() < cut {
        number += 1;
        publish(&mut left, &mut right, number).await?;
        sleep(PACE).await;
    }
    for publisher in [&mut left, &mut right] {
        publisher.settled(number + 1, PATIENCE).await?;
    }
    let crossed = expected
        .iter()
        .filter(|expected| expected.subscriber.seen().arrivals.len() as u64 == number + 1);
    report.note(&run, "complete before it is mended", crossed.count() as f64, "subscribers");
    network.set_joined(true)?;
    let mended = Instant::now();
    expected.iter_mut().for_each(|expected| expected.messages = number + 1);
    judge(&run, &mut expected, mended, Some(HEAL), report).await;
    Ok(())
}

async fn publish(left: &mut Publisher, right: &mut Publisher, number: u64) -> Result<()> {
    for publisher in [left, right] {
        publisher.feed(number, SIZE).await?;
        publisher.flush().await?;
    }
    Ok(())
}
