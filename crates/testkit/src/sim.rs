//! The event queue: virtual time, a fixed order, a trace hash.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fmt,
    hash::{Hash, Hasher},
};

use x0x_core::{SeededRng, Tick};

/// Width of one slot of the calendar: 1.024 ms.
const SLOT_BITS: u32 = 10;

/// Slots of the calendar, so that it spans about four seconds: longer than almost every delay.
const SLOTS: usize = 4096;

type Entry<E> = Reverse<Scheduled<E>>;

/// A time-ordered queue of events with its clock, its random source and its trace.
///
/// A calendar queue: what is due in the present slot lies in a small heap, what is due within four
/// seconds in the unsorted slot of its time, the rest in a large heap. So the cost of an event does
/// not grow with the number of nodes.
pub struct Sim<E> {
    seed: u64,
    now: Tick,
    rng: SeededRng,
    scheduled: u64,
    queued: usize,
    /// Number of the slot that `present` holds; everything up to it is there.
    slot: u64,
    present: BinaryHeap<Entry<E>>,
    ring: Vec<Vec<Entry<E>>>,
    /// One bit a slot of the ring: it is not empty.
    occupied: Vec<u64>,
    far: BinaryHeap<Entry<E>>,
    trace: TraceHash,
}

impl<E> fmt::Debug for Sim<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim")
            .field("seed", &self.seed)
            .field("now", &self.now)
            .field("queued", &self.queued)
            .finish_non_exhaustive()
    }
}

impl<E> Sim<E> {
    /// An empty queue at [`Tick::ZERO`].
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            now: Tick::ZERO,
            rng: SeededRng::from_number(seed),
            scheduled: 0,
            queued: 0,
            slot: 0,
            present: BinaryHeap::new(),
            ring: (0..SLOTS).map(|_| Vec::new()).collect(),
            occupied: vec![0; SLOTS / 64],
            far: BinaryHeap::new(),
            trace: TraceHash::default(),
        }
    }

    /// The seed that replays this run.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// Virtual time.
    #[must_use]
    pub const fn now(&self) -> Tick {
        self.now
    }

    /// The one source of randomness of the run.
    pub const fn rng(&mut self) -> &mut SeededRng {
        &mut self.rng
    }

    /// Queues an event; a time in the past means now. Events of the same time run in the order in
    /// which they were queued.
    pub fn schedule(&mut self, at: Tick, event: E) {
        let at = at.max(self.now);
        self.scheduled += 1;
        self.queued += 1;
        let entry = Reverse(Scheduled { at, order: self.scheduled, event });
        let slot = slot_of(at);
        if slot <= self.slot {
            self.present.push(entry);
        } else if slot - self.slot < SLOTS as u64 {
            let index = (slot % SLOTS as u64) as usize;
            self.ring[index].push(entry);
            self.occupied[index / 64] |= 1 << (index % 64);
        } else {
            self.far.push(entry);
        }
    }

    /// Takes the next event due by `deadline` and moves the clock to it. Without one the clock moves
    /// to `deadline`.
    pub fn next_until(&mut self, deadline: Tick) -> Option<E> {
        if self.present.is_empty() {
            self.turn_to(slot_of(deadline));
        }
        if self.present.peek().is_none_or(|next| next.0.at > deadline) {
            self.now = self.now.max(deadline);
            return None;
        }
        let Reverse(next) = self.present.pop()?;
        self.queued -= 1;
        self.now = next.at;
        Some(next.event)
    }

    /// Events that wait.
    #[must_use]
    pub const fn queued(&self) -> usize {
        self.queued
    }

    /// Moves the next slot with events, up to this one, into the present.
    fn turn_to(&mut self, last: u64) {
        let far = self.far.peek().map(|next| slot_of(next.0.at));
        let Some(slot) = self.next_in_ring().into_iter().chain(far).min() else { return };
        if slot > last {
            return;
        }
        let index = (slot % SLOTS as u64) as usize;
        let due = BinaryHeap::from(std::mem::take(&mut self.ring[index]));
        // The room of the heap serves the slot again.
        self.ring[index] = std::mem::replace(&mut self.present, due).into_vec();
        self.occupied[index / 64] &= !(1 << (index % 64));
        self.slot = slot;
        while self.far.peek().is_some_and(|next| slot_of(next.0.at) <= slot) {
            self.present.extend(self.far.pop());
        }
    }

    /// The next slot of the ring that is not empty.
    fn next_in_ring(&self) -> Option<u64> {
        let words = self.occupied.len();
        let start = ((self.slot + 1) % SLOTS as u64) as usize;
        for step in 0..=words {
            let word = (start / 64 + step) % words;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            } else if step == words {
                bits &= !(u64::MAX << (start % 64));
            }
            if bits != 0 {
                let index = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (index + SLOTS - start) % SLOTS;
                return Some(self.slot + 1 + ahead as u64);
            }
        }
        None
    }

    /// Adds something that happened now to the trace.
    pub fn record(&mut self, what: impl Hash) {
        self.now.hash(&mut self.trace);
        what.hash(&mut self.trace);
    }

    /// Digest of everything recorded so far. Two runs with equal hashes did the same things at the
    /// same times.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.trace.finish()
    }
}

const fn slot_of(at: Tick) -> u64 {
    at.as_micros() >> SLOT_BITS
}

struct Scheduled<E> {
    at: Tick,
    order: u64,
    event: E,
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl<E> Eq for Scheduled<E> {}

impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Scheduled<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// Multiply and rotate over words of 64 bits: unlike the standard hasher it gives the same digest in
/// every process, and costs little beside the simulation. No defence against anybody.
#[derive(Debug, Clone)]
pub struct TraceHash(u64);

impl Default for TraceHash {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Hasher for TraceHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.write_u64(u64::from_le_bytes(last));
        self.write_u64(bytes.len() as u64);
    }

    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0.rotate_left(23) ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_run_by_time_then_by_order_of_scheduling() {
        let mut sim = Sim::new(1);
        for (at, event) in [(20, 'c'), (10, 'a'), (10, 'b'), (90, 'z')] {
            sim.schedule(Tick::from_millis(at), event);
        }
        let deadline = Tick::from_millis(50);
        let run: String = std::iter::from_fn(|| sim.next_until(deadline)).collect();
        assert_eq!(run, "abc");
        assert_eq!(sim.now(), deadline);
        sim.schedule(Tick::ZERO, 'd');
        assert_eq!(sim.next_until(Tick::from_millis(100)), Some('d'));
        assert_eq!(sim.now(), deadline, "the past means now");
        assert_eq!(sim.next_until(Tick::from_millis(100)), Some('z'));
    }

    #[test]
    fn the_calendar_keeps_the_order_of_a_sorted_list() {
        let mut sim = Sim::new(5);
        let mut rng = SeededRng::from_number(6);
        let mut expected = Vec::new();
        let mut seen = Vec::new();
        for number in 0..20_000_u64 {
            // Mostly near, some beyond the ring, some in the same microsecond.
            let ahead = match rng.below(8) {
                0 => rng.range(0, 60_000_000),
                1 => 5000,
                _ => rng.range(0, 900_000),
            };
            let at = Tick::from_micros(sim.now().as_micros() + ahead);
            sim.schedule(at, number);
            expected.push((at, number));
            for _ in 0..rng.below(3) {
                let deadline = sim.now() + std::time::Duration::from_millis(rng.range(0, 700));
                seen.extend(sim.next_until(deadline).map(|event| (sim.now(), event)));
            }
        }
        seen.extend(std::iter::from_fn(|| {
            sim.next_until(Tick::from_micros(u64::MAX)).map(|event| (sim.now(), event))
        }));
        expected.sort_unstable();
        assert_eq!(seen, expected);
        assert_eq!(sim.queued(), 0);
    }

    #[test]
    fn the_trace_depends_on_what_and_when() {
        let trace = |at, what: &str| {
            let mut sim = Sim::<()>::new(1);
            let _ = sim.next_until(Tick::from_millis(at));
            sim.record(what);
            sim.trace_hash()
        };
        assert_eq!(trace(1, "a"), trace(1, "a"));
        assert_ne!(trace(1, "a"), trace(2, "a"));
        assert_ne!(trace(1, "a"), trace(1, "b"));
    }
}
