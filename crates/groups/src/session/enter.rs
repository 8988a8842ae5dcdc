//! Coming in and coming back: invites, requests, welcomes, own commits, and what one is behind in.

use bytes::Bytes;
use x0x_core::{AgentId, WallTime};
use x0x_mls::{GroupId as MlsId, MlsGroups, Suite, VerifiedKeyPackage, ordering::Standing};

use super::{Happened, NamedGroups, UNKNOWN};
use crate::{
    commit::stamp,
    error::{ActError, SessionError, SignedError},
    policy::{Admission, ReadAccess, Role},
    state::Chain,
    wire::{
        Action, Basis, Claim, GroupId, Handover, InviteLink, LogItem, MAX_HELPERS, OpId, Operation,
        OperationIn, Statement,
    },
};

fn verified(bytes: &Bytes) -> Result<Operation, SessionError> {
    Ok(OperationIn::decode(bytes)?.verify()?)
}

/// Reads and verifies what was handed over; the first has to found the group.
fn read(operations: &[Bytes], group: GroupId) -> Result<Chain, SessionError> {
    let malformed = SignedError::Content("a handover without the operation that founds the group");
    let mut operations = operations.iter();
    let first = operations.next().ok_or_else(|| malformed.clone())?;
    let first = OperationIn::decode(first)?.verify()?;
    let mut chain = Chain::new(first).filter(|chain| chain.group() == group).ok_or(malformed)?;
    let rest: Result<Vec<Operation>, SessionError> = operations.map(verified).collect();
    chain.offer_all(rest?);
    Ok(chain)
}

impl<M: MlsGroups> NamedGroups<M> {
    /// Makes an invite. `seed` is random; whoever has the link may redeem it.
    ///
    /// # Errors
    /// [`SessionError::Act`] when this agent may not.
    pub fn invite(
        &mut self,
        group: GroupId,
        seed: [u8; 32],
        expires: Option<WallTime>,
        uses: u32,
        now: WallTime,
    ) -> Result<InviteLink, SessionError> {
        let view = self.view(group)?;
        let mut others: Vec<(Role, AgentId)> = view
            .active()
            .filter(|(agent, role)| *agent != self.agent() && *role <= Role::Member)
            .map(|(agent, role)| (role, agent))
            .collect();
        others.sort_unstable();
        let others = others.into_iter().map(|(_, agent)| agent);
        let helpers = [self.agent()].into_iter().chain(others).take(MAX_HELPERS).collect();
        let link = InviteLink::new(group, seed, helpers, expires, view.profile.name.clone());
        let invite = link.key().public_key().agent_id();
        let action = Action::CreateInvite { invite, expires, uses, role: Role::Member };
        self.act(group, action, now)?;
        Ok(link)
    }

    /// Redeems an invite: what is sent to a member that it names, with a key package.
    ///
    /// # Errors
    /// [`ActError::Target`] when it has expired.
    pub fn redeem(
        &self,
        link: &InviteLink,
        display_name: &str,
        now: WallTime,
    ) -> Result<Statement, SessionError> {
        if link.expires.is_some_and(|end| end <= now) {
            return Err(ActError::Target("invite has expired").into());
        }
        Ok(Statement::redeem(link.group, &self.key, &link.key(), display_name, now))
    }

    /// Admits whoever redeemed an invite, and hands over the group's keys if it has any.
    ///
    /// # Errors
    /// [`SessionError::Act`] with what is wrong with it.
    pub fn admit_redeemed(
        &mut self,
        statement: Statement,
        package: Option<VerifiedKeyPackage>,
        now: WallTime,
    ) -> Result<Handover, SessionError> {
        let (group, agent) = (statement.group, statement.agent);
        let view = self.view(group)?;
        if let Some(handover) = self.again(group, agent) {
            return Ok(handover);
        }
        view.check_redemption(&statement, now)?;
        let Claim::Redeem { invite, .. } = statement.claim else { return Err(UNKNOWN) };
        let role = view.invites.get(&invite).map_or(Role::Member, |invite| invite.role);
        let (basis, display_name) = (Basis::Invite(Box::new(statement)), String::new());
        let action = Action::Admit { agent, role, basis, display_name };
        self.admit(group, agent, action, package, now)
    }

    /// Admits an agent on another ground: that it is added, or asked for it.
    ///
    /// # Errors
    /// [`SessionError::Act`] when this agent may not.
    pub fn admit(
        &mut self,
        group: GroupId,
        agent: AgentId,
        action: Action,
        package: Option<VerifiedKeyPackage>,
        now: WallTime,
    ) -> Result<Handover, SessionError> {
        if let Some(package) = package {
            if package.agent != agent {
                return Err(x0x_mls::GroupError::from(x0x_mls::KeyPackageError::OtherAgent).into());
            }
            self.slot(group)?.packages.insert(agent, package);
        }
        self.act(group, action, now)?;
        let slot = self.slot(group)?;
        let made = slot.handovers.iter().position(|(to, _)| *to == agent);
        if let Some(made) = made {
            return Ok(slot.handovers.swap_remove(made).1);
        }
        self.again(group, agent).ok_or(UNKNOWN)
    }

    /// What a member gets that asks again: it may come in by an own commit.
    fn again(&mut self, group: GroupId, agent: AgentId) -> Option<Handover> {
        self.chains.view(group)?.role(&agent)?;
        self.invitation(group, agent).ok()
    }

    /// What an agent needs that is in the group, to come (back) in by an own commit.
    ///
    /// # Errors
    /// [`ActError::Role`] when it is not in the group.
    pub fn invitation(&mut self, group: GroupId, agent: AgentId) -> Result<Handover, SessionError> {
        let operations = self.since(group, agent, &[])?;
        let mut handover = Handover { operations, ..Handover::default() };
        if let Some(keys) = self.slot(group)?.keys {
            let made = self.mls.invitation(keys)?;
            (handover.info, handover.tree) = (made.info, made.tree.unwrap_or_default());
        }
        Ok(handover)
    }

    /// The operations that an agent lacks, which has these. Of an encrypted group only for its members.
    ///
    /// # Errors
    /// [`ActError::Role`] when it must not have them.
    pub fn since(
        &mut self,
        group: GroupId,
        agent: AgentId,
        heads: &[OpId],
    ) -> Result<Vec<Bytes>, SessionError> {
        let known = self.chains.lock();
        let chain = known.chains.get(&group).ok_or(UNKNOWN)?;
        let view = chain.view();
        let open = view.policy.is_some_and(|policy| {
            !policy.is_encrypted() && policy.read_access == ReadAccess::Public
        });
        if !open && view.role(&agent).is_none() {
            return Err(ActError::Role("not a member").into());
        }
        Ok(chain.since(heads))
    }

    /// Whether somebody who knows these has operations that are not here.
    ///
    /// # Errors
    /// [`SessionError`] when the group is not here.
    pub fn lacks(&self, group: GroupId, heads: &[OpId]) -> Result<bool, SessionError> {
        let known = self.chains.lock();
        let chain = known.chains.get(&group).ok_or(UNKNOWN)?;
        Ok(heads.iter().any(|head| chain.get(head).is_none()))
    }

    /// Whether something waits here for operations that have not come.
    ///
    /// # Errors
    /// [`SessionError`] when the group is not here.
    pub fn waits(&self, group: GroupId) -> Result<bool, SessionError> {
        let slot = self.slots.get(&group).ok_or(UNKNOWN)?;
        let known = self.chains.lock();
        let chain = known.chains.get(&group).ok_or(UNKNOWN)?;
        Ok(!slot.held.is_empty() || !chain.missing().is_empty())
    }

    /// Takes operations that another had, which this agent lacked.
    ///
    /// # Errors
    /// [`SessionError`] with the first that does not verify.
    pub fn catch_up(
        &mut self,
        group: GroupId,
        operations: &[Bytes],
    ) -> Result<Vec<Happened>, SessionError> {
        let lacking: Vec<OperationIn> = {
            let known = self.chains.lock();
            let chain = known.chains.get(&group).ok_or(UNKNOWN)?;
            let read: Result<Vec<_>, _> =
                operations.iter().map(|o| OperationIn::decode(o)).collect();
            read?.into_iter().filter(|read| chain.get(&read.id()).is_none()).collect()
        };
        let lacking: Result<Vec<Operation>, _> =
            lacking.into_iter().map(OperationIn::verify).collect();
        let taken = {
            let lacking = lacking?;
            let mut known = self.chains.lock();
            known.chains.get_mut(&group).ok_or(UNKNOWN)?.offer_all(lacking)
        };
        self.hold_keys(group);
        let state = |operation| Happened::State { operation };
        let mut happened: Vec<Happened> = taken.into_iter().map(state).collect();
        let settled = self.settle(group, &mut happened);
        self.told(group, happened, settled)
    }

    /// Comes in with what a member handed over. What happened meanwhile, when the group was here before.
    ///
    /// # Errors
    /// [`SessionError`] when it does not verify, or this agent is not in the group that it describes.
    pub fn enter(
        &mut self,
        group: GroupId,
        handover: &Handover,
    ) -> Result<Vec<Happened>, SessionError> {
        let chain = read(&handover.operations, group)?;
        if self.slots.contains_key(&group) {
            let mut happened = self.catch_up(group, &handover.operations)?;
            // What waited for an epoch on the way is read now, or never.
            let entered = self
                .take_keys(group, handover)
                .and_then(|()| self.try_held(group, &mut happened))
                .and_then(|()| self.settle(group, &mut happened));
            return self.told(group, happened, entered);
        }
        let keys = chain.view().mls_group;
        self.insert(chain, keys)?;
        let entered = self.take_keys(group, handover);
        if entered.is_err() {
            self.forget(group);
        }
        entered.map(|()| Vec::new())
    }

    fn take_keys(&mut self, group: GroupId, handover: &Handover) -> Result<(), SessionError> {
        let view = self.view(group)?;
        let Some(keys) = view.mls_group else { return Ok(()) };
        self.check_keys(group, keys)?;
        if view.role(&self.agent()).is_none() {
            return Err(ActError::Role("not a member").into());
        }
        let tree = (!handover.tree.is_empty()).then_some(handover.tree.as_ref());
        if handover.welcome.is_empty() {
            // Who is inside and not behind goes on by what the log brings: it would have no keys of the epochs
            // that it has not followed yet.
            if self.standing(group)? == Standing::Current {
                return Ok(());
            }
            self.enter_by_commit(group, keys, &handover.info, tree)
        } else {
            let joined = self.mls.join(&handover.welcome, tree)?;
            if joined == keys { Ok(()) } else { Err(SignedError::Content("other keys").into()) }
        }
    }

    fn check_keys(&mut self, group: GroupId, keys: MlsId) -> Result<(), SessionError> {
        match self.slot(group)?.keys {
            Some(own) if own == keys => Ok(()),
            _ => Err(SignedError::Content("the keys of another group").into()),
        }
    }

    fn enter_by_commit(
        &mut self,
        group: GroupId,
        keys: MlsId,
        info: &[u8],
        tree: Option<&[u8]>,
    ) -> Result<(), SessionError> {
        let heads = self.chains.lock().chains.get(&group).map(Chain::parents).unwrap_or_default();
        let (joined, made) = self.mls.join_external_stamped(info, tree, &stamp(&heads))?;
        if joined != keys {
            return Err(SignedError::Content("other keys").into());
        }
        self.publish(group, Some(made.id), &LogItem::Frame(made.frame))?;
        // What it said where it was may have been on a side that fell. Who read it takes it once.
        self.unsay(group, 0)?;
        self.say_again(group)
    }

    /// Joins a group that is open, with what a member or the public log told of it; in an encrypted one with
    /// what its [`open_invitation`](Self::open_invitation) gave.
    ///
    /// # Errors
    /// [`SessionError::Act`] when it is not open.
    pub fn join_open(
        &mut self,
        group: GroupId,
        handover: &Handover,
        display_name: &str,
        now: WallTime,
    ) -> Result<(), SessionError> {
        if !self.slots.contains_key(&group) {
            let chain = read(&handover.operations, group)?;
            let keys = chain.view().mls_group;
            self.insert(chain, keys)?;
        }
        let display_name = display_name.to_owned();
        let operation: Operation = self.state(group, Action::Join { display_name }, now)?;
        let item = LogItem::Operation(operation.encoded().clone());
        self.take_operation(group, operation)?;
        // The others judge the commit by it.
        self.publish(group, None, &item)?;
        match self.view(group)?.mls_group {
            None => Ok(()),
            Some(keys) => {
                self.check_keys(group, keys)?;
                let tree = (!handover.tree.is_empty()).then_some(handover.tree.as_ref());
                self.enter_by_commit(group, keys, &handover.info, tree)
            }
        }
    }

    /// What anybody needs to join an open group.
    ///
    /// # Errors
    /// [`ActError::Policy`] when it is not open.
    pub fn open_invitation(&mut self, group: GroupId) -> Result<Handover, SessionError> {
        let view = self.view(group)?;
        if view.policy.is_none_or(|p| p.admission != Admission::OpenJoin) {
            return Err(ActError::Policy("the group is not open to join").into());
        }
        self.invitation(group, self.agent())
    }

    /// Key packages to be handed to whoever adds this agent.
    ///
    /// # Errors
    /// [`SessionError::Mls`].
    pub fn key_packages(
        &mut self,
        count: usize,
        now: WallTime,
    ) -> Result<Vec<Bytes>, SessionError> {
        Ok(self.mls.key_packages(Suite::Hybrid, count, now)?)
    }
}
