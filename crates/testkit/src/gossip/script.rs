//! What happens when: a scenario as a list of steps.

use std::{collections::BTreeMap, time::Duration};

use x0x_core::Tick;

use super::{
    hostile::Habit,
    ids::Node,
    ledger::WINDOW,
    net::Sent,
    oracle,
    protocol::Order,
    report::{Connectivity, Measures, Report},
    scenario::{Event, Scenario},
    world::{EPOCH, World},
};

/// Sessions that are no neighbour's are closed after this time, as the transport does.
const IDLE: Duration = Duration::from_secs(30);

/// Most messages whose flood is computed for comparison.
const MAX_FLOODS: u32 = 200;

/// After how many shuffles the survivors of a kill are looked at.
const LOOKS: [u32; 4] = [0, 1, 2, 5];

/// One thing to do.
#[derive(Debug, Clone, Copy)]
enum Step {
    Join(Node),
    /// A newcomer after the start, whose catching up is measured.
    Arrive(Node),
    /// One that crashed comes back.
    Return(Node),
    Crash(Node),
    Publish {
        measured: bool,
    },
    Begin(usize),
    Heal,
    /// Looks at the survivors of a kill.
    Look {
        shuffles: u32,
    },
    /// Sees how far a probe came.
    Probed {
        look: usize,
        message: u32,
    },
    /// The time without traffic begins, or ends and the warm-up begins.
    Idle,
    WarmUp,
    /// What is sent from now on is measured.
    Measure,
    Measured,
}

/// A scenario in progress.
struct Script {
    world: World,
    scenario: Scenario,
    steps: BTreeMap<(Tick, u64), Step>,
    order: u64,
    senders: Vec<Node>,
    published: u32,
    measures: Measures,
    /// Counts at the beginning of the time without traffic, and of the measured time.
    idle: (Tick, Sent),
    begun: (Tick, Sent),
    /// The last step that may make a set incomplete.
    settled: Tick,
}

/// Runs a scenario. The scenario is checked first: an invalid one gives an error.
///
/// # Errors
/// [`ScenarioError`](super::ScenarioError).
pub fn run(scenario: &Scenario, seed: u64) -> Result<Report, super::ScenarioError> {
    scenario.check()?;
    let mut script = Script::new(scenario, seed);
    script.plan();
    script.play();
    Ok(script.finish(seed))
}

fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(value)
}

impl Script {
    fn new(scenario: &Scenario, seed: u64) -> Self {
        let scenario = scenario.effective();
        let joining = |event: &Event| match event {
            Event::Join { share, .. } => (f64::from(scenario.nodes) * share) as u32,
            _ => 0,
        };
        let honest = scenario.nodes + scenario.events.iter().map(joining).sum::<u32>();
        let sybils = (f64::from(scenario.nodes) * scenario.hostile.sybils) as u32;
        let capacity = (honest + sybils) as usize;
        let world = World::new(&scenario, seed, capacity, honest);
        let nothing = (Tick::ZERO, Sent::default());
        let mut script = Self {
            world,
            scenario,
            steps: BTreeMap::new(),
            order: 0,
            senders: Vec::new(),
            published: 0,
            measures: Measures::default(),
            idle: nothing,
            begun: nothing,
            settled: Tick::ZERO,
        };
        script.populate(honest, sybils);
        script
    }

    /// Draws who is who.
    fn populate(&mut self, honest: u32, sybils: u32) {
        let nodes = self.scenario.nodes;
        let hostile = self.scenario.hostile.clone();
        let count = |share: f64| (f64::from(nodes) * share).round() as usize;
        let mut order: Vec<Node> = (1..nodes).collect();
        self.world.rng.shuffle(&mut order);
        let mut habits = vec![Habit::Honest; honest as usize];
        let kinds = [
            (Habit::Dropper, hostile.droppers),
            (Habit::Liar, hostile.liars),
            (Habit::Flooder, hostile.flooders),
            (Habit::Equivocator, hostile.equivocators),
        ];
        for (habit, share) in kinds {
            let drawn = order.split_off(order.len().saturating_sub(count(share)));
            drawn.iter().for_each(|node| habits[*node as usize] = habit);
        }
        // Of the honest ones, the first are those that subscribe.
        order.push(0);
        let idle = order.len().saturating_sub(self.scenario.subscribers() as usize);
        let idle = order.split_off(order.len() - idle);
        order.truncate(self.scenario.traffic.senders as usize);
        self.senders = order;
        self.world.factory.introduce(&self.senders, EPOCH);
        for (node, habit) in habits.into_iter().enumerate() {
            let node = node as Node;
            let publishes = self.senders.contains(&node);
            self.world.add(habit, !idle.contains(&node), publishes);
        }
        // Those that will come back with their disk have it from the start.
        let restarts = self.scenario.events.iter().map(|event| match event {
            Event::Restart { share, .. } => count(*share),
            _ => 0,
        });
        let mut stores = restarts.sum::<usize>();
        for person in self.world.persons.iter_mut().skip(1) {
            if stores > 0 && person.habit == Habit::Honest {
                person.stores = true;
                stores -= 1;
            }
        }
        for _ in 0..sybils {
            self.world.add(Habit::Sybil, true, false);
        }
    }

    fn at(&mut self, at: Tick, step: Step) {
        self.order += 1;
        self.steps.insert((at, self.order), step);
    }

    /// Puts everything that is known in advance into the list.
    fn plan(&mut self) {
        let overlay = self.scenario.overlay.clone();
        let nodes = self.scenario.nodes;
        let all = self.world.persons.len() as u32;
        let formation = seconds(overlay.formation_s);
        for node in 0..nodes {
            self.at(Tick::ZERO + formation * node / nodes, Step::Join(node));
        }
        let sybils = self.world.persons.iter().filter(|p| p.habit == Habit::Sybil).count() as u32;
        for sybil in all - sybils..all {
            let place = sybil - (all - sybils);
            self.at(Tick::ZERO + formation / 2 + formation * place / sybils, Step::Join(sybil));
        }
        let settled = Tick::ZERO + formation + seconds(overlay.settle_s);
        self.at(Tick::ZERO + formation + seconds(overlay.settle_s / 2.0), Step::Idle);
        self.at(settled, Step::WarmUp);
        let traffic = self.scenario.traffic.clone();
        let gap = |count: u32| seconds(f64::from(count) / traffic.rate);
        for number in 0..traffic.warmup {
            self.at(settled + gap(number), Step::Publish { measured: false });
        }
        let start = settled + gap(traffic.warmup);
        self.at(start, Step::Measure);
        for number in 0..traffic.messages {
            self.at(start + gap(number), Step::Publish { measured: true });
        }
        let end = start + gap(traffic.messages);
        self.at(end, Step::Measured);
        self.settled = end;
        for index in 0..self.scenario.events.len() {
            let at = start + seconds(self.scenario.events[index].at_s());
            self.at(at, Step::Begin(index));
        }
    }

    fn play(&mut self) {
        let mut sweep = Tick::ZERO + IDLE;
        while let Some(((at, _), step)) = self.steps.pop_first() {
            while sweep < at {
                self.world.run_until(sweep);
                self.world.net.sweep(IDLE);
                sweep = sweep + IDLE;
            }
            self.world.run_until(at);
            self.perform(step);
        }
        self.drain();
    }

    /// Waits for every set to be complete.
    fn drain(&mut self) {
        let begun = self.world.net.now();
        let deadline = begun + seconds(self.scenario.drain_s);
        let mut sweep = begun + IDLE;
        loop {
            let nodes = self.world.served();
            let (_, missing, _) = self.world.ledger.missing(&nodes);
            let now = self.world.net.now();
            if missing == 0 && self.world.replicas_agree(&nodes) {
                self.measures.complete = Some(now.since(self.settled));
                break;
            }
            if now >= deadline {
                break;
            }
            if now >= sweep {
                self.world.net.sweep(IDLE);
                sweep = now + IDLE;
            }
            self.world.run_until(now + Duration::from_millis(100));
        }
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::Join(node) => self.join(node),
            Step::Arrive(node) | Step::Return(node) => {
                if !self.world.persons[node as usize].stores {
                    self.world.ledger.forget(node);
                }
                self.join(node);
                let now = self.world.net.now();
                self.world.ledger.watch_joiner(now, node);
                self.recount();
            }
            Step::Crash(node) => self.crash(node),
            Step::Publish { measured } => self.publish(measured),
            Step::Begin(index) => self.begin(index),
            Step::Heal => self.heal(),
            Step::Look { shuffles } => self.look(shuffles),
            Step::Probed { look, message } => self.probed(look, message),
            Step::Idle => self.idle = (self.world.net.now(), self.world.net.sent),
            Step::WarmUp => {
                let (since, before) = self.idle;
                self.measures.idle = self.rate(since, &before);
            }
            Step::Measure => self.begun = (self.world.net.now(), self.world.net.sent),
            Step::Measured => {
                let (since, before) = self.begun;
                self.measures.load = self.rate(since, &before);
                self.measures.load_sent = (before, self.world.net.sent);
            }
        }
    }

    /// Bytes that a node sent in a second, on average.
    fn rate(&self, since: Tick, before: &Sent) -> f64 {
        let (now, sent) = (self.world.net.now(), self.world.net.sent);
        let bytes = sent.total() - before.total();
        let nodes = self.world.nodes.iter().filter(|node| node.is_some()).count();
        bytes as f64 / nodes.max(1) as f64 / now.since(since).as_secs_f64().max(1e-6)
    }

    fn join(&mut self, node: Node) {
        let mut contacts = Vec::new();
        let started = self.world.nodes.len();
        for _ in 0..64 {
            let contact = self.world.rng.below(started) as Node;
            let honest = self.world.persons[contact as usize].habit != Habit::Sybil;
            if contact != node
                && honest
                && oracle::is_contact(&self.world.net, contact)
                && !contacts.contains(&contact)
            {
                contacts.push(contact);
            }
            if contacts.len() >= self.scenario.overlay.bootstrap {
                break;
            }
        }
        // The first is known to all, so that nobody begins an overlay of its own.
        if contacts.is_empty() && node != 0 {
            contacts.push(0);
        }
        self.world.start(node, &contacts);
    }

    fn crash(&mut self, node: Node) {
        self.world.crash(node);
        self.world.ledger.unwatch_joiner(node);
        self.recount();
    }

    fn recount(&mut self) {
        if self.world.ledger.is_watching() {
            let nodes = self.world.served();
            self.world.ledger.rewatch(&nodes);
        }
    }

    fn publish(&mut self, measured: bool) {
        let place = self.world.rng.below(self.senders.len());
        let alive = |node: &Node| self.world.nodes[*node as usize].is_some();
        let turn = self.senders.iter().cycle().skip(place).take(self.senders.len());
        let Some(sender) = turn.copied().find(alive) else {
            return self.measures.unpublished += 1;
        };
        let expected = self.world.served_count();
        let order = Order { payload: self.scenario.traffic.payload, measured, expected };
        match self.world.publish(sender, order) {
            None => self.measures.unpublished += 1,
            Some(message) if measured => {
                let every = self.scenario.traffic.messages.div_ceil(MAX_FLOODS).max(1);
                if self.published.is_multiple_of(every) {
                    self.compare(message, sender);
                }
                self.published += 1;
            }
            Some(_) => {}
        }
    }

    /// Computes what a flood would do with a message.
    fn compare(&mut self, message: u32, sender: Node) {
        let persons = &self.world.persons;
        let honest = |node: Node| persons[node as usize].habit == Habit::Honest;
        let flood = oracle::flood(&self.world.net, sender, honest);
        self.world.ledger.messages[message as usize].flood = Some(flood);
    }

    /// Random honest nodes, but not the first, which newcomers are told of.
    fn draw(&mut self, share: f64) -> Vec<Node> {
        let mut nodes = self.world.honest();
        nodes.retain(|node| *node != 0);
        self.world.rng.shuffle(&mut nodes);
        nodes.truncate((nodes.len() as f64 * share).round() as usize);
        nodes
    }

    fn begin(&mut self, index: usize) {
        let now = self.world.net.now();
        match self.scenario.events[index].clone() {
            Event::Kill { share, .. } => {
                self.draw(share).into_iter().for_each(|node| self.crash(node));
                let shuffle = self.scenario.overlay.config().shuffle_interval;
                for shuffles in LOOKS {
                    self.at(now + shuffle * shuffles, Step::Look { shuffles });
                }
            }
            Event::Join { share, over_s, .. } => {
                let first = self.first_spare();
                let count = (f64::from(self.scenario.nodes) * share) as u32;
                for place in 0..count {
                    let at = now + seconds(over_s) * place / count;
                    self.at(at, Step::Arrive(first + place));
                    self.settled = self.settled.max(at);
                }
            }
            Event::Partition { share, for_s, .. } => {
                for node in self.draw(share) {
                    self.world.net.host_mut(node).island = 1;
                }
                self.world.net.cut();
                self.at(now + seconds(for_s), Step::Heal);
            }
            Event::Churn { for_s, rate, down_s, .. } => self.churn(for_s, rate, down_s),
            Event::Flap { for_s, nodes, period_s, .. } => self.flap(for_s, nodes, period_s),
            Event::Restart { down_s, .. } => {
                let stores = |node: &Node| self.world.persons[*node as usize].stores;
                let nodes: Vec<Node> = self.world.honest().into_iter().filter(stores).collect();
                for node in nodes {
                    self.crash(node);
                    self.at(now + seconds(down_s), Step::Return(node));
                }
                self.settled = self.settled.max(now + seconds(down_s));
            }
            Event::Stall { share, for_s, .. } => {
                for node in self.draw(share) {
                    self.world.stall(node, seconds(for_s));
                }
                self.settled = self.settled.max(now + seconds(for_s));
            }
            Event::Slow { nodes, kbit, latency_ms, .. } => {
                let count = f64::from(nodes) / f64::from(self.scenario.nodes);
                for node in self.draw(count) {
                    let host = self.world.net.host_mut(node);
                    host.bandwidth = (kbit * 125.0) as u64;
                    host.extra_latency = (latency_ms * 1000.0) as u32;
                }
            }
        }
    }

    /// The first node that was added for later and has not been started.
    fn first_spare(&self) -> Node {
        let after = self.scenario.nodes as usize;
        let place = self.world.net.hosts[after..].iter().position(|host| host.run == 0);
        (after + place.unwrap_or(0)) as Node
    }

    fn churn(&mut self, for_s: f64, rate: f64, down_s: f64) {
        let now = self.world.net.now();
        let mut nodes = self.draw(1.0);
        // Each node at most once, so that all are back in time.
        nodes.truncate((for_s * rate) as usize);
        for (place, node) in nodes.into_iter().enumerate() {
            let at = now + seconds(place as f64 / rate);
            self.at(at, Step::Crash(node));
            self.at(at + seconds(down_s), Step::Return(node));
            self.settled = self.settled.max(at + seconds(down_s));
        }
    }

    fn flap(&mut self, for_s: f64, nodes: u32, period_s: f64) {
        let now = self.world.net.now();
        let members = self.draw(f64::from(nodes) / f64::from(self.scenario.nodes));
        let rounds = (for_s / (2.0 * period_s)) as u32;
        for node in members {
            for round in 0..rounds {
                let at = now + seconds(2.0 * period_s * f64::from(round));
                self.at(at, Step::Crash(node));
                self.at(at + seconds(period_s), Step::Return(node));
                self.settled = self.settled.max(at + seconds(period_s));
            }
        }
    }

    fn heal(&mut self) {
        self.world.net.hosts.iter_mut().for_each(|host| host.island = 0);
        let (now, nodes) = (self.world.net.now(), self.world.served());
        self.world.ledger.watch(now, &nodes);
        self.settled = self.settled.max(now);
    }

    fn look(&mut self, shuffles: u32) {
        let nodes = self.world.served();
        let (sizes, largest) = oracle::components(&self.world.net, &nodes);
        let connected = sizes.first().copied().unwrap_or(0) as f64 / nodes.len().max(1) as f64;
        let look = self.measures.connectivity.len();
        self.measures.connectivity.push(Connectivity {
            shuffles,
            survivors: nodes.len(),
            components: sizes.len(),
            largest: connected,
            delivery: 0.0,
        });
        // From within the largest component, by somebody who can publish.
        let senders = &self.senders;
        let sender = largest.iter().copied().find(|node| senders.contains(node));
        let expected = nodes.len() as u32;
        let order = Order { payload: self.scenario.traffic.payload, measured: false, expected };
        if let Some(message) = sender.and_then(|sender| self.world.publish(sender, order)) {
            let at = self.world.net.now() + WINDOW;
            self.at(at, Step::Probed { look, message });
        }
    }

    fn probed(&mut self, look: usize, message: u32) {
        let message = &self.world.ledger.messages[message as usize];
        let connectivity = &mut self.measures.connectivity[look];
        let reached = f64::from(message.reached + 1);
        connectivity.delivery = reached / connectivity.survivors.max(1) as f64;
    }

    fn finish(self, seed: u64) -> Report {
        let nodes = self.world.served();
        Report::new(&self.scenario, seed, &self.world, &nodes, self.measures)
    }
}
