//! The connection that reads. Opening one parses the whole schema, which takes longer than most of what is read, so it
//! is kept for a moment: an agent that starts reads a dozen times in a row.

use std::{sync::Arc, time::Duration};

use rusqlite::Connection;
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::{Instant, sleep},
};

/// How long a connection is kept after it was used.
const KEPT: Duration = Duration::from_secs(2);

/// One reader at a time, which bounds the memory that reading takes. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readers(Arc<Mutex<Slot>>);

/// The connection of the last reader, if it is still open.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    kept: Option<Kept>,
    /// Somebody will look whether it is still needed.
    watched: bool,
}

#[derive(Debug)]
struct Kept {
    /// The number of its file: a damaged one is replaced by another of the same name.
    file: u64,
    connection: Connection,
    used: Instant,
}

impl Slot {
    /// The connection to a file, if it is open.
    pub(crate) fn take(&mut self, file: u64) -> Option<Connection> {
        let kept = self.kept.take()?;
        (kept.file == file).then_some(kept.connection)
    }

    /// Keeps a connection that did what it was asked for, without what it has read.
    pub(crate) fn keep(&mut self, file: u64, connection: Connection) {
        if connection.is_autocommit() && connection.execute_batch("PRAGMA shrink_memory").is_ok() {
            self.kept = Some(Kept { file, connection, used: Instant::now() });
        }
    }
}

impl Readers {
    /// Waits for the turn.
    pub(crate) async fn turn(&self) -> OwnedMutexGuard<Slot> {
        Arc::clone(&self.0).lock_owned().await
    }

    /// Closes the connection once nobody has used it for a while.
    pub(crate) fn close_later(&self) {
        // Whoever reads now does this afterwards.
        let Ok(mut slot) = self.0.try_lock() else { return };
        if slot.kept.is_none() || std::mem::replace(&mut slot.watched, true) {
            return;
        }
        let slot = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                sleep(KEPT).await;
                let Some(slot) = slot.upgrade() else { return };
                let mut slot = slot.lock().await;
                if slot.kept.as_ref().is_some_and(|kept| kept.used.elapsed() < KEPT) {
                    continue;
                }
                (slot.kept, slot.watched) = (None, false);
                return;
            }
        });
    }

    /// Closes it now: the journal goes only with the last connection, which is to be the writer's.
    pub(crate) async fn close(&self) {
        self.0.lock().await.kept = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        Connection::open_in_memory().expect("memory")
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_kept_for_its_file_and_a_moment() {
        let readers = Readers::default();
        assert!(readers.turn().await.take(1).is_none());
        readers.turn().await.keep(1, connection());
        readers.close_later();
        sleep(KEPT / 2).await;
        let kept = readers.turn().await.take(1).expect("it is open");
        readers.turn().await.keep(1, kept);
        sleep(KEPT * 3 / 4).await;
        assert!(readers.0.lock().await.kept.is_some(), "it was used meanwhile");
        sleep(KEPT * 2).await;
        assert!(readers.turn().await.take(1).is_none(), "it was closed");
        readers.turn().await.keep(1, connection());
        assert!(readers.turn().await.take(2).is_none(), "the file is another one");
        assert!(readers.turn().await.take(1).is_none());
        readers.turn().await.keep(1, connection());
        readers.close().await;
        assert!(readers.turn().await.take(1).is_none());
    }
}
