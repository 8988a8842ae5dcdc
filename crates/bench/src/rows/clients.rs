//! What it costs to have many clients that wait, and one that does not read.

use std::path::Path;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use x0x_api::{Operation, endpoint};

use super::{SIZE, Scale, begin};
use crate::node::Node;
use crate::report::{Report, Target};
use crate::socket::{self, Publisher, Subscriber};

/// How long a daemon settles before its memory is read.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(2);
/// Most memory of a client.
const MOST: Target = Target::AtMost(20.0);

/// Memory of each client that waits for events, and what a client that does not read does to others.
pub(super) async fn measure(daemon: &Path, scale: Scale, report: &mut Report) -> Result<()> {
    let run = begin("clients", 1);
    for (operation, name) in [
        (Operation::Events, "memory of an idle client of /events"),
        (Operation::DirectEvents, "memory of an idle client of /direct/events"),
        (Operation::Ws, "memory of an idle client of /ws"),
        (Operation::WsDirect, "memory of an idle client of /ws/direct"),
    ] {
        let kibibytes = idle(daemon, operation, scale.clients).await?;
        report.figure(&run, name, kibibytes, "KiB", MOST);
    }
    stalled(daemon, scale, &run, report).await
}

/// KiB of each of many clients, which all stay connected.
async fn idle(daemon: &Path, operation: Operation, count: usize) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let (node, _) = Node::start(daemon, folder.path(), None).await?;
    let (mut streams, mut sockets) = (Vec::new(), Vec::new());
    // What the first ones need is needed once.
    let (warm, mut before) = (count / 10, 0.0);
    for number in 0..warm + count {
        if number == warm {
            sleep(SETTLE).await;
            before = node.memory()?.anonymous;
        }
        match operation {
            Operation::Ws | Operation::WsDirect => {
                sockets.push(socket::connect(&node, operation).await?);
            }
            _ => streams.push(events(&node, operation).await?),
        }
    }
    sleep(SETTLE).await;
    let after = node.memory()?.anonymous;
    Ok((after - before) * 1024.0 / count as f64)
}

/// An open stream of events.
async fn events(node: &Node, operation: Operation) -> Result<BufReader<TcpStream>> {
    let mut stream = BufReader::new(node.place.connect(node.api).await?);
    let head = format!(
        "GET {} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\r\n",
        endpoint(operation).path,
        node.api,
        node.token,
    );
    stream.write_all(head.as_bytes()).await?;
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    if !line.starts_with("HTTP/1.1 200") {
        bail!("no stream of events: {line}");
    }
    Ok(stream)
}

/// A burst to a client that reads, beside one that does not.
async fn stalled(daemon: &Path, scale: Scale, run: &str, report: &mut Report) -> Result<()> {
    let names = ["burst to a client beside one that reads", "the same beside one that does not"];
    for (stalls, name) in [false, true].into_iter().zip(names) {
        let folder = tempfile::tempdir()?;
        let (node, _) = Node::start(daemon, folder.path(), None).await?;
        let (stuck, other) = if stalls {
            (Some(Subscriber::that_stalls(&node, "clients").await?), None)
        } else {
            (None, Some(Subscriber::to_topic(&node, "clients").await?))
        };
        let mut subscriber = Subscriber::to_topic(&node, "clients").await?;
        let mut publisher = Publisher::connect(&node, "clients").await?;
        let started = tokio::time::Instant::now();
        for number in 0..scale.burst {
            publisher.feed(number, SIZE).await?;
        }
        publisher.flush().await?;
        let all = timeout(scale.patience, subscriber.received(scale.burst, scale.patience)).await;
        if !matches!(all, Ok(true)) {
            let seen = subscriber.seen().arrivals.len();
            eprintln!("  {name}: {seen} of {} arrived", scale.burst);
        }
        let last = subscriber.seen().last_arrival().context("nothing arrived")?;
        let arrived = subscriber.seen().arrivals.len() as u64;
        report.note(run, name, super::per_second(arrived, last - started), "msg/s");
        drop((stuck, other));
    }
    Ok(())
}
