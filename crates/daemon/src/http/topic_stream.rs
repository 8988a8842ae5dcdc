//! `GET /events?topic=..`: a stream of topics of its own. The id of each event says where the stream is in
//! all of its topics, so that a client that reconnects with `Last-Event-ID` goes on there, also after
//! the daemon was started anew.

use std::fmt;

use bytes::{Bytes, BytesMut};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream, SelectAll},
};
use x0x_agent::{Agent, Delivery, Subscription, trust::Trust};
use x0x_api::{CursorToken, ErrorCode, Since, limits::MAX_STREAM_TOPICS};

use super::{
    error::ApiError,
    sse::{self, Source},
};
use crate::{convert, subscriptions};

/// Deliveries taken at once.
const BATCH: usize = 64;
/// In an event's id, a topic of which nothing came yet.
const NOTHING: &str = "-";

/// What a client asks of a stream: its query.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    topics: Vec<String>,
    since: Option<String>,
}

impl Wanted {
    /// Reads the query; `None` when it names no topic.
    pub(crate) fn of_query(query: Vec<(String, String)>) -> Result<Option<Self>, ApiError> {
        let mut wanted = Self::default();
        for (name, value) in query {
            match name.as_str() {
                "topic" if wanted.topics.contains(&value) => {
                    return Err(invalid("a topic is named twice"));
                }
                "topic" => wanted.topics.push(value),
                "since" => wanted.since = Some(value),
                _ => {}
            }
        }
        if wanted.topics.len() > MAX_STREAM_TOPICS {
            return Err(invalid(&format!("a stream has at most {MAX_STREAM_TOPICS} topics")));
        }
        match (wanted.topics.is_empty(), &wanted.since) {
            (true, Some(_)) => Err(invalid("since needs the topic that it is a place in")),
            (true, None) => Ok(None),
            (false, _) => Ok(Some(wanted)),
        }
    }

    /// Where each topic begins: after the last event that the client has, else where it asks.
    fn starts(&self, last_event_id: Option<&str>) -> Result<Vec<Since>, ApiError> {
        let count = self.topics.len();
        let Some(text) = last_event_id.or(self.since.as_deref()) else {
            return Ok(vec![Since::Oldest; count]);
        };
        if text == "now" {
            return Ok(vec![Since::Now; count]);
        }
        let parts: Vec<_> = text.split(',').collect();
        if parts.len() != count {
            let text = format!("{} cursors for {count} topics", parts.len());
            return Err(ApiError::new(ErrorCode::InvalidCursor, text));
        }
        let parse = |part: &str| Since::parse((part != NOTHING).then_some(part));
        parts.into_iter().map(|part| parse(part).map_err(ApiError::from)).collect()
    }
}

fn invalid(text: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidQuery, text)
}

/// The deliveries of some topics.
pub(crate) struct TopicStream {
    id: String,
    topics: Vec<String>,
    places: Vec<Option<CursorToken>>,
    deliveries: SelectAll<BoxStream<'static, (usize, Vec<Delivery>)>>,
    trust: Trust,
}

impl TopicStream {
    /// Subscribes. The subscriptions end with the stream.
    pub(crate) async fn open(
        agent: &Agent,
        wanted: Wanted,
        last_event_id: Option<&str>,
    ) -> Result<Self, ApiError> {
        let starts = wanted.starts(last_event_id)?;
        let mut deliveries = SelectAll::new();
        for (index, (topic, since)) in wanted.topics.iter().zip(&starts).enumerate() {
            let subscription = agent.subscribe_from(topic, convert::start(*since)).await?;
            deliveries.push(batches(index, subscription).boxed());
        }
        let place = |since: Since| match since {
            Since::After(token) => Some(token),
            _ => None,
        };
        Ok(Self {
            id: subscriptions::new_id()?,
            places: starts.into_iter().map(place).collect(),
            topics: wanted.topics,
            deliveries,
            trust: agent.trust().clone(),
        })
    }
}

fn batches(
    index: usize,
    subscription: Subscription,
) -> impl stream::Stream<Item = (usize, Vec<Delivery>)> {
    stream::unfold(subscription, move |mut subscription| async move {
        let batch = subscription.next_batch(BATCH).await;
        (!batch.is_empty()).then_some(((index, batch), subscription))
    })
}

impl Source for TopicStream {
    async fn next(&mut self) -> Option<Bytes> {
        let (index, batch) = self.deliveries.next().await?;
        let topic = self.topics.get(index)?;
        let mut out = BytesMut::new();
        for delivery in batch {
            let Some((cursor, event)) =
                subscriptions::encode(&self.id, topic, &self.trust, delivery)
            else {
                continue;
            };
            match cursor {
                Some(cursor) => {
                    if let Some(place) = self.places.get_mut(index) {
                        *place = Some(cursor);
                    }
                    sse::append(&mut out, Places(&self.places), &event);
                }
                None => out.extend_from_slice(&event),
            }
        }
        Some(out.freeze())
    }
}

/// The id of an event: the places in all topics of its stream.
struct Places<'a>(&'a [Option<CursorToken>]);

impl fmt::Display for Places<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, place) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match place {
                Some(token) => write!(f, "{token}")?,
                None => f.write_str(NOTHING)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(query: &[(&str, &str)]) -> Result<Option<Wanted>, ApiError> {
        Wanted::of_query(
            query.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        )
    }

    #[test]
    fn the_query_names_topics_and_one_place_for_each() {
        assert!(wanted(&[("token", "x")]).expect("valid").is_none());
        let two = wanted(&[("topic", "a"), ("topic", "b"), ("since", "1-2,-")]);
        let two = two.expect("valid").expect("topics");
        let token = CursorToken { log: 1, position: 2 };
        let starts = |last| two.starts(last).expect("valid");
        assert_eq!(starts(None), [Since::After(token), Since::Oldest]);
        assert_eq!(starts(Some("-,1-2")), [Since::Oldest, Since::After(token)]);
        assert_eq!(starts(Some("now")), [Since::Now, Since::Now]);
        let id = Places(&[Some(token), None]).to_string();
        assert_eq!(starts(Some(&id)), [Since::After(token), Since::Oldest]);
        for bad in ["1-2", "1-2,1-2,1-2", "7", "1-2,x", ""] {
            let error = two.starts(Some(bad)).expect_err("refused");
            assert_eq!(error.code(), ErrorCode::InvalidCursor, "{bad}");
        }
        let many: Vec<_> = (0..=MAX_STREAM_TOPICS).map(|n| n.to_string()).collect();
        let many: Vec<_> = many.iter().map(|topic| ("topic", topic.as_str())).collect();
        for bad in [&many[..], &[("topic", "a"), ("topic", "a")], &[("since", "now")]] {
            let error = wanted(bad).expect_err("refused");
            assert_eq!(error.code(), ErrorCode::InvalidQuery);
        }
    }
}
