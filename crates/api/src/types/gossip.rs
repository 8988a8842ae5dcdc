//! `/diagnostics/gossip`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::{MachineId, TopicId};

use crate::{encoding::Hex64, flag::True};

/// Answer of `GET /diagnostics/gossip`: how messages spread, as this daemon sees it now. Counters count
/// from its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GossipDiagnosticsResponse {
    /// Always true.
    pub ok: True,
    /// What went in and out.
    pub stats: GossipStats,
    /// How the tree that messages spread along is kept.
    pub tree: GossipTree,
    /// How what is missing is found and fetched.
    pub reconciliation: GossipReconciliation,
    /// The machines that this one exchanges messages with: the overlay's active view.
    #[schema(value_type = Vec<Hex64>)]
    pub neighbors: Vec<MachineId>,
    /// The machines that are kept for when a neighbour is lost: the passive view.
    #[schema(value_type = Vec<Hex64>)]
    pub passive: Vec<MachineId>,
    /// Every link, by machine.
    pub links: Vec<GossipLink>,
    /// Every topic with a log, the largest first.
    pub topics: Vec<GossipTopic>,
}

/// What went in and out, under the names of the original daemon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GossipStats {
    /// Messages published here.
    pub publish_total: u64,
    /// Publishes that found no room and were told so at once; one that waits may succeed later.
    pub publish_failed: u64,
    /// Runs of messages that peers sent.
    pub incoming_total: u64,
    /// Messages of these that were new, verified and kept.
    pub incoming_decoded: u64,
    /// Frames that were not valid.
    pub incoming_decode_failed: u64,
    /// Messages handed to subscriptions.
    pub delivered_to_subscriber: u64,
    /// Messages that subscriptions were told they missed.
    pub slow_subscriber_dropped: u64,
    /// Always 0: a subscription that is closed is removed.
    pub subscriber_channel_closed: u64,
    /// Always 0: messages are verified one run at a time.
    pub in_flight_decode: i64,
    /// Always 0: what was verified is kept.
    pub decode_to_delivery_drops: i64,
}

/// How the tree is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GossipTree {
    /// Runs that came a second time.
    pub duplicates: u64,
    /// Heads announced to links that get no runs pushed.
    pub announced: u64,
    /// Links asked not to push an author's runs.
    pub prunes_sent: u64,
    /// Requests of peers not to push an author's runs.
    pub prunes_received: u64,
    /// Links asked to push runs.
    pub grafts_sent: u64,
    /// Requests of peers to push runs.
    pub grafts_received: u64,
}

/// How what is missing is found and fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GossipReconciliation {
    /// Comparisons of a topic with a peer begun here.
    pub comparisons: u64,
    /// Ranges of messages known to be missing now.
    pub missing: u64,
    /// Ranges asked for.
    pub asked: u64,
    /// Ranges that peers asked for.
    pub asked_by_peers: u64,
    /// Ranges that several peers did not bring, left to the next comparison.
    pub given_up: u64,
    /// Requests that a peer did not answer in time although it said to have the messages.
    pub promises_broken: u64,
    /// Messages that nobody could supply.
    pub lost: u64,
}

/// A link to another machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GossipLink {
    /// The machine.
    #[schema(value_type = Hex64)]
    pub peer: MachineId,
    /// Whether it is a neighbour; otherwise the link serves topics that both subscribe.
    pub neighbor: bool,
    /// Topics that it subscribes and this daemon keeps.
    pub topics: u64,
    /// Points for misbehaviour, which fade; at 100 it is disconnected.
    pub penalty: u64,
    /// How often it lately did not send what it said to have.
    pub broken_promises: u64,
    /// Whether its queue is full: it reads too slowly.
    pub slow: bool,
    /// Smoothed round-trip time in microseconds.
    pub rtt_us: u64,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GossipTopic {
    /// Its name; null when it was not used here since the start.
    #[schema(required = true)]
    pub topic: Option<String>,
    /// Its id.
    #[schema(value_type = Hex64)]
    pub topic_id: TopicId,
    /// Subscriptions of this daemon and its clients.
    pub subscriptions: u64,
    /// Peers that subscribe it and get messages pushed.
    pub eager: u64,
    /// Peers that subscribe it and get messages announced.
    pub lazy: u64,
    /// Authors of the messages that are kept.
    pub authors: u64,
    /// Messages kept.
    pub messages: u64,
    /// Bytes kept.
    pub bytes: u64,
    /// Ranges of messages known to be missing.
    pub missing: u64,
    /// Peers that were found to hold the same messages.
    pub equal: u64,
    /// Whether publishing waits, since a peer is far behind.
    pub congested: bool,
}
