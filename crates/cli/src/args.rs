//! The command line's grammar. Summaries of commands that call the API come from its table.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use x0x_api::{
    ENDPOINTS,
    instance::{CONFIG_VARIABLE, MAX_NAME, NAME_VARIABLE, is_name},
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
    Agent,
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
    Publish {
        /// Topic name
        topic: String,
        /// The message
        text: String,
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
