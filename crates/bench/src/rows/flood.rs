//! What a stranger's flood of direct messages does to a contact's, to the same recipient.
//!
//! All daemons and the flood share the machine's processors here. What that does to everybody is measured
//! by the same flood to a bystander, and what is left is what the recipient itself suffers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail};
use futures_util::{SinkExt, StreamExt};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use x0x_api::types::{AddContactRequest, DirectClass};
use x0x_api::ws::{ClientFrame, ServerFrame};
use x0x_api::{Base64, Operation};

use super::{Scale, begin, direct};
use crate::node::{Cluster, Node};
use crate::report::{Report, Target};
use crate::socket::{connect, next_frame};
use crate::stats::Samples;

/// Messages that the flood has on their way.
const IN_FLIGHT: u64 = 256;

/// The first daemon is a contact of the second; the third is a stranger, which floods the fourth and
/// then the second.
pub(super) async fn measure(cluster: &Cluster, scale: Scale, report: &mut Report) -> Result<()> {
    let [honest, recipient, stranger, bystander] = &cluster.nodes[..] else {
        bail!("four daemons are needed")
    };
    let (to, elsewhere) = (recipient.agent_id().await?, bystander.agent_id().await?);
    let contact = AddContactRequest {
        agent_id: honest.agent_id().await?,
        trust_level: Some("known".to_owned()),
        label: None,
    };
    let added = recipient.http().await?.post(Operation::AddContact, &contact).await?;
    if added.status >= 300 {
        bail!("the contact is not added: HTTP {}", added.status);
    }
    for node in [honest, stranger] {
        direct::find(&mut node.http().await?, &to).await?;
    }
    direct::find(&mut stranger.http().await?, &elsewhere).await?;
    let run = begin("flood of direct messages", 4);
    let quiet = calls(honest, &to, scale).await?.percentile_ms(99.0);
    let (_, _, aside) = flooded(honest, stranger, [&to, &elsewhere], scale).await?;
    let (taken, refused, during) = flooded(honest, stranger, [&to, &to], scale).await?;
    report.note(&run, "honest call p99 before", quiet, "ms");
    report.note(&run, "the same while a bystander is flooded", aside, "ms");
    report.note(&run, "the same while the recipient is", during, "ms");
    report.figure(&run, "p99 against the bystander's", during / aside, "×", Target::AtMost(2.0));
    report.figure(&run, "taken of the flood", taken as f64, "msg", Target::AtMost(1024.0));
    report.note(&run, "refused of the flood", refused as f64, "msg");
    Ok(())
}

/// Calls to one agent while another floods one: what was taken and refused of that, and the calls'
/// 99th percentile in milliseconds.
async fn flooded(
    honest: &Node,
    stranger: &Node,
    [to, target]: [&str; 2],
    scale: Scale,
) -> Result<(u64, u64, f64)> {
    let (taken, refused) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let flood = flood(stranger, target, Arc::clone(&taken), Arc::clone(&refused)).await?;
    let samples = calls(honest, to, scale).await;
    flood.abort();
    let p99 = samples?.percentile_ms(99.0);
    Ok((taken.load(Ordering::Relaxed), refused.load(Ordering::Relaxed), p99))
}

/// Calls one at a time.
async fn calls(node: &Node, to: &str, scale: Scale) -> Result<Samples> {
    let mut http = node.http().await?;
    let mut samples = Samples::default();
    for number in 0..scale.direct {
        let sent = Instant::now();
        direct::send(&mut http, to, number).await?;
        samples.push(sent.elapsed());
    }
    Ok(samples)
}

/// Sends tiny messages until it is aborted, many at a time, whatever they are answered.
async fn flood(
    node: &Node,
    to: &str,
    taken: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
) -> Result<tokio::task::JoinHandle<()>> {
    let (mut sink, mut stream) = connect(node, Operation::Ws).await?.split();
    let frame = ClientFrame::SendDirect {
        agent_id: to.to_owned(),
        payload: Base64::encode(b"x"),
        id: None,
        ack: true,
        class: DirectClass::Durable,
        reply_to: None,
        request_id: None,
    };
    let text = serde_json::to_string(&frame)?;
    for _ in 0..IN_FLIGHT {
        sink.feed(Message::text(text.clone())).await?;
    }
    sink.flush().await?;
    Ok(tokio::spawn(async move {
        while let Some(frame) = next_frame(&mut stream).await {
            match frame {
                ServerFrame::Sent { .. } => taken.fetch_add(1, Ordering::Relaxed),
                ServerFrame::Error { .. } => refused.fetch_add(1, Ordering::Relaxed),
                _ => continue,
            };
            if sink.send(Message::text(text.clone())).await.is_err() {
                return;
            }
        }
    }))
}
