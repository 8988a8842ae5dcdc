//! A store with many operations: how fast it is written, and how fast somebody who joins late has all of it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use x0x_api::Base64;

use super::{Scale, begin, per_second};
use crate::node::{Cluster, Node};
use crate::report::{Report, Target};

/// Connections that write at once.
const WRITERS: u64 = 32;
/// Bytes of a value.
const VALUE: usize = 64;
/// The store.
const STORE: &str = "bench-late";
/// How often the late joiner is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) async fn measure(cluster: &Cluster, scale: Scale, report: &mut Report) -> Result<()> {
    let [writer, late, ..] = cluster.nodes.as_slice() else { bail!("two daemons are needed") };
    let operations = scale.object_operations / WRITERS * WRITERS;
    let run = begin(&format!("store of {operations} operations"), cluster.nodes.len());
    create(writer).await?;
    let started = Instant::now();
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let mut http = writer.http().await?;
        writers.spawn(async move {
            let value = Base64::encode(&[number as u8; VALUE]);
            let body = serde_json::to_vec(&json!({ "value": value }))?;
            for index in 0..operations / WRITERS {
                let path = format!("/stores/{STORE}/{number}-{index}");
                let answer = http.send("PUT", &path, &body).await?;
                if answer.status != 200 {
                    let text = String::from_utf8_lossy(&answer.body).into_owned();
                    bail!("put {index} of {number}: HTTP {}: {text}", answer.status);
                }
            }
            anyhow::Ok(())
        });
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    let rate = per_second(operations, started.elapsed());
    report.note(&run, "written", rate, "op/s");
    cluster.settle().await?;

    let full = hash(writer).await?;
    let joined = Instant::now();
    create(late).await?;
    while hash(late).await? != full {
        if joined.elapsed() > PATIENCE {
            bail!("the late joiner has not everything after {} s", PATIENCE.as_secs());
        }
        sleep(LOOK).await;
    }
    let seconds = joined.elapsed().as_secs_f64();
    report.figure(&run, "join to the full value", seconds, "s", Target::AtMost(3.0));
    Ok(())
}

/// Creates the store on a daemon, or joins it.
async fn create(node: &Node) -> Result<()> {
    let body = serde_json::to_vec(&json!({ "name": STORE, "topic": STORE }))?;
    let answer = node.http().await?.send("POST", "/stores", &body).await?;
    if !matches!(answer.status, 200 | 201) {
        bail!("the store was not created: {}", String::from_utf8_lossy(&answer.body));
    }
    Ok(())
}

/// The hash of its replica there.
async fn hash(node: &Node) -> Result<String> {
    let status: Value =
        node.http().await?.send("GET", &format!("/stores/{STORE}"), b"").await?.read()?;
    Ok(status["hash"].as_str().context("no hash")?.to_owned())
}
