//! A session's topics: one gossip subscription and one task each.

use std::{collections::BTreeMap, sync::Arc};

use tokio::task::JoinHandle;
use x0x_agent::{Agent, Delivery, Subscription};
use x0x_api::{Base64, ErrorCode, Since, limits::MAX_WS_TOPICS, ws::ServerFrame};

use super::{
    outbox::{self, Outbox},
    registry::Entry,
};
use crate::{convert, http::error::ApiError};

/// Deliveries taken at once.
const BATCH: usize = 64;

/// The topics. Dropping them ends their tasks.
#[derive(Debug)]
pub(super) struct Topics {
    agent: Agent,
    outbox: Arc<Outbox>,
    tasks: BTreeMap<String, JoinHandle<()>>,
}

impl Topics {
    pub(super) fn new(agent: Agent, outbox: Arc<Outbox>) -> Self {
        Self { agent, outbox, tasks: BTreeMap::new() }
    }

    /// Adds those that the session does not have. The `subscribed` frame comes before their first
    /// message.
    pub(super) async fn subscribe(
        &mut self,
        topics: Vec<String>,
        since: &BTreeMap<String, String>,
        entry: &Entry,
    ) {
        let mut subscribed = Vec::new();
        let mut added = Vec::new();
        for topic in topics {
            let known = self.tasks.contains_key(&topic)
                || added.iter().any(|(name, _): &(String, Subscription)| *name == topic);
            if !known {
                let since = since.get(&topic).map(String::as_str);
                match self.subscription(&topic, since, added.len()).await {
                    Ok(subscription) => added.push((topic.clone(), subscription)),
                    Err(error) => {
                        let (code, message) =
                            (error.code(), format!("subscribe failed: {}", error.0));
                        let topic = Some(topic);
                        let frame = ServerFrame::Error {
                            message,
                            code,
                            id: None,
                            index: None,
                            request_id: None,
                            topic,
                        };
                        self.outbox.push(&frame).await;
                        continue;
                    }
                }
            }
            subscribed.push(topic);
        }
        self.outbox.push(&ServerFrame::Subscribed { topics: subscribed }).await;
        for (topic, subscription) in added {
            let forward = forward(topic.clone(), subscription, Arc::clone(&self.outbox));
            self.tasks.insert(topic, tokio::spawn(forward));
        }
        entry.set_topics(self.tasks.keys().cloned().collect());
    }

    async fn subscription(
        &self,
        topic: &str,
        since: Option<&str>,
        pending: usize,
    ) -> Result<Subscription, ApiError> {
        if self.tasks.len() + pending >= MAX_WS_TOPICS {
            let text = format!("limit reached: topics of a session (at most {MAX_WS_TOPICS})");
            return Err(ApiError::new(ErrorCode::LimitReached, text));
        }
        let start = convert::start(Since::parse(since)?);
        Ok(self.agent.subscribe_from(topic, start).await?)
    }

    /// Removes topics: no message of them follows the `unsubscribed` frame.
    pub(super) async fn unsubscribe(&mut self, topics: Vec<String>, entry: &Entry) {
        for topic in &topics {
            if let Some(task) = self.tasks.remove(topic) {
                task.abort();
                // Ends as cancelled; what matters is that it has ended.
                let _ = task.await;
            }
        }
        entry.set_topics(self.tasks.keys().cloned().collect());
        self.outbox.push(&ServerFrame::Unsubscribed { topics }).await;
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        self.tasks.values().for_each(JoinHandle::abort);
    }
}

async fn forward(topic: String, mut subscription: Subscription, outbox: Arc<Outbox>) {
    loop {
        let batch = subscription.next_batch(BATCH).await;
        if batch.is_empty() {
            return;
        }
        let frames = batch.into_iter().filter_map(|delivery| frame(&topic, delivery));
        outbox.push_all(frames.map(|frame| outbox::text(&frame))).await;
    }
}

fn frame(topic: &str, delivery: Delivery) -> Option<ServerFrame> {
    match delivery {
        Delivery::Message(message) => Some(ServerFrame::Message {
            topic: topic.to_owned(),
            payload: Base64(message.payload),
            origin: Some(message.author),
            epoch: message.epoch,
            seq: message.seq,
            gap: message.gap,
            cursor: convert::cursor(message.cursor),
        }),
        Delivery::Lagged { missed } => {
            Some(ServerFrame::Lagged { missed, topic: Some(topic.to_owned()) })
        }
        // A delivery of a later kind says nothing to clients of this API.
        _ => None,
    }
}
