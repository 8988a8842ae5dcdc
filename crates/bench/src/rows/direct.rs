//! Direct messages through REST, and the same pattern over raw quinn.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::task::JoinSet;
use tokio::time::Instant;
use x0x_api::types::{AddContactRequest, DirectClass, DirectSendRequest};
use x0x_api::{Base64, Operation};

use super::{SIZE, Scale, begin, direct_ws, per_second};
use crate::http::Http;
use crate::node::{Cluster, Node};
use crate::quinn_echo::Echo;
use crate::report::{Report, Target};
use crate::socket::{Subscriber, payload};
use crate::stats::Samples;

/// Messages on their way at once.
const IN_FLIGHT: u64 = 32;
/// Seconds that the sender searches for the recipient before the first message.
const SEARCH_SECS: u64 = 20;

/// Measures a pair of daemons, then raw quinn.
pub(super) async fn measure(cluster: &Cluster, scale: Scale, report: &mut Report) -> Result<()> {
    let sender = &cluster.nodes[0];
    let recipient = cluster.nodes[1].agent_id().await?;
    let mut inbox = Subscriber::to_direct(&cluster.nodes[1]).await?;
    let mut http = sender.http().await?;
    find(&mut http, &recipient).await?;
    // Strangers may leave a few messages in a second and no more.
    befriend(sender, &cluster.nodes[1]).await?;
    send(&mut http, &recipient, 0).await?;

    let run = begin("direct, one at a time", 2);
    let mut samples = Samples::default();
    let started = Instant::now();
    for number in 1..=scale.direct {
        let sent = Instant::now();
        send(&mut http, &recipient, number).await?;
        samples.push(sent.elapsed());
    }
    let alone_rate = per_second(scale.direct, started.elapsed());
    report.figure(&run, "call p50", samples.percentile_ms(50.0), "ms", Target::AtMost(1.0));
    report.figure(&run, "call p99", samples.percentile_ms(99.0), "ms", Target::AtMost(4.0));
    report.note(&run, "rate", alone_rate, "msg/s");

    let run = begin("direct, 32 in flight over REST", 2);
    let cpu = cluster.cpu_time()?;
    let started = Instant::now();
    let share = scale.direct_parallel / IN_FLIGHT;
    let mut clients = JoinSet::new();
    for client in 0..IN_FLIGHT {
        let (mut http, recipient) = (sender.http().await?, recipient.clone());
        let first = scale.direct + 1 + client * share;
        clients.spawn(async move {
            for number in first..first + share {
                send(&mut http, &recipient, number).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    let parallel_rate = per_second(share * IN_FLIGHT, started.elapsed());
    let spent =
        cluster.cpu_time()?.saturating_sub(cpu).as_secs_f64() * 1e6 / (share * IN_FLIGHT) as f64;
    report.figure(&run, "rate", parallel_rate, "msg/s", Target::AtLeast(5_000.0));
    report.note(&run, "CPU for each message", spent, "µs");
    let next = 1 + scale.direct + share * IN_FLIGHT;
    let total = next + scale.direct_parallel;
    let over_ws = (next, scale.direct_parallel, DirectClass::Durable);
    direct_ws::measure(cluster, &recipient, over_ws, scale.patience, report).await?;
    inbox.received(total, scale.patience).await;
    let missing = total - inbox.seen().arrivals.len() as u64;
    report.figure(&run, "acknowledged but not heard", missing as f64, "msg", Target::AtMost(0.0));
    report.note(&run, "heard late, as told", inbox.seen().lagged as f64, "msg");
    // A reader that is slow misses some of these.
    let unstored = (total, scale.direct_parallel, DirectClass::Session);
    direct_ws::measure(cluster, &recipient, unstored, scale.patience, report).await?;

    let (quinn_alone, quinn_parallel) = yardstick(scale, report).await?;
    report.note("direct, share of raw quinn", "one at a time", alone_rate / quinn_alone, "×");
    report.note("direct, share of raw quinn", "32 in flight", parallel_rate / quinn_parallel, "×");
    Ok(())
}

/// Makes a sender a contact of its recipient.
async fn befriend(sender: &Node, recipient: &Node) -> Result<()> {
    let contact = AddContactRequest {
        agent_id: sender.agent_id().await?,
        trust_level: Some("known".to_owned()),
        label: None,
    };
    let added = recipient.http().await?.post(Operation::AddContact, &contact).await?;
    if added.status >= 300 {
        bail!("the sender is not added as a contact: HTTP {}", added.status);
    }
    Ok(())
}

/// Waits until a daemon knows of an agent.
pub(crate) async fn find(http: &mut Http, agent: &str) -> Result<()> {
    let search = format!("/agents/discovered/{agent}?wait={SEARCH_SECS}");
    let found = http.send("GET", &search, b"").await?;
    if found.status != 200 {
        bail!("the sender does not know the recipient: HTTP {}", found.status);
    }
    Ok(())
}

/// Sends a message and waits until the recipient has it.
pub(crate) async fn send(http: &mut Http, recipient: &str, number: u64) -> Result<()> {
    let body = DirectSendRequest {
        agent_id: recipient.to_owned(),
        payload: Base64::encode(&payload(number, SIZE)),
        ..DirectSendRequest::default()
    };
    // A daemon that is busy says so, and takes the message when asked again.
    for _ in 0..1_000 {
        let answer = http.post(Operation::DirectSend, &body).await?;
        match answer.status {
            200 => return Ok(()),
            429 => tokio::time::sleep(Duration::from_millis(1)).await,
            status => {
                bail!("direct send: HTTP {status}: {}", String::from_utf8_lossy(&answer.body))
            }
        }
    }
    bail!("direct send: busy for too long")
}

/// Rates of raw quinn, one message at a time and many.
async fn yardstick(scale: Scale, report: &mut Report) -> Result<(f64, f64)> {
    let run = begin("raw quinn, message and acknowledgement", 2);
    let echo = Arc::new(Echo::start().await?);
    let message = payload(0, SIZE);
    echo.send(&message).await?;
    let mut samples = Samples::default();
    let started = Instant::now();
    for _ in 0..scale.direct {
        let sent = Instant::now();
        echo.send(&message).await?;
        samples.push(sent.elapsed());
    }
    let alone = per_second(scale.direct, started.elapsed());
    report.note(&run, "one at a time p50", samples.percentile_ms(50.0), "ms");
    report.note(&run, "one at a time p99", samples.percentile_ms(99.0), "ms");
    report.note(&run, "one at a time", alone, "msg/s");
    let started = Instant::now();
    let share = scale.direct_parallel / IN_FLIGHT;
    let mut clients = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (echo, message) = (Arc::clone(&echo), message.clone());
        clients.spawn(async move {
            for _ in 0..share {
                echo.send(&message).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    let parallel = per_second(share * IN_FLIGHT, started.elapsed());
    report.note(&run, "32 in flight", parallel, "msg/s");
    Ok((alone, parallel))
}
