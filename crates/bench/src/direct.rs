//! Direct messages over REST, beside a raw quinn request and answer in the same run.

use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use crate::{
    client::{Ws, payload},
    cluster::{Cluster, Daemon, now},
    process,
    report::{Better, Report, quantile},
    yardstick::Yardstick,
};

const PAYLOAD: usize = 256;
const IN_FLIGHT: u64 = 32;

/// One at a time, then 32 in flight; both against raw quinn.
pub(crate) async fn measure(report: &mut Report, x0xd: &Path, messages: u64) -> anyhow::Result<()> {
    if !report.wants("direct messages") {
        return Ok(());
    }
    let cluster = Cluster::start(x0xd, 2).await?;
    let (alice, bob) = (&cluster.daemons[0], &cluster.daemons[1]);
    let to = bob.http().await?.get("/agent").await?["agent_id"].clone();
    let reader = drain(bob).await?;
    let yardstick = Yardstick::start().await?;

    let mut http = alice.http().await?;
    let calls = (messages / 10).max(200);
    let mut times = Vec::new();
    for number in 0..calls {
        let begin = now();
        send(&mut http, &to, number).await?;
        times.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    let mut raw = Vec::new();
    for _ in 0..calls {
        let begin = now();
        yardstick.call(PAYLOAD).await?;
        raw.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    let (p50, p99) = (quantile(&mut times, 0.5), quantile(&mut times, 0.99));
    let raw50 = quantile(&mut raw, 0.5);
    let note = format!("{:.1} x raw quinn", p50 / raw50);
    report.add("direct one at a time: p50", p50, "ms", (1.0, Better::Less), note);
    report.add("direct one at a time: p99", p99, "ms", (4.0, Better::Less), "");
    report.yardstick("raw quinn request/answer: p50", raw50, "ms", "one stream each, in process");

    let cpu = cluster.cpu_seconds()?;
    let rate = in_flight(alice, &to, messages).await?;
    let cpu = (cluster.cpu_seconds()? - cpu) * 1e6 / messages as f64;
    let raw = yardstick.rate(PAYLOAD, messages, IN_FLIGHT).await?;
    let note = format!("{:.2} x raw quinn; {cpu:.0} us CPU each", rate / raw);
    report.add("direct, 32 in flight over REST", rate, "msg/s", (5_000.0, Better::More), note);
    report.yardstick("raw quinn, 32 in flight", raw, "msg/s", "one stream each, in process");

    let worst = cluster
        .daemons
        .iter()
        .map(|daemon| process::memory_mib(daemon.pid()).map(|(rss, _)| rss))
        .collect::<anyhow::Result<Vec<_>>>()?
        .into_iter()
        .fold(0.0, f64::max);
    report.add("RSS after direct load", worst, "MiB", (40.0, Better::Less), "the larger of two");
    reader.abort();
    Ok(())
}

/// Reads the recipient's direct messages, as an agent would.
async fn drain(daemon: &Daemon) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let mut ws = Ws::connect(daemon.api, &daemon.token, "/ws/direct").await?;
    ws.next().await?.context("no greeting")?;
    Ok(tokio::spawn(async move { while let Ok(Some(_)) = ws.next().await {} }))
}

async fn send(http: &mut crate::client::Http, to: &Value, number: u64) -> anyhow::Result<()> {
    let body = json!({ "agent_id": to, "payload": payload(number, 0, PAYLOAD) });
    let (status, answer) = http.post("/direct/send", &body).await?;
    anyhow::ensure!(status == 200, "direct send: {status} {answer}");
    Ok(())
}

async fn in_flight(alice: &Daemon, to: &Value, messages: u64) -> anyhow::Result<f64> {
    let begin = now();
    let mut senders = Vec::new();
    for _ in 0..IN_FLIGHT {
        let (mut http, to) = (alice.http().await?, to.clone());
        senders.push(tokio::spawn(async move {
            for number in 0..messages / IN_FLIGHT {
                send(&mut http, &to, number).await?;
            }
            anyhow::Ok(())
        }));
    }
    for sender in senders {
        sender.await??;
    }
    Ok(messages as f64 / begin.elapsed().as_secs_f64())
}
