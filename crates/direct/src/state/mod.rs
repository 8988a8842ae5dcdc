//! The machine: windows, order, acknowledgements and duplicates, for all peers.
//!
//! A message to an agent of this machine takes the same way as any other, over a session with
//! itself that is always up; only its frames are not encoded.

mod dedup;
mod event;
mod incoming;
mod lanes;
mod outgoing;
mod peer;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use x0x_core::{AgentId, Machine, MachineId, Tick};

use self::{
    dedup::Dedup,
    incoming::{Place, Retry, Waiting},
    lanes::OpenLanes,
    outgoing::{Pending, Settled, Window},
    peer::{Peer, Session},
};
pub use self::{
    dedup::{MAX_ABSENT_PEERS, MAX_IDS, MAX_IDS_PER_PEER, MIN_IDS_PER_PEER},
    event::{Input, Output, Room, SendRequest, Taken},
    lanes::MAX_OPEN_LANES,
};
use crate::{
    admission::{Admission, Admit, Open},
    config::DirectConfig,
    error::{DirectError, RefuseReason},
    metrics::DirectMetrics,
    wire::{Ack, FrameIn, Kind, Lane, MAX_PAYLOAD, MessageId, MessageIn, Verified},
};

/// Undelivered messages of all machines together: as many as 16 full windows. Past the share of a
/// machine its messages are refused as [`RefuseReason::Busy`].
pub const MAX_HELD_MESSAGES: usize = 16 * 1024;
/// Undelivered payload bytes of all machines together, shared as [`MAX_HELD_MESSAGES`].
pub const MAX_HELD_BYTES: usize = 64 * 1024 * 1024;

/// Something to send, encoded or not.
enum Next {
    Encoded(Bytes),
    Frame(FrameIn),
}

/// Direct messages with all peers as a pure machine.
///
/// Beyond the contract of [`Machine`], several inputs may be handled before outputs are polled; their
/// acknowledgements then travel together.
#[derive(Debug)]
pub struct DirectMachine {
    local: MachineId,
    config: DirectConfig,
    metrics: Arc<DirectMetrics>,
    peers: BTreeMap<MachineId, Peer>,
    /// Peers that may have something to be sent, in turn.
    ready: VecDeque<MachineId>,
    /// Peers with undelivered messages, in turn.
    holding: VecDeque<MachineId>,
    held_messages: usize,
    held_bytes: usize,
    room: Room,
    /// Whose messages were handed out and are not settled yet, in that order.
    unsettled: VecDeque<MachineId>,
    admission: Arc<dyn Admission>,
    inbox_closed: bool,
    dedup: Dedup,
    deadlines: BTreeSet<(Tick, u64, MachineId)>,
    /// Lanes in which this machine may send on.
    lanes: OpenLanes,
    /// When the input that is handled came.
    now: Tick,
    outputs: VecDeque<Output>,
}

impl DirectMachine {
    /// A machine without sessions, whose inbox has no room until [`Input::Room`].
    #[must_use]
    pub fn new(local: MachineId, config: DirectConfig, metrics: Arc<DirectMetrics>) -> Self {
        Self::with_admission(local, config, metrics, Arc::new(Open))
    }

    /// The same, with a say on each message.
    #[must_use]
    pub fn with_admission(
        local: MachineId,
        config: DirectConfig,
        metrics: Arc<DirectMetrics>,
        admission: Arc<dyn Admission>,
    ) -> Self {
        let config = config.bounded();
        let mut itself = Peer::new();
        itself.session = Some(Session::new(0, config.local_agents.clone()));
        Self {
            local,
            config,
            metrics,
            peers: BTreeMap::from([(local, itself)]),
            ready: VecDeque::new(),
            holding: VecDeque::new(),
            held_messages: 0,
            held_bytes: 0,
            room: Room::default(),
            unsettled: VecDeque::new(),
            admission,
            inbox_closed: false,
            dedup: Dedup::default(),
            deadlines: BTreeSet::new(),
            lanes: OpenLanes::default(),
            now: Tick::ZERO,
            outputs: VecDeque::new(),
        }
    }

    /// Whether a message waits for room in the inbox.
    #[must_use]
    pub const fn is_holding(&self) -> bool {
        self.held_messages > 0
    }

    const fn window(&self) -> Window {
        Window { messages: self.config.window_messages, bytes: self.config.window_bytes }
    }

    fn up(&mut self, id: MachineId, generation: u64, agents: Vec<AgentId>) {
        if id == self.local {
            return;
        }
        if self.peers.get(&id).is_some_and(|peer| peer.session.is_some()) {
            self.down(id);
        }
        let peer = self.peers.entry(id).or_insert_with(Peer::new);
        peer.session = Some(Session::new(generation, agents));
        self.dedup.arrived(id);
        self.mark_ready(id);
    }

    fn down(&mut self, id: MachineId) {
        if id == self.local {
            return;
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.session.take().is_none() {
            return;
        }
        peer.incoming.reset();
        let mut settled = Vec::new();
        peer.outgoing.fail(&mut settled);
        self.lanes.close_all(id);
        self.dedup.left(id);
        self.resolve(id, settled);
        self.forget_if_idle(id);
    }

    fn send(&mut self, now: Tick, request: SendRequest) {
        let SendRequest {
            ticket,
            id,
            peer: to_peer,
            from,
            to,
            payload,
            terms,
            deadline,
            connected,
        } = request;
        let window = self.window();
        let known = self.peers.get(&to_peer);
        let lane = (from, to);
        let refused = if terms.lane == Lane::Next && !self.lanes.is_open(to_peer, lane) {
            Some(DirectError::Behind)
        } else if payload.len() > MAX_PAYLOAD {
            Some(DirectError::TooLarge { len: payload.len(), max: MAX_PAYLOAD })
        } else if deadline <= now {
            Some(DirectError::Timeout)
        } else if !connected && known.is_none_or(|peer| peer.session.is_none()) {
            Some(DirectError::NotConnected)
        } else if known.is_some_and(|peer| peer.outgoing.is_full(window, payload.len())) {
            let what = "messages that wait for one machine";
            Some(DirectError::Limit { what, max: window.messages })
        } else {
            None
        };
        if let Some(error) = refused {
            if terms.lane != Lane::None {
                self.lanes.close(to_peer, lane);
            }
            self.settle(ticket, Err(error));
            return;
        }
        if terms.lane == Lane::First {
            self.lanes.open(to_peer, lane);
        }
        let peer = self.peers.entry(to_peer).or_insert_with(Peer::new);
        peer.outgoing.push(Pending { ticket, id, from, to, payload, terms, deadline });
        self.deadlines.insert((deadline, ticket, to_peer));
        self.mark_ready(to_peer);
    }

    fn received(&mut self, peer: MachineId, frame: Bytes) {
        if self.peers.get(&peer).and_then(|peer| peer.session.as_ref()).is_none_or(|s| s.broken) {
            self.metrics.stale.inc();
            return;
        }
        match FrameIn::decode(frame) {
            Ok(FrameIn::Message(message)) => self.message(peer, message),
            Ok(FrameIn::Ack(ack)) => self.ack(peer, &ack),
            Ok(FrameIn::Unknown) => self.metrics.unknown.inc(),
            Err(_) => {
                self.metrics.broken_malformed.inc();
                self.disconnect(peer);
            }
        }
    }

    fn message(&mut self, id: MachineId, message: MessageIn) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(session) = &peer.session else { return };
        match peer.incoming.place(message.epoch, message.seq) {
            Place::Next => {}
            Place::Stale => return self.metrics.stale.inc(),
            Place::Broken => {
                self.metrics.broken_sequence.inc();
                return self.disconnect(id);
            }
        }
        if peer.incoming.check_window(message.payload.len()).is_err() {
            self.metrics.broken_window.inc();
            return self.disconnect(id);
        }
        let (seq, len) = (message.seq, message.payload.len());
        let free = Room {
            messages: MAX_HELD_MESSAGES - self.held_messages,
            bytes: MAX_HELD_BYTES - self.held_bytes,
        };
        let verified = if self.inbox_closed {
            Err(RefuseReason::InboxClosed)
        } else {
            message.verify(&session.agents, &self.config.local_agents)
        };
        // Reading goes on when nothing can be held: what is refused here is told at once, and
        // answers and sessions behind it are not kept waiting. A retry needs no room: its first copy
        // was taken, whatever else there is to hold.
        match verified {
            Ok(message) if self.dedup.contains(id, message.id()) => {
                self.metrics.duplicates.inc();
                // A new beginning opens its lane, whether or not it was taken before.
                let _ = peer.incoming.arrives_behind(&message);
                peer.incoming.hold(seq, Waiting::Retry(Retry::from(&message)));
            }
            Ok(message) => {
                let behind = peer.incoming.arrives_behind(&message);
                if behind || !peer.incoming.may_hold(len, free) {
                    let counter = &self.metrics.refused_behind;
                    if behind { counter } else { &self.metrics.refused_busy }.inc();
                    peer.incoming.refuse_arrival(seq, &message, RefuseReason::Busy);
                } else {
                    self.dedup.insert(id, message.id());
                    self.held_messages += 1;
                    self.held_bytes += len;
                    peer.incoming.hold(seq, Waiting::Message(message));
                }
            }
            Err(reason) => {
                peer.incoming.refuse(seq, reason);
                self.metrics.refused(reason).inc();
            }
        }
        if !peer.incoming.is_empty() && !std::mem::replace(&mut peer.holding, true) {
            self.holding.push_back(id);
        }
        self.mark_ready(id);
        self.deliver();
    }

    fn ack(&mut self, id: MachineId, ack: &Ack) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        // An answer to an earlier session settles nothing: that session's sends were settled when
        // it ended.
        if peer.session.as_ref().is_none_or(|session| session.generation != ack.epoch) {
            self.metrics.stale.inc();
            return;
        }
        let mut settled = Vec::new();
        let outcome = peer.outgoing.acknowledge(ack, &mut settled);
        self.resolve(id, settled);
        if outcome.is_err() {
            self.metrics.broken_ack.inc();
            self.disconnect(id);
        }
        self.mark_ready(id);
    }

    /// Hands out what the inbox has room for, one message a peer in turn.
    fn deliver(&mut self) {
        while let Some(&id) = self.holding.front() {
            let Some(peer) = self.peers.get_mut(&id) else {
                self.holding.pop_front();
                continue;
            };
            let Some(front) = peer.incoming.front() else {
                peer.holding = false;
                self.holding.pop_front();
                self.forget_if_idle(id);
                continue;
            };
            // When the next one does not fit, nothing overtakes it: a large message would wait for
            // ever behind small ones.
            if let Waiting::Message(message) = front
                && (self.room.messages == 0 || message.payload().len() > self.room.bytes)
            {
                break;
            }
            self.holding.rotate_left(1);
            if let Some((seq, what, current)) = peer.incoming.pop() {
                match what {
                    Waiting::Message(message) => self.hand_out(id, (seq, current), message),
                    retry @ Waiting::Retry(_) => {
                        peer.incoming.hand(seq, &retry, current);
                        let dedup = &self.dedup;
                        peer.incoming.settle_retries(|message| dedup.contains(id, message));
                    }
                }
            }
            self.mark_ready(id);
        }
        self.metrics.held.set(self.held_messages as u64);
    }

    /// Hands a message out, unless it is not to be taken.
    fn hand_out(&mut self, id: MachineId, (seq, current): (u64, bool), message: Verified) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let len = message.payload().len();
        self.held_messages -= 1;
        self.held_bytes -= len;
        let admit = if peer.incoming.is_behind(&message) {
            self.metrics.refused_behind.inc();
            Admit::Refuse
        } else {
            let admit = self.admission.admit(self.now, &message, id);
            match admit {
                Admit::Take => {}
                Admit::Ignore => self.metrics.unwanted.inc(),
                Admit::Refuse if message.terms().kind == Kind::Read => {
                    self.metrics.refused_notes.inc();
                }
                Admit::Refuse => self.metrics.refused_busy.inc(),
            }
            admit
        };
        if admit == Admit::Refuse {
            self.dedup.remove(id, message.id());
            peer.incoming.refuse_popped((seq, current), &message, RefuseReason::Busy);
            return;
        }
        // Who is ignored is answered like others, and in turn.
        let message = Waiting::Message(message);
        peer.incoming.hand(seq, &message, current);
        self.unsettled.push_back(id);
        let Waiting::Message(message) = message else { return };
        if admit == Admit::Ignore {
            self.outputs.push_back(Output::Ignore);
            return;
        }
        self.room.messages -= 1;
        self.room.bytes -= len;
        self.metrics.delivered.inc();
        self.outputs.push_back(Output::Deliver { machine: id, message });
    }

    fn settled(&mut self, outcomes: Vec<Taken>) {
        for outcome in outcomes {
            let Some(id) = self.unsettled.pop_front() else { return };
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            let dedup = &self.dedup;
            let message = peer.incoming.settle(outcome, |message| dedup.contains(id, message));
            if let (Some(message), Err(reason)) = (message, outcome) {
                self.dedup.remove(id, message);
                self.metrics.refused(reason).inc();
            }
            self.mark_ready(id);
            self.forget_if_idle(id);
        }
    }

    fn close_inbox(&mut self) {
        self.inbox_closed = true;
        while let Some(id) = self.holding.pop_front() {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.holding = false;
                let refused = peer.incoming.refuse_held(RefuseReason::InboxClosed);
                self.metrics.refused_inbox_closed.add(refused as u64);
                self.mark_ready(id);
                self.forget_if_idle(id);
            }
        }
        self.held_messages = 0;
        self.held_bytes = 0;
        self.metrics.held.set(0);
    }

    /// What is sent to a peer next: what the transport did not take, then answers, then messages.
    fn next_frame(&mut self, id: MachineId) -> Option<Next> {
        let peer = self.peers.get_mut(&id)?;
        let session = peer.session.as_mut()?;
        if session.blocked || session.broken {
            return None;
        }
        if let Some(frame) = session.unsent.take() {
            return Some(Next::Encoded(frame));
        }
        if let Some(ack) = peer.incoming.next_ack() {
            self.metrics.acks_sent.inc();
            return Some(Next::Frame(FrameIn::Ack(ack)));
        }
        let epoch = session.generation;
        let pending = self.next_message(id)?;
        let (seq, Pending { id, from, to, payload, terms, .. }) = pending;
        Some(Next::Frame(FrameIn::Message(MessageIn { epoch, seq, id, from, to, payload, terms })))
    }

    /// The next message that the window allows, and trust still does.
    fn next_message(&mut self, id: MachineId) -> Option<(u64, Pending)> {
        let (window, mut settled) = (self.window(), Vec::new());
        let peer = self.peers.get_mut(&id)?;
        let is_denied = |to| id != self.local && !self.admission.may_send(&to, &id);
        while peer.outgoing.next_recipient(window).is_some_and(is_denied) {
            peer.outgoing.forbid_next(&mut settled);
        }
        let next = peer.outgoing.next(window);
        if !settled.is_empty() {
            self.resolve(id, settled);
        }
        next
    }

    fn mark_ready(&mut self, id: MachineId) {
        if let Some(peer) = self.peers.get_mut(&id)
            && !std::mem::replace(&mut peer.ready, true)
        {
            self.ready.push_back(id);
        }
    }

    fn disconnect(&mut self, id: MachineId) {
        // The session with itself keeps every rule: both of its ends are this machine.
        if let Some(session) = self.peers.get_mut(&id).and_then(|peer| peer.session.as_mut())
            && !std::mem::replace(&mut session.broken, true)
        {
            self.outputs.push_back(Output::Disconnect(id));
        }
    }

    fn forget_if_idle(&mut self, id: MachineId) {
        if self.peers.get(&id).is_some_and(Peer::is_idle) {
            self.peers.remove(&id);
            self.ready.retain(|other| *other != id);
            self.holding.retain(|other| *other != id);
        }
    }

    fn resolve(&mut self, peer: MachineId, settled: Vec<Settled>) {
        let closed = self.peers.get_mut(&peer).map(|peer| peer.outgoing.take_closed());
        for lane in closed.unwrap_or_default() {
            self.lanes.close(peer, lane);
        }
        for Settled { ticket, id, deadline, result } in settled {
            self.deadlines.remove(&(deadline, ticket, peer));
            self.settle(ticket, result.map(|()| id));
        }
    }

    fn settle(&mut self, ticket: u64, result: Result<MessageId, DirectError>) {
        let counter = match result {
            Ok(_) => &self.metrics.acknowledged,
            Err(DirectError::NotConnected) => &self.metrics.not_connected,
            Err(DirectError::TooLarge { .. }) => &self.metrics.oversized,
            Err(DirectError::Refused(_)) => &self.metrics.refused_by_peer,
            Err(DirectError::Timeout) => &self.metrics.timed_out,
            Err(DirectError::Limit { .. }) => &self.metrics.over_limit,
            Err(DirectError::Behind) => &self.metrics.behind,
            Err(DirectError::Forbidden) => &self.metrics.forbidden,
            Err(DirectError::Unconfirmed | DirectError::Closed) => &self.metrics.unconfirmed,
        };
        counter.inc();
        self.outputs.push_back(Output::Resolve { ticket, result });
    }
}

impl Machine for DirectMachine {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Tick, input: Input) {
        self.now = now;
        match input {
            Input::Up { peer, generation, agents } => self.up(peer, generation, agents),
            Input::Down(peer) => self.down(peer),
            Input::Received { peer, frame } => self.received(peer, frame),
            Input::Blocked { peer, frame } => {
                self.metrics.blocked.inc();
                let session = self.peers.get_mut(&peer).and_then(|peer| peer.session.as_mut());
                if let Some(session) = session {
                    session.blocked = true;
                    session.unsent = Some(frame);
                }
            }
            Input::Writable(id) => {
                let session = self.peers.get_mut(&id).and_then(|peer| peer.session.as_mut());
                if let Some(session) = session {
                    session.blocked = false;
                    self.mark_ready(id);
                }
            }
            Input::Send(request) => self.send(now, request),
            Input::Room(room) => {
                self.room = room;
                self.deliver();
            }
            Input::Settled(outcomes) => self.settled(outcomes),
            Input::InboxClosed => self.close_inbox(),
        }
    }

    fn handle_timeout(&mut self, now: Tick) {
        self.now = now;
        while let Some((deadline, ticket, id)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.deadlines.pop_first();
            let mut settled = Vec::new();
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.outgoing.expire(ticket, &mut settled);
            }
            self.resolve(id, settled);
            self.forget_if_idle(id);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            let id = self.ready.pop_front()?;
            let Some(next) = self.next_frame(id) else {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.ready = false;
                }
                continue;
            };
            self.ready.push_back(id);
            match next {
                Next::Frame(FrameIn::Message(message)) if id == self.local => {
                    self.message(id, message);
                }
                Next::Frame(FrameIn::Ack(ack)) if id == self.local => self.ack(id, &ack),
                Next::Frame(frame) => {
                    return Some(Output::Transmit { peer: id, frame: frame.encode() });
                }
                Next::Encoded(frame) => return Some(Output::Transmit { peer: id, frame }),
            }
        }
    }

    fn poll_timeout(&self) -> Option<Tick> {
        self.deadlines.first().map(|(deadline, ..)| *deadline)
    }
}
