//! Grammar of contacts and trust.

use clap::Subcommand;

#[derive(Subcommand, Debug)]
pub(crate) enum ContactsCommand {
    List,
    Add {
        /// The agent's id
        agent: String,
        /// blocked, unknown, known or trusted; known for a new contact, while one that is there keeps its
        /// level, and a blocked one is refused
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
    Discovered {
        /// Also those of agents whose announcement expired
        #[arg(long)]
        unfiltered: bool,
    },
    Get {
        /// The machine's id
        machine: String,
        /// Wait this many seconds for an agent on it to show
        #[arg(long, value_name = "SECS")]
        wait: Option<u64>,
    },
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
    #[command(after_help = "Exits with 1 when the contact was never seen on the machine.")]
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
