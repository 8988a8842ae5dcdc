//! Grammar of the identity of this installation.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use x0x_api::types::RevokeKind;

#[derive(Subcommand, Debug)]
pub(crate) enum AgentCommand {
    UserId,
    Card {
        /// What to call the agent
        // Not `name`, which is the instance's.
        #[arg(value_name = "NAME")]
        display_name: Option<String>,
        /// Show the short link as a code to scan
        #[arg(long)]
        qr: bool,
        /// Tell the machine's addresses in its own networks, too, for those who are in them
        #[arg(long)]
        lan: bool,
    },
    Introduction {
        /// The peer's agent id
        #[arg(long)]
        peer: Option<String>,
    },
    Import {
        /// A card or link, x0x://agent/...
        card: String,
        /// blocked, unknown, known or trusted; known for a new contact, while one that is there keeps its
        /// level, and a blocked one is refused
        #[arg(long, value_name = "LEVEL")]
        trust: Option<String>,
    },
    ExportKeys {
        /// The file to make
        file: PathBuf,
        /// A file whose first line is the passphrase; - reads it from the standard input
        #[arg(long, value_name = "FILE", default_value = "-")]
        passphrase_file: PathBuf,
    },
    ImportKeys {
        /// A file that `agent export-keys` made
        file: PathBuf,
        /// A file whose first line is the passphrase; - reads it from the standard input
        #[arg(long, value_name = "FILE", default_value = "-")]
        passphrase_file: PathBuf,
        /// Put them in the place of this installation's agent, whose key files are kept
        #[arg(long)]
        replace: bool,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum UserIdCommand {
    Create {
        /// Where the key file is made, in place of user.key beside the agent's key
        #[arg(long)]
        path: Option<PathBuf>,
    },
    /// The user behind the agent, and whether others are told
    Inspect,
}

#[derive(Subcommand, Debug)]
pub(crate) enum IdentityCommand {
    Revoke(Revoked),
    Revocations,
}

#[derive(Args, Debug)]
pub(crate) struct Revoked {
    /// Whose key
    #[arg(value_enum)]
    pub(crate) what: RevokedKind,
    /// The id whose key it is, to be sure: it is for ever
    pub(crate) id: String,
    /// Why
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
}

/// Whose key is revoked.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RevokedKind {
    /// This agent's, by itself
    Agent,
    /// This agent's, by its user
    AgentByUser,
    /// This machine's
    Machine,
    /// The user's
    User,
}

impl From<RevokedKind> for RevokeKind {
    fn from(kind: RevokedKind) -> Self {
        match kind {
            RevokedKind::Agent => Self::Agent,
            RevokedKind::AgentByUser => Self::AgentByUser,
            RevokedKind::Machine => Self::Machine,
            RevokedKind::User => Self::User,
        }
    }
}
