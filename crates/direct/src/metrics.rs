//! Counters of the direct-message service.

use x0x_core::{Counter, Gauge, Metric};

use crate::error::RefuseReason;

macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $field:ident: $kind:ident = $name:literal),+ $(,)?) => {
        /// What the service did, by cause. Counts are since the start.
        #[derive(Debug, Default)]
        #[non_exhaustive]
        pub struct DirectMetrics {
            $($(#[doc = $doc])+ pub $field: $kind,)+
        }

        impl DirectMetrics {
            /// The values now.
            #[must_use]
            pub fn snapshot(&self) -> Vec<Metric> {
                vec![$(self.$field.metric($name, concat!($($doc),+).trim_ascii_start()),)+]
            }
        }
    };
}

metrics! {
    /// Messages acknowledged by their receivers.
    acknowledged: Counter = "direct_sends_acknowledged",
    /// Sends that failed for want of a session.
    not_connected: Counter = "direct_sends_not_connected",
    /// Sends refused here because their payload is too large.
    oversized: Counter = "direct_sends_oversized",
    /// Sends refused here because too many wait for the same machine.
    over_limit: Counter = "direct_sends_over_limit",
    /// Sends that the receiver refused.
    refused_by_peer: Counter = "direct_sends_refused_by_peer",
    /// Sends whose session ended before their acknowledgement.
    unconfirmed: Counter = "direct_sends_unconfirmed",
    /// Sends without an acknowledgement in time.
    timed_out: Counter = "direct_sends_timed_out",
    /// Sends that failed here because an earlier one of their lane did.
    behind: Counter = "direct_sends_behind",
    /// Sends that failed here because nothing may be sent to their recipient any more.
    forbidden: Counter = "direct_sends_forbidden",
    /// Frames that the transport could not take at once.
    blocked: Counter = "direct_frames_blocked",
    /// Acknowledgement frames sent.
    acks_sent: Counter = "direct_acks_sent",
    /// Messages handed to the inbox.
    delivered: Counter = "direct_messages_delivered",
    /// Messages acknowledged again and not delivered again.
    duplicates: Counter = "direct_messages_duplicate",
    /// Messages refused: no such agent here.
    refused_unknown_recipient: Counter = "direct_refused_unknown_recipient",
    /// Messages refused: the sending agent was not proven in the session.
    refused_sender_not_proven: Counter = "direct_refused_sender_not_proven",
    /// Messages refused: the payload is too large.
    refused_too_large: Counter = "direct_refused_too_large",
    /// Messages refused: nobody reads the inbox.
    refused_inbox_closed: Counter = "direct_refused_inbox_closed",
    /// Messages refused: as much is held as may be.
    refused_busy: Counter = "direct_refused_busy",
    /// Notes of what was read refused: their sender posts too many.
    refused_notes: Counter = "direct_refused_notes",
    /// Messages refused: they could not be stored.
    refused_not_stored: Counter = "direct_refused_not_stored",
    /// Messages refused: an earlier one of their lane was.
    refused_behind: Counter = "direct_refused_behind",
    /// Messages acknowledged and dropped: their sender is not wanted.
    unwanted: Counter = "direct_messages_unwanted",
    /// Frames ignored because they belong to an earlier session.
    stale: Counter = "direct_frames_stale",
    /// Frames ignored because their kind is not known.
    unknown: Counter = "direct_frames_unknown",
    /// Sessions ended for an undecodable frame.
    broken_malformed: Counter = "direct_sessions_broken_malformed",
    /// Sessions ended for a gap or a repetition in the sequence numbers.
    broken_sequence: Counter = "direct_sessions_broken_sequence",
    /// Sessions ended for sending past the window.
    broken_window: Counter = "direct_sessions_broken_window",
    /// Sessions ended for acknowledging what was never sent.
    broken_ack: Counter = "direct_sessions_broken_ack",
    /// Messages received and waiting for room in the inbox.
    held: Gauge = "direct_messages_held",
}

impl DirectMetrics {
    /// The counter of messages refused for this reason.
    pub(crate) const fn refused(&self, reason: RefuseReason) -> &Counter {
        match reason {
            RefuseReason::UnknownRecipient => &self.refused_unknown_recipient,
            RefuseReason::SenderNotProven => &self.refused_sender_not_proven,
            RefuseReason::TooLarge => &self.refused_too_large,
            RefuseReason::Busy => &self.refused_busy,
            RefuseReason::NotStored => &self.refused_not_stored,
            RefuseReason::InboxClosed | RefuseReason::Other => &self.refused_inbox_closed,
        }
    }
}
