//! Trust in the composition: what is blocked reaches no application, and what is learned about
//! identities reaches the policy.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use x0x_core::{AgentId, Clock, Counter, MachineId, WallTime};
use x0x_direct::DirectMessage;
use x0x_gossip_pubsub::{
    Delivery, Gossip, Message, PubSub, PublishError, Retention, Start, topic_id,
};
pub use x0x_identity::Subject;
use x0x_identity::{
    AgentBinding, AgentCertificate, AgentNoticeIn, BindingPolicy, NOTICE_TOPIC, Notice, NoticeIn,
    Shown, SignedRevocation, SignedRevocationIn,
};
use x0x_presence::Visibility;
pub use x0x_trust::{
    Action, Assessment, Change, ChangeError, Contact, Decision, IdentityType, Level, Loaded,
    MachineRecord, Outcome, ParseWordError, Policy, Reason, RevocationRecord, Revoker, Sighting,
    Trust, TrustError, TrustEvent, TrustEvents,
};

use crate::{Agent, identity::Standing, proofs::Keeper};

/// How often what was observed is written.
const FLUSH_INTERVAL: Duration = Duration::from_secs(60);
/// How often an agent that moved, or that names its user, says so again: well within the validity of
/// what it says.
const NOTICE_INTERVAL: Duration = Duration::from_secs(24 * 3600);

impl Agent {
    /// Contacts, revocations, and the policy over them.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.inner.trust
    }

    /// The policy, with this agent itself beyond it.
    pub(crate) fn gate(&self) -> Gate {
        self.inner.standing.notices.gate.clone()
    }

    /// Whether this agent was moved to another machine, so that others refuse it here.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        let standing = &self.inner.standing;
        standing.notices.gate.generation.load(Ordering::Relaxed) > standing.identity.generation
    }
}

/// How often is looked for revocations that are to be told again.
const RETELL_INTERVAL: Duration = Duration::from_secs(600);

/// The messages of a topic, without those of authors that are blocked or revoked here.
#[derive(Debug)]
pub struct Subscription {
    inner: x0x_gossip_pubsub::Subscription,
    gate: Gate,
}

/// Lets through whom the policy lets.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    pub(crate) trust: Trust,
    pub(crate) own: AgentId,
    /// The greatest generation that was seen of the own agent.
    generation: Arc<AtomicU64>,
}

impl Gate {
    /// The policy, for an agent whose bindings have this generation here.
    pub(crate) fn new(trust: Trust, own: AgentId, generation: u64) -> Self {
        Self { trust, own, generation: Arc::new(generation.into()) }
    }

    /// A verified binding was shown.
    pub(crate) fn observe(&self, binding: &AgentBinding) {
        if binding.agent == self.own {
            self.generation.fetch_max(binding.generation, Ordering::Relaxed);
        } else {
            // What it came to is counted there, and asked of the policy by whoever acts on it.
            let _ = self.trust.observe(binding);
        }
    }

    /// Whether an agent may do something, or have it done for it; the own one always may.
    pub(crate) fn allows(
        &self,
        agent: &AgentId,
        machine: Option<&MachineId>,
        action: Action,
    ) -> bool {
        *agent == self.own || self.trust.decide(agent, machine, action).allowed()
    }

    /// Whether an agent is believed to be on a machine.
    pub(crate) fn believes(&self, agent: &AgentId, machine: &MachineId) -> bool {
        self.allows(agent, Some(machine), Action::AnnounceAccept)
    }

    /// Whether a direct message may be read.
    pub(crate) fn lets_read(&self, message: &DirectMessage) -> bool {
        self.allows(&message.from, Some(&message.machine), Action::DirectReceive)
    }

    fn lets(&self, delivery: &Delivery) -> bool {
        match delivery {
            Delivery::Message(Message { author, .. }) => {
                self.allows(author, None, Action::GossipDeliver)
            }
            _ => true,
        }
    }
}

/// Presence is told of nobody who is blocked or revoked, and to nobody who is revoked. Whoever is blocked
/// is told what a stranger is: to hear less would tell it.
impl Visibility for Gate {
    fn may_see(&self, viewer: &AgentId, subject: &AgentId) -> bool {
        self.allows(viewer, None, Action::SessionAccept)
            && self.allows(subject, None, Action::PresenceVisible)
    }

    fn counts(&self, viewer: &AgentId, machine: &MachineId) -> bool {
        self.allows(viewer, Some(machine), Action::SessionAccept)
    }

    fn may_ask(&self, viewer: &AgentId) -> bool {
        self.allows(viewer, None, Action::PresenceQuery)
    }

    fn believes(&self, agent: &AgentId, machine: &MachineId) -> bool {
        Self::believes(self, agent, machine)
    }
}

/// Bindings teach where agents are, and count as far as the policy lets their agents be there.
impl BindingPolicy for Gate {
    fn accepts(&self, binding: &AgentBinding, shown: Shown) -> bool {
        self.observe(binding);
        if binding.agent == self.own {
            return binding.generation >= self.generation.load(Ordering::Relaxed);
        }
        let action = match shown {
            Shown::Session => Action::SessionAccept,
            _ => Action::AnnounceAccept,
        };
        self.allows(&binding.agent, Some(&binding.machine), action)
    }

    fn refuses(&self, machine: &MachineId) -> bool {
        self.trust.is_revoked(&Subject::Machine(*machine))
    }

    fn prefers(&self, agent: &AgentId) -> bool {
        matches!(self.trust.level(agent), Level::Known | Level::Trusted)
    }
}

impl Subscription {
    pub(crate) const fn new(inner: x0x_gossip_pubsub::Subscription, gate: Gate) -> Self {
        Self { inner, gate }
    }

    /// The policy that it asks.
    #[must_use]
    pub const fn trust(&self) -> &Trust {
        &self.gate.trust
    }

    /// The next delivery; `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> Option<Delivery> {
        loop {
            let delivery = self.inner.next().await?;
            if self.gate.lets(&delivery) {
                return Some(delivery);
            }
        }
    }

    /// The next delivery, if there is one now.
    pub fn next_ready(&mut self) -> Option<Delivery> {
        loop {
            let delivery = self.inner.next_ready()?;
            if self.gate.lets(&delivery) {
                return Some(delivery);
            }
        }
    }

    /// Waits for a delivery and takes those behind it that are there, up to `max`; none at the end.
    /// Cancel safe.
    pub async fn next_batch(&mut self, max: usize) -> Vec<Delivery> {
        loop {
            let mut batch = self.inner.next_batch(max).await;
            if batch.is_empty() {
                return batch;
            }
            batch.retain(|delivery| self.gate.lets(delivery));
            if !batch.is_empty() {
                return batch;
            }
        }
    }
}

/// What this agent tells everybody about identities, and hears from others.
#[derive(Debug, Clone)]
pub(crate) struct Notices {
    pub(crate) gossip: Arc<Gossip>,
    pub(crate) gate: Gate,
    /// Notices that are malformed or prove nothing.
    pub(crate) refused: Arc<Counter>,
    pub(crate) keeper: Keeper,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Notices {
    /// Tells everybody, and waits until it is published.
    pub(crate) async fn publish(&self, notice: &Notice) -> Result<(), PublishError> {
        // The last standing of each agent is enough for those who come later.
        let class = match notice {
            Notice::Agent { .. } => Retention::Latest,
            _ => Retention::Standard,
        };
        let topic = topic_id(NOTICE_TOPIC);
        let accepted = self.gossip.accept_as(topic, class, notice.encode()).await?;
        accepted.published().await.map(|_| ())
    }

    /// Reads the notices of others, and repeats this agent's own, until it is stopped.
    pub(crate) async fn run(self, standing: Arc<Standing>, stop: CancellationToken) {
        let topic = topic_id(NOTICE_TOPIC);
        let mut subscription = match self.gossip.subscribe(topic, Start::Retained).await {
            Ok(subscription) => subscription,
            Err(error) => {
                tracing::warn!(%error, "revocations and moves of agents are not heard of");
                return;
            }
        };
        let mut flush = tokio::time::interval(FLUSH_INTERVAL);
        let mut repeat = tokio::time::interval(NOTICE_INTERVAL);
        let mut retell = tokio::time::interval(RETELL_INTERVAL);
        self.keeper.load(&self.gate.trust).await;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = flush.tick() => self.flush().await,
                _ = repeat.tick() => self.repeat(&standing).await,
                _ = retell.tick() => self.retell().await,
                delivery = subscription.next() => match delivery {
                    Some(Delivery::Message(message)) => self.heard(&message).await,
                    Some(_) => {}
                    None => return,
                },
            }
        }
    }

    async fn flush(&self) {
        if let Err(error) = self.gate.trust.flush().await {
            tracing::debug!(%error, "what was seen of contacts is not written");
        }
        self.keeper.flush().await;
    }

    async fn repeat(&self, standing: &Standing) {
        standing.renew(self.clock.wall()).await;
        if let Some(notice) = standing.notice(self.clock.wall())
            && let Err(error) = self.publish(&notice).await
        {
            tracing::debug!(%error, "the notice of this agent is not published");
        }
    }

    /// Tells again of what others may have forgotten.
    async fn retell(&self) {
        for revocation in self.keeper.due().await {
            match self.publish(&Notice::Revocation(revocation.clone())).await {
                Ok(()) => self.keeper.told(&revocation.encode(), self.clock.wall()).await,
                // In the next turn, then.
                Err(error) => tracing::debug!(%error, "a revocation is not told again"),
            }
        }
    }

    /// Keeps a verified revocation and what proves it; it is on disk then, unless nobody here has to do with
    /// its key.
    pub(crate) async fn keep(&self, signed: &SignedRevocation) -> Result<Outcome, TrustError> {
        let (trust, revocation) = (&self.gate.trust, signed.revocation());
        let outcome = if self.keeper.concerns(&revocation.subject, trust) {
            trust.learn(revocation).await?
        } else {
            trust.note(revocation).await?
        };
        self.keeper.keep(signed, &self.gate.trust).await;
        Ok(outcome)
    }

    async fn heard(&self, message: &Message) {
        let known = match Notice::decode(&message.payload) {
            Ok(NoticeIn::Agent(notice)) => self.stands(message.author, *notice),
            Ok(NoticeIn::Revocation(revocation)) => {
                self.revoked(*revocation, message.time.min(self.clock.wall())).await
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = known {
            self.refused.inc();
            tracing::debug!(author = %message.author.short(), error, "notice refused");
        }
    }

    fn stands(&self, author: AgentId, notice: AgentNoticeIn) -> Result<(), String> {
        let verified = notice.verify(author, self.clock.wall());
        let (binding, certificate) = verified.map_err(|error| error.to_string())?;
        self.gate.observe(&binding.binding);
        if let Some(certificate) = certificate {
            let AgentCertificate { user, not_after, .. } = certificate.certificate;
            self.gate.trust.observe_user(author, user, not_after);
        }
        Ok(())
    }

    async fn revoked(&self, revocation: SignedRevocationIn, at: WallTime) -> Result<(), String> {
        self.keeper.told(revocation.encoded(), at).await;
        let subject = revocation.claimed_subject();
        // What is known needs no second proof.
        if self.gate.trust.is_revoked_for_all(&subject) && self.keeper.has(&subject).await {
            return Ok(());
        }
        if !self.keeper.admits(&subject, &self.gate.trust) {
            return Ok(());
        }
        let signed = revocation.verify().map_err(|error| error.to_string())?;
        self.keep(&signed).await.map(|_| ()).map_err(|error| error.to_string())
    }
}
