//! What follows from a set of operations: one answer, in whatever order they came.
//!
//! Each operation claims the role in which its author acts. They are judged in four strata: the
//! owner's, admins', moderators', everybody else's; within one, parents first. Whether an author has
//! its role, and whether it may do what it does, is judged at the operation's own place: by the
//! operations that stand, of this stratum and those before it, that it builds upon. Then by those that
//! are concurrent with it: **an operation falls when one of an earlier stratum, that it does not know
//! of, takes its author's role away**, or tightens the policy that it rests on. So nobody undoes its removal by
//! pretending not to have heard of it, and what was built on the past that it makes up falls with it.
//!
//! A role is given by who has it or a higher one, and taken by who has a higher one, so that a stratum
//! never rests on a later one, and there is nothing to be resolved by turns. Admissions give the last two
//! roles only, and are judged last, whoever admits.

use std::collections::{BTreeMap, BTreeSet};

use x0x_core::AgentId;

mod rules;

use super::{Chain, Held, place::Places, view::View};
use crate::{
    policy::{GroupPolicy, Role},
    wire::{Action, Operation},
};

/// How an agent stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Status {
    Banned,
    Removed,
    Active(Role),
}

impl Status {
    pub(super) const fn role(self) -> Option<Role> {
        match self {
            Self::Active(role) => Some(role),
            _ => None,
        }
    }
}

/// An accepted change of how an agent stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) place: usize,
    pub(super) stratum: u8,
    pub(super) status: Status,
}

/// What is accepted so far.
pub(super) struct Resolver<'a> {
    held: &'a [Held],
    pub(super) accepted: Vec<usize>,
    pub(super) changes: BTreeMap<AgentId, Vec<Change>>,
    policies: Vec<(usize, GroupPolicy)>,
    withdrawn: Vec<usize>,
    /// By the invite: where it was made, where it was ended, and the statements that used it.
    pub(super) invites: BTreeMap<AgentId, Made>,
    pub(super) revoked: BTreeMap<AgentId, Vec<(usize, u8)>>,
    pub(super) used: BTreeMap<AgentId, BTreeSet<[u8; 32]>>,
    /// Where statements were brought in, and requests closed.
    pub(super) requests: BTreeMap<[u8; 32], usize>,
    pub(super) closed: BTreeMap<[u8; 32], Vec<usize>>,
    admitted_by: BTreeMap<[u8; 32], Vec<usize>>,
    pub(super) rooms: BTreeSet<String>,
}

/// An invite's making.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    pub(super) place: usize,
    pub(super) by: AgentId,
}

/// The stratum in which an operation is judged.
fn stratum(operation: &Operation) -> u8 {
    let own = match operation.body.role {
        Some(Role::Owner) => 0,
        Some(Role::Admin) => 1,
        Some(Role::Moderator) => 2,
        _ => 3,
    };
    match operation.body.action {
        // These rest on what members did.
        Action::Admit { .. }
        | Action::CreateInvite { .. }
        | Action::Request(_)
        | Action::Reject { .. }
        | Action::Cancel(_)
        | Action::SetRoom(_) => 3,
        _ => own,
    }
}

/// Judges the operations of a set that has all that its operations build upon; all if none is given.
pub(super) fn resolve(chain: &Chain, seen: Option<&Places>) -> View {
    let held = &chain.held;
    let seen = |place: &usize| seen.is_none_or(|seen| seen.contains(*place));
    let mut order: Vec<(u8, u32, usize)> = (0..held.len())
        .filter(seen)
        .map(|place| {
            let operation = &held[place].operation;
            (stratum(operation), operation.body.height, place)
        })
        .collect();
    order.sort_unstable_by_key(|(stratum, height, place)| {
        (*stratum, *height, held[*place].operation.id)
    });
    let mut resolver = Resolver::new(held);
    for (stratum, _, place) in &order {
        if resolver.stands(*place, *stratum) {
            resolver.accept(*place, *stratum);
        }
    }
    resolver.into_view(chain.group, order.len())
}

impl<'a> Resolver<'a> {
    fn new(held: &'a [Held]) -> Self {
        Self {
            held,
            accepted: Vec::new(),
            changes: BTreeMap::new(),
            policies: Vec::new(),
            withdrawn: Vec::new(),
            invites: BTreeMap::new(),
            revoked: BTreeMap::new(),
            used: BTreeMap::new(),
            requests: BTreeMap::new(),
            closed: BTreeMap::new(),
            admitted_by: BTreeMap::new(),
            rooms: BTreeSet::new(),
        }
    }

    pub(super) fn operation(&self, place: usize) -> &'a Operation {
        &self.held[place].operation
    }

    pub(super) fn is_before(&self, one: usize, other: usize) -> bool {
        self.held[other].before.contains(one)
    }

    pub(super) fn is_concurrent(&self, one: usize, other: usize) -> bool {
        one != other && !self.is_before(one, other) && !self.is_before(other, one)
    }

    /// How an agent stands at a place, or at the end of all: of the last changes that it knows, bans and
    /// removals come first, then the earliest stratum, then the least role.
    pub(super) fn standing(&self, agent: &AgentId, at: Option<usize>) -> Option<(Status, usize)> {
        let all = self.changes.get(agent)?;
        let known: Vec<&Change> =
            all.iter().filter(|c| at.is_none_or(|at| self.is_before(c.place, at))).collect();
        let last = known
            .iter()
            .filter(|one| !known.iter().any(|other| self.is_before(one.place, other.place)));
        let key = |change: &Change| {
            let (class, role) = match change.status {
                Status::Banned => (0, 0),
                Status::Removed => (1, 0),
                Status::Active(role) => (2, role.code()),
            };
            let stratum = if class == 2 { change.stratum } else { 0 };
            (class, stratum, u32::MAX - role, self.operation(change.place).id)
        };
        last.min_by_key(|change| key(change)).map(|change| (change.status, change.place))
    }

    pub(super) fn role_at(&self, agent: &AgentId, at: usize) -> Option<Role> {
        self.standing(agent, Some(at)).and_then(|(status, _)| status.role())
    }

    /// Whether something of an earlier stratum, that this place does not know of, takes the role of an
    /// agent away.
    pub(super) fn loses(&self, agent: &AgentId, role: Role, at: usize, stratum: u8) -> bool {
        self.changes.get(agent).into_iter().flatten().any(|change| {
            change.stratum < stratum
                && self.is_concurrent(change.place, at)
                && change.status.role().is_none_or(|now| now > role)
        })
    }

    /// Whether something of an earlier stratum, that this place does not know of, lifts an agent out of
    /// the reach of a role.
    pub(super) fn is_lifted(&self, agent: &AgentId, over: Role, at: usize, stratum: u8) -> bool {
        self.changes.get(agent).into_iter().flatten().any(|change| {
            change.stratum < stratum
                && self.is_concurrent(change.place, at)
                && change.status.role().is_some_and(|now| now <= over)
        })
    }

    /// The policy at a place, and those that are concurrent with it.
    pub(super) fn policies_at(&self, at: usize) -> impl Iterator<Item = &GroupPolicy> {
        let known = self.policies.iter().filter(move |(place, _)| self.is_before(*place, at));
        let last = known.max_by_key(|(place, _)| {
            let operation = self.operation(*place);
            (operation.body.height, operation.id)
        });
        let beside = self.policies.iter().filter(move |(place, _)| self.is_concurrent(*place, at));
        last.into_iter().chain(beside).map(|(_, policy)| policy)
    }

    fn stands(&self, place: usize, stratum: u8) -> bool {
        let body = &self.operation(place).body;
        if let Action::Found { .. } = body.action {
            return true;
        }
        if self.withdrawn.iter().any(|end| !self.is_before(place, *end)) {
            return false;
        }
        let standing = self.standing(&body.author, Some(place)).map(|(status, _)| status);
        match body.role {
            None if standing.is_some_and(|status| status != Status::Removed) => return false,
            None => {}
            Some(role) if standing != Some(Status::Active(role)) => return false,
            Some(role) if self.loses(&body.author, role, place, stratum) => return false,
            Some(_) => {}
        }
        self.allows(place, stratum)
    }

    fn accept(&mut self, place: usize, stratum: u8) {
        self.accepted.push(place);
        let body = &self.operation(place).body;
        let change = |status| Change { place, stratum, status };
        let target = match &body.action {
            Action::Found { policy, .. } => {
                self.policies.push((place, *policy));
                Some((body.author, change(Status::Active(Role::Owner))))
            }
            Action::SetPolicy { policy, .. } => {
                self.policies.push((place, *policy));
                None
            }
            Action::SetRole { agent, role } => Some((*agent, change(Status::Active(*role)))),
            Action::Admit { agent, role, basis, .. } => {
                self.accept_basis(place, basis);
                Some((*agent, change(Status::Active(*role))))
            }
            Action::Join { .. } => Some((body.author, change(Status::Active(Role::Member)))),
            Action::Remove { agent } => Some((*agent, change(Status::Removed))),
            Action::Ban { agent, .. } => Some((*agent, change(Status::Banned))),
            Action::Unban { agent, role } => {
                let status = role.map_or(Status::Removed, Status::Active);
                Some((*agent, change(status)))
            }
            Action::Leave => Some((body.author, change(Status::Removed))),
            _ => None,
        };
        if let Some((agent, change)) = target {
            self.changes.entry(agent).or_default().push(change);
        }
        self.accept_other(place, stratum);
    }

    fn accept_other(&mut self, place: usize, stratum: u8) {
        let body = &self.operation(place).body;
        match &body.action {
            Action::Withdraw => self.withdrawn.push(place),
            Action::CreateInvite { invite, .. } => {
                self.invites.insert(*invite, Made { place, by: body.author });
            }
            Action::RevokeInvite { invite } => {
                self.revoked.entry(*invite).or_default().push((place, stratum));
            }
            Action::Request(statement) => {
                self.requests.entry(statement.id()).or_insert(place);
            }
            Action::Reject { request } => self.closed.entry(*request).or_default().push(place),
            Action::Cancel(statement) => {
                if let crate::wire::Claim::Cancel { request } = statement.claim {
                    self.closed.entry(request).or_default().push(place);
                }
            }
            Action::SetRoom(room) => drop(self.rooms.insert(room.name.clone())),
            _ => {}
        }
    }
}
