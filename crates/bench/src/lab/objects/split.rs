//! Eight daemons, four on each side of a cut: mixed writes on all of them, joined and cut apart by turns.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{LIST, equal, join, put, send, store};
use crate::http::Http;
use crate::lab::PATIENCE;
use crate::lab::mail::Choices;
use crate::lab::namespaces::Network;
use crate::node::Node;
use crate::report::{Report, Target};

/// Daemons on each side.
const SIDE: u8 = 4;
/// How often the sides are cut apart.
const CUTS: u32 = 2;
/// Keys of each store, that all share.
const KEYS: u64 = 200;
/// How soon after a cut is mended all replicas must be equal.
const HEAL: Duration = Duration::from_secs(2);

/// What became of writes.
#[derive(Default, Clone, Copy)]
struct Tally {
    done: u64,
    refused: u64,
}

impl Tally {
    const fn add(&mut self, other: Self) {
        self.done += other.done;
        self.refused += other.refused;
    }
}

pub(crate) async fn run(
    daemon: &Path,
    (operations, seconds, seed): (u64, u64, u64),
    report: &mut Report,
) -> Result<()> {
    let run = format!("objects, {operations} operations in {seconds} s, seed {seed}");
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
        join(&node).await?;
        nodes.push(node);
    }
    let all: Vec<&Node> = nodes.iter().collect();
    if equal(&all).await.is_none() {
        bail!("the replicas are not equal before anything is written");
    }
    // A sixth of the time in each cut, and two thirds in which they are joined.
    let (cut, joined) =
        (Duration::from_secs(seconds) / 6, Duration::from_secs(seconds * 2) / (3 * CUTS));
    let share = operations / nodes.len() as u64;
    let during = |time: Duration| share * time.as_millis() as u64 / (seconds * 1000).max(1);
    let (mut choices, mut tally) = (Choices(seed), Tally::default());
    for round in 1..=CUTS {
        for (is_joined, time) in [(true, joined), (false, cut)] {
            network.set_joined(is_joined)?;
            let found = write(&nodes, during(time), time, &mut choices).await?;
            tally.add(found);
        }
        network.set_joined(true)?;
        let name =
            if round == 1 { "first cut mended to equal" } else { "last cut mended to equal" };
        let took = equal(&all).await.unwrap_or(PATIENCE * 2).as_secs_f64();
        report.figure(&run, name, took, "s", Target::AtMost(HEAL.as_secs_f64()));
    }
    report.note(&run, "acknowledged", tally.done as f64, "writes");
    report.note(&run, "refused", tally.refused as f64, "writes");
    // Pacing says how many there are to be; fewer would make another test of it.
    let least = Target::AtLeast(operations as f64 * 0.95);
    report.figure(&run, "tried", (tally.done + tally.refused) as f64, "writes", least);
    Ok(())
}

/// All daemons write at once, each so many times in this time.
async fn write(nodes: &[Node], count: u64, time: Duration, choices: &mut Choices) -> Result<Tally> {
    let begun = Instant::now();
    let mut writers = Vec::new();
    for node in nodes {
        let (http, seed) = (node.http().await?, choices.below(u64::MAX));
        writers.push(writer(http, Choices(seed), (begun, count, time)));
    }
    let mut all = Tally::default();
    for tally in join_all(writers).await {
        all.add(tally?);
    }
    Ok(all)
}

async fn writer(
    mut http: Http,
    mut choices: Choices,
    (begun, count, time): (Instant, u64, Duration),
) -> Result<Tally> {
    let (mut tally, mut tasks) = (Tally::default(), Vec::new());
    for number in 0..count {
        sleep_until(begun + time * u32::try_from(number)? / u32::try_from(count)?).await;
        let key = format!("key-{}", choices.below(KEYS));
        let answer = match choices.below(10) {
            0 => {
                let title = json!({"title": format!("task {number}")});
                let answer = send(&mut http, "POST", &format!("{LIST}/tasks"), &title).await?;
                let body: Value = serde_json::from_slice(&answer.body)?;
                tasks.extend(body["task_id"].as_str().map(str::to_owned));
                answer
            }
            1 if !tasks.is_empty() => {
                let place = choices.below(tasks.len() as u64) as usize;
                let action = ["claim", "complete", "reopen"][choices.below(3) as usize];
                let path = format!("{LIST}/tasks/{}", tasks[place]);
                send(&mut http, "PATCH", &path, &json!({"action": action})).await?
            }
            2 => {
                let path = format!("{}/{key}", store(choices.below(u64::MAX)));
                send(&mut http, "DELETE", &path, &Value::Null).await?
            }
            _ => put(&mut http, choices.below(u64::MAX), &key, &format!("value {number}")).await?,
        };
        // A key that is not there is not deleted, and a task that is not held not completed.
        match answer.status {
            200 | 201 => tally.done += 1,
            _ => tally.refused += 1,
        }
    }
    Ok(tally)
}
