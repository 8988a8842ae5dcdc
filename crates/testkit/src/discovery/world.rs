//! The nodes, their sessions, and what happens to them.

mod hostile;
mod lives;
mod machines;
mod measure;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::SocketAddr,
    time::Duration,
};

use bytes::Bytes;
use x0x_core::{AgentId, MachineId, PeerAddr, SeededRng, Tick, WallTime};
use x0x_identity::{SecretKey, testing::key};
use x0x_presence::{Input as PresenceInput, PresenceMachine, PresenceState};
use x0x_rendezvous::{Finder, FinderInput, Subject, testing::random_machine};

use super::{Config, Report};

const START: WallTime = WallTime::from_millis(1_800_000_000_000);
/// One way over a session, and a dial with its handshake.
const LATENCY: Duration = Duration::from_millis(50);
const DIAL: Duration = Duration::from_millis(150);
/// A dial of a machine that is not there: until the finder gives up on it.
const DIAL_TIMEOUT: Duration = Duration::from_millis(1600);
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

/// Spread evenly, as hashes are.
fn machine(n: usize) -> MachineId {
    random_machine(&mut SeededRng::from_number(n as u64))
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
