//! What an operation does, and its form on the wire.

use bytes::Bytes;
use x0x_core::{AgentId, DecodeError, WallTime, fixed_bytes};
use x0x_mls::GroupId as MlsId;

use super::{
    OpId,
    body::{
        ActionWire, AdmitWire, AgentWire, EmptyWire, FoundWire, InviteWire, NamedWire, PolicyWire,
        ProfileWire, RoomWire, SetPolicyWire, TextWire,
    },
    is_text,
    statement::{Claim, Statement, StatementIn},
};
use crate::{
    limits::{
        MAX_DESCRIPTION, MAX_DISPLAY_NAME, MAX_NAME, MAX_TAG, MAX_TAGS, MAX_TEXT, MAX_URL, MAX_USES,
    },
    policy::{
        Admission, Confidentiality, Discoverability, GroupPolicy, ReadAccess, Role, WriteAccess,
    },
};

/// How a group shows itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub description: String,
    /// Words by which it is found.
    pub tags: Vec<String>,
    /// A picture; empty for none.
    pub avatar_url: String,
    /// A wide picture; empty for none.
    pub banner_url: String,
}

/// A room: a place of a group's talk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Its name, by which it is known.
    pub name: String,
    /// What it is about.
    pub topic: String,
    /// Whether it is closed.
    pub closed: bool,
}

/// Why somebody is admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Basis {
    /// Somebody who may adds it.
    Added,
    /// It redeemed an invite.
    Invite(Box<Statement>),
    /// Its request is approved.
    Request([u8; 32]),
}

/// What an operation does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Begins a group.
    Found {
        /// Makes the group's id its own.
        nonce: [u8; 32],
        /// The first policy.
        policy: GroupPolicy,
        /// The first profile.
        profile: Profile,
        /// The group's keys, if it is encrypted.
        mls_group: Option<MlsId>,
        /// The founder's name here.
        display_name: String,
    },
    /// Sets the policy.
    SetPolicy {
        /// The policy.
        policy: GroupPolicy,
        /// The group's keys from now on, if it is encrypted.
        mls_group: Option<MlsId>,
    },
    /// Sets the profile.
    SetProfile(Profile),
    /// Gives an agent a role.
    SetRole {
        /// Whom.
        agent: AgentId,
        /// Which.
        role: Role,
    },
    /// Admits an agent.
    Admit {
        /// Whom.
        agent: AgentId,
        /// As what: a member or a guest.
        role: Role,
        /// Why.
        basis: Basis,
        /// Its name here; may be empty.
        display_name: String,
    },
    /// Removes an agent.
    Remove {
        /// Whom.
        agent: AgentId,
    },
    /// Removes an agent and keeps it out.
    Ban {
        /// Whom.
        agent: AgentId,
        /// Why; may be empty.
        reason: String,
    },
    /// Ends a ban.
    Unban {
        /// Whose.
        agent: AgentId,
        /// What it is again, if anything.
        role: Option<Role>,
    },
    /// The author leaves.
    Leave,
    /// Makes an invite.
    CreateInvite {
        /// The id of its key.
        invite: AgentId,
        /// When it ends; none for never.
        expires: Option<WallTime>,
        /// How often it may be used.
        uses: u32,
        /// What those who use it become: a member or a guest.
        role: Role,
    },
    /// Ends an invite.
    RevokeInvite {
        /// Which.
        invite: AgentId,
    },
    /// Brings a request to join before the group.
    Request(Box<Statement>),
    /// Rejects a request.
    Reject {
        /// Which.
        request: [u8; 32],
    },
    /// Brings it before the group that a request is taken back.
    Cancel(Box<Statement>),
    /// Sets the author's name here.
    SetDisplayName(String),
    /// Ends the group.
    Withdraw,
    /// Opens, changes or closes a room.
    SetRoom(Room),
    /// The author joins by itself.
    Join {
        /// Its name here; may be empty.
        display_name: String,
    },
    /// Hides a public message.
    Hide {
        /// Which.
        message: [u8; 32],
    },
}

fn bad(field: &'static str) -> DecodeError {
    DecodeError::Field(field)
}

fn agent(bytes: &[u8]) -> Result<AgentId, DecodeError> {
    fixed_bytes(bytes, "agent").map(AgentId::new)
}

fn text(text: String, max: usize, name: &'static str) -> Result<String, DecodeError> {
    if is_text(&text, max) { Ok(text) } else { Err(bad(name)) }
}

fn joining(code: u32) -> Result<Role, DecodeError> {
    let role = Role::from_code(code).filter(|role| *role >= Role::Member);
    role.ok_or(bad("role"))
}

fn mls_group(bytes: &[u8], policy: &GroupPolicy) -> Result<Option<MlsId>, DecodeError> {
    match (bytes.is_empty(), policy.is_encrypted()) {
        (true, false) => Ok(None),
        (false, true) => fixed_bytes(bytes, "mls_group").map(|id| Some(MlsId(id))),
        _ => Err(bad("mls_group")),
    }
}

pub(super) fn policy_in(wire: Option<PolicyWire>) -> Result<GroupPolicy, DecodeError> {
    let wire = wire.ok_or(bad("policy"))?;
    let policy = GroupPolicy {
        discoverability: Discoverability::from_code(wire.discoverability)
            .ok_or(bad("discoverability"))?,
        admission: Admission::from_code(wire.admission).ok_or(bad("admission"))?,
        confidentiality: Confidentiality::from_code(wire.confidentiality)
            .ok_or(bad("confidentiality"))?,
        read_access: ReadAccess::from_code(wire.read_access).ok_or(bad("read_access"))?,
        write_access: WriteAccess::from_code(wire.write_access).ok_or(bad("write_access"))?,
        invite_role: Role::from_code(wire.invite_role).ok_or(bad("invite_role"))?,
        shares_history: wire.shares_history,
    };
    if policy.is_consistent() { Ok(policy) } else { Err(bad("policy")) }
}

pub(super) fn policy_out(policy: &GroupPolicy) -> PolicyWire {
    PolicyWire {
        discoverability: policy.discoverability.code(),
        admission: policy.admission.code(),
        confidentiality: policy.confidentiality.code(),
        read_access: policy.read_access.code(),
        write_access: policy.write_access.code(),
        invite_role: policy.invite_role.code(),
        shares_history: policy.shares_history,
    }
}

impl Profile {
    /// Whether all of it may be shown.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        !self.name.is_empty()
            && is_text(&self.name, MAX_NAME)
            && is_text(&self.description.replace('\n', " "), MAX_DESCRIPTION)
            && self.tags.len() <= MAX_TAGS
            && self.tags.iter().all(|tag| !tag.is_empty() && is_text(tag, MAX_TAG))
            && is_text(&self.avatar_url, MAX_URL)
            && is_text(&self.banner_url, MAX_URL)
    }

    pub(super) fn from_wire(wire: Option<ProfileWire>) -> Result<Self, DecodeError> {
        let ProfileWire { name, description, tags, avatar_url, banner_url } =
            wire.ok_or(bad("profile"))?;
        let profile = Self { name, description, tags, avatar_url, banner_url };
        if profile.is_valid() { Ok(profile) } else { Err(bad("profile")) }
    }

    pub(super) fn to_wire(&self) -> ProfileWire {
        let Self { name, description, tags, avatar_url, banner_url } = self.clone();
        ProfileWire { name, description, tags, avatar_url, banner_url }
    }
}

fn admit(wire: AdmitWire) -> Result<Action, DecodeError> {
    let agent = agent(&wire.agent)?;
    let basis = match (wire.redemption.is_empty(), wire.request.is_empty()) {
        (true, true) => Basis::Added,
        (false, true) => {
            // What is inside is verified with the operation's own signature: see `Operation`.
            let statement = StatementIn::decode(&wire.redemption)?.unverified();
            let redeems = matches!(statement.claim, Claim::Redeem { .. });
            if !redeems || statement.agent != agent {
                return Err(bad("redemption"));
            }
            Basis::Invite(Box::new(statement))
        }
        (true, false) => Basis::Request(fixed_bytes(&wire.request, "request")?),
        (false, false) => return Err(bad("basis")),
    };
    let display_name = text(wire.display_name, MAX_DISPLAY_NAME, "display_name")?;
    Ok(Action::Admit { agent, role: joining(wire.role)?, basis, display_name })
}

fn invite(wire: &InviteWire) -> Result<Action, DecodeError> {
    if wire.uses == 0 || wire.uses > MAX_USES {
        return Err(bad("uses"));
    }
    Ok(Action::CreateInvite {
        invite: agent(&wire.invite)?,
        expires: (wire.expires_ms != 0).then(|| WallTime::from_millis(wire.expires_ms)),
        uses: wire.uses,
        role: joining(wire.role)?,
    })
}

fn statement(wire: &NamedWire, request: bool) -> Result<Box<Statement>, DecodeError> {
    let statement = StatementIn::decode(&wire.bytes)?.unverified();
    let fits = match statement.claim {
        Claim::Request { .. } => request,
        Claim::Cancel { .. } => !request,
        Claim::Redeem { .. } => false,
    };
    if fits { Ok(Box::new(statement)) } else { Err(bad("statement")) }
}

impl Action {
    pub(super) fn from_wire(wire: ActionWire) -> Result<Self, DecodeError> {
        Ok(match wire {
            ActionWire::Found(found) => {
                let policy = policy_in(found.policy)?;
                Self::Found {
                    nonce: fixed_bytes(&found.nonce, "nonce")?,
                    mls_group: mls_group(&found.mls_group, &policy)?,
                    policy,
                    profile: Profile::from_wire(found.profile)?,
                    display_name: text(found.display_name, MAX_DISPLAY_NAME, "display_name")?,
                }
            }
            ActionWire::SetPolicy(set) => {
                let policy = policy_in(set.policy)?;
                Self::SetPolicy { mls_group: mls_group(&set.mls_group, &policy)?, policy }
            }
            ActionWire::SetProfile(profile) => Self::SetProfile(Profile::from_wire(Some(profile))?),
            ActionWire::SetRole(set) => {
                let role = Role::from_code(set.role).filter(|role| *role != Role::Owner);
                Self::SetRole { agent: agent(&set.agent)?, role: role.ok_or(bad("role"))? }
            }
            ActionWire::Admit(wire) => admit(wire)?,
            ActionWire::Remove(of) => Self::Remove { agent: agent(&of.agent)? },
            ActionWire::Ban(of) => {
                let reason = text(of.reason, MAX_TEXT, "reason")?;
                Self::Ban { agent: agent(&of.agent)?, reason }
            }
            ActionWire::Unban(of) => {
                let role = if of.role == 0 { None } else { Some(joining(of.role)?) };
                Self::Unban { agent: agent(&of.agent)?, role }
            }
            ActionWire::Leave(_) => Self::Leave,
            ActionWire::CreateInvite(wire) => invite(&wire)?,
            ActionWire::RevokeInvite(of) => Self::RevokeInvite { invite: agent(&of.bytes)? },
            ActionWire::Request(of) => Self::Request(statement(&of, true)?),
            ActionWire::Reject(of) => Self::Reject { request: fixed_bytes(&of.bytes, "request")? },
            ActionWire::Cancel(of) => Self::Cancel(statement(&of, false)?),
            ActionWire::SetDisplayName(name) => {
                Self::SetDisplayName(text(name.text, MAX_DISPLAY_NAME, "display_name")?)
            }
            ActionWire::Withdraw(_) => Self::Withdraw,
            ActionWire::SetRoom(RoomWire { room, topic, closed }) => {
                let name = text(room, MAX_NAME, "room")?;
                if name.is_empty() {
                    return Err(bad("room"));
                }
                Self::SetRoom(Room { name, topic: text(topic, MAX_TEXT, "topic")?, closed })
            }
            ActionWire::Join(name) => {
                let display_name = text(name.text, MAX_DISPLAY_NAME, "display_name")?;
                Self::Join { display_name }
            }
            ActionWire::Hide(of) => Self::Hide { message: fixed_bytes(&of.bytes, "message")? },
        })
    }

    pub(super) fn to_wire(&self) -> ActionWire {
        let id = |agent: &AgentId| Bytes::copy_from_slice(agent.as_bytes());
        let of = |agent: &AgentId, role: u32, reason: &str| AgentWire {
            agent: id(agent),
            role,
            reason: reason.to_owned(),
        };
        let named = |bytes: &[u8]| NamedWire { bytes: Bytes::copy_from_slice(bytes) };
        let mls = |group: &Option<MlsId>| {
            group.map(|id| Bytes::copy_from_slice(&id.0)).unwrap_or_default()
        };
        let text = |text: &str| TextWire { text: text.to_owned() };
        match self {
            Self::Found { nonce, policy, profile, mls_group, display_name } => {
                ActionWire::Found(FoundWire {
                    nonce: Bytes::copy_from_slice(nonce),
                    policy: Some(policy_out(policy)),
                    profile: Some(profile.to_wire()),
                    mls_group: mls(mls_group),
                    display_name: display_name.clone(),
                })
            }
            Self::SetPolicy { policy, mls_group } => {
                let policy = Some(policy_out(policy));
                ActionWire::SetPolicy(SetPolicyWire { policy, mls_group: mls(mls_group) })
            }
            Self::SetProfile(profile) => ActionWire::SetProfile(profile.to_wire()),
            Self::SetRole { agent, role } => ActionWire::SetRole(of(agent, role.code(), "")),
            Self::Admit { .. } => ActionWire::Admit(self.admit_wire()),
            Self::Remove { agent } => ActionWire::Remove(of(agent, 0, "")),
            Self::Ban { agent, reason } => ActionWire::Ban(of(agent, 0, reason)),
            Self::Unban { agent, role } => {
                ActionWire::Unban(of(agent, role.map_or(0, Role::code), ""))
            }
            Self::Leave => ActionWire::Leave(EmptyWire {}),
            Self::CreateInvite { invite, expires, uses, role } => {
                ActionWire::CreateInvite(InviteWire {
                    invite: id(invite),
                    expires_ms: expires.map_or(0, WallTime::as_millis),
                    uses: *uses,
                    role: role.code(),
                })
            }
            Self::RevokeInvite { invite } => ActionWire::RevokeInvite(named(invite.as_bytes())),
            Self::Request(statement) => ActionWire::Request(named(statement.encoded())),
            Self::Reject { request } => ActionWire::Reject(named(request)),
            Self::Cancel(statement) => ActionWire::Cancel(named(statement.encoded())),
            Self::SetDisplayName(name) => ActionWire::SetDisplayName(text(name)),
            Self::Withdraw => ActionWire::Withdraw(EmptyWire {}),
            Self::SetRoom(Room { name, topic, closed }) => ActionWire::SetRoom(RoomWire {
                room: name.clone(),
                topic: topic.clone(),
                closed: *closed,
            }),
            Self::Join { display_name } => ActionWire::Join(text(display_name)),
            Self::Hide { message } => ActionWire::Hide(named(message)),
        }
    }

    fn admit_wire(&self) -> AdmitWire {
        let Self::Admit { agent, role, basis, display_name } = self else {
            return AdmitWire::default();
        };
        let (mut redemption, mut request) = (Bytes::new(), Bytes::new());
        match basis {
            Basis::Added => {}
            Basis::Invite(statement) => redemption = statement.encoded().clone(),
            Basis::Request(id) => request = Bytes::copy_from_slice(id),
        }
        let agent = Bytes::copy_from_slice(agent.as_bytes());
        let display_name = display_name.clone();
        AdmitWire { agent, role: role.code(), redemption, request, display_name }
    }

    /// Statements of others inside.
    pub(super) fn statement(&self) -> Option<&Statement> {
        match self {
            Self::Request(statement)
            | Self::Cancel(statement)
            | Self::Admit { basis: Basis::Invite(statement), .. } => Some(statement),
            _ => None,
        }
    }
}

/// The ids of an operation's parents from the wire: sorted, none twice.
pub(super) fn parents(wire: &[Bytes], max: usize) -> Result<Vec<OpId>, DecodeError> {
    if wire.len() > max {
        return Err(bad("parents"));
    }
    let parents: Result<Vec<OpId>, _> =
        wire.iter().map(|id| fixed_bytes(id, "parents").map(OpId::new)).collect();
    let parents = parents?;
    if parents.windows(2).all(|pair| pair[0] < pair[1]) { Ok(parents) } else { Err(bad("parents")) }
}
