//! The command line's grammar. Summaries of commands that call the API come from its table.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use x0x_api::{
    ENDPOINTS,
    instance::{CONFIG_VARIABLE, MAX_NAME, NAME_VARIABLE, is_name},
    types::{Retention, RevokeKind},
};

use crate::discover::url_of;

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  failed: the daemon refused, or something else went wrong
  2  no daemon answers, or the command line is wrong

Environment:
  X0X_API_TOKEN  token of the local API, in place of the instance's api-token file
  X0X_NAME       instance name, where --name gives none
  X0X_CONFIG     the daemon's configuration file, where --config gives none
  X0X_DATA_DIR   the daemon's data folder, in place of the configuration file's or the platform's
  NO_COLOR       no colours, whatever the value";

/// Drive a running x0xd
#[derive(Parser, Debug)]
#[command(name = "x0x", version, after_help = AFTER_HELP, infer_subcommands = false)]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,

    /// Print only this field of the answer, such as `agent_id` or `peers.0.id`
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) field: Option<String>,

    /// Output format
    #[arg(long, global = true, value_enum, hide = true)]
    format: Option<Format>,

    /// The named instance to talk to
    #[arg(long, global = true, value_parser = instance_name, env = NAME_VARIABLE, hide_env = true)]
    pub(crate) name: Option<String>,

    /// The daemon's configuration file, in place of the instance's
    #[arg(long, global = true, value_name = "PATH", env = CONFIG_VARIABLE, hide_env = true)]
    pub(crate) config: Option<PathBuf>,

    /// The daemon's API, in place of the instance's api.port file
    #[arg(
        long,
        alias = "api-url",
        global = true,
        value_parser = url_of,
        value_name = "HOST:PORT|URL"
    )]
    pub(crate) api: Option<String>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Arguments {
    pub(crate) fn wants_json(&self) -> bool {
        self.json || self.format == Some(Format::Json)
    }
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Text,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Start the daemon in the background
    Start(StartArguments),
    Stop,
    /// List the instances of this user
    Instances,
    Health,
    Status,
    Agent {
        #[command(subcommand)]
        command: Option<AgentCommand>,
    },
    /// The person or organisation behind the agent
    #[command(subcommand)]
    UserId(UserIdCommand),
    /// Keys that are not to be trusted any more
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Whom this agent knows
    Contacts {
        #[command(subcommand)]
        command: Option<ContactsCommand>,
    },
    /// The machines of contacts
    #[command(subcommand)]
    Machines(MachinesCommand),
    /// How much other agents are trusted
    #[command(subcommand)]
    Trust(TrustCommand),
    Announce {
        /// Name the user behind the agent
        #[arg(long)]
        include_user: bool,
        /// The user agreed to being named
        #[arg(long)]
        consent: bool,
    },
    Peers,
    /// The network as this daemon sees it
    Network {
        #[command(subcommand)]
        command: Option<NetworkCommand>,
    },
    /// The topics that this daemon keeps, and how their messages spread
    Topics,
    /// Figures of the daemon's layers
    #[command(subcommand)]
    Diagnostics(DiagnosticsCommand),
    /// Agents that announced themselves
    Agents {
        #[command(subcommand)]
        command: Option<AgentsCommand>,
    },
    Find {
        /// The agent's id
        agent: String,
    },
    /// Who is there
    Presence {
        #[command(subcommand)]
        command: Option<PresenceCommand>,
    },
    Publish {
        /// Topic name
        topic: String,
        /// The message
        text: String,
        /// How long it is kept
        #[arg(long, value_enum, default_value_t)]
        retention: Keep,
    },
    Subscribe {
        /// Topic name
        topic: String,
        /// Begin after the message with this cursor, or `now`
        #[arg(long, value_name = "CURSOR")]
        since: Option<String>,
        #[command(flatten)]
        limit: Limit,
    },
    Unsubscribe {
        /// The subscription's id
        id: String,
    },
    Events(Limit),
    /// Private messages between two agents
    #[command(subcommand)]
    Direct(DirectCommand),
    /// The daemon's WebSocket side
    #[command(subcommand)]
    Ws(WsCommand),
    /// List the endpoints of the local API
    Routes,
    /// Show the commands as a tree
    Tree,
    /// Print a completion script
    Completions {
        /// The shell to complete for
        shell: Shell,
    },
}

#[derive(Args, Debug)]
pub(crate) struct StartArguments {
    /// Machine to contact first; may be given more than once
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) bootstrap: Vec<SocketAddr>,
    /// Stay attached to the terminal until the daemon ends
    #[arg(long)]
    pub(crate) foreground: bool,
}

#[derive(Subcommand, Debug)]
pub(crate) enum AgentCommand {
    UserId,
    Card {
        /// What to call the agent
        name: Option<String>,
        /// Show the short link as a code to scan
        #[arg(long)]
        qr: bool,
    },
    Introduction {
        /// The peer's agent id
        #[arg(long)]
        peer: Option<String>,
    },
    Import {
        /// A card or link, x0x://agent/...
        card: String,
        /// blocked, unknown, known or trusted
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

#[derive(Subcommand, Debug)]
pub(crate) enum ContactsCommand {
    List,
    Add {
        /// The agent's id
        agent: String,
        /// blocked, unknown, known or trusted
        #[arg(long, value_name = "LEVEL")]
        trust: Option<String>,
        /// A name for it
        #[arg(long)]
        label: Option<String>,
    },
    Update {
        /// The agent's id
        agent: String,
        /// blocked, unknown, known or trusted
        #[arg(long, value_name = "LEVEL")]
        trust: Option<String>,
        /// anonymous, known, trusted or pinned
        #[arg(long, value_name = "TYPE")]
        identity_type: Option<String>,
    },
    Remove {
        /// The agent's id
        agent: String,
    },
    Revoke {
        /// The agent's id
        agent: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
    Revocations {
        /// The agent's id
        agent: String,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum MachinesCommand {
    List {
        /// The contact's agent id
        agent: String,
    },
    Add {
        /// The contact's agent id
        agent: String,
        /// The machine's id
        machine: String,
        /// A name for it
        #[arg(long)]
        label: Option<String>,
        /// Also pin the contact to it
        #[arg(long)]
        pin: bool,
    },
    Remove {
        /// The contact's agent id
        agent: String,
        /// The machine's id
        machine: String,
    },
    Pin {
        /// The contact's agent id
        agent: String,
        /// The machine's id
        machine: String,
    },
    Unpin {
        /// The contact's agent id
        agent: String,
        /// The machine's id
        machine: String,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum TrustCommand {
    Set {
        /// The agent's id
        agent: String,
        /// blocked, unknown, known or trusted
        level: String,
    },
    Evaluate {
        /// The agent's id
        agent: String,
        /// The machine's id
        machine: String,
    },
}

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

#[derive(Subcommand, Debug)]
pub(crate) enum NetworkCommand {
    Status,
}

#[derive(Subcommand, Debug)]
pub(crate) enum DiagnosticsCommand {
    Gossip,
}

#[derive(Subcommand, Debug)]
pub(crate) enum AgentsCommand {
    List {
        /// Also list those whose announcement expired
        #[arg(long)]
        unfiltered: bool,
    },
    Get {
        /// The agent's id
        agent: String,
        /// Search this many seconds for an unknown agent
        #[arg(long, value_name = "SECS")]
        wait: Option<u64>,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum PresenceCommand {
    List,
    Online,
    Status {
        /// The agent's id
        agent: String,
    },
    Find {
        /// The agent's id
        agent: String,
        /// Links that the question crosses
        #[arg(long, value_name = "1-3", default_value_t = 3)]
        ttl: u32,
        /// How long to wait for answers
        #[arg(long, value_name = "N", default_value_t = 5000)]
        timeout_ms: u64,
    },
    Foaf {
        /// Links that the question crosses
        #[arg(long, value_name = "1-3", default_value_t = 3)]
        ttl: u32,
        /// How long to wait for answers
        #[arg(long, value_name = "N", default_value_t = 5000)]
        timeout_ms: u64,
    },
    Events(Limit),
}

#[derive(Subcommand, Debug)]
pub(crate) enum DirectCommand {
    Connect {
        /// The agent's id
        agent: String,
    },
    Send {
        /// The recipient's id
        agent: String,
        /// The message
        message: String,
        /// Also measure the round trip, waiting this long
        #[arg(long, value_name = "N")]
        require_ack_ms: Option<u64>,
    },
    Connections,
    Events(Limit),
}

#[derive(Subcommand, Debug)]
pub(crate) enum WsCommand {
    Sessions,
    /// Print the address of the WebSocket that carries direct messages
    Direct,
}

/// The whole grammar, with the endpoint table's summaries in place.
pub(crate) fn command() -> clap::Command {
    ENDPOINTS.iter().fold(Arguments::command(), |command, endpoint| match endpoint.cli {
        Some(words) => describe(command, words, endpoint.summary.trim_end_matches('.')),
        None => command,
    })
}

fn describe(command: clap::Command, words: &str, summary: &'static str) -> clap::Command {
    match words.split_once(' ') {
        Some((first, rest)) => command.mut_subcommand(first, |sub| describe(sub, rest, summary)),
        None => command.mut_subcommand(words, |sub| sub.about(summary)),
    }
}

fn instance_name(text: &str) -> Result<String, String> {
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("1 to {MAX_NAME} letters, digits and `-`, not starting with `-`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_command_of_the_table_exists_and_carries_its_summary() {
        let bare = Arguments::command();
        let described = command();
        for endpoint in ENDPOINTS {
            let Some(words) = endpoint.cli else { continue };
            let find = |root: &clap::Command| {
                words
                    .split(' ')
                    .try_fold(root.clone(), |at, word| at.find_subcommand(word).cloned())
            };
            assert!(find(&bare).is_some(), "`x0x {words}` is missing");
            let about =
                find(&described).and_then(|found| found.get_about().map(ToString::to_string));
            assert_eq!(about.as_deref(), Some(endpoint.summary.trim_end_matches('.')), "{words}");
        }
    }

    #[test]
    fn global_options_may_stand_anywhere() {
        let parsed = Arguments::try_parse_from(["x0x", "start", "--name", "alice", "--json"]);
        let parsed = parsed.unwrap();
        assert_eq!(parsed.name.as_deref(), Some("alice"));
        assert!(parsed.wants_json());
    }

    #[test]
    fn bad_instance_names_are_refused() {
        assert_eq!(instance_name("alice-2").as_deref(), Ok("alice-2"));
        assert!(instance_name("../a").is_err_and(|why| why.contains("64")));
    }
}
