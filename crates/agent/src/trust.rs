//! Trust in the composition: what is blocked reaches no application, and what is learned about
//! identities reaches the policy.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use x0x_core::{AgentId, Clock};
use x0x_direct::DirectMessage;
use x0x_gossip_pubsub::{
    Delivery, Gossip, Message, PubSub, PublishError, Retention, Start, topic_id,
};
pub use x0x_identity::Subject;
use x0x_identity::{AgentNoticeIn, NOTICE_TOPIC, Notice, NoticeIn, SignedRevocationIn};
use x0x_presence::Visibility;
pub use x0x_trust::{
    Action, Assessment, Change, ChangeError, Contact, Decision, IdentityType, Level, Loaded,
    MachineRecord, Outcome, ParseWordError, Policy, Reason, RevocationRecord, Revoker, Sighting,
    Trust, TrustError, TrustEvent, TrustEvents,
};

use crate::{Agent, identity::Standing};

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
        Gate { trust: self.inner.trust.clone(), own: self.agent_id() }
    }

    /// Whether this agent was moved to another machine, so that others refuse it here.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        let seen = self.trust().sighting(&self.agent_id());
        seen.is_some_and(|seen| seen.generation > self.inner.standing.identity.generation)
    }
}

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
}

impl Gate {
    /// Whether a direct message may be read.
    pub(crate) fn lets_read(&self, message: &DirectMessage) -> bool {
        let DirectMessage { from, machine, .. } = message;
        *from == self.own || self.trust.decide(from, Some(machine), Action::DirectReceive).allowed()
    }

    fn lets(&self, delivery: &Delivery) -> bool {
        match delivery {
            Delivery::Message(Message { author, .. }) => {
                *author == self.own
                    || self.trust.decide(author, None, Action::GossipDeliver).allowed()
            }
            _ => true,
        }
    }
}

/// Presence is told to whom it may be told: of and to those who are blocked or revoked, nothing.
impl Visibility for Gate {
    fn may_see(&self, viewer: &AgentId, subject: &AgentId) -> bool {
        let visible = |agent: &AgentId| {
            *agent == self.own || self.trust.decide(agent, None, Action::PresenceVisible).allowed()
        };
        visible(viewer) && visible(subject)
    }

    fn may_ask(&self, viewer: &AgentId) -> bool {
        *viewer == self.own || self.trust.decide(viewer, None, Action::PresenceQuery).allowed()
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
    pub(crate) trust: Trust,
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
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = flush.tick() => self.flush().await,
                _ = repeat.tick() => self.repeat(&standing).await,
                delivery = subscription.next() => match delivery {
                    Some(Delivery::Message(message)) => self.heard(&message).await,
                    Some(_) => {}
                    None => return,
                },
            }
        }
    }

    async fn flush(&self) {
        if let Err(error) = self.trust.flush().await {
            tracing::debug!(%error, "what was seen of contacts is not written");
        }
    }

    async fn repeat(&self, standing: &Standing) {
        if let Some(notice) = standing.notice(self.clock.wall())
            && let Err(error) = self.publish(&notice).await
        {
            tracing::debug!(%error, "the notice of this agent is not published");
        }
    }

    async fn heard(&self, message: &Message) {
        let known = match Notice::decode(&message.payload) {
            Ok(NoticeIn::Agent(notice)) => self.stands(message.author, *notice),
            Ok(NoticeIn::Revocation(revocation)) => self.revoked(*revocation).await,
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = known {
            tracing::debug!(author = %message.author.short(), error, "notice refused");
        }
    }

    fn stands(&self, author: AgentId, notice: AgentNoticeIn) -> Result<(), String> {
        let verified = notice.verify(author, self.clock.wall());
        let (binding, certificate) = verified.map_err(|error| error.to_string())?;
        // What it came to is counted, and asked of the policy by whoever acts on it.
        let _ = self.trust.observe(&binding.binding);
        if let Some(certificate) = certificate {
            self.trust.observe_user(author, certificate.certificate.user);
        }
        Ok(())
    }

    async fn revoked(&self, revocation: SignedRevocationIn) -> Result<(), String> {
        // What is known needs no second proof.
        if self.trust.is_revoked_for_all(&revocation.claimed_subject()) {
            return Ok(());
        }
        let signed = revocation.verify().map_err(|error| error.to_string())?;
        let kept = self.trust.learn(signed.revocation()).await;
        kept.map(|_| ()).map_err(|error| error.to_string())
    }
}
