//! The narrow trait that the layers above hold.

use std::fmt;

use bytes::Bytes;
use tokio::sync::oneshot;
use x0x_core::TopicId;
use x0x_transport::BoxFuture;

use crate::{
    error::{PublishError, SubscribeError},
    handle::Subscription,
    retention::{ChainEnd, Retention},
    subscriber::{Cursor, Start},
};

/// An entry that is in this node's log, signed, and stored if there is a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// The epoch of its chain: this service's, in its retention class.
    pub epoch: u64,
    /// Its sequence number within this author, the epoch and the topic.
    pub seq: u64,
    /// The place behind it in this node's log; none where there is no log, as in fakes.
    pub cursor: Option<Cursor>,
    /// Links that subscribe the topic now: how many neighbours it goes to at once.
    pub neighbors: usize,
}

impl Published {
    /// An entry without a place.
    #[must_use]
    pub const fn unplaced(epoch: u64, seq: u64) -> Self {
        Self { epoch, seq, cursor: None, neighbors: 0 }
    }
}

/// An entry that was accepted for publishing: it has its sequence number and will be published
/// unless the service fails, whether this is waited for or dropped.
#[derive(Debug)]
pub struct Accepted {
    epoch: u64,
    seq: u64,
    published: Option<oneshot::Receiver<Result<Published, PublishError>>>,
}

impl Accepted {
    pub(crate) const fn new(
        (epoch, seq): (u64, u64),
        published: Option<oneshot::Receiver<Result<Published, PublishError>>>,
    ) -> Self {
        Self { epoch, seq, published }
    }

    /// Its sequence number within this author, this service's epoch of its retention class, and the
    /// topic.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// The epoch of its chain: this service's, in its retention class.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Waits until it is in this node's log, and stored if there is a store.
    ///
    /// # Errors
    /// [`PublishError::NotStored`] when the store failed; [`PublishError::Closed`] when the service
    /// ended before.
    pub async fn published(self) -> Result<Published, PublishError> {
        match self.published {
            Some(published) => published.await.unwrap_or(Err(PublishError::Closed)),
            None => Ok(Published::unplaced(self.epoch, self.seq)),
        }
    }
}

/// Publish to topics and read them.
///
/// An entry is published when it is signed and in this author's log. From then on every subscriber that
/// stays connected within its [`Retention`] gets it exactly once and in the order of its author, or is
/// told that it lagged; the author's own subscriptions included.
pub trait PubSub: Send + Sync + fmt::Debug + 'static {
    /// Accepts an entry, waiting while the topic is busy. Entries of one caller and class keep their
    /// order. Cancel-safe: a call that is dropped has accepted nothing. Who has many to publish accepts
    /// them one after the other and waits for [`Accepted::published`] later.
    fn accept_as(
        &self,
        topic: TopicId,
        retention: Retention,
        payload: Bytes,
    ) -> BoxFuture<'_, Result<Accepted, PublishError>>;

    /// Accepts an entry without waiting.
    ///
    /// # Errors
    /// [`PublishError::Busy`] when the topic's queue is full. Nothing was accepted.
    fn try_publish_as(
        &self,
        topic: TopicId,
        retention: Retention,
        payload: Bytes,
    ) -> Result<(), PublishError>;

    /// As [`accept_as`](Self::accept_as), in the standard class.
    fn accept(
        &self,
        topic: TopicId,
        payload: Bytes,
    ) -> BoxFuture<'_, Result<Accepted, PublishError>> {
        self.accept_as(topic, Retention::Standard, payload)
    }

    /// As [`try_publish_as`](Self::try_publish_as), in the standard class.
    ///
    /// # Errors
    /// [`PublishError::Busy`] when the topic's queue is full. Nothing was accepted.
    fn try_publish(&self, topic: TopicId, payload: Bytes) -> Result<(), PublishError> {
        self.try_publish_as(topic, Retention::Standard, payload)
    }

    /// Publishes in the standard class: accepts an entry and waits until it is in this node's log, and
    /// stored if there is a store. A call that is dropped may have published it.
    fn publish(
        &self,
        topic: TopicId,
        payload: Bytes,
    ) -> BoxFuture<'_, Result<Published, PublishError>> {
        let accepted = self.accept(topic, payload);
        Box::pin(async move { accepted.await?.published().await })
    }

    /// Subscribes a topic, here and at all neighbours, until the subscription is dropped.
    fn subscribe(
        &self,
        topic: TopicId,
        start: Start,
    ) -> BoxFuture<'_, Result<Subscription, SubscribeError>>;

    /// Lets go of what is kept for ever, and nobody here needs any more: of each chain the entries up to a
    /// number, but those that share a run with later ones. Peers and readers are told as of any other retention.
    /// What a peer still has may come again, as long as the chain's place is not remembered.
    fn release(&self, topic: TopicId, upto: Vec<ChainEnd>) -> BoxFuture<'_, ()>;
}
