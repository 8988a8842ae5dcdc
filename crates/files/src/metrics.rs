//! Counters of file transfers.

use x0x_core::{Counter, Gauge, Metric};

macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $field:ident: $kind:ident = $name:literal),+ $(,)?) => {
        /// What file transfers did, by cause. Counts are since the start.
        #[derive(Debug, Default)]
        #[non_exhaustive]
        pub struct FilesMetrics {
            $($(#[doc = $doc])+ pub $field: $kind,)+
        }

        impl FilesMetrics {
            /// The values now.
            #[must_use]
            pub fn snapshot(&self) -> Vec<Metric> {
                vec![$(self.$field.metric($name, concat!($($doc),+).trim_ascii_start()),)+]
            }
        }
    };
}

metrics! {
    /// Bytes of files handed to the transport.
    bytes_sent: Counter = "files_bytes_sent",
    /// Bytes of files received, verified and stored.
    bytes_stored: Counter = "files_bytes_stored",
    /// Bytes found stored and verified when a transfer was taken up again.
    bytes_resumed: Counter = "files_bytes_resumed",
    /// Files received whole.
    received: Counter = "files_received",
    /// Files that their recipients have whole.
    sent: Counter = "files_sent",
    /// Transfers that failed.
    failed: Counter = "files_failed",
    /// Offers shown to the user.
    offers: Counter = "files_offers",
    /// Offers accepted by a rule.
    accepted_by_rule: Counter = "files_offers_accepted_by_rule",
    /// Frames dropped, and transfers ended: the agent is blocked or revoked, or not where it may be.
    refused_trust: Counter = "files_offers_refused_trust",
    /// Offers refused: the agent was not proven in the session.
    refused_not_proven: Counter = "files_offers_refused_not_proven",
    /// Offers refused: no such agent here.
    refused_unknown_recipient: Counter = "files_offers_refused_unknown_recipient",
    /// Offers refused: too many of the agent, of strangers, or in all.
    refused_limit: Counter = "files_offers_refused_limit",
    /// Frames dropped: they come too fast.
    dropped_rate: Counter = "files_frames_dropped_rate",
    /// Offers refused, or not answered again: they come too fast.
    refused_rate: Counter = "files_offers_refused_rate",
    /// Offers refused: the id belongs to another transfer.
    refused_id: Counter = "files_offers_refused_id",
    /// Transfers failed for content that does not match its hash.
    refused_content: Counter = "files_groups_refused_content",
    /// Groups dropped that were not asked for, or not any more.
    unasked: Counter = "files_groups_unasked",
    /// Requests for groups that a file does not have, or too many of them.
    refused_wants: Counter = "files_requests_refused",
    /// Frames about transfers of somebody else, or of none.
    refused_stranger: Counter = "files_frames_refused_stranger",
    /// Frames about transfers that another machine of the agent carries on.
    refused_machine: Counter = "files_frames_refused_machine",
    /// Frames ignored because their kind is not known.
    unknown: Counter = "files_frames_unknown",
    /// Frames dropped because the peer does not take them; they are made again later.
    dropped: Counter = "files_frames_dropped",
    /// Sessions ended for an undecodable frame.
    broken_malformed: Counter = "files_sessions_broken_malformed",
    /// Sessions ended for sending too much that was not asked for.
    broken_unasked: Counter = "files_sessions_broken_unasked",
    /// Times that nothing came of what was asked for, and it was asked for again.
    stalled: Counter = "files_stalls",
    /// Times that a peer took no content, and what was read for it was dropped.
    peer_stalled: Counter = "files_peer_stalls",
    /// Times that a transfer stopped because the disk failed.
    disk_failed: Counter = "files_disk_failures",
    /// Times that a transfer gave its place to one that can move.
    gave_way: Counter = "files_gave_way",
    /// Times that a transfer stopped for want of space on the disk.
    no_space: Counter = "files_waits_for_space",
    /// Records of transfers that the disk did not take at once.
    unsaved: Counter = "files_records_unsaved",
    /// Transfers that have not ended.
    live: Gauge = "files_live",
}
