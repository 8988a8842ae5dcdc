//! Lives: who starts, ends, and meets whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use x0x_core::{AgentId, Tick};
use x0x_identity::AcceptAll;
use x0x_presence::{Input as PresenceInput, LocalSession, Open, PresenceConfig, PresenceMachine};
use x0x_rendezvous::{Finder, FinderConfig, FinderInput};
use zeroize::Zeroizing;

use super::{
    AWAY, DIAL, DIAL_TIMEOUT, Event, GROWTH, IDLE, KNOWN, LATENCY, Life, MAX_NEIGHBORS, NEIGHBORS,
    NOTICED, Node, Viewers, WATCHED, World, address, machine, secret_key,
};

impl World {
    pub(super) fn start(&mut self, n: usize) {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.rng.next_u64().to_be_bytes());
        let node = &mut self.nodes[n];
        node.lives += 1;
        node.timer = None;
        if let Some((_, viewers)) = node.killed.take()
            && self.measuring
        {
            // Whoever did not see it go did not see it at all.
            for (viewer, (lives, linked)) in viewers {
                let still = self.nodes[viewer].lives == lives && self.nodes[viewer].life.is_some();
                let sight = if linked { &mut self.report.linked } else { &mut self.report.told };
                sight.undetected += u64::from(still);
            }
        }
        let config = FinderConfig::default();
        let (agent, presence) = (self.nodes[n].agent, PresenceConfig::default());
        let policy = Arc::new(AcceptAll);
        self.nodes[n].life = Some(Life {
            finder: Finder::new(machine(n), config, policy, seed),
            presence: PresenceMachine::new(
                agent,
                machine(n),
                presence,
                Arc::new(Open),
                seed,
                self.now,
            ),
            since: self.now,
            links: BTreeSet::new(),
            neighbors: BTreeSet::new(),
            seen: BTreeMap::new(),
        });
        self.running.push(n);
        self.begin_session(n);
        let watched = self.nodes[n].watched.clone();
        self.presence(n, PresenceInput::Watch(watched));
        let count = self.nodes.len();
        let known = (0..KNOWN).map(|_| address(self.rng.below(count))).collect();
        self.finder(n, FinderInput::Volunteers(known));
        self.seek_neighbors(n);
        // Nobody files before the network is there.
        let ready = Tick::ZERO + GROWTH;
        let file = if self.now < ready {
            ready.since(self.now) + self.between(0, 30_000)
        } else {
            Duration::ZERO
        };
        self.at(file, n, Event::File);
        // Exponential: whoever runs is as likely to end in one minute as in any other.
        let minutes = -(1.0 - self.rng.range(0, 999_999) as f64 / 1e6).ln() / self.config.churn;
        self.at(Duration::from_secs_f64(minutes * 60.0), n, Event::End);
    }

    pub(super) fn end(&mut self, n: usize) {
        let killed = self.rng.below(2) == 0;
        if killed {
            let viewers = if self.measuring { self.viewers(n) } else { Viewers::new() };
            self.nodes[n].killed = Some((self.now, viewers));
        } else {
            self.presence(n, PresenceInput::Leave);
        }
        if self.measuring {
            *if killed { &mut self.report.killed } else { &mut self.report.left } += 1;
        }
        let Some(life) = self.nodes[n].life.take() else { return };
        self.forget_seen(n, &life);
        self.nodes[n].lives += 1;
        self.running.retain(|other| *other != n);
        for peer in life.links {
            let after = if killed { self.between(NOTICED.0, NOTICED.1) } else { LATENCY * 2 };
            self.at(after, peer, Event::Lost(n));
        }
        let away = self.between(AWAY.0, AWAY.1);
        self.at(away, n, Event::Start);
    }

    pub(super) fn begin_session(&mut self, n: usize) {
        let mut secret = Zeroizing::new([n as u8; 32]);
        secret[..8].copy_from_slice(&self.rng.next_u64().to_be_bytes());
        let PresenceConfig { period, shared, .. } = PresenceConfig::default();
        let (key, wall) = (secret_key(n), self.wall());
        let session = LocalSession::begin(&key, machine(n), &secret, wall, period, shared);
        self.presence(n, PresenceInput::Session(Box::new(session)));
    }

    pub(super) fn seek_neighbors(&mut self, n: usize) {
        let wanted = |node: &Node, most: usize| {
            node.life.as_ref().is_some_and(|life| life.neighbors.len() < most)
        };
        for _ in 0..4 * NEIGHBORS {
            if !wanted(&self.nodes[n], NEIGHBORS) {
                return;
            }
            let peer = self.running[self.rng.below(self.running.len())];
            if peer != n && wanted(&self.nodes[peer], MAX_NEIGHBORS) {
                for (at, other) in [(n, peer), (peer, n)] {
                    if let Some(life) = &mut self.nodes[at].life {
                        life.neighbors.insert(other);
                    }
                    let neighbor = PresenceInput::Neighbor { peer: machine(other), up: true };
                    self.presence(at, neighbor);
                }
                self.link(n, peer);
            }
        }
    }

    pub(super) fn link(&mut self, a: usize, b: usize) {
        for (n, peer) in [(a, b), (b, a)] {
            if let Some(life) = &mut self.nodes[n].life
                && life.links.insert(peer)
            {
                let (agents, address) = (vec![self.nodes[peer].agent], address(peer));
                let (remote, id) = (address.addresses[0], machine(peer));
                let up = PresenceInput::Up { peer: id, agents: agents.clone() };
                self.presence(n, up);
                self.finder(n, FinderInput::Up { peer: id, agents, address, remote });
            }
        }
    }

    pub(super) fn lost(&mut self, n: usize, peer: usize) {
        let Some(life) = &mut self.nodes[n].life else { return };
        if !life.links.remove(&peer) {
            return;
        }
        let neighbor = life.neighbors.remove(&peer);
        if neighbor {
            self.presence(n, PresenceInput::Neighbor { peer: machine(peer), up: false });
        }
        self.presence(n, PresenceInput::Down(machine(peer)));
        self.finder(n, FinderInput::Down(machine(peer)));
        if neighbor {
            self.seek_neighbors(n);
        }
    }

    pub(super) fn dialled(&mut self, n: usize, to: usize) {
        if self.nodes[to].life.is_none() {
            return self.at(DIAL_TIMEOUT - DIAL, n, Event::DialFailed(machine(to)));
        }
        if !self.is_linked(n, to) {
            self.link(n, to);
            self.at(IDLE, n, Event::Idle(to));
        }
    }

    /// Some near, two links away, and some anywhere.
    pub(super) fn choose_whom_to_watch(&mut self) {
        for n in self.running.clone() {
            let mut watched = BTreeSet::new();
            for _ in 0..WATCHED.0 {
                let near = self.step(n).and_then(|near| self.step(near));
                watched.extend(near.filter(|near| *near != n));
            }
            for _ in 0..WATCHED.1 {
                watched.insert(self.running[self.rng.below(self.running.len())]);
            }
            let watched = watched.into_iter().filter(|other| *other != n);
            let watched: Vec<AgentId> = watched.map(|other| self.nodes[other].agent).collect();
            self.nodes[n].watched.clone_from(&watched);
            self.presence(n, PresenceInput::Watch(watched));
        }
    }

    pub(super) fn step(&mut self, n: usize) -> Option<usize> {
        let neighbors = &self.nodes[n].life.as_ref()?.neighbors;
        let count = neighbors.len();
        neighbors.iter().nth(self.rng.below(count.max(1))).copied()
    }
}
