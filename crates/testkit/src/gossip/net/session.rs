//! Sessions: opened by a dial, closed by one end, by silence, or by the sweep of unused ones.

use std::time::Duration;

use x0x_core::Tick;

use super::{Event, Net, Node};

/// Names a session; its slot may be used again by a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::gossip) struct Session {
    slot: u32,
    generation: u32,
}

impl Session {
    pub(super) const fn slot(self) -> usize {
        self.slot as usize
    }
}

/// One direction of a session.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::gossip) struct Lane {
    /// When the last frame arrives: later ones do not overtake it.
    pub(super) arrives: Tick,
    /// Bytes that have not arrived.
    pub(super) under_way: u64,
    /// A frame was refused, and the sender has not heard of room yet.
    pub(super) paused: bool,
    /// It is on its way that there is room.
    pub(super) told: bool,
}

/// What a slot holds.
#[derive(Debug)]
pub(in crate::gossip) struct Link {
    generation: u32,
    /// The dialler and the acceptor.
    pub(in crate::gossip) ends: [Node; 2],
    /// Which end has it.
    open: [bool; 2],
    /// One end closed it, or will notice that it is dead.
    over: bool,
    /// One-way, in microseconds.
    pub(in crate::gossip) latency: u32,
    /// By receiving side.
    pub(super) lanes: [Lane; 2],
    /// Which end has it as a neighbour's.
    pub(super) neighbour: [bool; 2],
    /// Which end holds it for a topic, neighbour or not.
    held: [bool; 2],
    /// When it was last seen to be of use.
    pub(in crate::gossip) used: Tick,
}

impl Link {
    /// Whether the slot still holds this session.
    pub(super) const fn is(&self, session: Session) -> bool {
        self.generation == session.generation
    }

    /// Whether both ends have it as a link: as a neighbour's, or as that of a topic's peer.
    pub(in crate::gossip) const fn is_linked(&self) -> bool {
        (self.neighbour[0] || self.held[0]) && (self.neighbour[1] || self.held[1])
    }

    /// The side of an end.
    pub(in crate::gossip) const fn side_of(&self, node: Node) -> u8 {
        if self.ends[0] == node { 0 } else { 1 }
    }
}

impl Net {
    /// The session of a host with a peer.
    pub(in crate::gossip) fn session(&self, host: Node, peer: Node) -> Option<Session> {
        let sessions = &self.host(host).sessions;
        let place = sessions.binary_search_by_key(&peer, |(peer, _)| *peer).ok()?;
        Some(sessions[place].1)
    }

    /// Who sent what reaches this side, and who receives it.
    pub(in crate::gossip) fn ends(&self, session: Session, side: u8) -> Option<(Node, Node)> {
        let link = self.links.get(session.slot())?;
        if !link.is(session) || !link.open[usize::from(side)] {
            return None;
        }
        Some((link.ends[usize::from(1 - side)], link.ends[usize::from(side)]))
    }

    /// What a session is, unless it is over.
    pub(in crate::gossip) fn link(&self, session: Session) -> Option<&Link> {
        let link = self.links.get(session.slot())?;
        (link.is(session) && !link.over).then_some(link)
    }

    /// The host at one end of a session that is not wholly over.
    pub(in crate::gossip) fn end(&self, session: Session, side: u8) -> Option<Node> {
        let link = self.links.get(session.slot())?;
        (link.is(session)).then(|| link.ends[usize::from(side)])
    }

    /// Round trip of the session between two hosts.
    pub(in crate::gossip) fn rtt(&self, host: Node, peer: Node) -> Option<Duration> {
        let session = self.session(host, peer)?;
        let jitter = self.model.jitter_micros();
        let latency = u64::from(self.links[session.slot()].latency);
        Some(Duration::from_micros(2 * latency + jitter))
    }

    /// A dial reaches the acceptor, which has the session first. Returns whether it is new to it.
    pub(in crate::gossip) fn accept(&mut self, from: Node, to: Node, run: u32) -> bool {
        if !self.reaches(from, to) || self.host(from).run != run || !self.host(from).alive {
            let at = self.now() + self.model.dial_timeout();
            self.queue.schedule(from, at, Event::Refused { to, run });
            return false;
        }
        let shared = self.session(to, from).filter(|s| !self.links[s.slot()].over);
        let (session, is_new) = match shared {
            // The other dial made it already: one session for two dials.
            Some(session) => (session, false),
            None => (self.make(from, to), true),
        };
        let latency = self.links[session.slot()].latency;
        let side = self.links[session.slot()].side_of(from);
        // First the answer, then what the acceptor sends into the new session.
        let at = self.now() + Duration::from_micros(latency.into());
        let lane = &mut self.links[session.slot()].lanes[usize::from(side)];
        lane.arrives = lane.arrives.max(at);
        let at = lane.arrives;
        self.queue.schedule(from, at, Event::Opened { session, run });
        is_new
    }

    fn make(&mut self, from: Node, to: Node) -> Session {
        let latency = self.draw_latency(from, to);
        let slot = self.free.pop().unwrap_or(self.links.len() as u32);
        let generation = self.links.get(slot as usize).map_or(1, |link| link.generation + 1);
        let link = Link {
            generation,
            ends: [from, to],
            open: [false, true],
            over: false,
            latency,
            lanes: [Lane::default(); 2],
            neighbour: [false; 2],
            held: [false; 2],
            used: self.now(),
        };
        match self.links.get_mut(slot as usize) {
            Some(old) => *old = link,
            None => self.links.push(link),
        }
        self.opened += 1;
        let session = Session { slot, generation };
        self.attach(to, from, session);
        session
    }

    fn attach(&mut self, host: Node, peer: Node, session: Session) {
        if let Some(old) = self.session(host, peer).filter(|old| *old != session) {
            let side = self.links[old.slot()].side_of(host);
            self.detach(old, side);
        }
        let sessions = &mut self.host_mut(host).sessions;
        if let Err(place) = sessions.binary_search_by_key(&peer, |(peer, _)| *peer) {
            sessions.insert(place, (peer, session));
        }
    }

    /// The dialler hears that its dial succeeded: its peer and whether the session is new to it, or
    /// `None` when it ended in between.
    pub(in crate::gossip) fn opened(&mut self, session: Session, at: Node) -> Option<(Node, bool)> {
        let link = self.links.get_mut(session.slot())?;
        if !link.is(session) || link.over {
            return None;
        }
        let side = usize::from(link.side_of(at));
        let peer = link.ends[1 - side];
        let is_new = !link.open[side];
        link.open[side] = true;
        self.attach(at, peer, session);
        Some((peer, is_new))
    }

    /// Takes the session from one end; the slot is free when both ends have lost it. Returns the
    /// peer if that end had it.
    pub(in crate::gossip) fn detach(&mut self, session: Session, side: u8) -> Option<Node> {
        let link = self.links.get_mut(session.slot())?;
        if !link.is(session) {
            return None;
        }
        link.over = true;
        let had = std::mem::take(&mut link.open[usize::from(side)]);
        let (host, peer) = (link.ends[usize::from(side)], link.ends[usize::from(1 - side)]);
        if link.open == [false; 2] {
            // The generation makes whatever is still under way void.
            link.generation += 1;
            self.free.push(session.slot);
        }
        if !had {
            return None;
        }
        let sessions = &mut self.host_mut(host).sessions;
        let place = sessions.iter().position(|(at, held)| *at == peer && *held == session)?;
        sessions.remove(place);
        Some(peer)
    }

    /// One end closes a session; the other hears of it behind what was sent before.
    pub(in crate::gossip) fn close(&mut self, host: Node, peer: Node) {
        let Some(session) = self.session(host, peer) else { return };
        let now = self.now();
        let link = &mut self.links[session.slot()];
        link.over = true;
        let side = link.side_of(host);
        let lane = &link.lanes[usize::from(1 - side)];
        let at = (now + Duration::from_micros(link.latency.into())).max(lane.arrives);
        self.queue.schedule(host, now, Event::Closed { session, side });
        self.queue.schedule(peer, at, Event::Closed { session, side: 1 - side });
    }

    /// A host is gone without a word: its peers notice after a while.
    pub(in crate::gossip) fn crash(&mut self, host: Node) {
        let sessions = std::mem::take(&mut self.host_mut(host).sessions);
        let entry = self.host_mut(host);
        entry.alive = false;
        entry.run += 1;
        entry.inbox.clear();
        entry.dials.clear();
        for (_, session) in sessions {
            let side = self.links[session.slot()].side_of(host);
            self.detach(session, side);
            self.doom(session, 1 - side);
        }
    }

    /// A host stands still: its peers end those of its sessions that they notice to be silent, and it
    /// hears of that afterwards.
    pub(in crate::gossip) fn stall(&mut self, host: Node, time: Duration) {
        for (_, session) in self.host(host).sessions.clone() {
            let detection = self.draw_detection();
            if time <= detection {
                continue;
            }
            let link = &mut self.links[session.slot()];
            link.over = true;
            let side = link.side_of(host);
            let peer = link.ends[usize::from(1 - side)];
            let now = self.now();
            let there = Event::Closed { session, side: 1 - side };
            self.queue.schedule(peer, now + detection, there);
            self.queue.schedule(host, now + time, Event::Closed { session, side });
        }
    }

    /// Ends one side of a session after the time that silence takes to be noticed.
    pub(in crate::gossip) fn doom(&mut self, session: Session, side: u8) {
        let link = &mut self.links[session.slot()];
        link.over = true;
        let host = link.ends[usize::from(side)];
        let at = self.now() + self.draw_detection();
        self.queue.schedule(host, at, Event::Closed { session, side });
    }

    /// Dooms the sessions whose ends lie on different islands.
    pub(in crate::gossip) fn cut(&mut self) {
        for slot in 0..self.links.len() {
            let link = &self.links[slot];
            let [a, b] = link.ends;
            let session = Session { slot: slot as u32, generation: link.generation };
            if link.open == [false; 2] || self.host(a).island == self.host(b).island {
                continue;
            }
            let open = link.open;
            for side in [0, 1] {
                if open[usize::from(side)] {
                    self.doom(session, side);
                }
            }
        }
    }

    /// Closes the sessions that nobody needed for this long: no neighbour's, held for no topic.
    pub(in crate::gossip) fn sweep(&mut self, idle: Duration) {
        let now = self.now();
        for slot in 0..self.links.len() {
            let link = &mut self.links[slot];
            if link.neighbour != [false; 2] || link.held != [false; 2] {
                link.used = now;
            } else if link.open == [true; 2] && !link.over && now.since(link.used) > idle {
                let [a, b] = link.ends;
                self.close(a, b);
            }
        }
    }

    /// Notes whether one end has the peer as a neighbour.
    pub(in crate::gossip) fn set_neighbour(&mut self, host: Node, peer: Node, neighbour: bool) {
        let Some(session) = self.session(host, peer) else { return };
        let now = self.now();
        let link = &mut self.links[session.slot()];
        link.neighbour[usize::from(link.side_of(host))] = neighbour;
        link.used = now;
    }

    /// Whether one end has the peer as a neighbour.
    pub(in crate::gossip) fn is_neighbour(&self, host: Node, peer: Node) -> bool {
        self.session(host, peer).is_some_and(|session| {
            let link = &self.links[session.slot()];
            link.neighbour[usize::from(link.side_of(host))]
        })
    }

    /// Notes whether one end needs the session for a topic.
    pub(in crate::gossip) fn hold(&mut self, host: Node, peer: Node, held: bool) {
        let Some(session) = self.session(host, peer) else { return };
        let link = &mut self.links[session.slot()];
        link.held[usize::from(link.side_of(host))] = held;
    }

    /// The queue of a session has room: whoever was refused may go on.
    pub(in crate::gossip) fn writable(
        &mut self,
        session: Session,
        side: u8,
    ) -> Option<(Node, Node)> {
        let (peer, host) = self.ends(session, side)?;
        let lane = &mut self.links[session.slot()].lanes[usize::from(1 - side)];
        lane.paused = false;
        lane.told = false;
        Some((peer, host))
    }
}
