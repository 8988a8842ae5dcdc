//! Gossip and direct messages.

use std::time::Duration;

use bytes::Bytes;
use x0x_core::{AgentId, MachineId, TopicId};
use x0x_direct::{DirectError, Kind, MessageId, Sending, Terms, mail::Letter};
use x0x_gossip_pubsub::{
    Accepted, PubSub, PublishError, Published, Retention, Start, SubscribeError, WaitError,
};

use x0x_trust::{Action, Policy};

use crate::{
    Agent, DirectEvents, LetterOptions, SendDirectError, Subscription, directory::ConnectKind,
    letters::Recorder,
};

/// Longest topic name in bytes.
pub const MAX_TOPIC_NAME: usize = 1024;

/// A direct message was acknowledged: the recipient's inbox holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectReceipt {
    /// The message's id.
    pub id: [u8; 16],
    /// The recipient is this agent itself.
    pub loopback: bool,
}

/// A direct message that has its place in the order. Dropping it changes nothing but that the outcome
/// is not known.
#[derive(Debug)]
#[must_use = "the outcome of the send is only known by awaiting it"]
pub struct QueuedDirect {
    sending: Sending,
    to: AgentId,
    loopback: bool,
    /// What the history says of it, once it is acknowledged.
    record: Option<(Letter, Recorder)>,
}

impl QueuedDirect {
    /// Waits until the recipient's inbox has the message.
    ///
    /// # Errors
    /// As [`Agent::send_direct`].
    pub async fn acknowledged(self) -> Result<DirectReceipt, SendDirectError> {
        let Self { sending, to, loopback, record } = self;
        let receipt = sending.await.map_err(|error| failed(to, error))?;
        if let Some((letter, recorder)) = record {
            recorder.record(letter);
        }
        Ok(DirectReceipt { id: receipt.id, loopback })
    }
}

fn failed(to: AgentId, error: DirectError) -> SendDirectError {
    match error {
        DirectError::NotConnected => {
            SendDirectError::Unreachable { agent: to, reason: "the session ended".to_owned() }
        }
        error => error.into(),
    }
}

/// A topic's name is empty or too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicNameError {
    /// No characters.
    #[error("topic must not be empty")]
    Empty,
    /// More than [`MAX_TOPIC_NAME`] bytes.
    #[error("topic name of {0} bytes exceeds the limit of {MAX_TOPIC_NAME}")]
    TooLong(usize),
}

/// A message was not published.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AgentPublishError {
    /// The topic's name.
    #[error(transparent)]
    Topic(#[from] TopicNameError),
    /// The gossip layer's answer.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// What was waited for did not come.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AgentWaitError {
    /// The topic's name.
    #[error(transparent)]
    Topic(#[from] TopicNameError),
    /// The gossip layer's answer.
    #[error(transparent)]
    Wait(#[from] WaitError),
}

/// A subscription was not made.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AgentSubscribeError {
    /// The topic's name.
    #[error(transparent)]
    Topic(#[from] TopicNameError),
    /// The gossip layer's answer.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
}

impl Agent {
    /// Publishes to a topic, waiting while the log or a neighbour is too far behind, and until the
    /// message is in this agent's topic log, on disk if it keeps topics there. Messages of one agent
    /// and topic keep their order. A call that is cancelled may have published; see
    /// [`accept`](Self::accept).
    ///
    /// # Errors
    /// The topic's name, a payload over the limit, a disk that does not take it, or the agent has shut
    /// down.
    pub async fn publish(
        &self,
        topic: &str,
        payload: Bytes,
    ) -> Result<Published, AgentPublishError> {
        Ok(self.accept(topic, payload).await?.published().await?)
    }

    /// The first half of a publish: returns once the message has its place in the order. Cancel safe:
    /// a cancelled call has published nothing. Await [`Accepted::published`] to know that it is kept.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub async fn accept(&self, topic: &str, payload: Bytes) -> Result<Accepted, AgentPublishError> {
        self.accept_as(topic, Retention::Standard, payload).await
    }

    /// As [`accept`](Self::accept), in a retention class. Messages of one class keep their order.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub async fn accept_as(
        &self,
        topic: &str,
        retention: Retention,
        payload: Bytes,
    ) -> Result<Accepted, AgentPublishError> {
        let topic = self.topic(topic)?;
        Ok(self.inner.gossip.accept_as(topic, retention, payload).await?)
    }

    /// Waits until a peer has a message that this agent published.
    ///
    /// # Errors
    /// The topic's name, or none had it in time.
    pub async fn first_hop(
        &self,
        topic: &str,
        published: &Published,
        within: Duration,
    ) -> Result<(), AgentWaitError> {
        let topic = self.topic(topic)?;
        Ok(self.inner.gossip.first_hop(topic, published, within).await?)
    }

    /// Waits until so many peers subscribe a topic, and returns how many do: what is published then
    /// goes to them at once.
    ///
    /// # Errors
    /// The topic's name, or there were fewer all the time.
    pub async fn ready(
        &self,
        topic: &str,
        peers: usize,
        within: Duration,
    ) -> Result<usize, AgentWaitError> {
        let topic = self.topic(topic)?;
        Ok(self.inner.gossip.ready(topic, peers, within).await?)
    }

    /// Publishes without waiting.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), and [`PublishError::Busy`] when it would have to wait.
    pub fn try_publish(&self, topic: &str, payload: Bytes) -> Result<(), AgentPublishError> {
        self.try_publish_as(topic, Retention::Standard, payload)
    }

    /// As [`try_publish`](Self::try_publish), in a retention class.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), and [`PublishError::Busy`] when it would have to wait.
    pub fn try_publish_as(
        &self,
        topic: &str,
        retention: Retention,
        payload: Bytes,
    ) -> Result<(), AgentPublishError> {
        self.inner.gossip.try_publish_as(self.topic(topic)?, retention, payload)?;
        Ok(())
    }

    /// Subscribes to a topic: first what the log retains, then what arrives. Own messages come back
    /// too.
    ///
    /// # Errors
    /// The topic's name, or too many subscriptions.
    pub async fn subscribe(&self, topic: &str) -> Result<Subscription, AgentSubscribeError> {
        self.subscribe_from(topic, Start::Retained).await
    }

    /// Subscribes to a topic from a place in its log on, such as the cursor of the last message that
    /// was read.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    pub async fn subscribe_from(
        &self,
        topic: &str,
        start: Start,
    ) -> Result<Subscription, AgentSubscribeError> {
        let topic = self.topic(topic)?;
        let subscription = self.inner.gossip.subscribe(topic, start).await?;
        Ok(Subscription::new(subscription, self.gate()))
    }

    /// The topic with this name; notes the name, so that diagnostics can show it.
    fn topic(&self, name: &str) -> Result<TopicId, TopicNameError> {
        match name.len() {
            0 => Err(TopicNameError::Empty),
            len if len > MAX_TOPIC_NAME => Err(TopicNameError::TooLong(len)),
            _ => Ok(self.inner.topics.id(name)),
        }
    }

    /// Sends a private message and waits until the recipient's inbox has it.
    ///
    /// # Errors
    /// [`SendDirectError`]; after [`DirectError::Unconfirmed`] and [`DirectError::Timeout`] the
    /// message may have arrived.
    pub async fn send_direct(
        &self,
        to: AgentId,
        payload: Bytes,
    ) -> Result<DirectReceipt, SendDirectError> {
        self.queue_direct(to, payload).await?.acknowledged().await
    }

    /// The first half of a send: returns once the message has its place in the order, with a session
    /// to its recipient. Who awaits each call to this keeps messages in order with many in flight.
    ///
    /// # Errors
    /// As [`send_direct`](Self::send_direct).
    pub async fn queue_direct(
        &self,
        to: AgentId,
        payload: Bytes,
    ) -> Result<QueuedDirect, SendDirectError> {
        self.queue_direct_as(self.new_message_id(), to, payload, Terms::default()).await
    }

    /// A fresh id for a message.
    #[must_use]
    pub fn new_message_id(&self) -> MessageId {
        self.inner.direct.new_id()
    }

    /// The same for a message with this id, to be treated in its own way. Sending again with the same
    /// id delivers it at most once.
    ///
    /// # Errors
    /// As [`send_direct`](Self::send_direct).
    pub async fn queue_direct_as(
        &self,
        id: MessageId,
        to: AgentId,
        payload: Bytes,
        terms: Terms,
    ) -> Result<QueuedDirect, SendDirectError> {
        let machine = self.machine_for(to).await?;
        let (direct, from) = (&self.inner.direct, self.agent_id());
        let record = (terms.kind == Kind::Mail).then(|| {
            let options = LetterOptions { reply_to: terms.reply_to, ..LetterOptions::default() };
            let letter = self.letter(id, to, payload.clone(), &options);
            (letter, self.inner.mail.recorder.clone())
        });
        let queued = direct.queue_as(id, machine, (from, to), payload, terms).await;
        let sending = queued.map_err(|error| failed(to, error))?;
        Ok(QueuedDirect { sending, to, loopback: machine == self.machine_id(), record })
    }

    /// The direct messages that arrive from now on, and those that nobody has read yet.
    #[must_use]
    pub fn direct_events(&self) -> DirectEvents {
        self.inner.mail.mailbox.reader(self.gate())
    }

    /// Whether anything may be sent to an agent.
    pub(crate) fn check_recipient(&self, agent: AgentId) -> Result<(), SendDirectError> {
        let decision = self.trust().decide(&agent, None, Action::DirectSend);
        if agent == self.agent_id() || decision.allowed() {
            return Ok(());
        }
        Err(SendDirectError::Forbidden(decision.reason))
    }

    /// The machine to send to: this one, one with a session that proved the agent, or one that
    /// discovery knows and that answers.
    pub(crate) async fn machine_for(&self, agent: AgentId) -> Result<MachineId, SendDirectError> {
        if agent == self.agent_id() {
            return Ok(self.machine_id());
        }
        let decide =
            |machine: Option<&MachineId>| self.trust().decide(&agent, machine, Action::DirectSend);
        // Blocked and revoked agents are not even looked for.
        let decision = decide(None);
        if !decision.allowed() {
            return Err(SendDirectError::Forbidden(decision.reason));
        }
        if let Some(machine) = self.inner.direct.machine_of(agent)
            && decide(Some(&machine)).allowed()
        {
            return Ok(machine);
        }
        // A session that began this instant is found here.
        let outcome = self.connect(agent).await;
        match (outcome.kind, self.session_of(agent)) {
            (_, Some(session)) => match decide(Some(&session.peer)) {
                decision if decision.allowed() => Ok(session.peer),
                decision => Err(SendDirectError::Forbidden(decision.reason)),
            },
            (ConnectKind::NotFound, None) => Err(SendDirectError::NotFound(agent)),
            (_, None) => Err(SendDirectError::Unreachable { agent, reason: outcome.reason }),
        }
    }
}
