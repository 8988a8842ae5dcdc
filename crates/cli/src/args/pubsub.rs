//! Grammar of topics.

use clap::{Args, ValueEnum};
use x0x_api::types::Retention;

/// How long a message is kept.
#[derive(ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Keep {
    /// As long as the topic's retention allows
    #[default]
    Standard,
    /// Until the next one of this kind takes its place
    Latest,
    /// A minute
    Ephemeral,
}

impl From<Keep> for Retention {
    fn from(keep: Keep) -> Self {
        match keep {
            Keep::Standard => Self::Standard,
            Keep::Latest => Self::Latest,
            Keep::Ephemeral => Self::Ephemeral,
        }
    }
}

/// When a stream of events ends by itself.
#[derive(Args, Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// End after this many messages
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
}
