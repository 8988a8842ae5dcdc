//! Which sessions are open.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use x0x_api::{
    ErrorCode, True,
    types::{WsSession, WsSessionsResponse},
};

use crate::http::error::ApiError;

/// Most sessions at once; one that is idle takes less than 20 KiB.
pub(crate) const MAX_SESSIONS: usize = 1024;

#[derive(Debug)]
struct Row {
    session_id: String,
    topics: BTreeSet<String>,
    receives_direct: bool,
}

#[derive(Debug, Default)]
struct Table {
    rows: BTreeMap<u64, Row>,
    next: u64,
}

/// The open sessions. Cheap to clone; all clones are the same table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sessions(Arc<Mutex<Table>>);

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a session; `None` when there are too many.
    pub(super) fn open(&self, receives_direct: bool) -> Result<Option<Entry>, ApiError> {
        let session_id = uuid()?;
        let mut table = self.lock();
        if table.rows.len() >= MAX_SESSIONS {
            return Ok(None);
        }
        let number = table.next;
        table.next += 1;
        let row = Row { session_id: session_id.clone(), topics: BTreeSet::new(), receives_direct };
        table.rows.insert(number, row);
        let opened_as = table.rows.len();
        drop(table);
        let sessions = self.clone();
        Ok(Some(Entry { sessions, number, session_id, receives_direct, opened_as }))
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().rows.len()
    }

    pub(crate) fn list(&self) -> WsSessionsResponse {
        let table = self.lock();
        let mut shared_subscriptions = BTreeMap::new();
        let topics = table.rows.values().flat_map(|row| &row.topics);
        topics.for_each(|topic| *shared_subscriptions.entry(topic.clone()).or_default() += 1);
        let sessions = table.rows.values().map(|row| WsSession {
            session_id: row.session_id.clone(),
            subscribed_topics: row.topics.iter().cloned().collect(),
            receives_direct: row.receives_direct,
        });
        WsSessionsResponse {
            ok: True::default(),
            sessions: sessions.collect(),
            shared_subscriptions,
        }
    }
}

/// A session's row, removed when this is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    sessions: Sessions,
    number: u64,
    pub(super) session_id: String,
    pub(super) receives_direct: bool,
    /// Open sessions when it was opened, with itself.
    pub(super) opened_as: usize,
}

impl Entry {
    /// Notes the session's topics.
    pub(super) fn set_topics(&self, topics: BTreeSet<String>) {
        if let Some(row) = self.sessions.lock().rows.get_mut(&self.number) {
            row.topics = topics;
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.sessions.lock().rows.remove(&self.number);
    }
}

/// A random UUID (RFC 9562 version 4) in its usual form.
fn uuid() -> Result<String, ApiError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = data_encoding::HEXLOWER.encode(&bytes);
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    Ok(parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_and_go() {
        let sessions = Sessions::default();
        let first = sessions.open(false).expect("random").expect("room");
        let second = sessions.open(true).expect("random").expect("room");
        assert_ne!(first.session_id, second.session_id);
        first.set_topics(["a", "b"].map(String::from).into());
        second.set_topics(["b"].map(String::from).into());
        let list = sessions.list();
        assert_eq!(list.sessions[0].subscribed_topics, ["a", "b"]);
        assert!(list.sessions[1].receives_direct);
        assert_eq!(list.shared_subscriptions["b"], 2);
        drop(second);
        assert_eq!(sessions.list().shared_subscriptions["b"], 1);
        assert_eq!(sessions.len(), 1);
    }

    #[test]
    fn sessions_are_bounded() {
        let sessions = Sessions::default();
        let all: Vec<_> = (0..MAX_SESSIONS)
            .map(|_| sessions.open(false).expect("random").expect("room"))
            .collect();
        assert!(sessions.open(false).expect("random").is_none());
        drop(all);
        assert!(sessions.open(false).expect("random").is_some());
    }

    #[test]
    fn uuids_have_the_usual_form() {
        let uuid = uuid().expect("random");
        let lengths: Vec<_> = uuid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(&uuid[14..15], "4");
    }
}
