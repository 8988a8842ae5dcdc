//! The machines of a node: what they are told, and what they ask for.

use std::time::Duration;

use bytes::Bytes;
use x0x_core::{Machine, MachineId, Tick};
use x0x_presence::{
    Input as PresenceInput, Output as PresenceOutput, PresenceMachine, SignedQuery, Status,
};
use x0x_rendezvous::{FinderInput, FinderOutput, SignedRecord, Stamp};

use super::{DIAL, DIAL_TIMEOUT, Event, LATENCY, Manner, World, address, machine, secret_key};

impl World {
    pub(super) fn timer(&mut self, n: usize) {
        // One that a sooner one replaced.
        if self.nodes[n].timer != Some(self.now) {
            return;
        }
        self.nodes[n].timer = None;
        let (now, wall) = (self.now, self.wall());
        let Some(life) = &mut self.nodes[n].life else { return };
        let due = |at: Option<Tick>| at.is_some_and(|at| at <= now);
        if due(life.finder.poll_timeout()) {
            life.finder.handle(now, FinderInput::Wall(wall));
            life.finder.handle_timeout(now);
        }
        if due(life.presence.poll_timeout()) {
            life.presence.handle(now, PresenceInput::Wall(wall));
            life.presence.handle_timeout(now);
        }
        self.carry_out(n);
    }

    pub(super) fn finder(&mut self, n: usize, input: FinderInput) {
        let (now, wall) = (self.now, self.wall());
        let Some(life) = &mut self.nodes[n].life else { return };
        life.finder.handle(now, FinderInput::Wall(wall));
        life.finder.handle(now, input);
        self.carry_out(n);
    }

    pub(super) fn presence(&mut self, n: usize, input: PresenceInput) {
        let (now, wall) = (self.now, self.wall());
        let Some(life) = &mut self.nodes[n].life else { return };
        life.presence.handle(now, PresenceInput::Wall(wall));
        life.presence.handle(now, input);
        self.carry_out(n);
    }

    pub(super) fn carry_out(&mut self, n: usize) {
        while let Some(output) =
            self.nodes[n].life.as_mut().and_then(|life| life.finder.poll_output())
        {
            self.find_output(n, output);
        }
        while let Some(output) =
            self.nodes[n].life.as_mut().and_then(|life| life.presence.poll_output())
        {
            self.presence_output(n, output);
        }
        let Some(life) = &self.nodes[n].life else { return };
        let next = [life.finder.poll_timeout(), life.presence.poll_timeout()];
        let next = next.into_iter().flatten().min();
        if let Some(at) = next.filter(|at| self.nodes[n].timer.is_none_or(|set| *at < set)) {
            let at = at.max(self.now);
            self.nodes[n].timer = Some(at);
            self.at(at.since(self.now), n, Event::Timer);
        }
    }

    pub(super) fn find_output(&mut self, n: usize, output: FinderOutput) {
        match output {
            FinderOutput::Send { peer, frame } => self.send(n, peer, frame, Event::Find),
            FinderOutput::Dial(address) => {
                self.report.dials += u64::from(self.measuring);
                match address.id.and_then(|peer| self.numbers.get(&peer).copied()) {
                    Some(to) => self.at(DIAL, n, Event::Dialled(to)),
                    None => {
                        let failed = address.id.map(Event::DialFailed);
                        failed.into_iter().for_each(|event| self.at(DIAL_TIMEOUT, n, event));
                    }
                }
            }
            FinderOutput::Sign(subject) => {
                let stamp = Stamp { announced_at: self.wall(), counter: 1 };
                let (key, places) = (secret_key(n), address(n).addresses);
                let record = SignedRecord::issue(&key, machine(n), 0, subject, &places, stamp);
                let (near, far) = (Box::new(record.clone()), Box::new(record));
                self.finder(n, FinderInput::Publish { subject, near, far });
            }
            FinderOutput::Found { ticket, .. } => {
                if let Some(search) = self.searches.remove(&ticket) {
                    self.report.found.push(self.now.since(search.begun));
                }
            }
            FinderOutput::Done { ticket } | FinderOutput::Busy { ticket } => {
                if let Some(search) = self.searches.remove(&ticket) {
                    self.missed(&search);
                }
            }
            _ => {}
        }
    }

    pub(super) fn presence_output(&mut self, n: usize, output: PresenceOutput) {
        match output {
            PresenceOutput::Send { peer, frame } => {
                if self.measuring {
                    self.presence_bytes += frame.len() as u64;
                }
                self.send(n, peer, frame, Event::Presence);
            }
            PresenceOutput::Changed(Status { agent, state, .. }) => {
                if let Some(subject) = self.agents.get(&agent).copied() {
                    self.looks(n, subject, state);
                }
            }
            PresenceOutput::Suspect(agent) => {
                let machine = self.agents.get(&agent).copied();
                machine.into_iter().for_each(|to| self.at(DIAL, n, Event::Dialled(to)));
            }
            PresenceOutput::Renew => self.begin_session(n),
            PresenceOutput::Ask(targets) => {
                let mut id = [0; 16];
                id[..8].copy_from_slice(&self.rng.next_u64().to_be_bytes());
                let query = SignedQuery::ask(&secret_key(n), id, &targets, self.wall());
                self.presence(n, PresenceMachine::quiet_walk(query));
            }
            _ => {}
        }
    }

    pub(super) fn send(
        &mut self,
        from: usize,
        peer: MachineId,
        frame: Bytes,
        event: fn(usize, Bytes) -> Event,
    ) {
        if let Some(to) = self.numbers.get(&peer).copied()
            && self.is_linked(from, to)
        {
            let jitter = Duration::from_micros(self.rng.range(0, 1000));
            self.at(LATENCY + jitter, to, event(from, frame));
        }
    }

    pub(super) fn find_frame(&mut self, n: usize, from: usize, frame: Bytes) {
        let manner = self.nodes[n].manner;
        if manner != Manner::Honest && self.misbehaves(n, from, manner, &frame) {
            return;
        }
        self.finder(n, FinderInput::Message { peer: machine(from), frame });
    }
}
