//! Publishing: bursts over WebSocket and REST, and paced latency.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;
use futures_util::SinkExt;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    client::{Ws, next_frame, parse_payload, payload},
    cluster::{Cluster, now},
    process::loopback_bytes,
    report::{Better, Report, quantile},
};

const PAYLOAD: usize = 256;
const TOPIC: &str = "bench";
/// After the last send; what has not arrived by then counts as lost.
const SETTLE: Duration = Duration::from_secs(25);

/// What one subscriber saw.
#[derive(Debug, Default)]
struct Seen {
    count: u64,
    out_of_order: u64,
    last: Option<Instant>,
    /// One-way times in milliseconds.
    latencies: Vec<f64>,
}

/// Reads a subscription until `expected` messages or silence. Numbers of one sender must grow;
/// `senders` interleave as number = index * senders + sender.
fn spawn_subscriber(
    mut ws: Ws,
    expected: u64,
    senders: u64,
    epoch: Instant,
    until: tokio::sync::watch::Receiver<Option<Instant>>,
) -> JoinHandle<anyhow::Result<Seen>> {
    tokio::spawn(async move {
        let mut seen = Seen::default();
        let mut next = vec![0_u64; senders as usize];
        let mut done = std::collections::HashSet::new();
        while seen.count < expected {
            let frame = tokio::select! {
                frame = next_frame(&mut ws.stream) => frame?,
                () = past(until.clone()) => break,
            };
            let Some(frame) = frame else { break };
            let Some(text) = frame["payload"].as_str() else { continue };
            let Some((number, sent)) = parse_payload(text) else { continue };
            if !done.insert(number) {
                seen.out_of_order += 1;
                continue;
            }
            let (sender, index) = ((number % senders) as usize, number / senders);
            seen.out_of_order += u64::from(index < next[sender]);
            next[sender] = index + 1;
            seen.count += 1;
            seen.last = Some(now());
            let arrived = epoch.elapsed().as_micros() as f64;
            seen.latencies.push((arrived - sent as f64) / 1000.0);
        }
        Ok(seen)
    })
}

/// Waits until the deadline that the channel will name has passed.
async fn past(mut deadline: tokio::sync::watch::Receiver<Option<Instant>>) {
    loop {
        let at = *deadline.borrow_and_update();
        if let Some(at) = at {
            return tokio::time::sleep_until(at.into()).await;
        }
        if deadline.changed().await.is_err() {
            return;
        }
    }
}

/// Subscribers on all daemons but the first, reading.
struct Load {
    readers: Vec<JoinHandle<anyhow::Result<Seen>>>,
    deadline: tokio::sync::watch::Sender<Option<Instant>>,
    epoch: Instant,
}

impl Load {
    async fn start(cluster: &Cluster, expected: u64, senders: u64) -> anyhow::Result<Self> {
        let (deadline, until) = tokio::sync::watch::channel(None);
        let epoch = now();
        let mut readers = Vec::new();
        for daemon in &cluster.daemons[1..] {
            let mut ws = Ws::connect(daemon.api, &daemon.token, "/ws").await?;
            ws.subscribe(TOPIC).await?;
            readers.push(spawn_subscriber(ws, expected, senders, epoch, until.clone()));
        }
        // A first message through every link, so that subscriptions are known everywhere.
        warm_up(cluster).await?;
        Ok(Self { readers, deadline, epoch })
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    async fn finish(self) -> anyhow::Result<Vec<Seen>> {
        // The readers hold the other end; when they are gone there is nobody to tell.
        let _ = self.deadline.send(Some(now() + SETTLE));
        let mut all = Vec::new();
        for reader in self.readers {
            all.push(reader.await??);
        }
        Ok(all)
    }
}

/// Publishes on another topic until every node has heard it.
async fn warm_up(cluster: &Cluster) -> anyhow::Result<()> {
    let mut listeners = Vec::new();
    for daemon in &cluster.daemons[1..] {
        let mut ws = Ws::connect(daemon.api, &daemon.token, "/ws").await?;
        ws.subscribe("bench-warm-up").await?;
        listeners.push(ws);
    }
    let mut http = cluster.daemons[0].http().await?;
    http.post("/publish", &json!({ "topic": "bench-warm-up", "payload": payload(0, 0, 16) })).await?;
    for mut ws in listeners {
        while ws.next().await?.context("no warm-up message")?["type"] != "message" {}
    }
    Ok(())
}

/// One publisher over one WebSocket, as fast as the daemon takes it.
pub(crate) async fn ws_burst(
    report: &mut Report,
    x0xd: &Path,
    nodes: usize,
    messages: u64,
) -> anyhow::Result<()> {
    let group = format!("publish burst over WS, {nodes} nodes");
    if !report.wants(&group) {
        return Ok(());
    }
    let cluster = Cluster::start(x0xd, nodes).await?;
    let load = Load::start(&cluster, messages, 1).await?;
    let mut ws = Ws::connect(cluster.daemons[0].api, &cluster.daemons[0].token, "/ws").await?;
    let (cpu, lo, udp) = (cluster.cpu_seconds()?, loopback_bytes()?, cluster.udp_bytes().await?);
    let begin = now();
    for number in 0..messages {
        let text = payload(number, load.micros(), PAYLOAD);
        let frame = json!({ "type": "publish", "topic": TOPIC, "payload": text }).to_string();
        ws.sink.feed(Message::text(frame)).await?;
        if number % 64 == 63 {
            ws.sink.flush().await?;
        }
    }
    ws.sink.send(Message::text(json!({ "type": "ping" }).to_string())).await?;
    let sent = now();
    let refused = tokio::spawn(async move {
        let mut refused = 0_u64;
        while let Ok(Some(frame)) = next_frame(&mut ws.stream).await {
            refused += u64::from(frame["type"] == "error");
        }
        refused
    });
    let seen = load.finish().await?;
    let cpu = cluster.cpu_seconds()? - cpu;
    let (lo, udp) = (loopback_bytes()? - lo, cluster.udp_bytes().await? - udp);
    drop(cluster);
    let refused = refused.await?;
    let delivered: u64 = seen.iter().map(|seen| seen.count).sum();
    let last = seen.iter().filter_map(|seen| seen.last).max().unwrap_or(begin);
    let disorder: u64 = seen.iter().map(|seen| seen.out_of_order).sum();
    let share = 100.0 * delivered as f64 / ((messages - refused) * (nodes as u64 - 1)) as f64;
    let rate = messages as f64 / last.duration_since(begin).as_secs_f64();
    let note = format!("{refused} refused openly, {disorder} out of order or twice");
    if nodes == 2 {
        report.add(format!("{group}: rate"), rate, "msg/s", (12_000.0, Better::More), "");
        let each = cpu * 1e6 / delivered.max(1) as f64;
        report.add(format!("{group}: CPU per delivery"), each, "us", (80.0, Better::Less), "");
        let bytes = udp / delivered.max(1) as f64;
        let all = lo as f64 / delivered.max(1) as f64;
        let rest = format!("{all:.0} B with the local API's own traffic");
        report.add(format!("{group}: UDP per delivery"), bytes, "B", (1024.0, Better::Less), rest);
    } else {
        report.yardstick(format!("{group}: rate"), rate, "msg/s", "");
    }
    let tail = last.saturating_duration_since(sent).as_secs_f64();
    report.add(format!("{group}: delivered"), share, "%", (100.0, Better::More), note);
    report.add(format!("{group}: last delivery"), tail, "s", (2.0, Better::Less), "after last send");
    Ok(())
}

/// Eight keep-alive REST clients on the first node, as fast as they are answered.
pub(crate) async fn rest_burst(
    report: &mut Report,
    x0xd: &Path,
    nodes: usize,
    messages: u64,
) -> anyhow::Result<()> {
    const CLIENTS: u64 = 8;
    let group = format!("REST burst from {CLIENTS} clients, {nodes} nodes");
    if !report.wants(&group) {
        return Ok(());
    }
    let cluster = Cluster::start(x0xd, nodes).await?;
    let load = Load::start(&cluster, messages, CLIENTS).await?;
    let begin = now();
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        let mut http = cluster.daemons[0].http().await?;
        clients.push(tokio::spawn(async move {
            let mut accepted = 0_u64;
            for index in 0..messages / CLIENTS {
                let text = payload(index * CLIENTS + client, 0, PAYLOAD);
                let body = json!({ "topic": TOPIC, "payload": text });
                let (status, _) = http.post("/publish", &body).await?;
                accepted += u64::from(status == 200);
            }
            anyhow::Ok(accepted)
        }));
    }
    let mut accepted = 0;
    for client in clients {
        accepted += client.await??;
    }
    let sent = now();
    let seen = load.finish().await?;
    let delivered: u64 = seen.iter().map(|seen| seen.count).sum();
    let last = seen.iter().filter_map(|seen| seen.last).max().unwrap_or(begin);
    let share = 100.0 * delivered as f64 / (accepted * (nodes as u64 - 1)).max(1) as f64;
    let rate = accepted as f64 / sent.duration_since(begin).as_secs_f64();
    let tail = last.saturating_duration_since(sent).as_secs_f64();
    let note = format!("{} refused openly", messages - accepted);
    report.add(format!("{group}: accepted"), rate, "msg/s", (4_000.0, Better::More), note);
    let note = format!("last {tail:.2} s after the last answer");
    report.add(format!("{group}: delivered"), share, "%", (100.0, Better::More), note);
    Ok(())
}

/// Twenty messages a second over one WebSocket: one-way time to every subscriber.
pub(crate) async fn paced(
    report: &mut Report,
    x0xd: &Path,
    nodes: usize,
    messages: u64,
) -> anyhow::Result<()> {
    let group = format!("publish paced 20/s, {nodes} nodes");
    if !report.wants(&group) {
        return Ok(());
    }
    let cluster = Cluster::start(x0xd, nodes).await?;
    let load = Load::start(&cluster, messages, 1).await?;
    let mut ws = Ws::connect(cluster.daemons[0].api, &cluster.daemons[0].token, "/ws").await?;
    let (lo, udp) = (loopback_bytes()?, cluster.udp_bytes().await?);
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    for number in 0..messages {
        pace.tick().await;
        let text = payload(number, load.micros(), PAYLOAD);
        let frame = json!({ "type": "publish", "topic": TOPIC, "payload": text }).to_string();
        ws.sink.send(Message::text(frame)).await?;
    }
    let seen = load.finish().await?;
    let (lo, udp) = (loopback_bytes()? - lo, cluster.udp_bytes().await? - udp);
    let delivered: u64 = seen.iter().map(|seen| seen.count).sum();
    let mut times: Vec<f64> = seen.into_iter().flat_map(|seen| seen.latencies).collect();
    let lost = messages * (nodes as u64 - 1) - delivered;
    let (p50, p99) = (quantile(&mut times, 0.5), quantile(&mut times, 0.99));
    report.add(format!("{group}: p50"), p50, "ms", (1.5, Better::Less), format!("{lost} lost"));
    report.add(format!("{group}: p99"), p99, "ms", (5.0, Better::Less), "");
    let bytes = udp / delivered.max(1) as f64;
    let note = format!("{:.0} B with the local API's own traffic", lo as f64 / delivered.max(1) as f64);
    report.add(format!("{group}: UDP per delivery"), bytes, "B", (4096.0, Better::Less), note);
    Ok(())
}
