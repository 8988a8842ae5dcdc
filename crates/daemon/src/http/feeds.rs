//! Streams of changes that all clients share: encoded once, with rising ids, and kept for a while.
//!
//! A feed begins with its first client and goes on until the daemon ends, so that one that was cut off gets
//! exactly what it missed. One that is new, or missed what is not kept any more, is told how things stand.

use std::{future::Future, sync::Once};

use axum::{http::HeaderMap, response::Response};
use bytes::{Bytes, BytesMut};
use x0x_api::{
    ErrorCode,
    event::{LAGGED, Lagged},
};

use super::{
    error::ApiError,
    sse::{self, Source},
};
use crate::{
    app::App,
    events::{Client, Encoded, EventBus, Taken},
};

/// Changes of one kind, as they happen.
pub(crate) trait Changes: Send + 'static {
    /// The next ones; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Option<Vec<Encoded>>> + Send;
}

/// How things stand.
pub(crate) trait Standing: Send + 'static {
    /// All of them, as if each had just come to be.
    fn tell(&self) -> impl Future<Output = Vec<Encoded>> + Send;
}

/// Of feeds that have nothing but changes.
pub(crate) struct ChangesOnly;

impl Standing for ChangesOnly {
    async fn tell(&self) -> Vec<Encoded> {
        Vec::new()
    }
}

/// What stands in a feed for changes that it missed itself.
pub(crate) fn missed(missed: u64) -> Encoded {
    sse::encode(LAGGED, &Lagged { missed, ..Lagged::default() })
}

/// The feeds of a daemon.
#[derive(Debug)]
pub(crate) struct Feeds {
    pub(crate) groups: Feed,
    pub(crate) peers: Feed,
    pub(crate) presence: Feed,
    pub(crate) receipts: Feed,
    pub(crate) transfers: Feed,
}

impl Feeds {
    /// Feeds whose first events have the id `base + 1`.
    pub(crate) fn new(base: u64) -> Self {
        let feed = || Feed { bus: EventBus::new(base), begun: Once::new() };
        let (groups, peers, presence) = (feed(), feed(), feed());
        Self { groups, peers, presence, receipts: feed(), transfers: feed() }
    }

    /// Events that clients missed.
    pub(crate) fn missed(&self) -> u64 {
        let Self { groups, peers, presence, receipts, transfers } = self;
        [groups, peers, presence, receipts, transfers].iter().map(|feed| feed.bus.missed()).sum()
    }
}

/// One kind of changes.
#[derive(Debug)]
pub(crate) struct Feed {
    bus: EventBus,
    begun: Once,
}

impl Feed {
    /// Streams to a client: what it missed since the id that it names, or how things stand, then what changes.
    pub(crate) fn respond<C: Changes>(
        &self,
        app: &App,
        headers: &HeaderMap,
        changes: impl FnOnce() -> C,
        standing: impl Standing,
    ) -> Result<Response, ApiError> {
        self.begun.call_once(|| {
            let (mut changes, bus, stop) = (changes(), self.bus.clone(), app.stop.clone());
            let carry = async move {
                while let Some(events) = changes.next().await {
                    bus.push(events).await;
                }
            };
            app.tasks.spawn(async move { stop.run_until_cancelled(carry).await });
        });
        // After the changes are listened to and before it is asked how things stand: nothing falls between.
        let after = sse::last_event_id(headers);
        let client = self.bus.client(after).ok_or_else(|| {
            ApiError::new(ErrorCode::LimitReached, "limit reached: event streams")
        })?;
        sse::respond(app, FeedSource { client, standing, unsure: after.is_none() })
    }
}

struct FeedSource<S> {
    client: Client,
    standing: S,
    /// Whether it is to be told how things stand.
    unsure: bool,
}

impl<S: Standing> Source for FeedSource<S> {
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        if self.unsure {
            let standing = self.standing.tell().await;
            self.unsure = false;
            let behind = self.client.last();
            standing.iter().for_each(|event| sse::append(&mut out, behind, event));
            if !out.is_empty() {
                return Some(out.freeze());
            }
        }
        let Taken { missed: lost, events } = self.client.take(sse::MAX_CHUNK).await;
        if let Some(lost) = lost {
            out.extend_from_slice(&missed(lost));
            self.unsure = true;
        }
        events.iter().for_each(|(id, event)| sse::append(&mut out, *id, event));
        Some(out.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct There(&'static [&'static str]);

    impl Standing for There {
        async fn tell(&self) -> Vec<Encoded> {
            self.0.iter().map(|name| sse::encode(name, &())).collect()
        }
    }

    async fn text(source: &mut FeedSource<There>) -> String {
        let bytes = source.next().await.expect("open");
        String::from_utf8(bytes.to_vec()).expect("text").replace("data: null\n\n", "")
    }

    fn join(bus: &EventBus, after: Option<u64>) -> FeedSource<There> {
        let client = bus.client(after).expect("room");
        FeedSource { client, standing: There(&["a", "b"]), unsure: after.is_none() }
    }

    #[tokio::test]
    async fn whoever_is_new_is_told_how_things_stand_and_whoever_comes_back_what_it_missed() {
        let bus = EventBus::new(100);
        bus.push(vec![sse::encode("x", &())]).await;
        let mut new = join(&bus, None);
        assert_eq!(text(&mut new).await, "id: 101\nevent: a\nid: 101\nevent: b\n");
        bus.push(vec![sse::encode("y", &())]).await;
        assert_eq!(text(&mut new).await, "id: 102\nevent: y\n");
        let mut back = join(&bus, Some(101));
        assert_eq!(text(&mut back).await, "id: 102\nevent: y\n");
    }

    #[tokio::test]
    async fn whoever_missed_what_is_not_known_is_told_so_and_then_how_things_stand() {
        let bus = EventBus::new(100);
        bus.push(vec![sse::encode("x", &())]).await;
        let mut lost = join(&bus, Some(7));
        let told = text(&mut lost).await;
        assert_eq!(told, "event: lagged\ndata: {\"missed\":0}\n\nid: 101\nevent: x\n");
        assert_eq!(text(&mut lost).await, "id: 101\nevent: a\nid: 101\nevent: b\n");
    }
}
