//! Counters of letters.

use x0x_core::{Counter, Gauge, Metric};

macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $field:ident: $kind:ident = $name:literal),+ $(,)?) => {
        /// What became of letters, by cause. Counts are since the start.
        #[derive(Debug, Default)]
        #[non_exhaustive]
        pub struct LettersMetrics {
            $($(#[doc = $doc])+ pub $field: $kind,)+
        }

        impl LettersMetrics {
            /// The values now.
            #[must_use]
            pub fn snapshot(&self) -> Vec<Metric> {
                vec![$(self.$field.metric($name, concat!($($doc),+).trim_ascii_start()),)+]
            }
        }
    };
}

metrics! {
    /// Letters kept for others.
    held: Gauge = "letters_held",
    /// Bytes of letters kept for others.
    held_bytes: Gauge = "letters_held_bytes",
    /// Letters of others that were taken.
    deposits_kept: Counter = "letters_deposits_kept",
    /// Letters of others refused: holding is switched off, the depositor is not wanted, or they are expired.
    refused_deposit: Counter = "letters_refused_deposit",
    /// Letters of others refused: their mailbox has its share.
    refused_tag_full: Counter = "letters_refused_tag_full",
    /// Letters of others refused: there is no room for anybody, or none for strangers.
    refused_full: Counter = "letters_refused_full",
    /// Letters of others refused: their depositor has its share of the day.
    refused_share: Counter = "letters_refused_share",
    /// Letters of others refused: they could not be stored.
    refused_not_stored: Counter = "letters_refused_not_stored",
    /// Questions for letters answered.
    asks_answered: Counter = "letters_asks_answered",
    /// Questions for letters refused: too many of one machine.
    refused_asks: Counter = "letters_refused_asks",
    /// Letters of others handed out.
    letters_served: Counter = "letters_served",
    /// Fetches refused: too many of one machine, or too much is being read for it.
    refused_fetches: Counter = "letters_refused_fetches",
    /// Fetches refused: the machine does not take what it was given before.
    refused_fetches_slow: Counter = "letters_refused_fetches_slow",
    /// Letters of others deleted by those who may.
    letters_deleted: Counter = "letters_deleted",
    /// Letters of others that expired.
    letters_expired: Counter = "letters_expired",
    /// Frames refused: malformed.
    refused_malformed: Counter = "letters_refused_malformed",
    /// Grants of mailboxes that were taken.
    grants_taken: Counter = "letters_grants_taken",
    /// Grants refused: their owner is not proven or not wanted, or they are of another time.
    refused_grants: Counter = "letters_refused_grants",
    /// Searches for holders that were put off: enough go on already.
    searches_put_off: Counter = "letters_searches_put_off",
    /// Own letters sealed.
    sealed: Counter = "letters_sealed",
    /// Own messages that cannot be letters: they are too large.
    not_sealed: Counter = "letters_not_sealed",
    /// Copies of own letters that holders took.
    copies_kept: Counter = "letters_copies_kept",
    /// Copies of own letters that holders refused.
    copies_refused: Counter = "letters_copies_refused",
    /// Copies of own letters that holders keep no longer, while their message waits still.
    copies_lapsed: Counter = "letters_copies_lapsed",
    /// Copies of own letters that holders did not answer for.
    copies_unanswered: Counter = "letters_copies_unanswered",
    /// Own letters fetched and opened.
    opened: Counter = "letters_opened",
    /// Own letters given to the inbox.
    delivered: Counter = "letters_delivered",
    /// Own letters that the inbox had already.
    duplicates: Counter = "letters_duplicate",
    /// Own letters dropped: their sender is not wanted.
    unwanted: Counter = "letters_unwanted",
    /// Own letters put off: the inbox has no room.
    busy: Counter = "letters_busy",
    /// Letters that are not what their holder said: it has changed them.
    tampered: Counter = "letters_tampered",
    /// Letters that do not open or verify, whoever made them.
    refused_letters: Counter = "letters_refused",
    /// Own letters deleted: their time was over before the inbox took them.
    lapsed: Counter = "letters_lapsed",
    /// Own letters set aside: expired or of the future, by the clock here.
    untimely: Counter = "letters_untimely",
    /// Lists of letters refused: nobody asked for them.
    refused_unsolicited: Counter = "letters_refused_unsolicited",
    /// Letters that a holder listed and did not give.
    withheld: Counter = "letters_withheld",
    /// Letters delivered although the one before them never came.
    gaps: Counter = "letters_gaps",
    /// Commits of what became of letters that failed, and are tried again.
    records_failed: Counter = "letters_records_failed",
    /// Records that had no room: what they say is made anew.
    records_dropped: Counter = "letters_records_dropped",
    /// Letters of others found in the store that were deleted before.
    swept: Counter = "letters_swept",
    /// Frames that the transport could not take.
    sends_refused: Counter = "letters_sends_refused",
}
