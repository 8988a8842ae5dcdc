//! What a group is, as it follows from its operations.

use std::collections::{BTreeMap, BTreeSet};

use x0x_core::{AgentId, WallTime};
use x0x_mls::GroupId as MlsId;

use super::resolve::{Resolver, Status};
use crate::{
    policy::{GroupPolicy, Role},
    wire::{Action, Basis, Claim, GroupId, Operation, Profile, Room, Statement, hash},
};

/// Whether an agent is in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberState {
    /// It is.
    Active(Role),
    /// It was.
    Removed,
    /// It must not be.
    Banned,
}

/// An agent that is or was in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// Whether it is in it.
    pub state: MemberState,
    /// Its name here; may be empty.
    pub display_name: String,
    /// When it came to be what it is.
    pub since: WallTime,
    /// Who made it that.
    pub by: AgentId,
}

/// An invite.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Invite {
    /// Who made it.
    pub by: AgentId,
    /// When it ends; none for never.
    pub expires: Option<WallTime>,
    /// How often it may be used.
    pub uses: u32,
    /// How often it was.
    pub used: u32,
    /// What it makes of who uses it.
    pub role: Role,
    /// Whether it was ended.
    pub revoked: bool,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestState {
    /// Nobody decided.
    Pending,
    /// Approved.
    Approved,
    /// Rejected.
    Rejected,
    /// Taken back.
    Cancelled,
}

/// A request to be admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// Who asks.
    pub agent: AgentId,
    /// What it says to it.
    pub message: String,
    /// When it asked.
    pub at: WallTime,
    /// What became of it.
    pub state: RequestState,
    /// Who decided, and when.
    pub reviewed: Option<(AgentId, WallTime)>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct View {
    /// Its id.
    pub group: Option<GroupId>,
    /// Who founded it, when, and with what nonce.
    pub founded: Option<(AgentId, WallTime, [u8; 32])>,
    /// Operations that stand.
    pub revision: u64,
    /// Of them, such as set the policy, and such as change who is in it.
    pub policy_revision: u64,
    /// See `policy_revision`.
    pub roster_revision: u64,
    /// Operations that do not stand.
    pub fallen: u64,
    /// When the last that stands was made.
    pub updated: WallTime,
    /// Its policy.
    pub policy: Option<GroupPolicy>,
    /// Its keys, if it is encrypted.
    pub mls_group: Option<MlsId>,
    /// How it shows itself.
    pub profile: Profile,
    /// Who is or was in it.
    pub members: BTreeMap<AgentId, Member>,
    /// Its invites, by the ids of their keys.
    pub invites: BTreeMap<AgentId, Invite>,
    /// Requests to be admitted, by their ids.
    pub requests: BTreeMap<[u8; 32], Request>,
    /// Its rooms.
    pub rooms: BTreeMap<String, Room>,
    /// Public messages that are hidden.
    pub hidden: BTreeSet<[u8; 32]>,
    /// Whether it has ended.
    pub withdrawn: bool,
}

impl View {
    /// The role of an agent that is in it.
    #[must_use]
    pub fn role(&self, agent: &AgentId) -> Option<Role> {
        match self.members.get(agent)?.state {
            MemberState::Active(role) => Some(role),
            _ => None,
        }
    }

    /// Whether an agent must not be in it.
    #[must_use]
    pub fn is_banned(&self, agent: &AgentId) -> bool {
        self.members.get(agent).is_some_and(|member| member.state == MemberState::Banned)
    }

    /// Who is in it.
    pub fn active(&self) -> impl Iterator<Item = (AgentId, Role)> + '_ {
        self.members.iter().filter_map(|(agent, member)| match member.state {
            MemberState::Active(role) => Some((*agent, role)),
            _ => None,
        })
    }

    /// A hash of who is or must not be in it, and as what.
    #[must_use]
    pub fn roster_root(&self) -> [u8; 32] {
        let mut bytes = Vec::new();
        for (agent, member) in &self.members {
            let code = match member.state {
                MemberState::Active(role) => role.code(),
                MemberState::Banned => 100,
                MemberState::Removed => continue,
            };
            bytes.extend_from_slice(agent.as_bytes());
            bytes.extend_from_slice(&code.to_be_bytes());
        }
        hash("x0x.groups.roster.1", &[&bytes])
    }

    /// A hash of the policy.
    #[must_use]
    pub fn policy_hash(&self) -> [u8; 32] {
        let codes = self.policy.map(|policy| {
            [
                policy.discoverability.code(),
                policy.admission.code(),
                policy.confidentiality.code(),
                policy.read_access.code(),
                policy.write_access.code(),
                policy.invite_role.code(),
                u32::from(policy.shares_history),
            ]
        });
        let bytes: Vec<u8> = codes.into_iter().flatten().flat_map(u32::to_be_bytes).collect();
        let keys = self.mls_group.map(|id| id.0).unwrap_or_default();
        hash("x0x.groups.policy.1", &[&bytes, &keys])
    }

    /// A hash of how it shows itself.
    #[must_use]
    pub fn profile_hash(&self) -> [u8; 32] {
        let Profile { name, description, tags, avatar_url, banner_url } = &self.profile;
        let mut bytes = Vec::new();
        for text in [name, description, avatar_url, banner_url].into_iter().chain(tags) {
            bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        hash("x0x.groups.profile.1", &[&bytes])
    }

    /// A hash of all that members have to agree on.
    #[must_use]
    pub fn state_hash(&self) -> [u8; 32] {
        let group = self.group.map(|group| *group.as_bytes()).unwrap_or_default();
        let mut rest = Vec::new();
        for (id, invite) in &self.invites {
            rest.extend_from_slice(id.as_bytes());
            rest.extend_from_slice(&invite.used.to_be_bytes());
            rest.push(u8::from(invite.revoked));
        }
        for (id, request) in &self.requests {
            rest.extend_from_slice(id);
            rest.push(request.state as u8);
        }
        for room in self.rooms.values() {
            rest.extend_from_slice(&hash("x0x.groups.room.1", &[room.name.as_bytes()]));
            rest.extend_from_slice(&hash("x0x.groups.room.1", &[room.topic.as_bytes()]));
            rest.push(u8::from(room.closed));
        }
        self.hidden.iter().for_each(|id| rest.extend_from_slice(id));
        let rest = hash("x0x.groups.rest.1", &[&rest]);
        let flags = [u8::from(self.withdrawn)];
        let parts: [&[u8]; 7] = [
            &group,
            &self.revision.to_be_bytes(),
            &self.roster_root(),
            &self.policy_hash(),
            &self.profile_hash(),
            &rest,
            &flags,
        ];
        hash("x0x.groups.state.1", &parts)
    }
}

impl Resolver<'_> {
    pub(super) fn into_view(mut self, group: GroupId, all: usize) -> View {
        let mut accepted = std::mem::take(&mut self.accepted);
        accepted.sort_unstable_by_key(|place| {
            let operation = self.operation(*place);
            (operation.body.height, operation.id)
        });
        let mut view = View {
            group: Some(group),
            revision: accepted.len() as u64,
            fallen: (all - accepted.len()) as u64,
            ..View::default()
        };
        let mut names: BTreeMap<AgentId, String> = BTreeMap::new();
        for place in &accepted {
            let operation = self.operation(*place);
            view.updated = view.updated.max(operation.body.at);
            view.write(operation, &mut names);
        }
        self.roster(&mut view, &names);
        for (invite, made) in &mut view.invites {
            let used = self.used.get(invite).map_or(0, BTreeSet::len);
            made.used = u32::try_from(used).unwrap_or(u32::MAX);
            made.revoked = self.revoked.contains_key(invite);
        }
        self.close_requests(&mut view);
        view
    }

    fn roster(&self, view: &mut View, names: &BTreeMap<AgentId, String>) {
        for agent in self.changes.keys() {
            let Some((status, place)) = self.standing(agent, None) else { continue };
            let state = match status {
                Status::Active(role) => MemberState::Active(role),
                Status::Removed => MemberState::Removed,
                Status::Banned => MemberState::Banned,
            };
            let body = &self.operation(place).body;
            let display_name = names.get(agent).cloned().unwrap_or_default();
            let member = Member { state, display_name, since: body.at, by: body.author };
            view.members.insert(*agent, member);
        }
        view.roster_revision = self.changes.values().map(|of| of.len() as u64).sum();
    }

    /// Of what closed a request, an approval comes first, then the smaller id.
    fn close_requests(&self, view: &mut View) {
        for (id, request) in &mut view.requests {
            let closing = self.closed.get(id).into_iter().flatten();
            let first = closing.map(|place| self.operation(*place)).min_by_key(|operation| {
                let state = closes(&operation.body.action);
                (state != RequestState::Approved, state as u8, operation.id)
            });
            if let Some(Operation { body, .. }) = first {
                request.state = closes(&body.action);
                request.reviewed = Some((body.author, body.at));
            }
        }
    }
}

fn closes(action: &Action) -> RequestState {
    match action {
        Action::Admit { .. } => RequestState::Approved,
        Action::Reject { .. } => RequestState::Rejected,
        _ => RequestState::Cancelled,
    }
}

fn asked(statement: &Statement) -> Request {
    let message = match &statement.claim {
        Claim::Request { message } => message.clone(),
        _ => String::new(),
    };
    let (agent, at) = (statement.agent, statement.at);
    Request { agent, message, at, state: RequestState::Pending, reviewed: None }
}

impl View {
    /// Writes what an operation says over what those before it said.
    fn write(&mut self, operation: &Operation, names: &mut BTreeMap<AgentId, String>) {
        let body = &operation.body;
        match &body.action {
            Action::Found { nonce, policy, profile, mls_group, display_name } => {
                self.founded = Some((body.author, body.at, *nonce));
                self.profile.clone_from(profile);
                names.insert(body.author, display_name.clone());
                (self.policy, self.mls_group) = (Some(*policy), *mls_group);
            }
            Action::SetPolicy { policy, mls_group } => {
                self.policy_revision += 1;
                (self.policy, self.mls_group) = (Some(*policy), *mls_group);
            }
            Action::SetProfile(profile) => self.profile.clone_from(profile),
            Action::Admit { agent, basis, display_name, .. } => {
                let said = match basis {
                    Basis::Invite(s) => match &s.claim {
                        Claim::Redeem { display_name, .. } => display_name,
                        _ => display_name,
                    },
                    _ => display_name,
                };
                names.insert(*agent, said.clone());
            }
            Action::Join { display_name } | Action::SetDisplayName(display_name) => {
                names.insert(body.author, display_name.clone());
            }
            Action::CreateInvite { invite, expires, uses, role } => {
                let (by, expires, uses, role) = (body.author, *expires, *uses, *role);
                let made = Invite { by, expires, uses, used: 0, role, revoked: false };
                self.invites.insert(*invite, made);
            }
            Action::Request(statement) => {
                self.requests.insert(statement.id(), asked(statement));
            }
            Action::SetRoom(room) => drop(self.rooms.insert(room.name.clone(), room.clone())),
            Action::Hide { message } => drop(self.hidden.insert(*message)),
            Action::Withdraw => self.withdrawn = true,
            _ => {}
        }
    }
}
