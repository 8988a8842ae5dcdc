//! The command line's grammar. Summaries of commands that call the API come from its table.

mod contacts;
mod daemon;
mod direct;
mod files;
mod group_cards;
mod groups;
mod identity;
mod inbox;
mod network;
mod objects;
mod pubsub;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use x0x_api::{
    ENDPOINTS,
    instance::{CONFIG_VARIABLE, MAX_NAME, NAME_VARIABLE, is_name},
};

use crate::discover::url_of;

pub(crate) use self::contacts::{ContactsCommand, MachinesCommand, TrustCommand};
pub(crate) use self::daemon::{StartArguments, WsCommand};
pub(crate) use self::direct::{DirectCommand, SendArguments};
pub(crate) use self::files::{AcceptFileArguments, ReceiveFileArguments, SendFileArguments};
pub(crate) use self::group_cards::{CardsCommand, MlsCommand};
pub(crate) use self::groups::{GroupPolicyArguments, GroupsCommand};
pub(crate) use self::identity::{AgentCommand, IdentityCommand, Revoked, UserIdCommand};
pub(crate) use self::inbox::{HistoryArguments, InboxCommand, Reader, WatchArguments};
pub(crate) use self::network::{
    AgentsCommand, DiagnosticsCommand, NetworkCommand, PeersCommand, PresenceCommand, UsersCommand,
};
pub(crate) use self::objects::{
    AddTaskArguments, CreateArguments, EditTaskArguments, PolicyArguments, PutArguments,
    StoreCommand, TasksCommand,
};
pub(crate) use self::pubsub::{Keep, Limit};

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  failed: the daemon refused, a configuration file is not valid, or something else went wrong
  2  no daemon answers, or the command line is wrong
  3  what `inbox wait` waited for did not come in time

With --json a failure is {\"ok\":false,\"error\":TEXT,\"code\":CODE} on standard output. Codes besides the
daemon's own: invalid_config, not_running, busy (it runs and does not answer), unreachable (nobody answers at --api),
no_token, usage, failed.

Environment:
  X0X_API_TOKEN  token of the API, in place of the instance's api-token file; needed for an --api that is
                 not the running instance's own address
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
    /// Look for what is wrong: files, their modes, the disk, the daemon, its peers
    Doctor,
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
    /// The machines of contacts, and those that announced agents are on
    #[command(subcommand)]
    Machines(MachinesCommand),
    /// How much other agents are trusted
    #[command(subcommand)]
    Trust(TrustCommand),
    Announce {
        /// Name the user behind the agent, who has to agree
        #[arg(long, requires = "consent")]
        include_user: bool,
        /// The user agreed to being named
        #[arg(long)]
        consent: bool,
    },
    /// Machines with a live session
    Peers {
        #[command(subcommand)]
        command: Option<PeersCommand>,
    },
    /// The network as this daemon sees it
    Network {
        #[command(subcommand)]
        command: Option<NetworkCommand>,
    },
    /// How others reach this machine, and what to do about it
    Netcheck,
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
    /// What users have certified
    #[command(subcommand)]
    Users(UsersCommand),
    #[command(after_help = "Exits with 1 when the agent is not found.")]
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
        /// Begin after the message with this cursor, or with what comes from `now` on; without it the
        /// messages that the daemon still keeps come first
        #[arg(long, value_name = "CURSOR")]
        since: Option<String>,
        #[command(flatten)]
        limit: Limit,
    },
    Subscriptions,
    Unsubscribe {
        /// The subscription's id
        id: String,
    },
    Events(Limit),
    /// Private messages between two agents
    #[command(subcommand)]
    Direct(DirectCommand),
    /// Direct messages that came, for consumers that each have a place of their own
    Inbox {
        #[command(subcommand)]
        command: Option<InboxCommand>,
    },
    History(HistoryArguments),
    Letters,
    /// Run a command for each direct message, once
    Watch(WatchArguments),
    SendFile(SendFileArguments),
    /// List the files that are offered, or accept those of an agent
    ReceiveFile(ReceiveFileArguments),
    Transfers,
    TransferStatus {
        /// The transfer's id
        id: String,
    },
    AcceptFile(AcceptFileArguments),
    RejectFile {
        /// The transfer's id
        id: String,
        /// What the other end is told
        #[arg(long)]
        reason: Option<String>,
    },
    CancelFile {
        /// The transfer's id
        id: String,
    },
    PauseFile {
        /// The transfer's id
        id: String,
    },
    ResumeFile {
        /// The transfer's id
        id: String,
    },
    /// Task lists that agents share
    Tasks {
        #[command(subcommand)]
        command: Option<TasksCommand>,
    },
    /// Key-value stores that agents share
    Store {
        #[command(subcommand)]
        command: Option<StoreCommand>,
    },
    /// Groups of agents
    #[command(alias = "group")]
    Groups {
        #[command(subcommand)]
        command: Option<GroupsCommand>,
    },
    /// Groups by their keys
    Mls {
        #[command(subcommand)]
        command: Option<MlsCommand>,
    },
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

/// Whether the words of a command line ask for JSON, also where they are no valid command.
pub(crate) fn ask_for_json(words: impl Iterator<Item = OsString>) -> bool {
    let mut options = words.take_while(|word| word != "--");
    options.any(|word| word == "--json" || word == "--format=json")
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
