//! What discovery counts.

use x0x_core::{Counter, Gauge, Metric};

/// Counters of discovery. Every reason to refuse has its own.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct DiscoveryMetrics {
    /// Own announcements published.
    pub announced: Counter,
    /// Own announcements that could not be published.
    pub announce_failed: Counter,
    /// Announcements of others kept.
    pub kept: Counter,
    /// Announcements skipped because they were not newer than what is known.
    pub replayed: Counter,
    /// Refused: oversized, malformed or out of range.
    pub refused_malformed: Counter,
    /// Refused: signed by another agent than the one announced.
    pub refused_author: Counter,
    /// Refused: from the future.
    pub refused_future: Counter,
    /// Refused: the binding of agent and machine does not hold.
    pub refused_binding: Counter,
    /// Refused: of an agent that is not believed to be there.
    pub refused_policy: Counter,
    /// Refused: older than everything in a full cache.
    pub refused_full: Counter,
    /// Addresses in announcements that were of no use.
    pub addresses_dropped: Counter,
    /// Announcements that passed unread because this node was too slow.
    pub lagged: Counter,
    /// Agents that made room for others.
    pub evicted: Counter,
    /// Agents known.
    pub agents: Gauge,
}

impl DiscoveryMetrics {
    /// All values now.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Metric> {
        vec![
            self.announced.metric("discovery_announced", "Own announcements published"),
            self.announce_failed
                .metric("discovery_announce_failed", "Own announcements that were not published"),
            self.kept.metric("discovery_kept", "Announcements of others kept"),
            self.replayed.metric("discovery_replayed", "Announcements that were no news"),
            self.refused_malformed
                .metric("discovery_refused_malformed", "Announcements refused as malformed"),
            self.refused_author
                .metric("discovery_refused_author", "Announcements refused as of another author"),
            self.refused_future
                .metric("discovery_refused_future", "Announcements refused as from the future"),
            self.refused_binding
                .metric("discovery_refused_binding", "Announcements refused for their binding"),
            self.refused_policy
                .metric("discovery_refused_policy", "Announcements of agents not believed here"),
            self.refused_full
                .metric("discovery_refused_full", "Announcements too old for a full cache"),
            self.addresses_dropped
                .metric("discovery_addresses_dropped", "Announced addresses of no use"),
            self.lagged.metric("discovery_lagged", "Announcements missed by being slow"),
            self.evicted.metric("discovery_evicted", "Agents evicted from the cache"),
            self.agents.metric("discovery_agents", "Agents in the cache"),
        ]
    }
}

macro_rules! finder_metrics {
    (counters { $($(#[doc = $chelp:literal])+ $counter:ident,)* } gauges { $($(#[doc = $ghelp:literal])+ $gauge:ident,)* }) => {
        /// Counters of finding. Every reason to refuse has its own.
        #[derive(Debug, Default)]
        #[non_exhaustive]
        pub struct FinderMetrics {
            $($(#[doc = $chelp])+ pub $counter: Counter,)*
            $($(#[doc = $ghelp])+ pub $gauge: Gauge,)*
        }

        impl FinderMetrics {
            /// All values now, named `rendezvous_` and the field's name.
            #[must_use]
            pub fn snapshot(&self) -> Vec<Metric> {
                vec![
                    $(self.$counter.metric(
                        concat!("rendezvous_", stringify!($counter)),
                        concat!($($chelp),+).trim_ascii(),
                    ),)*
                    $(self.$gauge.metric(
                        concat!("rendezvous_", stringify!($gauge)),
                        concat!($($ghelp),+).trim_ascii(),
                    ),)*
                ]
            }
        }
    };
}

finder_metrics! {
    counters {
        /// Searches begun for callers.
        searches,
        /// Records that searches brought.
        found,
        /// Searches that found nothing.
        misses,
        /// Filings of own records that ended.
        filings,
        /// Times that the machines near the local id were looked for and met.
        settled,
        /// Copies of own records that holders kept.
        copies_kept,
        /// Copies of own records that holders declined.
        copies_declined,
        /// Holders dialled.
        dials,
        /// Lookups of others answered or passed on.
        lookups_served,
        /// Frames that a peer's full queue refused.
        sends_refused,
        /// Refused: malformed or oversized.
        refused_malformed,
        /// Refused: more lookups than a peer may send.
        refused_lookups,
        /// Refused: more records than a peer may file.
        refused_stores,
        /// Refused: a record of an agent that its sender does not run.
        refused_foreign,
        /// Refused: a record filed as of another kind than its key is.
        refused_kind,
        /// Refused: answers that nobody asked for.
        refused_unasked,
        /// Refused: records that are not of their subject or not signed by it.
        refused_records,
        /// Refused: records of agents that are not believed to be there.
        refused_policy,
        /// Refused: records that ended.
        refused_expired,
        /// Refused: searches beyond the limit.
        refused_searches,
        /// Refused: offers beyond the limit.
        refused_offers,
    }
    gauges {
        /// Bytes of records kept for others.
        held_bytes,
        /// Machines known that may hold records.
        volunteers,
    }
}
