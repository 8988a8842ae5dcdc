//! `/diagnostics/gossip`.

use std::sync::Arc;

use axum::{Json, extract::State};
use x0x_agent::{LinkSnapshot, PubSubMetrics, TopicSnapshot};
use x0x_api::{
    True,
    types::{
        GossipDiagnosticsResponse, GossipLink, GossipReconciliation, GossipStats, GossipTopic,
        GossipTree,
    },
};

use super::Answer;
use crate::app::App;

pub(super) async fn diagnostics(State(app): State<Arc<App>>) -> Answer<GossipDiagnosticsResponse> {
    let gossip = app.agent.gossip_diagnostics().await;
    let mut topics: Vec<_> = gossip.topics.into_iter().map(topic).collect();
    topics.sort_by_key(|topic| std::cmp::Reverse(topic.bytes));
    Ok(Json(GossipDiagnosticsResponse {
        ok: True::default(),
        stats: stats(&gossip.metrics),
        tree: tree(&gossip.metrics),
        reconciliation: reconciliation(&gossip.metrics),
        neighbors: gossip.neighbors,
        passive: gossip.passive,
        links: gossip.links.iter().map(link).collect(),
        topics,
    }))
}

fn stats(metrics: &PubSubMetrics) -> GossipStats {
    let failed = [&metrics.refused_malformed, &metrics.refused_oversized, &metrics.frames_unknown];
    GossipStats {
        publish_total: metrics.entries_published.value(),
        publish_failed: metrics.publishes_busy.value(),
        incoming_total: metrics.runs_accepted.value() + metrics.duplicates.value(),
        incoming_decoded: metrics.entries_accepted.value(),
        incoming_decode_failed: failed.map(|counter| counter.value()).iter().sum(),
        delivered_to_subscriber: metrics.messages_delivered.value(),
        slow_subscriber_dropped: metrics.messages_lagged.value(),
        subscriber_channel_closed: 0,
        in_flight_decode: 0,
        decode_to_delivery_drops: 0,
    }
}

fn tree(metrics: &PubSubMetrics) -> GossipTree {
    GossipTree {
        duplicates: metrics.duplicates.value(),
        announced: metrics.heads_announced.value(),
        prunes_sent: metrics.prunes_sent.value(),
        prunes_received: metrics.prunes_received.value(),
        grafts_sent: metrics.grafts_sent.value(),
        grafts_received: metrics.grafts_received.value(),
    }
}

fn reconciliation(metrics: &PubSubMetrics) -> GossipReconciliation {
    GossipReconciliation {
        comparisons: metrics.comparisons.value(),
        missing: metrics.missing.value(),
        asked: metrics.wants_sent.value(),
        asked_by_peers: metrics.wants_received.value(),
        given_up: metrics.missing_given_up.value(),
        promises_broken: metrics.promises_broken.value(),
        lost: metrics.entries_missed.value(),
    }
}

fn link(link: &LinkSnapshot) -> GossipLink {
    GossipLink {
        peer: link.peer,
        neighbor: link.neighbor,
        topics: link.topics as u64,
        penalty: link.penalty.into(),
        broken_promises: link.broken_promises.into(),
        slow: link.slow,
        rtt_us: link.rtt.as_micros() as u64,
    }
}

fn topic((name, topic): (Option<String>, TopicSnapshot)) -> GossipTopic {
    GossipTopic {
        topic: name,
        topic_id: topic.topic,
        subscriptions: topic.subscriptions as u64,
        eager: topic.eager as u64,
        lazy: topic.lazy as u64,
        authors: topic.authors as u64,
        messages: topic.entries,
        bytes: topic.bytes,
        missing: topic.missing as u64,
        equal: topic.equal as u64,
        congested: topic.congested,
    }
}
