//! Messages from one machine: their order, and those that wait for room in the inbox.

use std::collections::VecDeque;

use super::Room;
use crate::{
    error::RefuseReason,
    wire::{Ack, MAX_IN_FLIGHT_BYTES, MAX_IN_FLIGHT_MESSAGES, MAX_REFUSALS, Refusal, Verified},
};

/// Where a message stands in its session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The next one.
    Next,
    /// Of an earlier session: it was on its way when that session ended.
    Stale,
    /// The transport keeps order, so a gap or a repetition is the peer's fault.
    Broken,
}

/// The peer sent more than its window allows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WindowExceeded;

#[derive(Debug)]
struct Held {
    seq: u64,
    /// `None` marks the retry of a message that is further ahead here; it is settled in its turn.
    message: Option<Verified>,
}

#[derive(Debug, Default)]
pub(super) struct Incoming {
    /// The sender's number of its session, once it sent something.
    epoch: Option<u64>,
    last_seq: u64,
    told_through: u64,
    refusals: VecDeque<Refusal>,
    /// In order of arrival. The first `stale` of them came in earlier sessions, and nobody waits for
    /// their answer.
    held: VecDeque<Held>,
    stale: usize,
    /// Payload bytes held of this session.
    bytes: usize,
    /// Payload bytes held of all sessions.
    held_bytes: usize,
}

impl Incoming {
    /// A session began or ended: the order starts anew. What is held is still delivered; marks of
    /// retries go, since nobody waits for their answer any more.
    pub(super) fn reset(&mut self) {
        let (mut held, held_bytes) = (std::mem::take(&mut self.held), self.held_bytes);
        held.retain(|held| held.message.is_some());
        *self = Self { stale: held.len(), held, held_bytes, ..Self::default() };
    }

    /// Checks the order of the next message and moves on.
    pub(super) fn place(&mut self, epoch: u64, seq: u64) -> Place {
        if self.epoch.is_some_and(|current| epoch < current) {
            return Place::Stale;
        }
        if self.epoch.is_none_or(|current| epoch > current) {
            self.reset();
            self.epoch = Some(epoch);
        }
        if seq != self.last_seq + 1 {
            // The first message seen of an epoch may be a late one of a session that ended before
            // its beginning arrived here.
            return if self.last_seq == 0 { Place::Stale } else { Place::Broken };
        }
        self.last_seq = seq;
        Place::Next
    }

    /// Keeps a message until the inbox has room. A retry's mark (`None`) takes no room of its own: the
    /// sender's window bounds them.
    pub(super) fn hold(&mut self, seq: u64, message: Option<Verified>) {
        let len = message.as_ref().map_or(0, |message| message.payload().len());
        self.bytes += len;
        self.held_bytes += len;
        self.held.push_back(Held { seq, message });
    }

    /// Whether a sender that keeps to its window could have sent this many payload bytes more.
    pub(super) fn check_window(&self, len: usize) -> Result<(), WindowExceeded> {
        let unanswered = self.held.len() - self.stale + self.refusals.len();
        let fits = unanswered < MAX_IN_FLIGHT_MESSAGES && self.bytes + len <= MAX_IN_FLIGHT_BYTES;
        if fits { Ok(()) } else { Err(WindowExceeded) }
    }

    /// Whether this peer may have one more message of `len` payload bytes held, of what all peers
    /// leave free. A peer may hold a window, whatever sessions its messages came in, and no more
    /// than is free: so few that fill their share leave some to all others.
    pub(super) fn may_hold(&self, len: usize, free: Room) -> bool {
        self.held.len() < MAX_IN_FLIGHT_MESSAGES.min(free.messages)
            && self.held_bytes + len <= MAX_IN_FLIGHT_BYTES.min(free.bytes)
    }

    /// Notes a refusal, to be told with the next answer.
    pub(super) fn refuse(&mut self, seq: u64, reason: RefuseReason) {
        self.refusals.push_back(Refusal { seq, reason });
    }

    /// Refuses everything that is held; returns how many messages that were.
    pub(super) fn refuse_held(&mut self, reason: RefuseReason) -> usize {
        let current = self.held.iter().skip(self.stale).map(|held| held.seq);
        self.refusals.extend(current.map(|seq| Refusal { seq, reason }));
        let messages = self.held.drain(..).filter(|held| held.message.is_some()).count();
        self.stale = 0;
        self.bytes = 0;
        self.held_bytes = 0;
        messages
    }

    /// Whether nothing waits for the inbox.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Payload length of the message whose turn it is: `Some(None)` for a retry.
    pub(super) fn front(&self) -> Option<Option<usize>> {
        self.held.front().map(|held| held.message.as_ref().map(|m| m.payload().len()))
    }

    /// Settles the message whose turn it is, and hands it out.
    pub(super) fn pop(&mut self) -> Option<Verified> {
        let held = self.held.pop_front()?;
        let len = held.message.as_ref().map_or(0, |message| message.payload().len());
        self.held_bytes -= len;
        if self.stale > 0 {
            self.stale -= 1;
        } else {
            self.bytes -= len;
        }
        held.message
    }

    /// All messages up to this one are settled.
    fn through(&self) -> u64 {
        self.held.get(self.stale).map_or(self.last_seq, |held| held.seq - 1)
    }

    /// What the sender was not told yet.
    pub(super) fn next_ack(&mut self) -> Option<Ack> {
        let epoch = self.epoch?;
        let through_seq = self.through();
        if through_seq == self.told_through && self.refusals.is_empty() {
            return None;
        }
        let refusals: Vec<Refusal> =
            self.refusals.drain(..self.refusals.len().min(MAX_REFUSALS)).collect();
        // A refusal must not be overtaken by the number that settles it as taken.
        let through_seq = match self.refusals.iter().map(|refusal| refusal.seq).min() {
            Some(seq) => through_seq.min(seq - 1),
            None => through_seq,
        };
        self.told_through = through_seq;
        Some(Ack { epoch, through_seq, refusals })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use x0x_core::AgentId;

    use super::*;
    use crate::wire::MessageIn;

    fn verified(len: usize) -> Verified {
        let agent = AgentId::new([1; 32]);
        let payload = Bytes::from(vec![0; len]);
        let message = MessageIn { epoch: 1, seq: 1, id: [0; 16], from: agent, to: agent, payload };
        message.verify(&[agent], &[agent]).expect("agents are known")
    }

    #[test]
    fn order_is_checked_within_an_epoch() {
        let mut incoming = Incoming::default();
        assert_eq!(incoming.place(4, 57), Place::Stale, "begins in the middle");
        assert_eq!(incoming.place(5, 1), Place::Next);
        assert_eq!(incoming.place(4, 1), Place::Stale);
        assert_eq!(incoming.place(5, 2), Place::Next);
        assert_eq!(incoming.place(5, 4), Place::Broken);
        assert_eq!(incoming.place(5, 2), Place::Broken);
        incoming.reset();
        assert_eq!(incoming.place(3, 1), Place::Next, "a restarted peer counts anew");
    }

    #[test]
    fn answers_are_cumulative_and_refusals_come_first() {
        let mut incoming = Incoming::default();
        assert_eq!(incoming.next_ack(), None);
        for seq in 1..=3 {
            assert_eq!(incoming.place(7, seq), Place::Next);
        }
        incoming.hold(1, Some(verified(5)));
        incoming.refuse(2, RefuseReason::UnknownRecipient);
        incoming.hold(3, None);
        let refusals = vec![Refusal { seq: 2, reason: RefuseReason::UnknownRecipient }];
        let ack = Ack { epoch: 7, through_seq: 0, refusals };
        assert_eq!(incoming.next_ack(), Some(ack));
        assert_eq!((incoming.front(), incoming.bytes), (Some(Some(5)), 5));
        assert!(incoming.pop().is_some());
        let ack = Ack { epoch: 7, through_seq: 2, refusals: Vec::new() };
        assert_eq!(incoming.next_ack(), Some(ack));
        assert!(incoming.pop().is_none());
        assert_eq!(incoming.next_ack().map(|ack| ack.through_seq), Some(3));
        assert_eq!(incoming.next_ack(), None);
    }

    #[test]
    fn many_refusals_are_told_before_they_are_passed() {
        let mut incoming = Incoming::default();
        let count = MAX_REFUSALS as u64 + 10;
        for seq in 1..=count {
            assert_eq!(incoming.place(1, seq), Place::Next);
            incoming.refuse(seq, RefuseReason::UnknownRecipient);
        }
        let first = incoming.next_ack().expect("much to tell");
        assert_eq!((first.refusals.len(), first.through_seq), (MAX_REFUSALS, MAX_REFUSALS as u64));
        let second = incoming.next_ack().expect("the rest");
        assert_eq!((second.refusals.len(), second.through_seq), (10, count));
    }

    #[test]
    fn what_earlier_sessions_left_is_delivered_but_not_answered() {
        let mut incoming = Incoming::default();
        assert_eq!(incoming.place(1, 1), Place::Next);
        incoming.hold(1, Some(verified(3)));
        incoming.reset();
        assert_eq!(incoming.next_ack(), None);
        assert_eq!(incoming.place(2, 1), Place::Next);
        incoming.hold(1, Some(verified(4)));
        assert_eq!((incoming.bytes, incoming.next_ack()), (4, None));
        assert_eq!(incoming.pop().map(|message| message.payload().len()), Some(3));
        assert_eq!(incoming.next_ack(), None);
        incoming.pop();
        assert_eq!(incoming.next_ack().map(|ack| (ack.epoch, ack.through_seq)), Some((2, 1)));
        assert_eq!(incoming.refuse_held(RefuseReason::InboxClosed), 0);
    }

    #[test]
    fn marks_of_retries_end_with_their_session() {
        let mut incoming = Incoming::default();
        for epoch in 1..=5 {
            assert_eq!(incoming.place(epoch, 1), Place::Next);
            incoming.hold(1, (epoch == 1).then(|| verified(3)));
            assert_eq!(incoming.place(epoch, 2), Place::Next);
            incoming.hold(2, None);
        }
        assert_eq!(incoming.held.len(), 1 + 2, "the message, and the marks of the last session");
        assert_eq!((incoming.stale, incoming.held_bytes), (1, 3));
    }

    #[test]
    fn a_peer_holds_a_window_over_all_its_sessions_and_no_more_than_is_free() {
        let free = Room { messages: usize::MAX, bytes: usize::MAX };
        let mut incoming = Incoming::default();
        for seq in 1..=MAX_IN_FLIGHT_MESSAGES as u64 {
            assert!(incoming.may_hold(1, free));
            incoming.hold(seq, Some(verified(1)));
            incoming.reset();
        }
        assert!(!incoming.may_hold(1, free), "messages of ended sessions count");
        assert!(incoming.pop().is_some() && incoming.may_hold(1, free));
        let held = incoming.held_bytes;
        assert!(!incoming.may_hold(MAX_IN_FLIGHT_BYTES - held + 1, free));
        assert!(incoming.may_hold(1, Room { bytes: held + 1, ..free }));
        assert!(!incoming.may_hold(1, Room { bytes: held, ..free }));
        assert!(!incoming.may_hold(1, Room { messages: held, ..free }));
        while incoming.pop().is_some() {}
        assert_eq!(incoming.held_bytes, 0);
    }

    #[test]
    fn the_window_counts_what_is_unanswered() {
        let mut incoming = Incoming::default();
        assert_eq!(incoming.check_window(MAX_IN_FLIGHT_BYTES), Ok(()));
        incoming.hold(1, Some(verified(1)));
        assert_eq!(incoming.check_window(MAX_IN_FLIGHT_BYTES), Err(WindowExceeded));
        for seq in 2..=MAX_IN_FLIGHT_MESSAGES as u64 {
            assert_eq!(incoming.check_window(1), Ok(()));
            incoming.refuse(seq, RefuseReason::TooLarge);
        }
        assert_eq!(incoming.check_window(0), Err(WindowExceeded));
    }
}
