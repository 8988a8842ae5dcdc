//! What peers say, believed as far as it is proven.

use std::time::Duration;

use bytes::Bytes;
use x0x_core::{AgentId, MachineId, Tick};
use x0x_identity::MAX_CLOCK_SKEW;

use super::PresenceMachine;
use crate::{
    chain::advance,
    error::VerifyError,
    session::{SessionId, SessionIn, SignedSession},
    wire::{Beacon, Frame, FrameIn, MAX_WANTED},
};

/// Steps of a chain that are followed without counting as a costly check: half an hour of the default
/// period.
const CHEAP_STEPS: u32 = 64;
/// Records that are awaited of one peer, and of all.
const MAX_WANTS_PER_LINK: usize = 64;
const MAX_WANTS: usize = 1024;
/// After this time another peer may be asked for a record.
const WANT_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether the costly check of a beacon is allowed already, as part of that of the record before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paid {
    Yes,
    No,
}

impl PresenceMachine {
    pub(super) fn receive(&mut self, now: Tick, peer: MachineId, frame: &Bytes) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if !link.frames.take(now) {
            return self.metrics.refused_rate.inc();
        }
        let Ok(frame) = Frame::decode(frame) else {
            return self.metrics.refused_malformed.inc();
        };
        match frame {
            FrameIn::Interest(tags) => self.interest(now, peer, tags),
            FrameIn::Beacons(beacons) => self.beacons(now, peer, beacons),
            FrameIn::Want(sessions) => self.wanted(now, peer, &sessions),
            FrameIn::Record(record) => self.record(now, peer, *record),
            FrameIn::Walk(query, ttl) => self.walked(now, peer, *query, ttl),
            FrameIn::Answer(walk, sightings) => self.answered(now, peer, walk, sightings),
            FrameIn::Unknown => {}
        }
    }

    fn beacons(&mut self, now: Tick, peer: MachineId, beacons: Vec<Beacon>) {
        let mut unknown = Vec::new();
        for beacon in beacons {
            match self.by_session.get(&beacon.session).copied() {
                Some(agent) => self.sign_of_life(now, peer, agent, beacon, Paid::No),
                // A goodbye of somebody unknown is of no interest.
                None if beacon.index > 0 && self.may_want(now, peer, beacon.session) => {
                    self.wants.insert(beacon.session, (peer, beacon, now));
                    unknown.push(beacon.session);
                }
                None => {}
            }
        }
        for chunk in unknown.chunks(MAX_WANTED) {
            self.send(peer, &Frame::Want(chunk.to_vec()));
        }
    }

    fn may_want(&self, now: Tick, peer: MachineId, session: SessionId) -> bool {
        if self.own.as_ref().is_some_and(|own| own.signed().id() == session) {
            return false;
        }
        match self.wants.get(&session) {
            Some((.., asked)) => now.since(*asked) >= WANT_TIMEOUT,
            None => {
                let of_peer = self.wants.values().filter(|(from, ..)| *from == peer).count();
                of_peer < MAX_WANTS_PER_LINK && self.wants.len() < MAX_WANTS
            }
        }
    }

    /// A peer asks for records of sessions that it was told of.
    fn wanted(&mut self, now: Tick, peer: MachineId, sessions: &[SessionId]) {
        for session in sessions {
            let Some(link) = self.links.get_mut(&peer) else { return };
            if !link.told.contains_key(session) {
                self.metrics.hidden.inc();
                continue;
            }
            if !link.records.take(now) {
                self.metrics.refused_rate.inc();
                // It will ask again with the next beacon.
                link.told.remove(session);
                continue;
            }
            let own = self.own.as_ref().map(|own| own.signed());
            let record = match own.filter(|own| own.id() == *session) {
                Some(own) => Some(own.clone()),
                None => self.known_record(*session),
            };
            if let Some(record) = record {
                self.send(peer, &Frame::Record(record));
            }
        }
    }

    fn known_record(&self, session: SessionId) -> Option<SignedSession> {
        let subject = self.subjects.get(self.by_session.get(&session)?)?;
        Some(subject.known.as_ref()?.record.clone())
    }

    /// A record that was asked for.
    fn record(&mut self, now: Tick, peer: MachineId, record: SessionIn) {
        let id = record.id();
        let Some((_, beacon, _)) = self.wants.get(&id).copied().filter(|want| want.0 == peer)
        else {
            return self.metrics.refused_unasked.inc();
        };
        self.wants.remove(&id);
        let claimed = record.claimed();
        let Some(link) = self.links.get_mut(&peer) else { return };
        let behind = claimed.machine == peer && link.agents.contains(&claimed.agent);
        if !behind && !self.watched.contains(&claimed.agent) {
            return self.metrics.refused_unasked.inc();
        }
        if !link.checks.take(now) {
            return self.metrics.refused_checks.inc();
        }
        if let Some(agent) = self.adopt(now, record) {
            self.sign_of_life(now, peer, agent, beacon, Paid::Yes);
        }
    }

    /// Verifies a record and keeps it if it is the newest of its agent, which is returned.
    pub(super) fn adopt(&mut self, now: Tick, record: SessionIn) -> Option<AgentId> {
        let record = match record.verify(self.wall_at(now)) {
            Ok(record) => record,
            Err(error) => {
                self.refused(&error);
                return None;
            }
        };
        let (agent, id) = (record.session().agent, record.id());
        if agent == self.local {
            return None;
        }
        if !self.visibility.believes(&agent, &record.session().machine) {
            self.metrics.refused_machine.inc();
            return None;
        }
        let subject = self.subject(agent);
        let old = subject.known.as_ref().map(|known| known.record.id());
        if old == Some(id) {
            return Some(agent);
        }
        if !subject.adopt(record) {
            return None;
        }
        if let Some(old) = old {
            self.forget_session(old);
        }
        self.by_session.insert(id, agent);
        self.metrics.records_accepted.inc();
        self.measure();
        Some(agent)
    }

    pub(super) fn refused(&self, error: &VerifyError) {
        match error {
            VerifyError::Future => self.metrics.refused_future.inc(),
            VerifyError::Expired => self.metrics.refused_expired.inc(),
            VerifyError::Key | VerifyError::Signature => self.metrics.refused_signature.inc(),
        }
    }

    /// A beacon of a session whose record is known.
    pub(super) fn sign_of_life(
        &mut self,
        now: Tick,
        peer: MachineId,
        agent: AgentId,
        beacon: Beacon,
        paid: Paid,
    ) {
        let wall = self.wall_at(now);
        let Some(subject) = self.subjects.get_mut(&agent) else { return };
        let Some(known) = &mut subject.known else { return };
        let session = known.record.session();
        if beacon.index == 0 {
            if known.farewell.is_some() {
                return self.metrics.beacons_stale.inc();
            }
            if !session.is_farewell(beacon.value) {
                return self.metrics.refused_beacon.inc();
            }
            known.farewell = Some(beacon.value);
            subject.left = true;
            self.judge(now, agent);
            return self.flush_by(now + super::SOON);
        }
        let said = session.said_at(beacon.index);
        if said > wall + MAX_CLOCK_SKEW || beacon.index > session.length {
            return self.metrics.refused_future.inc();
        }
        let Some(steps) = beacon.index.checked_sub(known.index).filter(|steps| *steps > 0) else {
            return self.metrics.beacons_stale.inc();
        };
        // Whether the last one proved anything does not matter: a wrong one costs as much as a right one.
        if steps > CHEAP_STEPS && paid == Paid::No {
            let allowed = self.links.get_mut(&peer).is_some_and(|link| link.checks.take(now));
            if !allowed {
                return self.metrics.refused_checks.inc();
            }
        }
        if advance(beacon.value, steps) != known.value {
            return self.metrics.refused_beacon.inc();
        }
        (known.index, known.value) = (beacon.index, beacon.value);
        let period = session.period;
        let direct = subject.links.contains(&peer);
        // Whoever passes beacons on may have kept them back: those that say themselves that they are
        // old show only when the agent was there.
        if direct || said + MAX_CLOCK_SKEW + period * 2 >= wall {
            subject.heard = Some(now);
            subject.glimpsed = false;
            subject.detector.heard(now);
            subject.via = Some(peer);
        }
        let seen = if direct { wall } else { wall.min(said + period) };
        subject.last_seen = subject.last_seen.max(seen);
        self.metrics.beacons_accepted.inc();
        self.judge(now, agent);
        self.flush_by(now + self.config.batch);
    }
}
