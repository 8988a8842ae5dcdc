//! One group's log: items in, items out, and what is left to be done for others.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;
use x0x_core::AgentId;
use x0x_gossip_pubsub::{Delivery, Retention, Start, Subscription, topic_id};
use x0x_mls::ordering::Standing;

use super::{
    GroupEventKind, Inner, Wake,
    compare::Comparison,
    fragments::{Fragments, split},
};
use crate::{
    error::GroupsError,
    policy::{Discoverability, Role},
    session::Happened,
    wire::{Action, Answer, GroupId, Handover, Question},
};

/// Items taken in one turn.
const TURN: usize = 64;
/// How often it is looked whether something is left to be done.
const TEND: Duration = Duration::from_secs(2);
/// How long each member waits for those before it to do what is left.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long a member that is behind waits before it asks, and between two questions.
const REST: Duration = Duration::from_secs(10);
/// After a failed publish or handover.
const AGAIN: Duration = Duration::from_secs(5);
/// Members that are asked one after the other.
const ASKED: usize = 4;
/// Longest rest between two times that members are asked for what was written before.
const PAST_REST: Duration = Duration::from_secs(600);
/// Handovers that wait for their agents; the oldest goes first.
const MAX_HANDOVERS: usize = 256;

pub(super) struct Following {
    inner: Weak<Inner>,
    group: GroupId,
    wake: Arc<Wake>,
    done: watch::Sender<()>,
    stop: CancellationToken,
    fragments: Fragments,
    /// Items that could not be published yet, with MLS' numbers for them.
    unsent: VecDeque<(Option<u64>, Bytes)>,
    handovers: VecDeque<(AgentId, Handover)>,
    retry: Option<Instant>,
    /// Since when the keys are not those of the state.
    differs: Option<Instant>,
    /// Since when others seem to be further. What brings it there may still come by the log, and with it
    /// messages that nobody reads who comes in again.
    behind: Option<Instant>,
    /// When it may be asked again how it stands, and from which member on.
    rested: Instant,
    asked: usize,
    compare: Comparison,
    /// Since when the group's card is another than it should be.
    unlisted: Option<Instant>,
    /// Since when a member's key is known to be revoked.
    revoked: Option<Instant>,
    /// When what was written before may be asked for again, and how long it rests then.
    past: (Instant, Duration),
}

impl Following {
    pub(super) fn new(
        inner: &Arc<Inner>,
        group: GroupId,
        wake: Arc<Wake>,
        done: watch::Sender<()>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            inner: Arc::downgrade(inner),
            group,
            wake,
            done,
            stop,
            fragments: Fragments::default(),
            unsent: VecDeque::new(),
            handovers: VecDeque::new(),
            retry: None,
            differs: None,
            behind: None,
            rested: Instant::now(),
            asked: 0,
            compare: Comparison::new(Instant::now()),
            unlisted: None,
            revoked: None,
            past: (Instant::now(), TEND),
        }
    }

    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        if let Some(Err(error)) = stop.run_until_cancelled(self.follow()).await
            && !matches!(error, GroupsError::Closed)
        {
            tracing::warn!(group = %self.group, %error, "a group's log is not followed any more");
        }
    }

    fn inner(&self) -> Result<Arc<Inner>, GroupsError> {
        self.inner.upgrade().ok_or(GroupsError::Closed)
    }

    async fn follow(&mut self) -> Result<(), GroupsError> {
        let mut subscription = self.subscribe().await?;
        let mut tend = interval(TEND);
        tend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.publish().await?;
        let wake = Arc::clone(&self.wake);
        loop {
            let retry = self.retry.unwrap_or_else(|| Instant::now() + REST);
            tokio::select! {
                batch = subscription.next_batch(TURN) => {
                    if batch.is_empty() {
                        return Err(GroupsError::Closed);
                    }
                    self.take(batch).await?;
                    self.publish().await?;
                }
                () = wake.work.notified() => self.publish().await?,
                () = sleep_until(retry), if self.retry.is_some() => {
                    self.retry = None;
                    self.publish().await?;
                }
                _ = tend.tick() => {
                    self.tend().await?;
                    self.publish().await?;
                }
            }
        }
    }

    async fn subscribe(&self) -> Result<Subscription, GroupsError> {
        let (inner, group) = (self.inner()?, self.group);
        let topic = inner.worker.run(move |owned| Ok(owned.groups.log(group)?.topic())).await?;
        // What is known already changes nothing, and MLS wants to be given it again.
        let subscribed = inner.pubsub.subscribe(topic_id(&topic), Start::Retained).await;
        subscribed.map_err(|error| GroupsError::Log(error.to_string()))
    }

    async fn take(&mut self, batch: Vec<Delivery>) -> Result<(), GroupsError> {
        let mut items = Vec::new();
        for delivery in batch {
            if let Delivery::Message(message) = delivery
                && let Some(item) = self.fragments.take(message.author, &message.payload)
            {
                items.push((message.author, item));
            }
        }
        if items.is_empty() {
            return Ok(());
        }
        let (inner, group) = (self.inner()?, self.group);
        let happened = inner.worker.run(move |owned| owned.receive(group, &items)).await?;
        if happened
            .iter()
            .any(|event| matches!(event, Happened::State { .. } | Happened::Epoch { .. }))
        {
            self.compare.soon(Instant::now());
        }
        inner.tell(group, happened);
        Ok(())
    }

    /// Publishes what waits, in order, then hands over what is to be handed over.
    async fn publish(&mut self) -> Result<(), GroupsError> {
        let (inner, group) = (self.inner()?, self.group);
        let taken = inner.worker.run(move |owned| {
            // What rests on the state leaves after it is written.
            owned.save()?;
            let topic = topic_id(&owned.groups.log(group)?.topic());
            Ok((topic, owned.groups.take_outgoing(group), owned.groups.take_handovers(group)))
        });
        let (topic, outgoing, handovers) = taken.await?;
        self.unsent.extend(outgoing);
        self.handovers.extend(handovers);
        let surplus = self.handovers.len().saturating_sub(MAX_HANDOVERS);
        self.handovers.drain(..surplus);
        if self.retry.is_some() {
            return Ok(());
        }
        let mut sent = Vec::new();
        while let Some((journal, item)) = self.unsent.front() {
            // An item too large to be published is none.
            for payload in split(item).unwrap_or_default() {
                let accepted = inner.pubsub.accept_as(topic, Retention::Standard, payload).await;
                let published = match accepted {
                    Ok(accepted) => accepted.published().await,
                    Err(error) => Err(error),
                };
                if let Err(error) = published {
                    tracing::warn!(%group, %error, "an item of a group is not published yet");
                    self.retry = Some(Instant::now() + AGAIN);
                    inner.metrics.publish_failed.inc();
                    return self.sent(&inner, sent).await;
                }
            }
            sent.extend(*journal);
            inner.metrics.published.inc();
            self.unsent.pop_front();
        }
        self.sent(&inner, sent).await?;
        self.done.send_replace(());
        self.hand_over(&inner).await
    }

    async fn sent(&self, inner: &Inner, journal: Vec<u64>) -> Result<(), GroupsError> {
        if journal.is_empty() {
            return Ok(());
        }
        inner.worker.run(move |owned| Ok(owned.groups.acknowledge(&journal)?)).await
    }

    async fn hand_over(&mut self, inner: &Inner) -> Result<(), GroupsError> {
        for _ in 0..self.handovers.len() {
            let Some((agent, handover)) = self.handovers.pop_front() else { break };
            let question = Question::HandOver { group: self.group, handover: handover.clone() };
            match inner.courier.ask(agent, question).await {
                Ok(Answer::Done) => {}
                // It does not want to be in it.
                Ok(_) => tracing::debug!(agent = %agent.short(), "a group is refused"),
                Err(error) => {
                    tracing::debug!(agent = %agent.short(), %error, "a group is not handed over yet");
                    self.handovers.push_back((agent, handover));
                    self.retry = Some(Instant::now() + AGAIN);
                }
            }
        }
        Ok(())
    }

    /// Does what another member should have done by now, and finds out whether this one is behind.
    async fn tend(&mut self) -> Result<(), GroupsError> {
        let (inner, group) = (self.inner()?, self.group);
        let look = inner.worker.run(move |owned| {
            // What had to be said again when the process ended.
            if let Err(error) = owned.groups.say_again(group) {
                tracing::debug!(%group, %error, "what fell is not said again yet");
            }
            let (many, few) = owned.groups.difference(group)?;
            let standing = owned.groups.standing(group)?;
            let view = owned.groups.view(group)?;
            let others: Vec<AgentId> = view.active().map(|(agent, _)| agent).collect();
            let differs = !many.is_empty() || !few.is_empty();
            let listed = view.policy.is_some_and(|p| p.discoverability != Discoverability::Hidden);
            let own = view.role(&owned.groups.agent());
            let may = own.is_some_and(|role| role <= Role::Admin);
            let below = view.active().filter(|(_, role)| own.is_some_and(|o| o.may_remove(*role)));
            let below: Vec<AgentId> = below.map(|(agent, _)| agent).collect();
            let card = (listed && may).then_some((view.revision, view.withdrawn));
            let waits = (owned.groups.waits(group)?, owned.wants_past(group)?);
            Ok(((differs, waits), owned.groups.turn(group), standing, (others, below), card))
        });
        let ((differs, (waits, wants_past)), turn, standing, (others, below), card) = look.await?;
        let now = Instant::now();
        self.list(&inner, card, turn.unwrap_or_default(), now).await?;
        self.differs = differs.then(|| self.differs.unwrap_or(now));
        if let (Some(since), Some(turn)) = (self.differs, turn)
            && now >= since + PATIENCE * u32::try_from(turn + 1).unwrap_or(u32::MAX)
        {
            inner.worker.run(move |owned| Ok(owned.groups.follow(group)?)).await?;
            inner.metrics.completed.inc();
            self.differs = None;
        }
        self.put_out(&inner, below, turn.unwrap_or_default(), now).await?;
        let behind = standing == Standing::Behind;
        self.behind = behind.then(|| self.behind.unwrap_or(now));
        if self.behind.is_some_and(|since| now >= since + REST) && now >= self.rested {
            self.rested = now + REST;
            self.come_back(&inner, &others).await?;
        }
        if wants_past && now >= self.past.0 {
            self.past = (now + self.past.1, (self.past.1 * 2).min(PAST_REST));
            self.ask_past(&inner, &others).await?;
        }
        let ahead = self.wake.ahead().take();
        let asked = self.compare.due(now, inner.me, &others, ahead);
        if !asked.is_empty() {
            let (answered, brought) = self.compare(&inner, asked).await?;
            self.compare.done(Instant::now(), answered, brought, waits);
        }
        Ok(())
    }

    /// Removes members whose key was revoked for everybody: the first of those who may, and the next if it does not.
    async fn put_out(
        &mut self,
        inner: &Inner,
        below: Vec<AgentId>,
        turn: usize,
        now: Instant,
    ) -> Result<(), GroupsError> {
        let group = self.group;
        let revoked = below.into_iter().find(|agent| inner.admittance.is_revoked(agent));
        self.revoked = revoked.map(|_| self.revoked.unwrap_or(now));
        let patience = PATIENCE * u32::try_from(turn).unwrap_or(u32::MAX);
        let (Some(agent), Some(since)) = (revoked, self.revoked) else { return Ok(()) };
        if now < since + patience {
            return Ok(());
        }
        let removed = inner.worker.run(move |owned| {
            let now = owned.now();
            let operation = owned.groups.act(group, Action::Remove { agent }, now)?;
            owned.save()?;
            Ok(operation)
        });
        match removed.await {
            Ok(operation) => {
                tracing::warn!(%group, agent = %agent.short(), "a member whose key is revoked is removed");
                inner.note(group, GroupEventKind::State { operation });
            }
            Err(GroupsError::Closed) => return Err(GroupsError::Closed),
            Err(error) => tracing::debug!(%group, %error, "a member is not removed yet"),
        }
        self.revoked = None;
        Ok(())
    }

    /// Publishes the group's card when it says another thing than the last one, or that one is old: the first of
    /// those who may, and the next if it does not.
    async fn list(
        &mut self,
        inner: &Arc<Inner>,
        card: Option<(u64, bool)>,
        turn: usize,
        now: Instant,
    ) -> Result<(), GroupsError> {
        let due = card.filter(|card| inner.cards.is_due(&self.group, *card, inner.clock.wall()));
        self.unlisted = due.map(|_| self.unlisted.unwrap_or(now));
        let patience = PATIENCE * u32::try_from(turn).unwrap_or(u32::MAX);
        if self.unlisted.is_some_and(|since| now >= since + patience) {
            inner.announce(self.group).await?;
            self.unlisted = None;
        }
        Ok(())
    }

    /// Asks a member for operations that the log did not bring. Who answered, and whether that brought any.
    async fn compare(
        &self,
        inner: &Inner,
        asked: Vec<AgentId>,
    ) -> Result<(Option<AgentId>, bool), GroupsError> {
        let group = self.group;
        for agent in asked {
            let heads = inner.worker.run(move |owned| Ok(owned.groups.heads(group)?)).await?;
            let question = Question::Since { group, heads };
            let Ok(Answer::Operations(operations)) = inner.courier.ask(agent, question).await
            else {
                continue;
            };
            let caught_up = inner.worker.run(move |owned| owned.catch_up(group, &operations));
            match caught_up.await {
                Ok(happened) => {
                    let brought = !happened.is_empty();
                    inner.tell(group, happened);
                    return Ok((Some(agent), brought));
                }
                Err(GroupsError::Closed) => return Err(GroupsError::Closed),
                Err(error) => tracing::debug!(%error, "a member's operations are refused"),
            }
        }
        Ok((None, false))
    }

    /// Asks members for what was written before this agent came in, until one has something. When those who
    /// answer have nothing there is nothing.
    async fn ask_past(&self, inner: &Inner, others: &[AgentId]) -> Result<(), GroupsError> {
        let (group, mut nothing) = (self.group, false);
        for agent in others.iter().copied().filter(|agent| *agent != inner.me).take(ASKED) {
            let Ok(Answer::Past(texts)) = inner.courier.ask(agent, Question::Past { group }).await
            else {
                continue;
            };
            nothing |= texts.is_empty();
            if !texts.is_empty() {
                let taken = inner.worker.run(move |owned| owned.take_past(group, agent, &texts));
                let texts = taken.await?;
                inner.note(group, GroupEventKind::Past { by: agent, texts });
                return Ok(());
            }
        }
        match nothing {
            true => inner.worker.run(move |owned| owned.has_past(group)).await,
            false => Ok(()),
        }
    }

    /// Asks members how the group is, others than the last time, and comes in again if this one is behind.
    async fn come_back(&mut self, inner: &Inner, others: &[AgentId]) -> Result<(), GroupsError> {
        let group = self.group;
        let others: Vec<AgentId> = others.iter().copied().filter(|a| *a != inner.me).collect();
        let first = self.asked.checked_rem(others.len()).unwrap_or_default();
        self.asked = first + ASKED;
        for agent in others.iter().copied().cycle().skip(first).take(ASKED.min(others.len())) {
            let question = Question::Invitation { group, open: false };
            let Ok(Answer::HandOver(handover)) = inner.courier.ask(agent, question).await else {
                continue;
            };
            let entered = inner.worker.run(move |owned| owned.enter(group, &handover));
            match entered.await {
                Ok(happened) => {
                    inner.metrics.came_back.inc();
                    inner.tell(group, happened);
                    return Ok(());
                }
                Err(GroupsError::Closed) => return Err(GroupsError::Closed),
                Err(error) => tracing::debug!(%error, "a member's state of the group is refused"),
            }
        }
        Ok(())
    }
}
