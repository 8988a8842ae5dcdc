//! A session's watched task lists and stores: one task each.

use std::{collections::BTreeMap, sync::Arc};

use tokio::task::JoinHandle;
use x0x_agent::objects::{Note, Watch};
use x0x_api::{
    ErrorCode,
    limits::MAX_WS_WATCHED,
    ws::{ServerFrame, WatchedEvent, WatchedKind},
};

use super::outbox::{self, Outbox};
use crate::{
    app::App,
    http::{
        error::ApiError,
        routes::{stores, tasks},
    },
};

/// An object as the client named it.
type Named = (WatchedKind, String);

/// The objects. Dropping them ends their tasks.
pub(super) struct Watches {
    app: Arc<App>,
    outbox: Arc<Outbox>,
    tasks: BTreeMap<Named, JoinHandle<()>>,
}

impl Watches {
    pub(super) fn new(app: Arc<App>, outbox: Arc<Outbox>) -> Self {
        Self { app, outbox, tasks: BTreeMap::new() }
    }

    /// Adds an object, or begins it anew. The `watching` frame comes before its first change.
    pub(super) async fn watch(&mut self, kind: WatchedKind, object: String, after: Option<u64>) {
        let named = (kind, object);
        self.end(&named).await;
        self.tasks.retain(|_, task| !task.is_finished());
        if let Err(error) = self.begin(&named, after).await {
            let (code, message) = (error.code(), format!("watch failed: {}", error.0));
            self.outbox.push(&outbox::error(code, message)).await;
        }
    }

    async fn begin(&mut self, named: &Named, after: Option<u64>) -> Result<(), ApiError> {
        if self.tasks.len() >= MAX_WS_WATCHED {
            let text =
                format!("limit reached: watched objects of a session (at most {MAX_WS_WATCHED})");
            return Err(ApiError::new(ErrorCode::LimitReached, text));
        }
        let (kind, object) = named.clone();
        let outbox = Arc::clone(&self.outbox);
        let watching = ServerFrame::Watching { kind, object: object.clone() };
        let task = match kind {
            WatchedKind::TaskList => {
                let list = tasks::find(&self.app, &object).await?;
                let (watch, id) = (list.watch(after), list.name().to_string());
                self.outbox.push(&watching).await;
                tokio::spawn(forward(watch, named.clone(), outbox, move |event| {
                    tasks::event_data(&id, event).map(WatchedEvent::Task)
                }))
            }
            WatchedKind::Store => {
                let store = stores::find(&self.app, &object).await?;
                let (watch, id) = (store.watch(after), store.name().to_string());
                self.outbox.push(&watching).await;
                tokio::spawn(forward(watch, named.clone(), outbox, move |event| {
                    stores::event_data(&id, event).map(WatchedEvent::Store)
                }))
            }
            _ => {
                let text = "not a kind of this version";
                return Err(ApiError::new(ErrorCode::InvalidCommand, text));
            }
        };
        self.tasks.insert(named.clone(), task);
        Ok(())
    }

    /// Removes an object: nothing of it follows the `unwatched` frame.
    pub(super) async fn unwatch(&mut self, kind: WatchedKind, object: String) {
        let named = (kind, object);
        self.end(&named).await;
        let (kind, object) = named;
        self.outbox.push(&ServerFrame::Unwatched { kind, object }).await;
    }

    async fn end(&mut self, named: &Named) {
        if let Some(task) = self.tasks.remove(named) {
            task.abort();
            // Ends as cancelled; what matters is that it has ended.
            let _ = task.await;
        }
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.tasks.values().for_each(JoinHandle::abort);
    }
}

/// Carries what happens to an object to the outbox until it is left. While the client does not read, the
/// watcher falls behind, and is told so.
async fn forward<E: Clone>(
    mut watch: Watch<E>,
    (kind, object): Named,
    outbox: Arc<Outbox>,
    data: impl Fn(&E) -> Option<WatchedEvent>,
) {
    while let Some((number, note)) = watch.next().await {
        let object = || object.clone();
        let missed = match note {
            Note::Changed(change) => {
                let events = change.events.iter().filter_map(&data);
                let frames = events.map(|event| ServerFrame::Object {
                    kind,
                    object: object(),
                    number,
                    event,
                });
                outbox.push_all(frames.map(|frame| outbox::text(&frame))).await;
                continue;
            }
            Note::Rebuilt => 0,
            Note::Lagged(missed) => missed,
            // A change of the policy is no event of the object.
            _ => continue,
        };
        outbox.push(&ServerFrame::ObjectLagged { kind, object: object(), missed }).await;
    }
    outbox.push(&ServerFrame::Unwatched { kind, object }).await;
}
