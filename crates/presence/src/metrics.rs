//! What presence counts. Every reason to refuse has its own counter.

use x0x_core::{Counter, Gauge, Metric};

macro_rules! metrics {
    (counters { $($(#[doc = $chelp:literal])+ $counter:ident,)* } gauges { $($(#[doc = $ghelp:literal])+ $gauge:ident,)* }) => {
        /// Counters and gauges of one node's presence.
        #[derive(Debug, Default)]
        #[non_exhaustive]
        pub struct PresenceMetrics {
            $($(#[doc = $chelp])+ pub $counter: Counter,)*
            $($(#[doc = $ghelp])+ pub $gauge: Gauge,)*
        }

        impl PresenceMetrics {
            /// All values now, named `presence_` and the field's name.
            #[must_use]
            pub fn snapshot(&self) -> Vec<Metric> {
                vec![
                    $(self.$counter.metric(
                        concat!("presence_", stringify!($counter)),
                        concat!($($chelp),+).trim_ascii(),
                    ),)*
                    $(self.$gauge.metric(
                        concat!("presence_", stringify!($gauge)),
                        concat!($($ghelp),+).trim_ascii(),
                    ),)*
                ]
            }
        }
    };
}

metrics! {
    counters {
        /// Bytes handed to the transport.
        bytes_sent,
        /// Frames that a peer's full queue refused.
        sends_refused,
        /// Beacons that proved a sign of life.
        beacons_accepted,
        /// Beacons that were no news.
        beacons_stale,
        /// Session records verified and kept.
        records_accepted,
        /// Walks begun here.
        walks_started,
        /// Watched agents that were tried to reach before they were taken for gone.
        suspected,
        /// Walks of others passed on or answered.
        walks_served,
        /// Sightings that walks of this node brought.
        sightings_accepted,
        /// Refused: malformed or oversized.
        refused_malformed,
        /// Refused: more frames than a peer may send.
        refused_rate,
        /// Refused: more costly checks than a peer may cause.
        refused_checks,
        /// Refused: beacons that do not lead to what is known of their session.
        refused_beacon,
        /// Refused: from the future.
        refused_future,
        /// Refused: records nobody asked for, or of agents that are of no interest.
        refused_unasked,
        /// Refused: sessions on machines that their agents are not believed to be on.
        refused_machine,
        /// Refused: signatures that do not hold, keys of others.
        refused_signature,
        /// Refused: records and queries that ended.
        refused_expired,
        /// Refused: walks beyond the rate of their link or origin.
        refused_walks,
        /// Refused: answers to walks that did not go that way.
        refused_answers,
        /// Not told: the viewer may not see the subject.
        hidden,
        /// Agents that made room for others.
        evicted,
    }
    gauges {
        /// Agents known.
        subjects,
        /// Agents online or away.
        present,
    }
}
