//! Grammar of private messages.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Limit;

#[derive(Subcommand, Debug)]
pub(crate) enum DirectCommand {
    Connect {
        /// The agent's id
        agent: String,
    },
    ConnectMachine {
        /// The machine's id
        machine: String,
    },
    Send(SendArguments),
    Request {
        /// The recipient's id
        agent: String,
        /// The message
        message: String,
        /// How long to wait for the answer
        #[arg(long, value_name = "N", default_value_t = 30_000)]
        timeout_ms: u64,
        /// Names it, so that asking again delivers it once; a failure tells the id that it had
        #[arg(long, value_name = "HEX")]
        id: Option<String>,
    },
    Status {
        /// The message's id
        id: String,
    },
    Cancel {
        /// The message's id
        id: String,
    },
    Receipts(Limit),
    Connections,
    Events(Limit),
}

#[derive(Args, Debug)]
pub(crate) struct SendArguments {
    /// The recipient's id
    pub(crate) agent: String,
    /// The message; `-` reads it from standard input
    #[arg(required_unless_present = "file")]
    pub(crate) message: Option<String>,
    /// Instead: the content of a file is the message
    #[arg(long, value_name = "PATH", conflicts_with = "message")]
    pub(crate) file: Option<PathBuf>,
    /// Also measure the round trip, waiting this long
    #[arg(long, value_name = "N")]
    pub(crate) require_ack_ms: Option<u64>,
    /// Keep it here until the recipient can be reached; others keep a sealed copy if it is 256 KiB at most
    #[arg(long)]
    pub(crate) queue: bool,
    /// Be told when it was read; for queued messages
    #[arg(long, requires = "queue")]
    pub(crate) read_receipt: bool,
    /// How long a queued message is tried
    #[arg(long, value_name = "SECS", requires = "queue")]
    pub(crate) lifetime: Option<u64>,
    /// The message that it answers
    #[arg(long, value_name = "ID")]
    pub(crate) reply_to: Option<String>,
    /// Names it, so that sending it again delivers it once. A failure that leaves open whether the message
    /// arrived tells the id that it had
    #[arg(long, value_name = "HEX")]
    pub(crate) id: Option<String>,
    /// Never store it at the recipient
    #[arg(long, conflicts_with = "queue")]
    pub(crate) session: bool,
}
