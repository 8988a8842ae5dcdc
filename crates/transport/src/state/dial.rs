//! Dials: one per peer however many ask, its addresses raced with a stagger, at most
//! [`MAX_DIALS`] at once.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
};

use x0x_core::{MAX_ADDRESSES, MachineId, PeerAddr, Tick};

use super::{AttemptId, LinkId, LinkState, LinkUp, Means, Output, RequestId, Sessions, Timer};
use crate::{
    config::{MAX_DIALS, MAX_QUEUED_DIALS, MAX_WAITERS},
    error::DialError,
    link::{LinkClosed, Side},
    sock::table::is_virtual,
    wire::CloseCode,
};

/// Most addresses of a dial that are tried by streams.
const MAX_STREAMS_TRIED: usize = MAX_ADDRESSES;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DialId(u64);

/// All dials, running or queued.
#[derive(Debug, Default)]
pub(super) struct Dials {
    all: BTreeMap<DialId, Dial>,
    queue: VecDeque<DialId>,
    pub(super) attempts: BTreeMap<AttemptId, DialId>,
    next_id: u64,
}

/// What others do for a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Help {
    /// Nothing yet.
    Possible,
    /// They were asked.
    Asked,
    /// They have done what they could, or cannot do anything.
    Over,
}

/// On whose behalf a dial is made.
#[derive(Debug, Clone, Copy)]
pub(super) enum Caller {
    /// Somebody who waits for the session.
    Waiter(RequestId),
    /// The machine itself, for a lost session that was wanted or held, or was not.
    Reopen { wanted: bool },
}

impl Caller {
    const fn waiter(self) -> Option<RequestId> {
        match self {
            Self::Waiter(request) => Some(request),
            Self::Reopen { .. } => None,
        }
    }

    const fn wants(self) -> bool {
        matches!(self, Self::Waiter(_) | Self::Reopen { wanted: true })
    }
}

#[derive(Debug)]
pub(super) struct Dial {
    pub(super) expected: Option<MachineId>,
    /// Not tried yet, best first.
    untried: VecDeque<SocketAddr>,
    pub(super) trying: BTreeMap<AttemptId, (Means, SocketAddr)>,
    /// To be tried by streams of packets, best first, and whether the time for that has come.
    pub(super) streams: VecDeque<SocketAddr>,
    pub(super) streaming: bool,
    /// The first attempt that made it.
    pub(super) link: Option<LinkId>,
    /// Who is or was there.
    peer: Option<MachineId>,
    waiters: Vec<RequestId>,
    /// Somebody asked for it, not only the machine itself for a session that a stranger had opened.
    wanted: bool,
    /// The machine itself needs it to reopen a session.
    reopens: bool,
    /// A link was refused as a duplicate: the peer has a session.
    pub(super) refused: bool,
    /// The replacement of that session was asked for.
    replace: bool,
    /// To find a direct path, and a relay.
    pub(super) help: Help,
    pub(super) relay: Help,
    /// When the peer agreed to send at once, and a way by a relay that waits for what comes of that.
    pub(super) agreed: Option<Tick>,
    pub(super) ready: Option<SocketAddr>,
    /// Ways by relays that were dialled.
    pub(super) relays: u32,
    /// Where others helped to find the peer.
    pub(super) punched: Option<SocketAddr>,
    pub(super) error: Option<DialError>,
}

impl Dial {
    fn is_for(&self, to: &PeerAddr) -> bool {
        match to.id {
            Some(id) => self.expected == Some(id),
            None => self.expected.is_none() && to.addresses.iter().any(|a| self.has(*a)),
        }
    }

    fn has(&self, address: SocketAddr) -> bool {
        self.untried.contains(&address)
            || self.trying.values().any(|tried| *tried == (Means::Packets, address))
    }

    pub(super) fn has_untried(&self) -> bool {
        !self.untried.is_empty()
    }

    /// Whether nothing is left to try, or on its way.
    pub(super) fn is_exhausted(&self) -> bool {
        let idle = self.untried.is_empty() && self.trying.is_empty();
        idle && self.link.is_none() && self.ready.is_none()
    }

    /// Puts an address at which the peer answers before all others; false when a link is up already, or
    /// the address is being tried since it began to answer.
    pub(super) fn add_first(&mut self, address: SocketAddr) -> bool {
        let wanted = self.link.is_none();
        if wanted {
            self.untried.retain(|untried| *untried != address);
            self.untried.push_front(address);
        }
        wanted
    }
}

impl Dials {
    fn running(&self) -> usize {
        self.all.len() - self.queue.len()
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(super) fn get(&self, id: DialId) -> Option<&Dial> {
        self.all.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: DialId) -> Option<&mut Dial> {
        self.all.get_mut(&id)
    }

    /// Whether somebody asked for a session with the peer.
    pub(super) fn want(&self, peer: MachineId) -> bool {
        self.all.values().any(|dial| dial.wanted && dial.peer == Some(peer))
    }

    /// The dial of a peer for which others were asked for something.
    pub(super) fn helped(&self, peer: MachineId, with: impl Fn(&Dial) -> Help) -> Option<DialId> {
        let mut asked = self.all.iter().filter(|(_, dial)| with(dial) == Help::Asked);
        asked.find(|(_, dial)| dial.expected == Some(peer)).map(|(id, _)| *id)
    }

    /// The dial that a link came of.
    pub(super) fn of_link(&self, link: LinkId) -> Option<&Dial> {
        self.all.values().find(|dial| dial.link == Some(link))
    }
}

impl Sessions {
    pub(super) fn on_connect(&mut self, now: Tick, request: RequestId, to: &PeerAddr) {
        let existing = match to.id {
            Some(id) => self.sessions.contains_key(&id).then_some(id),
            None => self.session_at(&to.addresses),
        };
        let outcome = match existing {
            Some(peer) => Ok(Some(peer)),
            None => self.dial(now, Caller::Waiter(request), to).map(|()| None),
        };
        match outcome {
            Ok(Some(peer)) => self.output(Output::Connected { request, peer }),
            Ok(None) => {}
            Err(error) => {
                self.metrics.count_dial_failure(&error);
                self.output(Output::Failed { request, error });
            }
        }
    }

    /// The peer of a session that was dialled at one of these addresses.
    fn session_at(&self, addresses: &[SocketAddr]) -> Option<MachineId> {
        let links = self.sessions.values().filter_map(|session| self.links.get(&session.link));
        let mut dialled = links.filter(|link| link.side == Side::Dialer);
        dialled.find(|link| addresses.contains(&link.dialled)).map(|link| link.peer)
    }

    /// Joins or begins a dial.
    pub(super) fn dial(
        &mut self,
        now: Tick,
        caller: Caller,
        to: &PeerAddr,
    ) -> Result<(), DialError> {
        if to.id == Some(self.local) {
            return Err(DialError::OwnAddress);
        }
        let mut addresses: VecDeque<SocketAddr> = VecDeque::new();
        for address in to.addresses.iter().take(MAX_ADDRESSES) {
            let usable = !self.local_addresses.contains(address) && !is_virtual(*address);
            if usable && !addresses.contains(address) {
                addresses.push_back(*address);
            }
        }
        let none_usable = addresses.is_empty();
        let retry_at =
            addresses.iter().filter_map(|a| self.backoff.blocked_until(now, to.id, *a)).min();
        addresses.retain(|a| self.backoff.blocked_until(now, to.id, *a).is_none());
        if let Some(dial) = self.dials.all.values_mut().find(|dial| dial.is_for(to)) {
            return join(dial, caller, &addresses);
        }
        let nobody_helps = !self.helped || to.id.is_none() || self.sessions.is_empty();
        // Networks number their machines alike: what is an own address here may be the peer's elsewhere.
        if none_usable && nobody_helps {
            let own = !to.addresses.is_empty();
            return Err(if own { DialError::OwnAddress } else { DialError::NoAddress });
        }
        let retry_at = retry_at.filter(|_| addresses.is_empty());
        let found_only = none_usable.then_some(DialError::NoAddress);
        if let Some(retry_at) = retry_at.max(self.contested_until(now, to)) {
            // Rounded up: whoever waits that long finds the back-off over.
            let retry_in_ms = (retry_at - now).as_micros().div_ceil(1000);
            return Err(DialError::BackingOff { retry_in_ms: retry_in_ms as u64 });
        }
        let max = self.config.max_sessions;
        if !self.may_have_room(now, caller.wants()) {
            return Err(DialError::Limit { what: "sessions", max });
        }
        if self.dials.running() >= MAX_DIALS && self.dials.queue.len() >= MAX_QUEUED_DIALS {
            return Err(DialError::Limit { what: "dials", max: MAX_QUEUED_DIALS });
        }
        self.begin_dial(now, to.id, addresses, caller, found_only);
        Ok(())
    }

    fn begin_dial(
        &mut self,
        now: Tick,
        expected: Option<MachineId>,
        untried: VecDeque<SocketAddr>,
        caller: Caller,
        error: Option<DialError>,
    ) {
        let id = DialId(self.dials.number());
        let help = if self.helped && expected.is_some() { Help::Possible } else { Help::Over };
        let dial = Dial {
            expected,
            untried,
            trying: BTreeMap::new(),
            streams: VecDeque::new(),
            streaming: false,
            link: None,
            peer: expected,
            waiters: caller.waiter().into_iter().collect(),
            wanted: caller.wants(),
            reopens: caller.waiter().is_none(),
            refused: false,
            replace: false,
            help,
            relay: help,
            agreed: None,
            ready: None,
            relays: 0,
            punched: None,
            error,
        };
        self.dials.all.insert(id, dial);
        self.dials.queue.push_back(id);
        self.start_queued(now);
    }

    fn start_queued(&mut self, now: Tick) {
        while self.dials.running() < MAX_DIALS
            && let Some(id) = self.dials.queue.pop_front()
        {
            self.timers.set(Timer::Dial(id), now + self.config.dial_deadline);
            self.plan_help(now, id);
            self.try_next(now, id);
        }
    }

    /// Dials the next address, and plans the one after it.
    pub(super) fn try_next(&mut self, now: Tick, id: DialId) {
        let attempt = AttemptId(self.dials.number());
        let Some(dial) = self.dials.all.get_mut(&id) else { return };
        let Some(address) = dial.untried.pop_front() else { return };
        dial.trying.insert(attempt, (Means::Packets, address));
        if dial.streams.len() < MAX_STREAMS_TRIED && !is_virtual(address) {
            dial.streams.push_back(address);
        }
        let (expected, more) = (dial.expected, !dial.untried.is_empty());
        self.dials.attempts.insert(attempt, id);
        if more {
            self.timers.set(Timer::Stagger(id), now + self.config.dial_stagger);
        } else {
            self.timers.cancel(Timer::Stagger(id));
        }
        self.metrics.dials.inc();
        self.output(Output::Dial { attempt, address, by: Means::Packets, expected });
    }

    pub(super) fn on_stagger(&mut self, now: Tick, id: DialId) {
        self.try_next(now, id);
    }

    pub(super) fn on_dialled(
        &mut self,
        now: Tick,
        attempt: AttemptId,
        result: &Result<LinkUp, DialError>,
    ) {
        let owner = self.dials.attempts.remove(&attempt);
        let dial = owner.and_then(|id| Some((id, self.dials.all.get_mut(&id)?)));
        let Some((id, dial)) = dial else {
            if let Ok(up) = result {
                // The dial ended, or another address won, while this one came up.
                self.output(Output::Close { link: up.link, code: CloseCode::Duplicate });
            }
            return;
        };
        let tried = dial.trying.remove(&attempt);
        let error = match result {
            Err(error) => error.clone(),
            Ok(up) => match self.wrong_peer(id, up.peer) {
                None => {
                    let at = tried.map_or(up.address, |(_, address)| address);
                    return self.dial_link_up(now, id, *up, at);
                }
                Some(error) => {
                    self.output(Output::Close { link: up.link, code: CloseCode::Misbehaved });
                    error
                }
            },
        };
        match tried {
            Some((Means::Stream, _)) => self.stream_failed(now, id, &error),
            tried => self.address_failed(now, id, tried.map(|(_, address)| address), error),
        }
    }

    fn wrong_peer(&self, id: DialId, peer: MachineId) -> Option<DialError> {
        let expected = self.dials.all.get(&id)?.expected;
        if peer == self.local {
            return Some(DialError::OwnAddress);
        }
        let other = expected.is_some_and(|expected| expected != peer);
        other.then_some(DialError::PeerMisbehaved("another machine answered"))
    }

    fn dial_link_up(&mut self, now: Tick, id: DialId, up: LinkUp, at: SocketAddr) {
        let session_may_come = self.is_linked(up.peer);
        let Some(dial) = self.dials.all.get_mut(&id) else { return };
        dial.link = Some(up.link);
        dial.peer = Some(up.peer);
        dial.replace = dial.refused && !session_may_come;
        let (replace, wanted) = (dial.replace, dial.wanted);
        self.abort_attempts(id);
        self.timers.cancel(Timer::Stagger(id));
        self.add_link(now, up, Side::Dialer, wanted, replace);
        self.links.entry(up.link).and_modify(|link| link.dialled = at);
    }

    /// Gives the attempts up; their addresses count as untried again.
    fn abort_attempts(&mut self, id: DialId) {
        let Some(dial) = self.dials.all.get_mut(&id) else { return };
        for (attempt, (by, address)) in std::mem::take(&mut dial.trying) {
            match by {
                Means::Packets => dial.untried.push_front(address),
                Means::Stream => dial.streams.push_front(address),
            }
            self.dials.attempts.remove(&attempt);
            self.outputs.push_back(Output::Abort(attempt));
        }
    }

    fn address_failed(
        &mut self,
        now: Tick,
        id: DialId,
        address: Option<SocketAddr>,
        error: DialError,
    ) {
        let Some(dial) = self.dials.all.get_mut(&id) else { return };
        if let Some(address) = address {
            self.backoff.fail(now, dial.expected, address, &mut self.rng);
        }
        // What a peer said tells more than another address's silence.
        if !matches!(dial.error, Some(ref told) if *told != DialError::Timeout) {
            dial.error = Some(error);
        }
        if !dial.untried.is_empty() {
            self.try_next(now, id);
        } else {
            self.all_tried(now, id);
        }
    }

    /// A link that was not a session ended; the dial that made it, if one did, goes on or fails.
    pub(super) fn link_ended(
        &mut self,
        now: Tick,
        id: LinkId,
        link: &LinkState,
        reason: &LinkClosed,
        code: Option<CloseCode>,
    ) {
        let mut dials = self.dials.all.iter_mut();
        let dial = dials.find(|(_, dial)| dial.link == Some(id));
        let Some((dial_id, dial)) = dial else { return };
        let dial_id = *dial_id;
        dial.link = None;
        if self.sessions.get(&link.peer).is_some_and(|session| !session.is_early()) {
            return self.dial_reached(now, dial_id, link.peer);
        }
        if *reason == LinkClosed::Peer(CloseCode::Duplicate) && !dial.replace {
            dial.refused = true;
            dial.untried.push_front(link.address);
            let until = now + self.config.duplicate_wait;
            return self.timers.set(Timer::Duplicate(dial_id), until);
        }
        let error = self.dial_error(reason, code);
        self.address_failed(now, dial_id, Some(link.address), error);
    }

    fn dial_error(&self, reason: &LinkClosed, code: Option<CloseCode>) -> DialError {
        if *reason == LinkClosed::Peer(CloseCode::WrongNetwork) {
            self.metrics.links_other_network.inc();
        }
        match (reason, code) {
            (_, Some(CloseCode::Timeout)) | (LinkClosed::TimedOut, _) => DialError::Timeout,
            (_, Some(CloseCode::WrongNetwork)) => DialError::PeerMisbehaved("another network"),
            (_, Some(CloseCode::Limit)) => {
                DialError::Limit { what: "sessions", max: self.config.max_sessions }
            }
            (_, Some(_)) => DialError::PeerMisbehaved("broken hello"),
            (reason, None) => DialError::ClosedByPeer(reason.to_string()),
        }
    }

    /// Dials again, unless the session that the peer has may still come up over a link that is alive.
    pub(super) fn on_duplicate_waited(&mut self, now: Tick, id: DialId) {
        let Some(dial) = self.dials.all.get(&id) else { return };
        if dial.peer.is_some_and(|peer| self.is_linked(peer)) {
            return self.timers.set(Timer::Duplicate(id), now + self.config.duplicate_wait);
        }
        self.metrics.dials_replacing.inc();
        self.try_next(now, id);
    }

    fn is_linked(&self, peer: MachineId) -> bool {
        self.links.values().any(|link| link.peer == peer)
    }

    /// The session with this peer is up: whoever dials it is done.
    pub(super) fn dials_reached(&mut self, now: Tick, peer: MachineId) {
        let dials = self.dials.all.iter().filter(|(_, dial)| dial.peer == Some(peer));
        let reached: Vec<DialId> = dials.map(|(id, _)| *id).collect();
        for id in reached {
            self.dial_reached(now, id, peer);
        }
    }

    /// Tells those who wait for a link's dial that the session is up. The dial goes on.
    pub(super) fn answer_dial(&mut self, link: LinkId, peer: MachineId) {
        let mut dials = self.dials.all.values_mut();
        let dial = dials.find(|dial| dial.link == Some(link));
        let waiters = dial.map(|dial| std::mem::take(&mut dial.waiters)).unwrap_or_default();
        for request in waiters {
            self.output(Output::Connected { request, peer });
        }
    }

    fn dial_reached(&mut self, now: Tick, id: DialId, peer: MachineId) {
        for request in self.end_dial(id) {
            self.output(Output::Connected { request, peer });
        }
        self.start_queued(now);
    }

    pub(super) fn fail_dial(&mut self, now: Tick, id: DialId, error: &DialError) {
        let Some(dial) = self.dials.all.get(&id) else { return };
        let (peer, link) = (dial.peer, dial.link);
        let packets = dial.trying.values().filter(|(by, _)| *by == Means::Packets);
        let tried: Vec<SocketAddr> = packets.map(|(_, address)| *address).collect();
        let expected = dial.expected;
        for address in tried {
            self.backoff.fail(now, expected, address, &mut self.rng);
        }
        self.metrics.count_dial_failure(error);
        for request in self.end_dial(id) {
            self.output(Output::Failed { request, error: error.clone() });
        }
        if let Some(link) = link {
            self.refuse(now, link, CloseCode::Timeout);
        }
        if let Some(peer) = peer {
            self.reconnect_failed(now, peer, error);
        }
        self.start_queued(now);
    }

    /// A dial that nobody waits for any more ends. A link that is up already may still become a
    /// session, which then counts as a stranger's.
    pub(super) fn on_gave_up(&mut self, now: Tick, request: RequestId) {
        let mut dials = self.dials.all.iter_mut();
        let Some((id, dial)) = dials.find(|(_, dial)| dial.waiters.contains(&request)) else {
            return;
        };
        let id = *id;
        dial.waiters.retain(|waiter| *waiter != request);
        if dial.reopens || !dial.waiters.is_empty() {
            return;
        }
        let link = dial.link;
        self.metrics.dials_given_up.inc();
        if let Some(link) = link.and_then(|link| self.links.get_mut(&link)) {
            link.wanted = false;
        }
        self.end_dial(id);
        self.start_queued(now);
    }

    /// Removes a dial, giving back who waits for it.
    fn end_dial(&mut self, id: DialId) -> Vec<RequestId> {
        self.abort_attempts(id);
        let (helps, own) = (
            [Timer::Punch, Timer::Relay, Timer::Stream],
            [Timer::Stagger, Timer::Dial, Timer::Duplicate],
        );
        for timer in helps.into_iter().chain(own) {
            self.timers.cancel(timer(id));
        }
        self.dials.queue.retain(|queued| *queued != id);
        let Some(dial) = self.dials.all.remove(&id) else { return Vec::new() };
        if let Some(peer) = dial.peer {
            self.drop_waiting(peer);
        }
        if let (Help::Asked, Some(peer)) = (dial.help, dial.expected) {
            self.output(Output::PunchOver(peer));
        }
        if let (Help::Asked, Some(peer)) = (dial.relay, dial.expected) {
            self.output(Output::RelayOver(peer));
        }
        dial.waiters
    }

    pub(super) fn stop_dials(&mut self) {
        let all: Vec<DialId> = self.dials.all.keys().copied().collect();
        for id in all {
            for request in self.end_dial(id) {
                self.output(Output::Failed { request, error: DialError::Closed });
            }
        }
    }
}

fn join(
    dial: &mut Dial,
    caller: Caller,
    addresses: &VecDeque<SocketAddr>,
) -> Result<(), DialError> {
    if caller.waiter().is_some() && dial.waiters.len() >= MAX_WAITERS {
        return Err(DialError::Limit { what: "callers of one dial", max: MAX_WAITERS });
    }
    for address in addresses {
        if dial.untried.len() + dial.trying.len() < MAX_ADDRESSES && !dial.has(*address) {
            dial.untried.push_back(*address);
        }
    }
    dial.waiters.extend(caller.waiter());
    dial.wanted |= caller.wants();
    dial.reopens |= caller.waiter().is_none();
    Ok(())
}
