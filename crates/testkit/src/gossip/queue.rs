//! The event queue: virtual time in windows, and in a window one node after the other.
//!
//! Whatever one node does to another takes at least the shortest latency of the scenario. So what
//! happens to two nodes within a window of that length is independent, and need not run in the order
//! of time: a node takes all its events of a window in a row, while its state is in the processor's
//! cache. This is the conservative lookahead of parallel discrete-event simulation (Chandy and Misra
//! 1979), used here for locality. The order is fixed by nodes, times and the order of scheduling, so a
//! run still repeats exactly.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    fmt,
    time::Duration,
};

use x0x_core::Tick;

use super::ids::Node;

/// Widest window, in microseconds: the offset of an event in it fits [`OFFSET_BITS`].
const MAX_WIDTH: u64 = 1 << OFFSET_BITS;
const OFFSET_BITS: u32 = 14;
const INDEX_BITS: u32 = 32;

/// Windows ahead that are kept in a ring; what is due later waits in a map.
const MAX_NEAR: u64 = 8192;

/// Emptied windows whose room serves later ones.
const MAX_SPARE: usize = 32;

/// An event of a window; taken once.
struct Entry<E> {
    at: Tick,
    node: Node,
    event: Option<E>,
}

/// Events by time, in windows.
pub(super) struct Queue<E> {
    now: Tick,
    /// Microseconds of a window.
    width: u64,
    /// Number of the first window of `near`.
    first: u64,
    near: VecDeque<Vec<Entry<E>>>,
    far: BTreeMap<u64, Vec<Entry<E>>>,
    spare: Vec<Vec<Entry<E>>>,
    /// The window that is open: it ends here.
    end: Tick,
    events: Vec<Entry<E>>,
    /// Node, offset in the window and place in `events`, in the order of their turn, last first.
    turns: Vec<u64>,
    /// Whose turn it is; nobody's between windows.
    turn: Option<Node>,
    /// What that node set for itself in this window.
    own: BinaryHeap<Reverse<Own>>,
    own_events: Vec<Option<E>>,
}

/// An event that a node set for itself: its time, and its place in `own_events`.
type Own = (Tick, usize);

impl<E> fmt::Debug for Queue<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("now", &self.now).finish_non_exhaustive()
    }
}

impl<E> Queue<E> {
    /// An empty queue at [`Tick::ZERO`] for nodes that reach one another in no less than `lookahead`.
    pub(super) fn new(lookahead: Duration) -> Self {
        let width = u64::try_from(lookahead.as_micros()).unwrap_or(MAX_WIDTH);
        Self {
            now: Tick::ZERO,
            width: width.clamp(1, MAX_WIDTH),
            first: 0,
            near: VecDeque::new(),
            far: BTreeMap::new(),
            spare: Vec::new(),
            end: Tick::ZERO,
            events: Vec::new(),
            turns: Vec::new(),
            turn: None,
            own: BinaryHeap::new(),
            own_events: Vec::new(),
        }
    }

    /// Virtual time: of the event whose turn it is, else the end of the last window.
    pub(super) const fn now(&self) -> Tick {
        self.now
    }

    /// Queues an event of a node; a time in the past means now. Events of one node at one time run in
    /// the order in which they were queued.
    pub(super) fn schedule(&mut self, node: Node, at: Tick, event: E) {
        let at = at.max(self.now);
        if let Some(turn) = self.turn
            && at < self.end
        {
            debug_assert_eq!(turn, node, "reached sooner than the lookahead");
            if turn == node {
                self.own.push(Reverse((at, self.own_events.len())));
                return self.own_events.push(Some(event));
            }
        }
        let at = if self.turn.is_some() { at.max(self.end) } else { at };
        self.put(Entry { at, node, event: Some(event) });
    }

    fn put(&mut self, entry: Entry<E>) {
        let ahead = (entry.at.as_micros() / self.width).saturating_sub(self.first);
        if ahead >= MAX_NEAR {
            return self.far.entry(self.first + ahead).or_default().push(entry);
        }
        while self.near.len() as u64 <= ahead {
            self.near.push_back(self.spare.pop().unwrap_or_default());
        }
        self.near[ahead as usize].push(entry);
    }

    /// Takes the next event due before `deadline` and moves the clock to it. Without one the clock
    /// moves to `deadline`.
    pub(super) fn next_before(&mut self, deadline: Tick) -> Option<(Node, E)> {
        loop {
            if let Some(next) = self.next_of_turn() {
                return Some(next);
            }
            match self.turns.last().copied() {
                Some(next) => self.turn = Some((next >> (INDEX_BITS + OFFSET_BITS)) as Node),
                None if self.open(deadline) => {}
                None => {
                    self.now = self.now.max(deadline);
                    return None;
                }
            }
        }
    }

    /// The next event of the node whose turn it is.
    fn next_of_turn(&mut self) -> Option<(Node, E)> {
        let node = self.turn?;
        let scheduled = self.turns.last().copied();
        let scheduled =
            scheduled.filter(|next| next >> (INDEX_BITS + OFFSET_BITS) == u64::from(node));
        let scheduled = scheduled.map(|next| (next & u64::from(u32::MAX)) as usize);
        let own = self.own.peek().map(|Reverse((at, _))| *at);
        // What was there before the window goes first.
        if let Some(place) = scheduled
            && own.is_none_or(|own| self.events[place].at <= own)
        {
            self.turns.pop();
            let entry = &mut self.events[place];
            self.now = entry.at;
            return entry.event.take().map(|event| (node, event));
        }
        if let Some(Reverse((at, place))) = self.own.pop() {
            self.now = at;
            return self.own_events[place].take().map(|event| (node, event));
        }
        self.own_events.clear();
        self.turn = None;
        None
    }

    /// Opens the next window that has events, if it begins before `deadline`; it ends there at the
    /// latest.
    fn open(&mut self, deadline: Tick) -> bool {
        self.now = self.now.max(self.end.min(deadline));
        self.recycle();
        let (now, width) = (self.now.as_micros() / self.width, self.width);
        while self.first < now {
            let Some(passed) = self.near.pop_front() else { break };
            self.first += 1;
            self.keep(passed);
        }
        let next = self.near.iter().position(|window| !window.is_empty());
        let next = next.map(|ahead| self.first + ahead as u64);
        let far = self.far.first_key_value().map(|(window, _)| *window);
        let Some(window) = next.into_iter().chain(far).min() else { return false };
        if window * width >= deadline.as_micros() {
            return false;
        }
        while self.first < window {
            self.first += 1;
            if let Some(empty) = self.near.pop_front() {
                self.keep(empty);
            }
        }
        self.end = Tick::from_micros((window + 1) * width).min(deadline);
        // Those from far were queued before all others.
        let mut events = self.far.remove(&window).unwrap_or_default();
        let near = self.near.front_mut().map(std::mem::take).unwrap_or_default();
        if events.is_empty() {
            events = near;
        } else {
            events.extend(near);
        }
        self.events = events;
        self.turns_of_window(window * width);
        // None when all of it is due after the deadline.
        !self.turns.is_empty()
    }

    /// Puts the events of the open window in order; those after its end go back.
    fn turns_of_window(&mut self, start: u64) {
        for place in 0..self.events.len() {
            let entry = &mut self.events[place];
            if entry.at >= self.end {
                let later = Entry { at: entry.at, node: entry.node, event: entry.event.take() };
                self.put(later);
                continue;
            }
            let offset = entry.at.as_micros().saturating_sub(start);
            let key = u64::from(entry.node) << OFFSET_BITS | offset;
            self.turns.push(key << INDEX_BITS | place as u64);
        }
        self.turns.sort_unstable_by(|a, b| b.cmp(a));
    }

    fn recycle(&mut self) {
        let done = std::mem::take(&mut self.events);
        self.keep(done);
    }

    fn keep(&mut self, mut window: Vec<Entry<E>>) {
        if self.spare.len() < MAX_SPARE && window.capacity() > 0 {
            window.clear();
            self.spare.push(window);
        }
    }
}

#[cfg(test)]
mod tests {
    use x0x_core::SeededRng;

    use super::*;

    const WIDTH: u64 = 10_000;

    /// Everything due before `deadline`, each event scheduling the next of its node and of another.
    fn run(seed: u64) -> Vec<(u64, Node, u64)> {
        let mut queue = Queue::new(Duration::from_micros(WIDTH));
        let mut rng = SeededRng::from_number(seed);
        let mut seen = Vec::new();
        for number in 0..50 {
            queue.schedule(number as Node % 7, Tick::from_micros(rng.range(0, 200_000)), number);
        }
        let mut number = 50;
        let mut deadline = Tick::ZERO;
        for _ in 0..200 {
            deadline = deadline + Duration::from_micros(rng.range(0, 700_000));
            while let Some((node, event)) = queue.next_before(deadline) {
                assert!(queue.now() < deadline);
                seen.push((queue.now().as_micros(), node, event));
                if number < 5000 {
                    // Mostly near, some for itself at once, some far beyond the ring.
                    let ahead = match rng.below(10) {
                        0 => 0,
                        1 => rng.range(0, 200_000_000),
                        _ => rng.range(0, 30_000),
                    };
                    queue.schedule(node, queue.now() + Duration::from_micros(ahead), number);
                    let ahead = WIDTH + rng.range(0, 50_000);
                    let at = queue.now() + Duration::from_micros(ahead);
                    queue.schedule((node + 1) % 7, at, number + 1);
                    number += 2;
                }
            }
            assert_eq!(queue.now(), deadline);
            queue.schedule(3, deadline, number);
            number += 1;
        }
        while let Some((node, event)) = queue.next_before(Tick::from_micros(u64::MAX / 2)) {
            seen.push((queue.now().as_micros(), node, event));
        }
        assert_eq!(seen.len() as u64, number, "nothing is lost and nothing comes twice");
        seen
    }

    #[test]
    fn each_node_sees_its_events_in_order_and_nobody_hears_from_the_future() {
        let seen = run(3);
        for node in 0..7 {
            let own: Vec<_> = seen.iter().filter(|(_, of, _)| *of == node).collect();
            assert!(own.is_sorted_by_key(|(at, ..)| *at), "node {node}");
        }
        // Between nodes the order is that of time but for a window.
        let mut latest = 0;
        for (at, ..) in &seen {
            assert!(at + WIDTH > latest);
            latest = latest.max(*at);
        }
        assert_eq!(seen, run(3), "the order is fixed");
    }

    #[test]
    fn events_of_one_time_run_as_they_were_queued_and_the_past_means_now() {
        let mut queue = Queue::new(Duration::from_millis(10));
        for (at, event) in [(20, 'c'), (10, 'a'), (10, 'b'), (90_000, 'z')] {
            queue.schedule(1, Tick::from_millis(at), event);
        }
        let deadline = Tick::from_millis(50);
        let run: String = std::iter::from_fn(|| queue.next_before(deadline)).map(|e| e.1).collect();
        assert_eq!(run, "abc");
        queue.schedule(1, Tick::ZERO, 'd');
        let next = queue.next_before(Tick::from_millis(51));
        assert_eq!((next, queue.now()), (Some((1, 'd')), deadline));
        assert_eq!(
            queue.next_before(Tick::from_millis(90_000)),
            None,
            "the deadline is not included"
        );
        assert_eq!(queue.next_before(Tick::from_millis(91_000)), Some((1, 'z')));
    }
}
