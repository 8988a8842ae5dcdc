//! What the layer above holds: the narrow trait, and what its calls return.

use bytes::Bytes;
use x0x_core::{AgentId, WallTime};
use zeroize::Zeroizing;

use crate::{
    error::GroupError,
    journal::Pending,
    leaf::VerifiedKeyPackage,
    ordering::{Standing, StateId},
    suite::Suite,
    wire::GroupId,
};

/// Something to be published in the group's log, committed to the store before it was returned.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outgoing {
    /// To be acknowledged once the bytes are safe elsewhere.
    pub id: u64,
    /// The frame.
    pub frame: Bytes,
}

/// A commit, with what the added members need.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed {
    /// The commit, for the group's log.
    pub commit: Outgoing,
    /// The welcome, for those who were added.
    pub welcome: Option<Bytes>,
    /// The ratchet tree that the welcome names by its hash, in a group too large for it to carry it.
    pub tree: Option<Bytes>,
}

/// What somebody outside needs to join by a commit of his own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Invitation {
    /// The group info.
    pub info: Bytes,
    /// The ratchet tree, in a group too large for the info to carry it.
    pub tree: Option<Bytes>,
}

/// What a member meant by a commit, to be done again when the commit lost.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Intent {
    /// Agents it added. Their key packages are used up: the welcome leads to a state that fell.
    pub added: Vec<AgentId>,
    /// Agents it removed.
    pub removed: Vec<AgentId>,
}

/// What a frame did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A message was decrypted. Acknowledge `id` once its text is safe.
    Message {
        /// In the journal.
        id: u64,
        /// Who wrote it, by its leaf's credential.
        author: AgentId,
        /// The epoch it was written in.
        epoch: u64,
        /// The data that was authenticated with it.
        aad: Bytes,
        /// The text.
        payload: Bytes,
    },
    /// A commit stands: the group is in another epoch.
    Epoch {
        /// The epoch now.
        epoch: u64,
        /// Who committed.
        by: AgentId,
        /// Who came.
        added: Vec<AgentId>,
        /// Who is gone.
        removed: Vec<AgentId>,
        /// Whether this member is gone.
        self_removed: bool,
    },
    /// Epochs fell because another commit of an earlier state stands: one that removes somebody, or
    /// has the smaller id.
    Reverted {
        /// The first epoch that fell.
        from_epoch: u64,
        /// What this member had meant by its own commits among them.
        intents: Vec<Intent>,
    },
    /// A member asks to be removed; any other may commit to it.
    LeaveRequested {
        /// Who.
        agent: AgentId,
    },
    /// The frame was made in a state that is not known here. Give it again after the next epoch.
    NotYet,
    /// A message of an epoch in which this member was, and of which it has no keys any more, or never had:
    /// then it was written on a side that fell, and its author says it again. It is not read here.
    Expired {
        /// The epoch it was written in.
        epoch: u64,
    },
    /// The frame is known, of this member itself, of a state that fell, or of an epoch before this member came.
    Nothing,
}

/// What a policy says of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It may stand.
    Allow,
    /// It never may.
    Refuse,
    /// What its stamp names is not known here yet: see [`MlsGroups::retry`].
    NotYet,
}

/// Who may do what in a group. Asked on every member for every commit with the same facts: an
/// implementation has to answer the same everywhere.
pub trait CommitPolicy: Send {
    /// Whether the commit is allowed.
    fn allows(&self, commit: &CommitFacts<'_>) -> bool;

    /// As [`allows`](Self::allows), for a policy that rests on what the commit's stamp names and that
    /// may come later than the commit.
    fn judge(&self, commit: &CommitFacts<'_>) -> Verdict {
        if self.allows(commit) { Verdict::Allow } else { Verdict::Refuse }
    }

    /// Where it comes among the commits that members make in the same state, by its author's role: the
    /// lower first. Commits that remove somebody come before the others in any case. Of two that remove
    /// each other's author, the lower stands. Without roles all are alike.
    fn seniority(&self, commit: &CommitFacts<'_>) -> u8 {
        let _ = commit;
        0
    }
}

/// What a commit would do.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct CommitFacts<'a> {
    /// The group.
    pub group: GroupId,
    /// The epoch it is made in.
    pub epoch: u64,
    /// Who commits.
    pub by: AgentId,
    /// Whether it joins by this commit; it may have been a member before.
    pub joins: bool,
    /// The members before.
    pub members: &'a [AgentId],
    /// Who comes.
    pub added: &'a [AgentId],
    /// Who goes.
    pub removed: &'a [AgentId],
    /// What its author said it rests on, signed with it: see [`MlsGroups::stamp`].
    pub stamp: &'a [u8],
}

/// Members do as they like; nobody else joins by a commit of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct MembersOnly;

impl CommitPolicy for MembersOnly {
    fn allows(&self, commit: &CommitFacts<'_>) -> bool {
        commit.members.contains(&commit.by)
    }
}

/// The groups that this agent is in. Every call commits what it did to the store before it returns
/// something to be sent.
pub trait MlsGroups {
    /// Makes `count` key packages that are used once, and one of last resort. Published by the caller.
    ///
    /// # Errors
    /// [`GroupError::Limit`] when too many are unused, [`GroupError::Store`].
    fn key_packages(
        &mut self,
        suite: Suite,
        count: usize,
        now: WallTime,
    ) -> Result<Vec<Bytes>, GroupError>;

    /// Makes a group of which this agent is the only member.
    ///
    /// # Errors
    /// [`GroupError::Limit`], [`GroupError::Store`].
    fn create(&mut self, suite: Suite) -> Result<GroupId, GroupError>;

    /// Joins by a welcome. `tree` when the welcome names one.
    ///
    /// # Errors
    /// [`GroupError::Refused`] when the welcome is not for this agent, used, or does not verify.
    fn join(&mut self, welcome: &[u8], tree: Option<&[u8]>) -> Result<GroupId, GroupError>;

    /// Joins by an own commit, or joins again after this member fell behind.
    ///
    /// # Errors
    /// [`GroupError::Refused`] when the info does not verify.
    fn join_external(
        &mut self,
        info: &[u8],
        tree: Option<&[u8]>,
    ) -> Result<(GroupId, Outgoing), GroupError> {
        self.join_external_stamped(info, tree, b"")
    }

    /// As [`join_external`](Self::join_external), with a stamp on the commit.
    ///
    /// # Errors
    /// As there.
    fn join_external_stamped(
        &mut self,
        info: &[u8],
        tree: Option<&[u8]>,
        stamp: &[u8],
    ) -> Result<(GroupId, Outgoing), GroupError>;

    /// Says what the commits that this member makes from now on rest on, for the others' policy. At most
    /// [`MAX_AAD`](crate::MAX_AAD) bytes; forgotten when the process ends.
    ///
    /// # Errors
    /// [`GroupError::Unknown`], [`GroupError::Limit`].
    fn stamp(&mut self, group: GroupId, stamp: &[u8]) -> Result<(), GroupError>;

    /// Tries the commits again of which the policy said [`Verdict::NotYet`].
    ///
    /// # Errors
    /// As [`process`](Self::process).
    fn retry(&mut self, group: GroupId) -> Result<Vec<Event>, GroupError>;

    /// What others need to join by an own commit.
    ///
    /// # Errors
    /// [`GroupError::NotMember`].
    fn invitation(&mut self, group: GroupId) -> Result<Invitation, GroupError>;

    /// Adds and removes members in one commit.
    ///
    /// # Errors
    /// [`GroupError::Membership`], [`GroupError::Limit`], [`GroupError::Store`].
    fn commit(
        &mut self,
        group: GroupId,
        add: Vec<VerifiedKeyPackage>,
        remove: &[AgentId],
    ) -> Result<Committed, GroupError>;

    /// Gives this member fresh keys by a commit without anything else.
    ///
    /// # Errors
    /// [`GroupError::NotMember`], [`GroupError::Store`].
    fn refresh(&mut self, group: GroupId) -> Result<Outgoing, GroupError>;

    /// Whether [`encrypt`](Self::encrypt) needs a [`refresh`](Self::refresh) before: after every start
    /// of the process, and after joining by a welcome.
    ///
    /// # Errors
    /// [`GroupError::Unknown`].
    fn must_refresh(&self, group: GroupId) -> Result<bool, GroupError>;

    /// Asks the others to be removed.
    ///
    /// # Errors
    /// [`GroupError::NotMember`], [`GroupError::Store`].
    fn leave(&mut self, group: GroupId) -> Result<Outgoing, GroupError>;

    /// Encrypts a message to the members of this epoch.
    ///
    /// # Errors
    /// [`GroupError::RefreshFirst`], [`GroupError::Limit`], [`GroupError::Store`].
    fn encrypt(
        &mut self,
        group: GroupId,
        aad: &[u8],
        payload: &[u8],
    ) -> Result<Outgoing, GroupError>;

    /// Takes a frame of a group's log, in any order and any number of times.
    ///
    /// # Errors
    /// [`GroupError::Refused`] when it does not verify: its author is at fault.
    fn process(&mut self, frame: &[u8]) -> Result<Vec<Event>, GroupError>;

    /// A secret that all members of this epoch can derive (RFC 9420 §8.5).
    ///
    /// # Errors
    /// [`GroupError::NotMember`].
    fn export(
        &mut self,
        group: GroupId,
        label: &str,
        context: &[u8],
        len: usize,
    ) -> Result<Zeroizing<Vec<u8>>, GroupError>;

    /// The members of this epoch and its number.
    ///
    /// # Errors
    /// [`GroupError::Unknown`].
    fn members(&mut self, group: GroupId) -> Result<(u64, Vec<AgentId>), GroupError>;

    /// The state of this epoch.
    ///
    /// # Errors
    /// [`GroupError::Unknown`].
    fn state(&self, group: GroupId) -> Result<StateId, GroupError>;

    /// Whether a state stands, as one of the last [`MAX_STATES`](crate::ordering::MAX_STATES).
    ///
    /// # Errors
    /// [`GroupError::Unknown`].
    fn stands(&self, group: GroupId, state: &StateId) -> Result<bool, GroupError>;

    /// How this member stands to the others, given that it has processed all that the log has.
    ///
    /// [`Standing::Behind`] is a suspicion: the headers of commits whose state is unknown here are not
    /// verified, and whoever can write in the log can cause it. Until
    /// [`join_external`](Self::join_external) the group works on as it is. Ask a member that is
    /// trusted for an [`invitation`](Self::invitation), join only if its epoch is later or its members
    /// are others than [`members`](Self::members) here, and seldom, since each costs all members a commit.
    ///
    /// # Errors
    /// [`GroupError::Unknown`].
    fn standing(&self, group: GroupId) -> Result<Standing, GroupError>;

    /// The groups that are here.
    fn ids(&self) -> Vec<GroupId>;

    /// Deletes all that is kept of a group, its keys first: nothing of it can be read here any more.
    ///
    /// # Errors
    /// [`GroupError::Unknown`], [`GroupError::Store`].
    fn forget(&mut self, group: GroupId) -> Result<(), GroupError>;

    /// What the layer above has not acknowledged, oldest first: to be published or stored again.
    fn pending(&self) -> Vec<(u64, Pending)>;

    /// The layer above has these safe.
    ///
    /// # Errors
    /// [`GroupError::Store`]; nothing is forgotten then.
    fn acknowledge(&mut self, ids: &[u64]) -> Result<(), GroupError>;
}
