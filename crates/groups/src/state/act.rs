//! What this agent may do now, by what it knows; every member judges it again.

use x0x_core::{AgentId, WallTime};

use super::{Chain, MemberState, RequestState, View};
use crate::{
    error::ActError,
    limits::{
        MAX_DISPLAY_NAME, MAX_INVITES, MAX_NAME, MAX_REQUESTS, MAX_ROOMS, MAX_TEXT, MAX_USES,
    },
    policy::{Admission, Role},
    wire::{Action, Basis, Claim, OperationBody, Room, Statement, is_text},
};

/// What is told of an invite that lets nobody in any more.
pub(crate) const USED_UP: &str = "invite is used up";

/// What is said when a role does not suffice.
fn need(may: bool, what: &'static str) -> Result<(), ActError> {
    if may { Ok(()) } else { Err(ActError::Role(what)) }
}

fn text(text: &str, max: usize, what: &'static str) -> Result<(), ActError> {
    if is_text(text, max) { Ok(()) } else { Err(ActError::Text(what)) }
}

impl Chain {
    /// What an agent states when it does this now, to be signed and [offered](Self::offer).
    ///
    /// # Errors
    /// [`ActError`] when it would not stand.
    pub fn prepare(
        &self,
        author: AgentId,
        at: WallTime,
        action: Action,
    ) -> Result<OperationBody, ActError> {
        let view = self.view();
        if view.withdrawn {
            return Err(ActError::Withdrawn);
        }
        let role = view.role(&author);
        match (role, &action) {
            (None, Action::Join { display_name }) => view.check_join(&author, display_name)?,
            (Some(_), Action::Join { .. }) => return Err(ActError::Target("already a member")),
            (None, _) if view.is_banned(&author) => return Err(ActError::Role("banned")),
            (None, _) => return Err(ActError::Role("not a member")),
            (Some(role), action) => view.check(author, role, at, action)?,
        }
        let parents = self.parents();
        let height = self.height_after(&parents);
        let role = if matches!(action, Action::Join { .. }) { None } else { role };
        let group = Some(self.group());
        // Time does not run backwards along what is built upon.
        let at = at.max(self.view().updated.min(at + x0x_identity::MAX_CLOCK_SKEW));
        Ok(OperationBody { group, author, parents, height, at, role, action })
    }
}

impl View {
    fn check_join(&self, author: &AgentId, display_name: &str) -> Result<(), ActError> {
        if self.is_banned(author) {
            return Err(ActError::Role("banned"));
        }
        if self.policy.is_none_or(|policy| policy.admission != Admission::OpenJoin) {
            return Err(ActError::Policy("the group is not open to join"));
        }
        text(display_name, MAX_DISPLAY_NAME, "display name")
    }

    fn check(
        &self,
        author: AgentId,
        role: Role,
        at: WallTime,
        action: &Action,
    ) -> Result<(), ActError> {
        match action {
            Action::Found { .. } | Action::Join { .. } => Err(ActError::Target("already a member")),
            Action::SetPolicy { policy, .. } => {
                need(role == Role::Owner, "owner role required")?;
                let agree = policy.is_consistent();
                if agree { Ok(()) } else { Err(ActError::Policy("the axes do not agree")) }
            }
            Action::Withdraw => need(role == Role::Owner, "owner required to withdraw"),
            Action::SetProfile(profile) => {
                need(role <= Role::Admin, "admin role required")?;
                if profile.is_valid() { Ok(()) } else { Err(ActError::Text("profile")) }
            }
            Action::SetRole { agent, role: given } => self.check_role(author, role, agent, *given),
            Action::Remove { agent } => {
                let Some(now) = self.role(agent) else {
                    return Err(ActError::Target("member not found"));
                };
                need(role.may_remove(now), "only a higher role can remove this member")
            }
            Action::Ban { agent, reason } => {
                need(role <= Role::Admin, "admin role required")?;
                need(self.role(agent) != Some(Role::Owner), "cannot ban owner")?;
                need(self.role(agent).is_none_or(|now| now > role), "insufficient role")?;
                text(reason, MAX_TEXT, "reason")
            }
            Action::Unban { agent, .. } => {
                need(role <= Role::Admin, "admin role required")?;
                if self.is_banned(agent) {
                    Ok(())
                } else {
                    Err(ActError::Target("member is not banned"))
                }
            }
            Action::Leave => need(role != Role::Owner, "the owner withdraws the group"),
            Action::SetDisplayName(name) => text(name, MAX_DISPLAY_NAME, "display name"),
            Action::CreateInvite { .. } | Action::RevokeInvite { .. } => {
                self.check_invite(author, role, action)
            }
            Action::Admit { agent, basis, display_name, .. } => {
                text(display_name, MAX_DISPLAY_NAME, "display name")?;
                self.check_admit(role, at, agent, basis)
            }
            Action::Request(statement) => self.check_request(statement),
            Action::Reject { request } => {
                need(role <= Role::Admin, "admin role required")?;
                self.pending(request).map(|_| ())
            }
            Action::Cancel(statement) => {
                let Claim::Cancel { request } = statement.claim else {
                    return Err(ActError::Target("request not found"));
                };
                need(self.pending(&request)? == statement.agent, "not your request")
            }
            Action::SetRoom(room) => self.check_room(role, room),
            Action::Hide { .. } => need(role <= Role::Moderator, "moderator role required"),
        }
    }

    fn check_room(&self, role: Role, room: &Room) -> Result<(), ActError> {
        need(role <= Role::Moderator, "moderator role required")?;
        text(&room.name, MAX_NAME, "room")?;
        text(&room.topic, MAX_TEXT, "topic")?;
        let known = self.rooms.contains_key(&room.name);
        if known || self.rooms.len() < MAX_ROOMS { Ok(()) } else { Err(ActError::Limit("rooms")) }
    }

    fn check_role(
        &self,
        author: AgentId,
        role: Role,
        agent: &AgentId,
        given: Role,
    ) -> Result<(), ActError> {
        let now = match self.members.get(agent).map(|member| member.state) {
            Some(MemberState::Active(now)) => now,
            Some(_) => {
                return Err(ActError::Target("cannot change role of a removed or banned member"));
            }
            None => return Err(ActError::Target("member not found")),
        };
        if given == Role::Owner {
            return Err(ActError::Policy("ownership transfer not supported"));
        }
        need(*agent != author && role.may_set(Some(now), given), "insufficient role")
    }

    fn check_invite(&self, author: AgentId, role: Role, action: &Action) -> Result<(), ActError> {
        match action {
            Action::CreateInvite { uses, role: given, .. } => {
                let may = self.policy.is_some_and(|policy| policy.may_invite(role));
                need(may, "the group's policy keeps invites to higher roles")?;
                if *uses == 0 || *uses > MAX_USES || *given < Role::Member {
                    return Err(ActError::Limit("uses or role of an invite"));
                }
                let open = self.invites.values().filter(|invite| !invite.revoked).count();
                if open < MAX_INVITES { Ok(()) } else { Err(ActError::Limit("invites")) }
            }
            Action::RevokeInvite { invite } => {
                let made = self.invites.get(invite).filter(|invite| !invite.revoked);
                let made = made.ok_or(ActError::Target("invite not found"))?;
                need(role <= Role::Moderator || made.by == author, "not your invite")
            }
            _ => Ok(()),
        }
    }

    fn check_admit(
        &self,
        role: Role,
        at: WallTime,
        agent: &AgentId,
        basis: &Basis,
    ) -> Result<(), ActError> {
        if self.role(agent).is_some() {
            return Err(ActError::Target("member already present"));
        }
        if self.is_banned(agent) {
            return Err(ActError::Target("banned"));
        }
        match basis {
            Basis::Added => {
                let may = self.policy.is_some_and(|policy| policy.may_invite(role));
                need(may, "the group's policy keeps additions to higher roles")
            }
            Basis::Request(request) => {
                need(role <= Role::Admin, "admin role required")?;
                need(self.pending(request)? == *agent, "another's request")
            }
            Basis::Invite(statement) => {
                need(role <= Role::Member, "guests admit nobody")?;
                self.check_redemption(statement, at)
            }
        }
    }

    /// Whether an invite may be redeemed now, by this agent's clock.
    ///
    /// # Errors
    /// [`ActError::Target`] with the reason.
    pub fn check_redemption(&self, statement: &Statement, now: WallTime) -> Result<(), ActError> {
        let Claim::Redeem { invite, .. } = statement.claim else {
            return Err(ActError::Target("not a redemption"));
        };
        let invite = self.invites.get(&invite).filter(|invite| !invite.revoked);
        let invite = invite.ok_or(ActError::Target("invite not found"))?;
        if invite.expires.is_some_and(|end| now >= end || statement.at >= end) {
            return Err(ActError::Target("invite has expired"));
        }
        let may = self.policy.zip(self.role(&invite.by));
        if !may.is_some_and(|(policy, role)| policy.may_invite(role)) {
            return Err(ActError::Target("who made the invite may not invite any more"));
        }
        if invite.used >= invite.uses {
            return Err(ActError::Target(USED_UP));
        }
        Ok(())
    }

    fn check_request(&self, statement: &Statement) -> Result<(), ActError> {
        if self.role(&statement.agent).is_some() {
            return Err(ActError::Target("already a member"));
        }
        if self.is_banned(&statement.agent) {
            return Err(ActError::Role("banned"));
        }
        if self.policy.is_none_or(|policy| policy.admission != Admission::RequestAccess) {
            return Err(ActError::Policy("group admission is not request_access"));
        }
        let mut pending = self.requests.values().filter(|r| r.state == RequestState::Pending);
        if pending.clone().count() >= MAX_REQUESTS {
            return Err(ActError::Limit("requests"));
        }
        if pending.any(|request| request.agent == statement.agent) {
            return Err(ActError::Target("pending request already exists"));
        }
        Ok(())
    }

    /// Whose pending request this is.
    fn pending(&self, request: &[u8; 32]) -> Result<AgentId, ActError> {
        let request = self.requests.get(request).ok_or(ActError::Target("request not found"))?;
        if request.state != RequestState::Pending {
            return Err(ActError::Target("request is not pending"));
        }
        Ok(request.agent)
    }
}
