//! Which connections may stay.
//!
//! Anybody on this machine can open connections, so that those without a token must not take the
//! room of those with one. A connection is unproven until one of its requests presented the token.
//! Unproven ones have room of their own, where a new one takes the place of the oldest once that had
//! a moment to send a request, and a longer one to be answered. Proven ones are never closed for others;
//! when their room is full, a further one is a guest among the unproven that leaves after its answer.

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
use x0x_api::limits::{
    MAX_PROVEN_CONNECTIONS as MAX_PROVEN, MAX_UNPROVEN_CONNECTIONS as MAX_UNPROVEN, SILENT_GRACE,
    UNPROVEN_GRACE,
};
use x0x_core::Tick;

/// Fewest connections that may be proven, whatever the process may open.
const MIN_PROVEN: usize = 64;

#[derive(Debug)]
struct Unproven {
    since: Tick,
    closed: CancellationToken,
}

/// Unproven connections by age.
type ByAge = BTreeMap<u64, Unproven>;

#[derive(Debug, Default)]
struct Table {
    /// Those of which no request is being answered: they sent none, or not the whole head of one, or
    /// have their answer. While there is no room, new ones wait for them to make it.
    silent: ByAge,
    /// Those that wait for an answer.
    asking: ByAge,
    guests: BTreeSet<u64>,
    proven: BTreeSet<u64>,
    next: u64,
}

impl Table {
    /// Closes the oldest connection that had its moment; else says how long the next one still has.
    fn evict(&mut self, now: Tick) -> Result<(), Duration> {
        let left = |of: &ByAge, grace: Duration| {
            let oldest = of.first_key_value()?.1.since;
            Some(grace.saturating_sub(now.since(oldest)))
        };
        let silent = left(&self.silent, SILENT_GRACE);
        let asking = left(&self.asking, UNPROVEN_GRACE);
        let oldest = match (silent, asking) {
            (Some(left), _) if left.is_zero() => self.silent.pop_first(),
            (_, Some(left)) if left.is_zero() => self.asking.pop_first(),
            // Without any, guests are about to leave.
            (silent, asking) => {
                return Err(silent.into_iter().chain(asking).min().unwrap_or(UNPROVEN_GRACE));
            }
        };
        if let Some((_, oldest)) = oldest {
            oldest.closed.cancel();
        }
        Ok(())
    }

    fn unproven(&self) -> usize {
        self.silent.len() + self.asking.len() + self.guests.len()
    }

    /// Whether the connection was an unproven one, and is not any more.
    fn remove_unproven(&mut self, number: u64) -> bool {
        self.silent.remove(&number).is_some()
            || self.asking.remove(&number).is_some()
            || self.guests.remove(&number)
    }
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
        let full = table.unproven() >= MAX_UNPROVEN;
        if full && let Err(left) = table.evict(now) {
            return Admission::Full(left);
        }
        let number = table.next;
        table.next += 1;
        let closed = CancellationToken::new();
        table.silent.insert(number, Unproven { since: now, closed: closed.clone() });
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
        table.remove_unproven(number);
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
    /// Notes that a whole head of a request came over the connection, or that it has its answer.
    pub(crate) fn set_asking(&self, is_asking: bool) {
        if self.proven.load(Ordering::Relaxed) {
            return;
        }
        let mut table = self.connections.lock();
        let Table { silent, asking, .. } = &mut *table;
        let (from, to) = if is_asking { (silent, asking) } else { (asking, silent) };
        if let Some(unproven) = from.remove(&self.number) {
            to.insert(self.number, unproven);
        }
    }

    /// Whether nobody with the token waits for anything over the connection, nor anybody for an answer.
    pub(crate) fn is_silent(&self) -> bool {
        self.connections.lock().silent.contains_key(&self.number)
    }

    /// Notes that a request of the connection presented the token. It is not closed for others any
    /// more.
    pub(crate) fn prove(&self) -> Standing {
        if self.proven.load(Ordering::Relaxed) {
            return Standing::Kept;
        }
        let mut table = self.connections.lock();
        if !table.remove_unproven(self.number) {
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
        let seats: Vec<_> = (0..MAX_UNPROVEN as u64)
            .map(|n| seat(&connections, Tick::from_millis(n.min(30))))
            .collect();
        assert!(seats.iter().all(|(_, evicted)| !evicted));
        let early = connections.admit(Tick::from_millis(60));
        assert!(matches!(early, Admission::Full(left) if left.as_millis() == 40), "{early:?}");
        let (last, evicted) = seat(&connections, Tick::from_millis(100));
        assert!(evicted && is_evicted(&seats[0].0));
        assert!(!is_evicted(&seats[1].0) && !is_evicted(&last) && !is_evicted(&proven));
        // Each has its own moment.
        assert!(matches!(connections.admit(Tick::from_millis(100)), Admission::Full(_)));
        // Too late to be proven: it is being closed.
        assert_eq!(seats[0].0.pass().prove(), Standing::Guest);
        assert_eq!(connections.lock().proven.len(), 1);
        assert!(connections.freed().now_or_never().is_none());
        drop((seats, last, proven));
        assert!(connections.freed().now_or_never().is_some());
        let table = connections.lock();
        assert!(table.unproven() == 0 && table.proven.is_empty());
    }

    /// Who holds connections open without a word costs a new one a tenth of a second, not a whole one.
    #[test]
    fn a_request_gets_more_time_than_silence() {
        let connections = Connections::default();
        let seats: Vec<_> = (0..MAX_UNPROVEN).map(|_| seat(&connections, Tick::ZERO).0).collect();
        for seat in &seats[1..] {
            seat.pass().set_asking(true);
        }
        assert!(!seats[1].pass().is_silent() && seats[0].pass().is_silent());
        let (first, _) = seat(&connections, Tick::from_millis(100));
        assert!(is_evicted(&seats[0]), "the silent one, though no other is younger");
        first.pass().set_asking(true);
        let full = connections.admit(Tick::from_millis(300));
        assert!(matches!(full, Admission::Full(left) if left.as_millis() == 700), "{full:?}");
        // With its answer it waits for nothing any more.
        seats[9].pass().set_asking(false);
        let (second, _) = seat(&connections, Tick::from_millis(300));
        assert!(is_evicted(&seats[9]) && !is_evicted(&seats[1]));
        second.pass().set_asking(true);
        let (_third, evicted) = seat(&connections, Tick::from_millis(1000));
        assert!(evicted && is_evicted(&seats[1]));
        assert_eq!(connections.lock().unproven(), MAX_UNPROVEN);
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
        assert!(matches!(connections.admit(later), Admission::Full(UNPROVEN_GRACE)));
        assert!(guests.iter().all(|seat| !is_evicted(seat)));
        kept.pop();
        assert_eq!(guests[0].pass().prove(), Standing::Kept);
        let (newest, evicted) = seat(&connections, later);
        assert!(!evicted && !is_evicted(&newest));
        drop((guests, kept, newest));
        let table = connections.lock();
        assert!(table.unproven() == 0 && table.proven.is_empty());
    }
}
