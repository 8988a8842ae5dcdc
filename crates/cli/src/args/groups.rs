//! Grammar of groups.

use clap::{Args, Subcommand};

use super::{CardsCommand, Limit};

/// A group that is founded.
#[derive(Args, Debug)]
pub(crate) struct CreateGroupArguments {
    /// Its name
    // Not `name`, which is the instance's.
    #[arg(value_name = "NAME")]
    pub(crate) title: String,
    /// What it is about
    #[arg(long, default_value = "")]
    pub(crate) description: String,
    /// What this agent is called in it
    #[arg(long = "as", value_name = "NAME", default_value = "")]
    pub(crate) display_name: String,
    /// `private_secure`, `public_request_secure`, `public_open` or `public_announce`
    #[arg(long)]
    pub(crate) preset: Option<String>,
}

/// How the rules of a group change.
#[derive(Args, Debug)]
pub(crate) struct GroupPolicyArguments {
    /// The group's id
    pub(crate) group: String,
    /// All rules at once; the others go over it
    #[arg(long)]
    pub(crate) preset: Option<String>,
    /// `hidden`, `listed_to_contacts` or `public_directory`
    #[arg(long)]
    pub(crate) discoverability: Option<String>,
    /// `invite_only`, `request_access` or `open_join`
    #[arg(long)]
    pub(crate) admission: Option<String>,
    /// `mls_encrypted` or `signed_public`
    #[arg(long)]
    pub(crate) confidentiality: Option<String>,
    /// `members_only` or `public`
    #[arg(long)]
    pub(crate) read_access: Option<String>,
    /// `members_only`, `moderated_public` or `admin_only`
    #[arg(long)]
    pub(crate) write_access: Option<String>,
    /// The last role that may invite: `owner`, `admin`, `moderator` or `member`
    #[arg(long)]
    pub(crate) invite_role: Option<String>,
    /// Whether members hand to new ones what is written from now on
    #[arg(long, value_name = "BOOL")]
    pub(crate) shares_history: Option<bool>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum GroupsCommand {
    List,
    Create(CreateGroupArguments),
    /// Joins by an invite
    Join {
        /// The invite's link
        invite: String,
        /// What this agent is called in it
        #[arg(long = "as", value_name = "NAME", default_value = "")]
        display_name: String,
    },
    #[command(alias = "info")]
    Show {
        /// The group's id
        group: String,
    },
    #[command(alias = "update")]
    Edit {
        /// The group's id
        group: String,
        /// Its name from now on
        #[arg(long = "title", value_name = "NAME")]
        title: Option<String>,
        /// What it is about
        #[arg(long)]
        description: Option<String>,
        /// A word by which it is found; may be given again
        #[arg(long = "tag")]
        tags: Vec<String>,
    },
    Leave {
        /// The group's id
        group: String,
    },
    Members {
        /// The group's id
        group: String,
    },
    #[command(alias = "add-member")]
    Add {
        /// The group's id
        group: String,
        /// Whom
        agent: String,
        /// What it is called in the group
        #[arg(long = "as", value_name = "NAME", default_value = "")]
        display_name: String,
    },
    #[command(alias = "remove-member")]
    Remove {
        /// The group's id
        group: String,
        /// Whom
        agent: String,
    },
    #[command(alias = "set-role")]
    Role {
        /// The group's id
        group: String,
        /// Whose
        agent: String,
        /// `owner`, `admin`, `moderator`, `member` or `guest`
        role: String,
    },
    Ban {
        /// The group's id
        group: String,
        /// Whom
        agent: String,
    },
    Unban {
        /// The group's id
        group: String,
        /// Whose
        agent: String,
    },
    Policy(GroupPolicyArguments),
    #[command(alias = "set-name")]
    Name {
        /// The group's id
        group: String,
        /// What this agent is called in it
        #[arg(value_name = "NAME")]
        display_name: String,
    },
    Invite {
        /// The group's id
        group: String,
        /// It ends after so many seconds; 0 for never
        #[arg(long, value_name = "SECONDS")]
        expires: Option<u64>,
        /// How often it may be used
        #[arg(long)]
        uses: Option<u32>,
    },
    Revoke {
        /// The group's id
        group: String,
        /// The invite's id
        invite: String,
    },
    Requests {
        /// The group's id
        group: String,
    },
    #[command(alias = "request-access")]
    Ask {
        /// The group's id
        group: String,
        /// The member to ask; without one, who made the group's card
        member: Option<String>,
        /// What to say to it
        #[arg(long, default_value = "")]
        message: String,
    },
    #[command(alias = "approve-request")]
    Approve {
        /// The group's id
        group: String,
        /// The request's id
        request: String,
    },
    #[command(alias = "cancel-request")]
    Cancel {
        /// The group's id
        group: String,
        /// The request's id
        request: String,
    },
    #[command(alias = "reject-request")]
    Reject {
        /// The group's id
        group: String,
        /// The request's id
        request: String,
    },
    Send {
        /// The group's id
        group: String,
        /// What to write
        text: String,
        /// In which room
        #[arg(long, default_value = "")]
        room: String,
        /// `chat` or `announcement`, in a group that is not encrypted
        #[arg(long)]
        kind: Option<String>,
    },
    Messages {
        /// The group's id
        group: String,
    },
    State {
        /// The group's id
        group: String,
    },
    #[command(alias = "state-seal")]
    Seal {
        /// The group's id
        group: String,
    },
    #[command(alias = "state-withdraw")]
    Withdraw {
        /// The group's id
        group: String,
    },
    Enter {
        /// The group's id
        group: String,
        /// The member to ask; without one, who made the group's card
        member: Option<String>,
        /// What this agent is called in it
        #[arg(long = "as", value_name = "NAME", default_value = "")]
        display_name: String,
    },
    Room {
        /// The group's id
        group: String,
        /// The room's name
        room: String,
        /// What it is about
        #[arg(long, default_value = "")]
        topic: String,
        /// Nobody may write there
        #[arg(long)]
        closed: bool,
    },
    Hide {
        /// The group's id
        group: String,
        /// The message's id
        message: String,
    },
    #[command(flatten)]
    Cards(CardsCommand),
    /// What happens in groups from now on
    Watch {
        #[command(flatten)]
        limit: Limit,
    },
}
