//! A small model of replicas for tests of types: agents write at random with what they have seen, and what
//! they wrote is applied in many orders that respect causality.

use std::collections::BTreeMap;

use x0x_core::{AgentId, SeededRng, WallTime};

use crate::{
    ActorTag, Decoder, Dot, Encoder, Object, OpContext, Policy, Stamp, WriteContext, object::Past,
};

/// A causal past: the last operation of each actor.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen(BTreeMap<ActorTag, u64>);

impl Past for Seen {
    fn sees(&self, dot: Dot) -> bool {
        self.0.get(&dot.actor).is_some_and(|seq| dot.seq <= *seq)
    }
}

/// An operation with all that its application needs.
#[derive(Debug, Clone)]
pub(crate) struct Written<T: Object> {
    pub(crate) author: AgentId,
    pub(crate) stamp: Stamp,
    past: Seen,
    op: T::Op,
}

/// One agent's copy.
#[derive(Debug, Clone)]
pub(crate) struct Copy<T: Object> {
    pub(crate) agent: AgentId,
    pub(crate) state: T,
    seen: Seen,
    clock: u64,
    pub(crate) invalid: usize,
    pub(crate) events: Vec<T::Event>,
}

impl<T: Object> Copy<T> {
    pub(crate) fn new(number: u8) -> Self {
        Self {
            agent: agent(number),
            state: T::default(),
            seen: Seen::default(),
            clock: 1000,
            invalid: 0,
            events: Vec::new(),
        }
    }

    /// Moves the clock on.
    pub(crate) fn wait(&mut self, millis: u64) {
        self.clock += millis;
    }

    pub(crate) fn now(&self) -> WallTime {
        WallTime::from_millis(self.clock)
    }

    pub(crate) fn context<'a>(&self, policy: &'a Policy) -> WriteContext<'a> {
        WriteContext { me: self.agent, now: self.now(), policy }
    }

    /// Writes an operation here.
    pub(crate) fn write(&mut self, policy: &Policy, op: &T::Op) -> Written<T> {
        let actor = ActorTag::of(&self.agent, 1);
        let seq = self.seen.0.get(&actor).copied().unwrap_or(0) + 1;
        let stamp = Stamp { millis: self.clock, dot: Dot { actor, seq } };
        let op = T::decode_op(&T::encode_op(op)).expect("what is written can be read");
        let written = Written { author: self.agent, stamp, past: self.seen.clone(), op };
        self.apply(policy, &written);
        written
    }

    /// Whether all is here that an operation builds on, and it is not.
    pub(crate) fn awaits(&self, written: &Written<T>) -> bool {
        let Stamp { dot, .. } = written.stamp;
        let next = self.seen.0.get(&dot.actor).copied().unwrap_or(0) + 1;
        let past = &written.past.0;
        dot.seq == next && past.iter().all(|(actor, seq)| self.seen.0.get(actor) >= Some(seq))
    }

    pub(crate) fn apply(&mut self, policy: &Policy, written: &Written<T>) {
        let Stamp { millis, dot } = written.stamp;
        let cx = OpContext {
            dot,
            author: written.author,
            stamp: written.stamp,
            policy,
            past: &written.past,
        };
        match self.state.check(&cx, &written.op) {
            Ok(()) => self.state.apply(&cx, written.op.clone(), &mut self.events),
            Err(_) => self.invalid += 1,
        }
        self.seen.0.insert(dot.actor, dot.seq);
        self.clock = self.clock.max(millis + 1);
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        self.state.encode_state(&mut encoder);
        encoder.finish()
    }
}

pub(crate) fn agent(number: u8) -> AgentId {
    AgentId::new([number; 32])
}

/// Applies operations in a random order that respects causality; on the way the state goes through its
/// encoding now and then.
pub(crate) fn replay<T: Object>(
    policy: &Policy,
    all: &[Written<T>],
    rng: &mut SeededRng,
) -> Copy<T> {
    let mut copy = Copy::<T>::new(0xff);
    let mut left: Vec<_> = all.iter().collect();
    rng.shuffle(&mut left);
    while !left.is_empty() {
        let next =
            left.iter().position(|written| copy.awaits(written)).expect("one can be applied");
        copy.apply(policy, left.swap_remove(next));
        if rng.chance(0.1) {
            let bytes = copy.bytes();
            let mut decoder = Decoder::new(&bytes);
            let size = copy.state.size();
            copy.state = T::decode_state(&mut decoder).expect("a state can be read");
            decoder.finish().expect("all of it");
            assert_eq!((copy.bytes(), copy.state.size()), (bytes, size), "as it was");
        }
    }
    copy
}

/// Lets copies write at random and meet at random, then checks that every order gives the same.
/// The seed is printed where that fails.
pub(crate) fn converges<T: Object>(
    cases: u64,
    policy: &Policy,
    mut op: impl FnMut(&Copy<T>, &Policy, &mut SeededRng) -> Option<T::Op>,
) {
    for seed in 0..cases {
        let mut rng = SeededRng::from_number(seed);
        let mut copies: Vec<_> = (1..4).map(Copy::<T>::new).collect();
        let mut all: Vec<Written<T>> = Vec::new();
        for _ in 0..16 {
            let at = rng.below(copies.len());
            let copy = &mut copies[at];
            copy.wait(rng.range(0, 2500));
            if rng.chance(0.6) {
                if let Some(op) = op(copy, policy, &mut rng) {
                    all.push(copy.write(policy, &op));
                }
            } else {
                let amount = rng.below(all.len() + 1);
                for written in all.iter().take(amount) {
                    if copy.awaits(written) {
                        copy.apply(policy, written);
                    }
                }
            }
        }
        let first = replay(policy, &all, &mut rng);
        let second = replay(policy, &all, &mut rng);
        assert_eq!(first.bytes(), second.bytes(), "seed {seed}: {all:#?}");
        assert_eq!(first.invalid, second.invalid, "seed {seed}: {all:#?}");
        for mut copy in copies {
            while let Some(next) = all.iter().find(|written| copy.awaits(written)) {
                copy.apply(policy, next);
            }
            assert_eq!(copy.bytes(), first.bytes(), "seed {seed}: {all:#?}");
        }
    }
}
