//! What the service counts. Every reason for refusing something has its own counter.

use x0x_core::{Counter, Gauge, Metric};

macro_rules! metrics {
    (counters { $($(#[doc = $chelp:literal])+ $counter:ident,)* } gauges { $($(#[doc = $ghelp:literal])+ $gauge:ident,)* }) => {
        /// Counters and gauges of one service, shared by its parts.
        #[derive(Debug, Default)]
        pub struct PubSubMetrics {
            $($(#[doc = $chelp])+ pub $counter: Counter,)*
            $($(#[doc = $ghelp])+ pub $gauge: Gauge,)*
        }

        impl PubSubMetrics {
            /// All values now, named `pubsub_` and the field's name.
            #[must_use]
            pub fn snapshot(&self) -> Vec<Metric> {
                vec![
                    $(self.$counter.metric(
                        concat!("pubsub_", stringify!($counter)),
                        concat!($($chelp),+).trim_ascii(),
                    ),)*
                    $(self.$gauge.metric(
                        concat!("pubsub_", stringify!($gauge)),
                        concat!($($ghelp),+).trim_ascii(),
                    ),)*
                ]
            }
        }
    };
}

metrics! {
    counters {
        /// Entries accepted for publishing.
        entries_published,
        /// Runs signed here.
        runs_signed,
        /// Publishes refused as busy.
        publishes_busy,
        /// Runs from peers verified and appended.
        runs_accepted,
        /// Entries from peers verified and appended.
        entries_accepted,
        /// Signatures verified, good or bad.
        signatures_verified,
        /// Runs offered to links; a refused one counts again when it is sent later.
        runs_sent,
        /// Entries offered to links, counted like runs.
        entries_sent,
        /// Author keys offered to links, counted like runs.
        keys_sent,
        /// Frames that a peer's full queue refused; they are sent later.
        sends_refused,
        /// Frames too large for the transport, dropped: an error of this build.
        sends_too_large,
        /// Entries that retention evicted before they could be sent on a link.
        entries_evicted_unsent,
        /// Messages handed to local subscriptions.
        messages_delivered,
        /// Messages that local subscriptions were told they missed.
        messages_lagged,
        /// Messages missing in an author's log that no neighbour could supply.
        entries_missed,
        /// Runs that a store held, taken over.
        runs_restored,
        /// Runs that a store held and that do not check.
        refused_stored,
        /// Changes that a store did not take; they do not outlive this service.
        store_failures,
        /// Reads of a topic that failed and are tried again.
        store_retries,
        /// Runs that a newer one of their author took the place of.
        runs_replaced,
        /// Runs evicted from the logs.
        runs_evicted,
        /// Logs dropped to make room for another topic.
        topics_evicted,
        /// Missing ranges asked for.
        wants_sent,
        /// Missing ranges that peers asked for.
        wants_received,
        /// Missing ranges that several requests did not bring, left to reconciliation.
        missing_given_up,
        /// Requests that a link did not answer in time although it said to have the entries.
        promises_broken,
        /// Runs sent because the peer asked for them, a part of those sent.
        runs_pulled,
        /// Heads of chains announced to links that get no runs pushed.
        heads_announced,
        /// Links asked not to push an author's runs.
        prunes_sent,
        /// Requests of peers not to push an author's runs.
        prunes_received,
        /// Links asked to push runs.
        grafts_sent,
        /// Requests of peers to push runs.
        grafts_received,
        /// Authors whose runs come a shorter way, as an announcement told.
        ways_shortened,
        /// Comparisons of a topic with a link begun here.
        comparisons,
        /// Searches begun for subscribers of a topic with few links.
        searches_sent,
        /// Subscribers of a topic dialled because it had few links.
        topic_peers_dialled,
        /// Small frames dropped because a link's queue of them was full; most come again.
        controls_dropped,
        /// Duplicate runs dropped before verification.
        duplicates,
        /// Frames of a kind unknown to this build.
        frames_unknown,
        /// Frames from peers without a link.
        refused_no_link,
        /// Frames that are not valid protobuf or hold a field out of range.
        refused_malformed,
        /// Frames, runs or payloads above their limit.
        refused_oversized,
        /// Runs without a signature.
        refused_unsigned,
        /// Runs with a bad signature.
        refused_signature,
        /// Runs with a key that is not their author's.
        refused_key,
        /// Runs of another network.
        refused_network,
        /// Runs of a topic that is not subscribed here.
        refused_topic,
        /// Runs that do not continue their author's chain.
        refused_mischained,
        /// Runs that begin within what is held and end beyond it.
        refused_overlap,
        /// Runs older than what is held of their author.
        refused_replayed,
        /// Runs from too far in the future.
        refused_future,
        /// Runs older than the retention.
        refused_expired,
        /// Runs that are kept for ever, of a topic that holds as much of them as it may.
        refused_full,
        /// Runs of an author that is blocked for equivocation.
        refused_blocked,
        /// Runs ahead of the next of their author; what is missing is asked for.
        refused_gap,
        /// Runs above a link's rate of entries; they are asked for later.
        refused_rate,
        /// Runs above a link's rate of signatures; they are asked for later.
        refused_run_rate,
        /// Runs above an author's rate in one topic; they are asked for later.
        refused_author_rate,
        /// Runs that the store was too far behind for; they are asked for later.
        refused_store,
        /// Heads announced by peers above their rate.
        refused_heads,
        /// Comparisons of peers above their rate, or of peers that misbehave.
        refused_comparisons,
        /// Searches of peers for subscribers, and answers, above their rate.
        refused_searches,
        /// Sessions of peers that were disconnected for misbehaviour a short while ago.
        refused_banned,
        /// Runs above the signature checks of all links together; they are asked for later.
        refused_checks,
        /// Runs of new authors of a link that brought its share of them.
        refused_author_quota,
        /// Runs of new authors while the author tables are full.
        refused_authors,
        /// Subscriptions of peers above the cap.
        refused_subscriptions,
        /// Requests of peers above their rate.
        refused_wants,
        /// Sessions of peers that are no neighbours beyond the number of links for them.
        refused_strangers,
        /// Sessions beyond the number of links, which wait for one to end.
        refused_links,
        /// Authors whose key left a full author table; their heads are kept.
        authors_forgotten,
        /// Newcomers expelled with their runs from a full table for another one.
        authors_expelled,
        /// Topics stored again, since changes of them were not.
        topics_mended,
        /// Epochs forgotten with their runs, since their author had too many.
        epochs_forgotten,
        /// Authors caught signing two histories.
        equivocations,
        /// Peers disconnected for misbehaviour.
        peers_disconnected,
    }
    gauges {
        /// Links now.
        links,
        /// Sessions that wait to become links.
        links_waiting,
        /// Missing ranges known now.
        missing,
        /// Topics with a log now.
        topics,
        /// Local subscriptions now.
        subscriptions,
        /// Bytes retained in the logs, with bookkeeping.
        log_bytes,
        /// Entries retained in the logs.
        log_entries,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_prefixed_and_helped() {
        let metrics = PubSubMetrics::default();
        metrics.duplicates.inc();
        let snapshot = metrics.snapshot();
        let entry = snapshot.iter().find(|metric| metric.name == "pubsub_duplicates");
        assert_eq!(entry.map(|metric| metric.value), Some(1));
        assert!(snapshot.iter().all(|metric| metric.help.ends_with('.')));
        assert!(snapshot.iter().all(|metric| !metric.help.starts_with(' ')));
    }
}
