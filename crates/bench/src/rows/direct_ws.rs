//! Direct messages over one WebSocket, each confirmed once the recipient's daemon has it on disk, or, of the session
//! class, in memory.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use x0x_api::types::DirectClass;
use x0x_api::ws::{ClientFrame, ServerFrame};
use x0x_api::{Base64, Operation};

use super::{SIZE, begin, per_second};
use crate::node::Cluster;
use crate::report::{Report, Target};
use crate::socket::{connect, next_frame, payload};

/// Frames that are handed to the socket at once.
const BATCH: u64 = 64;

/// Sends the numbers from `first` on, and measures until all are confirmed.
pub(super) async fn measure(
    cluster: &Cluster,
    recipient: &str,
    (first, count, class): (u64, u64, DirectClass),
    patience: Duration,
    report: &mut Report,
) -> Result<()> {
    let run = match class {
        DirectClass::Session => "direct over one WebSocket, session only",
        _ => "direct over one WebSocket",
    };
    let run = begin(run, 2);
    let (mut sink, mut stream) = connect(&cluster.nodes[0], Operation::Ws).await?.split();
    let cpu = cluster.cpu_time()?;
    let started = Instant::now();
    let confirmed = tokio::spawn(async move {
        let mut confirmed = 0;
        while confirmed < count {
            match next_frame(&mut stream).await.context("the daemon closed the session")? {
                ServerFrame::Sent { .. } => confirmed += 1,
                ServerFrame::Error { message, .. } => bail!("direct send: {message}"),
                _ => {}
            }
        }
        anyhow::Ok(())
    });
    for number in first..first + count {
        let frame = ClientFrame::SendDirect {
            agent_id: recipient.to_owned(),
            payload: Base64::encode(&payload(number, SIZE)),
            id: None,
            ack: true,
            class,
            reply_to: None,
            request_id: None,
        };
        sink.feed(Message::text(serde_json::to_string(&frame)?)).await?;
        if (number - first).is_multiple_of(BATCH) {
            sink.flush().await?;
        }
    }
    sink.flush().await?;
    timeout(patience, confirmed).await.context("not every message was confirmed")???;
    let rate = per_second(count, started.elapsed());
    let spent = cluster.cpu_time()?.saturating_sub(cpu).as_secs_f64() * 1e6 / count as f64;
    if class.is_durable() {
        report.figure(&run, "rate", rate, "msg/s", Target::AtLeast(10_000.0));
    } else {
        report.note(&run, "rate", rate, "msg/s");
    }
    report.note(&run, "CPU for each message", spent, "µs");
    Ok(())
}
