//! The event queue: virtual time, a fixed order, a trace hash.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fmt,
    hash::{Hash, Hasher},
};

use x0x_core::{SeededRng, Tick};

/// A time-ordered queue of events with its clock, its random source and its trace.
pub struct Sim<E> {
    seed: u64,
    now: Tick,
    rng: SeededRng,
    scheduled: u64,
    queue: BinaryHeap<Reverse<Scheduled<E>>>,
    trace: TraceHash,
}

impl<E> fmt::Debug for Sim<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim")
            .field("seed", &self.seed)
            .field("now", &self.now)
            .field("queued", &self.queue.len())
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
            queue: BinaryHeap::new(),
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
        self.queue.push(Reverse(Scheduled { at, order: self.scheduled, event }));
    }

    /// Takes the next event due by `deadline` and moves the clock to it. Without one the clock moves
    /// to `deadline`.
    pub fn next_until(&mut self, deadline: Tick) -> Option<E> {
        if self.queue.peek().is_none_or(|next| next.0.at > deadline) {
            self.now = self.now.max(deadline);
            return None;
        }
        let Reverse(next) = self.queue.pop()?;
        self.now = next.at;
        Some(next.event)
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
