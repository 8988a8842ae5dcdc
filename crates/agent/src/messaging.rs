//! Gossip and direct messages.

use bytes::Bytes;
use x0x_core::{AgentId, MachineId};
use x0x_direct::DirectError;
use x0x_gossip_pubsub::{PubSub, PublishError, Start, SubscribeError, Subscription, topic_id};

use crate::{Agent, DirectEvents, SendDirectError, directory::ConnectKind};

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

fn checked_topic(name: &str) -> Result<x0x_core::TopicId, TopicNameError> {
    match name.len() {
        0 => Err(TopicNameError::Empty),
        len if len > MAX_TOPIC_NAME => Err(TopicNameError::TooLong(len)),
        _ => Ok(topic_id(name)),
    }
}

impl Agent {
    /// Publishes to a topic, waiting while the log or a neighbour is too far behind. Returns once the
    /// message is accepted into this agent's topic log. Messages of one agent and topic keep their
    /// order. Cancel safe: a cancelled call has published nothing.
    ///
    /// # Errors
    /// The topic's name, a payload over the limit, or the agent has shut down.
    pub async fn publish(&self, topic: &str, payload: Bytes) -> Result<(), AgentPublishError> {
        self.inner.gossip.publish(checked_topic(topic)?, payload).await?;
        Ok(())
    }

    /// Publishes without waiting.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), and [`PublishError::Busy`] when it would have to wait.
    pub fn try_publish(&self, topic: &str, payload: Bytes) -> Result<(), AgentPublishError> {
        self.inner.gossip.try_publish(checked_topic(topic)?, payload)?;
        Ok(())
    }

    /// Subscribes to a topic: first what the log retains, then what arrives. Own messages come back
    /// too.
    ///
    /// # Errors
    /// The topic's name, or too many subscriptions.
    pub async fn subscribe(&self, topic: &str) -> Result<Subscription, AgentSubscribeError> {
        Ok(self.inner.gossip.subscribe(checked_topic(topic)?, Start::Retained).await?)
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
        let machine = self.machine_for(to).await?;
        let from = self.agent_id();
        match self.inner.direct.send(machine, from, to, payload).await {
            Ok(receipt) => {
                Ok(DirectReceipt { id: receipt.id, loopback: machine == self.machine_id() })
            }
            Err(DirectError::NotConnected) => Err(SendDirectError::Unreachable {
                agent: to,
                reason: "the session ended".to_owned(),
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// The direct messages that arrive from now on, and those that nobody has read yet.
    #[must_use]
    pub fn direct_events(&self) -> DirectEvents {
        self.inner.mailbox.reader()
    }

    /// The machine to send to: this one, one with a session that proved the agent, or one that
    /// discovery knows and that answers.
    async fn machine_for(&self, agent: AgentId) -> Result<MachineId, SendDirectError> {
        if agent == self.agent_id() {
            return Ok(self.machine_id());
        }
        if let Some(session) = self.session_of(agent) {
            return Ok(session.peer);
        }
        let outcome = self.connect(agent).await;
        match (outcome.kind, self.session_of(agent)) {
            (_, Some(session)) => Ok(session.peer),
            (ConnectKind::NotFound, None) => Err(SendDirectError::NotFound(agent)),
            (_, None) => Err(SendDirectError::Unreachable { agent, reason: outcome.reason }),
        }
    }
}
