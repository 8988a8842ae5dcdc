//! Which connections may stay.
//!
//! Anybody on this machine can open connections, so that those without a token must not take the
//! room of those with one. A connection is unproven until one of its requests presented the token.
//! Unproven ones have room of their own, where a new one takes the place of the oldest once that had
//! a moment to prove itself. Proven ones are never closed for others; when their room is full, a
//! further one is a guest among the unproven that leaves after its answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use x0x_core::Tick;

/// Most connections at once that are not proven, guests included.
const MAX_UNPROVEN: usize = 256;
/// Most that are: a stream of events and a WebSocket session for each of a thousand clients, and room
/// for requests. Fewer where the process may not open so many files.
const MAX_PROVEN: usize = 2304;
/// Fewest that are, whatever the process may open.
const MIN_PROVEN: usize = 64;
/// How long a connection has to present the token before it may be closed for a newer one. Meanwhile
/// new ones wait to be taken.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Unproven {
    since: Tick,
    closed: CancellationToken,
}

#[derive(Debug, Default)]
struct Table {
    /// By age.
    unproven: BTreeMap<u64, Unproven>,
    guests: BTreeSet<u64>,
    proven: BTreeSet<u64>,
    next: u64,
}

#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    freed: Notify,
    max_proven: usize,
}

/// What becomes of a new connection.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It has a seat.
    Taken {
        seat: Seat,
        /// Another one is closed for it.
        evicted: bool,
    },
    /// There is no seat for so long, unless one becomes [free](Connections::freed) before.
    Full(Duration),
}

/// The open connections. Cheap to clone; all clones are the same table.
#[derive(Debug, Clone)]
pub(crate) struct Connections(Arc<Shared>);

impl Default for Connections {
    fn default() -> Self {
        Self::within(None)
    }
}

impl Connections {
    /// As many as fit so many open files, where there is a limit.
    pub(crate) fn within(files: Option<u64>) -> Self {
        let fit = |files: u64| {
            let left = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(MAX_UNPROVEN);
            left.clamp(MIN_PROVEN, MAX_PROVEN)
        };
        let max_proven = files.map_or(MAX_PROVEN, fit);
        Self(Arc::new(Shared { table: Mutex::default(), freed: Notify::new(), max_proven }))
    }

    /// Most connections at once.
    pub(crate) fn max(&self) -> usize {
        MAX_UNPROVEN + self.0.max_proven
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seats a connection, if it can be done now.
    pub(crate) fn admit(&self, now: Tick) -> Admission {
        let mut table = self.lock();
        let full = table.unproven.len() + table.guests.len() >= MAX_UNPROVEN;
        if full {
            // Without any, guests are about to leave.
            let oldest = table.unproven.first_key_value().map_or(now, |(_, oldest)| oldest.since);
            let left = GRACE.saturating_sub(now.since(oldest));
            if left > Duration::ZERO {
                return Admission::Full(left);
            }
            if let Some((_, oldest)) = table.unproven.pop_first() {
                oldest.closed.cancel();
            }
        }
        let number = table.next;
        table.next += 1;
        let closed = CancellationToken::new();
        table.unproven.insert(number, Unproven { since: now, closed: closed.clone() });
        drop(table);
        let pass = Pass { connections: self.clone(), number, proven: Arc::default() };
        Admission::Taken { seat: Seat { pass, closed }, evicted: full }
    }

    /// Waits until a seat was freed. One caller at a time.
    pub(crate) async fn freed(&self) {
        self.0.freed.notified().await;
    }
}

/// A connection's place, free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    pass: Pass,
    closed: CancellationToken,
}

impl Seat {
    /// What the connection's requests carry.
    pub(crate) fn pass(&self) -> Pass {
        self.pass.clone()
    }

    /// Waits until the connection has to make room.
    pub(crate) async fn evicted(&self) {
        self.closed.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let number = self.pass.number;
        let mut table = self.pass.connections.lock();
        table.unproven.remove(&number);
        table.guests.remove(&number);
        table.proven.remove(&number);
        drop(table);
        self.pass.connections.0.freed.notify_one();
    }
}

/// What a proven connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It keeps its seat.
    Kept,
    /// It has to leave after this answer, unless that never ends.
    Guest,
}

/// Names the connection that a request came over.
#[derive(Debug, Clone)]
pub(crate) struct Pass {
    connections: Connections,
    number: u64,
    proven: Arc<AtomicBool>,
}

impl Pass {
    /// Notes that a request of the connection presented the token. It is not closed for others any
    /// more.
    pub(crate) fn prove(&self) -> Standing {
        if self.proven.load(Ordering::Relaxed) {
            return Standing::Kept;
        }
        let mut table = self.connections.lock();
        let known =
            table.unproven.remove(&self.number).is_some() || table.guests.remove(&self.number);
        if !known {
            // Too late: it is being closed.
            return Standing::Guest;
        }
        if table.proven.len() >= self.connections.0.max_proven {
            table.guests.insert(self.number);
            return Standing::Guest;
        }
        table.proven.insert(self.number);
        drop(table);
        self.proven.store(true, Ordering::Relaxed);
        // One of the unproven less.
        self.connections.0.freed.notify_one();
        Standing::Kept
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn is_evicted(seat: &Seat) -> bool {
        seat.evicted().now_or_never().is_some()
    }

    fn seat(connections: &Connections, now: Tick) -> (Seat, bool) {
        match connections.admit(now) {
            Admission::Taken { seat, evicted } => (seat, evicted),
            Admission::Full(left) => panic!("full for {left:?}"),
        }
    }

    #[test]
    fn the_oldest_unproven_makes_room_after_its_grace() {
        let connections = Connections::default();
        let (proven, _) = seat(&connections, Tick::ZERO);
        assert_eq!(proven.pass().prove(), Standing::Kept);
        assert!(connections.freed().now_or_never().is_some());
        let seats: Vec<_> =
            (0..MAX_UNPROVEN as u64).map(|n| seat(&connections, Tick::from_millis(n))).collect();
        assert!(seats.iter().all(|(_, evicted)| !evicted));
        let early = connections.admit(Tick::from_millis(400));
        assert!(matches!(early, Admission::Full(left) if left.as_millis() == 600), "{early:?}");
        let (last, evicted) = seat(&connections, Tick::from_millis(1000));
        assert!(evicted && is_evicted(&seats[0].0));
        assert!(!is_evicted(&seats[1].0) && !is_evicted(&last) && !is_evicted(&proven));
        // Each has its own moment.
        assert!(matches!(connections.admit(Tick::from_millis(1000)), Admission::Full(_)));
        // Too late to be proven: it is being closed.
        assert_eq!(seats[0].0.pass().prove(), Standing::Guest);
        assert_eq!(connections.lock().proven.len(), 1);
        assert!(connections.freed().now_or_never().is_none());
        drop((seats, last, proven));
        assert!(connections.freed().now_or_never().is_some());
        let table = connections.lock();
        assert!(table.unproven.is_empty() && table.proven.is_empty());
    }

    #[test]
    fn there_are_no_more_than_files_may_be_opened() {
        assert_eq!(Connections::within(None).max(), MAX_UNPROVEN + MAX_PROVEN);
        assert_eq!(Connections::within(Some(1_000_000)).max(), MAX_UNPROVEN + MAX_PROVEN);
        assert_eq!(Connections::within(Some(1024)).max(), 1024);
        assert_eq!(Connections::within(Some(10)).max(), MAX_UNPROVEN + MIN_PROVEN);
    }

    #[test]
    fn guests_are_not_evicted_and_find_room_when_there_is() {
        let connections = Connections::default();
        let proven = |standing| {
            let seat = seat(&connections, Tick::ZERO).0;
            assert_eq!(seat.pass().prove(), standing);
            seat
        };
        let mut kept: Vec<_> = (0..MAX_PROVEN).map(|_| proven(Standing::Kept)).collect();
        let guests: Vec<_> = (0..MAX_UNPROVEN).map(|_| proven(Standing::Guest)).collect();
        let later = Tick::from_millis(60_000);
        assert!(matches!(connections.admit(later), Admission::Full(GRACE)));
        assert!(guests.iter().all(|seat| !is_evicted(seat)));
        kept.pop();
        assert_eq!(guests[0].pass().prove(), Standing::Kept);
        let (newest, evicted) = seat(&connections, later);
        assert!(!evicted && !is_evicted(&newest));
        drop((guests, kept, newest));
        let table = connections.lock();
        assert!(table.unproven.is_empty() && table.guests.is_empty() && table.proven.is_empty());
    }
}
