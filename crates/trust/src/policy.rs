//! What each layer may do with whom: the one table of effects, and the trait through which layers ask.

use std::fmt;

use x0x_core::{AgentId, MachineId};

/// Something that a layer is about to do for or with an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Hand a gossip message of the agent to a local subscriber. Relaying is not asked about: data
    /// of others flows through whoever can carry it.
    GossipDeliver,
    /// Hand a direct message of the agent to the application.
    DirectReceive,
    /// Send the agent a direct message.
    DirectSend,
    /// Show a file that the agent offers.
    FileOffer,
    /// Show an invitation into a group by the agent.
    GroupInvite,
    /// Send the agent what is meant for contacts only, such as the cards of listed groups.
    ContactShare,
    /// Answer the agent's question about who is online. What a session shows by itself, and what
    /// neighbours need to know of each other, is no answer.
    PresenceQuery,
    /// Show that the agent is online.
    PresenceVisible,
    /// Run a command for the agent. The list of allowed commands is asked as well.
    Exec,
    /// Believe where the agent says it is.
    AnnounceAccept,
    /// Count the agent as proven in a session.
    SessionAccept,
}

impl Action {
    /// Every action, in the order of the table.
    pub const ALL: [Self; 11] = [
        Self::GossipDeliver,
        Self::DirectReceive,
        Self::DirectSend,
        Self::FileOffer,
        Self::GroupInvite,
        Self::ContactShare,
        Self::PresenceQuery,
        Self::PresenceVisible,
        Self::Exec,
        Self::AnnounceAccept,
        Self::SessionAccept,
    ];
}

/// What a decision rests on: how the agent stands here, the strongest reason first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Its key, its machine's or its user's has been revoked.
    Revoked,
    /// Blocked here.
    Blocked,
    /// Pinned to other machines than the one it comes from.
    WrongMachine,
    /// It has moved to another machine than the one it comes from.
    Superseded,
    /// Nobody has said anything about it.
    Unknown,
    /// A contact.
    Known,
    /// A trusted contact.
    Trusted,
    /// A contact that comes from a machine that it is pinned to.
    Pinned,
}

impl Reason {
    /// Every reason, in the order of the table.
    pub const ALL: [Self; 8] = [
        Self::Revoked,
        Self::Blocked,
        Self::WrongMachine,
        Self::Superseded,
        Self::Unknown,
        Self::Known,
        Self::Trusted,
        Self::Pinned,
    ];
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Revoked => "revoked",
            Self::Blocked => "blocked",
            Self::WrongMachine => "wrong_machine",
            Self::Superseded => "superseded",
            Self::Unknown => "unknown",
            Self::Known => "known",
            Self::Trusted => "trusted",
            Self::Pinned => "pinned",
        })
    }
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// Do it.
    Allow,
    /// Do not, and say so to whoever asked: the local user, or a peer that learns nothing by it.
    Deny,
    /// Do not, and let the peer see no difference in answer or time to an agent that nobody knows.
    Silent,
}

/// An answer of the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Decision {
    /// What to do.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
}

impl Decision {
    /// The decision of the table.
    #[must_use]
    pub const fn of(reason: Reason, action: Action) -> Self {
        Self { verdict: EFFECTS[action as usize].1[reason as usize], reason }
    }

    /// Whether to go on.
    #[must_use]
    pub const fn allowed(self) -> bool {
        matches!(self.verdict, Verdict::Allow)
    }
}

const A: Verdict = Verdict::Allow;
const D: Verdict = Verdict::Deny;
const S: Verdict = Verdict::Silent;

/// The effects of trust: for each action, what happens for each reason.
///
/// Gossip comes without a machine, so the two reasons that are about machines do not arise for it; a
/// forged author is refused by signature before anybody asks here. A blocked agent keeps its session,
/// over which it may relay for others: only what it says itself is dropped. A revoked or superseded
/// one is not counted as proven, so that nothing is ever sent to whoever holds the key now.
#[rustfmt::skip]
pub const EFFECTS: [(Action, [Verdict; 8]); 11] = [
    //                        revoked blocked wrong  supers. unknown known trusted pinned
    (Action::GossipDeliver,   [S,     S,      S,     S,      A,      A,    A,      A]),
    (Action::DirectReceive,   [S,     S,      S,     S,      A,      A,    A,      A]),
    (Action::DirectSend,      [D,     D,      D,     D,      A,      A,    A,      A]),
    (Action::FileOffer,       [S,     S,      S,     S,      A,      A,    A,      A]),
    (Action::GroupInvite,     [S,     S,      S,     S,      A,      A,    A,      A]),
    (Action::ContactShare,    [D,     D,      D,     D,      D,      A,    A,      A]),
    (Action::PresenceQuery,   [S,     S,      S,     S,      S,      A,    A,      A]),
    (Action::PresenceVisible, [D,     D,      D,     D,      A,      A,    A,      A]),
    (Action::Exec,            [S,     S,      S,     S,      D,      D,    A,      A]),
    (Action::AnnounceAccept,  [S,     S,      S,     S,      A,      A,    A,      A]),
    (Action::SessionAccept,   [S,     A,      A,     S,      A,      A,    A,      A]),
];

/// Whom a layer asks before it acts.
pub trait Policy: Send + Sync + fmt::Debug + 'static {
    /// Decides about an agent; `machine` is where it comes from or is to be reached, if that is proven.
    /// Quick (under a microsecond), never waits.
    fn decide(&self, agent: &AgentId, machine: Option<&MachineId>, action: Action) -> Decision;
}
