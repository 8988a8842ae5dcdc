//! The nodes, their sessions, and what happens to them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use x0x_core::{AgentId, Machine, MachineId, PeerAddr, Scope, SeededRng, Tick, WallTime};
use x0x_identity::{AcceptAll, SecretKey, testing::key};
use x0x_presence::{
    Input as PresenceInput, LocalSession, Open, Output as PresenceOutput, PresenceConfig,
    PresenceMachine, PresenceState, SignedQuery, Status,
};
use x0x_rendezvous::{
    Finder, FinderConfig, FinderInput, FinderOutput, Frame, LookupKey, Referral, SignedRecord,
    Stamp, Subject,
};
use zeroize::Zeroizing;

use super::{Config, Report};

const START: WallTime = WallTime::from_millis(1_800_000_000_000);
/// One way over a session, and a dial with its handshake.
const LATENCY: Duration = Duration::from_millis(50);
const DIAL: Duration = Duration::from_millis(150);
/// A dial of a machine that is not there.
const DIAL_TIMEOUT: Duration = Duration::from_secs(6);
/// When a peer's transport gives up on one that was killed.
const NOTICED: (u64, u64) = (5_000, 15_000);
/// How long a node stays away.
const AWAY: (u64, u64) = (150_000, 210_000);
/// How long a session that a search dialled is kept.
const IDLE: Duration = Duration::from_secs(60);
/// Neighbours that a node wants, and has at most.
const NEIGHBORS: usize = 5;
const MAX_NEIGHBORS: usize = 8;
/// Machines whose addresses a node knows when it starts.
const KNOWN: usize = 100;
/// Agents that a node watches near it, and anywhere.
const WATCHED: (usize, usize) = (2, 2);
/// How long an agent must have been there to be looked for.
const SETTLED: Duration = Duration::from_secs(10);
/// The nodes start one after the other over this time, and settle over the next.
const GROWTH: Duration = Duration::from_secs(60);
const WARM_UP: Duration = Duration::from_secs(60);
/// Nodes away at a time for each that runs, as the times above and the churn have it.
const SPARE: f64 = 1.0 / 3.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Honest,
    Silent,
    Liar,
}

/// What is to happen to a node.
#[derive(Debug)]
enum Event {
    Find(usize, Bytes),
    Presence(usize, Bytes),
    Timer,
    Dialled(usize),
    DialFailed(MachineId),
    /// A session ended, as this end sees it.
    Lost(usize),
    /// A session that a search dialled was idle for long enough.
    Idle(usize),
    Start,
    End,
    /// Files its record.
    File,
}

/// The machines of a node that runs.
struct Life {
    finder: Finder,
    presence: PresenceMachine,
    since: Tick,
    links: BTreeSet<usize>,
    neighbors: BTreeSet<usize>,
    /// How it sees others, since when.
    seen: BTreeMap<usize, (PresenceState, Tick)>,
}

struct Node {
    agent: AgentId,
    manner: Manner,
    watched: Vec<AgentId>,
    /// How often it started; what was meant for an earlier life is dropped.
    lives: u32,
    life: Option<Life>,
    timer: Option<Tick>,
    /// When it was killed, and who saw it online then.
    killed: Option<(Tick, Viewers)>,
}

/// Who sees a node online: which of their lives it is, and whether they have a session with it.
type Viewers = BTreeMap<usize, (u32, bool)>;

/// A search under way.
struct Search {
    from: usize,
    target: usize,
    lives: (u32, u32),
    begun: Tick,
}

/// See the module documentation.
pub struct World {
    config: Config,
    now: Tick,
    rng: SeededRng,
    nodes: Vec<Node>,
    numbers: BTreeMap<MachineId, usize>,
    agents: BTreeMap<AgentId, usize>,
    running: Vec<usize>,
    queue: BinaryHeap<Reverse<(Tick, u64)>>,
    events: BTreeMap<u64, (usize, u32, Event)>,
    scheduled: u64,
    searches: BTreeMap<u64, Search>,
    tickets: u64,
    measuring: bool,
    presence_bytes: u64,
    report: Report,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("now", &self.now).finish_non_exhaustive()
    }
}

fn machine(n: usize) -> MachineId {
    let mut id = [0x5a; 32];
    id[..8].copy_from_slice(&(n as u64).to_be_bytes());
    MachineId::new(id)
}

/// Each machine in a network of its own.
fn address(n: usize) -> PeerAddr {
    let [.., high, low] = (n as u64).to_be_bytes();
    let ip = [40 + high, low, 1, 1];
    PeerAddr::known(machine(n), [SocketAddr::from((ip, 5483))])
}

fn secret_key(n: usize) -> SecretKey {
    key(n as u64)
}

impl World {
    /// All nodes, none of which runs yet.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let rng = SeededRng::from_number(config.seed);
        let count = config.nodes + (config.nodes as f64 * SPARE * config.churn * 10.0) as usize;
        let every = if config.bad > 0.0 { (1.0 / config.bad) as usize } else { usize::MAX };
        let node = |n: usize| Node {
            agent: secret_key(n).public_key().agent_id(),
            manner: match n % every {
                0 if every != usize::MAX && (n / every).is_multiple_of(2) => Manner::Silent,
                0 if every != usize::MAX => Manner::Liar,
                _ => Manner::Honest,
            },
            watched: Vec::new(),
            lives: 0,
            life: None,
            timer: None,
            killed: None,
        };
        let nodes: Vec<Node> = (0..count).map(node).collect();
        let agents = nodes.iter().enumerate().map(|(n, node)| (node.agent, n)).collect();
        let mut world = Self {
            config: config.clone(),
            now: Tick::ZERO,
            rng,
            numbers: (0..count).map(|n| (machine(n), n)).collect(),
            agents,
            nodes,
            running: Vec::new(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            scheduled: 0,
            searches: BTreeMap::new(),
            tickets: 0,
            measuring: false,
            presence_bytes: 0,
            report: Report { bad: config.bad, seed: config.seed, ..Report::default() },
        };
        for n in 0..count {
            let at = if n < config.nodes {
                GROWTH * u32::try_from(n).unwrap_or(0) / u32::try_from(config.nodes).unwrap_or(1)
            } else {
                GROWTH + world.between(0, AWAY.1)
            };
            world.at(at, n, Event::Start);
        }
        world
    }

    /// Lets it run, and tells what was measured.
    #[must_use]
    pub fn run(mut self) -> Report {
        self.run_for(GROWTH + WARM_UP);
        self.choose_whom_to_watch();
        self.run_for(WARM_UP * 2);
        self.measuring = true;
        let (end, pause) = (self.now + self.config.time, self.find_pause());
        while self.now < end {
            self.begin_search();
            self.run_for(pause);
        }
        self.run_for(self.config.patience * 2);
        self.finish()
    }

    fn find_pause(&self) -> Duration {
        Duration::from_secs(1) / self.config.finds.max(1)
    }

    fn finish(mut self) -> Report {
        for search in std::mem::take(&mut self.searches).into_values() {
            self.missed(&search);
        }
        let viewers: Vec<usize> = self.running.clone();
        for viewer in viewers {
            let seen = self.nodes[viewer].life.as_ref().map(|life| life.seen.clone());
            for (subject, _) in seen.into_iter().flatten() {
                self.looks(viewer, subject, PresenceState::Unknown);
            }
        }
        let seconds = (self.config.time + self.config.patience * 2).as_secs_f64();
        self.report.presence_bytes =
            self.presence_bytes as f64 / seconds / self.running.len().max(1) as f64;
        self.report.nodes = self.running.len();
        self.report
    }

    fn wall(&self) -> WallTime {
        START + self.now.since(Tick::ZERO)
    }

    fn between(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.rng.range(low, high))
    }

    fn at(&mut self, after: Duration, n: usize, event: Event) {
        self.scheduled += 1;
        self.events.insert(self.scheduled, (n, self.nodes[n].lives, event));
        self.queue.push(Reverse((self.now + after, self.scheduled)));
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(Reverse((at, number))) = self.queue.peek().copied() {
            if at > end {
                break;
            }
            self.queue.pop();
            self.now = at;
            if let Some((n, lives, event)) = self.events.remove(&number)
                && lives == self.nodes[n].lives
            {
                self.happen(n, event);
            }
        }
        self.now = end;
    }

    fn happen(&mut self, n: usize, event: Event) {
        match event {
            Event::Start => self.start(n),
            Event::End => self.end(n),
            Event::File => {
                let subject = Subject::Agent(self.nodes[n].agent);
                self.finder(n, FinderInput::Offer(subject));
            }
            Event::Find(from, frame) if self.is_linked(n, from) => {
                self.find_frame(n, from, frame);
            }
            Event::Presence(from, frame) if self.is_linked(n, from) => {
                self.presence(n, PresenceInput::Message { peer: machine(from), frame });
            }
            Event::Find(..) | Event::Presence(..) => {}
            Event::Timer => self.timer(n),
            Event::Dialled(to) => self.dialled(n, to),
            Event::DialFailed(peer) => self.finder(n, FinderInput::DialFailed(peer)),
            Event::Lost(peer) => self.lost(n, peer),
            Event::Idle(peer) => {
                let kept = |life: &Life| life.neighbors.contains(&peer);
                if self.is_linked(n, peer) && !self.nodes[n].life.as_ref().is_some_and(kept) {
                    self.lost(n, peer);
                    self.lost(peer, n);
                }
            }
        }
    }

    fn is_linked(&self, n: usize, peer: usize) -> bool {
        self.nodes[n].life.as_ref().is_some_and(|life| life.links.contains(&peer))
    }
}

/// Lives: who starts, ends, and meets whom.
impl World {
    fn start(&mut self, n: usize) {
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

    fn end(&mut self, n: usize) {
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

    fn begin_session(&mut self, n: usize) {
        let mut secret = Zeroizing::new([n as u8; 32]);
        secret[..8].copy_from_slice(&self.rng.next_u64().to_be_bytes());
        let PresenceConfig { period, shared, .. } = PresenceConfig::default();
        let (key, wall) = (secret_key(n), self.wall());
        let session = LocalSession::begin(&key, machine(n), &secret, wall, period, shared);
        self.presence(n, PresenceInput::Session(Box::new(session)));
    }

    fn seek_neighbors(&mut self, n: usize) {
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

    fn link(&mut self, a: usize, b: usize) {
        for (n, peer) in [(a, b), (b, a)] {
            if let Some(life) = &mut self.nodes[n].life
                && life.links.insert(peer)
            {
                let (agents, address) = (vec![self.nodes[peer].agent], address(peer));
                let (path, id) = (Scope::Global, machine(peer));
                let up = PresenceInput::Up { peer: id, agents: agents.clone() };
                self.presence(n, up);
                self.finder(n, FinderInput::Up { peer: id, agents, address, path });
            }
        }
    }

    fn lost(&mut self, n: usize, peer: usize) {
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

    fn dialled(&mut self, n: usize, to: usize) {
        if self.nodes[to].life.is_none() {
            return self.at(DIAL_TIMEOUT - DIAL, n, Event::DialFailed(machine(to)));
        }
        if !self.is_linked(n, to) {
            self.link(n, to);
            self.at(IDLE, n, Event::Idle(to));
        }
    }

    /// Some near, two links away, and some anywhere.
    fn choose_whom_to_watch(&mut self) {
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

    fn step(&mut self, n: usize) -> Option<usize> {
        let neighbors = &self.nodes[n].life.as_ref()?.neighbors;
        let count = neighbors.len();
        neighbors.iter().nth(self.rng.below(count.max(1))).copied()
    }
}

/// The machines of a node.
impl World {
    fn timer(&mut self, n: usize) {
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

    fn finder(&mut self, n: usize, input: FinderInput) {
        let (now, wall) = (self.now, self.wall());
        let Some(life) = &mut self.nodes[n].life else { return };
        life.finder.handle(now, FinderInput::Wall(wall));
        life.finder.handle(now, input);
        self.carry_out(n);
    }

    fn presence(&mut self, n: usize, input: PresenceInput) {
        let (now, wall) = (self.now, self.wall());
        let Some(life) = &mut self.nodes[n].life else { return };
        life.presence.handle(now, PresenceInput::Wall(wall));
        life.presence.handle(now, input);
        self.carry_out(n);
    }

    fn carry_out(&mut self, n: usize) {
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
            self.nodes[n].timer = Some(at);
            self.at(at.since(self.now), n, Event::Timer);
        }
    }

    fn find_output(&mut self, n: usize, output: FinderOutput) {
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
            FinderOutput::Done { ticket } => {
                if let Some(search) = self.searches.remove(&ticket) {
                    self.missed(&search);
                }
            }
            _ => {}
        }
    }

    fn presence_output(&mut self, n: usize, output: PresenceOutput) {
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

    fn send(
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

    fn find_frame(&mut self, n: usize, from: usize, frame: Bytes) {
        let manner = self.nodes[n].manner;
        if manner != Manner::Honest && self.misbehaves(n, from, manner, &frame) {
            return;
        }
        self.finder(n, FinderInput::Message { peer: machine(from), frame });
    }

    /// A node that holds nothing; true when the frame is dealt with.
    fn misbehaves(&mut self, n: usize, from: usize, manner: Manner, frame: &Bytes) -> bool {
        let answer = match Frame::decode(frame) {
            Ok(Frame::Lookup { .. }) if manner == Manner::Silent => return true,
            Ok(Frame::Lookup { key, id, .. }) => {
                let referrals = self.invented(&key);
                let sealed = vec![vec![0xab; 5600].into()];
                Frame::Found { key, id, sealed, referrals, holds: true }
            }
            Ok(Frame::Store { key, .. }) => Frame::Stored { key, kept: true },
            _ => return false,
        };
        self.send(n, machine(from), answer.encode(), Event::Find);
        true
    }

    /// Machines that do not exist, of which the ones that suit the key best.
    fn invented(&mut self, key: &LookupKey) -> Vec<Referral> {
        let mut ids: Vec<MachineId> = (0..64)
            .map(|_| {
                let mut id = [0xee; 32];
                id[..8].copy_from_slice(&self.rng.next_u64().to_be_bytes());
                MachineId::new(id)
            })
            .collect();
        ids.sort_by_key(|id| Reverse(key.rank(id)));
        ids.truncate(8);
        let referral = |machine: MachineId| {
            let [a, b, c, ..] = *machine.as_bytes();
            let ip = [30 + a % 20, b, c, 1];
            Referral { machine, addresses: vec![SocketAddr::from((ip, 9))] }
        };
        ids.into_iter().map(referral).collect()
    }
}

/// What is measured.
impl World {
    fn begin_search(&mut self) {
        let from = self.running[self.rng.below(self.running.len())];
        let target = self.running[self.rng.below(self.running.len())];
        let is_settled = |n: usize| {
            let life = self.nodes[n].life.as_ref();
            life.is_some_and(|life| self.now.since(life.since) >= SETTLED)
        };
        let honest = |n: usize| self.nodes[n].manner == Manner::Honest;
        if from == target || ![from, target].iter().all(|n| honest(*n) && is_settled(*n)) {
            return;
        }
        self.tickets += 1;
        let (ticket, begun) = (self.tickets, self.now);
        let lives = (self.nodes[from].lives, self.nodes[target].lives);
        self.searches.insert(ticket, Search { from, target, lives, begun });
        let subject = Subject::Agent(self.nodes[target].agent);
        let deadline = begun + self.config.patience;
        self.finder(from, FinderInput::Find { ticket, subject, deadline });
    }

    /// A search found nothing; that says something if both ends were there all the while.
    fn missed(&mut self, search: &Search) {
        let there = |n: usize, lives: u32| {
            let node = &self.nodes[n];
            node.lives == lives && node.life.is_some()
        };
        if there(search.from, search.lives.0) && there(search.target, search.lives.1) {
            self.report.missed += 1;
        }
    }

    /// Who sees a node online, and whether by a session.
    fn viewers(&self, subject: usize) -> Viewers {
        let sees = |viewer: &usize| {
            let node = &self.nodes[*viewer];
            let life = node.life.as_ref()?;
            let (state, _) = life.seen.get(&subject)?;
            let linked = life.neighbors.contains(&subject);
            let matters = linked || node.watched.contains(&self.nodes[subject].agent);
            let counts = matters && *state == PresenceState::Online;
            counts.then_some((*viewer, (node.lives, linked)))
        };
        self.running.iter().filter_map(sees).collect()
    }

    /// A viewer's picture of another node changes.
    fn looks(&mut self, viewer: usize, subject: usize, state: PresenceState) {
        let now = self.now;
        let there = self.nodes[subject].life.as_ref().map(|life| life.since);
        let Some(life) = &self.nodes[viewer].life else { return };
        let linked = life.links.contains(&subject);
        // Of strangers whose session was closed for want of use nothing is promised.
        let noted = self.nodes[subject].killed.as_ref();
        let noted = noted.is_some_and(|(_, viewers)| viewers.contains_key(&viewer));
        let matters = noted
            || life.neighbors.contains(&subject)
            || self.nodes[viewer].watched.contains(&self.nodes[subject].agent);
        let Some(life) = &mut self.nodes[viewer].life else { return };
        let before = life.seen.insert(subject, (state, now));
        if !self.measuring || !matters {
            return;
        }
        let sight = if linked { &mut self.report.linked } else { &mut self.report.told };
        if let Some((PresenceState::Online, since)) = before {
            sight.online += now.since(since);
            let all_the_while = there.is_some_and(|start| start <= since);
            match state {
                PresenceState::Away if all_the_while => sight.false_away += 1,
                _ => {}
            }
        }
        if state == PresenceState::Offline {
            let seen = before.map_or(now, |(_, since)| since);
            if there.is_some_and(|start| start <= seen && now.since(start) >= SETTLED) {
                sight.false_offline += 1;
            }
            let killed = self.nodes[subject].killed.as_mut();
            let noted = killed.and_then(|(at, viewers)| Some((*at, viewers.remove(&viewer)?)));
            if let Some((at, (_, linked))) = noted {
                let sight = if linked { &mut self.report.linked } else { &mut self.report.told };
                sight.detected.push(now.since(at));
            }
        }
    }

    /// A viewer ends: what it saw until now counts.
    fn forget_seen(&mut self, n: usize, life: &Life) {
        if !self.measuring {
            return;
        }
        for (subject, (state, since)) in &life.seen {
            let linked = life.neighbors.contains(subject);
            let watched = self.nodes[n].watched.contains(&self.nodes[*subject].agent);
            if *state == PresenceState::Online && (linked || watched) {
                let sight = if linked { &mut self.report.linked } else { &mut self.report.told };
                sight.online += self.now.since(*since);
            }
        }
    }
}
