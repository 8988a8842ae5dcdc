//! Subscriptions made by `POST /subscribe`: each carries a topic's messages to the event bus.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use data_encoding::HEXLOWER;
use tokio::task::JoinHandle;
use x0x_agent::{Agent, Delivery, Subscription, trust::Trust};
use x0x_api::{
    Base64, CursorToken, ErrorCode, Since,
    event::{Event, LAGGED, Lagged, MESSAGE, MessageEvent},
    limits::MAX_SUBSCRIPTIONS,
    types::SubscriptionEntry,
};

use crate::{
    convert,
    events::{Encoded, EventBus},
    http::{error::ApiError, sse},
};

/// Deliveries taken at once.
const BATCH: usize = 64;

/// A subscription, or a place for one that is being made.
#[derive(Debug)]
struct Row {
    topic: String,
    task: Option<JoinHandle<()>>,
}

/// The subscriptions, by id.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions(Mutex<BTreeMap<String, Row>>);

impl Subscriptions {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Subscribes to a topic and returns the subscription's id.
    pub(crate) async fn add(
        &self,
        agent: &Agent,
        bus: &EventBus,
        topic: String,
        since: Since,
    ) -> Result<String, ApiError> {
        let mut place = self.reserve(&topic)?;
        let subscription = agent.subscribe_from(&topic, convert::start(since)).await?;
        let id = place.id.clone();
        let mut rows = self.lock();
        // It is gone when the daemon stopped meanwhile.
        let Some(row) = rows.get_mut(&id) else {
            return Err(ApiError::new(ErrorCode::ShuttingDown, "the daemon is stopping"));
        };
        row.task = Some(tokio::spawn(forward(id.clone(), topic, subscription, bus.clone())));
        place.kept = true;
        Ok(id)
    }

    /// Takes a place, so that concurrent requests cannot pass the cap together.
    fn reserve(&self, topic: &str) -> Result<Place<'_>, ApiError> {
        let id = new_id()?;
        let mut rows = self.lock();
        if rows.len() >= MAX_SUBSCRIPTIONS {
            let text = format!("limit reached: subscriptions (at most {MAX_SUBSCRIPTIONS})");
            return Err(ApiError::new(ErrorCode::LimitReached, text));
        }
        rows.insert(id.clone(), Row { topic: topic.to_owned(), task: None });
        Ok(Place { rows: self, id, kept: false })
    }

    /// Ends a subscription: no event of it follows. False when there is none with this id.
    pub(crate) async fn remove(&self, id: &str) -> bool {
        let row = self.lock().remove(id);
        let Some(row) = row else { return false };
        if let Some(task) = row.task {
            task.abort();
            // Ends as cancelled; what matters is that it has ended.
            let _ = task.await;
        }
        true
    }

    /// Ends all of them.
    pub(crate) async fn clear(&self) {
        let ids: Vec<_> = self.lock().keys().cloned().collect();
        for id in ids {
            self.remove(&id).await;
        }
    }

    /// Those that are made.
    pub(crate) fn list(&self) -> Vec<SubscriptionEntry> {
        let rows = self.lock();
        let made = rows.iter().filter(|(_, row)| row.task.is_some());
        let entry = |(id, row): (&String, &Row)| SubscriptionEntry {
            subscription_id: id.clone(),
            topic: row.topic.clone(),
        };
        made.map(entry).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }
}

/// A place that was taken; dropped before it is kept, it is free again. A request ends like that
/// when its client goes away.
#[derive(Debug)]
struct Place<'a> {
    rows: &'a Subscriptions,
    id: String,
    kept: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.rows.lock().remove(&self.id);
        }
    }
}

async fn forward(id: String, topic: String, mut subscription: Subscription, bus: EventBus) {
    loop {
        let batch = subscription.next_batch(BATCH).await;
        if batch.is_empty() {
            return;
        }
        let events =
            batch.into_iter().filter_map(|item| encode(&id, &topic, subscription.trust(), item));
        bus.push(events.map(|(_, event)| event).collect()).await;
    }
}

/// A delivery of a topic as an event, and the place after it if it is a message.
pub(crate) fn encode(
    id: &str,
    topic: &str,
    trust: &Trust,
    delivery: Delivery,
) -> Option<(Option<CursorToken>, Encoded)> {
    match delivery {
        Delivery::Message(message) => {
            let cursor = convert::cursor(message.cursor);
            let event = Event::Message(MessageEvent {
                subscription_id: id.to_owned(),
                topic: topic.to_owned(),
                payload: Base64(message.payload),
                sender: Some(message.author),
                verified: true,
                trust_level: Some(convert::level(trust.level(&message.author))),
                epoch: message.epoch,
                seq: message.seq,
                gap: message.gap,
                cursor,
            });
            Some((Some(cursor), sse::encode(MESSAGE, &event)))
        }
        Delivery::Lagged { missed } => {
            let (topic, subscription_id) = (Some(topic.to_owned()), Some(id.to_owned()));
            let event = Event::Lagged(Lagged { missed, topic, subscription_id });
            Some((None, sse::encode(LAGGED, &event)))
        }
        // A delivery of a later kind says nothing to clients of this API.
        _ => None,
    }
}

/// A new subscription's id.
pub(crate) fn new_id() -> Result<String, ApiError> {
    let mut random = [0; 8];
    getrandom::fill(&mut random)
        .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
    Ok(HEXLOWER.encode(&random))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::{Config, Daemon};

    #[tokio::test]
    async fn a_cancelled_request_leaves_nothing() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let daemon = Box::pin(Daemon::start(Config::isolated(directory.path()))).await;
        let daemon = daemon.expect("it starts");
        let (subscriptions, bus) = (Subscriptions::default(), EventBus::new(0));
        let add = || subscriptions.add(daemon.agent(), &bus, "news".to_owned(), Since::Oldest);
        assert!(add().now_or_never().is_none(), "the gossip layer has to answer first");
        assert_eq!(subscriptions.len(), 0);
        let refused = subscriptions.add(daemon.agent(), &bus, String::new(), Since::Oldest).await;
        assert!(refused.is_err());
        assert_eq!(subscriptions.len(), 0, "a refused one leaves nothing either");
        let id = add().await.expect("there is room");
        assert_eq!(subscriptions.len(), 1);
        let entry = SubscriptionEntry { subscription_id: id.clone(), topic: "news".to_owned() };
        assert_eq!(subscriptions.list(), [entry]);
        assert!(subscriptions.remove(&id).await && !subscriptions.remove(&id).await);
        daemon.shutdown().await;
    }
}
