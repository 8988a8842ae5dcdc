//! Grammar of the inbox.

use std::ffi::OsString;

use clap::{Args, Subcommand};
use x0x_api::types::DEFAULT_CONSUMER;

#[derive(Subcommand, Debug)]
pub(crate) enum InboxCommand {
    Peek(Reader),
    Wait {
        #[command(flatten)]
        reader: Reader,
        /// Give up after so many seconds, with exit code 3
        #[arg(long, value_name = "SECS")]
        timeout: Option<u64>,
        /// Acknowledge what is printed
        #[arg(long)]
        ack: bool,
    },
    Claim {
        #[command(flatten)]
        reader: Reader,
        /// For how long nobody else gets them
        #[arg(long, value_name = "SECS", default_value_t = 30)]
        lease: u64,
        /// Who works on them, where several share a consumer
        #[arg(long, value_name = "NAME")]
        owner: Option<String>,
    },
    Ack {
        /// Numbers of messages
        #[arg(required_unless_present = "through")]
        numbers: Vec<u64>,
        /// Instead: everything up to this number
        #[arg(long, value_name = "NUMBER", conflicts_with = "numbers")]
        through: Option<u64>,
        /// Whose place it is
        #[arg(long, default_value = DEFAULT_CONSUMER)]
        consumer: String,
        /// Who claimed them: nothing is acknowledged if somebody else has by now
        #[arg(long, value_name = "NAME", conflicts_with = "through")]
        owner: Option<String>,
    },
    Release {
        /// Numbers of messages
        #[arg(required = true)]
        numbers: Vec<u64>,
        /// Whose place it is
        #[arg(long, default_value = DEFAULT_CONSUMER)]
        consumer: String,
        /// Who claimed them: what is with somebody else stays there
        #[arg(long, value_name = "NAME")]
        owner: Option<String>,
    },
    Seek {
        /// oldest, unread, latest, or the number after which
        start: String,
        /// Whose place it is
        #[arg(long, default_value = DEFAULT_CONSUMER)]
        consumer: String,
    },
    Consumers,
    CreateConsumer {
        /// Its name
        consumer: String,
        /// oldest, unread, latest, or the number after which
        #[arg(long)]
        start: Option<String>,
    },
    RemoveConsumer {
        /// Its name
        consumer: String,
    },
}

/// Who reads, and how much.
#[derive(Args, Debug)]
pub(crate) struct Reader {
    /// Whose place it is
    #[arg(long, default_value = DEFAULT_CONSUMER)]
    pub(crate) consumer: String,
    /// At most so many messages
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) limit: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self { consumer: DEFAULT_CONSUMER.to_owned(), limit: 50 }
    }
}

#[derive(Args, Debug)]
pub(crate) struct HistoryArguments {
    /// Words that all are in the text
    pub(crate) words: Vec<String>,
    /// Only with this agent
    #[arg(long, value_name = "ID")]
    pub(crate) agent: Option<String>,
    /// Only from before this time, milliseconds since the Unix epoch
    #[arg(long, value_name = "MS")]
    pub(crate) before: Option<u64>,
    /// Goes on where the page before this one ended, as that said
    #[arg(long, value_name = "PLACE")]
    pub(crate) cursor: Option<String>,
    /// At most so many messages
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) limit: usize,
}

/// What runs for each message, and how often.
#[derive(Args, Debug)]
pub(crate) struct WatchArguments {
    /// Whose place it is; each watch with a name of its own gets every message
    #[arg(long, default_value = "watch")]
    pub(crate) consumer: String,
    /// End after this many messages
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// How often a command that fails is run for a message before that is left
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) attempts: u32,
    /// Where a consumer that is new begins: oldest, unread, latest, or the number after which
    #[arg(long, value_name = "START", default_value = "unread")]
    pub(crate) from: String,
    /// How long a command may run before it is ended, which counts as a failure
    #[arg(long, value_name = "SECS", default_value_t = 600)]
    pub(crate) lease: u64,
    /// The command and its arguments; one that cannot be started ends the watch. It gets the message on its standard input, and X0X_FROM,
    /// X0X_TRUST, X0X_VERIFIED, X0X_ID, X0X_NUMBER, X0X_REPLY_TO and X0X_RECEIVED_AT in its
    /// environment. No shell looks at any of it
    #[arg(long, value_name = "CMD", required = true, num_args = 1.., allow_hyphen_values = true)]
    pub(crate) exec: Vec<OsString>,
}
