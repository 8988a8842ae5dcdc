//! The narrow trait that the layers above hold.

use std::fmt;

use bytes::Bytes;
use x0x_core::TopicId;
use x0x_transport::BoxFuture;

use crate::{
    error::{PublishError, SubscribeError},
    handle::Subscription,
    subscriber::Start,
};

/// An entry that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// Its sequence number within this author, this service's epoch and the topic.
    pub seq: u64,
}

/// Publish to topics and read them.
///
/// An entry is accepted when it has its place in this author's log and waits for the signer. From
/// then on every subscriber that stays connected within the retention gets it exactly once and in
/// the order of its author, or is told that it lagged; the author's own subscriptions included.
pub trait PubSub: Send + Sync + fmt::Debug + 'static {
    /// Publishes, waiting while the topic is busy. Entries of one caller keep their order.
    fn publish(
        &self,
        topic: TopicId,
        payload: Bytes,
    ) -> BoxFuture<'_, Result<Published, PublishError>>;

    /// Publishes without waiting.
    ///
    /// # Errors
    /// [`PublishError::Busy`] when the topic's queue is full. Nothing was accepted.
    fn try_publish(&self, topic: TopicId, payload: Bytes) -> Result<(), PublishError>;

    /// Subscribes a topic, here and at all neighbours, until the subscription is dropped.
    fn subscribe(
        &self,
        topic: TopicId,
        start: Start,
    ) -> BoxFuture<'_, Result<Subscription, SubscribeError>>;
}
