//! What this node tells, and what it asks for.

use std::{collections::BTreeMap, time::Duration};

use x0x_core::{AgentId, MachineId, Tick};

use super::{Link, Output, PresenceMachine, Subject};
use crate::{
    config::MAX_INTEREST,
    session::LocalSession,
    wire::{Beacon, Frame, MAX_BEACONS, Tag, tag},
};

/// Neighbours that are asked for an agent without a session.
const TELLERS: usize = 2;

impl PresenceMachine {
    /// This node's session begins.
    pub(super) fn begin(&mut self, now: Tick, session: LocalSession) {
        if let Some(old) = self.own.take() {
            let id = old.signed().id();
            for link in self.links.values_mut() {
                link.told.remove(&id);
            }
        }
        self.own = Some(session);
        (self.index, self.renewing) = (0, false);
        self.beacon(now);
    }

    /// The next own beacon, by wall time, so that a machine that slept does not lag behind its promise.
    pub(super) fn beacon(&mut self, now: Tick) {
        let wall = self.wall_at(now);
        let Some(own) = &self.own else { return };
        let session = own.signed().session();
        let since = wall.as_millis().checked_sub(session.started.as_millis());
        let periods = since.map(|since| since / session.period.as_millis().max(1) as u64);
        let index = periods.and_then(|periods| u32::try_from(periods + 1).ok());
        let next = session.said_at(index.map_or(1, |index| index.saturating_add(1)));
        let pause = next.as_millis().saturating_sub(wall.as_millis());
        // A millisecond late rather than early; whatever the clock says, not at once again.
        let pause = Duration::from_millis(pause + 1).clamp(session.period / 8, session.period);
        self.beacon_at = Some(now + pause);
        // Near its end, or when the clock was set, a new session begins.
        let nearly = session.length - session.length / 24;
        let usable = index.filter(|index| (self.index..=nearly).contains(index));
        if usable.is_none() && !self.renewing {
            self.renewing = true;
            self.outputs.push_back(Output::Renew);
        }
        if let Some(index) = index.filter(|index| (self.index..=session.length).contains(index)) {
            self.index = index;
            self.flush();
        }
    }

    /// Whether the peer is told of the local agent: it is a neighbour, one of its agents is of interest
    /// here, or one that may ask did.
    fn is_audience(&self, peer: MachineId, link: &Link) -> bool {
        let needs = link.neighbor || link.agents.iter().any(|agent| self.watched.contains(agent));
        let asked = !link.interest.is_empty()
            && link.interest.contains(&tag(&self.local, &peer, &self.machine));
        let entitled = needs || (asked && link.agents.iter().any(|it| self.visibility.may_ask(it)));
        entitled && self.may_tell_any(peer, link, &self.local)
    }

    /// The own session's latest, unless the peer has it.
    pub(super) fn own_news(&self, peer: MachineId, link: &Link) -> Option<Beacon> {
        let own = self.own.as_ref()?;
        let session = own.signed().id();
        let told = self.index == 0 || link.told.get(&session) == Some(&self.index);
        if told || !self.is_audience(peer, link) {
            return None;
        }
        let value = own.reveal(self.index)?;
        Some(Beacon { session, index: self.index, value })
    }

    /// Whether the peer may be told of an agent that it asked for.
    pub(super) fn may_tell(&self, peer: MachineId, link: &Link, subject: &Subject) -> bool {
        let shared = subject.known.as_ref().is_some_and(|known| known.record.session().shared);
        shared && !subject.links.contains(&peer) && self.may_tell_any(peer, link, &subject.agent)
    }

    /// Tells every peer what is news for it.
    pub(super) fn flush(&mut self) {
        let peers: Vec<MachineId> = self.links.keys().copied().collect();
        for peer in peers {
            let Some(link) = self.links.get(&peer) else { continue };
            let mut news = Vec::new();
            news.extend(self.own_news(peer, link).map(|beacon| (beacon, beacon.index)));
            for subject in link.wanted.iter().filter_map(|agent| self.subjects.get(agent)) {
                let Some(known) = &subject.known else { continue };
                // What is old is no sign of life, except a goodbye.
                let fresh = subject.state.is_present() || known.farewell.is_some();
                let latest = known.latest().filter(|_| fresh);
                if let Some((beacon, mark)) = latest
                    && link.told.get(&beacon.session) != Some(&mark)
                {
                    if self.may_tell(peer, link, subject) {
                        news.push((beacon, mark));
                    } else {
                        self.metrics.hidden.inc();
                    }
                }
            }
            if let Some(link) = self.links.get_mut(&peer) {
                link.told.extend(news.iter().map(|(beacon, mark)| (beacon.session, *mark)));
            }
            for chunk in news.chunks(MAX_BEACONS) {
                let beacons = chunk.iter().map(|(beacon, _)| *beacon).collect();
                self.send(peer, &Frame::Beacons(beacons));
            }
        }
    }

    /// Says goodbye to whoever was told of the session.
    pub(super) fn leave(&mut self) {
        let Some(own) = self.own.take() else { return };
        let session = own.signed().id();
        let farewell = Beacon { session, index: 0, value: own.farewell() };
        let told = self.links.iter().filter(|(_, link)| link.told.contains_key(&session));
        let peers: Vec<MachineId> = told.map(|(peer, _)| *peer).collect();
        for peer in peers {
            self.send(peer, &Frame::Beacons(vec![farewell]));
        }
        (self.beacon_at, self.flush_at) = (None, None);
    }

    /// Asks each peer for the agents of interest that it may know of: those behind it, and if it is a
    /// neighbour a share of those without a session here. An agent that is not seen is asked for
    /// elsewhere in every round.
    pub(super) fn ask(&mut self) {
        let mut wanted: BTreeMap<MachineId, Vec<AgentId>> = BTreeMap::new();
        let neighbors: Vec<MachineId> =
            self.links.iter().filter(|(_, link)| link.neighbor).map(|(peer, _)| *peer).collect();
        for agent in &self.watched {
            let subject = self.subjects.get(agent);
            if let Some(linked) = subject.filter(|subject| !subject.links.is_empty()) {
                for peer in &linked.links {
                    wanted.entry(*peer).or_default().push(*agent);
                }
            } else if !neighbors.is_empty() {
                let via = subject.filter(|subject| subject.state.is_present());
                let via = via.and_then(|subject| subject.via);
                let near = via.filter(|via| neighbors.contains(via));
                let start = usize::from(agent.as_bytes()[0]).wrapping_add(self.round as usize);
                let turn = (0..TELLERS.min(neighbors.len()))
                    .map(|step| neighbors[start.wrapping_add(step) % neighbors.len()]);
                let mut tellers: Vec<MachineId> = near.into_iter().chain(turn).collect();
                tellers.dedup();
                tellers.truncate(TELLERS);
                for peer in tellers {
                    wanted.entry(peer).or_default().push(*agent);
                }
            }
        }
        let peers: Vec<MachineId> = self.links.keys().copied().collect();
        for peer in peers {
            let agents = wanted.remove(&peer).unwrap_or_default();
            let tags = agents.iter().take(MAX_INTEREST).map(|who| tag(who, &self.machine, &peer));
            let mut tags: Vec<Tag> = tags.collect();
            tags.sort_unstable();
            if let Some(link) = self.links.get_mut(&peer)
                && link.asked != tags
            {
                link.asked.clone_from(&tags);
                self.send(peer, &Frame::Interest(tags));
            }
        }
    }

    /// A peer asks for agents instead of those before.
    pub(super) fn interest(&mut self, now: Tick, peer: MachineId, tags: Vec<Tag>) {
        let machine = self.machine;
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.interest = tags.into_iter().collect();
        let known = self.subjects.keys().copied();
        let wanted = known.filter(|agent| link.interest.contains(&tag(agent, &peer, &machine)));
        link.wanted = wanted.collect();
        self.flush_by(now + super::SOON);
    }

    /// An agent is known from now on: who asked for it?
    pub(super) fn resolve_interest(&mut self, agent: AgentId) {
        for (peer, link) in &mut self.links {
            let asks = !link.interest.is_empty();
            if asks && link.interest.contains(&tag(&agent, peer, &self.machine)) {
                link.wanted.insert(agent);
            }
        }
    }
}
