//! Which operations stand at their place, given that their authors have the roles they claim.

use x0x_core::AgentId;

use super::{Resolver, Status};
use crate::{
    limits::{MAX_INVITES, MAX_REQUESTS, MAX_ROOMS},
    policy::{Admission, Role},
    wire::{Action, Basis, Claim, Statement},
};

impl Resolver<'_> {
    /// Whether an operation may do what it does.
    pub(super) fn allows(&self, at: usize, stratum: u8) -> bool {
        let body = &self.operation(at).body;
        let Some(role) = body.role else {
            let open = matches!(body.action, Action::Join { .. });
            return open && self.policies_at(at).all(|p| p.admission == Admission::OpenJoin);
        };
        match &body.action {
            Action::Found { .. } | Action::Join { .. } => false,
            Action::SetPolicy { .. } | Action::Withdraw => role == Role::Owner,
            Action::SetProfile(_) => role <= Role::Admin,
            Action::SetRoom(room) => {
                role <= Role::Moderator
                    && (self.rooms.len() < MAX_ROOMS || self.rooms.contains(&room.name))
            }
            Action::Hide { .. } => role <= Role::Moderator,
            Action::SetRole { agent, role: given } => {
                let now = self.role_at(agent, at);
                *agent != body.author
                    && role.may_set(now, *given)
                    && !self.is_banned(agent, at)
                    && !self.is_lifted(agent, role, at, stratum)
            }
            Action::Remove { agent } => {
                role <= Role::Moderator
                    && !self.is_banned(agent, at)
                    && self.reaches(role, body.author, agent, at, stratum)
            }
            Action::Ban { agent, .. } => {
                role <= Role::Admin && self.reaches(role, body.author, agent, at, stratum)
            }
            Action::Unban { agent, .. } => role <= Role::Admin && self.is_banned(agent, at),
            Action::Leave => role != Role::Owner,
            Action::SetDisplayName(_) => true,
            Action::CreateInvite { invite, .. } => {
                self.policies_at(at).all(|policy| policy.may_invite(role))
                    && !self.invites.contains_key(invite)
                    && self.open_invites() < MAX_INVITES
            }
            Action::RevokeInvite { invite } => {
                role <= Role::Moderator
                    || self.invites.get(invite).is_some_and(|made| made.by == body.author)
            }
            Action::Admit { agent, role: given, basis, .. } => {
                let enters = match self.standing(agent, Some(at)) {
                    Some((status, _)) => status == Status::Removed,
                    None => true,
                };
                enters && *given >= Role::Member && self.rests(at, role, agent, *given, basis)
            }
            Action::Request(statement) => self.may_request(at, statement),
            Action::Reject { request } => role <= Role::Admin && self.is_open(*request, at),
            Action::Cancel(statement) => self.may_cancel(at, statement),
        }
    }

    fn is_banned(&self, agent: &AgentId, at: usize) -> bool {
        self.standing(agent, Some(at)).is_some_and(|(status, _)| status == Status::Banned)
    }

    /// Whether an agent is below a role, as far as strata up to this one say.
    fn reaches(&self, role: Role, by: AgentId, agent: &AgentId, at: usize, stratum: u8) -> bool {
        let below = self.role_at(agent, at).is_none_or(|now| now > role);
        *agent != by && below && !self.is_lifted(agent, role, at, stratum)
    }

    /// Whether an admission has the ground that it says.
    fn rests(&self, at: usize, by: Role, agent: &AgentId, given: Role, basis: &Basis) -> bool {
        match basis {
            Basis::Added => self.policies_at(at).all(|policy| policy.may_invite(by)),
            Basis::Request(request) => {
                let asked = self.requests.get(request).map(|place| self.operation(*place));
                let same = asked.is_some_and(|operation| {
                    matches!(&operation.body.action, Action::Request(s) if s.agent == *agent)
                });
                by <= Role::Admin && same && self.is_open(*request, at)
            }
            Basis::Invite(statement) => {
                by <= Role::Member && self.redeems(at, agent, given, statement)
            }
        }
    }

    fn redeems(&self, at: usize, agent: &AgentId, given: Role, statement: &Statement) -> bool {
        let Claim::Redeem { invite, .. } = statement.claim else { return false };
        let Some(made) = self.invites.get(&invite).filter(|made| self.is_before(made.place, at))
        else {
            return false;
        };
        let Action::CreateInvite { expires, uses, role, .. } =
            self.operation(made.place).body.action
        else {
            return false;
        };
        let now = self.operation(at).body.at;
        let in_time = expires.is_none_or(|end| statement.at < end && now < end);
        let used = self.used.get(&invite);
        let again = used.is_some_and(|used| used.contains(&statement.id()));
        let left = again || used.map_or(0, std::collections::BTreeSet::len) < uses as usize;
        in_time
            && left
            && *agent == statement.agent
            && given == role
            && !self.is_replayed(statement.id(), at)
            && !self.is_revoked(&invite, at)
            && self.still_invites(made.by, at)
    }

    /// Whether somebody was admitted by this statement before: it admits once.
    fn is_replayed(&self, statement: [u8; 32], at: usize) -> bool {
        let places = self.admitted_by.get(&statement).into_iter().flatten();
        places.into_iter().any(|place| self.is_before(*place, at))
    }

    /// Whether an invite was ended. Who has a role above members ends it also for those that did not hear
    /// of it.
    fn is_revoked(&self, invite: &AgentId, at: usize) -> bool {
        self.revoked.get(invite).into_iter().flatten().any(|(place, stratum)| {
            self.is_before(*place, at) || (*stratum < 3 && self.is_concurrent(*place, at))
        })
    }

    /// Whether who made an invite may still invite: it ends with that.
    fn still_invites(&self, by: AgentId, at: usize) -> bool {
        let role = self.role_at(&by, at);
        role.is_some_and(|role| {
            self.policies_at(at).all(|policy| policy.may_invite(role))
                && !self.loses(&by, role, at, 3)
        })
    }

    fn open_invites(&self) -> usize {
        self.invites.keys().filter(|invite| !self.revoked.contains_key(invite)).count()
    }

    fn may_request(&self, at: usize, statement: &Statement) -> bool {
        let outside = match self.standing(&statement.agent, Some(at)) {
            Some((status, _)) => status == Status::Removed,
            None => true,
        };
        let pending = self.requests.iter().filter(|(id, _)| !self.closed.contains_key(*id));
        let mut theirs = pending.clone().filter(|(_, place)| {
            self.is_before(**place, at)
                && matches!(&self.operation(**place).body.action,
                    Action::Request(other) if other.agent == statement.agent)
        });
        outside
            && self.policies_at(at).all(|policy| policy.admission == Admission::RequestAccess)
            && !self.requests.get(&statement.id()).is_some_and(|place| self.is_before(*place, at))
            && theirs.next().is_none()
            && pending.count() < MAX_REQUESTS
    }

    fn may_cancel(&self, at: usize, statement: &Statement) -> bool {
        let Claim::Cancel { request } = statement.claim else { return false };
        let asked = self.requests.get(&request).map(|place| self.operation(*place));
        let same = asked.is_some_and(|operation| {
            matches!(&operation.body.action, Action::Request(s) if s.agent == statement.agent)
        });
        same && self.is_open(request, at)
    }

    /// Whether a request is known at a place and not closed there.
    fn is_open(&self, request: [u8; 32], at: usize) -> bool {
        let known = self.requests.get(&request).is_some_and(|place| self.is_before(*place, at));
        let closed = self.closed.get(&request).into_iter().flatten();
        known && !closed.into_iter().any(|place| self.is_before(*place, at))
    }

    /// Remembers what an admission used.
    pub(super) fn accept_basis(&mut self, place: usize, basis: &Basis) {
        match basis {
            Basis::Added => {}
            Basis::Request(request) => self.closed.entry(*request).or_default().push(place),
            Basis::Invite(statement) => {
                let Claim::Redeem { invite, .. } = statement.claim else { return };
                self.used.entry(invite).or_default().insert(statement.id());
                self.admitted_by.entry(statement.id()).or_default().push(place);
            }
        }
    }
}
