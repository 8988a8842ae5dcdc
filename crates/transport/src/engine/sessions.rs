//! TLS resumption state of the accepting side, with an age limit.
//!
//! A resumed handshake does not prove again that the peer holds its key, so state older than a day
//! is refused. rustls tells that limit to clients but leaves keeping it to the store.

use std::{sync::Arc, time::Duration};

use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};
use x0x_core::{Clock, Tick};

/// Age from which a session is no longer resumed. rustls puts the same value into its tickets.
pub(super) const MAX_SESSION_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Sessions kept, the oldest is dropped; 2.5 KB each, two a connection.
pub(super) const MAX_SESSIONS: usize = 256;

/// A store that puts the time before each value.
#[derive(Debug)]
pub(super) struct AgedSessions {
    store: Arc<ServerSessionMemoryCache>,
    clock: Arc<dyn Clock>,
}

impl AgedSessions {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { store: ServerSessionMemoryCache::new(MAX_SESSIONS), clock }
    }

    fn fresh(&self, stored: &[u8]) -> Option<Vec<u8>> {
        let (time, value) = stored.split_first_chunk()?;
        let age = self.clock.now().since(Tick::from_micros(u64::from_be_bytes(*time)));
        (age < MAX_SESSION_AGE).then(|| value.to_vec())
    }
}

impl StoresServerSessions for AgedSessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let mut stored = Vec::with_capacity(8 + value.len());
        stored.extend_from_slice(&self.clock.now().as_micros().to_be_bytes());
        stored.extend_from_slice(&value);
        self.store.put(key, stored)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.fresh(&self.store.get(key)?)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.fresh(&self.store.take(key)?)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use x0x_core::{ManualClock, WallTime};

    use super::*;

    #[test]
    fn sessions_age_out_and_are_taken_once() {
        let clock = ManualClock::new(WallTime::default());
        let sessions = AgedSessions::new(Arc::new(clock.clone()));
        assert!(sessions.put(b"a".to_vec(), b"secret".to_vec()) && sessions.can_cache());
        clock.advance(MAX_SESSION_AGE - Duration::from_secs(1));
        assert_eq!(sessions.get(b"a"), Some(b"secret".to_vec()));
        assert_eq!(sessions.take(b"a"), Some(b"secret".to_vec()));
        assert_eq!(sessions.take(b"a"), None);

        assert!(sessions.put(b"b".to_vec(), Vec::new()));
        clock.advance(MAX_SESSION_AGE);
        assert_eq!(sessions.take(b"b"), None);
    }
}
