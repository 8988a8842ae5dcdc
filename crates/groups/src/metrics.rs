//! Counters of named groups.

use x0x_core::{Counter, Metric};

macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $field:ident = $name:literal),+ $(,)?) => {
        /// What was done, by cause. Counts are since the start.
        #[derive(Debug, Default)]
        #[non_exhaustive]
        pub struct GroupsMetrics {
            $($(#[doc = $doc])+ pub $field: Counter,)+
        }

        impl GroupsMetrics {
            /// The values now.
            #[must_use]
            pub fn snapshot(&self) -> Vec<Metric> {
                vec![$(self.$field.metric($name, concat!($($doc),+).trim_ascii_start()),)+]
            }
        }
    };
}

metrics! {
    /// Items taken from groups' logs.
    taken = "groups_items_taken",
    /// Items refused: they do not open, or are malformed.
    refused_malformed = "groups_items_refused_malformed",
    /// Items refused: a signature or what it covers does not hold.
    refused_signature = "groups_items_refused_signature",
    /// Items refused: their author was banned.
    refused_banned = "groups_items_refused_banned",
    /// Items refused: their author may not do that in the group.
    refused_role = "groups_items_refused_role",
    /// Items refused for another reason; those of MLS are counted there too.
    refused_other = "groups_items_refused_other",
    /// Items published.
    published = "groups_items_published",
    /// Times that publishing failed and was left for later.
    publish_failed = "groups_publish_failed",
    /// Messages of members read.
    read = "groups_messages_read",
    /// Messages of members that cannot be read here.
    unreadable = "groups_messages_unreadable",
    /// Times that this agent came into a group again because it was behind.
    came_back = "groups_came_back",
    /// Times that this agent did what another member had left undone.
    completed = "groups_completed",
    /// Questions of other agents answered.
    answered = "groups_questions_answered",
    /// Questions of other agents refused.
    answers_refused = "groups_questions_refused",
    /// Cards made and published.
    cards_made = "groups_cards_made",
    /// Cards of others that were news.
    cards_taken = "groups_cards_taken",
    /// Cards refused: malformed, not valid, or where they must not be.
    cards_refused = "groups_cards_refused",
}
