//! `x0x network` and `x0x topics`: tables over the daemon's own figures.

use std::time::Duration;

use serde_json::json;
use x0x_api::Operation;
use x0x_api::event::{PEER_LIFECYCLE, PeerChange};
use x0x_api::types::{GossipDiagnosticsResponse, GossipLink, GossipTopic, NetworkStatusResponse};

use super::{
    pubsub::{Printed, follow, short},
    show,
};
use crate::args::{DiagnosticsCommand, Limit, NetworkCommand, PeersCommand};
use crate::client::{Call, Client};
use crate::error::Result;
use crate::output::{Output, table};

/// Runs a command of `x0x network`.
pub(super) fn run(
    client: &Client,
    command: Option<&NetworkCommand>,
    output: &mut Output,
) -> Result<()> {
    match command {
        None => overview(client, output),
        Some(NetworkCommand::Status) => show(client, &Call::new(Operation::NetworkStatus), output),
        Some(NetworkCommand::Cache) => show(client, &Call::new(Operation::BootstrapCache), output),
    }
}

/// Runs a command of `x0x peers`.
pub(super) fn peers(
    client: &Client,
    command: Option<&PeersCommand>,
    output: &mut Output,
) -> Result<()> {
    match command {
        None => show(client, &Call::new(Operation::Peers), output),
        Some(PeersCommand::Events(limit)) => peer_events(client, *limit, output),
        Some(PeersCommand::Health { peer }) => {
            show(client, &Call::new(Operation::PeerHealth).parameter("peer_id", peer), output)
        }
        Some(PeersCommand::Probe { peer, timeout_ms }) => {
            let call = Call::new(Operation::ProbePeer).parameter("peer_id", peer);
            let call = call.query("timeout_ms", timeout_ms.to_string());
            show(client, &call.patient(Duration::from_millis(*timeout_ms)), output)
        }
    }
}

/// Runs a command of `x0x diagnostics`.
pub(super) fn diagnose(
    client: &Client,
    command: &DiagnosticsCommand,
    output: &mut Output,
) -> Result<()> {
    let operation = match command {
        DiagnosticsCommand::Connectivity => Operation::Connectivity,
        DiagnosticsCommand::Gossip => Operation::GossipDiagnostics,
        DiagnosticsCommand::Groups => Operation::GroupDiagnostics,
    };
    show(client, &Call::new(operation), output)
}

/// Shows the links of this machine, and what stands behind them.
fn overview(client: &Client, output: &mut Output) -> Result<()> {
    let status: NetworkStatusResponse = client.fetch(&Call::new(Operation::NetworkStatus))?;
    let gossip = diagnostics(client)?;
    let answer = json!({
        "ok": true, "status": status, "neighbors": gossip.neighbors, "passive": gossip.passive,
        "links": gossip.links,
    });
    let local = status.local_addr.map_or_else(|| "-".to_owned(), |address| address.to_string());
    let observed: Vec<_> = status.external_addrs.iter().map(ToString::to_string).collect();
    let observed = if observed.is_empty() { "-".to_owned() } else { observed.join(", ") };
    let mut text = format!(
        "listening {local}, seen as {observed}\n{} sessions, {} neighbours, {} more machines known\n",
        status.connected_peers,
        gossip.neighbors.len(),
        gossip.passive.len(),
    );
    if !gossip.links.is_empty() {
        let header = ["MACHINE", "LINK", "RTT", "TOPICS", "PENALTY"].map(str::to_owned).to_vec();
        let rows: Vec<_> = std::iter::once(header).chain(gossip.links.iter().map(link)).collect();
        text.push('\n');
        text.push_str(&table(&rows));
    }
    output.report(&text, &answer)
}

/// Shows sessions as they begin and end.
fn peer_events(client: &Client, limit: Limit, output: &mut Output) -> Result<()> {
    let mut events = client.stream(Operation::PeerEvents)?;
    eprintln!("listening; Ctrl-C ends");
    follow(&mut events, limit, |event| {
        if event.name != PEER_LIFECYCLE {
            return Ok(Printed::Notice);
        }
        if output.is_json() {
            output.json_line(&event.data)?;
            return Ok(Printed::Message);
        }
        let change: PeerChange = serde_json::from_str(&event.data)?;
        output.line(&format!("{} {}", change.event.as_str(), change.peer_id))?;
        Ok(Printed::Message)
    })
}

/// Shows the topics.
pub(super) fn topics(client: &Client, output: &mut Output) -> Result<()> {
    let gossip = diagnostics(client)?;
    let answer = json!({ "ok": true, "topics": gossip.topics });
    let header = [
        "TOPIC",
        "SUBSCRIBED",
        "PUSHED TO",
        "ANNOUNCED TO",
        "AUTHORS",
        "MESSAGES",
        "BYTES",
        "MISSING",
    ];
    let header = header.map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(header).chain(gossip.topics.iter().map(topic)).collect();
    output.report(&table(&rows), &answer)
}

fn diagnostics(client: &Client) -> Result<GossipDiagnosticsResponse> {
    client.fetch(&Call::new(Operation::GossipDiagnostics))
}

fn link(link: &GossipLink) -> Vec<String> {
    vec![
        short(&link.peer.to_string()),
        if link.neighbor { "neighbour" } else { "topics" }.to_owned(),
        format!("{}.{:03} ms", link.rtt_us / 1000, link.rtt_us % 1000),
        link.topics.to_string(),
        link.penalty.to_string(),
    ]
}

fn topic(topic: &GossipTopic) -> Vec<String> {
    let name =
        topic.topic.clone().unwrap_or_else(|| format!("({})", short(&topic.topic_id.to_string())));
    let numbers = [
        topic.subscriptions,
        topic.eager,
        topic.lazy,
        topic.authors,
        topic.messages,
        topic.bytes,
        topic.missing,
    ];
    std::iter::once(name).chain(numbers.map(|number| number.to_string())).collect()
}
