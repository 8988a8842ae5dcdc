//! The machine of sessions: at most one per peer, whatever the dials race.
//!
//! Both ends send their hello as soon as a link is up. The *arbiter*, the end with the greater
//! machine id, makes the link a session by sending keep on it; for the other end it becomes one when
//! keep arrives, or, as an early session, with the arbiter's hello (`early`). The arbiter reads nothing but
//! control messages before, so a refused link never has to be drained. While the
//! arbiter has a session with the peer, a further link of that peer
//!
//! - replaces the session when its hello has another instance number (the peer was restarted), or
//!   asks to replace (the peer lost its session and was refused before);
//! - is closed as a duplicate otherwise.
//!
//! The arbiter numbers its keeps: the other end follows the greatest number, in whatever order keeps
//! and closes of several links reach it.
//!
//! A dialler that is refused as a duplicate waits for the session that the arbiter has. That session
//! is over another link to this end, because it began with this end's hello: while such a link is
//! alive, its keep may be on the way. Once there is none, the session is lost for this end, and it
//! dials again and asks to replace.
//!
//! What was sent and not confirmed by the layer above when a session ends may be lost.

mod backoff;
mod dial;
mod early;
mod events;
mod help;
mod idle;
mod limits;
mod reconnect;
mod streams;
mod timers;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
};

use x0x_core::{Machine, MachineId, SeededRng, Tick, may_name};

use self::{backoff::Backoff, dial::Dials, early::is_fault, reconnect::Reconnect, timers::Timers};
pub use self::{
    events::{Input, LinkUp, Output, SessionUp, Usage},
    streams::Means,
};
use crate::{
    config::SessionConfig,
    error::DialError,
    link::{LinkClosed, Side},
    metrics::TransportMetrics,
    wire::{CloseCode, Hello, Instance},
};

/// A link, numbered by the driver in the order in which links came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// An address being dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u64);

/// A caller that waits for a connect, numbered by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

#[derive(Debug)]
struct LinkState {
    peer: MachineId,
    address: SocketAddr,
    /// Where this machine dialled: another address than that, where a stream carries the packets.
    dialled: SocketAddr,
    side: Side,
    /// This end asked for the replacement of a session.
    replaces: bool,
    /// This machine wants the session; otherwise it is the peer's choice.
    wanted: bool,
    held: bool,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Waits for the peer's hello.
    Hello,
    /// This end is not the arbiter and waits for keep.
    Keep(Hello),
    /// It is the session.
    Session,
}

#[derive(Debug)]
struct Session {
    link: LinkId,
    instance: Instance,
    /// The arbiter's number; 0 while the session is early.
    number: u64,
    since: Tick,
    /// Sessions of this peer in a row, before this one, that were soon replaced at the peer.
    contested: u32,
    listen_addresses: Vec<SocketAddr>,
    /// As last told by [`Input::Usage`].
    used: Tick,
    held: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A link must have become a session.
    Link(LinkId),
    /// The next address of a dial joins the race.
    Stagger(dial::DialId),
    /// A dial needs help.
    Punch(dial::DialId),
    /// It needs a relay.
    Relay(dial::DialId),
    /// It is made by streams of packets, too.
    Stream(dial::DialId),
    /// A dial has taken too long altogether.
    Dial(dial::DialId),
    /// A dial refused as a duplicate has waited long enough.
    Duplicate(dial::DialId),
    /// A lost session is tried again.
    Reconnect(MachineId),
}

/// Sessions, links on their way to become one, dials and reconnects.
#[derive(Debug)]
pub struct Sessions {
    local: MachineId,
    local_addresses: Vec<SocketAddr>,
    config: SessionConfig,
    metrics: Arc<TransportMetrics>,
    rng: SeededRng,
    links: BTreeMap<LinkId, LinkState>,
    sessions: BTreeMap<MachineId, Session>,
    dials: Dials,
    backoff: Backoff,
    reconnects: BTreeMap<MachineId, Reconnect>,
    timers: Timers<Timer>,
    outputs: VecDeque<Output>,
    generation: u64,
    /// Whether peers can be found, or reached, with the help of others.
    helped: bool,
    /// Whether addresses can be dialled by streams of packets.
    streams: bool,
    stopped: bool,
}

impl Sessions {
    /// No sessions yet, for this machine at these addresses. `rng` is for jitter.
    #[must_use]
    pub fn new(
        local: MachineId,
        local_addresses: Vec<SocketAddr>,
        config: SessionConfig,
        metrics: Arc<TransportMetrics>,
        rng: SeededRng,
    ) -> Self {
        Self {
            local,
            local_addresses,
            backoff: Backoff::new(config.backoff_min, config.backoff_max),
            config,
            metrics,
            rng,
            links: BTreeMap::new(),
            sessions: BTreeMap::new(),
            dials: Dials::default(),
            reconnects: BTreeMap::new(),
            timers: Timers::new(),
            outputs: VecDeque::new(),
            generation: 0,
            helped: false,
            streams: false,
            stopped: false,
        }
    }

    fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    fn add_link(&mut self, now: Tick, up: LinkUp, side: Side, wanted: bool, replace: bool) {
        let LinkUp { link, peer, address, held } = up;
        let (dialled, phase) = (address, Phase::Hello);
        let state =
            LinkState { peer, address, dialled, side, replaces: replace, wanted, held, phase };
        self.links.insert(link, state);
        self.timers.set(Timer::Link(link), now + self.config.hello_deadline);
        self.output(Output::SendHello { link, replace });
    }

    fn on_hello(&mut self, now: Tick, id: LinkId, hello: Hello) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let peer = link.peer;
        if !matches!(link.phase, Phase::Hello) {
            self.metrics.control_refused.inc();
            return self.refuse(now, id, CloseCode::Misbehaved);
        }
        link.wanted |= hello.preferred;
        if self.local < peer {
            // The peer is the arbiter.
            if self.may_begin_early(id, peer) {
                return self.begin_early(now, id, hello);
            }
            self.links.entry(id).and_modify(|link| link.phase = Phase::Keep(hello));
            return;
        }
        if let Some(session) = self.sessions.get(&peer) {
            // A link that came up before the session cannot tell of a later restart or loss.
            let replaces =
                session.link < id && (hello.instance != session.instance || hello.replace);
            if !replaces {
                self.metrics.links_duplicate.inc();
                return self.refuse(now, id, CloseCode::Duplicate);
            }
            self.drop_replaced(peer);
        }
        if self.admit(now, id) {
            let number = self.generation + 1;
            self.output(Output::SendKeep { link: id, number });
            self.begin_session(now, id, number, hello);
        }
    }

    fn on_keep(&mut self, now: Tick, id: LinkId, number: u64) {
        // Nobody's sessions begin at 0.
        let number = number.max(1);
        let Some(link) = self.links.get_mut(&id) else { return };
        let peer = link.peer;
        match std::mem::replace(&mut link.phase, Phase::Session) {
            Phase::Session if self.is_early(id, peer) => self.taken(now, id, number),
            Phase::Keep(hello) => {
                if self.is_late(peer, id, number, &hello) {
                    // The arbiter closes it, if it did not yet.
                    self.metrics.links_duplicate.inc();
                    return self.refuse(now, id, CloseCode::Duplicate);
                }
                if self.may_move(id, peer, &hello) {
                    return self.move_early(now, id, number, hello);
                }
                self.drop_replaced(peer);
                if self.admit(now, id) {
                    self.begin_session(now, id, number, hello);
                }
            }
            // Before the hello, twice, or from the end that does not decide.
            _ => {
                self.metrics.control_refused.inc();
                self.refuse(now, id, CloseCode::Misbehaved);
            }
        }
    }

    /// Whether a keep is older than that of the session. The arbiter's numbers say so within one run
    /// of it; across a restart, the order in which the links came up.
    fn is_late(&self, peer: MachineId, id: LinkId, number: u64, hello: &Hello) -> bool {
        self.sessions.get(&peer).is_some_and(|session| {
            if session.instance == hello.instance {
                number <= session.number
            } else {
                id < session.link
            }
        })
    }

    /// Ends the session that the arbiter replaced.
    fn drop_replaced(&mut self, peer: MachineId) {
        if let Some(session) = self.sessions.remove(&peer) {
            self.metrics.sessions_replaced.inc();
            let link = self.links.remove(&session.link);
            self.output(Output::Down { link: session.link, peer });
            if link.is_some() {
                self.output(Output::Close { link: session.link, code: CloseCode::Duplicate });
            }
        }
    }

    fn begin_session(&mut self, now: Tick, id: LinkId, number: u64, mut hello: Hello) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.phase = Phase::Session;
        let (peer, side, address, held) = (link.peer, link.side, link.address, link.held);
        let dialled = (side == Side::Dialer).then_some(address);
        self.retain_plausible(address, &mut hello);
        self.generation += 1;
        let early = number == 0;
        let contested = if early { 0 } else { self.forget_reconnect(peer) };
        let session = Session {
            link: id,
            instance: hello.instance,
            number,
            since: now,
            contested,
            listen_addresses: hello.listen_addresses.clone(),
            used: now,
            held,
        };
        self.sessions.insert(peer, session);
        self.count_way(id, address);
        self.metrics.sessions.set(self.sessions.len() as u64);
        self.metrics.sessions_opened.inc();
        self.backoff.succeed(peer, dialled);
        let generation = self.generation;
        self.output(Output::Up(SessionUp { link: id, peer, generation, side, hello, early }));
        if early {
            // The link has its time to be taken, and its dial goes on until then.
            return self.answer_dial(id, peer);
        }
        self.timers.cancel(Timer::Link(id));
        self.dials_reached(now, peer);
    }

    /// Leaves of the peer's addresses those that it may name.
    fn retain_plausible(&self, from: SocketAddr, hello: &mut Hello) {
        let claimed = hello.listen_addresses.len();
        hello.listen_addresses.retain(|listens| may_name(from, *listens));
        self.metrics.addresses_refused.add((claimed - hello.listen_addresses.len()) as u64);
    }

    /// Closes a link for a reason of this end.
    fn refuse(&mut self, now: Tick, id: LinkId, code: CloseCode) {
        let Some(link) = self.links.remove(&id) else { return };
        let session = self.end_session(id, link.peer);
        if session.is_some_and(|session| session.is_early()) && !is_fault(code) {
            // It is not wanted any more, so its dial need not go on.
            self.dials_reached(now, link.peer);
        }
        self.output(Output::Close { link: id, code });
        self.link_ended(now, id, &link, &LinkClosed::Local, Some(code));
    }

    fn on_link_closed(&mut self, now: Tick, id: LinkId, reason: &LinkClosed) {
        let Some(link) = self.links.remove(&id) else { return };
        if self.awaits_other_link(id, &link, reason) {
            self.timers.cancel(Timer::Link(id));
            return self.link_ended(now, id, &link, reason, None);
        }
        let was_session = self.end_session(id, link.peer);
        if let Some(session) = was_session.filter(|session| !session.is_early()) {
            self.metrics.sessions_lost.inc();
            self.plan_reconnect(now, &link, &session, reason);
        }
        self.link_ended(now, id, &link, reason, None);
    }

    fn end_session(&mut self, id: LinkId, peer: MachineId) -> Option<Session> {
        self.timers.cancel(Timer::Link(id));
        self.sessions.get(&peer).filter(|session| session.link == id)?;
        let session = self.sessions.remove(&peer);
        self.metrics.sessions.set(self.sessions.len() as u64);
        self.output(Output::Down { link: id, peer });
        session
    }

    fn on_disconnect(&mut self, now: Tick, peer: MachineId, code: CloseCode) {
        self.forget_reconnect(peer);
        if let Some(link) = self.sessions.get(&peer).map(|session| session.link) {
            if code == CloseCode::Refused {
                self.metrics.sessions_expelled.inc();
            }
            self.refuse(now, link, code);
        }
        self.end_waiting(now, peer);
    }

    fn on_shutdown(&mut self) {
        self.stopped = true;
        self.timers.clear();
        self.reconnects.clear();
        self.stop_dials();
        for (id, link) in std::mem::take(&mut self.links) {
            self.end_session(id, link.peer);
            self.output(Output::Close { link: id, code: CloseCode::Shutdown });
        }
        for (peer, session) in std::mem::take(&mut self.sessions) {
            // Of those whose link has ended, and that waited for another.
            self.output(Output::Down { link: session.link, peer });
        }
    }
}

impl Machine for Sessions {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Tick, input: Input) {
        if self.stopped {
            return self.refuse_stopped(&input);
        }
        match input {
            Input::Connect { request, to } => self.on_connect(now, request, &to),
            Input::GaveUp(request) => self.on_gave_up(now, request),
            Input::Dialled { attempt, result } => self.on_dialled(now, attempt, &result),
            Input::Accepted(up) => self.on_accepted(now, up),
            Input::Hello { link, hello } => self.on_hello(now, link, hello),
            Input::Keep { link, number } => self.on_keep(now, link, number),
            Input::Refused { link, code } => self.refuse(now, link, code),
            Input::LinkClosed { link, reason } => self.on_link_closed(now, link, &reason),
            Input::Disconnect(peer, code) => self.on_disconnect(now, peer, code),
            Input::Usage(usage) => self.on_usage(now, &usage),
            Input::Punched { peer, found } => self.on_punched(now, peer, found),
            Input::PunchAgreed(peer) => self.on_punch_agreed(now, peer),
            Input::Relayed { peer, found } => self.on_relayed(now, peer, found),
            Input::LocalAddresses(addresses) => self.on_local_addresses(now, addresses),
            Input::Shutdown => self.on_shutdown(),
        }
        self.metrics.addresses_failed.set(self.backoff.len() as u64);
    }

    fn handle_timeout(&mut self, now: Tick) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Link(link) => {
                    self.metrics.links_timed_out.inc();
                    self.refuse(now, link, CloseCode::Timeout);
                }
                Timer::Stagger(dial) => self.on_stagger(now, dial),
                Timer::Punch(dial) => self.ask_for_help(dial),
                Timer::Relay(dial) => self.on_relay_due(now, dial),
                Timer::Stream(dial) => self.try_streams(dial),
                Timer::Dial(dial) => self.fail_dial(now, dial, &DialError::Timeout),
                Timer::Duplicate(dial) => self.on_duplicate_waited(now, dial),
                Timer::Reconnect(peer) => self.on_reconnect(now, peer),
            }
        }
        self.metrics.addresses_failed.set(self.backoff.len() as u64);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Tick> {
        self.timers.next()
    }
}

impl Sessions {
    fn refuse_stopped(&mut self, input: &Input) {
        match input {
            Input::Connect { request, .. } => {
                self.output(Output::Failed { request: *request, error: DialError::Closed });
            }
            Input::Accepted(up) | Input::Dialled { result: Ok(up), .. } => {
                self.output(Output::Close { link: up.link, code: CloseCode::Shutdown });
            }
            _ => {}
        }
    }
}
