//! Messages to one machine: those that wait for their turn and those that wait for an answer.

use std::collections::VecDeque;

use bytes::Bytes;
use x0x_core::{AgentId, Tick};

use crate::{
    error::DirectError,
    wire::{Ack, MessageId, Terms},
};

/// A message that was not sent yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) ticket: u64,
    pub(super) id: MessageId,
    pub(super) from: AgentId,
    pub(super) to: AgentId,
    pub(super) payload: Bytes,
    pub(super) terms: Terms,
    pub(super) deadline: Tick,
}

/// A message that the transport has, until the peer answers or the session ends.
#[derive(Debug)]
struct InFlight {
    ticket: u64,
    id: MessageId,
    deadline: Tick,
    len: usize,
    /// Its caller still waits. A message past its deadline keeps its place in the window, since the
    /// peer may still hold it.
    open: bool,
}

/// A send whose outcome is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) ticket: u64,
    pub(super) id: MessageId,
    pub(super) deadline: Tick,
    pub(super) result: Result<(), DirectError>,
}

/// The peer answered a message that was never sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnknownSeq;

/// How much may be unanswered, and how much may wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) struct Outgoing {
    queue: VecDeque<Pending>,
    queued_bytes: usize,
    in_flight: VecDeque<InFlight>,
    flight_bytes: usize,
    /// Sequence number of the first message in flight, or of the next message when there is none.
    first_seq: u64,
}

impl Outgoing {
    pub(super) const fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            queued_bytes: 0,
            in_flight: VecDeque::new(),
            flight_bytes: 0,
            first_seq: 1,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_empty()
    }

    /// Whether as much waits as the window holds.
    pub(super) fn is_full(&self, window: Window, len: usize) -> bool {
        self.queue.len() >= window.messages
            || (!self.queue.is_empty() && self.queued_bytes + len > window.bytes)
    }

    pub(super) fn push(&mut self, pending: Pending) {
        self.queued_bytes += pending.payload.len();
        self.queue.push_back(pending);
    }

    /// The next message with its sequence number, if the window allows one.
    pub(super) fn next(&mut self, window: Window) -> Option<(u64, Pending)> {
        let len = self.queue.front()?.payload.len();
        let over_bytes = !self.in_flight.is_empty() && self.flight_bytes + len > window.bytes;
        if self.in_flight.len() >= window.messages || over_bytes {
            return None;
        }
        let pending = self.queue.pop_front()?;
        self.queued_bytes -= len;
        self.flight_bytes += len;
        let seq = self.first_seq + self.in_flight.len() as u64;
        let Pending { ticket, id, deadline, .. } = pending;
        self.in_flight.push_back(InFlight { ticket, id, deadline, len, open: true });
        Some((seq, pending))
    }

    /// Takes the peer's answer.
    pub(super) fn acknowledge(
        &mut self,
        ack: &Ack,
        settled: &mut Vec<Settled>,
    ) -> Result<(), UnknownSeq> {
        let next_seq = self.first_seq + self.in_flight.len() as u64;
        let highest = ack.refusals.iter().map(|r| r.seq).chain([ack.through_seq]).max();
        if highest.is_some_and(|seq| seq >= next_seq) {
            return Err(UnknownSeq);
        }
        for refusal in &ack.refusals {
            let index = refusal.seq.checked_sub(self.first_seq).map(|index| index as usize);
            if let Some(entry) = index.and_then(|index| self.in_flight.get_mut(index)) {
                entry.settle(Err(DirectError::Refused(refusal.reason)), settled);
            }
        }
        while self.first_seq <= ack.through_seq
            && let Some(mut entry) = self.in_flight.pop_front()
        {
            self.first_seq += 1;
            self.flight_bytes -= entry.len;
            entry.settle(Ok(()), settled);
        }
        Ok(())
    }

    /// The session ended: what was in flight is unconfirmed, what waited was never sent.
    pub(super) fn fail(&mut self, settled: &mut Vec<Settled>) {
        for mut entry in self.in_flight.drain(..) {
            entry.settle(Err(DirectError::Unconfirmed), settled);
        }
        self.flight_bytes = 0;
        self.first_seq = 1;
        for Pending { ticket, id, deadline, .. } in self.queue.drain(..) {
            settled.push(Settled { ticket, id, deadline, result: Err(DirectError::NotConnected) });
        }
        self.queued_bytes = 0;
    }

    /// The deadline of a send passed; false when it was settled before.
    pub(super) fn expire(&mut self, ticket: u64) -> bool {
        // Tickets grow, so both lists are in order.
        if let Ok(index) = self.in_flight.binary_search_by_key(&ticket, |entry| entry.ticket) {
            return std::mem::replace(&mut self.in_flight[index].open, false);
        }
        let found = self.queue.binary_search_by_key(&ticket, |pending| pending.ticket);
        let Some(pending) = found.ok().and_then(|index| self.queue.remove(index)) else {
            return false;
        };
        self.queued_bytes -= pending.payload.len();
        true
    }
}

impl InFlight {
    fn settle(&mut self, result: Result<(), DirectError>, settled: &mut Vec<Settled>) {
        if std::mem::replace(&mut self.open, false) {
            let Self { ticket, id, deadline, .. } = *self;
            settled.push(Settled { ticket, id, deadline, result });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::RefuseReason, wire::Refusal};

    const WINDOW: Window = Window { messages: 3, bytes: 100 };

    fn pending(ticket: u64, len: usize) -> Pending {
        let agent = AgentId::new([1; 32]);
        let id = u128::from(ticket).to_be_bytes();
        let payload = Bytes::from(vec![0; len]);
        let terms = Terms::default();
        Pending { ticket, id, from: agent, to: agent, payload, terms, deadline: Tick::ZERO }
    }

    fn tickets(settled: &[Settled]) -> Vec<(u64, Result<(), DirectError>)> {
        settled.iter().map(|s| (s.ticket, s.result)).collect()
    }

    #[test]
    fn the_window_bounds_messages_and_bytes() {
        let mut out = Outgoing::new();
        (1..=5).for_each(|n| out.push(pending(n, 10)));
        let seqs: Vec<u64> = std::iter::from_fn(|| out.next(WINDOW)).map(|(seq, _)| seq).collect();
        assert_eq!(seqs, [1, 2, 3]);
        let mut out = Outgoing::new();
        [150, 60, 60].into_iter().zip(1..).for_each(|(len, n)| out.push(pending(n, len)));
        assert!(out.next(WINDOW).is_some(), "a large message passes alone");
        assert!(out.next(WINDOW).is_none());
        let ack = Ack { through_seq: 1, ..Ack::default() };
        out.acknowledge(&ack, &mut Vec::new()).expect("it was sent");
        assert!(out.next(WINDOW).is_some());
        assert!(out.next(WINDOW).is_none(), "60 + 60 bytes pass the cap");
    }

    #[test]
    fn refusals_and_cumulative_answers_settle_once() {
        let mut out = Outgoing::new();
        (1..=3).for_each(|n| out.push(pending(n, 1)));
        while out.next(WINDOW).is_some() {}
        let mut settled = Vec::new();
        let reason = RefuseReason::UnknownRecipient;
        let ack = Ack { refusals: vec![Refusal { seq: 2, reason }; 2], ..Ack::default() };
        out.acknowledge(&ack, &mut settled).expect("known");
        assert!(out.expire(1) && !out.expire(1), "a deadline settles too");
        let ack = Ack { through_seq: 3, ..Ack::default() };
        out.acknowledge(&ack, &mut settled).expect("known");
        out.acknowledge(&ack, &mut settled).expect("a repeated answer is harmless");
        let expected = [(2, Err(DirectError::Refused(reason))), (3, Ok(()))];
        assert_eq!(tickets(&settled), expected);
        let ack = Ack { through_seq: 4, ..Ack::default() };
        assert_eq!(out.acknowledge(&ack, &mut settled), Err(UnknownSeq));
        assert!(out.is_empty());
    }

    #[test]
    fn a_lost_session_tells_sent_from_unsent() {
        let mut out = Outgoing::new();
        (1..=4).for_each(|n| out.push(pending(n, 1)));
        out.next(WINDOW).expect("window is open");
        assert!(out.expire(3), "a waiting message expires");
        let mut settled = Vec::new();
        out.fail(&mut settled);
        let lost = Err(DirectError::NotConnected);
        let expected = [(1, Err(DirectError::Unconfirmed)), (2, lost), (4, lost)];
        assert_eq!(tickets(&settled), expected);
        out.push(pending(5, 1));
        assert_eq!(out.next(WINDOW).map(|(seq, _)| seq), Some(1), "numbers start again");
    }
}
