//! Which connections may stay.
//!
//! Anybody on this machine can open connections, so that those without a token must not take the
//! room of those with one. A connection is unproven until one of its requests presented the token.
//! Unproven ones have room of their own, where a new one takes the place of the oldest; proven ones
//! are never closed for others.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio_util::sync::CancellationToken;

/// Most connections at once that have not presented the token.
const MAX_UNPROVEN: usize = 256;
/// Most that have. Beyond them, connections stay among the unproven.
const MAX_PROVEN: usize = 768;
/// Most connections at once.
pub(crate) const MAX_CONNECTIONS: usize = MAX_UNPROVEN + MAX_PROVEN;

#[derive(Debug, Default)]
struct Table {
    /// By age, each with what closes it.
    unproven: BTreeMap<u64, CancellationToken>,
    proven: BTreeSet<u64>,
    next: u64,
}

/// The open connections. Cheap to clone; all clones are the same table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connections(Arc<Mutex<Table>>);

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a connection; true when another one was closed for it.
    pub(crate) fn admit(&self) -> (Seat, bool) {
        let mut table = self.lock();
        let full = table.unproven.len() >= MAX_UNPROVEN;
        let evicted = if full { table.unproven.pop_first() } else { None };
        let number = table.next;
        table.next += 1;
        let closed = CancellationToken::new();
        table.unproven.insert(number, closed.clone());
        drop(table);
        if let Some((_, oldest)) = &evicted {
            oldest.cancel();
        }
        let pass = Pass { connections: self.clone(), number, proven: Arc::default() };
        (Seat { pass, closed }, evicted.is_some())
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
        let mut table = self.pass.connections.lock();
        table.unproven.remove(&self.pass.number);
        table.proven.remove(&self.pass.number);
    }
}

/// Names the connection that a request came over.
#[derive(Debug, Clone)]
pub(crate) struct Pass {
    connections: Connections,
    number: u64,
    proven: Arc<AtomicBool>,
}

impl Pass {
    /// Notes that a request of the connection presented the token.
    pub(crate) fn prove(&self) {
        if self.is_proven() {
            return;
        }
        let mut table = self.connections.lock();
        if table.proven.len() < MAX_PROVEN && table.unproven.remove(&self.number).is_some() {
            table.proven.insert(self.number);
            self.proven.store(true, Ordering::Relaxed);
        }
    }

    fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn is_evicted(seat: &Seat) -> bool {
        seat.evicted().now_or_never().is_some()
    }

    #[test]
    fn the_oldest_unproven_makes_room() {
        let connections = Connections::default();
        let (proven, _) = connections.admit();
        proven.pass().prove();
        let seats: Vec<_> = (0..MAX_UNPROVEN).map(|_| connections.admit()).collect();
        assert!(seats.iter().all(|(_, evicted)| !evicted));
        let (last, evicted) = connections.admit();
        assert!(evicted && is_evicted(&seats[0].0));
        assert!(!is_evicted(&seats[1].0) && !is_evicted(&last) && !is_evicted(&proven));
        // Too late to be proven: it is being closed.
        seats[0].0.pass().prove();
        assert_eq!(connections.lock().proven.len(), 1);
        drop((seats, last, proven));
        let table = connections.lock();
        assert!(table.unproven.is_empty() && table.proven.is_empty());
    }

    #[test]
    fn proven_connections_are_bounded() {
        let connections = Connections::default();
        let seats: Vec<_> = (0..MAX_CONNECTIONS)
            .map(|_| {
                let (seat, evicted) = connections.admit();
                assert!(!evicted);
                seat.pass().prove();
                seat
            })
            .collect();
        assert_eq!(connections.lock().proven.len(), MAX_PROVEN);
        assert_eq!(connections.lock().unproven.len(), MAX_UNPROVEN);
        assert!(connections.admit().1 && is_evicted(&seats[MAX_PROVEN]));
    }
}
