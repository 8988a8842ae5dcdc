//! Presence as a pure machine: what to tell whom, and what to believe of whom.

mod link;
mod receive;
mod subject;
mod tell;
mod walk;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use lru::LruCache;
use x0x_core::{AgentId, Machine, MachineId, SeededRng, Tick, TokenBucket, WallTime};

use link::Link;
use subject::Subject;
pub use subject::{PresenceState, Status};
use walk::{Pending, Walk};

use crate::{
    config::{MAX_LINKS, MAX_ORIGINS, MAX_SUBJECTS, MAX_WALKS, MAX_WATCHED, PresenceConfig},
    metrics::PresenceMetrics,
    query::{MAX_TARGETS, SignedQuery, WalkId},
    session::{LocalSession, SessionId},
    visibility::Visibility,
    wire::{Beacon, Frame},
};

/// A timer this late means that this node itself slept.
const SLEPT: Duration = Duration::from_secs(2);
/// How soon what changed for a link is told: several changes make one frame.
const SOON: Duration = Duration::from_millis(200);
/// Shortest time between two attempts to confirm that an agent is gone.
const PROBE_PAUSE: Duration = Duration::from_secs(60);
/// How often the agents that are not seen are asked for at other neighbours.
const ROUND: Duration = Duration::from_secs(120);

/// What the world tells the machine.
#[derive(Debug)]
#[non_exhaustive]
pub enum Input {
    /// The wall-clock time now. To be told before each turn.
    Wall(WallTime),
    /// This node's session begins, at the start and for each [`Output::Renew`].
    Session(Box<LocalSession>),
    /// The agents that are of interest, such as contacts and members of groups; at most
    /// [`MAX_WATCHED`].
    Watch(Vec<AgentId>),
    /// A transport session with a peer that proved these agents begins.
    Up {
        /// The peer.
        peer: MachineId,
        /// Its proven agents.
        agents: Vec<AgentId>,
    },
    /// It ended.
    Down(MachineId),
    /// A peer becomes or ceases to be a neighbour.
    Neighbor {
        /// The peer.
        peer: MachineId,
        /// Whether it is one now.
        up: bool,
    },
    /// A frame from a peer.
    Message {
        /// The peer.
        peer: MachineId,
        /// As received.
        frame: Bytes,
    },
    /// Begins a walk. With a ticket what it finds is told; without, it is merely noted.
    Find {
        /// Names the caller.
        ticket: Option<u64>,
        /// The question, asked by the local agent.
        query: SignedQuery,
        /// Hops; at most [`crate::MAX_TTL`].
        ttl: u32,
        /// How long the caller waits; at most [`PresenceConfig::walk_timeout`].
        patience: Duration,
    },
    /// Whether an agent may see or be seen, or is believed to be where it says, has changed; with none
    /// named, that of any.
    Reconsider(Option<AgentId>),
    /// This node ends: say goodbye.
    Leave,
}

/// What the machine asks of the world.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output {
    /// Send a frame.
    Send {
        /// To whom.
        peer: MachineId,
        /// Encoded.
        frame: Bytes,
    },
    /// An agent came or went.
    Changed(Status),
    /// Begin a new session and hand it in.
    Renew,
    /// Sign a query for these agents and hand it in, without a ticket.
    Ask(Vec<AgentId>),
    /// A watched agent was not heard of, or a session with it ended: try to open one. A session that begins
    /// is told by [`Input::Up`] as any other; a failure need not be told.
    Suspect(AgentId),
    /// A walk found an agent.
    Found {
        /// Of the caller.
        ticket: u64,
        /// What it found.
        status: Status,
    },
    /// A walk is over.
    Done {
        /// Of the caller.
        ticket: u64,
    },
}

/// See the module documentation.
#[derive(Debug)]
pub struct PresenceMachine {
    local: AgentId,
    machine: MachineId,
    config: PresenceConfig,
    visibility: Arc<dyn Visibility>,
    metrics: Arc<PresenceMetrics>,
    rng: SeededRng,
    /// Wall time at some tick.
    wall: (Tick, WallTime),
    own: Option<LocalSession>,
    /// The last own beacon.
    index: u32,
    renewing: bool,
    watched: BTreeSet<AgentId>,
    neighbors: BTreeSet<MachineId>,
    links: BTreeMap<MachineId, Link>,
    subjects: BTreeMap<AgentId, Subject>,
    by_session: BTreeMap<SessionId, AgentId>,
    /// Records that were asked for, of whom, with the beacon that made them interesting.
    wants: BTreeMap<SessionId, (MachineId, Beacon, Tick)>,
    walks: LruCache<WalkId, Walk>,
    pending: BTreeMap<WalkId, Pending>,
    origins: LruCache<AgentId, TokenBucket>,
    /// When a subject's verdict may change.
    due: BTreeSet<(Tick, AgentId)>,
    beacon_at: Option<Tick>,
    flush_at: Option<Tick>,
    ask_at: Option<Tick>,
    walk_at: Tick,
    round_at: Tick,
    /// The last turn: the time since is the longest that this node can have slept.
    turn: Tick,
    round: u64,
    /// Since the turn began.
    suspects: Vec<AgentId>,
    outputs: VecDeque<Output>,
}

fn capacity(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN)
}

impl PresenceMachine {
    /// A machine of an agent on a machine. The seed decides which links walks take.
    #[must_use]
    pub fn new(
        local: AgentId,
        machine: MachineId,
        config: PresenceConfig,
        visibility: Arc<dyn Visibility>,
        seed: [u8; 32],
        now: Tick,
    ) -> Self {
        let mut config = config;
        // What waits to travel together must not look like a silence.
        config.batch = config.batch.min(config.period / 6);
        Self {
            local,
            machine,
            visibility,
            metrics: Arc::default(),
            rng: SeededRng::from_seed(seed),
            wall: (now, WallTime::default()),
            own: None,
            index: 0,
            renewing: false,
            watched: BTreeSet::new(),
            neighbors: BTreeSet::new(),
            links: BTreeMap::new(),
            subjects: BTreeMap::new(),
            by_session: BTreeMap::new(),
            wants: BTreeMap::new(),
            walks: LruCache::new(capacity(MAX_WALKS)),
            pending: BTreeMap::new(),
            origins: LruCache::new(capacity(MAX_ORIGINS)),
            due: BTreeSet::new(),
            beacon_at: None,
            flush_at: None,
            ask_at: None,
            // Contacts have a minute to show up by themselves.
            walk_at: now + Duration::from_secs(60).min(config.walk_interval),
            round_at: now + ROUND,
            turn: now,
            round: 0,
            suspects: Vec::new(),
            outputs: VecDeque::new(),
            config,
        }
    }

    /// Its counters.
    #[must_use]
    pub fn metrics(&self) -> Arc<PresenceMetrics> {
        Arc::clone(&self.metrics)
    }

    /// What is known of an agent.
    #[must_use]
    pub fn status(&self, agent: &AgentId) -> Status {
        let known = self.subjects.get(agent).filter(|subject| self.shows(subject));
        known.map_or(Status::unknown(*agent), Subject::status)
    }

    /// Everybody who is known, by id: the network view.
    #[must_use]
    pub fn network(&self) -> Vec<Status> {
        let known = |who: &&Subject| who.state != PresenceState::Unknown && self.shows(who);
        self.subjects.values().filter(known).map(Subject::status).collect()
    }

    /// The watched agents, known or not, by id: the social view.
    #[must_use]
    pub fn social(&self) -> Vec<Status> {
        self.watched.iter().map(|agent| self.status(agent)).collect()
    }

    /// Whether the application is shown an agent.
    fn shows(&self, subject: &Subject) -> bool {
        let believed = |machine| self.visibility.believes(&subject.agent, &machine);
        self.may_see(&self.local, &subject.agent) && subject.machine.is_none_or(believed)
    }

    /// Whether somebody on the other end of a session may be told of an agent.
    fn may_tell_any(&self, peer: MachineId, link: &Link, subject: &AgentId) -> bool {
        let may = |viewer: &AgentId| {
            self.visibility.counts(viewer, &peer) && self.may_see(viewer, subject)
        };
        link.agents.iter().any(may)
    }

    fn may_see(&self, viewer: &AgentId, subject: &AgentId) -> bool {
        self.visibility.may_see(viewer, subject)
    }

    fn wall_at(&self, now: Tick) -> WallTime {
        self.wall.1 + now.since(self.wall.0)
    }

    fn send(&mut self, peer: MachineId, frame: &Frame) {
        let frame = frame.encode();
        self.metrics.bytes_sent.add(frame.len() as u64);
        self.outputs.push_back(Output::Send { peer, frame });
    }

    /// Looks at an agent again after news or at its time.
    fn judge(&mut self, now: Tick, agent: AgentId) {
        let visible = self.subjects.get(&agent).is_some_and(|subject| self.shows(subject));
        let Some(subject) = self.subjects.get_mut(&agent) else { return };
        let (state, due) = subject.verdict(now, &self.config);
        if subject.due != due {
            if let Some(old) = subject.due {
                self.due.remove(&(old, agent));
            }
            self.due.extend(due.map(|at| (at, agent)));
            subject.due = due;
        }
        let moved = std::mem::replace(&mut subject.state, state) != state;
        // Silence of those who tell is not its silence: others, and it itself, are asked before it is gone.
        let pause = subject.probed.is_none_or(|at| now.since(at) >= PROBE_PAUSE);
        let suspect = moved && pause && state == PresenceState::Away && subject.links.is_empty();
        if suspect && self.watched.contains(&agent) {
            subject.probed = Some(now);
            self.suspects.push(agent);
        }
        // To the application an agent that must not be seen is one that nothing is known of.
        let told = if visible { subject.status() } else { Status::unknown(agent) };
        if std::mem::replace(&mut subject.told, told.state) != told.state {
            self.outputs.push_back(Output::Changed(told));
        }
        if moved {
            self.measure();
        }
    }

    /// Drops what is not believed any more, takes up what is, and tells the application what it sees now.
    fn reconsider(&mut self, now: Tick, agent: Option<AgentId>) {
        let agents: BTreeSet<AgentId> = match agent {
            Some(agent) => BTreeSet::from([agent]),
            None => {
                let proven = self.links.values().flat_map(|link| &link.agents);
                self.subjects.keys().chain(proven).copied().collect()
            }
        };
        let local = self.local;
        for agent in agents.into_iter().filter(|agent| *agent != local) {
            self.reconsider_links(now, agent);
            let visibility = Arc::clone(&self.visibility);
            let is_doubted = |who: &&mut Subject| {
                let session = who.known.as_ref().map(|known| known.record.session());
                session.is_some_and(|on| !visibility.believes(&agent, &on.machine))
            };
            let doubted = self.subjects.get_mut(&agent).filter(is_doubted);
            if let Some(known) = doubted.and_then(Subject::disown) {
                self.forget_session(known.record.id());
            }
            self.judge(now, agent);
        }
        // Peers that may see this agent now are told at once, and those that may not, nothing more.
        self.flush_by(now + SOON);
    }

    /// Sessions show an agent as far as it is believed to be at their other end.
    fn reconsider_links(&mut self, now: Tick, agent: AgentId) {
        let proven = self.links.iter().filter(|(_, link)| link.agents.contains(&agent));
        let peers: Vec<MachineId> = proven.map(|(peer, _)| *peer).collect();
        let wall = self.wall_at(now);
        for peer in peers {
            if !self.visibility.believes(&agent, &peer) {
                if let Some(subject) = self.subjects.get_mut(&agent) {
                    subject.disown_link(peer);
                }
            } else if self.subjects.get(&agent).is_none_or(|who| !who.links.contains(&peer)) {
                self.subject(agent).linked(peer, wall);
            }
        }
    }

    /// Asks after those who turned suspect in this turn.
    fn confirm(&mut self) {
        let suspects = std::mem::take(&mut self.suspects);
        self.metrics.suspected.add(suspects.len() as u64);
        self.outputs.extend(suspects.iter().copied().map(Output::Suspect));
        let asked: Vec<AgentId> = suspects.into_iter().take(MAX_TARGETS).collect();
        if !asked.is_empty() && !self.links.is_empty() {
            self.outputs.push_back(Output::Ask(asked));
        }
    }

    fn measure(&self) {
        let present = self.subjects.values().filter(|subject| subject.state.is_present()).count();
        self.metrics.present.set(present as u64);
        self.metrics.subjects.set(self.subjects.len() as u64);
    }

    /// The agent's entry; a new one may make another agent's room its own.
    fn subject(&mut self, agent: AgentId) -> &mut Subject {
        if !self.subjects.contains_key(&agent) {
            if self.subjects.len() >= MAX_SUBJECTS {
                self.evict();
            }
            self.resolve_interest(agent);
        }
        let period = self.config.period;
        self.subjects.entry(agent).or_insert_with(|| Subject::new(agent, period))
    }

    fn evict(&mut self) {
        let watched = &self.watched;
        let rank = |who: &&Subject| {
            (!who.links.is_empty(), watched.contains(&who.agent), who.last_seen, who.agent)
        };
        let Some(agent) = self.subjects.values().min_by_key(rank).map(|who| who.agent) else {
            return;
        };
        if let Some(gone) = self.subjects.remove(&agent) {
            if let Some(at) = gone.due {
                self.due.remove(&(at, agent));
            }
            if let Some(known) = gone.known {
                self.forget_session(known.record.id());
            }
        }
        for link in self.links.values_mut() {
            link.wanted.remove(&agent);
        }
        self.metrics.evicted.inc();
    }

    fn forget_session(&mut self, session: SessionId) {
        self.by_session.remove(&session);
        for link in self.links.values_mut() {
            link.told.remove(&session);
        }
    }

    fn up(&mut self, now: Tick, peer: MachineId, agents: Vec<AgentId>) {
        let wall = self.wall_at(now);
        if self.links.contains_key(&peer) {
            self.down(now, peer);
        }
        let (local, visibility) = (self.local, Arc::clone(&self.visibility));
        let believed = |agent: &AgentId| *agent != local && visibility.believes(agent, &peer);
        for agent in agents.iter().copied().filter(believed) {
            self.subject(agent).linked(peer, wall);
            self.judge(now, agent);
        }
        if self.links.len() < MAX_LINKS {
            let neighbor = self.neighbors.contains(&peer);
            self.links.insert(peer, Link::new(now, agents, neighbor));
            self.flush_by(now + SOON);
            self.ask_by(now + SOON);
        }
    }

    fn down(&mut self, now: Tick, peer: MachineId) {
        let wall = self.wall_at(now);
        self.links.remove(&peer);
        self.wants.retain(|_, (from, ..)| *from != peer);
        for subject in self.subjects.values_mut().filter(|subject| subject.via == Some(peer)) {
            // Whoever told of it is gone: silence from now on says nothing about it.
            subject.glimpsed |= subject.links.is_empty();
        }
        let lost: Vec<AgentId> = self
            .subjects
            .values_mut()
            .filter(|subject| subject.links.contains(&peer))
            .map(|subject| {
                subject.unlinked(now, peer, wall);
                subject.agent
            })
            .collect();
        for agent in lost {
            self.judge(now, agent);
        }
        self.ask_by(now + SOON);
    }

    fn neighbor(&mut self, now: Tick, peer: MachineId, up: bool) {
        if up {
            if self.neighbors.len() < MAX_LINKS {
                self.neighbors.insert(peer);
            }
        } else {
            self.neighbors.remove(&peer);
        }
        if let Some(link) = self.links.get_mut(&peer) {
            link.neighbor = up;
        }
        self.flush_by(now + SOON);
        self.ask_by(now + SOON);
    }

    fn watch(&mut self, now: Tick, agents: Vec<AgentId>) {
        let others = agents.into_iter().filter(|agent| *agent != self.local);
        self.watched = others.take(MAX_WATCHED).collect();
        self.flush_by(now + SOON);
        self.ask_by(now + SOON);
    }

    fn flush_by(&mut self, at: Tick) {
        self.flush_at = Some(self.flush_at.map_or(at, |before| before.min(at)));
    }

    fn ask_by(&mut self, at: Tick) {
        self.ask_at = Some(self.ask_at.map_or(at, |before| before.min(at)));
    }

    /// When a timer is late, this node slept: nobody is to blame for what it did not hear.
    fn wake(&mut self, now: Tick) {
        let expected = self.poll_timeout().map(|due| due.max(self.turn));
        self.turn = now;
        let late = expected.map_or(Duration::ZERO, |due| now.since(due));
        if late <= SLEPT {
            return;
        }
        let agents: Vec<AgentId> = self.subjects.keys().copied().collect();
        for agent in agents {
            if let Some(subject) = self.subjects.get_mut(&agent) {
                subject.pardon(late, now);
            }
            self.judge(now, agent);
        }
    }
}

impl Machine for PresenceMachine {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Tick, input: Input) {
        self.wake(now);
        match input {
            Input::Wall(wall) => self.wall = (now, wall),
            Input::Session(session) => self.begin(now, *session),
            Input::Watch(agents) => self.watch(now, agents),
            Input::Up { peer, agents } => self.up(now, peer, agents),
            Input::Down(peer) => self.down(now, peer),
            Input::Neighbor { peer, up } => self.neighbor(now, peer, up),
            Input::Message { peer, frame } => self.receive(now, peer, &frame),
            Input::Find { ticket, query, ttl, patience } => {
                self.find(now, ticket, &query, ttl, patience);
            }
            Input::Reconsider(agent) => self.reconsider(now, agent),
            Input::Leave => self.leave(),
        }
        self.confirm();
    }

    fn handle_timeout(&mut self, now: Tick) {
        self.wake(now);
        let is_due = |at: Option<Tick>| at.is_some_and(|at| at <= now);
        if is_due(self.beacon_at) {
            self.beacon(now);
        }
        if self.round_at <= now {
            self.round += 1;
            self.round_at = now + ROUND;
            self.ask_by(now);
        }
        if is_due(self.ask_at) {
            self.ask_at = None;
            self.ask();
        }
        if is_due(self.flush_at) {
            self.flush_at = None;
            self.flush();
        }
        if self.walk_at <= now {
            self.walk_at = now + self.config.walk_interval;
            self.seek();
        }
        self.expire_walks(now);
        while let Some((at, agent)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.judge(now, agent);
            // A verdict that did not move must not be looked at for ever.
            self.due.remove(&(at, agent));
        }
        self.confirm();
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Tick> {
        let ends = self.pending.values().map(|pending| pending.until).min();
        [self.beacon_at, self.flush_at, self.ask_at, ends, self.due.first().map(|due| due.0)]
            .into_iter()
            .flatten()
            .chain([self.walk_at, self.round_at])
            .min()
    }
}
