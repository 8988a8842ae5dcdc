//! Messages from one machine: their order, and those that wait for room in the inbox.

use std::collections::{BTreeSet, VecDeque};

use x0x_core::AgentId;

use super::{Room, lanes::LaneKey};
use crate::{
    error::RefuseReason,
    wire::{
        Ack, Lane, MAX_IN_FLIGHT_BYTES, MAX_IN_FLIGHT_MESSAGES, MAX_REFUSALS, MessageId, Refusal,
        Verified,
    },
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
    what: Waiting,
}

/// What waits for its turn.
#[derive(Debug)]
pub(super) enum Waiting {
    /// A message.
    Message(Verified),
    /// The retry of a message that is further ahead here, or was taken before; it is settled in its
    /// turn, as the message was.
    Retry(Retry),
}

/// What is kept of a retry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    id: MessageId,
    from: AgentId,
    to: AgentId,
    lane: Lane,
}

impl From<&Verified> for Retry {
    fn from(message: &Verified) -> Self {
        let (id, lane) = (message.id(), message.terms().lane);
        Self { id, from: message.from(), to: message.to(), lane }
    }
}

impl Waiting {
    const fn is_retry(&self) -> bool {
        matches!(self, Self::Retry(_))
    }

    /// Payload bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Message(message) => message.payload().len(),
            Self::Retry(_) => 0,
        }
    }

    fn header(&self) -> Retry {
        match self {
            Self::Message(message) => message.into(),
            Self::Retry(retry) => *retry,
        }
    }
}

impl Retry {
    fn lane(&self) -> Option<LaneKey> {
        (self.lane != Lane::None).then_some((self.from, self.to))
    }
}

/// Handed out, and not settled yet.
#[derive(Debug)]
struct Handed {
    seq: u64,
    header: Retry,
    retry: bool,
}

/// Lanes remembered as closed, of one machine; past it all are forgotten, and only the sender's own
/// order suffers.
const MAX_CLOSED_LANES: usize = 1024;

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
    /// In the order in which they were handed out; the first is no retry. The first `stale_handed`
    /// are of earlier sessions.
    handed: VecDeque<Handed>,
    stale_handed: usize,
    /// Lanes with a message that was refused on arrival and not sent again yet.
    closed_to_arrivals: BTreeSet<LaneKey>,
    /// The same, of messages that were refused in their turn. Outlives the session, as do messages
    /// behind them that are still held.
    closed_lanes: BTreeSet<LaneKey>,
}

impl Incoming {
    /// A session began or ended: the order starts anew. What is held is still delivered; marks of
    /// retries go, since nobody waits for their answer any more.
    pub(super) fn reset(&mut self) {
        let (mut held, held_bytes) = (std::mem::take(&mut self.held), self.held_bytes);
        held.retain(|held| !held.what.is_retry());
        let mut handed = std::mem::take(&mut self.handed);
        handed.retain(|handed| !handed.retry);
        *self = Self {
            stale: held.len(),
            held,
            held_bytes,
            stale_handed: handed.len(),
            handed,
            closed_lanes: std::mem::take(&mut self.closed_lanes),
            ..Self::default()
        };
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

    /// Keeps something until the inbox has room. A retry takes no room of its own: the sender's
    /// window bounds them.
    pub(super) fn hold(&mut self, seq: u64, what: Waiting) {
        self.bytes += what.len();
        self.held_bytes += what.len();
        self.held.push_back(Held { seq, what });
    }

    /// Whether a sender that keeps to its window could have sent this many payload bytes more.
    pub(super) fn check_window(&self, len: usize) -> Result<(), WindowExceeded> {
        let handed = self.handed.len() - self.stale_handed;
        let unanswered = self.held.len() - self.stale + handed + self.refusals.len();
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
        let messages = self.held.drain(..).filter(|held| !held.what.is_retry()).count();
        self.stale = 0;
        self.bytes = 0;
        self.held_bytes = 0;
        messages
    }

    /// Whether nothing waits, for the inbox or to be settled.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.handed.is_empty()
    }

    /// What waits for the inbox, if its turn is next.
    pub(super) fn front(&self) -> Option<&Waiting> {
        self.held.front().map(|held| &held.what)
    }

    /// Whether a message comes behind one of its lane that was refused on arrival.
    pub(super) fn arrives_behind(&mut self, message: &Verified) -> bool {
        let header = Retry::from(message);
        let Some(lane) = header.lane() else { return false };
        if header.lane == Lane::First {
            self.closed_to_arrivals.remove(&lane);
        }
        self.closed_to_arrivals.contains(&lane)
    }

    /// Notes the refusal of a message that was not held, and closes its lane.
    pub(super) fn refuse_arrival(&mut self, seq: u64, message: &Verified, reason: RefuseReason) {
        self.refuse(seq, reason);
        close(&mut self.closed_to_arrivals, Retry::from(message).lane());
    }

    /// Whether a message whose turn it is comes behind one of its lane that was refused.
    pub(super) fn is_behind(&self, message: &Verified) -> bool {
        let header = Retry::from(message);
        header.lane == Lane::Next && header.lane().is_some_and(|l| self.closed_lanes.contains(&l))
    }

    /// Notes the refusal of a message that was taken out, and closes its lane.
    pub(super) fn refuse_popped(
        &mut self,
        (seq, current): (u64, bool),
        message: &Verified,
        reason: RefuseReason,
    ) {
        if current {
            self.refuse(seq, reason);
        }
        close(&mut self.closed_lanes, Retry::from(message).lane());
    }

    /// Takes what is next out, with whether it is of this session.
    pub(super) fn pop(&mut self) -> Option<(u64, Waiting, bool)> {
        let Held { seq, what } = self.held.pop_front()?;
        self.held_bytes -= what.len();
        let current = self.stale == 0;
        if current {
            self.bytes -= what.len();
        } else {
            self.stale -= 1;
        }
        Some((seq, what, current))
    }

    /// Notes that something was taken out and is not settled yet.
    pub(super) fn hand(&mut self, seq: u64, what: &Waiting, current: bool) {
        let header = what.header();
        if header.lane == Lane::First
            && let Some(lane) = header.lane()
        {
            self.closed_lanes.remove(&lane);
        }
        if !current {
            // What is stale is handed out before anything of this session.
            self.stale_handed += 1;
        }
        self.handed.push_back(Handed { seq, header, retry: what.is_retry() });
    }

    /// The outcome of the oldest message that was handed out, and of its retries right behind it.
    /// `taken` says whether an id was taken and is remembered. Returns the message's id.
    pub(super) fn settle(
        &mut self,
        outcome: Result<(), RefuseReason>,
        taken: impl Fn(MessageId) -> bool,
    ) -> Option<MessageId> {
        let (handed, current) = self.pop_handed()?;
        let id = handed.header.id;
        if let Err(reason) = outcome {
            if current {
                self.refuse(handed.seq, reason);
            }
            close(&mut self.closed_lanes, handed.header.lane());
        }
        self.settle_retries(|other| (outcome.is_ok() || other != id) && taken(other));
        Some(id)
    }

    /// Settles retries at the front: nothing is waited for on their account.
    pub(super) fn settle_retries(&mut self, taken: impl Fn(MessageId) -> bool) {
        while self.handed.front().is_some_and(|handed| handed.retry) {
            let Some((Handed { seq, header, .. }, current)) = self.pop_handed() else { return };
            if !taken(header.id) {
                if current {
                    self.refuse(seq, RefuseReason::Busy);
                }
                close(&mut self.closed_lanes, header.lane());
            }
        }
    }

    fn pop_handed(&mut self) -> Option<(Handed, bool)> {
        let handed = self.handed.pop_front()?;
        let current = self.stale_handed == 0;
        self.stale_handed -= usize::from(!current);
        Some((handed, current))
    }

    /// All messages up to this one are settled.
    fn through(&self) -> u64 {
        let handed = self.handed.get(self.stale_handed).map(|handed| handed.seq);
        let held = || self.held.get(self.stale).map(|held| held.seq);
        handed.or_else(held).map_or(self.last_seq, |seq| seq - 1)
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

fn close(lanes: &mut BTreeSet<LaneKey>, lane: Option<LaneKey>) {
    if lanes.len() >= MAX_CLOSED_LANES {
        lanes.clear();
    }
    lanes.extend(lane);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use x0x_core::AgentId;

    use super::*;
    use crate::wire::{MessageIn, Terms};

    fn verified(len: usize) -> Verified {
        let agent = AgentId::new([1; 32]);
        let payload = Bytes::from(vec![0; len]);
        let terms = Terms::default();
        let (from, to, id) = (agent, agent, [0; 16]);
        let message = MessageIn { epoch: 1, seq: 1, id, from, to, payload, terms };
        message.verify(&[agent], &[agent]).expect("agents are known")
    }

    fn retry() -> Waiting {
        Waiting::Retry(Retry::from(&verified(0)))
    }

    /// Hands out what is next, which is taken; its payload's length.
    fn take(incoming: &mut Incoming) -> Option<usize> {
        let (seq, what, current) = incoming.pop()?;
        incoming.hand(seq, &what, current);
        match &what {
            Waiting::Message(_) => drop(incoming.settle(Ok(()), |_| true)),
            Waiting::Retry(_) => incoming.settle_retries(|_| true),
        }
        Some(what.len())
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
        incoming.hold(1, Waiting::Message(verified(5)));
        incoming.refuse(2, RefuseReason::UnknownRecipient);
        incoming.hold(3, retry());
        let refusals = vec![Refusal { seq: 2, reason: RefuseReason::UnknownRecipient }];
        let ack = Ack { epoch: 7, through_seq: 0, refusals };
        assert_eq!(incoming.next_ack(), Some(ack));
        assert_eq!((incoming.front().map(Waiting::len), incoming.bytes), (Some(5), 5));
        assert_eq!(take(&mut incoming), Some(5));
        let ack = Ack { epoch: 7, through_seq: 2, refusals: Vec::new() };
        assert_eq!(incoming.next_ack(), Some(ack));
        assert_eq!(take(&mut incoming), Some(0));
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
        incoming.hold(1, Waiting::Message(verified(3)));
        incoming.reset();
        assert_eq!(incoming.next_ack(), None);
        assert_eq!(incoming.place(2, 1), Place::Next);
        incoming.hold(1, Waiting::Message(verified(4)));
        assert_eq!((incoming.bytes, incoming.next_ack()), (4, None));
        assert_eq!(take(&mut incoming), Some(3));
        assert_eq!(incoming.next_ack(), None);
        take(&mut incoming);
        assert_eq!(incoming.next_ack().map(|ack| (ack.epoch, ack.through_seq)), Some((2, 1)));
        assert_eq!(incoming.refuse_held(RefuseReason::InboxClosed), 0);
    }

    #[test]
    fn marks_of_retries_end_with_their_session() {
        let mut incoming = Incoming::default();
        for epoch in 1..=5 {
            assert_eq!(incoming.place(epoch, 1), Place::Next);
            let what = if epoch == 1 { Waiting::Message(verified(3)) } else { retry() };
            incoming.hold(1, what);
            assert_eq!(incoming.place(epoch, 2), Place::Next);
            incoming.hold(2, retry());
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
            incoming.hold(seq, Waiting::Message(verified(1)));
            incoming.reset();
        }
        assert!(!incoming.may_hold(1, free), "messages of ended sessions count");
        assert!(take(&mut incoming).is_some() && incoming.may_hold(1, free));
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
        incoming.hold(1, Waiting::Message(verified(1)));
        assert_eq!(incoming.check_window(MAX_IN_FLIGHT_BYTES), Err(WindowExceeded));
        for seq in 2..=MAX_IN_FLIGHT_MESSAGES as u64 {
            assert_eq!(incoming.check_window(1), Ok(()));
            incoming.refuse(seq, RefuseReason::TooLarge);
        }
        assert_eq!(incoming.check_window(0), Err(WindowExceeded));
    }
    #[test]
    fn what_is_handed_out_is_answered_once_it_is_settled() {
        let mut incoming = Incoming::default();
        for seq in 1..=3 {
            assert_eq!(incoming.place(1, seq), Place::Next);
            incoming.hold(seq, if seq < 3 { Waiting::Message(verified(1)) } else { retry() });
        }
        while let Some((seq, what, current)) = incoming.pop() {
            incoming.hand(seq, &what, current);
        }
        assert_eq!(incoming.next_ack(), None);
        assert!(incoming.settle(Ok(()), |_| true).is_some());
        assert_eq!(incoming.next_ack().map(|ack| ack.through_seq), Some(1));
        // The second is not stored, so that its retry is refused, too.
        assert!(incoming.settle(Err(RefuseReason::NotStored), |_| true).is_some());
        let ack = incoming.next_ack().expect("two refusals");
        assert_eq!((ack.through_seq, ack.refusals.len()), (3, 2));
        assert!(incoming.is_empty());
    }

    #[test]
    fn a_lane_stays_closed_until_it_begins_again() {
        let in_lane = |lane| {
            let mut message = verified(1);
            message.set_lane(lane);
            message
        };
        let (next, first) = (in_lane(Lane::Next), in_lane(Lane::First));
        let mut incoming = Incoming::default();
        assert!(!incoming.arrives_behind(&next));
        incoming.refuse_arrival(1, &next, RefuseReason::Busy);
        assert!(incoming.arrives_behind(&next));
        assert!(!incoming.arrives_behind(&verified(1)), "what is in no lane is not concerned");
        assert!(!incoming.arrives_behind(&first) && !incoming.arrives_behind(&next));
        incoming.refuse_popped((2, true), &next, RefuseReason::Busy);
        incoming.reset();
        assert!(incoming.is_behind(&next), "what is held of the ended session comes behind it");
        incoming.hand(1, &Waiting::Message(first), true);
        assert!(!incoming.is_behind(&next));
        assert!(incoming.settle(Err(RefuseReason::NotStored), |_| true).is_some());
        assert!(incoming.is_behind(&next), "its new beginning failed");
    }
}
