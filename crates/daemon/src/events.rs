//! The bus behind `GET /events`: a bounded ring of events with rising ids, read by any number of
//! clients with a place of their own.
//!
//! A publisher waits a moment for clients that have not read the oldest event, so that a burst is not
//! lost to a client that is merely busy. One that stays slow is left behind, and told how much it
//! missed when it reads again.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::Notify;
use x0x_api::limits::SSE_RING;
use x0x_core::Counter;

/// Most bytes of events kept; one larger event is kept alone.
const MAX_RING_BYTES: usize = 16 * 1024 * 1024;
/// Most clients at once.
pub(crate) const MAX_CLIENTS: usize = 1024;
/// How long a publisher waits for a slow client.
const PATIENCE: Duration = Duration::from_secs(1);

/// An event that is ready to be sent: everything but its id.
pub(crate) type Encoded = Bytes;

#[derive(Debug)]
struct Place {
    /// Id of the next event to read.
    next: u64,
    /// Left behind by a publisher; not waited for until it reads again.
    slow: bool,
    /// Resumed with an id that this ring did not give, so that what was missed is not known.
    unknown: bool,
}

#[derive(Debug)]
struct Ring {
    events: VecDeque<Encoded>,
    bytes: usize,
    /// Id of the first event kept.
    first: u64,
    clients: BTreeMap<u64, Place>,
    next_client: u64,
}

impl Ring {
    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// Drops the oldest events until one of this size fits; false when a client still needs one.
    fn make_room(&mut self, bytes: usize) -> bool {
        loop {
            let Some(oldest) = self.events.front() else { return true };
            if self.events.len() < SSE_RING && self.bytes + bytes <= MAX_RING_BYTES {
                return true;
            }
            if self.clients.values().any(|place| !place.slow && place.next <= self.first) {
                return false;
            }
            self.bytes -= oldest.len();
            self.events.pop_front();
            self.first += 1;
        }
    }

    fn leave_slow_behind(&mut self) {
        let first = self.first;
        let waited_for = self.clients.values_mut().filter(|place| place.next <= first);
        waited_for.for_each(|place| place.slow = true);
    }
}

/// What a client gets at once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// How many events it missed before these; 0 when the number is not known.
    pub(crate) missed: Option<u64>,
    /// Events and their ids.
    pub(crate) events: Vec<(u64, Encoded)>,
}

/// The bus. Cheap to clone; all clones are the same bus.
#[derive(Debug, Clone)]
pub(crate) struct EventBus(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ring: Mutex<Ring>,
    /// Ids up to this one belong to an earlier run of the daemon.
    base: u64,
    arrived: Notify,
    read: Notify,
    missed: Counter,
}

impl EventBus {
    /// An empty bus whose first event has the id `base + 1`.
    pub(crate) fn new(base: u64) -> Self {
        let ring = Ring {
            events: VecDeque::new(),
            bytes: 0,
            first: base + 1,
            clients: BTreeMap::new(),
            next_client: 0,
        };
        Self(Arc::new(Shared {
            ring: Mutex::new(ring),
            base,
            arrived: Notify::new(),
            read: Notify::new(),
            missed: Counter::default(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds events in order. Cancel safe: those that were not added are not.
    pub(crate) async fn push(&self, events: Vec<Encoded>) {
        let mut events = VecDeque::from(events);
        loop {
            let read = self.0.read.notified();
            tokio::pin!(read);
            // Registered before looking, so that a client that reads in between is noticed.
            read.as_mut().enable();
            self.push_what_fits(&mut events);
            if events.is_empty() {
                return;
            }
            if tokio::time::timeout(PATIENCE, read).await.is_err() {
                self.lock().leave_slow_behind();
            }
        }
    }

    fn push_what_fits(&self, events: &mut VecDeque<Encoded>) {
        let mut ring = self.lock();
        let before = ring.end();
        while let Some(event) = events.front() {
            if !ring.make_room(event.len()) {
                break;
            }
            ring.bytes += event.len();
            ring.events.extend(events.pop_front());
        }
        let added = ring.end() != before;
        drop(ring);
        if added {
            self.0.arrived.notify_waiters();
        }
    }

    /// A client that reads what comes, or with `after` what came after that event; `None` when there
    /// are too many clients.
    pub(crate) fn client(&self, after: Option<u64>) -> Option<Client> {
        let mut ring = self.lock();
        if ring.clients.len() >= MAX_CLIENTS {
            return None;
        }
        let unknown = after.is_some_and(|id| id < self.0.base || id >= ring.end());
        let next = match after {
            None => ring.end(),
            Some(_) if unknown => ring.first,
            Some(id) => id + 1,
        };
        let number = ring.next_client;
        ring.next_client += 1;
        ring.clients.insert(number, Place { next, slow: false, unknown });
        Some(Client { bus: self.clone(), number })
    }

    /// Events that clients missed.
    pub(crate) fn missed(&self) -> u64 {
        self.0.missed.value()
    }
}

/// A reader of the bus.
#[derive(Debug)]
pub(crate) struct Client {
    bus: EventBus,
    number: u64,
}

impl Client {
    /// Waits for events and takes up to `max_bytes` of them, at least one. Cancel safe.
    pub(crate) async fn take(&mut self, max_bytes: usize) -> Taken {
        let bus = self.bus.clone();
        loop {
            let arrived = bus.0.arrived.notified();
            tokio::pin!(arrived);
            // Registered before looking, so that an event in between is not missed.
            arrived.as_mut().enable();
            if let Some(taken) = self.try_take(max_bytes) {
                return taken;
            }
            arrived.await;
        }
    }

    /// The id of the last event that was read, or passed by.
    pub(crate) fn last(&self) -> u64 {
        let ring = self.bus.lock();
        ring.clients.get(&self.number).map_or(ring.first, |place| place.next) - 1
    }

    fn try_take(&mut self, max_bytes: usize) -> Option<Taken> {
        let mut ring = self.bus.lock();
        let (first, end) = (ring.first, ring.end());
        let place = ring.clients.get_mut(&self.number)?;
        let mut taken = Taken::default();
        if place.unknown {
            place.unknown = false;
            taken.missed = Some(0);
        }
        if place.next < first {
            let missed = first - place.next;
            self.bus.0.missed.add(missed);
            taken.missed = Some(missed);
            place.next = first;
        }
        place.slow = false;
        let from = place.next;
        let mut left = max_bytes;
        for id in from..end {
            let Some(event) = usize::try_from(id - first).ok().and_then(|at| ring.events.get(at))
            else {
                break;
            };
            if event.len() > left && !taken.events.is_empty() {
                break;
            }
            left = left.saturating_sub(event.len());
            taken.events.push((id, event.clone()));
        }
        if let Some(place) = ring.clients.get_mut(&self.number) {
            place.next = from + taken.events.len() as u64;
        }
        drop(ring);
        if taken.events.is_empty() {
            return taken.missed.is_some().then_some(taken);
        }
        self.bus.0.read.notify_waiters();
        Some(taken)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.bus.lock().clients.remove(&self.number);
        self.bus.0.read.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn events(numbers: std::ops::Range<usize>) -> Vec<Encoded> {
        numbers.map(|number| Bytes::from(number.to_string())).collect()
    }

    async fn ids(client: &mut Client) -> Vec<u64> {
        client.take(usize::MAX).await.events.into_iter().map(|(id, _)| id).collect()
    }

    #[tokio::test]
    async fn clients_read_from_their_own_places() {
        let bus = EventBus::new(100);
        bus.push(events(0..2)).await;
        let mut late = bus.client(None).expect("room");
        let mut resumed = bus.client(Some(101)).expect("room");
        bus.push(events(2..3)).await;
        assert_eq!(ids(&mut late).await, [103]);
        assert_eq!(ids(&mut resumed).await, [102, 103]);
        assert!(late.take(1).now_or_never().is_none());
        let mut ahead = bus.client(Some(103)).expect("room");
        assert!(ahead.take(1).now_or_never().is_none());
        assert_eq!(bus.lock().clients.len(), 3);
        drop((late, resumed, ahead));
        assert_eq!(bus.lock().clients.len(), 0);
    }

    #[tokio::test]
    async fn an_id_that_this_run_did_not_give_gets_all_there_is_and_a_mark() {
        let bus = EventBus::new(100);
        bus.push(events(0..3)).await;
        for foreign in [7, 104, 9000, u64::MAX] {
            let mut client = bus.client(Some(foreign)).expect("room");
            let taken = client.take(usize::MAX).await;
            assert_eq!((taken.missed, taken.events.len()), (Some(0), 3), "{foreign}");
        }
        let mut none = EventBus::new(100).client(Some(100)).expect("room");
        assert!(none.take(1).now_or_never().is_none(), "the id before the first is known");
    }

    #[tokio::test]
    async fn takes_are_bounded_by_bytes() {
        let bus = EventBus::new(0);
        let mut client = bus.client(None).expect("room");
        bus.push(vec![Bytes::from(vec![0; 60]), Bytes::from(vec![0; 60])]).await;
        assert_eq!(client.take(100).await.events.len(), 1);
        assert_eq!(client.take(1).await.events.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_client_loses_nothing_and_a_stuck_one_is_left_behind() {
        let bus = EventBus::new(0);
        let mut busy = bus.client(None).expect("room");
        let pusher = tokio::spawn({
            let bus = bus.clone();
            async move { bus.push(events(0..SSE_RING * 3)).await }
        });
        let mut seen = Vec::new();
        while seen.len() < SSE_RING * 3 {
            tokio::time::sleep(PATIENCE / 2).await;
            seen.extend(ids(&mut busy).await);
        }
        pusher.await.expect("pushes all");
        assert!(seen.iter().copied().eq(1..=SSE_RING as u64 * 3));

        bus.push(events(0..SSE_RING * 2)).await;
        let taken = busy.take(usize::MAX).await;
        assert_eq!(taken.missed, Some(SSE_RING as u64));
        assert_eq!(taken.events.len(), SSE_RING);
        assert_eq!(bus.missed(), SSE_RING as u64);
    }

    #[tokio::test]
    async fn the_ring_is_bounded_by_bytes() {
        let bus = EventBus::new(0);
        for _ in 0..40 {
            bus.push(vec![Bytes::from(vec![0; MAX_RING_BYTES / 4])]).await;
        }
        assert_eq!(bus.lock().events.len(), 4);
        bus.push(vec![Bytes::from(vec![0; MAX_RING_BYTES * 2])]).await;
        assert_eq!(bus.lock().events.len(), 1);
    }

    #[tokio::test]
    async fn clients_are_bounded() {
        let bus = EventBus::new(0);
        let clients: Vec<_> = (0..MAX_CLIENTS).map(|_| bus.client(None).expect("room")).collect();
        assert!(bus.client(None).is_none());
        drop(clients);
        assert!(bus.client(None).is_some());
    }
}
