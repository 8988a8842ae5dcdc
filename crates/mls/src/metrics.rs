//! Counters of groups.

use x0x_core::{Counter, Metric};

macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $field:ident: $kind:ident = $name:literal),+ $(,)?) => {
        /// What was done, by cause. Counts are since the start.
        #[derive(Debug, Default)]
        #[non_exhaustive]
        pub struct MlsMetrics {
            $($(#[doc = $doc])+ pub $field: $kind,)+
        }

        impl MlsMetrics {
            /// The values now.
            #[must_use]
            pub fn snapshot(&self) -> Vec<Metric> {
                vec![$(self.$field.metric($name, concat!($($doc),+).trim_ascii_start()),)+]
            }
        }
    };
}

metrics! {
    /// Messages encrypted.
    encrypted: Counter = "mls_messages_encrypted",
    /// Messages decrypted.
    decrypted: Counter = "mls_messages_decrypted",
    /// Messages that did not decrypt or verify, or came twice.
    undecryptable: Counter = "mls_messages_refused",
    /// Frames of a state that is not known here.
    not_yet: Counter = "mls_frames_not_yet",
    /// Messages of epochs of which there are no keys here any more.
    expired: Counter = "mls_messages_expired",
    /// Frames that are malformed.
    malformed: Counter = "mls_frames_malformed",
    /// Commits made here.
    committed: Counter = "mls_commits_made",
    /// Commits that stand.
    commits_stand: Counter = "mls_commits_stand",
    /// Commits that lost to another of the same state.
    commits_lost: Counter = "mls_commits_lost",
    /// Commits refused: they do not verify.
    commits_invalid: Counter = "mls_commits_refused_invalid",
    /// Commits refused: a leaf's credential does not hold.
    commits_credential: Counter = "mls_commits_refused_credential",
    /// Commits refused by the group's policy.
    commits_policy: Counter = "mls_commits_refused_policy",
    /// Commits refused: they claim a rank that they have not.
    commits_rank: Counter = "mls_commits_refused_rank",
    /// Epochs that fell because a commit that comes before came late.
    epochs_reverted: Counter = "mls_epochs_reverted",
    /// Welcomes refused.
    welcomes_refused: Counter = "mls_welcomes_refused",
    /// Writes to the store that failed.
    store_failures: Counter = "mls_store_failures",
}
