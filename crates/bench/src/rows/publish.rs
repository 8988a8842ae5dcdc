//! Publishing: bursts over one socket and from many REST clients, and a paced publisher.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use x0x_api::types::{PublishRequest, Retention};
use x0x_api::{Base64, Operation};

use super::{SIZE, Scale, begin, per_second};
use crate::node::Cluster;
use crate::report::{Report, Target};
use crate::socket::{Publisher, Subscriber, payload};
use crate::stats::Samples;

const TOPIC: &str = "bench";
/// REST clients that publish at once.
const CLIENTS: u64 = 8;
/// The paced publisher's period.
const PACE: Duration = Duration::from_millis(10);
/// How long a fresh subscription may take to hear its first message.
const WARM_UP: Duration = Duration::from_secs(20);

/// One publisher sends as fast as its socket takes it.
pub(super) async fn burst(cluster: &Cluster, scale: Scale, report: &mut Report) -> Result<()> {
    let run = begin("publish burst over WS", cluster.nodes.len());
    let mut listeners = Listeners::start(cluster).await?;
    let mut publisher = listeners.warm_up(cluster).await?;
    let before = Spent::now(cluster).await?;

    let started = Instant::now();
    for number in 1..=scale.burst {
        publisher.feed(number, SIZE).await?;
    }
    publisher.flush().await?;
    let last_send = Instant::now();
    let fate = publisher.settled(scale.burst + 1, scale.patience).await?;
    let refused = fate.refused.len() as u64;
    let accepted = scale.burst - refused;
    let last = listeners.deliveries(accepted, scale.patience).await;

    let spent = Spent::now(cluster).await?.since(&before);
    let deliveries = listeners.count();
    report.figure(&run, "delivered", listeners.percent(accepted), "%", Target::AtLeast(100.0));
    report.note(&run, "refused openly", refused as f64, "msg");
    report.figure(&run, "out of author order", listeners.disordered(), "msg", Target::AtMost(0.0));
    report.figure(&run, "duplicates", listeners.duplicates(), "msg", Target::AtMost(0.0));
    if let Some(told_at) = fate.told_at {
        report.note(&run, "accepted", per_second(accepted, told_at - started), "msg/s");
    }
    if let Some(last) = last {
        let rate = per_second(accepted, last - started);
        let tail = last.saturating_duration_since(last_send).as_secs_f64();
        if cluster.nodes.len() == 2 {
            report.figure(&run, "delivered", rate, "msg/s", Target::AtLeast(12_000.0));
        } else {
            report.note(&run, "delivered", rate, "msg/s");
        }
        report.figure(&run, "last send to last delivery", tail, "s", Target::AtMost(2.0));
    }
    let cpu = spent.cpu.as_secs_f64() * 1e6 / deliveries;
    report.figure(&run, "CPU for each delivery", cpu, "µs", Target::AtMost(80.0));
    let bytes = spent.bytes as f64 / deliveries;
    report.figure(&run, "network for each delivery", bytes, "B", Target::AtMost(1024.0));
    Ok(())
}

/// Clients publish one message after the other, each on its own connection.
pub(super) async fn rest_burst(cluster: &Cluster, scale: Scale, report: &mut Report) -> Result<()> {
    let run = begin("publish burst from 8 REST clients", cluster.nodes.len());
    let mut listeners = Listeners::start(cluster).await?;
    let _publisher = listeners.warm_up(cluster).await?;
    let before = Spent::now(cluster).await?;
    let started = Instant::now();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let mut http = cluster.nodes[0].http().await?;
        let (topic, share) = (listeners.topic.clone(), scale.rest_burst / CLIENTS);
        clients.spawn(async move {
            let mut accepted = 0_u64;
            for index in 0..share {
                let payload = Base64::encode(&payload(1 + client * share + index, SIZE));
                let (topic, retention) = (topic.clone(), Retention::Standard);
                let body = PublishRequest { topic, payload, retention, require_ack_ms: None };
                match http.post(Operation::Publish, &body).await?.status {
                    200 => accepted += 1,
                    429 => {}
                    status => bail!("publish: HTTP {status}"),
                }
            }
            Ok(accepted)
        });
    }
    let mut accepted = 0;
    while let Some(client) = clients.join_next().await {
        accepted += client??;
    }
    let elapsed = started.elapsed();
    let last = listeners.deliveries(accepted, scale.patience).await;
    let rate = per_second(accepted, elapsed);
    report.figure(&run, "delivered", listeners.percent(accepted), "%", Target::AtLeast(100.0));
    report.note(&run, "refused openly", (scale.rest_burst - accepted) as f64, "msg");
    report.figure(&run, "accepted", rate, "msg/s", Target::AtLeast(4_000.0));
    if let Some(last) = last {
        let tail = last.saturating_duration_since(started + elapsed).as_secs_f64();
        report.note(&run, "last answer to last delivery", tail, "s");
    }
    let cpu = Spent::now(cluster).await?.since(&before).cpu;
    let cpu = cpu.as_secs_f64() * 1e6 / listeners.count();
    report.note(&run, "CPU for each delivery", cpu, "µs");
    Ok(())
}

/// A publisher at rest between its messages: what one message takes.
pub(super) async fn paced(cluster: &Cluster, scale: Scale, report: &mut Report) -> Result<()> {
    let run = begin("publish every 10 ms", cluster.nodes.len());
    let mut listeners = Listeners::start(cluster).await?;
    let mut publisher = listeners.warm_up(cluster).await?;
    cluster.settle().await?;
    let before = Spent::now(cluster).await?;
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = Vec::with_capacity(scale.paced as usize);
    for number in 1..=scale.paced {
        ticks.tick().await;
        sent.push(Instant::now());
        publisher.feed(number, SIZE).await?;
        publisher.flush().await?;
    }
    listeners.deliveries(scale.paced, scale.patience).await;
    let spent = Spent::now(cluster).await?.since(&before);
    let mut latencies = listeners.latencies(&sent);
    report.figure(&run, "delivered", listeners.percent(scale.paced), "%", Target::AtLeast(100.0));
    report.figure(&run, "latency p50", latencies.percentile_ms(50.0), "ms", Target::AtMost(1.5));
    report.figure(&run, "latency p99", latencies.percentile_ms(99.0), "ms", Target::AtMost(5.0));
    let cpu = spent.cpu.as_secs_f64() * 1e6 / listeners.count();
    report.note(&run, "CPU for each delivery", cpu, "µs");
    let bytes = spent.bytes as f64 / listeners.count();
    report.figure(&run, "network for each delivery", bytes, "B", Target::AtMost(4096.0));
    Ok(())
}

/// What the daemons have spent.
struct Spent {
    cpu: Duration,
    bytes: u64,
}

impl Spent {
    async fn now(cluster: &Cluster) -> Result<Self> {
        Ok(Self { cpu: cluster.cpu_time()?, bytes: cluster.network_bytes().await? })
    }

    fn since(&self, before: &Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(before.cpu), bytes: self.bytes - before.bytes }
    }
}

/// A subscriber on every node but the publisher's. Message 0 warms up and counts nowhere.
struct Listeners {
    subscribers: Vec<Subscriber>,
    topic: String,
}

impl Listeners {
    async fn start(cluster: &Cluster) -> Result<Self> {
        // Runs over the same cluster do not hear each other.
        let topic = format!("{TOPIC}-{}", cluster.cpu_time()?.as_nanos());
        let mut subscribers = Vec::new();
        for node in &cluster.nodes[1..] {
            subscribers.push(Subscriber::to_topic(node, &topic).await?);
        }
        Ok(Self { subscribers, topic })
    }

    /// A publisher on the first node whose first message has reached every subscriber.
    async fn warm_up(&mut self, cluster: &Cluster) -> Result<Publisher> {
        let mut publisher = Publisher::connect(&cluster.nodes[0], &self.topic).await?;
        publisher.feed(0, SIZE).await?;
        publisher.flush().await?;
        publisher.settled(1, WARM_UP).await?;
        for subscriber in &mut self.subscribers {
            if !subscriber.received(1, WARM_UP).await {
                bail!("a subscriber does not hear the publisher");
            }
        }
        Ok(publisher)
    }

    /// Waits until each subscriber has this many messages, at most `patience` for all; when the
    /// last one came.
    async fn deliveries(&mut self, count: u64, patience: Duration) -> Option<Instant> {
        let deadline = Instant::now() + patience;
        for subscriber in &mut self.subscribers {
            let left = deadline.saturating_duration_since(Instant::now());
            subscriber.received(count + 1, left).await;
        }
        self.subscribers.iter().filter_map(|subscriber| subscriber.seen().last_arrival()).max()
    }

    /// Deliveries to all subscribers together.
    fn count(&self) -> f64 {
        let count: usize =
            self.subscribers.iter().map(|subscriber| subscriber.seen().arrivals.len() - 1).sum();
        count as f64
    }

    fn percent(&self, accepted: u64) -> f64 {
        self.count() / (accepted * self.subscribers.len() as u64) as f64 * 100.0
    }

    fn disordered(&self) -> f64 {
        self.subscribers.iter().map(|subscriber| subscriber.seen().disordered as f64).sum()
    }

    fn duplicates(&self) -> f64 {
        self.subscribers.iter().map(|subscriber| subscriber.seen().duplicates as f64).sum()
    }

    /// From sending to arriving, over all subscribers; `sent` starts with message 1.
    fn latencies(&self, sent: &[Instant]) -> Samples {
        let mut samples = Samples::default();
        for subscriber in &self.subscribers {
            let seen = subscriber.seen();
            samples.extend(seen.arrivals.iter().filter_map(|(number, arrived)| {
                let index = usize::try_from(number.checked_sub(1)?).ok()?;
                Some(*arrived - *sent.get(index)?)
            }));
        }
        samples
    }
}
