//! A few nodes with links of 50 ms, in virtual time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use x0x_core::{AgentId, Machine, MachineId, Tick, WallTime};
use x0x_identity::{SecretKey, testing::key};
use x0x_presence::{
    Input, LocalSession, Output, PresenceConfig, PresenceMachine, PresenceState, SignedQuery,
    Status, testing::Blocks,
};
use zeroize::Zeroizing;

pub(crate) const START: WallTime = WallTime::from_millis(1_800_000_000_000);
const LATENCY: Duration = Duration::from_millis(50);

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The agent of node `n`, which has key `n`.
pub(crate) fn agent(n: usize) -> AgentId {
    static KNOWN: Mutex<BTreeMap<usize, AgentId>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().expect("not poisoned");
    *known.entry(n).or_insert_with(|| key(n as u64).public_key().agent_id())
}

fn number(machine: MachineId) -> usize {
    let id = machine.as_bytes().first_chunk().expect("32 bytes");
    u64::from_be_bytes(*id) as usize - 1
}

/// The machine of node `n`. Need not have a key.
pub(crate) fn machine(n: usize) -> MachineId {
    let mut id = [7; 32];
    id[..8].copy_from_slice(&(n as u64 + 1).to_be_bytes());
    MachineId::new(id)
}

pub(crate) struct Node {
    pub(crate) machine: PresenceMachine,
    key: SecretKey,
    sessions: u64,
    config: PresenceConfig,
    dead: bool,
    /// Handles nothing before then.
    asleep: Tick,
    pub(crate) changes: Vec<(Tick, Status)>,
    pub(crate) found: Vec<Status>,
    pub(crate) done: Vec<u64>,
    /// Whom it asked to be connected to.
    pub(crate) suspects: Vec<AgentId>,
    pub(crate) bytes_out: usize,
    pub(crate) bytes_in: usize,
}

pub(crate) struct World {
    pub(crate) now: Tick,
    pub(crate) nodes: Vec<Node>,
    pub(crate) blocks: Arc<Blocks>,
    links: BTreeSet<(usize, usize)>,
    /// The nodes' timers, and by node.
    timers: BTreeSet<(Tick, usize)>,
    timer: Vec<Option<Tick>>,
    queue: BTreeMap<(Tick, u64), (usize, Input)>,
    sent: u64,
    queries: u64,
    /// All frames, if they are kept: from, to, frame.
    pub(crate) log: Option<Vec<(usize, usize, Bytes)>>,
}

impl World {
    pub(crate) fn new(count: usize) -> Self {
        Self::with(count, &PresenceConfig::default())
    }

    pub(crate) fn with(count: usize, config: &PresenceConfig) -> Self {
        let blocks = Arc::new(Blocks::default());
        let node = |n: usize| {
            let key = key(n as u64);
            let local = key.public_key().agent_id();
            let visibility = Arc::<Blocks>::clone(&blocks);
            let seed = [n as u8; 32];
            let machine = PresenceMachine::new(
                local,
                machine(n),
                config.clone(),
                visibility,
                seed,
                Tick::ZERO,
            );
            Node {
                machine,
                key,
                sessions: 0,
                config: config.clone(),
                dead: false,
                asleep: Tick::ZERO,
                changes: Vec::new(),
                found: Vec::new(),
                done: Vec::new(),
                suspects: Vec::new(),
                bytes_out: 0,
                bytes_in: 0,
            }
        };
        let mut world = Self {
            now: Tick::ZERO,
            nodes: (0..count).map(node).collect(),
            blocks,
            links: BTreeSet::new(),
            timers: BTreeSet::new(),
            timer: vec![None; count],
            queue: BTreeMap::new(),
            sent: 0,
            queries: 0,
            log: None,
        };
        for n in 0..count {
            world.begin_session(n);
        }
        world
    }

    fn begin_session(&mut self, n: usize) {
        let wall = self.wall();
        let node = &mut self.nodes[n];
        node.sessions += 1;
        let mut secret = Zeroizing::new([n as u8; 32]);
        secret[..16].copy_from_slice(&(u128::from(node.sessions) << 64 | n as u128).to_be_bytes());
        let PresenceConfig { period, shared, .. } = node.config;
        let session = LocalSession::begin(&node.key, machine(n), &secret, wall, period, shared);
        self.input(n, Input::Session(Box::new(session)));
    }

    pub(crate) fn wall(&self) -> WallTime {
        START + self.now.since(Tick::ZERO)
    }

    /// Hands an input to a node at once.
    pub(crate) fn input(&mut self, n: usize, input: Input) {
        let (now, wall) = (self.now, self.wall());
        let node = &mut self.nodes[n];
        if node.dead {
            return;
        }
        if now < node.asleep {
            self.sent += 1;
            self.queue.insert((node.asleep, self.sent), (n, input));
            return;
        }
        node.machine.handle(now, Input::Wall(wall));
        node.machine.handle(now, input);
        self.carry_out(n);
    }

    fn carry_out(&mut self, n: usize) {
        while let Some(output) = self.nodes[n].machine.poll_output() {
            match output {
                Output::Send { peer, frame } => self.send(n, peer, frame),
                Output::Changed(status) => self.nodes[n].changes.push((self.now, status)),
                Output::Renew => self.begin_session(n),
                Output::Ask(targets) => {
                    let query = self.query(n, &targets);
                    self.input(n, PresenceMachine::quiet_walk(query));
                }
                Output::Found { status, .. } => self.nodes[n].found.push(status),
                Output::Done { ticket } => self.nodes[n].done.push(ticket),
                Output::Suspect(agent) => self.nodes[n].suspects.push(agent),
                _ => {}
            }
        }
        self.arm(n);
    }

    fn arm(&mut self, n: usize) {
        let node = &self.nodes[n];
        let timer = node.machine.poll_timeout().filter(|_| !node.dead);
        let timer = timer.map(|at| at.max(node.asleep).max(self.now));
        if let Some(old) = std::mem::replace(&mut self.timer[n], timer) {
            self.timers.remove(&(old, n));
        }
        self.timers.extend(timer.map(|at| (at, n)));
    }

    fn send(&mut self, from: usize, peer: MachineId, frame: Bytes) {
        let to = number(peer);
        if !self.links.contains(&(from, to)) {
            return;
        }
        self.nodes[from].bytes_out += frame.len();
        self.nodes[to].bytes_in += frame.len();
        if let Some(log) = &mut self.log {
            log.push((from, to, frame.clone()));
        }
        self.sent += 1;
        let input = Input::Message { peer: machine(from), frame };
        self.queue.insert((self.now + LATENCY, self.sent), (to, input));
    }

    /// A question of node `n`.
    pub(crate) fn query(&mut self, n: usize, targets: &[AgentId]) -> SignedQuery {
        self.queries += 1;
        let id = (u128::from(self.queries) << 32).to_be_bytes();
        SignedQuery::ask(&self.nodes[n].key, id, targets, self.wall())
    }

    /// A session begins.
    pub(crate) fn link(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            self.links.insert((from, to));
            self.input(from, Input::Up { peer: machine(to), agents: vec![agent(to)] });
        }
    }

    /// A session between neighbours begins.
    pub(crate) fn neighbors(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            self.input(from, Input::Neighbor { peer: machine(to), up: true });
        }
        self.link(a, b);
    }

    /// It ends, for both.
    pub(crate) fn unlink(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            self.links.remove(&(from, to));
            self.input(from, Input::Down(machine(to)));
        }
    }

    pub(crate) fn watch(&mut self, n: usize, whom: impl IntoIterator<Item = usize>) {
        self.input(n, Input::Watch(whom.into_iter().map(agent).collect()));
    }

    /// `kill -9`: the others' sessions last until the transport gives up, after 15 s.
    pub(crate) fn kill(&mut self, n: usize) {
        self.nodes[n].dead = true;
        self.arm(n);
        for other in 0..self.nodes.len() {
            if self.links.remove(&(other, n)) {
                self.links.remove(&(n, other));
                self.sent += 1;
                let down = Input::Down(machine(n));
                self.queue.insert((self.now + secs(15), self.sent), (other, down));
            }
        }
    }

    /// Stops a node for a while; what arrives meanwhile waits.
    pub(crate) fn sleep(&mut self, n: usize, time: Duration) {
        self.nodes[n].asleep = self.now + time;
        self.arm(n);
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let timer = self.timers.first().copied();
            let event = self.queue.keys().next().copied();
            match (timer, event) {
                (timer, Some((at, number)))
                    if at <= end && timer.is_none_or(|(timer, _)| at <= timer) =>
                {
                    self.now = self.now.max(at);
                    if let Some((to, input)) = self.queue.remove(&(at, number)) {
                        self.input(to, input);
                    }
                }
                (Some((at, n)), _) if at <= end => {
                    self.now = self.now.max(at);
                    let (now, wall) = (self.now, self.wall());
                    let machine = &mut self.nodes[n].machine;
                    machine.handle(now, Input::Wall(wall));
                    machine.handle_timeout(now);
                    self.carry_out(n);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    pub(crate) fn state(&self, viewer: usize, subject: usize) -> PresenceState {
        self.nodes[viewer].machine.status(&agent(subject)).state
    }

    /// The states that a viewer saw a subject take.
    pub(crate) fn states(&self, viewer: usize, subject: usize) -> Vec<PresenceState> {
        let of = self.nodes[viewer].changes.iter();
        of.filter(|(_, status)| status.agent == agent(subject)).map(|(_, s)| s.state).collect()
    }

    /// When a viewer first saw a subject in a state.
    pub(crate) fn first(
        &self,
        viewer: usize,
        subject: usize,
        state: PresenceState,
    ) -> Option<Tick> {
        let mut of = self.nodes[viewer].changes.iter();
        of.find(|(_, status)| status.agent == agent(subject) && status.state == state)
            .map(|(at, _)| *at)
    }
}
