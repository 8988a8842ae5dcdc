//! What the overlay counts.

use x0x_core::{Counter, Gauge, Metric};

macro_rules! metrics {
    ($($kind:ident $field:ident $name:literal $help:literal;)*) => {
        /// Counters and gauges of the overlay; cheap to share and to read.
        #[derive(Debug, Default)]
        pub struct MembershipMetrics {
            $(#[doc = $help] pub $field: $kind,)*
        }

        impl MembershipMetrics {
            /// Every value now.
            #[must_use]
            pub fn snapshot(&self) -> Vec<Metric> {
                vec![$(self.$field.metric($name, $help),)*]
            }
        }
    };
}

metrics! {
    Gauge active "membership_active" "Neighbours.";
    Gauge passive "membership_passive" "Peers known beside the neighbours.";
    Gauge sessions "membership_sessions" "Sessions that the overlay sees.";
    Counter joins "membership_joins" "Join requests received.";
    Counter walks_ended "membership_walks_ended" "Forwarded joins that ended at this node.";
    Counter accepts "membership_accepts" "Requests for a link that were granted.";
    Counter rejects "membership_rejects" "Requests for a link that were refused.";
    Counter requests "membership_requests" "Requests for a link that were sent.";
    Counter requests_refused "membership_requests_refused" "Requests that a peer refused.";
    Counter requests_expired "membership_requests_expired" "Requests that a peer left unanswered.";
    Counter demotions "membership_demotions" "Neighbours dropped to make room.";
    Counter spread "membership_spread" "Neighbours dropped for others of less crowded networks.";
    Counter neighbors_lost "membership_neighbors_lost" "Neighbours whose session ended.";
    Counter pings "membership_pings" "Pings sent to neighbours.";
    Counter pings_late "membership_pings_late" "Pings that a neighbour left unanswered at first.";
    Counter suspicions "membership_suspicions" "Neighbours suspected to have failed.";
    Counter refutations "membership_refutations" "Times that this node refuted a suspicion.";
    Counter refused_suspicions "membership_refused_suspicions" "Suspicions of strangers or repeated.";
    Counter neighbors_dead "membership_neighbors_dead" "Links ended because nobody reached the peer.";
    Counter neighbors_cut "membership_neighbors_cut" "Links ended because only others reached it.";
    Counter neighbors_restarted "membership_neighbors_restarted" "Links to a process that is gone.";
    Counter refused_inbound "membership_refused_inbound" "Links refused since strangers have theirs.";
    Counter refused_network "membership_refused_network" "Links refused for the peer's network.";
    Counter refused_records "membership_refused_records" "Records that are old, expired, another's.";
    Gauge records "membership_records" "Signed records known of other machines.";
    Gauge tried "membership_tried" "Peers remembered that this node reached itself.";
    Gauge hearsay "membership_hearsay" "Peers remembered from hearsay beside the passive view.";
    Gauge health "membership_local_health" "How badly this node does, from 0 (well) to 8.";
    Gauge estimate "membership_size_estimate" "Nodes that the overlay seems to have.";
    Counter comparisons "membership_comparisons" "Peers asked whom they know, across a partition.";
    Counter shuffles_sent "membership_shuffles_sent" "Shuffles begun.";
    Counter shuffles_answered "membership_shuffles_answered" "Shuffles that ended at this node.";
    Counter shuffles_completed "membership_shuffles_completed" "Shuffles begun that were answered.";
    Counter dials "membership_dials" "Dials asked of the transport.";
    Counter dials_failed "membership_dials_failed" "Dials that failed.";
    Counter links_repaired "membership_links_repaired" "One-sided links that were ended.";
    Counter refused_malformed "membership_refused_malformed" "Messages that are not valid.";
    Counter refused_rate "membership_refused_rate" "Messages of a peer that sends too many.";
    Counter refused_walks "membership_refused_walks" "Walks not followed: their sender sends too many.";
    Counter refused_stranger "membership_refused_stranger" "Neighbour messages of other peers.";
    Counter refused_unsolicited "membership_refused_unsolicited" "Answers to no question.";
    Counter refused_entries "membership_refused_entries" "Peer entries that are of no use.";
    Counter refused_addresses "membership_refused_addresses" "Addresses that a peer may not name.";
    Counter refused_sessions "membership_refused_sessions" "Sessions beyond the cap.";
    Counter send_busy "membership_send_busy" "Messages dropped because the peer is slow.";
    Counter cache_saved "membership_cache_saved" "Times the peer cache was written.";
    Counter cache_failed "membership_cache_failed" "Times the peer cache could not be written.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let metrics = MembershipMetrics::default();
        metrics.joins.inc();
        let snapshot = metrics.snapshot();
        let names: BTreeSet<_> = snapshot.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), snapshot.len());
        assert!(snapshot.iter().any(|m| m.name == "membership_joins" && m.value == 1));
    }
}
