//! Grammar of task lists and key-value stores.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use x0x_api::types::ObjectPolicy;

use super::Limit;

/// Who may write.
#[derive(ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Writers {
    /// Whoever knows its name
    #[default]
    Open,
    /// Its owner alone
    Signed,
    /// Its owner and those that it lists
    Allowlisted,
    /// The same, each below its own prefix (stores)
    SelfKeyed,
    /// The same, and a key that has a value keeps it (stores)
    AppendOnly,
}

impl From<Writers> for ObjectPolicy {
    fn from(writers: Writers) -> Self {
        match writers {
            Writers::Open => Self::Open,
            Writers::Signed => Self::Signed,
            Writers::Allowlisted => Self::Allowlisted,
            Writers::SelfKeyed => Self::SelfKeyed,
            Writers::AppendOnly => Self::AppendOnly,
        }
    }
}

/// What is created.
#[derive(Args, Debug)]
pub(crate) struct CreateArguments {
    /// What people call it
    // Not `name`, which is the instance's.
    #[arg(value_name = "NAME")]
    pub(crate) title: String,
    /// What names it on the network
    pub(crate) topic: String,
    /// Who may write
    #[arg(long, value_enum, default_value_t)]
    pub(crate) policy: Writers,
    /// An agent that may write besides the owner; may be given again
    #[arg(long = "writer", value_name = "AGENT")]
    pub(crate) writers: Vec<String>,
}

/// How a policy changes.
#[derive(Args, Debug)]
pub(crate) struct PolicyArguments {
    /// The id
    pub(crate) id: String,
    /// An agent that may write from now on; may be given again
    #[arg(long = "add", value_name = "AGENT", required_unless_present = "remove")]
    pub(crate) add: Vec<String>,
    /// An agent that may not any more; may be given again
    #[arg(long = "remove", value_name = "AGENT")]
    pub(crate) remove: Vec<String>,
}

/// Where a task goes.
#[derive(Args, Debug, Default)]
pub(crate) struct Place {
    /// Behind this task
    #[arg(long, value_name = "TASK", conflicts_with = "before")]
    pub(crate) after: Option<String>,
    /// Before this task
    #[arg(long, value_name = "TASK")]
    pub(crate) before: Option<String>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum TasksCommand {
    List,
    Create(CreateArguments),
    Status {
        /// The list's id
        list: String,
    },
    Leave {
        /// The list's id
        list: String,
    },
    Policy(PolicyArguments),
    Show {
        /// The list's id
        list: String,
    },
    Get {
        /// The list's id
        list: String,
        /// The task's id
        task: String,
    },
    Add(AddTaskArguments),
    Edit(EditTaskArguments),
    /// Claim a task
    Claim {
        /// The list's id
        list: String,
        /// The task's id
        task: String,
        /// How long it is held
        #[arg(long, value_name = "SECS", default_value_t = 3600)]
        lease: u64,
    },
    /// Hold a claimed task for another lease
    Renew {
        /// The list's id
        list: String,
        /// The task's id
        task: String,
        /// How long it is held
        #[arg(long, value_name = "SECS", default_value_t = 3600)]
        lease: u64,
    },
    /// Give a claimed task back
    Release {
        /// The list's id
        list: String,
        /// The task's id
        task: String,
    },
    /// Say that a task is done
    Complete {
        /// The list's id
        list: String,
        /// The task's id
        task: String,
    },
    /// Open a task again that was done
    Reopen {
        /// The list's id
        list: String,
        /// The task's id
        task: String,
    },
    Delete {
        /// The list's id
        list: String,
        /// The task's id
        task: String,
    },
    Watch {
        /// The list's id
        list: String,
        #[command(flatten)]
        limit: Limit,
    },
}

#[derive(Args, Debug)]
pub(crate) struct AddTaskArguments {
    /// The list's id
    pub(crate) list: String,
    /// What is to be done
    pub(crate) title: String,
    /// More about it
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// 0 to 255
    #[arg(long, value_name = "N")]
    pub(crate) priority: Option<u8>,
    /// A label; may be given again
    #[arg(long = "label")]
    pub(crate) labels: Vec<String>,
    /// Who is to do it
    #[arg(long, value_name = "AGENT")]
    pub(crate) assignee: Option<String>,
    /// When it is due, milliseconds since the Unix epoch
    #[arg(long, value_name = "MS")]
    pub(crate) due: Option<u64>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args, Debug)]
pub(crate) struct EditTaskArguments {
    /// The list's id
    pub(crate) list: String,
    /// The task's id
    pub(crate) task: String,
    /// What is to be done
    #[arg(long)]
    pub(crate) title: Option<String>,
    /// More about it
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// 0 to 255
    #[arg(long, value_name = "N")]
    pub(crate) priority: Option<u8>,
    /// A label, in place of those that it has; may be given again
    #[arg(long = "label")]
    pub(crate) labels: Vec<String>,
    /// Who is to do it; nobody when empty
    #[arg(long, value_name = "AGENT")]
    pub(crate) assignee: Option<String>,
    /// When it is due, milliseconds since the Unix epoch; never when 0
    #[arg(long, value_name = "MS")]
    pub(crate) due: Option<u64>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Subcommand, Debug)]
pub(crate) enum StoreCommand {
    List,
    Create(CreateArguments),
    Join {
        /// The store's id
        store: String,
    },
    Status {
        /// The store's id
        store: String,
    },
    Leave {
        /// The store's id
        store: String,
    },
    Policy(PolicyArguments),
    Keys {
        /// The store's id
        store: String,
        /// Only keys that begin so
        #[arg(long)]
        prefix: Option<String>,
    },
    Put(PutArguments),
    Get {
        /// The store's id
        store: String,
        /// The key
        key: String,
        /// Write the value to this file; `-` is standard output
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    Rm {
        /// The store's id
        store: String,
        /// The key
        key: String,
        /// Only when the key is at this version
        #[arg(long, value_name = "VERSION")]
        if_version: Option<String>,
    },
    Watch {
        /// The store's id
        store: String,
        /// Only keys that begin so
        #[arg(long)]
        prefix: Option<String>,
        #[command(flatten)]
        limit: Limit,
    },
}

#[derive(Args, Debug)]
pub(crate) struct PutArguments {
    /// The store's id
    pub(crate) store: String,
    /// The key
    pub(crate) key: String,
    /// The value
    #[arg(required_unless_present = "file")]
    pub(crate) value: Option<String>,
    /// The file whose content is the value
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    pub(crate) file: Option<PathBuf>,
    /// What the value is, such as text/plain
    #[arg(long, value_name = "TYPE")]
    pub(crate) content_type: Option<String>,
    /// After so many seconds it is gone
    #[arg(long, value_name = "SECS")]
    pub(crate) ttl: Option<u64>,
    /// Only when the key is at this version; `absent` when it has no value
    #[arg(long, value_name = "VERSION")]
    pub(crate) if_version: Option<String>,
}
