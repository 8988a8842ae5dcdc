//! Two daemons on a bad line: packets get lost in both directions, or take long. Everything has to arrive all the same.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use x0x_api::{Operation, types::AddContactRequest};

use super::{
    Kind, PORT, PUBLIC, bind,
    world::{self, World},
};
use crate::{
    node::{Network, Node},
    place::Place,
    report::{Report, Target},
    rows::direct,
    socket::{Publisher, Subscriber},
    stats::Samples,
};

/// Where packets are kept for a while.
const BETWEEN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
/// Shares of lost packets, in each direction.
const LOSSES: [u32; 5] = [0, 1, 5, 10, 30];
/// How late packets are, in each direction.
const DELAY: Duration = Duration::from_millis(100);
/// Messages published, one each 10 ms, and sent directly, one after the other.
const PUBLISHED: u64 = 300;
const SENT: u64 = 50;
const PACE: Duration = Duration::from_millis(10);
const SIZE: usize = 256;
/// How long two daemons may take to meet, and messages to arrive.
const MEET: Duration = Duration::from_secs(90);
const PATIENCE: Duration = Duration::from_secs(180);
/// Packets on their way between the two.
const MAX_LATE: usize = 16 * 1024;

/// Measures each line.
pub(in crate::lab) async fn run(daemon: &Path, report: &mut Report) -> Result<()> {
    let lines = async {
        for percent in LOSSES {
            let name = format!("{percent} % lost each way");
            line(daemon, &name, percent, None, report).await.context(name)?;
        }
        let name = format!("{} ms later each way", DELAY.as_millis());
        line(daemon, &name, 0, Some(DELAY), report).await.context(name)
    };
    tokio::select! {
        done = lines => done,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    }
}

async fn line(
    daemon: &Path,
    run: &str,
    percent: u32,
    delay: Option<Duration>,
    report: &mut Report,
) -> Result<()> {
    eprintln!("{run}");
    let folder = tempfile::tempdir()?;
    let mut world = World::new()?;
    let mut to = SocketAddr::from((PUBLIC[0], PORT));
    let mut _forwarder = None;
    let mut nodes = Vec::new();
    for (number, address) in PUBLIC.into_iter().enumerate() {
        let place = world.machine(&format!("end{number}"), Kind::None, address)?;
        world::lose(&place, percent)?;
        if delay.is_some() {
            world::block(&place, &PUBLIC)?;
        }
        let bootstrap = if number == 0 { Vec::new() } else { vec![to] };
        let network = Network { bind: bind(), bootstrap, takes_tcp: false };
        let home = folder.path().join(format!("end{number}"));
        nodes.push(Node::start_on(place, daemon, &home, &network).await?.0);
        if let (0, Some(delay)) = (number, delay) {
            let place = world.machine("between", Kind::None, BETWEEN)?;
            _forwarder = Some(forward(&place, to, delay).await?);
            to = SocketAddr::from((BETWEEN, PORT));
        }
    }
    let started = Instant::now();
    while nodes[1].peers().await? == 0 {
        ensure!(started.elapsed() < MEET, "the daemons did not meet");
        sleep(Duration::from_millis(5)).await;
    }
    report.note(run, "met after", started.elapsed().as_secs_f64(), "s");
    gossip(&nodes, run, report).await?;
    directly(&nodes, run, report).await
}

async fn gossip(nodes: &[Node], run: &str, report: &mut Report) -> Result<()> {
    let mut subscriber = Subscriber::to_topic(&nodes[1], "lab-loss").await?;
    let mut publisher = Publisher::connect(&nodes[0], "lab-loss").await?;
    publisher.feed(0, SIZE).await?;
    publisher.flush().await?;
    ensure!(subscriber.received(1, PATIENCE).await, "the first message did not arrive");
    let mut sent = Vec::new();
    for number in 1..=PUBLISHED {
        publisher.feed(number, SIZE).await?;
        publisher.flush().await?;
        sent.push(Instant::now());
        sleep(PACE).await;
    }
    subscriber.received(1 + PUBLISHED, PATIENCE).await;
    let seen = subscriber.seen();
    let mut late = Samples::default();
    for (number, at) in &seen.arrivals {
        let index = usize::try_from(*number)?.checked_sub(1);
        if let Some(sent) = index.and_then(|index| sent.get(index)) {
            late.push(at.saturating_duration_since(*sent));
        }
    }
    let missing = (1 + PUBLISHED).saturating_sub(seen.arrivals.len() as u64);
    report.figure(run, "gossip missing", missing as f64, "msg", Target::AtMost(0.0));
    report.figure(run, "gossip doubled", seen.duplicates as f64, "msg", Target::AtMost(0.0));
    report.figure(run, "gossip out of order", seen.disordered as f64, "msg", Target::AtMost(0.0));
    if !late.is_empty() {
        report.note(run, "gossip p50", late.percentile_ms(50.0), "ms");
        report.note(run, "gossip p99", late.percentile_ms(99.0), "ms");
    }
    Ok(())
}

async fn directly(nodes: &[Node], run: &str, report: &mut Report) -> Result<()> {
    let recipient = nodes[1].agent_id().await?;
    let mut inbox = Subscriber::to_direct(&nodes[1]).await?;
    let mut http = nodes[0].http().await?;
    direct::find(&mut http, &recipient).await?;
    let contact = AddContactRequest {
        agent_id: nodes[0].agent_id().await?,
        trust_level: Some("known".to_owned()),
        label: None,
    };
    nodes[1].http().await?.post(Operation::AddContact, &contact).await?;
    let mut calls = Samples::default();
    for number in 0..SENT {
        let started = Instant::now();
        direct::send(&mut http, &recipient, number).await?;
        calls.push(started.elapsed());
    }
    inbox.received(SENT, PATIENCE).await;
    let missing = SENT.saturating_sub(inbox.seen().arrivals.len() as u64);
    report.figure(run, "direct missing", missing as f64, "msg", Target::AtMost(0.0));
    report.note(run, "direct call p50", calls.percentile_ms(50.0), "ms");
    report.note(run, "direct call p99", calls.percentile_ms(99.0), "ms");
    Ok(())
}

/// Takes packets to a daemon and its answers back, each a while later. It serves one machine; dropping it ends it.
async fn forward(place: &Place, to: SocketAddr, delay: Duration) -> Result<JoinSet<()>> {
    let inner = Arc::new(place.udp(SocketAddr::from((BETWEEN, PORT))).await?);
    let outer = Arc::new(place.udp(SocketAddr::from((BETWEEN, PORT + 1))).await?);
    let (learned, client) = tokio::sync::watch::channel(None);
    let (_, fixed) = tokio::sync::watch::channel(Some(to));
    let mut tasks = JoinSet::new();
    for (from, into, to, learns) in
        [(inner.clone(), outer.clone(), fixed, Some(learned)), (outer, inner, client, None)]
    {
        let (queue, mut late) = mpsc::channel::<(Instant, Vec<u8>)>(MAX_LATE);
        tasks.spawn(async move {
            let mut buffer = vec![0; 65_536];
            while let Ok((len, source)) = from.recv_from(&mut buffer).await {
                if let Some(learns) = &learns {
                    learns.send_replace(Some(source));
                }
                // A full queue loses packets, as lines do.
                let _ = queue.try_send((Instant::now() + delay, buffer[..len].to_vec()));
            }
        });
        tasks.spawn(async move {
            while let Some((due, packet)) = late.recv().await {
                sleep_until(due).await;
                let to = *to.borrow();
                if let Some(to) = to {
                    let _ = into.send_to(&packet, to).await;
                }
            }
        });
    }
    Ok(tasks)
}
