//! Frames that wait for machines that take none now.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use x0x_core::MachineId;

/// Frames that wait for one machine; further ones are dropped, for whoever asked asks again.
const MAX_FRAMES: usize = 512;
/// Bytes that wait for one machine.
pub(super) const MAX_PEER_BYTES: usize = 1024 * 1024;
/// Bytes that wait for all of them.
const MAX_BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// None of them is empty.
    queues: BTreeMap<MachineId, Queue>,
    bytes: usize,
}

impl Backlog {
    /// Whether anything waits for a machine.
    pub(super) fn waits(&self, peer: &MachineId) -> bool {
        self.queues.contains_key(peer)
    }

    /// Whether so many bytes may wait for a machine beside what waits already.
    pub(super) fn has_room(&self, peer: &MachineId, bytes: usize) -> bool {
        let waiting = self.queues.get(peer).map_or(0, |queue| queue.bytes);
        waiting.saturating_add(bytes) <= MAX_PEER_BYTES
            && self.bytes.saturating_add(bytes) <= MAX_BYTES
    }

    /// Lets a frame wait; false when there is no room for it.
    pub(super) fn push(&mut self, peer: MachineId, frame: Bytes) -> bool {
        let full = |queue: &Queue| queue.frames.len() >= MAX_FRAMES;
        if !self.has_room(&peer, frame.len()) || self.queues.get(&peer).is_some_and(full) {
            return false;
        }
        let queue = self.queues.entry(peer).or_default();
        queue.bytes += frame.len();
        self.bytes += frame.len();
        queue.frames.push_back(frame);
        true
    }

    /// Sends what waits for a machine, until it takes no more.
    pub(super) fn flush(&mut self, peer: MachineId, mut takes: impl FnMut(&Bytes) -> bool) {
        let Some(queue) = self.queues.get_mut(&peer) else { return };
        while let Some(frame) = queue.frames.front() {
            if !takes(frame) {
                return;
            }
            queue.bytes -= frame.len();
            self.bytes -= frame.len();
            queue.frames.pop_front();
        }
        self.queues.remove(&peer);
    }

    /// Forgets what waits for a machine.
    pub(super) fn remove(&mut self, peer: &MachineId) {
        if let Some(queue) = self.queues.remove(peer) {
            self.bytes -= queue.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(n: usize) -> MachineId {
        MachineId::new([u8::try_from(n).expect("few machines"); 32])
    }

    fn frame(len: usize) -> Bytes {
        vec![0; len].into()
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_for_each_and_for_all() {
        const LARGE: usize = 384 * 1024;
        let mut backlog = Backlog::default();
        // Who reads nothing and has the same letter sent again and again.
        let taken = (0..512).filter(|_| backlog.push(machine(0), frame(LARGE))).count();
        assert_eq!((taken, backlog.bytes), (2, 2 * LARGE));
        assert!(!backlog.has_room(&machine(0), LARGE) && backlog.has_room(&machine(1), LARGE));
        assert!(backlog.push(machine(0), frame(100)), "a small one has room");
        for n in 1..100 {
            while backlog.push(machine(n), frame(LARGE)) {}
        }
        assert!(backlog.bytes <= MAX_BYTES && !backlog.has_room(&machine(99), LARGE));
        let mut left = 2;
        backlog.flush(machine(0), |_| {
            left -= 1;
            left >= 0
        });
        assert!(backlog.waits(&machine(0)));
        for n in 0..50 {
            backlog.flush(machine(n), |_| true);
        }
        for n in 50..100 {
            backlog.remove(&machine(n));
        }
        assert_eq!((backlog.bytes, backlog.queues.len()), (0, 0));
        let taken = (0..1000).filter(|_| backlog.push(machine(0), frame(1))).count();
        assert_eq!(taken, MAX_FRAMES);
    }
}
