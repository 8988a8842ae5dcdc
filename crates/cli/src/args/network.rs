//! Grammar of the network, discovery and presence.

use clap::Subcommand;

use super::Limit;

#[derive(Subcommand, Debug)]
pub(crate) enum NetworkCommand {
    Cache,
    Status,
}

#[derive(Subcommand, Debug)]
pub(crate) enum DiagnosticsCommand {
    Connectivity,
    Gossip,
    Groups,
}

#[derive(Subcommand, Debug)]
pub(crate) enum PeersCommand {
    Events(Limit),
    Health {
        /// The machine's id
        peer: String,
    },
    Probe {
        /// The machine's id
        peer: String,
        /// How long to wait for the answer
        #[arg(long, value_name = "N", default_value_t = 2000)]
        timeout_ms: u64,
    },
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
    Reachability {
        /// The agent's id
        agent: String,
    },
    Machine {
        /// The agent's id
        agent: String,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum UsersCommand {
    Agents {
        /// The user's id
        user: String,
    },
    Machines {
        /// The user's id
        user: String,
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
