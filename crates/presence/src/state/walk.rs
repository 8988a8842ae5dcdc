//! Friend-of-a-friend walks: who has seen an agent that nobody near has a session with?
//!
//! A question is signed by its origin, crosses at most three links, and each of its answers goes back
//! over the links that it came by. So nobody can make others answer a third party.

use std::time::Duration;

use bytes::Bytes;
use x0x_core::{AgentId, MachineId, Tick, TokenBucket};

use super::{Input, Output, PresenceMachine, Subject, receive::Paid};
use crate::{
    config::{FAN_OUT, MAX_TTL},
    query::{MAX_TARGETS, Query, QueryIn, SignedQuery, WalkId},
    session::SignedSession,
    wire::{Frame, MAX_SIGHTINGS, Sighting},
};

/// Walks of this node whose answers are awaited.
pub(crate) const MAX_PENDING: usize = 32;
/// Sightings that one walk may send back over this node.
const MAX_ANSWERS: usize = 3 * MAX_SIGHTINGS;
/// Walks of one origin: a burst, then one in each of these times.
const ORIGIN_BURST: u32 = 6;
const ORIGIN_REFILL: Duration = Duration::from_secs(10);
/// Hops of a walk that nobody asked for.
const QUIET_TTL: u32 = 2;

/// A walk on its way through this node.
#[derive(Debug)]
pub(super) struct Walk {
    /// Where it came from; none if from here.
    back: Option<MachineId>,
    /// Where it went on.
    sent: Vec<MachineId>,
    /// Sightings that it may still bring.
    left: usize,
    until: Tick,
}

/// A walk of this node.
#[derive(Debug)]
pub(super) struct Pending {
    ticket: Option<u64>,
    targets: Vec<AgentId>,
    found: Vec<AgentId>,
    pub(super) until: Tick,
}

impl PresenceMachine {
    /// Begins a walk.
    pub(super) fn find(
        &mut self,
        now: Tick,
        ticket: Option<u64>,
        query: &SignedQuery,
        ttl: u32,
        patience: Duration,
    ) {
        let until = now + patience.min(self.config.walk_timeout);
        let Query { id, targets, .. } = query.query().clone();
        if self.pending.len() >= MAX_PENDING {
            self.outputs.extend(ticket.map(|ticket| Output::Done { ticket }));
            return;
        }
        let mut found = Vec::new();
        for target in &targets {
            let status = self.status(target);
            if status.state.is_present() {
                found.push(status.agent);
                self.outputs.extend(ticket.map(|ticket| Output::Found { ticket, status }));
            }
        }
        if !targets.is_empty() && found.len() == targets.len() {
            self.outputs.extend(ticket.map(|ticket| Output::Done { ticket }));
            return;
        }
        self.metrics.walks_started.inc();
        let sent = self.spread(query, ttl.clamp(1, MAX_TTL), None);
        self.walks.put(id, Walk { back: None, sent, left: MAX_ANSWERS, until });
        self.pending.insert(id, Pending { ticket, targets, found, until });
    }

    /// Asks for watched agents that are not seen.
    pub(super) fn seek(&mut self) {
        let unseen = |agent: &&AgentId| {
            self.subjects.get(*agent).is_none_or(|subject| !subject.state.is_present())
        };
        let mut missing: Vec<AgentId> = self.watched.iter().filter(unseen).copied().collect();
        self.rng.shuffle(&mut missing);
        missing.truncate(MAX_TARGETS);
        if !missing.is_empty() && !self.links.is_empty() {
            self.outputs.push_back(Output::Ask(missing));
        }
    }

    /// The hops of a walk for [`Output::Ask`].
    #[must_use]
    pub const fn quiet_walk(query: SignedQuery) -> Input {
        Input::Find { ticket: None, query, ttl: QUIET_TTL, patience: Duration::MAX }
    }

    /// Passes a walk on: to machines of its targets first, then to others at random.
    fn spread(&mut self, query: &SignedQuery, ttl: u32, from: Option<MachineId>) -> Vec<MachineId> {
        let targets = &query.query().targets;
        let mut ways: Vec<MachineId> =
            self.links.keys().copied().filter(|peer| Some(*peer) != from).collect();
        self.rng.shuffle(&mut ways);
        ways.sort_by_key(|peer| {
            let agents = self.links.get(peer).map(|link| &link.agents);
            !agents.is_some_and(|agents| agents.iter().any(|agent| targets.contains(agent)))
        });
        ways.truncate(FAN_OUT);
        for peer in &ways {
            self.send(*peer, &Frame::Walk(query.clone(), ttl));
        }
        ways
    }

    /// A walk came by.
    pub(super) fn walked(&mut self, now: Tick, peer: MachineId, query: QueryIn, ttl: u32) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if self.walks.contains(&query.claimed_id()) {
            return;
        }
        if !link.walks.take(now) {
            return self.metrics.refused_walks.inc();
        }
        if !link.checks.take(now) {
            return self.metrics.refused_checks.inc();
        }
        let query = match query.verify(self.wall_at(now)) {
            Ok(query) => query,
            Err(error) => return self.refused(&error),
        };
        let Query { id, origin, .. } = query.query();
        if *origin == self.local {
            return;
        }
        let fresh = || TokenBucket::new(ORIGIN_BURST, ORIGIN_REFILL, now);
        if !self.origins.get_or_insert_mut(*origin, fresh).take(now) {
            return self.metrics.refused_walks.inc();
        }
        self.metrics.walks_served.inc();
        let id = *id;
        let mut sightings = self.sightings(peer, query.query());
        sightings.truncate(MAX_SIGHTINGS);
        let left = MAX_ANSWERS - sightings.len();
        if !sightings.is_empty() {
            self.send(peer, &Frame::Answer(id, sightings));
        }
        let sent = match ttl.min(MAX_TTL) {
            0 | 1 => Vec::new(),
            ttl => self.spread(&query, ttl - 1, Some(peer)),
        };
        let until = now + self.config.walk_timeout;
        self.walks.put(id, Walk { back: Some(peer), sent, left, until });
    }

    /// What may be told to a walk's origin.
    fn sightings(&self, peer: MachineId, query: &Query) -> Vec<Sighting> {
        let Query { origin, targets, .. } = query;
        if !self.visibility.may_ask(origin) {
            self.metrics.hidden.inc();
            return Vec::new();
        }
        let tell = |subject: &&Subject| {
            let known = subject.known.as_ref();
            let shared = known.is_some_and(|known| known.record.session().shared);
            let wanted = subject.state.is_present() && subject.agent != *origin && shared;
            wanted && self.visible(origin, &subject.agent)
        };
        let found: Vec<&Subject> = if targets.is_empty() {
            self.subjects.values().filter(tell).collect()
        } else {
            targets.iter().filter_map(|target| self.subjects.get(target)).filter(tell).collect()
        };
        let asked = targets.is_empty() || targets.contains(&self.local);
        // Who does not want to be passed on answers only the origin's own machine.
        let asker = self.links.get(&peer).is_some_and(|link| link.agents.contains(origin));
        let asked = asked && (asker || self.config.shared);
        let own = self.own_sighting().filter(|_| asked && self.visible(origin, &self.local));
        let found = found.into_iter().filter_map(|subject| subject.known.as_ref()?.sighting());
        own.into_iter().chain(found).collect()
    }

    fn visible(&self, viewer: &AgentId, subject: &AgentId) -> bool {
        let visible = self.may_see(viewer, subject);
        if !visible {
            self.metrics.hidden.inc();
        }
        visible
    }

    fn own_sighting(&self) -> Option<Sighting> {
        let own = self.own.as_ref()?;
        let (session, index) = (own.signed().id(), self.index);
        let value = own.reveal(index).filter(|_| index > 0)?;
        let beacon = crate::wire::Beacon { session, index, value };
        Some(Sighting { record: own.signed().encode(), beacon })
    }

    /// An answer came back.
    pub(super) fn answered(
        &mut self,
        now: Tick,
        peer: MachineId,
        id: WalkId,
        mut sightings: Vec<Sighting>,
    ) {
        let walk = self.walks.get_mut(&id).filter(|walk| now < walk.until);
        let Some(walk) = walk.filter(|walk| walk.sent.contains(&peer)) else {
            return self.metrics.refused_answers.inc();
        };
        sightings.truncate(walk.left);
        walk.left -= sightings.len();
        let back = walk.back;
        if sightings.is_empty() {
            return;
        }
        if let Some(back) = back {
            return self.send(back, &Frame::Answer(id, sightings));
        }
        for Sighting { record, beacon } in sightings {
            self.sighted(now, peer, id, &record, beacon);
        }
    }

    /// A sighting for this node: believed if the record and the beacon hold.
    fn sighted(
        &mut self,
        now: Tick,
        peer: MachineId,
        id: WalkId,
        record: &Bytes,
        beacon: crate::wire::Beacon,
    ) {
        let Ok(record) = SignedSession::decode(record) else {
            return self.metrics.refused_malformed.inc();
        };
        let agent = record.claimed().agent;
        let Some(pending) = self.pending.get(&id) else { return };
        let asked = pending.targets.is_empty() || pending.targets.contains(&agent);
        if !asked || agent == self.local || record.id() != beacon.session {
            return self.metrics.refused_unasked.inc();
        }
        let known = self.by_session.get(&record.id()) == Some(&agent);
        if !known {
            let allowed = self.links.get_mut(&peer).is_some_and(|link| link.checks.take(now));
            if !allowed {
                return self.metrics.refused_checks.inc();
            }
            if self.adopt(now, record).is_none() {
                return;
            }
        }
        let paid = if known { Paid::No } else { Paid::Yes };
        self.sign_of_life(now, peer, agent, beacon, paid);
        if !known && let Some(subject) = self.subjects.get_mut(&agent) {
            subject.glimpsed = true;
            self.judge(now, agent);
        }
        let status = self.status(&agent);
        let Some(pending) = self.pending.get_mut(&id) else { return };
        if status.state.is_present() && !pending.found.contains(&agent) {
            self.metrics.sightings_accepted.inc();
            pending.found.push(agent);
            self.outputs.extend(pending.ticket.map(|ticket| Output::Found { ticket, status }));
            if !pending.targets.is_empty() && pending.found.len() == pending.targets.len() {
                pending.until = now;
            }
        }
    }

    /// Ends the own walks whose time is over.
    pub(super) fn expire_walks(&mut self, now: Tick) {
        let over = self.pending.extract_if(.., |_, pending| pending.until <= now);
        let tickets: Vec<u64> = over.filter_map(|(_, pending)| pending.ticket).collect();
        self.outputs.extend(tickets.into_iter().map(|ticket| Output::Done { ticket }));
    }
}
