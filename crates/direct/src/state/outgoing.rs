//! Messages to one machine: those that wait for their turn and those that wait for an answer.

use std::collections::VecDeque;

use bytes::Bytes;
use x0x_core::{AgentId, Tick};

use super::lanes::LaneKey;
use crate::{
    error::DirectError,
    wire::{Ack, Lane, MessageId, Terms},
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

impl Pending {
    fn lane(&self) -> Option<LaneKey> {
        (self.terms.lane != Lane::None).then_some((self.from, self.to))
    }

    fn failed(self, error: DirectError) -> Settled {
        let Self { ticket, id, deadline, .. } = self;
        Settled { ticket, id, deadline, result: Err(error) }
    }
}

/// A message that the transport has, until the peer answers or the session ends.
#[derive(Debug)]
struct InFlight {
    ticket: u64,
    id: MessageId,
    deadline: Tick,
    len: usize,
    lane: Option<LaneKey>,
    /// Its lane begins with it.
    first: bool,
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
    /// Lanes of which a message failed, and that did not begin again behind it.
    closed: Vec<LaneKey>,
}

impl Outgoing {
    pub(super) const fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            queued_bytes: 0,
            in_flight: VecDeque::new(),
            flight_bytes: 0,
            first_seq: 1,
            closed: Vec::new(),
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

    /// To whom the next message goes, if the window allows one.
    pub(super) fn next_recipient(&self, window: Window) -> Option<AgentId> {
        let next = self.queue.front()?;
        let bytes = self.flight_bytes + next.payload.len();
        let over_bytes = !self.in_flight.is_empty() && bytes > window.bytes;
        (self.in_flight.len() < window.messages && !over_bytes).then_some(next.to)
    }

    /// The next message must not be sent any more.
    pub(super) fn forbid_next(&mut self, settled: &mut Vec<Settled>) {
        self.fail_queued(0, DirectError::Forbidden, settled);
    }

    /// The next message with its sequence number, if the window allows one.
    pub(super) fn next(&mut self, window: Window) -> Option<(u64, Pending)> {
        self.next_recipient(window)?;
        let pending = self.queue.pop_front()?;
        let len = pending.payload.len();
        self.queued_bytes -= len;
        self.flight_bytes += len;
        let seq = self.first_seq + self.in_flight.len() as u64;
        let Pending { ticket, id, deadline, .. } = pending;
        let (lane, first) = (pending.lane(), pending.terms.lane == Lane::First);
        let entry = InFlight { ticket, id, deadline, len, lane, first, open: true };
        self.in_flight.push_back(entry);
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
            let Some(index) = index.filter(|index| *index < self.in_flight.len()) else { continue };
            let entry = &mut self.in_flight[index];
            entry.settle(Err(DirectError::Refused(refusal.reason)), settled);
            if let Some(lane) = entry.lane {
                self.break_lane(lane, index + 1, settled);
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
        settled.extend(self.queue.drain(..).map(|it| it.failed(DirectError::NotConnected)));
        self.queued_bytes = 0;
    }

    /// The deadline of a send passed, which may have been settled before.
    pub(super) fn expire(&mut self, ticket: u64, settled: &mut Vec<Settled>) {
        // Tickets grow, so both lists are in order.
        if let Ok(index) = self.in_flight.binary_search_by_key(&ticket, |entry| entry.ticket) {
            // It keeps its place, so that its lane keeps its order.
            return self.in_flight[index].settle(Err(DirectError::Timeout), settled);
        }
        let found = self.queue.binary_search_by_key(&ticket, |pending| pending.ticket);
        let Ok(index) = found else { return };
        self.fail_queued(index, DirectError::Timeout, settled);
    }

    /// Fails a message that waits, and what is behind it in its lane.
    fn fail_queued(&mut self, index: usize, error: DirectError, settled: &mut Vec<Settled>) {
        let Some(pending) = self.queue.remove(index) else { return };
        self.queued_bytes -= pending.payload.len();
        let lane = pending.lane();
        settled.push(pending.failed(error));
        if let Some(lane) = lane
            && !self.fail_behind(lane, index, settled)
        {
            self.closed.push(lane);
        }
    }

    /// Lanes to be closed to what comes.
    pub(super) fn take_closed(&mut self) -> Vec<LaneKey> {
        std::mem::take(&mut self.closed)
    }

    /// The peer refused a message of a lane, and refuses what follows it in flight; what waits here
    /// must not reach it in another session.
    fn break_lane(&mut self, lane: LaneKey, behind: usize, settled: &mut Vec<Settled>) {
        let begins = |entry: &InFlight| entry.first && entry.lane == Some(lane);
        if self.closed.contains(&lane) || self.in_flight.range(behind..).any(begins) {
            return;
        }
        if !self.fail_behind(lane, 0, settled) {
            self.closed.push(lane);
        }
    }

    /// Fails what waits of a lane from a place on, up to where the lane begins again. Returns whether
    /// it does.
    fn fail_behind(&mut self, lane: LaneKey, from: usize, settled: &mut Vec<Settled>) -> bool {
        let mut index = from;
        while let Some(pending) = self.queue.get(index) {
            if pending.lane() != Some(lane) {
                index += 1;
            } else if pending.terms.lane == Lane::First {
                return true;
            } else if let Some(pending) = self.queue.remove(index) {
                self.queued_bytes -= pending.payload.len();
                settled.push(pending.failed(DirectError::Behind));
            }
        }
        false
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
        out.expire(1, &mut settled);
        out.expire(1, &mut settled);
        let ack = Ack { through_seq: 3, ..Ack::default() };
        out.acknowledge(&ack, &mut settled).expect("known");
        out.acknowledge(&ack, &mut settled).expect("a repeated answer is harmless");
        let refused = Err(DirectError::Refused(reason));
        let expected = [(2, refused), (1, Err(DirectError::Timeout)), (3, Ok(()))];
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
        let mut settled = Vec::new();
        out.expire(3, &mut settled);
        assert_eq!(tickets(&std::mem::take(&mut settled)), [(3, Err(DirectError::Timeout))]);
        out.fail(&mut settled);
        let lost = Err(DirectError::NotConnected);
        let expected = [(1, Err(DirectError::Unconfirmed)), (2, lost), (4, lost)];
        assert_eq!(tickets(&settled), expected);
        out.push(pending(5, 1));
        assert_eq!(out.next(WINDOW).map(|(seq, _)| seq), Some(1), "numbers start again");
    }

    fn in_lane(ticket: u64, lane: Lane) -> Pending {
        Pending { terms: Terms { lane, ..Terms::default() }, ..pending(ticket, 1) }
    }

    #[test]
    fn what_waits_behind_a_message_that_failed_fails_up_to_the_next_beginning() {
        let lanes = [Lane::First, Lane::Next, Lane::None, Lane::Next, Lane::First, Lane::Next];
        let filled = || {
            let mut out = Outgoing::new();
            lanes.into_iter().zip(1..).for_each(|(lane, n)| out.push(in_lane(n, lane)));
            out
        };
        let behind = Err(DirectError::Behind);
        let (mut out, mut settled) = (filled(), Vec::new());
        out.expire(1, &mut settled);
        let expected = [(1, Err(DirectError::Timeout)), (2, behind), (4, behind)];
        assert_eq!(tickets(&settled), expected);
        assert!(out.take_closed().is_empty(), "it begins again");
        settled.clear();
        out.expire(5, &mut settled);
        assert_eq!(tickets(&settled), [(5, Err(DirectError::Timeout)), (6, behind)]);
        assert_eq!((out.take_closed().len(), out.queue.len(), out.queued_bytes), (1, 1, 1));

        let (mut out, mut settled) = (filled(), Vec::new());
        out.next(WINDOW).expect("window is open");
        let reason = RefuseReason::Busy;
        let refusals = vec![Refusal { seq: 1, reason }];
        let ack = Ack { through_seq: 1, refusals, ..Ack::default() };
        out.acknowledge(&ack, &mut settled).expect("known");
        let refused = (1, Err(DirectError::Refused(reason)));
        assert_eq!(tickets(&settled), [refused, (2, behind), (4, behind)]);
        assert!(out.take_closed().is_empty());
    }
}
