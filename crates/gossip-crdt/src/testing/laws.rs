//! The law checker: replicas of a type that write, miss, repeat, crash and come back, and must agree.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use x0x_core::{AgentId, Machine, SeededRng, Tick, TopicId, WallTime};

use crate::{
    config::MAX_CUTS,
    dot::ActorTag,
    metrics::CrdtMetrics,
    object::{Object, WriteContext},
    policy::PolicyChange,
    state::{Entry, Input, ObjectMachine, Output, Prepared},
};

const OBJECT: TopicId = TopicId::new([0x0b; 32]);

/// What is checked, and how often.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Laws {
    /// The first case; the others count on from it. A failure prints its own.
    pub seed: u64,
    /// How many cases.
    pub cases: u64,
    /// Replicas that write.
    pub replicas: usize,
    /// What happens in a case: writes, deliveries, crashes.
    pub steps: usize,
    /// The first replica owns the object, and allows and removes the others.
    pub owned: bool,
    /// The owner makes checkpoints, too, often enough that something can go.
    pub checkpoints: bool,
}

impl Laws {
    /// So many cases of an object without owner, from a seed on.
    #[must_use]
    pub const fn new(seed: u64, cases: u64) -> Self {
        Self { seed, cases, replicas: 3, steps: 24, owned: false, checkpoints: false }
    }

    /// The same with an owner who changes the policy.
    #[must_use]
    pub const fn owned(mut self) -> Self {
        self.owned = true;
        self
    }

    /// The same with checkpoints in longer cases.
    #[must_use]
    pub const fn checkpoints(self) -> Self {
        Self { checkpoints: true, steps: 48, ..self.owned() }
    }
}

/// Checks that replicas which got the same operations are equal, whatever happened on the way: any order
/// that causality allows, repetition, loss that is made good later, crashes with an old snapshot, a
/// replay of everything, and snapshots with only what they do not hold.
///
/// `op` makes a random operation for a state.
///
/// # Panics
/// When a law is broken, with the seed of the case.
pub fn check_laws<T: Object>(
    laws: &Laws,
    mut op: impl FnMut(&mut SeededRng, &T, &WriteContext<'_>) -> T::Op,
) {
    let mut joined = 0;
    for case in 0..laws.cases {
        let seed = laws.seed + case;
        let mut world = World::<T>::new(laws, seed);
        for _ in 0..laws.steps {
            world.step(&mut op);
        }
        joined += u64::from(world.settle(seed));
    }
    let enough = !laws.checkpoints || joined >= laws.cases / 10;
    assert!(enough, "{joined} of {} cases let go of something", laws.cases);
}

#[derive(Debug)]
struct Replica<T: Object> {
    machine: ObjectMachine<T>,
    me: AgentId,
    epoch: u64,
    /// The own chain's length.
    seq: u64,
    saved: Vec<u8>,
    /// How far each chain was delivered.
    delivered: BTreeMap<(AgentId, u64), u64>,
}

#[derive(Debug)]
struct World<T: Object> {
    rng: SeededRng,
    replicas: Vec<Replica<T>>,
    chains: BTreeMap<(AgentId, u64), Vec<Entry>>,
    wall: u64,
    owner: Option<AgentId>,
    checkpoints: bool,
    metrics: Arc<CrdtMetrics>,
}

fn agent(index: usize) -> AgentId {
    AgentId::new([index as u8 + 1; 32])
}

impl<T: Object> World<T> {
    fn new(laws: &Laws, seed: u64) -> Self {
        let owner = laws.owned.then(|| agent(0));
        let metrics = Arc::new(CrdtMetrics::default());
        let replica = |index| {
            let me = agent(index);
            let machine = ObjectMachine::new(OBJECT, owner, me, Arc::clone(&metrics));
            let (saved, delivered) = (machine.save(), BTreeMap::new());
            Replica { machine, me, epoch: 1, seq: 0, saved, delivered }
        };
        let replicas = (0..laws.replicas).map(replica).collect();
        let rng = SeededRng::from_number(seed);
        let (chains, wall, checkpoints) = (BTreeMap::new(), 1_800_000_000_000, laws.checkpoints);
        Self { rng, replicas, chains, wall, owner, checkpoints, metrics }
    }

    fn step(&mut self, op: &mut impl FnMut(&mut SeededRng, &T, &WriteContext<'_>) -> T::Op) {
        let at = self.rng.below(self.replicas.len());
        self.wall += self.rng.range(0, 3);
        let kinds = if self.checkpoints { 16 } else { 12 };
        match self.rng.below(kinds) {
            0..5 => self.write(at, op),
            12..14 => self.write(0, op),
            14..16 => self.read_all(at),
            5..9 => self.deliver(at),
            9 => self.repeat(at),
            10 => self.replicas[at].saved = self.replicas[at].machine.save(),
            _ => self.crash(at),
        }
    }

    fn write(
        &mut self,
        at: usize,
        op: &mut impl FnMut(&mut SeededRng, &T, &WriteContext<'_>) -> T::Op,
    ) {
        // Clocks differ.
        let now = WallTime::from_millis(self.wall + at as u64 * 2);
        let replica = &mut self.replicas[at];
        if replica.machine.rebuilding() {
            return;
        }
        let owns = self.owner == Some(replica.me);
        let prepared: Option<Prepared> = if owns && self.checkpoints && self.rng.chance(0.5) {
            replica.machine.prepare_checkpoint(now)
        } else if owns && self.rng.chance(0.3) {
            let other = agent(1 + self.rng.below(3));
            let change = match self.rng.below(3) {
                0 => {
                    let mut cut = replica.machine.cut(&other);
                    cut.truncate(MAX_CUTS);
                    PolicyChange::Remove { agent: other, cut }
                }
                1 => PolicyChange::Rules { kind: 0, everyone: self.rng.chance(0.7) },
                _ => PolicyChange::Allow { agent: other, admin: self.rng.chance(0.5) },
            };
            replica.machine.prepare_change::<Infallible>(now, change).ok()
        } else {
            let cx = replica.machine.write_context(now);
            let op = op(&mut self.rng, replica.machine.state(), &cx);
            replica.machine.prepare::<Infallible>(now, &op).ok()
        };
        for payload in prepared.into_iter().flat_map(|prepared| prepared.payloads) {
            let replica = &mut self.replicas[at];
            replica.seq += 1;
            let (author, epoch, seq) = (replica.me, replica.epoch, replica.seq);
            let entry = Entry { author, epoch, seq, time: now, payload };
            self.chains.entry((author, epoch)).or_default().push(entry.clone());
            let accepted = Input::Accepted { write: Some(seq), epoch, seq };
            replica.machine.handle(Tick::ZERO, accepted);
            if self.rng.chance(0.8) {
                self.hand(at, entry);
            }
        }
    }

    /// Hands an entry over, and reads from the start when the replica asks for that.
    fn hand(&mut self, at: usize, entry: Entry) {
        let replica = &mut self.replicas[at];
        let chain = replica.delivered.entry((entry.author, entry.epoch)).or_default();
        *chain = (*chain).max(entry.seq);
        replica.machine.handle(Tick::ZERO, Input::Entry(entry));
        while let Some(output) = replica.machine.poll_output() {
            if matches!(output, Output::Reread) {
                replica.delivered.clear();
            }
        }
    }

    /// The next of some chain, or, lost for now, the one after it.
    fn deliver(&mut self, at: usize) {
        let chains: Vec<_> = self.chains.keys().copied().collect();
        if chains.is_empty() {
            return;
        }
        let chain = chains[self.rng.below(chains.len())];
        let from = self.replicas[at].delivered.get(&chain).copied().unwrap_or(0);
        let from = from + u64::from(self.rng.chance(0.15));
        let many = 1 + self.rng.below(4);
        let entries: Vec<Entry> =
            self.chains[&chain].iter().skip(from as usize).take(many).cloned().collect();
        entries.into_iter().for_each(|entry| self.hand(at, entry));
    }

    fn repeat(&mut self, at: usize) {
        let all: usize = self.chains.values().map(Vec::len).sum();
        let one = self.rng.below(all);
        let entry = self.chains.values().flatten().nth(one).cloned();
        entry.into_iter().for_each(|entry| self.hand(at, entry));
    }

    /// Comes back with what was saved last, in a new epoch.
    fn crash(&mut self, at: usize) {
        let owner = self.owner;
        let replica = &mut self.replicas[at];
        let metrics = Arc::clone(&self.metrics);
        let restored = ObjectMachine::load(OBJECT, owner, replica.me, metrics, &replica.saved);
        replica.machine = restored.expect("what was encoded is decoded");
        replica.epoch += 1;
        replica.seq = 0;
        replica.delivered.clear();
    }

    /// Everything reaches everybody, each in an order of its own.
    fn settle(mut self, seed: u64) -> bool {
        let mut hashes = Vec::new();
        let metrics = Arc::clone(&self.metrics);
        let fresh = ObjectMachine::new(OBJECT, self.owner, agent(99), metrics);
        let me = agent(99);
        let (saved, delivered) = (Vec::new(), BTreeMap::new());
        self.replicas.push(Replica { machine: fresh, me, epoch: 1, seq: 0, saved, delivered });
        for at in 0..self.replicas.len() {
            // A replica that is told to read again does so, which may tell it once more.
            for _ in 0..64 {
                self.read_all(at);
                if self.replicas[at].machine.is_settled() {
                    break;
                }
            }
            let replica = &self.replicas[at];
            assert!(replica.machine.is_settled(), "seed {seed}: replica {at} waits for ever");
            let encoded = replica.machine.encode();
            let metrics = Arc::new(CrdtMetrics::default());
            let again = ObjectMachine::<T>::restore(OBJECT, self.owner, me, metrics, &encoded);
            let again = again.expect("what was encoded is decoded").encode();
            assert_eq!(again, encoded, "seed {seed}: a state that was decoded encodes differently");
            hashes.push((replica.machine.hash(), replica.machine.state().clone()));
        }
        for (at, replica) in self.replicas.iter().enumerate() {
            if !replica.saved.is_empty() {
                let tail = self.tail(seed, &replica.saved);
                let same = tail.hash() == replica.machine.hash();
                assert!(same, "seed {seed}: the snapshot of replica {at} and what follows differ");
            }
        }
        let (first, others) = hashes.split_first().expect("there are replicas");
        for (at, other) in others.iter().enumerate() {
            let (a, b) = (&first.1, &other.1);
            let equal = first.0 == other.0;
            assert!(equal, "seed {seed}: replica {} differs: {a:?} and {b:?}", at + 1);
        }
        assert_eq!(self.metrics.checkpoints_refused.value(), 0, "seed {seed}: they are true");
        let hash = first.0;
        self.join_what_was_let_go(seed, hash)
    }

    /// Who comes when nothing is left of what the checkpoint before the last covers has it all, too.
    fn join_what_was_let_go(&mut self, seed: u64, hash: [u8; 32]) -> bool {
        let gone = self.replicas[0].machine.let_go();
        let kept = |entry: &&Entry| {
            let chain =
                gone.iter().find(|(id, epoch, _)| (*id, *epoch) == (entry.author, entry.epoch));
            chain.is_none_or(|(_, _, upto)| entry.seq > *upto)
        };
        if gone.is_empty() {
            return false;
        }
        let rest: Vec<Entry> = self.chains.values().flatten().filter(kept).cloned().collect();
        let metrics = Arc::clone(&self.metrics);
        let mut joiner = ObjectMachine::<T>::new(OBJECT, self.owner, agent(98), metrics);
        let mut now = Tick::ZERO;
        for _ in 0..64 {
            for entry in &rest {
                joiner.handle(now, Input::Entry(entry.clone()));
                while joiner.poll_output().is_some() {}
            }
            if joiner.is_settled() && joiner.hash() == hash {
                return true;
            }
            now = now + Duration::from_secs(6);
            joiner.handle_timeout(now);
        }
        panic!("seed {seed}: who joins late does not have it all");
    }

    /// A snapshot and only the operations that it does not hold, a chain after the other; all of them where
    /// it asks for that, since one of the rest takes back what it holds.
    fn tail(&self, seed: u64, saved: &[u8]) -> ObjectMachine<T> {
        let metrics = Arc::new(CrdtMetrics::default());
        let restored = ObjectMachine::load(OBJECT, self.owner, agent(99), metrics, saved);
        let mut machine: ObjectMachine<T> = restored.expect("what was encoded is decoded");
        let holds = |machine: &ObjectMachine<T>, entry: &Entry| {
            let actor = ActorTag::of(&entry.author, entry.epoch);
            machine.cut(&entry.author).iter().any(|dot| dot.actor == actor && entry.seq <= dot.seq)
        };
        let rest: Vec<Entry> = self.chains.values().flatten().cloned().collect();
        let rest: Vec<Entry> = rest.into_iter().filter(|entry| !holds(&machine, entry)).collect();
        let outputs = std::iter::from_fn(|| machine.poll_output());
        let mut again = outputs.filter(|output| matches!(output, Output::Reread)).count() > 0;
        let hand = |machine: &mut ObjectMachine<T>, entry: Entry| {
            machine.handle(Tick::ZERO, Input::Entry(entry));
            let outputs = std::iter::from_fn(|| machine.poll_output());
            outputs.filter(|output| matches!(output, Output::Reread)).count() > 0
        };
        rest.into_iter().for_each(|entry| again |= hand(&mut machine, entry));
        assert!(!again || self.owner.is_some(), "seed {seed}: nobody could be removed");
        while again {
            again = false;
            for entry in self.chains.values().flatten() {
                again |= hand(&mut machine, entry.clone());
            }
        }
        assert!(machine.is_settled(), "seed {seed}: a snapshot waits for what it holds");
        machine
    }

    fn read_all(&mut self, at: usize) {
        self.replicas[at].delivered.clear();
        let mut chains: Vec<Vec<Entry>> = self.chains.values().cloned().collect();
        chains.iter_mut().for_each(|chain| chain.reverse());
        while !chains.is_empty() {
            let chain = self.rng.below(chains.len());
            match chains[chain].pop() {
                Some(entry) => self.hand(at, entry),
                None => drop(chains.swap_remove(chain)),
            }
        }
    }
}
