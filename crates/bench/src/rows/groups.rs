//! Encrypted groups: joining by an invite, and a text from one daemon to the others.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use super::{Scale, begin};
use crate::groups::{Listener, agree, found, join, say};
use crate::node::{Cluster, Node};
use crate::report::{Report, Target};
use crate::stats::Samples;

/// A writer's period.
const PACE: Duration = Duration::from_millis(20);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn measure(cluster: &Cluster, scale: Scale, report: &mut Report) -> Result<()> {
    let nodes: Vec<&Node> = cluster.nodes.iter().collect();
    let run = begin("encrypted group", nodes.len());
    let (group, link) = found(nodes[0], nodes.len() as u32).await?;
    let mut joins = Samples::default();
    let mut listeners = vec![Listener::to(nodes[0]).await?];
    let mut writer = nodes[0].http().await?;
    for (number, node) in nodes.iter().enumerate().skip(1) {
        let listener = Listener::to(node).await?;
        let begun = Instant::now();
        join(node, &link).await?;
        let text = format!("welcome {number}");
        say(&mut writer, &group, &text).await?;
        joins.push(listener.heard(&text, PATIENCE).await? - begun);
        listeners.push(listener);
    }
    let limit = Target::AtMost(300.0);
    report.figure(&run, "invite to first read p50", joins.percentile_ms(50.0), "ms", limit);
    report.note(&run, "invite to first read max", joins.percentile_ms(100.0), "ms");
    agree(&nodes, &group, PATIENCE).await?;
    cluster.settle().await?;

    // Each member's first text comes with fresh keys: a commit, which is not what a text costs.
    let mut writers = Vec::new();
    for (number, node) in nodes.iter().enumerate() {
        let mut writer = node.http().await?;
        say(&mut writer, &group, &format!("first of {number}")).await?;
        writers.push(writer);
        agree(&nodes, &group, PATIENCE).await?;
    }
    let (mut read, mut calls) = (Samples::default(), Samples::default());
    for number in 0..scale.group_texts {
        let by = (number % writers.len() as u64) as usize;
        let (text, begun) = (format!("text {number}"), Instant::now());
        say(&mut writers[by], &group, &text).await?;
        calls.push(begun.elapsed());
        for (n, listener) in listeners.iter().enumerate() {
            if n != by {
                read.push(listener.heard(&text, PATIENCE).await? - begun);
            }
        }
        sleep(PACE).await;
    }
    report.figure(&run, "post to read p50", read.percentile_ms(50.0), "ms", Target::AtMost(5.0));
    report.figure(&run, "post to read p99", read.percentile_ms(99.0), "ms", Target::AtMost(50.0));
    report.note(&run, "call p50", calls.percentile_ms(50.0), "ms");
    Ok(())
}
