//! What the layer above holds.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::broadcast;
use x0x_core::{AgentId, Metric, WallTime};
use x0x_mls::{GroupError, ordering::Standing, verify_key_package};

use crate::{
    driver::{GroupEvent, GroupEventKind, GroupStats, GroupsConfig, Inner, Text},
    error::{ActError, GroupsError},
    policy::{GroupPolicy, Role},
    state::View,
    wire::{
        Action, Answer, Basis, GroupId, Handover, InviteLink, MAX_HELPERS, MessageKind, OpId,
        Profile, PublicMessage, Question, Statement,
    },
};

mod cards;
mod sealed;

/// Groups that this agent asked to be brought into and was not yet; more are refused.
pub const MAX_WANTED: usize = 256;
/// How long it stays open to be brought in.
pub const WANTED_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// A group as this agent sees it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GroupState {
    /// Its id.
    pub group: GroupId,
    /// What follows from its operations.
    pub view: Arc<View>,
    /// The epoch of its keys, and who has them, if it is encrypted and this agent has them.
    pub keys: Option<(u64, Vec<AgentId>)>,
    /// The topic of its log.
    pub topic: String,
}

/// How a group is doing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GroupDiagnosis {
    /// The group.
    pub state: GroupState,
    /// Whether others seem to be further, so that this agent asks them.
    pub behind: bool,
    /// Whether its log is followed.
    pub followed: bool,
    /// What came in its log since the start.
    pub stats: GroupStats,
}

/// The named groups of an agent. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub struct GroupsHandle {
    inner: Arc<Inner>,
}

fn random<const N: usize>() -> Result<[u8; N], GroupsError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| GroupsError::Unusable(error.to_string()))?;
    Ok(bytes)
}

impl GroupsHandle {
    /// Makes the service. Nothing is opened before something is asked of it.
    #[must_use]
    pub fn new(config: GroupsConfig) -> Self {
        Self { inner: Inner::new(config) }
    }

    /// Opens the groups that are kept and follows their logs.
    ///
    /// # Errors
    /// [`GroupsError::Closed`] when they cannot be opened.
    pub async fn open(&self) -> Result<(), GroupsError> {
        self.inner.follow_all().await
    }

    /// Whether they were opened: what is asked of an agent without groups opens them.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.inner.worker.runs()
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<GroupEvent> {
        self.inner.events.subscribe()
    }

    /// Answers an agent, which is proven to be who it is.
    pub async fn answer(&self, from: AgentId, question: Question) -> Answer {
        self.inner.answer(from, question).await
    }

    /// Founds a group.
    ///
    /// # Errors
    /// [`GroupsError`].
    pub async fn found(
        &self,
        policy: GroupPolicy,
        profile: Profile,
        display_name: String,
    ) -> Result<GroupId, GroupsError> {
        let nonce = random()?;
        let founded = self.inner.worker.run(move |owned| {
            let now = owned.now();
            let group = owned.groups.found(policy, profile, nonce, &display_name, now)?;
            owned.save()?;
            Ok(group)
        });
        let group = founded.await?;
        self.inner.follow(group);
        self.inner.note(group, GroupEventKind::Entered);
        Ok(group)
    }

    /// The groups that are here.
    ///
    /// # Errors
    /// [`GroupsError::Closed`].
    pub async fn list(&self) -> Result<Vec<GroupState>, GroupsError> {
        let list = self.inner.worker.run(|owned| {
            let ids = owned.groups.ids();
            Ok(ids.into_iter().filter_map(|group| state(&mut owned.groups, group).ok()).collect())
        });
        list.await
    }

    /// One of them.
    ///
    /// # Errors
    /// [`ActError::Target`] when it is not here.
    pub async fn get(&self, group: GroupId) -> Result<GroupState, GroupsError> {
        self.inner.worker.run(move |owned| state(&mut owned.groups, group)).await
    }

    /// Changes the state of a group, and its keys with it.
    ///
    /// # Errors
    /// [`GroupsError`] when this agent may not.
    pub async fn act(&self, group: GroupId, action: Action) -> Result<OpId, GroupsError> {
        let acted = self.inner.worker.run(move |owned| {
            let now = owned.now();
            let operation = owned.groups.act(group, action, now)?;
            owned.save()?;
            Ok(operation)
        });
        let operation = acted.await?;
        self.inner.wake(group);
        self.inner.note(group, GroupEventKind::State { operation });
        Ok(operation)
    }

    /// Sets the policy of a group; of its owner only.
    ///
    /// # Errors
    /// [`GroupsError`] when this agent may not.
    pub async fn set_policy(
        &self,
        group: GroupId,
        policy: GroupPolicy,
    ) -> Result<OpId, GroupsError> {
        let set = self.inner.worker.run(move |owned| {
            let now = owned.now();
            let operation = owned.groups.set_policy(group, policy, now)?;
            owned.save()?;
            Ok(operation)
        });
        let operation = set.await?;
        self.inner.wake(group);
        self.inner.note(group, GroupEventKind::State { operation });
        Ok(operation)
    }

    /// Makes an invite.
    ///
    /// # Errors
    /// [`GroupsError`] when this agent may not.
    pub async fn invite(
        &self,
        group: GroupId,
        valid: Option<Duration>,
        uses: u32,
    ) -> Result<InviteLink, GroupsError> {
        let seed = random()?;
        let made = self.inner.worker.run(move |owned| {
            let now = owned.now();
            let expires = valid.map(|valid| now + valid);
            let link = owned.groups.invite(group, seed, expires, uses, now)?;
            owned.save()?;
            Ok(link)
        });
        let link = made.await?;
        self.inner.wake(group);
        Ok(link)
    }

    /// Joins by an invite: asks the members it names, one after the other, and comes in with what the first
    /// that answers hands over.
    ///
    /// # Errors
    /// [`GroupsError`]: the link is no good, or nobody that it names answers.
    pub async fn join(
        &self,
        link: InviteLink,
        display_name: String,
    ) -> Result<GroupId, GroupsError> {
        let (group, helpers) = (link.group, link.helpers.clone());
        let made = self.inner.worker.run(move |owned| {
            let now = owned.now();
            let statement = owned.groups.redeem(&link, &display_name, now)?;
            let package = owned.groups.key_packages(1, now)?.into_iter().next();
            Ok((statement.encoded().clone(), package.unwrap_or_default()))
        });
        let (statement, package) = made.await?;
        let mut last = GroupsError::Refused("the invite names nobody".to_owned());
        for helper in helpers.into_iter().take(MAX_HELPERS) {
            let question =
                Question::State { statement: statement.clone(), package: package.clone() };
            match self.inner.courier.ask(helper, question).await {
                Ok(Answer::HandOver(handover)) => {
                    self.inner.enter(group, handover).await?;
                    return Ok(group);
                }
                Ok(Answer::Refused(reason)) => last = GroupsError::Refused(reason),
                Ok(_) => last = GroupsError::Refused("another answer than asked for".to_owned()),
                // Who refused says more than who is away.
                Err(error) if matches!(last, GroupsError::Courier(_)) => last = error.into(),
                Err(error) => {
                    if !matches!(&last, GroupsError::Refused(reason) if !reason.contains("names")) {
                        last = error.into();
                    }
                }
            }
        }
        Err(last)
    }

    /// Joins a group that is open to everybody, with what one of its members tells.
    ///
    /// # Errors
    /// [`GroupsError`].
    pub async fn join_open(
        &self,
        group: GroupId,
        member: AgentId,
        display_name: String,
    ) -> Result<(), GroupsError> {
        let question = Question::Invitation { group, open: true };
        let handover = self.handed_over(member, question).await?;
        let joined = self.inner.worker.run(move |owned| {
            let now = owned.now();
            owned.groups.join_open(group, &handover, &display_name, now)?;
            owned.save()?;
            owned.came_in(group)
        });
        joined.await?;
        self.inner.follow(group);
        self.inner.wake(group);
        self.inner.note(group, GroupEventKind::Entered);
        Ok(())
    }

    async fn handed_over(
        &self,
        member: AgentId,
        question: Question,
    ) -> Result<Handover, GroupsError> {
        match self.inner.courier.ask(member, question).await? {
            Answer::HandOver(handover) => Ok(handover),
            Answer::Refused(reason) => Err(GroupsError::Refused(reason)),
            _ => Err(GroupsError::Refused("another answer than asked for".to_owned())),
        }
    }

    /// Asks a member to be admitted; who may decides. Returns the request's id.
    ///
    /// # Errors
    /// [`GroupsError`].
    pub async fn request(
        &self,
        group: GroupId,
        member: AgentId,
        message: &str,
    ) -> Result<[u8; 32], GroupsError> {
        let now = self.inner.clock.wall();
        let statement = Statement::request(group, &self.inner.key, message, now);
        self.want(group, member, now)?;
        self.state(member, &statement).await?;
        Ok(statement.id())
    }

    /// Takes a request back, by the member that was asked.
    ///
    /// # Errors
    /// [`ActError::Target`] when this agent does not ask to be in the group.
    pub async fn cancel(&self, group: GroupId, request: [u8; 32]) -> Result<(), GroupsError> {
        let now = self.inner.clock.wall();
        let asked = self.inner.wanted().get(&group).map(|(_, member)| *member);
        let member = asked.ok_or(ActError::Target("request not found"))?;
        let statement = Statement::cancel(group, &self.inner.key, request, now);
        self.state(member, &statement).await?;
        self.inner.wanted().remove(&group);
        Ok(())
    }

    async fn state(&self, member: AgentId, statement: &Statement) -> Result<(), GroupsError> {
        let statement = statement.encoded().clone();
        let question = Question::State { statement, package: Bytes::new() };
        match self.inner.courier.ask(member, question).await? {
            Answer::Done => Ok(()),
            Answer::Refused(reason) => Err(GroupsError::Refused(reason)),
            _ => Err(GroupsError::Refused("another answer than asked for".to_owned())),
        }
    }

    fn want(&self, group: GroupId, member: AgentId, now: WallTime) -> Result<(), GroupsError> {
        let mut wanted = self.inner.wanted();
        wanted.retain(|_, (since, _)| *since + WANTED_FOR > now);
        if wanted.len() >= MAX_WANTED && !wanted.contains_key(&group) {
            return Err(ActError::Limit("requests to join").into());
        }
        wanted.insert(group, (now, member));
        Ok(())
    }

    /// Admits an agent: adds it, or approves its request. Of an encrypted group it is asked for a key
    /// package first, so it has to be there.
    ///
    /// # Errors
    /// [`GroupsError`].
    pub async fn admit(
        &self,
        group: GroupId,
        agent: AgentId,
        role: Role,
        request: Option<[u8; 32]>,
        display_name: String,
    ) -> Result<(), GroupsError> {
        let state = self.get(group).await?;
        let package = match state.view.mls_group {
            None => None,
            Some(_) => match self.inner.courier.ask(agent, Question::Package).await? {
                Answer::Package(package) => Some(package),
                Answer::Refused(reason) => return Err(GroupsError::Refused(reason)),
                _ => return Err(GroupsError::Refused("no key package".to_owned())),
            },
        };
        let basis = request.map_or(Basis::Added, Basis::Request);
        let admitted = self.inner.worker.run(move |owned| {
            let now = owned.now();
            let package = match package {
                None => None,
                Some(bytes) => Some(verify_key_package(&bytes, now).map_err(GroupError::from)?),
            };
            let action = Action::Admit { agent, role, basis, display_name };
            let handover = owned.groups.admit(group, agent, action, package, now)?;
            owned.save()?;
            Ok(handover)
        });
        let handover = admitted.await?;
        // The commit is in the log before the welcome is read.
        self.inner.wake(group);
        let question = Question::HandOver { group, handover };
        match self.inner.courier.ask(agent, question).await? {
            Answer::Refused(reason) => Err(GroupsError::Refused(reason)),
            _ => Ok(()),
        }
    }

    /// Writes to the members of an encrypted group. Returns this agent's name for the message.
    ///
    /// # Errors
    /// [`GroupsError`] when this agent may not.
    pub async fn send(
        &self,
        group: GroupId,
        room: String,
        payload: Bytes,
    ) -> Result<[u8; 16], GroupsError> {
        let id = random()?;
        let sent = self.inner.worker.run(move |owned| owned.send(group, &room, id, &payload));
        sent.await?;
        self.inner.wake(group);
        Ok(id)
    }

    /// What was written in an encrypted group, oldest first, as far back as it is kept.
    ///
    /// # Errors
    /// [`GroupsError`] when it is not here.
    pub async fn texts(&self, group: GroupId) -> Result<Vec<Text>, GroupsError> {
        let read = self.inner.worker.run(move |owned| {
            owned.groups.view(group)?;
            owned.read(group)
        });
        let mut texts = read.await?;
        texts.retain(|text| self.inner.admittance.may_speak(&text.author));
        Ok(texts)
    }

    /// Writes a message in a group that is not encrypted.
    ///
    /// # Errors
    /// [`GroupsError`] when this agent may not.
    pub async fn write(
        &self,
        group: GroupId,
        kind: MessageKind,
        room: String,
        thread: Option<[u8; 32]>,
        text: String,
    ) -> Result<[u8; 32], GroupsError> {
        let written = self.inner.worker.run(move |owned| {
            let at = owned.now();
            let id = owned.groups.write(group, |chain, author| PublicMessage {
                group,
                author,
                at,
                kind,
                room,
                thread,
                text,
                state: (chain.view().revision, chain.view().state_hash()),
                heads: chain.parents(),
            })?;
            owned.save()?;
            Ok(id)
        });
        let id = written.await?;
        self.inner.wake(group);
        Ok(id)
    }

    /// The messages of a group that is not encrypted, as they are shown now.
    ///
    /// # Errors
    /// [`GroupsError`] when it is not here.
    pub async fn messages(
        &self,
        group: GroupId,
    ) -> Result<Vec<([u8; 32], PublicMessage)>, GroupsError> {
        let read = self.inner.worker.run(move |owned| Ok(owned.groups.messages(group)?));
        let mut messages = read.await?;
        messages.retain(|(_, message)| self.inner.admittance.may_speak(&message.author));
        Ok(messages)
    }

    /// Leaves a group, and forgets it here. Its only owner withdraws it.
    ///
    /// # Errors
    /// [`GroupsError`] when it is not here.
    pub async fn leave(&self, group: GroupId) -> Result<(), GroupsError> {
        let state = self.get(group).await?;
        let role = state.view.role(&self.inner.me);
        if role.is_some() && !state.view.withdrawn {
            let owners: BTreeSet<AgentId> = state
                .view
                .active()
                .filter(|(_, role)| *role == Role::Owner)
                .map(|(agent, _)| agent)
                .collect();
            let alone = owners.len() == 1 && owners.contains(&self.inner.me);
            let action = if alone { Action::Withdraw } else { Action::Leave };
            self.act(group, action).await?;
            if alone {
                // Its card says that it has ended.
                self.inner.announce(group).await?;
            }
            self.inner.published(group).await;
        }
        self.inner.unfollow(group);
        let forgotten = self.inner.worker.run(move |owned| {
            owned.groups.forget(group);
            owned.save()
        });
        forgotten.await?;
        self.inner.note(group, GroupEventKind::Left);
        Ok(())
    }

    /// What happened since the start, by cause: the groups' and MLS'.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        let mut metrics = self.inner.metrics.snapshot();
        metrics.extend(self.inner.worker.mls_metrics().snapshot());
        metrics
    }

    /// How each group is doing.
    ///
    /// # Errors
    /// [`GroupsError::Closed`].
    pub async fn diagnostics(&self) -> Result<Vec<GroupDiagnosis>, GroupsError> {
        let looked = self.inner.worker.run(|owned| {
            let mut all = Vec::new();
            for group in owned.groups.ids() {
                let state = state(&mut owned.groups, group)?;
                let behind = owned.groups.standing(group)? == Standing::Behind;
                let stats = owned.stats.get(&group).copied().unwrap_or_default();
                all.push(GroupDiagnosis { state, behind, stats, followed: false });
            }
            Ok(all)
        });
        let mut all = looked.await?;
        for one in &mut all {
            one.followed = self.inner.follows(&one.state.group);
        }
        Ok(all)
    }

    /// Ends the service: what waits to be published is published at the next start.
    pub async fn shutdown(&self) {
        self.inner.shutdown().await;
    }
}

fn state(groups: &mut crate::driver::Groups, group: GroupId) -> Result<GroupState, GroupsError> {
    let view = groups.view(group)?;
    let topic = groups.log(group)?.topic();
    let keys = match view.mls_group {
        // It may not be in it yet, or any more.
        Some(keys) => x0x_mls::MlsGroups::members(groups.mls(), keys).ok(),
        None => None,
    };
    Ok(GroupState { group, view, keys, topic })
}
